//! `switchback experiment`: creates A/B experiments of a route, and shows what they come to.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::experiment_report::{listed, report};
use super::of_route::OfRoute;
use super::{Failure, block_on, free_text, print};
use crate::vocabulary::Ppm;

const AFTER_HELP: &str = "\
An experiment splits a part of a route's users among arms, each answered by a pool or a model version, and compares the arms by errors, latency, clicks, conversions and quality. Its intervals hold whenever you look. docs/EXPERIMENTS.md says how users are assigned, what layers are, and what the report means.

Examples:
  switchback experiment create search big-model --percent 20 --arm control=live --arm big=version:v7
  switchback experiment status search
  switchback experiment report search big-model
  switchback experiment stop search big-model --why \"v7 wins\"

Exit codes: 0 done, 2 refused (the message says why), 69 the router or its store was not reached.";

/// A/B experiments: create, status, report, stop, remove.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ExperimentArgs {
    #[command(subcommand)]
    command: ExperimentCommand,
}

#[derive(Debug, Subcommand)]
enum ExperimentCommand {
    /// Create one: it begins at once.
    #[command(
        after_help = "Examples:\n  switchback experiment create search big-model --percent 20 --arm control=live --arm big=version:v7\n  switchback experiment create search three --percent 30 --arm control=live --arm a=exp-a --arm b=exp-b --weights 2,1,1 --layer ranking\n  switchback experiment create search german --percent 50 --arm control=live --arm new=exp --when header:accept-language^=de --when '!header:x-bot'"
    )]
    Create(Create),
    /// List them, with what is known of each.
    #[command(after_help = "Examples:\n  switchback experiment status search\n  switchback experiment status search --json")]
    Status(OfRoute),
    /// Show what one comes to: each arm, and each against control.
    #[command(
        after_help = "Examples:\n  switchback experiment report search big-model\n  switchback experiment report search big-model --json"
    )]
    Report(OfExperiment),
    /// Send its users back to where all others go; its report stays.
    #[command(
        after_help = "Examples:\n  switchback experiment stop search big-model\n  switchback experiment stop search big-model --why \"v7 wins\""
    )]
    Stop(Stop),
    /// Take one that is stopped off the list, with its report.
    #[command(
        after_help = "Examples:\n  switchback experiment remove search big-model\n  switchback experiment remove search big-model --json"
    )]
    Remove(OfExperiment),
}

#[derive(Debug, Args)]
struct OfExperiment {
    #[command(flatten)]
    route: OfRoute,
    /// The experiment's name.
    name: String,
}

#[derive(Debug, Args)]
struct Stop {
    #[command(flatten)]
    of: OfExperiment,
    /// Why, for the ledger.
    #[arg(long, default_value = "")]
    why: String,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    of: OfExperiment,
    /// Its part of the layer's users, 0 to 100 with up to 4 decimals.
    #[arg(long)]
    percent: String,
    /// An arm and who answers: NAME=live, NAME=POOL or NAME=version:VERSION. The first one is control.
    #[arg(long = "arm", value_name = "NAME=WHO", required = true)]
    arms: Vec<String>,
    /// How the arms share its users, in their order [default: all alike].
    #[arg(long, value_name = "W,W,...", value_delimiter = ',')]
    weights: Vec<u32>,
    /// The layer: experiments of one layer have no user in common, those of different ones are independent; `rollout` is the rollout's own [default: experiments].
    #[arg(long)]
    layer: Option<String>,
    /// Where its users begin in the layer [default: where there is room].
    #[arg(long, value_name = "PERCENT")]
    from_percent: Option<String>,
    /// Only queries of which this holds: FIELD=A|B, FIELD^=PREFIX, FIELD or !FIELD, where FIELD is path, header:NAME, cookie:NAME or query:NAME.
    #[arg(long = "when", value_name = "CONDITION")]
    when: Vec<String>,
    /// How often all intervals of the report hold together [default: 95].
    #[arg(long, value_name = "PERCENT")]
    confidence: Option<String>,
    /// Go on even if an arm does harm.
    #[arg(long)]
    keep_on_harm: bool,
    /// Why, for the ledger.
    #[arg(long, default_value = "")]
    why: String,
}

impl ExperimentArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            ExperimentCommand::Status(of) => {
                let all = block_on(async { of.admin.client()?.get(&path(&of.route, "")).await });
                let all = all.map_err(|failure| failure.in_json(of.json))?;
                print(&if of.json { format!("{all:#}\n") } else { listed(&of.route, &all) })
            }
            ExperimentCommand::Report(of) => of.say(Ask::Get),
            ExperimentCommand::Stop(Stop { of, why }) => {
                free_text::check("--why", &why).map_err(|failure| failure.in_json(of.route.json))?;
                of.say(Ask::Post("/stop", json!({ "why": why })))
            }
            ExperimentCommand::Remove(of) => of.say(Ask::Delete),
            ExperimentCommand::Create(create) => {
                let body = free_text::check("--why", &create.why).and_then(|()| create.body().map_err(Failure::usage));
                let body = body.map_err(|failure| failure.in_json(create.of.route.json))?;
                create.of.say(Ask::Create(body))
            }
        }
    }
}

