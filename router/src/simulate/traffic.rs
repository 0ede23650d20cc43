//! Draws the windows of one rollout. Exact: counts are binomial and Poisson, sums are of single draws; nothing is a normal approximation.
//!
//! Invariant: the same scenario and seed give the same windows, whoever else runs.

use rand_distr::{Binomial, Distribution as _, Poisson};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use switchback_policy::rollback::{Bucket, Metric, Slice, Step, Tally, Window};

use super::exact::normal_below;
use super::scenario::{MATURITY_SECONDS, Rates, Scenario};
use super::users::Users;

/// Equally likely values of a distribution that is drawn from by table; 14 bits of a random word each.
pub(super) const TABLE: usize = 1 << 14;
const TABLE_BITS: u32 = 14;
const DRAWS_PER_WORD: u32 = 64 / TABLE_BITS;
/// Latency: half of the queries take this long at most; ln(p99/p50) over the normal's 99th percentile is the spread.
const P50_MS: f64 = 30.0;
const P99_MS: f64 = 100.0;
const Z99: f64 = 2.326_347_874_040_841;
const Z90: f64 = 1.281_551_565_544_600_4;
/// Windows between two steps of a ramp.
const RAMP_WINDOWS: u64 = 60;

/// A scenario with its distributions as tables.
pub(super) struct Model {
    pub(super) scenario: Scenario,
    /// Upper edges of latency buckets, in microseconds.
    edges: Vec<u64>,
    base: Tables,
    harm: Tables,
}

struct Tables {
    rates: Rates,
    /// The bucket of each equally likely latency.
    latency: Vec<u16>,
    quality: Vec<f64>,
}

impl Model {
    pub(super) fn new(scenario: &Scenario) -> Model {
        let edges: Vec<u64> = (0..240).map(|k| (1_000.0 * 1.05_f64.powi(k)) as u64).collect();
        let normal = normal_quantiles();
        let tables = |rates: Rates| Tables {
            rates,
            latency: normal.iter().map(|z| bucket_of(&edges, latency_ms(*z, rates.p99_ms))).collect(),
            quality: (0..TABLE).map(|i| quality(quantile(i), rates.quality)).collect(),
        };
        let (base, harm) = (tables(scenario.base), tables(scenario.harm.unwrap_or(scenario.base)));
        Model { scenario: scenario.clone(), edges, base, harm }
    }
}

fn quantile(i: usize) -> f64 {
    (i as f64 + 0.5) / TABLE as f64
}

/// Lognormal; what lies above the 90th percentile is stretched, away from that, so that the 99th is as wanted.
fn latency_ms(z: f64, p99_ms: f64) -> f64 {
    let spread = (P99_MS / P50_MS).ln() / Z99;
    let plain = P50_MS * (spread * z).exp();
    let p90 = P50_MS * (spread * Z90).exp();
    if plain <= p90 { plain } else { p90 + (plain - p90) * (p99_ms - p90) / (P99_MS - p90) }
}

/// Beta(1, 2/3), whose mean is 0.6, scaled to another mean.
fn quality(u: f64, mean: f64) -> f64 {
    ((1.0 - (1.0 - u).powf(1.5)) * mean / 0.6).min(1.0)
}

fn bucket_of(edges: &[u64], ms: f64) -> u16 {
    let at = edges.partition_point(|edge| (*edge as f64) < ms * 1e3).min(edges.len() - 1);
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// Normal quantiles of the table's places, in order: Newton's method from the one before.
fn normal_quantiles() -> Vec<f64> {
    let mut z = -4.5;
    let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let mut next = |i: usize| {
        for _ in 0..50 {
            let step = (normal_below(z) - quantile(i)) / density(z);
            z -= step.clamp(-0.5, 0.5);
            if step.abs() < 1e-12 {
                break;
            }
        }
        z
    };
    (0..TABLE).map(&mut next).collect()
}

/// The windows of one rollout, one after the other.
pub(super) struct Traffic<'m> {
    model: &'m Model,
    rng: Xoshiro256PlusPlus,
    next: u64,
    /// Clicks that have not arrived, per role.
    late_clicks: [u64; 2],
    users: [Users; 2],
    buckets: Vec<[u64; 2]>,
    /// The traffic slice of the window drawn last.
    pub(super) traffic: Window,
    /// Its engagement slice; `None` for a local breaker.
    pub(super) engagement: Option<Window>,
}

/// What one role did in a window.
#[derive(Clone, Copy, Default)]
pub(super) struct Drawn {
    n: u64,
    errors: u64,
    timeouts: u64,
    zero_results: u64,
    pub(super) answers: u64,
    clicks: u64,
    quality: (f64, f64),
}

