//! `switchback policy simulate`: what a rollback policy does to rollouts that never happened, or to recorded ones.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::Failure;
use super::rollback_policy::Chosen;
use crate::policy::rollback::Verdict;
use crate::simulate::comparators::{Comparator, wald_samples};
use crate::simulate::{Order, Promise, Row, Scenario, Summary, rows, run, summarise};

const AFTER_HELP: &str = "\
Scenarios: `all`, `aa` (good candidates), `harm` (bad ones), `late` (bad from window 1,800 on), or the names that --list prints.

Examples:
  switchback policy simulate rollback-guardrail --scenario aa --rollouts 2000
  switchback policy simulate my-rollback.wasm --scenario clicks-27-at-50 --strengths 0.25,0.5,1,2
  switchback policy simulate rollback-guardrail --native --requests 80 --share 0.2 --harm-clicks 0.27
  switchback policy simulate rollback-guardrail --config '{\"alpha\": 0.001}' --own scenario.json --json
  switchback policy simulate rollback-guardrail --replay /var/lib/switchback/windows/search/1795870537-*";

/// Counts a rollback policy's false alarms, and how soon it sees harm, on simulated rollouts.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Simulate {
    /// The policy: a WebAssembly component, or a shipped one's name where there is no file of that name.
    #[arg(value_name = "FILE.wasm", default_value = "rollback-guardrail")]
    policy: PathBuf,
    /// The policy's own config, JSON, as a route's `rollback_config` would give it.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// Run a shipped policy as native code: the same verdicts, sooner.
    #[arg(long)]
    native: bool,
    /// A named scenario, or a family of them.
    #[arg(long, value_name = "NAME", default_value = "all", conflicts_with_all = ["own", "replay"])]
    scenario: String,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
    /// A scenario of one's own: a JSON file with the fields that `--list --json` shows; left out, they are the defaults.
    #[arg(long, value_name = "FILE")]
    own: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
    /// Judge the windows of a recorded rollout instead: its logs, also compressed ones, of every router that judged.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    replay: Vec<PathBuf>,
    /// Rollouts of each scenario.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rollouts: u64,
    /// A power curve: the harm at these strengths, of which 1 is the scenario's own.
    #[arg(long, value_delimiter = ',', value_name = "STRENGTHS")]
    strengths: Vec<f64>,
    /// Judge by another method instead of the policy.
    #[arg(long, value_name = "METHOD")]
    instead: Option<Comparator>,
    /// The seed. The same seed gives the same figures, on any number of threads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; by default one for each core.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    threads: Option<u64>,
    /// Print JSON: one object with a list of scenarios.
    #[arg(long)]
    json: bool,
}

/// What is different from the named scenario.
#[derive(Debug, Args)]
struct Change {
    /// Requests a second, of both roles.
    #[arg(long, value_name = "N", help_heading = "Changes to the scenario")]
    requests: Option<f64>,
    /// The candidate's share, 0 to 1.
    #[arg(long, help_heading = "Changes to the scenario")]
    share: Option<f64>,
    /// Length of a window.
    #[arg(long, value_name = "MS", help_heading = "Changes to the scenario")]
    window_ms: Option<u32>,
    /// Windows of a rollout.
    #[arg(long, help_heading = "Changes to the scenario")]
    windows: Option<u64>,
    /// The window in which the harm begins.
    #[arg(long, help_heading = "Changes to the scenario")]
    onset: Option<u64>,
    /// Part of the candidate's requests that fail from then on.
    #[arg(long, value_name = "PART", help_heading = "Changes to the scenario")]
    harm_errors: Option<f64>,
    /// The candidate's clicks per answer from then on.
    #[arg(long, value_name = "RATE", help_heading = "Changes to the scenario")]
    harm_clicks: Option<f64>,
    /// The candidate's mean quality from then on.
    #[arg(long, value_name = "MEAN", help_heading = "Changes to the scenario")]
    harm_quality: Option<f64>,
    /// The candidate's p99 from then on.
    #[arg(long, value_name = "MS", help_heading = "Changes to the scenario")]
    harm_p99_ms: Option<f64>,
    /// Correlation of clicks and quality between queries of one user.
    #[arg(long, help_heading = "Changes to the scenario")]
    icc: Option<f64>,
    /// Queries of one user.
    #[arg(long, value_name = "N", help_heading = "Changes to the scenario")]
    queries_per_user: Option<u32>,
    /// Errors and timeouts alone, as a router's local breaker has them.
    #[arg(long, help_heading = "Changes to the scenario")]
    errors_only: bool,
}

