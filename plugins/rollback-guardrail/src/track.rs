//! What is known of one metric: the evidence of harm, the evidence that a gate asks for, and what people are shown.

use switchback_policy::rollback::Metric as Reported;

use crate::bytes::{Reader, Writer};
use crate::config::{Config, Gate, Kernel, Margin, Metric};
use crate::effect::Clusters;
use crate::interval::Interval;
use crate::kernels::{self, Arm, Arms, Bet, ETAS, Spread, THETAS, Tilts};
use crate::latency::Slow;

/// Windows between two estimates of the design effect.
const REFRESH: u64 = 10;
/// Observations after which a centre is half-way to the mean.
const CENTRE_INERTIA: f64 = 1_000.0;
/// The interval is tightest at this many times `min_samples`.
const BEST_AT: f64 = 10.0;
/// Log e-values beyond this are as good as certain; kept finite.
pub(crate) const MOST_LOG: f64 = 1e12;
/// Points of the grid of one tilt kernel; latency has three of them.
const TILT: usize = THETAS.len();
const LATENCY: usize = 3 * TILT;
const HIGHER: Kernel = Kernel::Mean { is_higher_better: true };

/// What one metric was while the evidence against the candidate grew: since its e-value was last at 1 or below.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) arms: Arms,
    pub(crate) ms: u64,
}

/// One metric's evidence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    pub(crate) id: String,
    /// Windows with both arms.
    windows: u64,
    /// `ln M` for each point of the grid; only as much as the kernel has points is used.
    grid: [f64; LATENCY],
    points: usize,
    /// `ln E` that the candidate is worse, of the grid; 0 without evidence.
    log_harm: f64,
    /// Where the means are thought to be; from earlier windows only.
    centre: f64,
    /// Log e-values of the gate, one for each eta, since the step began.
    gate: [f64; ETAS.len()],
    /// Whether control, and the candidate, ever had this metric.
    has_control: bool,
    has_candidate: bool,
    /// The design effect in force.
    phi: f64,
    pub(crate) run: Run,
    interval: Interval,
    pub(crate) clusters: Option<Box<Clusters>>,
}

impl Track {
    pub(crate) fn new(id: &str, points: usize, start: f64) -> Track {
        Track {
            id: id.to_owned(),
            windows: 0,
            grid: [0.0; LATENCY],
            points,
            log_harm: 0.0,
            centre: start,
            gate: [0.0; ETAS.len()],
            has_control: false,
            has_candidate: false,
            phi: 1.0,
            run: Run::default(),
            interval: Interval::default(),
            clusters: None,
        }
    }

    /// The points that a metric's grid has.
    pub(crate) fn points_of(metric: &Metric) -> usize {
        match metric.kernel {
            Kernel::Tilt { .. } => TILT,
            Kernel::Mean { .. } => ETAS.len(),
        }
    }

    pub(crate) fn has_points_of(&self, other: &Track) -> bool {
        self.points == other.points
    }

    pub(crate) const LATENCY_POINTS: usize = LATENCY;

    /// `ln E` that the candidate is worse. 0 without evidence.
    pub(crate) fn log_harm(&self) -> f64 {
        self.log_harm
    }

