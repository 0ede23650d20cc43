//! The figures at the end: for people as a table, for machines as one line of JSON. Computed from the record alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::record::{Change, POOLS, Record, Traffic};
use super::screen::Screen;

/// Shares may be off by this many standard errors before they count as wrong.
const SIGMAS: f64 = 4.0;

/// One step's configured and measured traffic.
#[derive(Debug)]
pub(super) struct StepSummary {
    pub(super) label: String,
    change: Change,
    configured: [f64; 3],
    traffic: Traffic,
    last_of_old: Option<Duration>,
}

/// One pool's quality.
#[derive(Debug)]
struct PoolSummary {
    queries: usize,
    ndcg: f64,
    clicks: f64,
}

/// Everything at the end.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) reasons: Vec<String>,
    pub(super) units_changed: usize,
    units: usize,
    steps: Vec<StepSummary>,
    pools: [PoolSummary; 3],
    pairs: usize,
    /// Microseconds at p50 and p99: through the router, straight to the ranker.
    routed: [f64; 2],
    direct: [f64; 2],
    seconds: f64,
    /// From a plugin's arrival in the folder to the moment it was in force.
    plugin_swaps: Vec<Duration>,
}

impl Summary {
    /// From everything that was seen.
    pub(super) fn of(record: &Record, plugin_swaps: &[Duration], elapsed: Duration) -> Summary {
        let steps = record.steps.iter().enumerate().map(|(place, step)| StepSummary {
            label: step.label.clone(),
            change: step.change,
            configured: step.configured,
            traffic: record.traffic(place),
            last_of_old: (step.change == Change::Flip).then(|| record.last_answer_of_old_pool(place)).flatten(),
        });
        let units: std::collections::HashSet<u32> = record.observations.iter().map(|seen| seen.unit).collect();
        Summary {
            sent: record.sent,
            failed: record.failed,
            reasons: record.reasons.clone(),
            units_changed: record.units_that_changed_arm(),
            units: units.len(),
            steps: steps.collect(),
            pools: [0, 1, 2].map(|pool| pool_summary(record, pool)),
            pairs: record.routed.len(),
            routed: percentiles(&record.routed),
            direct: percentiles(&record.direct),
            seconds: elapsed.as_secs_f64(),
            plugin_swaps: plugin_swaps.to_vec(),
        }
    }

    /// Whether the demo showed what it promises.
    pub(super) fn is_good(&self) -> bool {
        self.failed == 0 && self.units_changed == 0 && self.steps.iter().all(StepSummary::is_within)
    }

