//! `switchback config check|show FILE`: what is wrong with a config, and what it comes to, without starting anything.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, print};
use crate::admin::Access;
use crate::config::{self, StateUrl};
use crate::flags::{FlagStore, router_id};
use crate::notify::{Delivery, OpenGate};
use crate::policy::shipped;
use crate::quality::configured_secrets;
use crate::serve::{Overrides, Pools};
use crate::tls::ServerTls;

/// Look at config files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback config check switchback.toml\n  switchback config show switchback.toml")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a config file: every problem with file, line, key, value and what is allowed; exit 64 when there is one.
    #[command(after_help = "Examples:\n  switchback config check switchback.toml\n  switchback config check switchback.toml --json")]
    Check {
        /// The config file.
        file: PathBuf,
        /// Print JSON: {"ok": ..., "problems": [...], "warnings": [...]}.
        #[arg(long)]
        json: bool,
    },
    /// Print every key of a config that has a value, defaults included.
    ///
    /// Keys that are not set and have no default are left out.
    #[command(after_help = "Examples:\n  switchback config show switchback.toml\n  switchback config show switchback.toml --json")]
    Show {
        /// The config file.
        file: PathBuf,
        /// Print JSON: an object of keys and values, each as TOML writes it.
        #[arg(long)]
        json: bool,
    },
}

impl ConfigArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            ConfigCommand::Check { file, json } => check(&file, json),
            ConfigCommand::Show { file, json } => show(&file, json),
        }
    }
}

fn show(file: &Path, as_json: bool) -> Result<(), Failure> {
    let config = config::load(file).map_err(|error| Failure::config(&error.to_string()).in_json(as_json))?;
    let mut lines = config::show(&config);
    // A free port is part of the name that a router gives itself, so without a port there is none to show.
    if config.state.router_id.is_none() && config.listen.traffic.port() != 0 {
        let place = lines.iter().rposition(|(key, _)| key.starts_with("state.")).map_or(lines.len(), |last| last + 1);
        lines.insert(place, ("state.router_id".to_owned(), format!("{:?}", router_id(&config))));
    }
    if as_json {
        let object: serde_json::Map<String, Value> = lines.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        return print(&format!("{:#}\n", Value::Object(object)));
    }
    let lines: Vec<String> = lines.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    print(&lines.concat())
}

fn check(file: &Path, as_json: bool) -> Result<(), Failure> {
    let problems = match config::load(file) {
        Err(error) => error.lines().to_vec(),
        Ok(config) => match check_files(file, &config) {
            Err(problem) => vec![problem],
            Ok(()) => {
                let warnings = warnings(file, &config);
                if as_json {
                    return print(&format!("{}\n", json!({ "ok": true, "problems": [], "warnings": warnings })));
                }
                let warnings: String = warnings.iter().map(|warning| format!("{warning}\n")).collect();
                return print(&format!("{warnings}{}: good: {}\n", file.display(), summary(&config)));
            }
        },
    };
    if as_json {
        // The exit code says it too, also when nobody reads this.
        let _ = print(&format!("{}\n", json!({ "ok": false, "problems": problems, "warnings": [] })));
    }
    Err(Failure::config(&problems.join("\n")))
}

/// What is allowed and hardly meant: policies that are not there yet.
pub(super) fn warnings(file: &Path, config: &config::Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for route in &config.routes {
        let written = [("split_policy", &route.split_policy), ("rollback_policy", &route.rollback_policy)];
        let initial = ["split_policy", "rollback_policy"].into_iter().filter_map(|key| Some((key, route.initial.get(key)?)));
        let initial = initial.map(|(key, policy)| (format!("initial.{key}"), key, policy));
        for (key, kind, policy) in written.map(|(key, policy)| (key.to_owned(), key, policy)).into_iter().chain(initial) {
            // A digest may be of a plugin that was kept.
            let Some(why) = (!policy.contains('@')).then(|| why_not_there(kind, policy, &config.policies.dir)).flatten() else { continue };
            let key = format!("route.{}.{key}", route.name);
            warnings.push(format!("{}: warning: {key} = {policy:?}: {why}", config::place(file, &key)));
        }
    }
    warnings
}

fn why_not_there(kind: &str, policy: &str, folder: &Path) -> Option<String> {
    let file = folder.join(format!("{policy}.wasm"));
    if file.is_file() {
        return None;
    }
    let goes_on = if kind == "split_policy" { "native decisions go on" } else { "the native rollback-guardrail judges" };
    if shipped(policy).is_none() {
        return Some(format!("no such plugin is shipped, and there is no {}; {goes_on} until there is", file.display()));
    }
    // Those that are shipped are named by what they are.
    let is_of_kind = kind.split_once('_').is_some_and(|(what, _)| policy.starts_with(what));
    (!is_of_kind).then(|| format!("it is a policy of the other kind, and is never put in force; {goes_on}"))
}

/// The files that a config names: tokens and certificates.
pub(super) fn check_files(file: &Path, config: &config::Config) -> Result<(), String> {
    let problem = |key: &str, chain: String| format!("{}: {chain}", config::place(file, key));
    Access::of_config(config).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    config.tls.as_ref().map(ServerTls::load).transpose().map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    Pools::of(config).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    FlagStore::check(config).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    Overrides::load(config.overrides.as_ref()).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    configured_secrets(config).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    for target in &config.notify {
        Delivery::open(target).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    }
    for (route, gate) in config.routes.iter().flat_map(|route| route.rollout.gates.iter().map(move |gate| (route, gate))) {
        OpenGate::open(&route.name, gate).map_err(|error| problem(error.key(), Failure::chain(&error)))?;
    }
    Ok(())
}

pub(super) fn summary(config: &config::Config) -> String {
    let pools: usize = config.routes.iter().map(|route| route.pools.len()).sum();
    let endpoints: usize = config.routes.iter().flat_map(|route| &route.pools).map(|pool| pool.endpoints.len()).sum();
    let store = match &config.state.url {
        StateUrl::Embedded => "the embedded flag store".to_owned(),
        StateUrl::Redis(redis) => format!("flags in Redis ({})", redis.topology.word()),
    };
    format!("{} route(s), {pools} pool(s), {endpoints} endpoint(s), {store}", config.routes.len())
}