    /// Of latency's three quantiles, the one that weighs most against the candidate, as its place in [`crate::latency::QUANTILES`].
    pub(crate) fn worst_quantile(&self) -> usize {
        let parts = self.grid.chunks_exact(TILT).map(kernels::log_mean).enumerate();
        parts.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(place, _)| place)
    }

    fn mix_grid(&mut self) {
        if self.windows > 0 {
            self.log_harm = kernels::log_mean(self.grid.get(..self.points).unwrap_or_default());
        }
    }

    /// `ln E` that the candidate is within the margin, since the step began; `None` where the metric is not gated, or was never
    /// seen on control.
    pub(crate) fn log_safe(&self, is_gated: bool) -> Option<f64> {
        if !is_gated || !self.has_control {
            return None;
        }
        // Seen on control, never on the candidate: nothing speaks for it.
        Some(if self.has_candidate { kernels::log_mean(&self.gate) } else { 0.0 })
    }

    /// Whether anybody reported it.
    pub(crate) fn is_known(&self) -> bool {
        self.has_candidate || self.has_control
    }

    pub(crate) fn bounds(&self, alpha: f64) -> (f64, f64, f64) {
        self.interval.bounds(alpha)
    }

    pub(crate) fn begin_step(&mut self) {
        self.gate = [0.0; ETAS.len()];
    }

    /// Takes a window of a metric with one grid. `gate` is the margin where the window counts for the gate.
    pub(crate) fn observe(&mut self, config: &Config, metric: &Metric, arms: &Arms, gate: Option<Margin>, ms: u32) {
        self.see(arms);
        // Clicks that nobody reports are none for anybody: control has what it had some of.
        self.has_control |= if metric.kernel == HIGHER { arms.control.sum > 0.0 } else { arms.control.n > 0.0 };
        if arms.are_both_there() {
            let spread = (matches!(metric.kernel, Kernel::Mean { .. }) || gate.is_some()).then(|| Spread::of(arms));
            let mut log_e = [0.0; LATENCY];
            match (metric.kernel, &spread) {
                (Kernel::Tilt { ratio }, _) => fill(&mut log_e, &Tilts::of(arms, ratio).log_e(arms)),
                (Kernel::Mean { is_higher_better }, Some(spread)) => {
                    let bet = if is_higher_better { Bet::LOWER } else { Bet::HIGHER };
                    fill(&mut log_e, &kernels::mean(arms, self.centre, bet, spread));
                }
                (Kernel::Mean { .. }, None) => {}
            }
            self.harm(&log_e, metric.floor);
            if let (Some(margin), Some(spread)) = (gate, &spread) {
                self.pass_gate(arms, margin, metric.kernel == HIGHER, spread);
            }
            self.show(config, arms, ms);
            self.refresh_phi(config, metric.floor);
        }
        self.learn_centre(arms);
    }

    /// Takes a window of latencies: exceedances at three quantiles; the last one is gated and shown.
    pub(crate) fn observe_latency(&mut self, config: &Config, slow: &Slow, gate: Option<Margin>, ms: u32) {
        let Slow { quantiles, shown } = slow;
        let [_, _, tail] = quantiles;
        self.see(tail);
        self.has_control |= tail.control.n > 0.0;
        if tail.are_both_there() {
            let Kernel::Tilt { ratio } = config.latency.kernel else { return };
            let mut log_e = [0.0; LATENCY];
            // The quantiles are of the same requests.
            let tilts = Tilts::of(tail, ratio);
            for (points, arms) in log_e.chunks_exact_mut(TILT).zip(quantiles) {
                fill(points, &tilts.log_e(arms));
            }
            self.harm(&log_e, config.latency.floor);
            if let Some(margin) = gate {
                self.pass_gate(tail, margin, false, &Spread::of(tail));
            }
            self.show(config, shown, ms);
            self.phi = self.phi.max(config.latency.floor);
        }
        self.learn_centre(tail);
    }

    /// Errors with nothing to compare with: held against what the operator promised.
    pub(crate) fn observe_absolute(&mut self, metric: &Metric, arm: Arm, slo: f64, ms: u32) {
        if arm.n <= 0.0 {
            return;
        }
        // Six points, three alternatives: neighbours share one.
        let times = [2.0, 2.0, 5.0, 5.0, 20.0, 20.0];
        let mut log_e = [0.0; LATENCY];
        for (slot, times) in log_e.iter_mut().zip(times) {
            *slot = kernels::absolute(arm, slo, times);
        }
        self.harm(&log_e, metric.floor);
        self.lengthen_run(&Arms { candidate: arm, control: Arm::default() }, ms);
    }

    fn see(&mut self, arms: &Arms) {
        self.has_candidate |= arms.candidate.n > 0.0;
    }

    fn harm(&mut self, log_e: &[f64; LATENCY], floor: f64) {
        let before = self.windows;
        self.windows += 1;
        self.phi = self.phi.max(floor);
        let weight = kernels::log_restart_weight(self.windows);
        for (log_m, log_e) in self.grid.iter_mut().zip(log_e).take(self.points) {
            let known = (before > 0).then_some(*log_m);
            *log_m = kernels::restart(known, weight, *log_e, self.phi).clamp(-MOST_LOG, MOST_LOG);
        }
        self.mix_grid();
    }

    fn pass_gate(&mut self, arms: &Arms, margin: Margin, is_higher_better: bool, spread: &Spread) {
        let sign = if is_higher_better { -1.0 } else { 1.0 };
        let bet = match margin {
            Margin::Absolute(margin) => Bet { sign, scale: 1.0, shift: margin },
            Margin::Relative(part) => Bet { sign, scale: 1.0 - part, shift: 0.0 },
        };
        let log_e = kernels::mean(arms, self.centre, bet, spread);
        for (gate, log_e) in self.gate.iter_mut().zip(log_e) {
            *gate = (*gate + log_e / self.phi).clamp(-MOST_LOG, MOST_LOG);
        }
    }

    fn show(&mut self, config: &Config, arms: &Arms, ms: u32) {
        self.interval.add(arms, self.centre, self.phi, BEST_AT * config.min_samples as f64, config.interval_alpha);
        self.lengthen_run(arms, ms);
    }

    fn lengthen_run(&mut self, arms: &Arms, ms: u32) {
        if self.log_harm() <= 0.0 {
            self.run = Run::default();
            return;
        }
        let add = |to: &mut Arm, from: &Arm| {
            to.n += from.n;
            to.sum += from.sum;
            to.sumsq += from.sumsq;
        };
        add(&mut self.run.arms.candidate, &arms.candidate);
        add(&mut self.run.arms.control, &arms.control);
        self.run.ms = self.run.ms.saturating_add(u64::from(ms));
    }

    /// After the window was judged, so that the centre of the next one comes from earlier windows only.
    fn learn_centre(&mut self, arms: &Arms) {
        let total = arms.total();
        if total > 0.0 {
            let pooled = (arms.candidate.sum + arms.control.sum) / total;
            self.centre = (self.centre + total / (total + CENTRE_INERTIA) * (pooled - self.centre)).clamp(0.0, 1.0);
        }
    }

    pub(crate) fn add_groups(&mut self, reported: &Reported) {
        if reported.candidate_groups.is_empty() && reported.control_groups.is_empty() {
            return;
        }
        self.clusters.get_or_insert_default().add(&reported.candidate_groups, &reported.control_groups);
    }

    /// Before the first window that is judged, and then every so many: always for the windows to come.
    fn refresh_phi(&mut self, config: &Config, floor: f64) {
        if self.windows.is_multiple_of(REFRESH)
            && let Some(clusters) = &self.clusters
        {
            self.phi = clusters.of_means(config, floor);
        }
    }

    /// What the first window with groups is judged with.
    pub(crate) fn expect_clusters(&mut self, config: &Config, floor: f64) {
        if self.clusters.is_none() {
            self.phi = config.caution * config.prior.max(floor);
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.text(&self.id);
        writer.u64(self.windows);
        writer.u8(u8::try_from(self.points).unwrap_or(u8::MAX));
        writer.f64s(self.grid.get(..self.points).unwrap_or_default());
        writer.f64(self.centre);
        writer.f64s(&self.gate);
        writer.u8(u8::from(self.has_control) | u8::from(self.has_candidate) << 1 | u8::from(self.clusters.is_some()) << 2);
        writer.f64(self.phi);
        let Arms { candidate, control } = self.run.arms;
        writer.f64s(&[candidate.n, candidate.sum, candidate.sumsq, control.n, control.sum, control.sumsq]);
        writer.u64(self.run.ms);
        self.interval.write(writer);
        if let Some(clusters) = &self.clusters {
            clusters.write(writer);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Track, String> {
        let id = reader.text("a metric's id")?.to_owned();
        let windows = reader.u64("a metric's windows")?;
        let points = usize::from(reader.u8("the points of a grid")?);
        if ![TILT, ETAS.len(), LATENCY].contains(&points) {
            return Err(reader.refuse("the points of a grid", &points.to_string(), "6, 8 or 18"));
        }
        let mut track = Track::new(&id, points, 0.0);
        track.windows = windows;
        reader.f64s("an e-value's logarithm", track.grid.get_mut(..points).unwrap_or_default(), -MOST_LOG, MOST_LOG)?;
        track.centre = reader.f64("a centre", 0.0, 1.0)?;
        reader.f64s("a gate's logarithm", &mut track.gate, -MOST_LOG, MOST_LOG)?;
        let marks = reader.u8("a metric's marks")?;
        if marks > 7 {
            return Err(reader.refuse("a metric's marks", &marks.to_string(), "0 to 7"));
        }
        (track.has_control, track.has_candidate) = (marks & 1 != 0, marks & 2 != 0);
        track.phi = reader.f64("a design effect", 1.0, 1e9)?;
        let mut run = [0.0; 6];
        reader.f64s("a run's sum", &mut run, 0.0, 1e18)?;
        let [n, sum, sumsq, control_n, control_sum, control_sumsq] = run;
        let control = Arm { n: control_n, sum: control_sum, sumsq: control_sumsq };
        track.run = Run { arms: Arms { candidate: Arm { n, sum, sumsq }, control }, ms: reader.u64("a run's length")? };
        track.interval = Interval::read(reader)?;
        track.mix_grid();
        if marks & 4 != 0 {
            track.clusters = Some(Box::new(Clusters::read(reader)?));
        }
        Ok(track)
    }
}

/// The margin that a metric's gate asks for at this step.
pub(crate) fn margin(gate: Option<Gate>, is_last: bool) -> Option<Margin> {
    gate.map(|gate| if is_last { gate.last } else { gate.margin })
}

fn fill(slots: &mut [f64], values: &[f64]) {
    for (slot, value) in slots.iter_mut().zip(values) {
        *slot = *value;
    }
}