    /// The contract's line: what only a rollout can tell is null, and everything else that was measured.
    pub(super) fn json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({
                "step": step.label,
                "queries": step.traffic.queries,
                "units": step.traffic.units,
                "configured": by_pool(step.configured),
                "measured": by_pool(step.traffic.shares),
                "is_within_4_sigma": step.is_within(),
                "last_answer_of_old_pool_ms": step.last_of_old.map(milliseconds),
            })
        });
        let pools = self.pools.iter().zip(POOLS).map(|(pool, name)| {
            (name.to_owned(), json!({ "queries": pool.queries, "ndcg_at_10": pool.ndcg, "clicks_per_query": pool.clicks }))
        });
        let ([routed_p50, routed_p99], [direct_p50, direct_p99]) = (self.routed, self.direct);
        json!({
            "promoted": null,
            "rolled_back": null,
            "failed_requests": self.failed,
            "detection_seconds": null,
            "rollback_seconds": null,
            "requests": self.sent,
            "seconds": self.seconds,
            "units": self.units,
            "units_that_changed_arm": self.units_changed,
            "router_added_p50_us": routed_p50 - direct_p50,
            "router_added_p99_us": routed_p99 - direct_p99,
            "latency_pairs": self.pairs,
            "plugin_swap_ms": self.plugin_swaps.iter().copied().map(milliseconds).collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "pools": pools.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// The tables.
    pub(super) fn show(&self, screen: &mut Screen) {
        screen.say("");
        self.show_steps(screen);
        screen.say("");
        self.show_pools(screen);
        screen.say("");
        self.show_promises(screen);
        for reason in &self.reasons {
            let reason = screen.verdict(false, &format!("  failed: {reason}"));
            screen.say(&reason);
        }
    }

    fn show_steps(&self, screen: &mut Screen) {
        let mut rows = vec![row(["step", "queries", "configured: blue / green / canary", "measured", ""])];
        for step in &self.steps {
            let mark = if step.is_within() { "" } else { "off" };
            let queries = step.traffic.queries.to_string();
            let (configured, measured) = (three(step.configured, 0), three(step.traffic.shares, 1));
            rows.push(vec![step.label.clone(), queries, configured, measured, screen.verdict(mark.is_empty(), mark)]);
        }
        screen.table(&rows, &[false, true, true, true]);
    }

    fn show_pools(&self, screen: &mut Screen) {
        let mut rows = vec![row(["pool", "model", "queries", "NDCG@10", "clicks per query"])];
        for ((pool, name), model) in self.pools.iter().zip(POOLS).zip(["v1", "v2", "v2"]) {
            let (ndcg, clicks) = (format!("{:.4}", pool.ndcg), format!("{:.3}", pool.clicks));
            rows.push(vec![name.to_owned(), model.to_owned(), pool.queries.to_string(), ndcg, clicks]);
        }
        screen.table(&rows, &[false, false, true, true, true]);
    }

    fn show_promises(&self, screen: &mut Screen) {
        let ([routed_p50, routed_p99], [direct_p50, direct_p99]) = (self.routed, self.direct);
        let added = format!("p50 {:+.2} ms, p99 {:+.2} ms", (routed_p50 - direct_p50) / 1e3, (routed_p99 - direct_p99) / 1e3);
        let compared = format!("{} pairs of the same query, through the router and straight to its ranker, all on this machine", self.pairs);
        let swaps: Vec<String> = self.plugin_swaps.iter().map(|swap| format!("{:.0} ms", milliseconds(*swap))).collect();
        let mut rows = vec![
            vec!["queries sent".to_owned(), self.sent.to_string(), format!("in {:.0} s", self.seconds)],
            vec!["queries failed".to_owned(), screen.verdict(self.failed == 0, &self.failed.to_string()), String::new()],
            vec![
                "users who changed sides outside a ramp step".to_owned(),
                screen.verdict(self.units_changed == 0, &self.units_changed.to_string()),
                format!("of {}", self.units),
            ],
        ];
        for step in self.steps.iter().filter(|step| step.change == Change::Flip) {
            let late = step.last_of_old.map_or(0.0, milliseconds);
            let said = if late > 0.0 { format!("{late:.1} ms") } else { "at once".to_owned() };
            rows.push(vec![format!("last answer of the old pool, {}", step.label), said, "after the flag was written".to_owned()]);
        }
        rows.push(vec!["plugin in force".to_owned(), swaps.join(", "), "after its file arrived".to_owned()]);
        rows.push(vec!["added by the router".to_owned(), added, compared]);
        screen.table(&rows, &[]);
    }
}

impl StepSummary {
    /// Measured and configured shares agree, as far as so many users can tell.
    fn is_within(&self) -> bool {
        let users = u32::try_from(self.traffic.units).unwrap_or(u32::MAX).max(1);
        self.configured.iter().zip(self.traffic.shares).all(|(configured, measured)| {
            let sigma = (configured * (1.0 - configured) / f64::from(users)).sqrt();
            (measured - configured).abs() <= SIGMAS * sigma + f64::EPSILON
        })
    }
}

fn pool_summary(record: &Record, pool: usize) -> PoolSummary {
    let (mut queries, mut ndcg, mut clicks) = (0_u32, 0.0, 0.0);
    for seen in record.observations.iter().filter(|seen| seen.pool == pool) {
        queries += 1;
        ndcg += seen.ndcg;
        clicks += f64::from(seen.clicks);
    }
    let count = f64::from(queries.max(1));
    PoolSummary { queries: queries as usize, ndcg: ndcg / count, clicks: clicks / count }
}

/// p50 and p99 in microseconds; zero without samples.
fn percentiles(samples: &[Duration]) -> [f64; 2] {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    [50, 99].map(|percent| {
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn by_pool(shares: [f64; 3]) -> Value {
    Value::Object(POOLS.into_iter().zip(shares).map(|(pool, share)| (pool.to_owned(), json!(share))).collect())
}

fn three(shares: [f64; 3], decimals: usize) -> String {
    shares.map(|share| format!("{:>5.decimals$} %", share * 100.0)).join("  ")
}

fn row(cells: [&str; 5]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
