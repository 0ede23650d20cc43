//! Reads a `rollback_config` of this policy.

use serde_json::Value;

/// One thing that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
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

/// A checked config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) min_success_rate: f64,
    pub(crate) max_p99_ms: f64,
    pub(crate) interval_ms: u64,
    pub(crate) failed_checks: u64,
    pub(crate) passed_checks: u64,
    pub(crate) min_samples: u64,
}

/// Reads a `rollback_config`, JSON text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(config: &str) -> Result<Config, Vec<Problem>> {
    let problem = |key: &str, value: &Value, allowed: String| Problem { key: key.to_owned(), value: value.to_string(), allowed };
    // The defaults are those of Flagger's tutorial: 99 % and 500 ms each minute, 5 failed checks.
    let mut numbers = [
        ("min_success_percent", 99.0, 0.0, 100.0),
        ("max_p99_ms", 500.0, 0.001, 1e7),
        ("interval_seconds", 60.0, 0.001, 86_400.0),
        ("failed_checks", 5.0, 1.0, 1e6),
        ("passed_checks", 10.0, 1.0, 1e6),
        ("min_samples", 1.0, 1.0, 1e9),
    ];
    let table = match serde_json::from_str(if config.is_empty() { "{}" } else { config }) {
        Ok(Value::Object(table)) => table,
        Ok(other) => return Err(vec![problem("", &other, "must be a JSON object".to_owned())]),
        Err(error) => return Err(vec![problem("", &Value::Null, format!("must be a JSON object: {error}"))]),
    };
    let mut problems = Vec::new();
    for (key, value) in &table {
        match numbers.iter_mut().find(|(name, ..)| name == key) {
            Some((_, slot, least, most)) => match value.as_f64() {
                Some(number) if (*least..=*most).contains(&number) => *slot = number,
                _ => problems.push(problem(key, value, format!("must be a number from {least} to {most}"))),
            },
            None => {
                let names: Vec<&str> = numbers.iter().map(|(name, ..)| *name).collect();
                problems.push(problem(key, value, format!("unknown key; allowed are {}", names.join(", "))));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let [success, p99, interval, failed, passed, samples] = numbers.map(|(_, value, ..)| value);
    Ok(Config {
        min_success_rate: success / 100.0,
        max_p99_ms: p99,
        interval_ms: (interval * 1e3) as u64,
        failed_checks: failed as u64,
        passed_checks: passed as u64,
        min_samples: samples as u64,
    })
}