impl<'m> Traffic<'m> {
    pub(super) fn new(model: &'m Model, seed: u64, rollout: u64) -> Traffic<'m> {
        let scenario = &model.scenario;
        // SplitMix64, which seeds the generator, keeps neighbouring seeds apart.
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ rollout.wrapping_mul(0xd134_2543_de82_ef95));
        let traffic = empty_window(scenario, Slice::Traffic, &["errors", "timeouts", "zero-results"]);
        let engagement = (!scenario.errors_only).then(|| empty_window(scenario, Slice::Engagement, &["clicks", "quality"]));
        let mut traffic = Traffic {
            model,
            rng,
            next: 0,
            late_clicks: [0; 2],
            users: [Users::new(scenario, scenario.share), Users::new(scenario, 1.0 - scenario.share)],
            buckets: vec![[0; 2]; model.edges.len()],
            traffic,
            engagement,
        };
        if scenario.errors_only {
            traffic.traffic.metrics.truncate(2);
        }
        traffic
    }

    /// Draws the next window; the first ones have control alone.
    pub(super) fn advance(&mut self) {
        let model = self.model;
        let scenario = &model.scenario;
        let index = self.next;
        self.next += 1;
        let at = index.checked_sub(scenario.warm_up);
        let share = at.map_or(0.0, |at| share_at(scenario, at));
        let is_harmed = at.is_some_and(|at| at >= scenario.onset);
        let mean = scenario.requests_per_second * f64::from(scenario.window_ms) / 1e3;
        let total = self.poisson(mean);
        let candidate_n = self.binomial(total, share);
        let tables = [if is_harmed { &model.harm } else { &model.base }, &model.base];
        let drawn = [self.draw(0, candidate_n, tables[0], at), self.draw(1, total - candidate_n, tables[1], at)];
        self.fill_traffic(index, share, &drawn);
        self.draw_latency(&drawn, tables);
        self.fill_engagement(&drawn);
    }

    /// Whether the window drawn last is one of the rollout, and which.
    pub(super) fn window_of_rollout(&self) -> Option<u64> {
        self.next.checked_sub(self.model.scenario.warm_up + 1)
    }

    fn draw(&mut self, role: usize, n: u64, tables: &Tables, at: Option<u64>) -> Drawn {
        let model = self.model;
        let scenario = &model.scenario;
        let outage = scenario.outage.filter(|outage| at.is_some_and(|at| (outage.from..outage.until).contains(&at)));
        let rates = tables.rates;
        let errors = self.binomial(n, outage.map_or(rates.errors, |outage| outage.errors.max(rates.errors)));
        let timeouts = if rates.timeouts > 0.0 { self.binomial(n - errors, rates.timeouts / (1.0 - rates.errors)) } else { 0 };
        let mut drawn = Drawn { n, errors, timeouts, ..Drawn::default() };
        if scenario.errors_only {
            return drawn;
        }
        drawn.answers = n - errors - timeouts;
        drawn.zero_results = self.binomial(drawn.answers, rates.zero_results);
        let drift = scenario.clicks_until.map_or(0.0, |until| until - scenario.base.clicks);
        let click_rate = rates.clicks + drift * at.map_or(0.0, |at| at as f64 / scenario.windows as f64);
        if scenario.queries_per_user > 1 {
            let Some(users) = self.users.get_mut(role) else { return drawn };
            let (clicks, quality) = users.ask(&mut self.rng, drawn.answers, scenario, click_rate, &tables.quality);
            (drawn.clicks, drawn.quality) = (clicks, quality);
        } else {
            drawn.clicks = self.binomial(drawn.answers, click_rate);
            drawn.quality = self.sum_of(drawn.answers, &tables.quality);
        }
        drawn.clicks = self.arrive(role, drawn.clicks);
        drawn
    }

    /// Clicks that are counted: those that are not too late, in the window of their answer; or, by mistake, those that arrive now.
    fn arrive(&mut self, role: usize, clicks: u64) -> u64 {
        let model = self.model;
        let scenario = &model.scenario;
        let delay = scenario.click_delay_seconds;
        if delay == 0.0 {
            return clicks;
        }
        if !scenario.counts_on_arrival {
            return self.binomial(clicks, 1.0 - (-MATURITY_SECONDS / delay).exp());
        }
        let window = f64::from(scenario.window_ms) / 1e3;
        let Some(waiting) = self.late_clicks.get(role).copied() else { return clicks };
        let waiting = waiting + clicks;
        let arrived = self.binomial(waiting, 1.0 - (-window / delay).exp());
        if let Some(slot) = self.late_clicks.get_mut(role) {
            *slot = waiting - arrived;
        }
        arrived
    }

