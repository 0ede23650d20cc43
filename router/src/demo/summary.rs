//! The figures at the end: for people as a table, for machines as one line of JSON. Computed from the record alone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::offers::offers;
use super::record::{Change, Observation, POOLS, Record, Traffic};
use super::rollouts::after_the_verdict;
use super::screen::Screen;
use super::script::{Promoted, Refused, Shown};

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

/// Latency at one quantile, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Added {
    routed: f64,
    direct: f64,
    /// Standard error of their difference.
    se: f64,
}

/// One model's quality.
#[derive(Debug)]
struct ModelSummary {
    /// Its number.
    version: u32,
    pool: &'static str,
    queries: u32,
    ndcg: f64,
    clicks: f64,
}

/// Everything at the end.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) sent: u64,
    pub(super) failed: u64,
    between_steps: u64,
    pub(super) reasons: Vec<String>,
    pub(super) units_changed: usize,
    units: usize,
    steps: Vec<StepSummary>,
    models: Vec<ModelSummary>,
    clicks: u64,
    shown: Shown,
    /// Users' queries that came to each refused model from then on.
    seen_all_the_same: Vec<usize>,
    pairs: usize,
    /// At p50 and p99.
    added: [Added; 2],
    seconds: f64,
}

impl Summary {
    /// From everything that was seen.
    pub(super) fn of(record: &Record, shown: Shown, elapsed: Duration) -> Summary {
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
            between_steps: record.between_steps(),
            reasons: record.reasons.clone(),
            units_changed: record.units_that_changed_arm(),
            units: units.len(),
            steps: steps.collect(),
            models: models(&record.observations),
            clicks: record.clicks,
            seen_all_the_same: shown.refused.iter().map(|refused| seen(&record.observations, refused)).collect(),
            shown,
            pairs: record.routed.len(),
            added: [0.50, 0.99].map(|quantile| Added::at(quantile, &record.routed, &record.direct)),
            seconds: elapsed.as_secs_f64(),
        }
    }

    /// Whether the demo showed what it promises.
    pub(super) fn is_good(&self) -> bool {
        self.failed == 0
            && self.units_changed == 0
            && self.shown.caught.is_some()
            && self.shown.promoted.is_some()
            && self.shown.refused.len() == offers().len()
            && self.seen_all_the_same.iter().all(|queries| *queries == 0)
            && self.steps.iter().all(StepSummary::is_within)
    }

    /// The contract's line, and everything else that was measured.
    pub(super) fn json(&self, error: Option<&str>) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({
                "step": step.label,
                "queries": step.traffic.queries,
                "units": step.traffic.units,
                "configured": by_pool(step.configured),
                "measured": by_pool(step.traffic.shares),
                "is_within_4_sigma": step.is_within(),
                "last_answer_of_old_pool_ms": step.last_of_old.map(|late| rounded(milliseconds(late), 2)),
            })
        });
        let models = self.models.iter().map(|model| {
            json!({
                "pool": model.pool,
                "version": model.label(),
                "queries": model.queries,
                "ndcg_at_10": rounded(model.ndcg, 4),
                "clicks_per_query": rounded(model.clicks, 4),
            })
        });
        let evidence = self.shown.caught.as_ref().map(|caught| {
            json!({ "verdict": "roll_back", "log_harm": caught.log_harm, "threshold_log": caught.threshold_log, "summary": caught.summary })
        });
        let refused = self.shown.refused.iter().zip(&self.seen_all_the_same).map(|(refused, queries)| {
            json!({
                "name": refused.name,
                "version": refused.version,
                "check": refused.check,
                "reason": refused.why,
                "seconds": rounded(refused.took.as_secs_f64(), 1),
                "queries": queries,
            })
        });
        let promoted = self.shown.promoted.as_ref();
        let [p50, p99] = self.added;
        json!({
            "promoted": promoted.map(|promoted| promoted.version),
            "promotion_seconds": promoted.map(|promoted| rounded(promoted.took.as_secs_f64(), 1)),
            "rolled_back": self.shown.caught.as_ref().map(|caught| caught.version),
            "refused": refused.collect::<Vec<_>>(),
            "failed_requests": self.failed,
            "detection_seconds": self.shown.caught.as_ref().map(|caught| rounded(caught.seconds, 1)),
            "rollback_seconds": self.shown.caught.as_ref().map(|caught| rounded(caught.rollback_seconds, 3)),
            "requests": self.sent,
            "requests_between_steps": self.between_steps,
            "seconds": rounded(self.seconds, 1),
            "units": self.units,
            "units_that_changed_arm": self.units_changed,
            "router_added_p50_us": rounded(p50.routed - p50.direct, 1),
            "router_added_p50_se_us": rounded(p50.se, 1),
            "router_added_p99_us": rounded(p99.routed - p99.direct, 1),
            "router_added_p99_se_us": rounded(p99.se, 1),
            "direct_p50_us": rounded(p50.direct, 1),
            "direct_p99_us": rounded(p99.direct, 1),
            "latency_pairs": self.pairs,
            "plugin_swap_ms": self.shown.plugin_swaps.iter().map(|swap| rounded(milliseconds(*swap), 2)).collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "models": models.collect::<Vec<_>>(),
            "clicks": self.clicks,
            "evidence": evidence,
            "error": error,
        })
    }

    /// The tables.
    pub(super) fn show(&self, screen: &mut Screen) {
        screen.say("");
        self.show_steps(screen);
        screen.say("");
        self.show_models(screen);
        screen.say("");
        self.show_refused(screen);
        screen.say("");
        self.show_promises(screen);
        for reason in &self.reasons {
            let reason = screen.verdict(false, &format!("  failed: {reason}"));
            screen.say(&reason);
        }
    }

    fn show_steps(&self, screen: &mut Screen) {
        screen.say("  Shares of the queries: blue / green / canary");
        let mut rows = vec![row(["step", "queries", "configured %", "measured %", ""])];
        for step in &self.steps {
            let mark = if step.is_within() { "" } else { "off" };
            let queries = step.traffic.queries.to_string();
            let (configured, measured) = (three(step.configured, 0), three(step.traffic.shares, 1));
            rows.push(vec![step.label.clone(), queries, configured, measured, screen.verdict(mark.is_empty(), mark)]);
        }
        // Everything that was sent through the router is somewhere in this column.
        let others = [("during a change", self.between_steps), ("failed", self.failed), ("in all", self.sent)];
        for (label, count) in others.into_iter().filter(|(label, count)| *label != "failed" || *count > 0) {
            rows.push(row([label, &count.to_string(), "", "", ""]));
        }
        screen.table(&rows, &[false, true, true, true]);
    }

    fn show_models(&self, screen: &mut Screen) {
        let mut rows = vec![row(["model", "pool", "queries", "NDCG@10", "clicks per query"])];
        for model in &self.models {
            let (ndcg, clicks) = (format!("{:.4}", model.ndcg), format!("{:.3}", model.clicks));
            let is_broken = self.shown.caught.as_ref().is_some_and(|caught| caught.version == model.label());
            let label = if is_broken { format!("{}, broken", model.label()) } else { model.label() };
            rows.push(vec![label, model.pool.to_owned(), model.queries.to_string(), ndcg, clicks]);
        }
        screen.table(&rows, &[false, false, true, true, true]);
    }

    fn show_refused(&self, screen: &mut Screen) {
        let mut rows = vec![row(["refused unseen", "version", "by check", "after", "queries to it"])];
        for (refused, queries) in self.shown.refused.iter().zip(&self.seen_all_the_same) {
            let (took, queries) = (format!("{:.1} s", refused.took.as_secs_f64()), queries.to_string());
            rows.push(row([refused.name, &refused.version, refused.check, &took, &queries]));
        }
        screen.table(&rows, &[false, false, false, true, true]);
    }

    fn show_promises(&self, screen: &mut Screen) {
        let swaps: Vec<String> = self.shown.plugin_swaps.iter().map(|swap| format!("{:.0} ms", milliseconds(*swap))).collect();
        let mut rows = vec![
            vec!["queries sent".to_owned(), self.sent.to_string(), format!("in {:.0} s", self.seconds)],
            vec!["queries failed".to_owned(), screen.verdict(self.failed == 0, &self.failed.to_string()), String::new()],
            vec![
                "users who moved unasked".to_owned(),
                screen.verdict(self.units_changed == 0, &self.units_changed.to_string()),
                format!("of {}", self.units),
            ],
        ];
        for step in self.steps.iter().filter(|step| step.change == Change::Flip) {
            let late = step.last_of_old.map_or(0.0, milliseconds);
            let said = if late > 0.0 { format!("{late:.1} ms") } else { "at once".to_owned() };
            rows.push(vec![format!("{} complete", step.label), said, "after the flag was written".to_owned()]);
        }
        rows.push(vec!["plugin in force".to_owned(), swaps.join(", "), "after its file arrived".to_owned()]);
        if let Some(Promoted { took, .. }) = self.shown.promoted {
            rows.push(vec!["good model live".to_owned(), format!("{:.1} s", took.as_secs_f64()), "after its first share".to_owned()]);
        }
        if let Some(caught) = &self.shown.caught {
            let (said, note) = (format!("{:.1} s", caught.seconds), "after its first share");
            rows.push(vec!["broken model found out".to_owned(), said, note.to_owned()]);
            rows.push(vec!["and rolled back".to_owned(), "by itself".to_owned(), after_the_verdict(caught.rollback_seconds)]);
        }
        for (quantile, added) in ["p50", "p99"].iter().zip(self.added) {
            let Added { routed, direct, se } = added;
            let difference = format!("{:+.2} ± {:.2} ms", (routed - direct) / 1e3, se / 1e3);
            let note = format!("{:.2} ms, straight {:.2}", routed / 1e3, direct / 1e3);
            rows.push(vec![format!("added by the router, {quantile}"), difference, note]);
        }
        screen.table(&rows, &[]);
        let pairs = self.pairs;
        screen.say("");
        screen.paragraph(&format!(
            "Unasked: within a step, over a plugin, or off a growing canary. Latency: {pairs} times the same query both ways, beside the other \
             traffic, with all processes on this machine; those that went straight to a ranker are not among the queries sent."
        ));
    }
}

