//! `[route.validation]`: what a model has to be before it gets users of a route, and what looking at it may cost.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::written;

/// Names that can be allowed.
const GLOBALS: usize = 256;
const GLOBAL_RULE: &str = "must be a Python name with its module, like \"my_models.Ranker\"";

/// How models of a route are validated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validation {
    /// Judged queries: JSON lines.
    pub judged: Option<PathBuf>,
    /// What is asked of a model.
    pub criteria: Criteria,
}

/// What a validation asks of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criteria {
    /// The largest artefact, in bytes.
    pub artefact_bytes: u64,
    /// NDCG@10 and MRR of the live model, less this, must be reached. 0..=1.
    pub margin: f64,
    /// What has to be shown of it.
    pub proof: Proof,
    /// The median time for 100 documents may be so many times the live model's. 1 or more.
    pub latency_ratio: f64,
    /// A median time for 100 documents below this is always good enough, in microseconds.
    pub latency_floor_us: u64,
    /// The share of queries whose first document may be another one than the live model's. 0..=1.
    pub top1_change: f64,
    /// The least rank-biased overlap with the live model's rankings. 0..=1.
    pub overlap: f64,
    /// The least Jaccard index of the first ten documents. 0..=1.
    pub jaccard: f64,
    /// Inputs or outputs may be others than the live model's.
    pub signature_change: bool,
    /// Globals that pickles may name beside the known ones, as `module.name`.
    pub allowed_globals: BTreeSet<String>,
    /// What looking may cost.
    pub cost: Cost,
}

/// What the process that looks at a model may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Address space, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in seconds.
    pub cpu_s: u64,
    /// Time, in milliseconds.
    pub time_ms: u64,
}

impl Cost {
    /// Its time limit.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }
}

/// What has to be shown about quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// A model is refused when it is shown to be worse by more than the margin: the interval of the difference lies wholly below it.
    Worse,
    /// A model is refused unless it is shown to be no worse by more than the margin: the interval lies wholly above it. That takes many judged queries.
    NoWorse,
}

impl Proof {
    /// As configs have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Proof::Worse => "worse",
            Proof::NoWorse => "no-worse",
        }
    }

    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Proof> {
        [Proof::Worse, Proof::NoWorse].into_iter().find(|proof| proof.label() == text)
    }
}

impl Default for Criteria {
    fn default() -> Criteria {
        Criteria {
            artefact_bytes: 2 << 30,
            margin: 0.01,
            proof: Proof::Worse,
            latency_ratio: 2.0,
            latency_floor_us: 500,
            top1_change: 0.7,
            overlap: 0.4,
            jaccard: 0.4,
            signature_change: false,
            allowed_globals: BTreeSet::new(),
            cost: Cost { memory_bytes: 2 << 30, cpu_s: 60, time_ms: 120_000 },
        }
    }
}

/// Whether this can be a global: two or more Python names, between dots.
#[must_use]
pub fn is_global(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_name =
        |name: &str| name.bytes().next().is_some_and(is_first) && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit());
    text.len() <= 256 && text.contains('.') && text.split('.').all(is_name)
}

pub(super) fn check_validation(checker: &mut Checker, route_key: &str, written: written::Validation) -> Validation {
    let key = |name: &str| format!("{route_key}.validation.{name}");
    let default = Criteria::default();
    let mut number = |name: &str, value: Option<f64>, default: f64, least: f64, most: f64| {
        let value = value.unwrap_or(default);
        if !(least..=most).contains(&value) {
            checker.refuse(&key(name), value, format!("must be from {least} to {most}"));
        }
        value
    };
    let margin = number("margin", written.margin, default.margin, 0.0, 1.0);
    let latency_ratio = number("latency_ratio", written.latency_ratio, default.latency_ratio, 1.0, 1_000.0);
    let top1_change = number("top1_change", written.top1_change, default.top1_change, 0.0, 1.0);
    let overlap = number("overlap", written.overlap, default.overlap, 0.0, 1.0);
    let jaccard = number("jaccard", written.jaccard, default.jaccard, 0.0, 1.0);
    let proof = written.proof.as_deref().map_or(Some(default.proof), Proof::parse);
    if proof.is_none() {
        checker.refuse(&key("proof"), written.proof.unwrap_or_default(), "must be \"worse\" or \"no-worse\"");
    }
    let allowed_globals: BTreeSet<String> = written.allowed_globals.unwrap_or_default().into_iter().collect();
    if allowed_globals.len() > GLOBALS {
        checker.refuse(&key("allowed_globals"), allowed_globals.len(), format!("must be {GLOBALS} names at most"));
    }
    if let Some(wrong) = allowed_globals.iter().find(|name| !is_global(name)) {
        checker.refuse(&key("allowed_globals"), wrong, GLOBAL_RULE);
    }
    let micro = Duration::from_micros(default.latency_floor_us);
    let floor = checker.duration(&key("latency_floor"), written.latency_floor.as_deref(), micro, Duration::ZERO, Duration::from_secs(60));
    let seconds = Duration::from_secs;
    let cpu = checker.duration(&key("cpu"), written.cpu.as_deref(), seconds(default.cost.cpu_s), seconds(1), seconds(3_600));
    let time = checker.duration(&key("time"), written.time.as_deref(), default.cost.time(), seconds(1), seconds(3_600));
    let cost = Cost {
        memory_bytes: checker.bytes(&key("memory"), written.memory.as_deref(), default.cost.memory_bytes, 256 << 20, 1 << 40),
        cpu_s: cpu.as_secs(),
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    };
    let artefact_bytes = checker.bytes(&key("model_bytes"), written.model_bytes.as_deref(), default.artefact_bytes, 1 << 10, 1 << 40);
    let criteria = Criteria {
        artefact_bytes,
        margin,
        proof: proof.unwrap_or(default.proof),
        latency_ratio,
        latency_floor_us: u64::try_from(floor.as_micros()).unwrap_or(u64::MAX),
        top1_change,
        overlap,
        jaccard,
        signature_change: false,
        allowed_globals,
        cost,
    };
    Validation { judged: written.judged.map(PathBuf::from), criteria }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        let mut checker = Checker::default();
        let checked = check_validation(&mut checker, "route", written::Validation::default());
        assert_eq!((checked, checker.said()), (Validation::default(), String::new()));
    }

    #[test]
    fn each_mistake_is_named() {
        let written = written::Validation {
            margin: Some(-0.1),
            proof: Some("maybe".to_owned()),
            latency_ratio: Some(0.5),
            overlap: Some(f64::NAN),
            memory: Some("1MiB".to_owned()),
            allowed_globals: Some(vec!["os system".to_owned()]),
            ..written::Validation::default()
        };
        let mut checker = Checker::default();
        check_validation(&mut checker, "route", written);
        let said = checker.said();
        for key in [
            "margin = -0.1",
            "proof = \"maybe\"",
            "latency_ratio = 0.5",
            "overlap = NaN",
            "memory = \"1MiB\"",
            "allowed_globals = \"os system\"",
        ] {
            assert!(said.contains(&format!("route.validation.{key}: must be")), "{key}: {said}");
        }
    }

    #[test]
    fn globals_have_a_module() {
        assert!(is_global("sklearn.tree._tree.Tree") && is_global("a.b"));
        for wrong in ["", "a", "a.", ".a", "a..b", "a.b c", "1.b", "a.*"] {
            assert!(!is_global(wrong), "{wrong}");
        }
    }
}
