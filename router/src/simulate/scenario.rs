//! What traffic and what harm a rollout meets: the rows of docs/STATISTICS.md by name, and one's own.

use serde::{Deserialize, Serialize};

/// Rates of one role.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Part of the attempts that fail.
    pub errors: f64,
    /// Part of the attempts that time out.
    pub timeouts: f64,
    /// Part of the answers without a result.
    pub zero_results: f64,
    /// Clicks per answer.
    pub clicks: f64,
    /// Mean quality of an answer; the spread is that of a Beta(1, 2/3) about 0.6, a standard deviation of 0.3.
    pub quality: f64,
    /// Milliseconds at the 99th percentile. Above the 90th, latencies are stretched on the logarithm's scale; below they stay.
    pub p99_ms: f64,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { errors: 0.001, timeouts: 0.0, zero_results: 0.02, clicks: 0.3, quality: 0.6, p99_ms: 100.0 }
    }
}

/// Both roles fail for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// First window.
    pub from: u64,
    /// The window after the last.
    pub until: u64,
    /// Part of the attempts that fail in it.
    pub errors: f64,
}

/// One kind of rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Requests a second, of both roles.
    pub requests_per_second: f64,
    /// The candidate's share.
    pub share: f64,
    /// The share grows to this in equal steps of 60 windows, where it is given.
    pub share_until: Option<f64>,
    /// Length of a window.
    pub window_ms: u32,
    /// Windows of the rollout.
    pub windows: u64,
    /// Windows with control alone before it.
    pub warm_up: u64,
    /// The window in which the harm begins, from 0.
    pub onset: u64,
    /// Rates of control, and of the candidate before the harm.
    pub base: Rates,
    /// Rates of the candidate from then on; `None` for a candidate that does none.
    pub harm: Option<Rates>,
    /// Click rate of both roles at the end, reached in a straight line; `None` for one that stays.
    pub clicks_until: Option<f64>,
    /// Both roles fail for a while.
    pub outage: Option<Outage>,
    /// Mean of the exponential delay of a click.
    pub click_delay_seconds: f64,
    /// Whether clicks are counted in the window in which they arrive, not in that of their answer: the mistake to show.
    pub counts_on_arrival: bool,
    /// Correlation of clicks, and of quality, between queries of one user.
    pub icc: f64,
    /// Queries of one user; 1 for independent ones.
    pub queries_per_user: u32,
    /// Errors and timeouts alone, as a router's local breaker has them.
    pub errors_only: bool,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "own".to_owned(),
            requests_per_second: 500.0,
            share: 0.1,
            share_until: None,
            window_ms: 1_000,
            windows: 1_800,
            warm_up: 20,
            onset: 0,
            base: Rates::default(),
            harm: None,
            clicks_until: None,
            outage: None,
            click_delay_seconds: 0.0,
            counts_on_arrival: false,
            icc: 0.0,
            queries_per_user: 1,
            errors_only: false,
        }
    }
}

/// When a click is mature, and later ones are not counted.
pub(super) const MATURITY_SECONDS: f64 = 60.0;

/// What a row promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Promise {
    /// At most this part of the rollouts is rolled back.
    FalseAlarms(f64),
    /// The harm is seen after so many canary samples and seconds, median and p95.
    Detection {
        /// Canary samples; `None` where only seconds were promised.
        samples: Option<[f64; 2]>,
        /// Seconds of data: before the seal, or the maturity of clicks. `None` for a p95 that was not promised.
        seconds: (f64, Option<f64>),
    },
}

/// A named scenario with what is promised of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The scenario.
    pub scenario: Scenario,
    /// The promise.
    pub promise: Promise,
}

/// Every named scenario.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = good_candidates();
    for (rate, per) in [(50.0, "50"), (500.0, "500")] {
        rows.extend(harms().into_iter().map(|(name, harm, samples, at_50, at_500)| {
            let (median, p95) = if rate == 50.0 { at_50 } else { at_500 };
            let requests_per_second = rate / 0.1;
            let windows = if rate == 50.0 { 1_800 } else { 300 };
            let scenario =
                Scenario { name: format!("{name}-at-{per}"), requests_per_second, windows, harm: Some(harm), ..Scenario::default() };
            // Half a window's requests pass before a harm can be seen at all, so samples were promised at the finer resolution.
            let samples = (rate == 50.0).then_some(samples);
            Row { scenario, promise: Promise::Detection { samples, seconds: (median, Some(p95)) } }
        }));
    }
    rows.push(Row {
        scenario: Scenario {
            name: "errors-20-breaker-windows".to_owned(),
            requests_per_second: 1_000.0,
            window_ms: 250,
            windows: 400,
            harm: Some(Rates { errors: 0.20, ..Rates::default() }),
            errors_only: true,
            ..Scenario::default()
        },
        promise: Promise::Detection { samples: Some([28.0, 57.0]), seconds: (0.25, Some(0.5)) },
    });
    rows.extend(late_harms());
    rows
}