impl Added {
    fn at(quantile: f64, routed: &[Duration], direct: &[Duration]) -> Added {
        let ((routed, routed_se), (direct, direct_se)) = (at_quantile(routed, quantile), at_quantile(direct, quantile));
        Added { routed, direct, se: routed_se.hypot(direct_se) }
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

impl ModelSummary {
    fn label(&self) -> String {
        format!("search:{}", self.version)
    }
}

/// Queries that a model answered after it was offered to be refused.
fn seen(observations: &[Observation], refused: &Refused) -> usize {
    let is_its = |seen: &&Observation| format!("search:{}", seen.version) == refused.version;
    observations.iter().filter(|seen| seen.sent >= refused.offered).filter(is_its).count()
}

/// What each version did on each pool, as its answers say.
fn models(observations: &[Observation]) -> Vec<ModelSummary> {
    let mut sums: BTreeMap<(u32, usize), (u32, f64, f64)> = BTreeMap::new();
    for seen in observations {
        let (queries, ndcg, clicks) = sums.entry((seen.version, seen.pool)).or_default();
        *queries += 1;
        *ndcg += seen.ndcg;
        *clicks += f64::from(seen.clicks);
    }
    let summary = |((version, pool), (queries, ndcg, clicks)): ((u32, usize), (u32, f64, f64))| ModelSummary {
        version,
        pool: POOLS.get(pool).copied().unwrap_or_default(),
        queries,
        ndcg: ndcg / f64::from(queries),
        clicks: clicks / f64::from(queries),
    };
    sums.into_iter().map(summary).collect()
}

/// A quantile in microseconds with its standard error, which is half the distance between the values one standard error of the
/// rank below and above. Zero without samples.
fn at_quantile(samples: &[Duration], quantile: f64) -> (f64, f64) {
    let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e6).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX));
    let rank_se = (count * quantile * (1.0 - quantile)).sqrt();
    let at = |rank: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list, rounded down")]
        let place = rank.clamp(0.0, (count - 1.0).max(0.0)) as usize;
        sorted.get(place).copied().unwrap_or(0.0)
    };
    let rank = count * quantile;
    (at(rank), (at(rank + rank_se) - at(rank - rank_se)) / 2.0)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn by_pool(shares: [f64; 3]) -> Value {
    Value::Object(POOLS.into_iter().zip(shares).map(|(pool, share)| (pool.to_owned(), json!(rounded(share, 4)))).collect())
}

