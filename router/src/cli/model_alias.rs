//! `switchback model alias`: names that point to versions.

use clap::Args;
use serde_json::{Value, json};

use super::explain::at;
use super::model::who;
use super::model_show::{alias_history, alias_list};
use super::registry_args::{RegistryArgs, failed};
use super::{Failure, block_on, free_text, print};
use crate::flags::random_hex;
use crate::registry::{AliasMove, Expected, Name, Registry};

/// Show, move or remove aliases of a model.
///
/// Without an alias all of them are shown; with one alone, its moves.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback model alias search\n  switchback model alias search champion\n  switchback model alias search champion 12 --expect 11\n  switchback model alias search candidate --remove"
)]
pub(super) struct AliasArgs {
    /// The model.
    model: Name,
    /// The alias.
    alias: Option<Name>,
    /// The version that it is to point to.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// Only if it points to this version now; 0: to none.
    #[arg(long, value_name = "N", requires = "alias")]
    expect: Option<u64>,
    /// Let it point to none.
    #[arg(long, requires = "alias", conflicts_with = "version")]
    remove: bool,
    /// Why, for its history.
    #[arg(long, default_value = "")]
    why: String,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl AliasArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let said = block_on(async { self.say(&self.registry.open()?).await }).map_err(|failure| failure.in_json(self.json))?;
        let (json, text) = said;
        print(&if self.json { format!("{json:#}\n") } else { text })
    }

    async fn say(&self, registry: &Registry) -> Result<(Value, String), Failure> {
        let model = &self.model;
        let Some(alias) = &self.alias else {
            let all = registry.aliases(model).await.map_err(failed)?;
            let json: Vec<Value> = all.iter().map(|(alias, last)| json!({ "alias": alias, "last": timed(last) })).collect();
            return Ok((json!({ "model": model, "aliases": json }), alias_list(model.as_str(), &all)));
        };
        if self.version.is_none() && !self.remove {
            let moves = registry.alias_history(model, alias).await.map_err(failed)?;
            let json: Vec<Value> = moves.iter().map(timed).collect();
            return Ok((json!({ "model": model, "alias": alias, "moves": json }), alias_history(model.as_str(), alias.as_str(), &moves)));
        }
        if self.remove && registry.alias(model, alias).await.map_err(failed)?.is_none() {
            return Err(Failure::refused(format!("{model}@{alias}: there is no such alias; switchback model alias {model} lists them")));
        }
        free_text::check("--why", &self.why)?;
        let expected = self.expect.map_or(Expected::Anywhere, |at| Expected::At((at > 0).then_some(at)));
        let to = AliasMove::to(self.version, who(), self.why.clone(), crate::admin::now_unix_ms(), random_hex(16));
        let own = to.id.clone();
        let moved = registry.move_alias(model, alias, to, expected).await.map_err(failed)?;
        let text = moved_line((model, alias), &moved, &own);
        Ok((json!({ "model": model, "alias": alias, "moved": timed(&moved) }), text))
    }
}

/// A move for programs, with its time as people read it beside the milliseconds: RFC 3339, in UTC.
fn timed(moved: &AliasMove) -> Value {
    let mut json = json!(moved);
    if let Some(fields) = json.as_object_mut() {
        fields.insert("moved_at".to_owned(), at(&json!(moved.moved_ms)).into());
    }
    json
}

/// What became of the move `own`, on a line: from what to what. Another move is the last one where it pointed there already.
pub(super) fn moved_line((model, alias): (&Name, &Name), last: &AliasMove, own: &str) -> String {
    let words = |at: Option<u64>| at.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    let now = words(last.version);
    match last.id == own {
        true => format!("{model}@{alias} points to {now}; before to {}\n", words(last.before)),
        false => format!("{model}@{alias} points to {now} already; nothing was moved\n"),
    }
}
