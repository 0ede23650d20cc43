//! `switchback doctor`: looks at a whole set-up, before or while it runs, and says what is amiss and what to do. It changes nothing.
//!
//! Each check is a future with a time limit of its own; all run at once, within a limit for all. What they find is a line each ([`finding`]), shown by
//! [`render`].

mod admin;
mod config;
mod files;
mod finding;
mod in_use;
mod notify;
mod policies;
mod pools;
mod registry;
mod render;
mod run;
mod store;
mod system;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use self::finding::{Finding, Status};
use self::run::{Check, run_all};
use super::admin_client::AdminArgs;
use super::{Failure, print, write};
use crate::config::{self as configs, Config};

const DEFAULT_CONFIG: &str = "/etc/switchback.toml";

const AFTER_HELP: &str = "\
Without --config it is /etc/switchback.toml. It looks at the config, the files that it names, this machine, the flag store, the registry, every endpoint, policies, who is told of rollouts, and the router that runs by this config, where one does. Run it as the router's user, on its machine. Nothing is written, sent or restarted.

Examples:
  switchback doctor
  switchback doctor --config switchback.toml
  switchback doctor --config switchback.toml --json

Exit codes: 0 nothing failed (there may be warnings), 2 something did, 64 bad usage, 69 it could not look at all.";

/// Look at a whole set-up, and say what is amiss and what to do.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Doctor {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON: {"ok": ..., "findings": [...]}.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::unreachable(format!("no runtime: {error}")).in_json(self.json).report(),
        };
        let findings = runtime.block_on(look(self.admin.or_config(DEFAULT_CONFIG), self.json));
        // A check that was given up may still hold a thread.
        runtime.shutdown_background();
        let shown =
            if self.json { print(&render::as_json(&findings)) } else { write(&render::table(&findings, console::colors_enabled())) };
        let has_failed = findings.iter().any(|finding| finding.status == Status::Failed);
        match shown {
            Err(failure) => failure.report(),
            Ok(()) if has_failed => ExitCode::from(super::failure::REFUSED),
            Ok(()) => ExitCode::SUCCESS,
        }
    }
}

/// Everything that can be looked at: without a good config, that is the config.
async fn look((file, admin): (PathBuf, AdminArgs), is_json: bool) -> Vec<Finding> {
    let config = match configs::load(&file) {
        Ok(config) => Arc::new(config),
        Err(error) => return config::refused(&file, error.lines()),
    };
    // Who has the ports depends on whether a router runs.
    let running = admin::Running::ask(&admin).await;
    let mut checks: Vec<Check> = Vec::new();
    checks.extend(config::checks(&config, &file));
    checks.extend(files::checks(&config, &file));
    checks.extend(system::checks(&config, &running));
    checks.extend(tls::checks(&config));
    checks.extend(store::checks(&config));
    checks.extend(registry::checks(&config, &running));
    checks.extend(pools::checks(&config));
    checks.extend(policies::checks(&config));
    checks.extend(notify::checks(&config));
    checks.extend(admin::checks(&config, running));
    run_all(checks, is_json).await
}

/// The config, for a check that outlives whoever made it.
type Shared = Arc<Config>;
