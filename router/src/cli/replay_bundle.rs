//! `switchback replay FILE.tar.gz`: judges the windows of a bundle anew, with the very policy that judged them, and says whether it comes to the same.
//!
//! What was said at the time stands in the ledger's entries (of each transition that rests on evidence) and in the last evidence; each says how many windows
//! had been judged until then.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::bundle::{self, Bundle};
use super::failure::complain;
use super::rollback_policy::Chosen;
use super::simulate::name;
use super::{Failure, explain, flag::plain, print, replay};
use crate::policy::rollback::{Outcome, Slice, Verdict, Window};
use crate::policy::window_log;
use crate::simulate::Judge as _;

const AFTER_HELP: &str = "\
It asks no router. What was said at the time is what the ledger's entries and the last evidence in the bundle have; a policy that has been replaced since is in the bundle too, as its very bytes.

Examples:
  switchback replay incident.tar.gz
  switchback replay incident.tar.gz --json

Exit codes: 0 the same to the bit, 2 not the same, or nothing to compare, or a bundle that cannot be trusted, 64 bad usage.";

/// Judge the windows of a bundle anew, and say whether the verdicts are the same to the bit.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Replay {
    /// The bundle, as `switchback explain --bundle` made it.
    #[arg(value_name = "FILE.tar.gz", required_unless_present = "bundle")]
    file: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "FILE.tar.gz", conflicts_with = "file")]
    bundle: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// So many verdicts to roll back are kept: more than one look judges slices.
const HARMS: usize = 10_000;

/// Something that was said at the time.
struct Said {
    /// `epoch 7, rolled back`.
    what: String,
    policy: Option<String>,
    evidence: Value,
}

/// What a comparison came to, judged anew.
struct Again {
    windows: usize,
    /// Windows that the policy failed on.
    failures: Vec<String>,
    /// Each change of the verdict.
    changes: Vec<(u64, &'static str, String)>,
    /// For each of what was said: what differs; `None` where so many windows are not there.
    compared: Vec<(String, Option<Vec<String>>)>,
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.judge().map_err(|failure| failure.in_json(self.json))
    }

    fn judge(&self) -> Result<(), Failure> {
        let file = self.file.as_ref().or(self.bundle.as_ref()).cloned().unwrap_or_default();
        let bundle = bundle::open(&file)?;
        let ledger = bundle.ledger()?;
        for problem in ledger.verify(None).problems {
            complain(&format!("warning: the ledger in the bundle is not as it was written: {problem}"));
        }
        let mut found = Vec::new();
        for (began, logs) in comparisons(&bundle) {
            let said = said(&bundle, began);
            let policy = policy_of(&bundle, &said);
            let chosen = chosen(&bundle, &policy)?;
            let again = again(&chosen, &config_of(&bundle), &windows(&bundle, &logs)?, &said);
            if !self.json {
                print(&shown(&bundle.manifest.route, began, logs.len(), &policy, &again))?;
            }
            found.push((began, policy, again));
        }
        let (is_compared, differs) = sums(&found);
        let is_same = is_compared && differs == 0;
        if self.json {
            print(&format!("{:#}\n", as_json(&bundle, &found, is_same)))?;
        }
        match (is_compared, differs) {
            (false, _) if found.is_empty() => Err(Failure::refused("the bundle has no judged windows: nothing to judge anew")),
            (false, _) => {
                Err(Failure::refused("the bundle has nothing that was said of these windows at the time: nothing to compare with"))
            }
            (true, 0) if self.json => Ok(()),
            (true, 0) => print("the verdicts are the same to the bit\n"),
            (true, differs) => Err(Failure::refused(format!("{differs} of the verdicts are not the same"))),
        }
    }
}

/// Whether anything could be compared, and how much of it differs.
fn sums(found: &[(u64, String, Again)]) -> (bool, usize) {
    let compared = || found.iter().flat_map(|(.., again)| &again.compared).filter_map(|(_, differences)| differences.as_ref());
    (compared().next().is_some(), compared().filter(|differences| !differences.is_empty()).count())
}

/// The logs of each comparison, by when it began.
fn comparisons(bundle: &Bundle) -> BTreeMap<u64, Vec<&str>> {
    let mut comparisons: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for name in bundle.members.keys() {
        let began = name.strip_prefix(bundle::WINDOWS).and_then(|rest| rest.split_once('/')?.0.parse().ok());
        if let Some(began) = began {
            comparisons.entry(began).or_default().push(name);
        }
    }
    comparisons
}

fn windows(bundle: &Bundle, logs: &[&str]) -> Result<Vec<Window>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        let bytes = bundle.members.get(*log).map_or(&[][..], Vec::as_slice);
        for read in window_log::read(bytes) {
            all.push(read.map_err(|error| Failure::refused(format!("{log}: {error}")))?);
        }
    }
    all.sort_by_key(|(order, _)| *order);
    // A router that was asked by two of its addresses gave the same twice.
    all.dedup_by(|one, before| one.0.is_some() && one == before);
    replay::in_order(all)
}