/// No more digits than mean something.
fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

fn three(shares: [f64; 3], decimals: usize) -> String {
    shares.map(|share| format!("{:>5.decimals$}", share * 100.0)).join(" / ")
}

fn row(cells: [&str; 5]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_of_even_steps_is_where_it_should_be() {
        let samples: Vec<Duration> = (0..10_000).map(Duration::from_micros).collect();
        let (median, se) = at_quantile(&samples, 0.5);
        assert!((median - 5_000.0).abs() < 1.5, "{median}");
        assert!((se - 50.0).abs() < 2.0, "{se}");
        assert_eq!(at_quantile(&[], 0.99), (0.0, 0.0));
    }

    #[test]
    fn a_share_far_from_the_configured_one_is_noticed() {
        let step = |measured: f64| StepSummary {
            label: String::new(),
            change: Change::Ramp,
            configured: [0.75, 0.0, 0.25],
            traffic: Traffic { queries: 1_000, shares: [1.0 - measured, 0.0, measured], units: 1_000 },
            last_of_old: None,
        };
        assert!(step(0.27).is_within());
        assert!(!step(0.35).is_within());
        let leak = StepSummary { traffic: Traffic { queries: 1_000, shares: [0.749, 0.001, 0.25], units: 1_000 }, ..step(0.25) };
        assert!(!leak.is_within(), "a pool that should get nothing");
    }
}
