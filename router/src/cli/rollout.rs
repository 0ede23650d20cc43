//! `switchback rollout`: starts, watches and moves the rollout of a route.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::of_route::{OfRoute, Ordered};
use super::{Failure, block_on, flag::plain, print};

const AFTER_HELP: &str = "\
The candidate's share grows step by step, each step when the rollback policy says that it may, until the candidate is live; a holdback of the version before it stays for a while. Whatever harm is seen takes it back. docs/ROLLOUTS.md has the states, and what each waits for.

Examples:
  switchback rollout start search
  switchback rollout status search
  switchback rollout pause search --why \"on call is asleep\"
  switchback rollout promote search --full
  switchback rollback search

Exit codes: 0 done, 2 refused (the message says why), 69 the router or its store was not reached.";

/// Roll a new model version out: start, status, pause, resume, approve, promote, abort, retire.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Begin with the first step of the route's plan.
    #[command(
        after_help = "Examples:\n  switchback rollout start search\n  switchback rollout start search --candidate v42 --steps 1,10,50 --why \"tonight's model\""
    )]
    Start(Start),
    /// Show how far it is, and what it waits for.
    #[command(after_help = "Examples:\n  switchback rollout status search\n  switchback rollout status search --json")]
    Status(OfRoute),
    /// Nothing goes on until it is resumed; the candidate keeps its share, and is guarded as before.
    #[command(
        after_help = "Examples:\n  switchback rollout pause search\n  switchback rollout pause search --why \"we look into the logs\""
    )]
    Pause(Ordered),
    /// Go on: the step begins anew, with the shares that the plan has.
    #[command(
        after_help = "Examples:\n  switchback rollout resume search\n  switchback rollout resume search --why \"the logs are clean\""
    )]
    Resume(Ordered),
    /// Let a step end that the plan has an approval for.
    #[command(
        after_help = "Examples:\n  switchback rollout approve search\n  switchback rollout approve search --why \"clicks look good\""
    )]
    Approve(Ordered),
    /// Begin the next step now, whatever the evidence says; a pause ends.
    #[command(after_help = "Examples:\n  switchback rollout promote search\n  switchback rollout promote search --full")]
    Promote(Promote),
    /// End it: the candidate gets nobody any more.
    #[command(after_help = "Examples:\n  switchback rollout abort search\n  switchback rollout abort search --why \"wrong model\"")]
    Abort(Ordered),
    /// Of one that is done: the servers of the old colour let go of the version before. The way back is a load then.
    #[command(after_help = "Examples:\n  switchback rollout retire search\n  switchback rollout retire search --why \"memory is short\"")]
    Retire(Ordered),
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    ordered: Ordered,
    /// The version [default: the one on the pool canary, or on the idle colour, that is not live].
    #[arg(long, value_name = "VERSION")]
    candidate: Option<String>,
    /// Its shares in percent, rising, like 1,10,50 [default: those of the route's plan].
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',')]
    steps: Option<Vec<String>>,
}

#[derive(Debug, Args)]
struct Promote {
    #[command(flatten)]
    ordered: Ordered,
    /// Leave all further steps out: the candidate becomes live now.
    #[arg(long)]
    full: bool,
}

impl RolloutArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let ordered = |said: Ordered, order: &'static str| {
            said.check()?;
            Ok::<_, Failure>((said.of, Some((order, json!({ "why": said.why })))))
        };
        let (of, order) = match self.command {
            RolloutCommand::Status(of) => (of, None),
            RolloutCommand::Start(Start { ordered: said, candidate, steps }) => {
                said.check()?;
                (said.of, Some(("", start_body((candidate.as_deref(), None), steps.as_deref(), false, &said.why))))
            }
            RolloutCommand::Pause(said) => ordered(said, "/pause")?,
            RolloutCommand::Resume(said) => ordered(said, "/resume")?,
            RolloutCommand::Approve(said) => ordered(said, "/approve")?,
            RolloutCommand::Promote(Promote { ordered: said, full }) => {
                said.check()?;
                (said.of, Some(("/promote", json!({ "why": said.why, "full": full }))))
            }
            RolloutCommand::Abort(said) => ordered(said, "/abort")?,
            RolloutCommand::Retire(said) => ordered(said, "/retire")?,
        };
        let rollout = block_on(ask(&of, order)).map_err(|failure| failure.in_json(of.json))?;
        print(&if of.json { format!("{rollout:#}\n") } else { shown(&of.route, &rollout) })
    }
}

/// What a router is sent to begin a rollout: the candidate with its artefact's SHA-256, where that is known. What nobody says is left out, so that a router
/// that does not know it takes it too.
pub(super) fn start_body((candidate, sha256): (Option<&str>, Option<&str>), steps: Option<&[String]>, at_once: bool, why: &str) -> Value {
    let mut body = json!({ "why": why, "candidate": candidate });
    if let Some(sha256) = sha256 {
        body["sha256"] = json!(sha256);
    }
    if let Some(steps) = steps {
        body["steps"] = json!(steps);
    }
    if at_once {
        body["at_once"] = json!(true);
    }
    body
}

async fn ask(of: &OfRoute, order: Option<(&str, Value)>) -> Result<Value, Failure> {
    let client = of.admin.client()?;
    let path = format!("/api/v1/routes/{}/rollout", of.route);
    let Some((order, mut body)) = order else { return client.get(&path).await };
    if matches!(order, "/promote" | "/approve") {
        // Of two who order it of one step, one is carried out.
        body["moves"] = client.get(&path).await?["moves"].clone();
    }
    client.post(&format!("{path}{order}"), &body).await
}

