//! What the simulator says of the same traffic, and the latencies that it draws from.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchback::simulate::exact::normal_below;
use switchback_tests::binary;

/// How long a harm takes to be seen.
pub(crate) struct Delays {
    pub(crate) median: Duration,
    pub(crate) p95: Duration,
}

impl Delays {
    /// Fewer clicks on a candidate at 10 %, among so many queries a second.
    pub(crate) fn simulate(rate: u32, clicks: f64, fewer: f64, queries_per_user: u32) -> Delays {
        let rates = |clicks: f64| json!({ "errors": 0.0, "zero_results": 0.0, "clicks": clicks });
        let scenario = json!({
            "requests_per_second": rate, "share": 0.1, "windows": 1_800, "warm_up": super::WARM_UP_SECONDS,
            "queries_per_user": queries_per_user, "base": rates(clicks), "harm": rates(fewer),
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), scenario.to_string()).unwrap();
        let mut command = Command::new(binary());
        command.args(["policy", "simulate", "rollback-guardrail", "--native", "--json", "--rollouts", "2000", "--own"]).arg(file.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let seconds = |key: &str| Duration::from_secs_f64(said["scenarios"][0][key].as_f64().unwrap());
        Delays { median: seconds("seconds_median"), p95: seconds("seconds_p95") }
    }
}

/// A thousand equally likely times, as the simulator's: lognormal with a median of 30 ms and a p99 of 100 ms, and what lies above the p90 stretched away
/// from it until the p99 is this.
pub(crate) fn latencies(p99_ms: f64) -> Arc<[Duration]> {
    let plain = |z: f64| 30.0 * ((100.0_f64 / 30.0).ln() / normal(0.99) * z).exp();
    let p90 = plain(normal(0.9));
    let stretched = |ms: f64| if ms <= p90 { ms } else { p90 + (ms - p90) * (p99_ms - p90) / (100.0 - p90) };
    (0..1_000).map(|place| Duration::from_secs_f64(stretched(plain(normal((f64::from(place) + 0.5) / 1_000.0))) / 1e3)).collect()
}

/// The normal distribution's quantile.
fn normal(part: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if normal_below(middle) < part { low = middle } else { high = middle }
    }
    low
}