fn good_candidates() -> Vec<Row> {
    let row = |name: &str, most: f64, scenario: Scenario| Row {
        scenario: Scenario { name: name.to_owned(), ..scenario },
        promise: Promise::FalseAlarms(most),
    };
    let outage = Outage { from: 0, until: 1_800, errors: 0.03 };
    let drift = Scenario { share: 0.05, share_until: Some(0.5), clicks_until: Some(0.24), ..Scenario::default() };
    let late = Scenario { share: 0.05, share_until: Some(0.5), click_delay_seconds: 20.0, ..Scenario::default() };
    let breaker = Scenario { requests_per_second: 1_000.0, window_ms: 250, windows: 7_200, errors_only: true, ..Scenario::default() };
    vec![
        row("aa-five-metrics", 0.005, Scenario::default()),
        row("aa-drift-in-ramp", 0.01, drift),
        row("aa-shared-outage", 0.01, Scenario { outage: Some(outage), ..Scenario::default() }),
        row("aa-late-clicks", 0.01, late),
        row("aa-clustered", 0.01, Scenario { icc: 0.2, queries_per_user: 10, ..Scenario::default() }),
        row("aa-local-breaker", 0.001, breaker),
    ]
}

type Harm = (&'static str, Rates, [f64; 2], (f64, f64), (f64, f64));

/// Name, rates, samples, and seconds at 50 and at 500 canary requests a second: median and p95.
fn harms() -> Vec<Harm> {
    let base = Rates::default();
    vec![
        ("errors-1", Rates { errors: 0.01, ..base }, [714.0, 1_636.0], (14.0, 33.0), (2.0, 4.0)),
        ("errors-5", Rates { errors: 0.05, ..base }, [110.0, 220.0], (2.0, 4.0), (1.0, 1.0)),
        ("clicks-28.5", Rates { clicks: 0.285, ..base }, [17_983.0, 33_435.0], (360.0, 671.0), (39.0, 71.0)),
        ("clicks-27", Rates { clicks: 0.27, ..base }, [4_818.0, 8_677.0], (96.0, 174.0), (11.0, 18.0)),
        ("quality-0.58", Rates { quality: 0.58, ..base }, [4_878.0, 9_002.0], (97.0, 177.0), (10.0, 19.0)),
        ("quality-0.55", Rates { quality: 0.55, ..base }, [961.0, 1_723.0], (19.0, 34.0), (2.0, 4.0)),
        ("p99-150", Rates { p99_ms: 150.0, ..base }, [682.0, 1_305.0], (14.0, 26.0), (2.0, 3.0)),
    ]
}

fn late_harms() -> Vec<Row> {
    let base = Rates::default();
    let harms = [
        ("late-errors-5", Rates { errors: 0.05, ..base }, 4.0),
        ("late-clicks-24", Rates { clicks: 0.24, ..base }, 40.0),
        ("late-quality-0.55", Rates { quality: 0.55, ..base }, 33.0),
    ];
    let late = |(name, harm, median): (&str, Rates, f64)| Row {
        scenario: Scenario { name: name.to_owned(), windows: 2_400, onset: 1_800, harm: Some(harm), ..Scenario::default() },
        promise: Promise::Detection { samples: None, seconds: (median, None) },
    };
    harms.map(late).to_vec()
}

impl Scenario {
    /// What makes no sense in it.
    ///
    /// # Errors
    /// The key, its value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let outage = self.outage.map_or(0.0, |outage| outage.errors);
        let mut parts = vec![("share", self.share), ("icc", self.icc), ("outage.errors", outage)];
        parts.extend(self.share_until.map(|share| ("share_until", share)));
        parts.extend(self.clicks_until.map(|clicks| ("clicks_until", clicks)));
        for rates in [Some(self.base), self.harm].into_iter().flatten() {
            let Rates { errors, timeouts, zero_results, clicks, quality, p99_ms } = rates;
            parts.extend([("errors", errors), ("timeouts", timeouts), ("errors and timeouts", errors + timeouts)]);
            parts.extend([("zero_results", zero_results), ("clicks", clicks), ("quality", quality)]);
            if !(60.0..=60_000.0).contains(&p99_ms) {
                return Err(format!("p99_ms = {p99_ms}: must be 60 to 60000; the 90th percentile is at 58"));
            }
        }
        if let Some((key, part)) = parts.into_iter().find(|(_, part)| !(0.0..=1.0).contains(part)) {
            return Err(format!("{key} = {part}: must be 0 to 1"));
        }
        let bounds = [
            ("requests_per_second", self.requests_per_second, 0.01, 1e6),
            ("window_ms", f64::from(self.window_ms), 10.0, 60_000.0),
            ("windows", self.windows as f64, 1.0, 1e6),
            ("warm_up", self.warm_up as f64, 0.0, 1e5),
            ("queries_per_user", f64::from(self.queries_per_user), 1.0, 10_000.0),
            ("click_delay_seconds", self.click_delay_seconds, 0.0, 1e5),
        ];
        match bounds.into_iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((key, value, least, most)) => Err(format!("{key} = {value}: must be {least} to {most}")),
            None => Ok(()),
        }
    }

    /// The same scenario with another strength of harm: 1 is as it is.
    #[must_use]
    pub fn with_strength(&self, strength: f64) -> Scenario {
        let between = |from: f64, to: f64| from + strength * (to - from);
        let harm = self.harm.map(|harm| Rates {
            errors: between(self.base.errors, harm.errors).clamp(0.0, 1.0),
            timeouts: between(self.base.timeouts, harm.timeouts).clamp(0.0, 1.0),
            zero_results: between(self.base.zero_results, harm.zero_results).clamp(0.0, 1.0),
            clicks: between(self.base.clicks, harm.clicks).clamp(0.0, 1.0),
            quality: between(self.base.quality, harm.quality).clamp(0.0, 1.0),
            p99_ms: between(self.base.p99_ms, harm.p99_ms).max(60.0),
        });
        Scenario { name: format!("{} x {strength}", self.name), harm, ..self.clone() }
    }
}
