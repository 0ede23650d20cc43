//! `switchback config check FILE`: what is wrong with a config, without starting anything.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, print};
use crate::admin::Access;
use crate::config::{self, StateUrl};

/// Look at config files.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a config file: every problem with file, line, key, value and what is allowed; exit 64 when there is one.
    #[command(after_help = "Example:\n  switchback config check switchback.toml")]
    Check {
        /// The config file.
        file: PathBuf,
        /// Print JSON: {"ok": ..., "problems": [...]}.
        #[arg(long)]
        json: bool,
    },
}

impl ConfigArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let ConfigCommand::Check { file, json } = self.command;
        check(&file, json)
    }
}

fn check(file: &std::path::Path, as_json: bool) -> Result<(), Failure> {
    let problems = match config::load(file) {
        Err(error) => error.lines().to_vec(),
        Ok(config) => match Access::of_config(&config) {
            Err(error) => vec![format!("{}: {}", file.display(), Failure::chain(&error))],
            Ok(_) if as_json => return print(&format!("{}\n", json!({ "ok": true, "problems": [] }))),
            Ok(_) => return print(&format!("{}: good: {}\n", file.display(), summary(&config))),
        },
    };
    if as_json {
        print(&format!("{}\n", json!({ "ok": false, "problems": problems })))?;
    }
    Err(Failure::usage(format!("the config is refused\n{}", problems.join("\n"))))
}

fn summary(config: &config::Config) -> String {
    let pools: usize = config.routes.iter().map(|route| route.pools.len()).sum();
    let endpoints: usize = config.routes.iter().flat_map(|route| &route.pools).map(|pool| pool.endpoints.len()).sum();
    let store = match config.state.url {
        StateUrl::Embedded => "the embedded flag store",
        StateUrl::Redis(_) => "flags in Redis",
    };
    format!("{} route(s), {pools} pool(s), {endpoints} endpoint(s), {store}", config.routes.len())
}
