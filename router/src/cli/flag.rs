//! `switchback flag get|set`: read and change flags through the admin API.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin_client::AdminArgs;
use super::failure::complain;
use super::table::table;
use super::watch::Watch;
use super::{Failure, block_on, free_text, print};

/// Read, change and follow the flags that the data path obeys.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback flag get search --config switchback.toml\n  \
                        switchback flag set search live=green --why 'v42 is good'\n  switchback flag watch search")]
pub(super) struct FlagArgs {
    #[command(subcommand)]
    command: FlagCommand,
}

#[derive(Debug, Subcommand)]
enum FlagCommand {
    Get(Get),
    Set(Set),
    Watch(Watch),
}

/// Print a route's flags as the store has them, or one of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback flag get search\n  switchback flag get search live\n  switchback flag get search --json")]
struct Get {
    /// The route.
    route: String,
    /// One field, for example live; exit 2 when it is not set.
    field: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Change a route's flags, all of the change or nothing; prints the new epoch.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback flag set search canary_percent=25 --why 'first step'\n  \
                        switchback flag set search live=green\n  switchback flag set search --unset pin --if-epoch 12")]
struct Set {
    /// The route.
    route: String,
    /// FIELD=VALUE, any number of them.
    #[arg(value_name = "FIELD=VALUE", required_unless_present = "unset")]
    set: Vec<String>,
    /// Take a field back to its default; may be given several times.
    #[arg(long, value_name = "FIELD")]
    unset: Vec<String>,
    /// Why, for the ledger.
    #[arg(long, default_value = "")]
    why: String,
    /// Only when the flags are still at this epoch; exit 2 otherwise.
    #[arg(long, value_name = "EPOCH")]
    if_epoch: Option<u64>,
    /// Print JSON: {"name": ..., "epoch": ..., "warnings": [...]}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl FlagArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            FlagCommand::Get(get) => {
                let as_json = get.json;
                block_on(get.run()).map_err(|failure| failure.in_json(as_json))
            }
            FlagCommand::Set(set) => {
                let as_json = set.json;
                block_on(set.run()).map_err(|failure| failure.in_json(as_json))
            }
            FlagCommand::Watch(watch) => block_on(watch.run()),
        }
    }
}

impl Get {
    async fn run(self) -> Result<(), Failure> {
        let answer = self.admin.client()?.get(&flags_path(&self.route)?).await?;
        let Some(field) = &self.field else {
            return print(&if self.json { format!("{answer:#}\n") } else { show_fields(&answer) });
        };
        let value = answer.get("fields").and_then(|fields| fields.get(field)).and_then(Value::as_str);
        let value = value.ok_or_else(|| Failure::refused(format!("{field} is not set on route {}", self.route)))?;
        print(&if self.json { format!("{}\n", Value::from(value)) } else { format!("{value}\n") })
    }
}

impl Set {
    async fn run(self) -> Result<(), Failure> {
        let mut set = Map::new();
        for assignment in &self.set {
            let (field, value) = assignment
                .split_once('=')
                .filter(|(field, _)| !field.is_empty())
                .ok_or_else(|| Failure::usage(format!("{assignment}: must be FIELD=VALUE, for example live=green")))?;
            if set.insert(field.to_owned(), Value::from(value)).is_some() {
                return Err(Failure::usage(format!("{field} is given twice")));
            }
        }
        free_text::check("--why", &self.why)?;
        let body = json!({ "set": set, "unset": self.unset, "why": self.why });
        let answer = self.admin.client()?.patch(&flags_path(&self.route)?, &body, self.if_epoch).await?;
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            complain(&format!("switchback: warning: {}", plain(warning)));
        }
        print(&if self.json { format!("{answer}\n") } else { format!("epoch {}\n", answer["epoch"]) })
    }
}

/// Text without quotes, nothing as a dash.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn show_fields(answer: &Value) -> String {
    let none = Map::new();
    let fields = answer["fields"].as_object().unwrap_or(&none);
    let mut text = table(&fields.iter().map(|(field, value)| vec![field.clone(), plain(value)]).collect::<Vec<_>>());
    text.push_str(&concerns(answer));
    text
}

/// Fields that are not obeyed and what an operator should see to, a line each.
pub(super) fn concerns(answer: &Value) -> String {
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let show = |fault: Value| {
        let (field, value, allowed) = (plain(&fault["field"]), plain(&fault["value"]), plain(&fault["allowed"]));
        format!("  not obeyed: {field} = {value}: must be {allowed}\n")
    };
    let faults = list("faults").into_iter().map(show);
    faults.chain(list("warnings").iter().map(|warning| format!("  warning: {}\n", plain(warning)))).collect()
}

pub(super) fn flags_path(route: &str) -> Result<String, Failure> {
    Ok(format!("/api/v1/routes/{}/flags", checked(route)?))
}

/// A name that can stand in a URL as it is; every route's can.
pub(super) fn checked(route: &str) -> Result<&str, Failure> {
    let is_name = !route.is_empty() && route.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_name.then_some(route).ok_or_else(|| Failure::usage(format!("{route:?} is no route's name: a-z, 0-9, - and _")))
}
