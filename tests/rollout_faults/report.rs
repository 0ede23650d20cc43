//! The report that is kept: a line for each kind of fault, and whatever was wrong.

use std::fmt::Write as _;
use std::time::Duration;

use switchback_tests::provenance;

use crate::plan::{Kind, Plan};

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    /// From the start of the rollout until every router said that it was over; `None` where it was not.
    pub(crate) took: Option<Duration>,
    /// How often routers were asked for their epochs.
    pub(crate) looks: u64,
    pub(crate) violations: Vec<String>,
}

impl Outcome {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let faults: Vec<String> = self.plan.faults.iter().map(ToString::to_string).collect();
        let candidate = if self.plan.is_good { "good" } else { "bad" };
        let end = self.took.map_or_else(|| "not over".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        let (seed, routers) = (self.plan.seed, self.plan.routers);
        let mut line = format!("seed {seed}: {candidate} candidate, {routers} routers, {end}: {}", faults.join("; "));
        self.violations.iter().for_each(|violation| line.push_str(&format!("\n  VIOLATION {violation}")));
        line
    }
}

fn quantile(outcomes: &[&Outcome], share: f64) -> String {
    let mut times: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.took).collect();
    times.sort_unstable();
    let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(place).map_or_else(String::new, |took| format!("{:.1} s", took.as_secs_f64()))
}

fn row(what: &str, outcomes: &[&Outcome]) -> String {
    let ended = |is_good: bool| outcomes.iter().filter(|outcome| outcome.plan.is_good == is_good && outcome.took.is_some()).count();
    let stuck = outcomes.iter().filter(|outcome| outcome.took.is_none()).count();
    let violations: usize = outcomes.iter().map(|outcome| outcome.violations.len()).sum();
    let good: Vec<&Outcome> = outcomes.iter().copied().filter(|outcome| outcome.plan.is_good).collect();
    let (runs, done, back) = (outcomes.len(), ended(true), ended(false));
    format!("| {what} | {runs} | {done} | {back} | {stuck} | {} | {} | {violations} |\n", quantile(&good, 0.5), quantile(&good, 0.95))
}

/// All of it.
pub(crate) fn text(outcomes: &[Outcome], planned: usize, command: &str) -> String {
    let all: Vec<&Outcome> = outcomes.iter().collect();
    let mut text = format!("# Faults while rolling out: the last run that was kept\n\n`{command}`\n({})\n\n", provenance());
    let looks: u64 = outcomes.iter().map(|outcome| outcome.looks).sum();
    let _ = writeln!(
        text,
        "{} of {planned} seeds. Each is one rollout of 10 %, 50 % and live, with a dwell of 1 s and 3 s of baking, by two or three real routers under load, with a\nreal \
         Redis that keeps an append-only file (`appendfsync always`). A run has one fault or more, so it may be in more than one line. Three in four candidates are good\nand have to end `done`; \
         the others fail every other query, and have to end `rolled_back`. Each run is checked for what `tests/rollout_faults.rs` promises; routers\nwere asked for their \
         epochs {looks} times meanwhile. `SWITCHBACK_SEED=n` runs one seed again.\n",
        outcomes.len()
    );
    text.push_str(
        "| fault | runs | done | rolled back | neither | time to `done`, median | p95 | violations |\n|---|---|---|---|---|---|---|---|\n",
    );
    for kind in Kind::ALL {
        let of: Vec<&Outcome> = all.iter().copied().filter(|outcome| outcome.plan.faults.iter().any(|fault| fault.kind == kind)).collect();
        text.push_str(&row(kind.label(), &of));
    }
    let several: Vec<&Outcome> = all.iter().copied().filter(|outcome| outcome.plan.faults.len() > 1).collect();
    text.push_str(&row("of these: with more than one fault", &several));
    text.push_str(&row("all runs", &all));
    let wrong: Vec<String> = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).map(Outcome::line).collect();
    if !wrong.is_empty() {
        let _ = write!(text, "\n## Violations\n\n```text\n{}\n```\n", wrong.join("\n"));
    }
    text
}