    fn fill_traffic(&mut self, index: u64, share: f64, drawn: &[Drawn; 2]) {
        let model = self.model;
        let scenario = &model.scenario;
        let ppm = (share * 1e6).round() as u32;
        let step = scenario.share_until.map_or(0, |_| index.saturating_sub(scenario.warm_up) / RAMP_WINDOWS);
        for window in [Some(&mut self.traffic), self.engagement.as_mut()].into_iter().flatten() {
            window.index = index;
            window.step = Step { index: u32::try_from(step).unwrap_or(u32::MAX), share_ppm: ppm, is_last: false };
            window.share_ppm = Some(ppm);
            (window.candidate_requests, window.control_requests) = (drawn[0].n, drawn[1].n);
        }
        let events = |n: u64, events: u64| Tally { n, sum: events as f64, sumsq: events as f64 };
        for metric in &mut self.traffic.metrics {
            let tally = |drawn: &Drawn| match metric.id.as_str() {
                "errors" => events(drawn.n, drawn.errors),
                "timeouts" => events(drawn.n, drawn.timeouts),
                _ => events(drawn.answers, drawn.zero_results),
            };
            (metric.candidate, metric.control) = (tally(&drawn[0]), tally(&drawn[1]));
        }
    }

    fn fill_engagement(&mut self, drawn: &[Drawn; 2]) {
        let Some(window) = &mut self.engagement else { return };
        let [candidate_users, control_users] = &mut self.users;
        for metric in &mut window.metrics {
            let is_clicks = metric.id == "clicks";
            let tally = |drawn: &Drawn| match is_clicks {
                true => Tally { n: drawn.answers, sum: drawn.clicks as f64, sumsq: drawn.clicks as f64 },
                false => Tally { n: drawn.answers, sum: drawn.quality.0, sumsq: drawn.quality.1 },
            };
            (metric.candidate, metric.control) = (tally(&drawn[0]), tally(&drawn[1]));
            candidate_users.report(is_clicks, &mut metric.candidate_groups);
            control_users.report(is_clicks, &mut metric.control_groups);
        }
    }

    fn draw_latency(&mut self, drawn: &[Drawn; 2], tables: [&Tables; 2]) {
        if self.model.scenario.errors_only {
            return;
        }
        self.buckets.fill([0; 2]);
        for (role, (drawn, tables)) in drawn.iter().zip(tables).enumerate() {
            let buckets = &mut self.buckets;
            each_index(&mut self.rng, drawn.n, |at| {
                let bucket = tables.latency.get(at).copied().unwrap_or_default();
                if let Some(count) = buckets.get_mut(usize::from(bucket)).and_then(|counts| counts.get_mut(role)) {
                    *count += 1;
                }
            });
        }
        self.traffic.latency.clear();
        let occupied = self.buckets.iter().zip(&self.model.edges).filter(|(counts, _)| **counts != [0; 2]);
        let bucket =
            |([candidate, control], edge): (&[u64; 2], &u64)| Bucket { upper_micros: *edge, candidate: *candidate, control: *control };
        self.traffic.latency.extend(occupied.map(bucket));
    }

    fn sum_of(&mut self, n: u64, table: &[f64]) -> (f64, f64) {
        let (mut sum, mut squares) = (0.0, 0.0);
        each_index(&mut self.rng, n, |at| {
            let value = table.get(at).copied().unwrap_or_default();
            sum += value;
            squares += value * value;
        });
        (sum, squares)
    }

    fn binomial(&mut self, n: u64, p: f64) -> u64 {
        binomial(&mut self.rng, n, p)
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        Poisson::new(mean).map_or(0, |poisson| poisson.sample(&mut self.rng) as u64)
    }
}

pub(super) fn binomial(rng: &mut Xoshiro256PlusPlus, n: u64, p: f64) -> u64 {
    if n == 0 || p <= 0.0 {
        return 0;
    }
    Binomial::new(n, p.min(1.0)).map_or(0, |binomial| binomial.sample(rng))
}

/// Calls `with` for `n` independent places of a table.
fn each_index(rng: &mut Xoshiro256PlusPlus, n: u64, mut with: impl FnMut(usize)) {
    let mut left = n;
    while left > 0 {
        let mut word = rng.next_u64();
        for _ in 0..left.min(u64::from(DRAWS_PER_WORD)) {
            with(word as usize & (TABLE - 1));
            word >>= TABLE_BITS;
        }
        left = left.saturating_sub(u64::from(DRAWS_PER_WORD));
    }
}