impl Change {
    fn apply(&self, scenario: &mut Scenario) {
        fn set<T: Copy>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut scenario.requests_per_second, self.requests);
        set(&mut scenario.share, self.share);
        set(&mut scenario.window_ms, self.window_ms);
        set(&mut scenario.windows, self.windows);
        set(&mut scenario.onset, self.onset);
        set(&mut scenario.icc, self.icc);
        set(&mut scenario.queries_per_user, self.queries_per_user);
        scenario.errors_only |= self.errors_only;
        let mut harm = scenario.harm.unwrap_or(scenario.base);
        set(&mut harm.errors, self.harm_errors);
        set(&mut harm.clicks, self.harm_clicks);
        set(&mut harm.quality, self.harm_quality);
        set(&mut harm.p99_ms, self.harm_p99_ms);
        if scenario.harm.is_some() || harm != scenario.base {
            scenario.harm = Some(harm);
        }
    }

    fn says_harm(&self) -> bool {
        [self.harm_errors, self.harm_clicks, self.harm_quality, self.harm_p99_ms].iter().any(Option::is_some)
    }
}

impl Simulate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.list {
            return self.print_names();
        }
        let chosen = Chosen::load(&self.policy, self.native)?;
        if !self.replay.is_empty() {
            return super::replay::replay(&chosen, &self.config, &self.replay, self.json);
        }
        let threads = self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |threads| threads as usize);
        let order = Order { rollouts: self.rollouts, seed: self.seed, threads };
        let mut found = Vec::new();
        for (scenario, promise) in self.scenarios()? {
            let bar = progress_bar(self.json, self.rollouts, &scenario.name);
            let judges = || match self.instead {
                Some(comparator) => Ok(comparator.judge()),
                None => chosen.judge(&self.config, &scenario.name),
            };
            let ended = run(&scenario, &judges, order, &|done| bar.set_position(done));
            bar.finish_and_clear();
            let summary = summarise(&scenario, &ended.map_err(Failure::usage)?);
            if !self.json {
                let head = if found.is_empty() { heading() + "\n" } else { String::new() };
                super::print(&format!("{head}{}\n", line(&summary, promise)))?;
            }
            found.push(as_json(&summary, &scenario, promise));
        }
        if self.json {
            super::print(&format!("{}\n", json!({"policy": self.policy, "seed": self.seed, "scenarios": found})))?;
        }
        Ok(())
    }

    fn scenarios(&self) -> Result<Vec<(Scenario, Option<Promise>)>, Failure> {
        let mut chosen: Vec<(Scenario, Option<Promise>)> = match &self.own {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
                let scenario = serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
                vec![(scenario, None)]
            }
            // A harm of one's own is to one rollout, not to each of the table.
            None if self.scenario == "all" && self.change.says_harm() => vec![(Scenario::default(), None)],
            None => named(&self.scenario)?.into_iter().map(|row| (row.scenario, Some(row.promise))).collect(),
        };
        for (scenario, promise) in &mut chosen {
            let before = scenario.clone();
            self.change.apply(scenario);
            scenario.check().map_err(|reason| Failure::usage(format!("{}: {reason}", scenario.name)))?;
            // What was promised was promised of the scenario as it is.
            if *scenario != before {
                *promise = None;
            }
        }
        if self.strengths.is_empty() {
            return Ok(chosen);
        }
        let strengthened =
            chosen.iter().flat_map(|(scenario, _)| self.strengths.iter().map(|strength| (scenario.with_strength(*strength), None)));
        Ok(strengthened.collect())
    }

    fn print_names(&self) -> Result<(), Failure> {
        let rows = rows();
        if self.json {
            let scenarios: Vec<&Scenario> = rows.iter().map(|row| &row.scenario).collect();
            return super::print(&format!("{}\n", json!(scenarios)));
        }
        let names: Vec<&str> = rows.iter().map(|row| row.scenario.name.as_str()).collect();
        super::print(&format!("{}\n", names.join("\n")))
    }
}