/// Everything that was said of the comparison that began then.
fn said(bundle: &Bundle, began: u64) -> Vec<Said> {
    let is_of_it = |evidence: &Value| evidence["began_unix_seconds"] == began && evidence["verdict"].is_string();
    let entries = bundle.ledger().map(|ledger| ledger.entries()).unwrap_or_default();
    let mut all: Vec<Said> = Vec::new();
    for entry in entries.into_iter().rev() {
        let Some(grounds) = entry.grounds else { continue };
        let Some(evidence) = grounds.evidence.filter(is_of_it) else { continue };
        all.push(Said { what: format!("epoch {}, {}", entry.epoch, grounds.event.replace('_', " ")), policy: grounds.policy, evidence });
    }
    let last = bundle.json("evidence.json")["evidence"].clone();
    if is_of_it(&last) {
        all.push(Said { what: "the last evidence".to_owned(), policy: None, evidence: last });
    }
    all
}

/// `NAME@DIGEST`, or the name alone for native code: as the ledger has it, else the one in force when the bundle was made.
fn policy_of(bundle: &Bundle, said: &[Said]) -> String {
    let noted = said.iter().rev().find_map(|said| said.policy.clone());
    noted.unwrap_or_else(|| {
        let policies = bundle.json("route.json")["policies"].clone();
        let judge = policies.as_array().into_iter().flatten().find(|policy| policy["kind"] == "rollback").cloned().unwrap_or_default();
        match judge["digest"].as_str().filter(|digest| !digest.is_empty()) {
            Some(digest) => format!("{}@{digest}", plain(&judge["name"])),
            None => plain(&judge["name"]),
        }
    })
}

fn chosen(bundle: &Bundle, policy: &str) -> Result<Chosen, Failure> {
    let Some((_, digest)) = policy.split_once('@') else { return Chosen::load(policy.as_ref(), true) };
    let ending = format!("@{digest}.wasm");
    let member = bundle.members.iter().find(|(name, _)| name.starts_with(bundle::POLICIES) && name.ends_with(&ending));
    let (name, bytes) = member.ok_or_else(|| Failure::refused(format!("the bundle lacks the policy that judged: {policy}")))?;
    Chosen::of_bytes(name, bytes)
}

/// The route's `rollback_config`.
fn config_of(bundle: &Bundle) -> String {
    let config = bundle.json("config.json");
    let key = format!("route.{}.rollback_config", bundle.manifest.route);
    config["keys"][key].as_str().unwrap_or("{}").to_owned()
}

/// Judges all windows, and compares at each point at which something was said.
fn again(chosen: &Chosen, config: &str, windows: &[Window], said: &[Said]) -> Again {
    let mut judge = chosen.with_state(config, "replay");
    judge.begin();
    let mut compared: Vec<(String, Option<Vec<String>>)> = said.iter().map(|said| (said.what.clone(), None)).collect();
    let mut again = Again { windows: windows.len(), failures: Vec::new(), changes: Vec::new(), compared: Vec::new() };
    let (mut traffic, mut engagement, mut last) = (0_u64, 0_u64, None);
    let mut harms: Vec<Outcome> = Vec::new();
    for window in windows {
        match window.slice {
            Slice::Traffic => traffic += 1,
            Slice::Engagement => engagement += 1,
        }
        if let Err(reason) = judge.judge(window) {
            // As in a router: the state stays as it was, and it goes on with the next.
            again.failures.push(format!("window {}: {reason}", window.index));
        }
        let Some(outcome) = judge.last() else { continue };
        if last != Some(outcome.verdict) {
            last = Some(outcome.verdict);
            again.changes.push((window.index, name(outcome.verdict), outcome.summary.clone()));
        }
        if outcome.verdict == Verdict::RollBack && harms.len() < HARMS {
            harms.push(outcome.clone());
        }
        for (said, (_, differences)) in said.iter().zip(&mut compared) {
            let until = &said.evidence["windows"];
            if (until["traffic"].as_u64(), until["engagement"].as_u64()) == (Some(traffic), Some(engagement)) {
                // Harm that a look found out in its middle is what it said at its end.
                let is_harm = said.evidence["verdict"] == "roll_back";
                let was_harm = is_harm && harms.iter().any(|harm| differs(&said.evidence, harm).is_empty());
                *differences = Some(if was_harm { Vec::new() } else { differs(&said.evidence, outcome) });
            }
        }
    }
    again.compared = compared;
    again
}

