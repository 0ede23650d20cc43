//! What the deployments come to, and the report that is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Router, provenance};

use crate::Kind;

/// The ledger's entries that are read: all of them.
const ENTRIES: usize = 1_000;
/// After a rollout, until it is quiet.
const SETTLES_MS: u64 = 500;

/// One deployment.
pub(crate) struct Deployed {
    kind: Kind,
    pub(crate) version: u64,
    outcome: String,
    pub(crate) took: Duration,
    /// Each phase, and the seconds that it took.
    phases: Vec<(String, f64)>,
    pub(crate) why: String,
}

impl Deployed {
    /// From what `deploy --json` says.
    pub(crate) fn of(kind: Kind, account: &Value, took: Duration) -> Deployed {
        let phases = account["phases"].as_array().unwrap().iter();
        let phases = phases.map(|phase| (phase["phase"].as_str().unwrap().to_owned(), phase["seconds"].as_f64().unwrap())).collect();
        let why = account["why"].as_str().or(account["error"].as_str()).unwrap_or_default().to_owned();
        let (version, outcome) = (account["version"].as_u64().unwrap(), account["outcome"].as_str().unwrap().to_owned());
        Deployed { kind, version, outcome, took, phases, why }
    }
}

/// When rollouts were under way, and when versions were loaded, in milliseconds since 1970, as the ledger has it.
#[derive(Default)]
pub(crate) struct Loads {
    rollouts: Vec<(u64, u64)>,
    loads: Vec<(u64, u64)>,
}

impl Loads {
    pub(crate) fn of(router: &Router) -> Loads {
        let (status, body) = router.admin("GET", &format!("/api/v1/routes/search/history?limit={ENTRIES}"), b"");
        assert_eq!(status, 200, "{body}");
        let mut found = Loads::default();
        let mut began = 0;
        for entry in body["entries"].as_array().unwrap().iter().rev() {
            let at = entry["time_ms"].as_u64().unwrap();
            match entry["grounds"]["event"].as_str().unwrap_or_default() {
                "started" => began = at,
                "done" | "rolled_back" | "aborted" => found.rollouts.push((began, at + SETTLES_MS)),
                "loaded" => found.loads.push((at.saturating_sub(seconds(entry["why"].as_str().unwrap())), at)),
                _ => {}
            }
        }
        found
    }

    /// Nothing was under way.
    pub(crate) fn is_quiet(&self, at: u64) -> bool {
        let (first, last) = (self.rollouts.first().map_or(0, |first| first.0), self.rollouts.last().map_or(0, |last| last.1));
        (first..=last).contains(&at) && !self.rollouts.iter().any(|(began, ended)| (*began..=*ended).contains(&at))
    }

    /// A version was loaded.
    pub(crate) fn is_loading(&self, at: u64) -> bool {
        self.loads.iter().any(|(began, ended)| (*began..=*ended).contains(&at))
    }
}

/// `1 server(s) of canary have search:2 after 0.3 s; ...`, in milliseconds.
fn seconds(why: &str) -> u64 {
    let seconds: f64 = why.split(" after ").nth(1).and_then(|rest| rest.split(" s").next()?.parse().ok()).unwrap();
    (seconds * 1_000.0) as u64 + 50
}

/// All of it.
pub(crate) struct Figures {
    pub(crate) told: Vec<Deployed>,
    pub(crate) sent: u64,
    pub(crate) quiet: Vec<Duration>,
    pub(crate) loading: Vec<Duration>,
    pub(crate) to_loaded: Duration,
    pub(crate) to_unloaded: Duration,
}

fn p99(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

impl Figures {
    /// How much longer the slowest percent of answers took while versions were loaded.
    pub(crate) fn ratio(&self) -> f64 {
        p99(&self.loading).as_secs_f64() / p99(&self.quiet).as_secs_f64().max(1e-9)
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} deployments, {} queries, none failed; p99 {} with nothing under way ({} queries), {} while a version is loaded ({}): {:.2} times",
            self.told.len(),
            self.sent,
            ms(p99(&self.quiet)),
            self.quiet.len(),
            ms(p99(&self.loading)),
            self.loading.len(),
            self.ratio()
        )
    }

    /// Seconds that good ones took, phase by phase.
    fn phases(&self) -> String {
        let mut by_phase: BTreeMap<usize, (String, Vec<f64>)> = BTreeMap::new();
        for one in self.told.iter().filter(|one| one.kind == Kind::Good) {
            for (place, (name, seconds)) in one.phases.iter().enumerate() {
                by_phase.entry(place).or_insert_with(|| (name.clone(), Vec::new())).1.push(*seconds);
            }
        }
        let mut text = "| phase | deployments | median | worst |\n|---|---|---|---|\n".to_owned();
        for (name, seconds) in by_phase.values_mut() {
            seconds.sort_by(f64::total_cmp);
            let (median, worst) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
            writeln!(text, "| {name} | {} | {median:.2} s | {worst:.2} s |", seconds.len()).unwrap();
        }
        let mut whole: Vec<f64> = self.told.iter().filter(|one| one.kind == Kind::Good).map(|one| one.took.as_secs_f64()).collect();
        whole.sort_by(f64::total_cmp);
        writeln!(
            text,
            "| from the command to its end | {} | {:.1} s | {:.1} s |",
            whole.len(),
            whole[whole.len() / 2],
            whole[whole.len() - 1]
        )
        .unwrap();
        text
    }

    fn kinds(&self) -> String {
        let mut kinds: BTreeMap<&str, (usize, BTreeMap<&str, usize>, f64)> = BTreeMap::new();
        for one in &self.told {
            let (count, outcomes, slowest) = kinds.entry(one.kind.label()).or_default();
            *count += 1;
            *outcomes.entry(&one.outcome).or_default() += 1;
            *slowest = slowest.max(one.took.as_secs_f64());
        }
        let mut text = "| model | deployments | ended | slowest |\n|---|---|---|---|\n".to_owned();
        for (kind, (count, outcomes, slowest)) in kinds {
            let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {}", outcome.replace('_', " "))).collect();
            writeln!(text, "| {kind} | {count} | {} | {slowest:.1} s |", outcomes.join(", ")).unwrap();
        }
        text
    }

    /// As it is kept.
    pub(crate) fn report(&self, seed: u64, rate: u32) -> String {
        format!(
            "# Deployments in a row under load: the last run that was kept\n\n{}.\n\
             `SWITCHBACK_FULL=1 cargo test --release --locked --workspace --test deployments -- --nocapture`\n\n\
             `switchback deploy --file ... --wait` against two routers, one Redis, a registry in a folder and four `switchback ranker` (blue, two of\n\
             green, canary), with {} queries a second; half of them have a document that the models which fail in use cannot score. Steps of 10 %\n\
             and 50 %, a bake of 2 s. Which model is bad, and how, is drawn (seed {seed}).\n\n\
             {} queries, none failed. What the live version answers takes {} at p99 with nothing under way ({} queries), and {} while a version is\n\
             loaded and warmed up on another pool of the same machine ({} queries): {:.2} times (limit 1.2).\n\n\
             Back to the version that the other colour still has: {} (limit 1 s). To one that no server has: {:.1} s (limit 60 s). Both from the start\n\
             of `switchback rollback --to` to its end.\n\n{}\n{}",
            provenance(),
            4 * rate,
            self.sent,
            ms(p99(&self.quiet)),
            self.quiet.len(),
            ms(p99(&self.loading)),
            self.loading.len(),
            self.ratio(),
            ms(self.to_loaded),
            self.to_unloaded.as_secs_f64(),
            self.kinds(),
            self.phases()
        )
    }
}
