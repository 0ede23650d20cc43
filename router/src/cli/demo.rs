//! `switchback demo`: the whole system on this machine, in less than two minutes.

use clap::Args;

use super::{Failure, block_on, print};
use crate::demo::{self, DemoError, Options};

/// See it work: a registry, three rankers, the router, search users and a nightly job on this machine, in less than two minutes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchback demo
  switchback demo --fast
  switchback demo --json 2>/dev/null | tail -1

Needs nothing but ONNX Runtime's library, which `scripts/fetch_onnxruntime.sh` gets, and what scripts/deploy_model.sh calls: sh, flock, mktemp and mkfifo. Ports are given out by the system; files are in a folder that is removed at the end. Exit code 0: no query failed, no user changed sides, shares as configured, the good model live, the broken one rolled back, and the bad ones refused before any user saw them.")]
pub(super) struct Demo {
    /// Shorter steps: about half as long.
    #[arg(long)]
    fast: bool,
    /// The timeline to stderr, and at the end one JSON object to stdout.
    #[arg(long)]
    json: bool,
    /// Queries a second.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Different users.
    #[arg(long, value_name = "N", default_value_t = 1_600, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    users: u32,
}

impl Demo {
    /// Plays it, and says how it went.
    pub(super) fn run(self) -> Result<(), Failure> {
        let options = Options { is_fast: self.fast, for_machines: self.json, rate: self.rate, users: self.users };
        let outcome = block_on(async { demo::run(&options).await.map_err(|error| failure(&error)) })?;
        let printed = if self.json { print(&format!("{}\n", outcome.json)) } else { Ok(()) };
        if outcome.is_good { printed } else { Err(Failure::refused("the demo did not show what it promises: see above")) }
    }
}

fn failure(error: &DemoError) -> Failure {
    let text = format!("demo: {}", Failure::chain(error));
    match error {
        DemoError::Stopped | DemoError::Change(_) => Failure::refused(text),
        _ => Failure::unreachable(text),
    }
}