pub(super) fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Advance => "advance",
        Verdict::Hold => "hold",
        Verdict::RollBack => "roll back",
        Verdict::NoData => "no data",
    }
}

fn named(name: &str) -> Result<Vec<Row>, Failure> {
    let is_wanted = |row: &Row| match name {
        "all" => true,
        "aa" => matches!(row.promise, Promise::FalseAlarms(_)),
        "late" => row.scenario.onset > 0,
        "harm" => row.scenario.harm.is_some() && row.scenario.onset == 0,
        name => row.scenario.name == name,
    };
    let wanted: Vec<Row> = rows().into_iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return Err(Failure::usage(format!("no scenario {name:?}: --list prints their names")));
    }
    Ok(wanted)
}

fn heading() -> String {
    let columns = format!("{:>9} {:>9} {:>8}  {:>17}  {:>17}", "false", "at most", "harm", "canary samples", "seconds");
    format!(
        "{:<28} {:>8} {columns}\n{:<28} {:>8} {:>9} {:>9} {:>8}  {:>17}  {:>17}",
        "scenario", "rollouts", "", "", "alarms", "(95 %)", "seen", "median / p95", "median / p95"
    )
}

fn line(summary: &Summary, promise: Option<Promise>) -> String {
    let part = |count: u64| format!("{:.2} %", count as f64 / summary.rollouts as f64 * 100.0);
    let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "never".to_owned(), |value| format!("{value:.digits$}"));
    let (samples, seconds, seen) = if summary.detected == 0 && matches!(promise, Some(Promise::FalseAlarms(_))) {
        (String::new(), String::new(), String::new())
    } else {
        (
            format!("{} / {}", number(summary.samples_median, 0), number(summary.samples_p95, 0)),
            format!("{} / {}", number(summary.seconds_median, 2), number(summary.seconds_p95, 2)),
            part(summary.detected),
        )
    };
    let promised = match promise {
        Some(Promise::FalseAlarms(most)) => format!("  promised: at most {} %", most * 100.0),
        Some(Promise::Detection { samples, seconds: (median, p95) }) => {
            let samples = samples.map_or_else(String::new, |[median, p95]| format!("{median} / {p95} samples, "));
            let p95 = p95.map_or_else(String::new, |p95| format!(" / {p95}"));
            format!("  designed: {samples}{median}{p95} s")
        }
        None => String::new(),
    };
    let upper = format!("{:.2} %", summary.false_alarms_upper * 100.0);
    format!(
        "{:<28} {:>8} {:>9} {upper:>9} {seen:>8}  {samples:>17}  {seconds:>17}{promised}",
        summary.scenario,
        summary.rollouts,
        part(summary.false_alarms)
    )
}

fn as_json(summary: &Summary, scenario: &Scenario, promise: Option<Promise>) -> Value {
    let mut found = json!(summary);
    if let Some(table) = found.as_object_mut() {
        table.insert("wald_samples".to_owned(), json!(wald_samples(scenario)));
        let promised = match promise {
            Some(Promise::FalseAlarms(most)) => json!({"false_alarms": most}),
            Some(Promise::Detection { samples, seconds: (median, p95) }) => json!({"samples": samples, "seconds": [median, p95]}),
            None => Value::Null,
        };
        table.insert("promised".to_owned(), promised);
    }
    found
}

pub(super) fn progress_bar(is_json: bool, length: u64, name: &str) -> ProgressBar {
    use std::io::IsTerminal as _;
    let bar = ProgressBar::new(length);
    if is_json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar
}
