//! `switchback serve`: the router itself.
//!
//! The calling thread becomes the control thread (flags, plugins, health checks, admin API, signals); the data path has threads of its
//! own. What the process does from its start to its end is in [`crate::lifecycle`].

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::log::{LogFormat, start_log};
use super::parent::end_with_stdin;
use crate::allocator;
use crate::config::{self, Config};
use crate::lifecycle::{self, Inherited, LifecycleError, Start, StartedAs};
use crate::serve::CutOff;

/// Run the router until it is told to stop.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchback serve --config /etc/switchback.toml
  RUST_LOG=debug switchback serve --config switchback.toml --log json
  kill -HUP $(pidof switchback)      # read the config again (as switchback reload does)
  kill -USR2 $(pidof switchback)     # hand over to a new process of the same path
  kill -TERM $(pidof switchback)     # drain: finish the queries in flight, then exit 0 (75 when some were cut off)

Prints one line with its addresses when it listens; ready when GET /readyz on the admin listener answers 200.")]
pub(super) struct Serve {
    /// The config file; see docs/CONFIG.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines look. They go to stderr; RUST_LOG says which (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    /// End when standard input ends: for a process that starts this one as its child.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl Serve {
    /// Serves until it is told to stop.
    pub(super) fn run(self) -> Result<(), Failure> {
        allocator::use_small_pages();
        // Before there are other threads: both look at the process's environment.
        let inherited = Inherited::from_environment()
            .map_err(|error| Failure::unreachable(format!("LISTEN_FDS: a descriptor that was passed cannot be used: {error}")))?;
        let started_as = StartedAs::this_process().map_err(|error| Failure::unreachable(format!("this program is nowhere: {error}")))?;
        if self.end_with_stdin {
            end_with_stdin()?;
        }
        // Writes what is still to be written when it is dropped.
        let (_log, dropped_log_lines) = start_log(self.log, "info");
        let start = Start { file: self.config, started_as, inherited, announce, dropped_log_lines };
        match lifecycle::run(start) {
            Ok(CutOff { queries: 0, upgraded: 0 }) => Ok(()),
            Ok(CutOff { queries, upgraded }) => Err(Failure::timed_out(format!(
                "the drain timeout passed: {queries} queries and {upgraded} upgraded connections were cut off"
            ))),
            Err(LifecycleError::Config { problems }) => Err(Failure::config(&problems.join("\n"))),
            Err(error) => Err(Failure::unreachable(Failure::chain(&error))),
        }
    }
}

/// For whoever started us on port 0, and for the log.
fn announce(config: &Config) {
    let config::Listen { traffic, traffic_tls, admin, workers, .. } = &config.listen;
    let over_tls = traffic_tls.map_or_else(String::new, |address| format!(", tls {address}"));
    tracing::info!(%traffic, ?traffic_tls, %admin, workers, pid = std::process::id(), "listening");
    let mut stdout = std::io::stdout().lock();
    // A reader that is gone is no reason not to serve.
    let _ = writeln!(stdout, "listening: traffic {traffic}, admin {admin}{over_tls}").and_then(|()| stdout.flush());
}
