//! Reads a `rollback_config`: every key is checked, and what is wrong is said with the key, its value and what is allowed.

use serde_json::{Map, Value};

/// The longest name of a metric, in bytes.
pub(crate) const NAME_BYTES: usize = 64;
/// Metrics beside errors, latency and zero results.
pub(crate) const MOST_METRICS: usize = 16;
const KEYS: [&str; 13] = [
    "alpha",
    "advance_odds",
    "min_samples",
    "min_dwell_seconds",
    "max_step_seconds",
    "quality_from_percent",
    "interval_alpha",
    "sample_ratio_odds",
    "slo_error_rate",
    "design_effect",
    "errors",
    "latency",
    "metrics",
];

/// One thing that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `errors.weight`.
    pub key: String,
    /// The value as it is written.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            return write!(f, "rollback_config {}", self.allowed);
        }
        write!(f, "rollback_config.{} = {}: {}", self.key, self.value, self.allowed)
    }
}

/// How far the candidate may be worse and still be let on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Margin {
    /// Percentage points, as a fraction.
    Absolute(f64),
    /// A part of control's mean.
    Relative(f64),
}

/// The margins of one metric's gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gate {
    pub(crate) margin: Margin,
    /// For the step after which everybody follows.
    pub(crate) last: Margin,
}

/// Which kernel looks for harm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kernel {
    /// Rare events; harm is a rate above this many times control's.
    Tilt {
        ratio: f64,
    },
    Mean {
        is_higher_better: bool,
    },
}

/// How one metric is judged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metric {
    pub(crate) id: String,
    pub(crate) weight: f64,
    pub(crate) kernel: Kernel,
    /// The smallest design effect that is reckoned with, and the one of a metric whose groups are not counted.
    pub(crate) floor: f64,
    pub(crate) gate: Option<Gate>,
    /// Where the metric's mean is thought to be until there is data.
    pub(crate) start: f64,
}

/// A checked config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) alpha: f64,
    pub(crate) advance_odds: f64,
    pub(crate) min_samples: u64,
    pub(crate) min_dwell_ms: u64,
    pub(crate) max_step_ms: u64,
    pub(crate) quality_from_ppm: u32,
    pub(crate) interval_alpha: f64,
    pub(crate) sample_ratio_odds: f64,
    pub(crate) slo_error_rate: Option<f64>,
    pub(crate) prior: f64,
    pub(crate) prior_degrees: f64,
    pub(crate) caution: f64,
    pub(crate) errors: Metric,
    pub(crate) latency: Metric,
    /// The canary's latencies are held against control's quantile times one more than this.
    pub(crate) latency_tolerance: f64,
    /// No request that was answered within this many microseconds is slow.
    pub(crate) latency_ignored: f64,
    pub(crate) metrics: Vec<Metric>,
}

impl Default for Config {
    fn default() -> Config {
        let absolute = |margin| Some(Gate { margin: Margin::Absolute(margin), last: Margin::Absolute(margin) });
        let metric = |id: &str, weight, kernel, gate, start| Metric { id: id.to_owned(), weight, kernel, floor: 1.0, gate, start };
        let (tilt, mean) = (Kernel::Tilt { ratio: 1.0 }, Kernel::Mean { is_higher_better: true });
        let clicks = Some(Gate { margin: Margin::Relative(0.05), last: Margin::Relative(0.03) });
        Config {
            alpha: 0.01,
            advance_odds: 20.0,
            min_samples: 500,
            min_dwell_ms: 60_000,
            max_step_ms: 1_800_000,
            quality_from_ppm: 100_000,
            interval_alpha: 0.05,
            sample_ratio_odds: 2_000.0,
            slo_error_rate: None,
            prior: 1.5,
            prior_degrees: 60.0,
            caution: 1.15,
            errors: metric("errors", 0.25, tilt, absolute(0.005), 0.001),
            latency: metric("latency", 0.20, tilt, absolute(0.005), 0.01),
            latency_tolerance: 0.0,
            latency_ignored: 2_000.0,
            metrics: vec![
                metric("clicks", 0.15, mean, clicks, 0.3),
                metric("conversions", 0.05, mean, None, 0.02),
                metric("quality", 0.25, mean, absolute(0.02), 0.5),
                metric("zero-results", 0.10, tilt, None, 0.01),
            ],
        }
    }
}

impl Config {
    /// The default config with another false-alarm rate, above 0 and below 1.
    #[must_use]
    pub fn with_alpha(alpha: f64) -> Config {
        Config { alpha, ..Config::default() }
    }

    /// `ln(1 / alpha)`: a candidate is rolled back when the evidence of all metrics together comes to this.
    #[must_use]
    pub fn threshold_log(&self) -> f64 {
        -libm::log(self.alpha)
    }
}

