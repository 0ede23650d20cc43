//! `switchback explain`: which model served whom at a moment, and why; and `switchback ledger verify`.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::admin_client::AdminArgs;
use super::{Failure, block_on, flag::plain, print};

const AFTER_HELP: &str = "\
The ledger has an entry for each change of flags, by whom and why, and who served whom since; an entry that a rollout wrote has the evidence too. The model versions are those of the config of the router that wrote the entry.

Examples:
  switchback explain search
  switchback explain search --time 2026-08-01T09:30:00Z
  switchback explain search --ago 90m --json

Exit codes: 0 done, 2 the ledger does not go back so far, 69 the router or its store was not reached.";

/// Say which model served whom at a moment, and why.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ExplainArgs {
    /// The route.
    route: String,
    /// The moment, as RFC 3339 has it [default: now].
    #[arg(long, value_name = "TIME", conflicts_with = "ago")]
    time: Option<String>,
    /// The moment, so long ago.
    #[arg(long, value_name = "DURATION")]
    ago: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let in_json = |failure: Failure| failure.in_json(self.json);
        let query = self.moment().map_err(in_json)?.map_or_else(String::new, |time_ms| format!("?time_ms={time_ms}"));
        let path = format!("/api/v1/routes/{}/explain{query}", self.route);
        let told = block_on(async { self.admin.client()?.get(&path).await }).map_err(in_json)?;
        print(&if self.json { format!("{told:#}\n") } else { shown(&told) })
    }

    fn moment(&self) -> Result<Option<u64>, Failure> {
        if let Some(text) = &self.time {
            let time = OffsetDateTime::parse(text, &Rfc3339)
                .map_err(|error| Failure::usage(format!("--time {text}: must be like 2026-08-01T09:30:00Z: {error}")))?;
            let millis = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
            return millis.map(Some).map_err(|_| Failure::usage(format!("--time {text}: must be after 1970")));
        }
        let Some(text) = &self.ago else { return Ok(None) };
        let ago =
            crate::config::units::duration(text).ok_or_else(|| Failure::usage(format!("--ago {text}: must be like 90s, 15m or 2h")))?;
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(crate::admin::now_unix_ms().saturating_sub(ago)))
    }
}

pub(super) fn at(millis: &Value) -> String {
    let time = millis.as_u64().and_then(|millis| OffsetDateTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis).try_into().ok()?));
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| plain(millis))
}

fn shown(told: &Value) -> String {
    let mut text = format!("{} at {}: epoch {}\n", plain(&told["route"]), at(&told["at_ms"]), plain(&told["epoch"]));
    for serves in told["serves"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "  {} % on {}, which runs {}\n",
            plain(&serves["percent"]),
            plain(&serves["pool"]),
            plain(&serves["version"])
        ));
    }
    let until = if told["until_ms"].is_null() { "now".to_owned() } else { at(&told["until_ms"]) };
    text.push_str(&format!("  from {} to {until}\n", at(&told["since_ms"])));
    let (grounds, why) = (&told["grounds"], plain(&told["why"]));
    let what = grounds["event"].as_str().map_or_else(|| plain(&told["kind"]), |event| format!("rollout {}", event.replace('_', " ")));
    text.push_str(&format!("  by {} ({what}){}\n", plain(&told["who"]), if why.is_empty() { String::new() } else { format!(": {why}") }));
    if let Some(policy) = grounds["policy"].as_str() {
        let (name, digest) = policy.split_once('@').unwrap_or((policy, ""));
        let digest: String = digest.chars().take(12).collect();
        let (candidate, control, evidence) = (plain(&grounds["candidate"]), plain(&grounds["control"]), &grounds["evidence"]);
        let harm = evidence["log_harm"].as_f64().unwrap_or(0.0);
        text.push_str(&format!("  evidence on {candidate} over {control}, by {name}@{digest}: harm {harm:.1}"));
        text.push_str(&evidence["threshold_log"].as_f64().map_or_else(|| "\n".to_owned(), |threshold| format!(" of {threshold:.1}\n")));
    }
    text
}

const LEDGER_HELP: &str = "\
Each entry names the hash of the one before it, and the store keeps the newest one's. Who can write to the store can write all of it anew: keep the head elsewhere, and say it with --head.

Examples:
  switchback ledger verify search
  switchback ledger verify search --head 5f1c... --json

Exit codes: 0 every entry is as it was written, 2 it is not, 69 the router or its store was not reached.";

/// The ledger: who changed what, when and why.
#[derive(Debug, Args)]
#[command(after_help = LEDGER_HELP)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Look whether every entry is as it was written.
    #[command(after_help = LEDGER_HELP)]
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    /// The route.
    route: String,
    /// The newest entry's hash as somebody noted it some time: refused when no entry has it.
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl LedgerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let LedgerCommand::Verify(asked) = self.command;
        let noted = asked.head.as_ref().map_or_else(String::new, |head| {
            format!("?head={}", percent_encoding::utf8_percent_encode(head, percent_encoding::NON_ALPHANUMERIC))
        });
        let path = format!("/api/v1/routes/{}/ledger{noted}", asked.route);
        let found = block_on(async { asked.admin.client()?.get(&path).await }).map_err(|failure| failure.in_json(asked.json))?;
        let problems: Vec<String> = found["problems"].as_array().into_iter().flatten().map(plain).collect();
        if asked.json {
            print(&format!("{found:#}\n"))?;
        } else if problems.is_empty() {
            let (entries, first, last) = (plain(&found["entries"]), plain(&found["first_epoch"]), plain(&found["last_epoch"]));
            let from = match (&found["is_from_the_beginning"], &found["begins_with_reseed"]) {
                (Value::Bool(true), Value::Bool(true)) => "; the store had lost those before",
                (Value::Bool(true), _) => ", from the beginning on",
                _ => "; older ones are gone",
            };
            print(&format!(
                "{}: {entries} entries of the epochs {first} to {last} are as they were written{from}\nhead {}\n",
                asked.route,
                plain(&found["head"])
            ))?;
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::refused(format!("the ledger of {} is not as it was written: {}", asked.route, problems.join("; "))))
    }
}