/// What is not the same, to the last bit. Of what was said, means of the counters are left out: they are not the policy's.
fn differs(said: &Value, outcome: &Outcome) -> Vec<String> {
    // Written and read, as what was said was.
    let evidence: Value = serde_json::from_str(&json!(replay::evidence(outcome)).to_string()).unwrap_or_default();
    let mut differences = Vec::new();
    let mut compare = |what: String, then: &Value, now: &Value| {
        if then != now {
            differences.push(format!("{what} was {}, and is {}", plain(then), plain(now)));
        }
    };
    compare("verdict".to_owned(), &said["verdict"], &json!(name(outcome.verdict).replace(' ', "_")));
    compare("summary".to_owned(), &said["summary"], &json!(outcome.summary));
    for judged in evidence.as_array().into_iter().flatten() {
        let metric = plain(&judged["metric"]);
        if metric == "rollout" {
            compare("log_harm".to_owned(), &said["log_harm"], &judged["log_harm"]);
            continue;
        }
        // Evidence that was too large for the ledger has no metrics in it.
        let Some(metrics) = said["metrics"].as_array() else { continue };
        let then = metrics.iter().find(|then| then["metric"] == judged["metric"]).cloned().unwrap_or_default();
        for field in ["log_harm", "log_safe", "difference"] {
            compare(format!("{metric} {field}"), &then[field], &judged[field]);
        }
    }
    differences
}

fn shown(route: &str, began: u64, logs: usize, policy: &str, again: &Again) -> String {
    let Again { windows, failures, changes, compared } = again;
    let (policy_name, digest) = policy.split_once('@').unwrap_or((policy, "native"));
    let digest: String = digest.chars().take(12).collect();
    let when = explain::at(&(began * 1_000).into());
    let mut text =
        format!("{route}: the comparison that began at {when}: {windows} windows in {logs} log(s), judged by {policy_name}@{digest}\n");
    for (index, verdict, summary) in changes {
        text.push_str(&format!("  window {index:>7}  {verdict:<9}  {summary}\n"));
    }
    if let Some(first) = failures.first() {
        text.push_str(&format!("  {} window(s) failed, the first: {first}\n", failures.len()));
    }
    for (what, differences) in compared {
        let came = match differences.as_deref() {
            None => "not compared: the bundle has not all of the windows that it rests on".to_owned(),
            Some([]) => "the same to the bit".to_owned(),
            Some(differences) => format!("NOT the same: {}", differences.join("; ")),
        };
        text.push_str(&format!("  {what}: {came}\n"));
    }
    text
}

fn as_json(bundle: &Bundle, found: &[(u64, String, Again)], is_same: bool) -> Value {
    let one = |(began, policy, again): &(u64, String, Again)| {
        let changes =
            again.changes.iter().map(|(window, verdict, summary)| json!({ "window": window, "verdict": verdict, "summary": summary }));
        let compared = again.compared.iter().map(
            |(what, differences)| json!({ "what": what, "is_same": differences.as_ref().map(Vec::is_empty), "differences": differences }),
        );
        json!({
            "began_unix_seconds": began,
            "policy": policy,
            "windows": again.windows,
            "failures": again.failures.len(),
            "changes": changes.collect::<Vec<_>>(),
            "compared": compared.collect::<Vec<_>>(),
        })
    };
    json!({ "route": bundle.manifest.route, "is_same": is_same, "comparisons": found.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rollback::{Evidence, Verdict};

    fn outcome() -> Outcome {
        let evidence = |metric: &str| Evidence {
            metric: metric.to_owned(),
            log_harm: 1.0 / 3.0,
            log_safe: None,
            difference: 0.1,
            low: -0.2,
            high: 0.3,
        };
        Outcome {
            verdict: Verdict::RollBack,
            summary: "roll back: errors".to_owned(),
            evidence: vec![evidence("rollout"), evidence("errors")],
            state: Vec::new(),
        }
    }

    fn said() -> Value {
        let text = r#"{"verdict": "roll_back", "summary": "roll back: errors", "log_harm": 0.3333333333333333, "metrics": [
            {"metric": "errors", "log_harm": 0.3333333333333333, "log_safe": null, "difference": {"mean": 0.1, "low": -0.2, "high": 0.3}}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_last_bit_counts() {
        assert_eq!(differs(&said(), &outcome()), [""; 0]);
        let mut other = outcome();
        other.evidence[1].log_harm = f64::from_bits(other.evidence[1].log_harm.to_bits() + 1);
        let found = differs(&said(), &other);
        assert!(found.len() == 1 && found[0].starts_with("errors log_harm was 0.3333333333333333"), "{found:?}");
        let mut without = said();
        without.as_object_mut().unwrap().remove("metrics");
        assert_eq!(differs(&without, &other), [""; 0], "it was too large for the ledger");
    }

    #[test]
    fn people_are_told_what_differs() {
        let compared = vec![("epoch 7, rolled back".to_owned(), Some(vec!["verdict was a, and is b".to_owned()])), ("x".to_owned(), None)];
        let changes = vec![(3, "hold", "few".to_owned())];
        let again = Again { windows: 9, failures: vec!["window 1: it trapped".to_owned()], changes, compared };
        let expected = "search: the comparison that began at 2001-09-09T01:46:40Z: 9 windows in 2 log(s), judged by mine@0123456789ab\n\
                        \x20 window       3  hold       few\n\
                        \x20 1 window(s) failed, the first: window 1: it trapped\n\
                        \x20 epoch 7, rolled back: NOT the same: verdict was a, and is b\n\
                        \x20 x: not compared: the bundle has not all of the windows that it rests on\n";
        assert_eq!(shown("search", 1_000_000_000, 2, "mine@0123456789abcdef", &again), expected);
    }
}