/// Reads a `rollback_config`, JSON text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(config: &str) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader { problems: Vec::new() };
    let mut checked = Config::default();
    // The common case, and no reason to start a parser.
    if config.is_empty() || config == "{}" {
        return Ok(checked);
    }
    match serde_json::from_str(config) {
        Ok(Value::Object(table)) => reader.config(&table, &mut checked),
        Ok(other) => reader.refuse("", &other, "must be a JSON object"),
        Err(error) => reader.refuse("", &Value::Null, &format!("must be a JSON object: {error}")),
    }
    if reader.problems.is_empty() { Ok(checked) } else { Err(reader.problems) }
}

/// Collects what is wrong, and goes on.
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn refuse(&mut self, key: &str, value: &Value, allowed: &str) {
        self.problems.push(Problem { key: key.to_owned(), value: value.to_string(), allowed: allowed.to_owned() });
    }

    fn only(&mut self, at: &str, table: &Map<String, Value>, known: &[&str]) {
        for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let key = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            self.refuse(&key, value, &format!("unknown key; allowed are {}", known.join(", ")));
        }
    }

    /// The number under this key, where there is one, if it is within the bounds.
    fn number(&mut self, at: &str, table: &Map<String, Value>, key: &str, least: f64, most: f64) -> Option<f64> {
        let value = table.get(key)?;
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                let key = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
                self.refuse(&key, value, &format!("must be a number from {least} to {most}"));
                None
            }
        }
    }

    fn set(&mut self, at: &str, table: &Map<String, Value>, key: &str, bounds: (f64, f64), slot: &mut f64) {
        if let Some(number) = self.number(at, table, key, bounds.0, bounds.1) {
            *slot = number;
        }
    }

    fn table<'v>(&mut self, at: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let table = value.as_object();
        if table.is_none() {
            self.refuse(at, value, "must be an object");
        }
        table
    }

    fn config(&mut self, table: &Map<String, Value>, config: &mut Config) {
        self.only("", table, &KEYS);
        self.set("", table, "alpha", (1e-9, 0.2), &mut config.alpha);
        self.set("", table, "advance_odds", (1.0, 1e9), &mut config.advance_odds);
        self.set("", table, "interval_alpha", (1e-9, 0.5), &mut config.interval_alpha);
        self.set("", table, "sample_ratio_odds", (10.0, 1e12), &mut config.sample_ratio_odds);
        if let Some(samples) = self.number("", table, "min_samples", 1.0, 1e9) {
            config.min_samples = samples as u64;
        }
        for (key, slot) in [("min_dwell_seconds", &mut config.min_dwell_ms), ("max_step_seconds", &mut config.max_step_ms)] {
            if let Some(seconds) = self.number("", table, key, 0.0, 1e7) {
                *slot = (seconds * 1e3) as u64;
            }
        }
        if let Some(percent) = self.number("", table, "quality_from_percent", 0.0, 100.0) {
            config.quality_from_ppm = (percent * 1e4) as u32;
        }
        if let Some(slo) = self.number("", table, "slo_error_rate", 1e-6, 0.5) {
            config.slo_error_rate = Some(slo);
        }
        if let Some(effect) = table.get("design_effect").and_then(|value| self.table("design_effect", value)) {
            self.only("design_effect", effect, &["prior", "prior_degrees", "caution"]);
            self.set("design_effect", effect, "prior", (1.0, 1_000.0), &mut config.prior);
            self.set("design_effect", effect, "prior_degrees", (1.0, 1e6), &mut config.prior_degrees);
            self.set("design_effect", effect, "caution", (1.0, 10.0), &mut config.caution);
        }
        if let Some(errors) = table.get("errors").and_then(|value| self.table("errors", value)) {
            self.metric("errors", errors, &mut config.errors, &[]);
        }
        if let Some(latency) = table.get("latency").and_then(|value| self.table("latency", value)) {
            self.metric("latency", latency, &mut config.latency, &["tolerance", "ignore_below_ms"]);
            self.set("latency", latency, "tolerance", (0.0, 10.0), &mut config.latency_tolerance);
            let mut millis = config.latency_ignored / 1e3;
            self.set("latency", latency, "ignore_below_ms", (0.0, 60_000.0), &mut millis);
            config.latency_ignored = millis * 1e3;
        }
        if let Some(metrics) = table.get("metrics").and_then(|value| self.table("metrics", value)) {
            self.metrics(metrics, config);
        }
        let weights = config.metrics.iter().chain([&config.errors, &config.latency]).map(|metric| metric.weight);
        let total: f64 = weights.sum();
        if total > 1.0 + 1e-9 {
            let whose = "the weights of errors, latency and metrics";
            self.refuse(whose, &Value::from(total), "must be weights that sum to 1 at most; a metric that is not named keeps its own");
        }
    }

    fn metrics(&mut self, written: &Map<String, Value>, config: &mut Config) {
        for (id, value) in written {
            let at = format!("metrics.{id}");
            let is_name = (1..=NAME_BYTES).contains(&id.len()) && !["errors", "timeouts", "latency"].contains(&id.as_str());
            if !is_name {
                self.refuse(&at, value, "must be under the id of a metric: 1 to 64 bytes, not errors, timeouts or latency");
                continue;
            }
            let Some(table) = self.table(&at, value) else { continue };
            let known = config.metrics.iter().position(|metric| metric.id == *id);
            let mut metric = known.and_then(|index| config.metrics.get(index)).cloned().unwrap_or_else(|| Metric {
                id: id.clone(),
                weight: 0.0,
                kernel: Kernel::Mean { is_higher_better: true },
                floor: 1.0,
                gate: None,
                start: 0.5,
            });
            self.metric(&at, table, &mut metric, &["kernel", "better", "start"]);
            match known.and_then(|index| config.metrics.get_mut(index)) {
                Some(slot) => *slot = metric,
                None => config.metrics.push(metric),
            }
        }
        if config.metrics.len() > MOST_METRICS {
            self.refuse(
                "metrics",
                &Value::from(config.metrics.len()),
                &format!("must be {MOST_METRICS} metrics at most, the default ones included"),
            );
        }
    }

    fn metric(&mut self, at: &str, table: &Map<String, Value>, metric: &mut Metric, also: &[&str]) {
        let mut known = vec!["weight", "floor", "ratio", "margin", "relative_margin", "last_margin", "last_relative_margin", "gated"];
        known.extend(also);
        self.only(at, table, &known);
        self.set(at, table, "weight", (0.0, 1.0), &mut metric.weight);
        self.set(at, table, "floor", (1.0, 1_000.0), &mut metric.floor);
        self.set(at, table, "start", (0.0, 1.0), &mut metric.start);
        if also.contains(&"kernel") {
            self.kernel(at, table, metric);
        }
        if let Some(written) = self.number(at, table, "ratio", 1.0, 100.0) {
            match &mut metric.kernel {
                Kernel::Tilt { ratio } => *ratio = written,
                Kernel::Mean { .. } => self.refuse(&format!("{at}.ratio"), &Value::from(written), "is for metrics of kernel \"tilt\""),
            }
        }
        self.gate(at, table, metric);
    }

    fn kernel(&mut self, at: &str, table: &Map<String, Value>, metric: &mut Metric) {
        match table.get("kernel").map(|value| (value, value.as_str())) {
            None => {}
            Some((_, Some("tilt"))) => metric.kernel = Kernel::Tilt { ratio: 1.0 },
            Some((_, Some("mean"))) => metric.kernel = Kernel::Mean { is_higher_better: true },
            Some((value, _)) => self.refuse(&format!("{at}.kernel"), value, "must be \"tilt\" (rare events) or \"mean\""),
        }
        let Some(value) = table.get("better") else { return };
        let is_higher = match value.as_str() {
            Some("higher") => true,
            Some("lower") => false,
            _ => return self.refuse(&format!("{at}.better"), value, "must be \"higher\" or \"lower\""),
        };
        match &mut metric.kernel {
            Kernel::Mean { is_higher_better } => *is_higher_better = is_higher,
            Kernel::Tilt { .. } if is_higher => self.refuse(&format!("{at}.better"), value, "must be \"lower\" with kernel \"tilt\""),
            Kernel::Tilt { .. } => {}
        }
    }

    fn gate(&mut self, at: &str, table: &Map<String, Value>, metric: &mut Metric) {
        let mut margin = |relative: &str, absolute: &str| {
            let relative = self.number(at, table, relative, 1e-6, 0.9).map(Margin::Relative);
            self.number(at, table, absolute, 1e-6, 0.9).map(Margin::Absolute).or(relative)
        };
        let (usual, last) = (margin("relative_margin", "margin"), margin("last_relative_margin", "last_margin"));
        metric.gate = match (metric.gate, usual, last) {
            (_, Some(usual), last) => Some(Gate { margin: usual, last: last.unwrap_or(usual) }),
            (Some(gate), None, Some(last)) => Some(Gate { last, ..gate }),
            (None, None, Some(_)) => {
                self.refuse(at, &Value::Object(table.clone()), "must have margin or relative_margin beside that for the last step");
                None
            }
            (gate, None, None) => gate,
        };
        match table.get("gated") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => metric.gate = None,
            Some(other) => self.refuse(&format!("{at}.gated"), other, "must be true or false"),
        }
        let is_higher_better = metric.kernel == Kernel::Mean { is_higher_better: true };
        let is_relative = |gate: Gate| matches!(gate.margin, Margin::Relative(_)) || matches!(gate.last, Margin::Relative(_));
        if metric.gate.is_some_and(is_relative) && !is_higher_better {
            self.refuse(
                &format!("{at}.relative_margin"),
                &Value::Null,
                "is for metrics of kernel \"mean\" of which more is better; use margin",
            );
        }
    }
}