fn shown(route: &str, rollout: &Value) -> String {
    if rollout.is_null() {
        return format!("{route}: there was no rollout yet; begin one with: switchback rollout start {route}\n");
    }
    format!("{route}: {}", lines(rollout))
}

/// One line of what it does, one of what it waits for, and one of its steps. Empty without a rollout.
pub(super) fn lines(rollout: &Value) -> String {
    if rollout.is_null() {
        return String::new();
    }
    let [candidate, control, summary] = ["candidate", "control", "summary"].map(|key| plain(&rollout[key]));
    let what = summary.strip_prefix(&format!("{candidate} ")).unwrap_or(&summary);
    let mut text = format!("rollout of {candidate} over {control}: {what}\n");
    if let Some(what) = rollout["blocked"].as_str().or(rollout["waits_for"].as_str()) {
        text.push_str(&format!("    waits: {what}\n"));
    }
    if let Some(copies) = copies(&rollout["copies"]) {
        text.push_str(&format!("    copies: {copies}\n"));
    }
    let why = plain(&rollout["why"]);
    if !why.is_empty() {
        text.push_str(&format!("    last move: {why}\n"));
    }
    if rollout["is_active"] == true {
        text.push_str(&format!("    {}\n", steps(rollout)));
        let mover = rollout["controller"].as_str().map_or_else(|| "nobody yet".to_owned(), str::to_owned);
        text.push_str(&format!("    moved by: {mover}\n"));
    }
    text
}

/// `412 sent, 0 failed; another first result in 3.2 % of 405 lists (Jaccard@10 0.94)`; `None` without copies.
pub(super) fn copies(copies: &Value) -> Option<String> {
    let count = |key: &str| copies[key].as_u64().unwrap_or(0);
    let (sent, compared, unread) = (copies["sent"].as_u64()?, count("compared"), count("unread"));
    let mut text = format!("{sent} sent, {} failed", count("failed"));
    if let Some(jaccard) = copies["jaccard"].as_f64().filter(|_| compared > 0) {
        let percent = u32::try_from(count("top1_changed").saturating_mul(1_000) / compared)
            .map_or(100.0, |thousandths| f64::from(thousandths) / 10.0);
        text.push_str(&format!("; another first result in {percent:.1} % of {compared} lists (Jaccard@10 {jaccard:.2})"));
    }
    if unread > 0 {
        text.push_str(&format!("; {unread} without a list to read"));
    }
    Some(text)
}

/// `steps: 1 % done, [5 %], 25 %, 50 %, live`
fn steps(rollout: &Value) -> String {
    let (phase, step) = (plain(&rollout["phase"]), rollout["step"].as_u64().unwrap_or(0));
    let planned = rollout["plan"]["steps"].as_array().cloned().unwrap_or_default();
    let mut words: Vec<String> = (0_u64..)
        .zip(&planned)
        .map(|(index, planned)| {
            let percent = format!("{} %", plain(&planned["percent"]));
            match phase.as_str() {
                "canary" if index == step => format!("[{percent}]"),
                "canary" if index > step => percent,
                "loading" | "pending" | "mirroring" => percent,
                _ => format!("{percent} done"),
            }
        })
        .collect();
    words.push(if phase == "baking" { "[live, with a holdback]".to_owned() } else { "live".to_owned() });
    format!("steps: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_which_artefact_it_is_of_where_that_is_known() {
        assert_eq!(start_body((Some("search:2"), None), None, false, "so"), json!({ "why": "so", "candidate": "search:2" }));
        assert_eq!(
            start_body((Some("search:2"), Some("0a")), Some(&["5".to_owned()]), true, ""),
            json!({ "why": "", "candidate": "search:2", "sha256": "0a", "steps": ["5"], "at_once": true })
        );
    }

    #[test]
    fn a_rollout_is_a_few_lines() {
        let step = |percent: &str| json!({ "percent": percent });
        let mut rollout = json!({
            "summary": "v2 canary step 2 of 3 (5 %)", "candidate": "v2", "control": "v1", "phase": "canary", "step": 1, "is_active": true,
            "waits_for": "hold: 12 of 500 requests", "blocked": null, "controller": "edge-1", "why": "alice: tonight's model",
            "plan": { "steps": [step("1"), step("5"), step("25")] },
        });
        assert_eq!(
            shown("search", &rollout),
            "search: rollout of v2 over v1: canary step 2 of 3 (5 %)\n    waits: hold: 12 of 500 requests\n    \
             last move: alice: tonight's model\n    steps: 1 % done, [5 %], 25 %, live\n    moved by: edge-1\n"
        );
        rollout["copies"] = json!({ "sent": 412, "failed": 0, "compared": 405, "top1_changed": 13, "jaccard": 0.94, "unread": 0 });
        let told = "    copies: 412 sent, 0 failed; another first result in 3.2 % of 405 lists (Jaccard@10 0.94)\n    last move: alice";
        assert!(shown("search", &rollout).contains(told), "{}", shown("search", &rollout));
        let none = json!({ "sent": 12, "failed": 3, "compared": 0, "top1_changed": 0, "jaccard": null, "unread": 9 });
        assert_eq!(copies(&none).as_deref(), Some("12 sent, 3 failed; 9 without a list to read"));
        assert_eq!(copies(&Value::Null), None);
        rollout["phase"] = "baking".into();
        assert!(shown("search", &rollout).contains("    steps: 1 % done, 5 % done, 25 % done, [live, with a holdback]\n"));
        assert!(shown("search", &Value::Null).contains("switchback rollout start search"));
    }
}
