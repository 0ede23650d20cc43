//! `switchback reload`: the router reads its config file again, and says what is different and what waits for a restart.

use clap::Args;
use serde_json::Value;

use super::admin_client::AdminArgs;
use super::{Failure, block_on, print};

/// Have the router read its config file again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchback reload --config /etc/switchback.toml
  switchback reload --json

The router reads the file that it was started with. All of it is put in force, or nothing: a config with an error exits 64 and says what is wrong; the one before stays in force. Keys that only a restart brings about are named.")]
pub(super) struct Reload {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the router's answer as JSON.
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let asked = self.admin.client().and_then(|client| block_on(client.post_nothing("/api/v1/reload")));
        let answer = asked.map_err(|failure| failure.in_json(self.json))?;
        print(&if self.json { format!("{answer:#}\n") } else { show(&answer) })
    }
}

fn show(answer: &Value) -> String {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (changed, waiting) = (list("changed"), list("waiting_for_restart"));
    let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or(0);
    let mut text = match changed.len() {
        0 => format!("generation {generation}: nothing changed in the config; certificates and keys were read again\n"),
        changes => format!("generation {generation}: {changes} key(s) changed\n"),
    };
    text.extend(changed.iter().map(|change| format!("  {}\n", show_change(change))));
    if !waiting.is_empty() {
        text.push_str("waiting for a restart:\n");
        text.extend(waiting.iter().map(|change| format!("  {}\n", show_change(change))));
    }
    text.extend(list("warnings").iter().filter_map(Value::as_str).map(|warning| format!("warning: {warning}\n")));
    text
}

/// `key = new (was old)`
fn show_change(change: &Value) -> String {
    let text = |key: &str| change.get(key).and_then(Value::as_str);
    let key = text("key").unwrap_or("?");
    match (text("old"), text("new")) {
        (Some(old), Some(new)) => format!("{key} = {new} (was {old})"),
        (None, Some(new)) => format!("{key} = {new} (new)"),
        (_, None) => format!("{key} is gone"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_and_what_waits_is_told_a_line_each() {
        let answer = json!({
            "generation": 3,
            "changed": [{ "key": "limits.headers", "old": "100", "new": "50" }, { "key": "route.ads.name", "old": "\"ads\"", "new": null }],
            "waiting_for_restart": [{ "key": "state.url", "old": null, "new": "\"redis://r\"" }],
            "warnings": ["w"],
        });
        let expected = "generation 3: 2 key(s) changed\n  limits.headers = 50 (was 100)\n  route.ads.name is gone\n\
                        waiting for a restart:\n  state.url = \"redis://r\" (new)\nwarning: w\n";
        assert_eq!(show(&answer), expected);
    }
}