enum Ask {
    Get,
    Post(&'static str, Value),
    Create(Value),
    Delete,
}

fn path(route: &str, rest: &str) -> String {
    format!("/api/v1/routes/{route}/experiments{rest}")
}

impl OfExperiment {
    fn say(&self, ask: Ask) -> Result<(), Failure> {
        let OfExperiment { route: OfRoute { route, admin, json }, name } = self;
        let one = path(route, &format!("/{name}"));
        let is_removal = matches!(ask, Ask::Delete);
        let answer = block_on(async {
            let client = admin.client()?;
            match ask {
                Ask::Get => client.get(&one).await,
                Ask::Post(order, body) => client.post(&format!("{one}{order}"), &body).await,
                Ask::Create(body) => client.post(&path(route, ""), &body).await,
                Ask::Delete => client.delete(&one).await,
            }
        });
        let answer = answer.map_err(|failure| failure.in_json(*json))?;
        print(&match (*json, is_removal) {
            (true, _) => format!("{answer:#}\n"),
            (false, true) => format!("{route}: experiment {name} is taken off the list\n"),
            (false, false) => report(&answer),
        })
    }
}

impl Create {
    fn body(&self) -> Result<Value, String> {
        if !self.weights.is_empty() && self.weights.len() != self.arms.len() {
            return Err(format!("--weights has {} numbers for {} arms", self.weights.len(), self.arms.len()));
        }
        let percents = [
            ("--percent", Some(&self.percent)),
            ("--from-percent", self.from_percent.as_ref()),
            ("--confidence", self.confidence.as_ref()),
        ];
        for (option, text) in percents.into_iter().filter_map(|(option, text)| Some((option, text?))) {
            if Ppm::from_percent(text).is_none() {
                return Err(format!("{option} {text}: must be a number from 0 to 100, with 4 decimals at most"));
            }
        }
        let weights = self.weights.iter().copied().chain(std::iter::repeat(1));
        let arms: Vec<Value> = self.arms.iter().zip(weights).map(|(text, weight)| arm(text, weight)).collect::<Result<_, _>>()?;
        let when: Vec<Value> = self.when.iter().map(|text| condition(text)).collect::<Result<_, _>>()?;
        let mut body = json!({
            "name": self.of.name, "percent": self.percent, "arms": arms, "when": when, "why": self.why, "stop_on_harm": !self.keep_on_harm,
        });
        let more = [("layer", &self.layer), ("from_percent", &self.from_percent), ("confidence_percent", &self.confidence)];
        if let Some(body) = body.as_object_mut() {
            body.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))));
        }
        Ok(body)
    }
}

fn arm(text: &str, weight: u32) -> Result<Value, String> {
    let parts = text.split_once('=').filter(|(name, who)| !name.is_empty() && !who.is_empty());
    let (name, who) = parts.ok_or_else(|| format!("--arm {text:?}: must be NAME=live, NAME=POOL or NAME=version:VERSION"))?;
    Ok(match who.strip_prefix("version:") {
        Some(version) => json!({ "name": name, "version": version, "weight": weight }),
        None => json!({ "name": name, "pool": who, "weight": weight }),
    })
}

fn condition(text: &str) -> Result<Value, String> {
    let value = if let Some(field) = text.strip_prefix('!') {
        if field.contains('=') {
            return Err(format!("--when {text:?}: ! says that a query has no such field, whatever its value: !FIELD"));
        }
        json!({ "field": field, "present": false })
    } else if let Some((field, prefix)) = text.split_once("^=") {
        json!({ "field": field, "prefix": prefix })
    } else if let Some((field, values)) = text.split_once('=') {
        match values.split('|').collect::<Vec<_>>().as_slice() {
            [value] => json!({ "field": field, "equals": value }),
            values => json!({ "field": field, "one_of": values }),
        }
    } else {
        json!({ "field": text, "present": true })
    };
    let field = value["field"].as_str().unwrap_or_default();
    let is_field = field == "path" || ["header:", "cookie:", "query:"].iter().any(|kind| field.starts_with(kind));
    if is_field { Ok(value) } else { Err(format!("--when {text:?}: {field:?} must be path, header:NAME, cookie:NAME or query:NAME")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_read() {
        assert_eq!(arm("control=live", 1), Ok(json!({ "name": "control", "pool": "live", "weight": 1 })));
        assert_eq!(arm("big=version:a:b", 3), Ok(json!({ "name": "big", "version": "a:b", "weight": 3 })));
        for wrong in ["", "big", "=live", "big="] {
            assert!(arm(wrong, 1).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_read() {
        for (text, expected) in [
            ("header:x-app=ios", json!({ "field": "header:x-app", "equals": "ios" })),
            ("cookie:app=ios|web", json!({ "field": "cookie:app", "one_of": ["ios", "web"] })),
            ("path^=/de/", json!({ "field": "path", "prefix": "/de/" })),
            ("query:debug", json!({ "field": "query:debug", "present": true })),
            ("!header:x-bot", json!({ "field": "header:x-bot", "present": false })),
        ] {
            assert_eq!(condition(text), Ok(expected), "{text}");
        }
        assert!(condition("user=7").unwrap_err().contains("must be path, header:NAME"));
        assert!(condition("!cookie:app=ios").unwrap_err().contains("no such field, whatever its value"));
    }
}
