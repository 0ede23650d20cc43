//! `switchback ledger verify`: whether the ledger is as it was written, a router's or a bundle's.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::admin_client::AdminArgs;
use super::{Failure, block_on, bundle, flag::plain, print};

const LEDGER_HELP: &str = "\
Each entry names the hash of the one before it, and the store keeps the newest one's. Who can write to the store can write all of it anew: keep the head elsewhere, and say it with --head.

Examples:
  switchback ledger verify search
  switchback ledger verify search --head 5f1c... --json
  switchback ledger verify --from-bundle incident.tar.gz --head 5f1c...

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
    #[arg(required_unless_present = "from_bundle", conflicts_with = "from_bundle")]
    route: Option<String>,
    /// Look at the ledger in this bundle, and ask no router.
    #[arg(long, value_name = "FILE")]
    from_bundle: Option<PathBuf>,
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
        let found = asked.find().map_err(|failure| failure.in_json(asked.json))?;
        let route = plain(&found["route"]);
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
            let head = plain(&found["head"]);
            print(&format!("{route}: {entries} entries of the epochs {first} to {last} are as they were written{from}\nhead {head}\n"))?;
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::refused(format!("the ledger of {route} is not as it was written: {}", problems.join("; "))))
    }
}

impl Verify {
    fn find(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.from_bundle {
            let bundle = bundle::open(file)?;
            return Ok(crate::admin::verified(&bundle.manifest.route, &bundle.ledger()?.verify(self.head.as_deref())));
        }
        let noted = self.head.as_ref().map_or_else(String::new, |head| {
            format!("?head={}", percent_encoding::utf8_percent_encode(head, percent_encoding::NON_ALPHANUMERIC))
        });
        let path = format!("/api/v1/routes/{}/ledger{noted}", self.route.as_deref().unwrap_or_default());
        block_on(async { self.admin.client()?.get(&path).await })
    }
}