/// A share in this window of the rollout.
fn share_at(scenario: &Scenario, at: u64) -> f64 {
    let Some(until) = scenario.share_until else { return scenario.share };
    let steps = (scenario.windows / RAMP_WINDOWS).max(2) - 1;
    scenario.share + (until - scenario.share) * ((at / RAMP_WINDOWS) as f64 / steps as f64).min(1.0)
}

fn empty_window(scenario: &Scenario, slice: Slice, ids: &[&str]) -> Window {
    let tally = Tally { n: 0, sum: 0.0, sumsq: 0.0 };
    let metric = |id: &&str| Metric {
        id: (*id).to_owned(),
        candidate: tally,
        control: tally,
        candidate_groups: Vec::new(),
        control_groups: Vec::new(),
    };
    Window {
        index: 0,
        length_ms: scenario.window_ms,
        slice,
        step: Step { index: 0, share_ppm: 0, is_last: false },
        share_ppm: None,
        candidate_requests: 0,
        control_requests: 0,
        metrics: ids.iter().map(metric).collect(),
        latency: Vec::new(),
    }
}

/// Windows of a rollout without harm, for measuring what an evaluation costs: traffic and engagement in turns.
#[must_use]
pub fn windows_of(scenario: &Scenario, seed: u64) -> Vec<Window> {
    let model = Model::new(scenario);
    let mut traffic = Traffic::new(&model, seed, 0);
    let mut windows = Vec::new();
    for _ in 0..scenario.warm_up + scenario.windows {
        traffic.advance();
        windows.push(traffic.traffic.clone());
        windows.extend(traffic.engagement.clone());
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_the_quantiles_means_and_spread_that_they_say() {
        let normal = normal_quantiles();
        let at = |part: f64| normal[(part * TABLE as f64) as usize];
        for (p99, wanted) in [(100.0, 100.0), (150.0, 150.0)] {
            assert!((latency_ms(at(0.99), p99) / wanted - 1.0).abs() < 0.01, "{}", latency_ms(at(0.99), p99));
            assert!((latency_ms(at(0.5), p99) / P50_MS - 1.0).abs() < 0.001);
            assert_eq!(latency_ms(at(0.89), p99), latency_ms(at(0.89), P99_MS));
        }
        for mean in [0.6, 0.55] {
            let values: Vec<f64> = (0..TABLE).map(|i| quality(quantile(i), mean)).collect();
            let found = values.iter().sum::<f64>() / TABLE as f64;
            let spread = (values.iter().map(|value| value * value).sum::<f64>() / TABLE as f64 - found * found).sqrt();
            assert!((found - mean).abs() < 1e-6 && (spread - 0.5 * mean).abs() < 1e-4, "{found} and {spread}");
        }
    }

    #[test]
    fn what_is_drawn_has_the_moments_of_the_exact_distributions() {
        let scenario = Scenario { windows: 4_000, ..Scenario::default() };
        let windows = windows_of(&scenario, 11);
        let of = |id: &str| -> (f64, f64, f64) {
            let metrics = windows.iter().flat_map(|window| &window.metrics).filter(|metric| metric.id == id);
            let rates: Vec<(f64, f64)> = metrics.map(|metric| (metric.control.n as f64, metric.control.sum)).collect();
            let (n, sum): (f64, f64) = rates.iter().fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
            let mean = sum / n;
            // Standardised, so that it is 1 for independent draws of the stated variance.
            let variance = rates.iter().map(|(n, sum)| (sum - n * mean) * (sum - n * mean) / n).sum::<f64>() / rates.len() as f64;
            (mean, variance, n)
        };
        for (id, mean, variance) in
            [("errors", 0.001, 0.000_999), ("zero-results", 0.02, 0.0196), ("clicks", 0.3, 0.21), ("quality", 0.6, 0.09)]
        {
            let (found, spread, n) = of(id);
            assert!((found - mean).abs() < 4.0 * (variance / n).sqrt(), "{id}: {found}");
            assert!((spread / variance - 1.0).abs() < 0.12, "{id}: {spread}");
        }
        let requests: Vec<f64> = windows.iter().step_by(2).skip(20).map(|window| window.candidate_requests as f64).collect();
        let mean = requests.iter().sum::<f64>() / requests.len() as f64;
        let variance = requests.iter().map(|n| (n - mean) * (n - mean)).sum::<f64>() / requests.len() as f64;
        assert!((mean - 50.0).abs() < 0.5 && (variance / mean - 1.0).abs() < 0.1, "{mean} and {variance}");
    }
}
