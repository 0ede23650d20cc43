//! `switchback policy shadow`: a candidate policy beside the one in force, and how often the two disagree.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::{AdminArgs, AdminClient};
use super::table::table;
use super::{Failure, block_on, print};
use crate::config;

/// Between two looks at a run that is watched.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Examples that people are shown; `--json` has all.
const SHOWN_EXAMPLES: usize = 5;

/// Runs a candidate beside the policy in force.
#[derive(Debug, Args)]
pub(super) struct Shadow {
    /// The route.
    route: String,
    /// The candidate; without it, the run under way (or the last one) is shown.
    #[arg(value_name = "NAME[@DIGEST]")]
    policy: Option<String>,
    /// Share of the queries that are asked of both, in percent.
    #[arg(long, default_value_t = 1.0)]
    percent: f64,
    /// How long, like 60s or 10m.
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    length: Duration,
    /// Wait until the run is over, and show what it came to. Exit code 2 when the candidate failed.
    #[arg(long)]
    watch: bool,
    /// Stop the run under way.
    #[arg(long, conflicts_with_all = ["policy", "watch"])]
    stop: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, with all examples.
    #[arg(long)]
    json: bool,
}

impl Shadow {
    pub(super) fn run(self) -> Result<(), Failure> {
        let asked = self.admin.client().and_then(|client| block_on(self.ask(&client)));
        let answer = asked.map_err(|failure| failure.in_json(self.json))?;
        let shadow = answer.get("shadow").filter(|shadow| !shadow.is_null());
        let none = || format!("{}: no shadow run since the router started\n", self.route);
        let printed = match self.json {
            true => print(&format!("{}\n", shadow.unwrap_or(&Value::Null))),
            false => print(&shadow.map_or_else(none, |shadow| show(&self.route, shadow))),
        };
        match shadow.map(|shadow| (text(shadow, "state"), text(shadow, "why"))) {
            Some(("failed", why)) if self.watch => Err(Failure::refused(format!("the candidate failed: {why}"))),
            _ => printed,
        }
    }

    async fn ask(&self, client: &AdminClient) -> Result<Value, Failure> {
        let path = format!("/api/v1/routes/{}/shadow", self.route);
        if self.stop {
            return client.delete(&path).await;
        }
        let mut answer = match &self.policy {
            Some(policy) => {
                let order = json!({ "policy": policy, "sample_percent": self.percent, "seconds": self.length.as_secs_f64() });
                client.post(&path, &order).await?
            }
            None => client.get(&path).await?,
        };
        while self.watch && answer.pointer("/shadow/state").and_then(Value::as_str) == Some("running") {
            tokio::time::sleep(LOOK_EVERY).await;
            answer = client.get(&path).await?;
        }
        Ok(answer)
    }
}

fn show(route: &str, shadow: &Value) -> String {
    let named = |key: &str| {
        let name = shadow.pointer(&format!("/{key}/name")).and_then(Value::as_str).unwrap_or("");
        let digest = shadow.pointer(&format!("/{key}/digest")).and_then(Value::as_str).unwrap_or("");
        format!("{name}@{}", digest.chars().take(12).collect::<String>())
    };
    let number = |key: &str| shadow.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let rate =
        shadow.get("disagreement_rate").and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |rate| format!("{:.3} %", rate * 100.0));
    let why = text(shadow, "why");
    let mut shown = format!(
        "{route}: {} beside {}, {}{}{why}\n  {} % of the queries, {:.0} of {:.0} s\n  {} decisions, {} disagreements ({rate}), {} skipped, {} failures\n",
        named("candidate"),
        named("live"),
        text(shadow, "state"),
        if why.is_empty() { "" } else { ": " },
        number("sample_percent"),
        number("elapsed_seconds"),
        number("seconds"),
        number("decisions"),
        number("disagreements"),
        number("skipped"),
        number("failures"),
    );
    let list = |key: &str| shadow.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let pairs = list("by_pool");
    if !pairs.is_empty() {
        let mut rows = vec![["in force", "candidate", "decisions"].map(str::to_owned).to_vec()];
        let count = |pair: &Value| pair.get("decisions").map(ToString::to_string).unwrap_or_default();
        rows.extend(pairs.iter().map(|pair| vec![text(pair, "live").to_owned(), text(pair, "candidate").to_owned(), count(pair)]));
        shown.push_str(&table(&rows));
    }
    for example in list("examples").iter().take(SHOWN_EXAMPLES) {
        shown.push_str(&example_line(example));
    }
    shown
}

fn example_line(example: &Value) -> String {
    let side = |key: &str| {
        let part = |name: &str| example.pointer(&format!("/{key}/{name}")).and_then(Value::as_str).unwrap_or("");
        format!("{} ({})", part("pool"), part("reason"))
    };
    let fields = example.get("fields").and_then(Value::as_array).cloned().unwrap_or_default();
    let seen = fields.iter().map(|field| format!("{}={}", text(field, "field"), field.get("value").unwrap_or(&Value::Null)));
    let seen: Vec<String> = seen.collect();
    let positions = example.get("positions").unwrap_or(&Value::Null);
    format!("  e.g. {} but {}: positions {positions} {}\n", side("live"), side("candidate"), seen.join(" "))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = config::units::duration(text).filter(|length| (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(length));
    read.ok_or_else(|| "must be a duration from 1s to 24h, like 60s or 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_shown_with_its_rate_and_examples() {
        let shadow = json!({
            "state": "failed", "why": "it trapped", "live": { "name": "split-weighted", "digest": "0123456789abcdef" },
            "candidate": { "name": "mine", "digest": "fedcba9876543210" }, "sample_percent": 2.5, "seconds": 60.0, "elapsed_seconds": 12.2,
            "decisions": 200, "disagreements": 3, "disagreement_rate": 0.015, "skipped": 1, "failures": 5,
            "by_pool": [{ "live": "blue", "candidate": "blue", "decisions": 197 }, { "live": "blue", "candidate": "green", "decisions": 3 }],
            "examples": [{ "live": { "pool": "blue", "reason": "live" }, "candidate": { "pool": "green", "reason": "rule" },
                           "positions": [7], "fields": [{ "field": "header:x-beta", "value": "1" }] }],
        });
        let expected = "search: mine@fedcba987654 beside split-weighted@0123456789ab, failed: it trapped\n\
                        \x20 2.5 % of the queries, 12 of 60 s\n\
                        \x20 200 decisions, 3 disagreements (1.500 %), 1 skipped, 5 failures\n\
                        \x20 in force  candidate  decisions\n\
                        \x20 blue      blue       197\n\
                        \x20 blue      green      3\n\
                        \x20 e.g. blue (live) but green (rule): positions [7] header:x-beta=\"1\"\n";
        assert_eq!(show("search", &shadow), expected);
    }
}
