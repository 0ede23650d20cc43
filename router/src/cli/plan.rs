//! `switchback plan`: what a step can see at this traffic, how soon, and at whose cost.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::rollback_policy::Chosen;
use super::simulate::progress_bar;
use crate::policy::NativeRollback;
use crate::simulate::plan::{Line, Question, number_of_harms, plan};
use crate::simulate::{Order, Rates};

const AFTER_HELP: &str = "\
Seconds are of data: a traffic window is sealed 2 s after its end, clicks and quality are used when they are 60 s old. Users who send several queries make it take longer, by their design effect (docs/STATISTICS.md).

Examples:
  switchback plan --requests 500 --share 0.1
  switchback plan --requests 40 --share 0.05 --clicks 0.22 --within 1800
  switchback plan --requests 2000 --share 0.01 --json";

/// Says how long a step needs to see which harm at this traffic, and how many queries it exposes, and proposes a share.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Plan {
    /// Requests a second of the route.
    #[arg(long, value_name = "N", default_value_t = 500.0)]
    requests: f64,
    /// The step's share, 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    /// Part of the live model's requests that fail.
    #[arg(long, value_name = "PART", default_value_t = 0.001)]
    errors: f64,
    /// The live model's clicks per answer.
    #[arg(long, value_name = "RATE", default_value_t = 0.3)]
    clicks: f64,
    /// The live model's mean quality.
    #[arg(long, value_name = "MEAN", default_value_t = 0.6)]
    quality: f64,
    /// The live model's p99 in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    p99_ms: f64,
    /// A harm is to be seen within this.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    within: u64,
    /// The policy's own config, JSON, as a route's `rollback_config` would give it.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// Another rollback policy than the shipped guardrail.
    #[arg(long, value_name = "FILE.wasm")]
    policy: Option<PathBuf>,
    /// Rollouts for each harm and share.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    rollouts: u64,
    /// The seed. The same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let chosen = match &self.policy {
            Some(file) => Chosen::load(file, false)?,
            None => Chosen::Native(NativeRollback::Guardrail),
        };
        if !(self.share > 0.0 && self.share < 1.0) {
            return Err(Failure::usage(format!("--share {}: must be above 0 and below 1: 0.1 is 10 %", self.share)));
        }
        let base = Rates { errors: self.errors, clicks: self.clicks, quality: self.quality, p99_ms: self.p99_ms, ..Rates::default() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let order = Order { rollouts: self.rollouts, seed: self.seed, threads };
        let question = Question { requests_per_second: self.requests, share: self.share, base, within_seconds: self.within, order };
        let bar = progress_bar(self.json, number_of_harms(), "planning");
        let lines = plan(&question, &|| chosen.judge(&self.config, "plan"), &|done| bar.set_position(done));
        bar.finish_and_clear();
        let lines = lines.map_err(Failure::usage)?;
        if self.json {
            let answer = json!({"requests_per_second": self.requests, "share": self.share, "within_seconds": self.within, "harms": lines});
            return super::print(&format!("{answer}\n"));
        }
        super::print(&self.table(&lines))
    }

    fn table(&self, lines: &[Line]) -> String {
        let mut text = format!(
            "At {} requests a second, {} % of them to the candidate, a harm is seen after\n\n{:<26} {:>10} {:>10} {:>16}  smallest share for {} s\n",
            self.requests,
            self.share * 100.0,
            "",
            "median",
            "p95",
            "queries exposed",
            self.within
        );
        let seconds = |value: Option<f64>| value.map_or_else(|| format!("> {} s", self.within * 2), |value| format!("{value:.0} s"));
        for line in lines {
            let exposed = line.exposed_p95.map_or_else(String::new, |exposed| format!("{exposed:.0}"));
            let share = line.wiser_share.map_or_else(|| "none: too little traffic".to_owned(), |share| format!("{} %", share * 100.0));
            let (median, p95) = (seconds(line.seconds_median), seconds(line.seconds_p95));
            text.push_str(&format!("{:<26} {median:>10} {p95:>10} {exposed:>16}  {share}\n", line.harm));
        }
        text
    }
}
