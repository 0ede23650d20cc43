//! `switchback demo` from beginning to end: it keeps what it promises, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use switchback_tests::{binary, eventually};

fn demo(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_demo_keeps_its_promises_and_ends_with_the_contracts_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(&["--fast", "--json"], folder.path()).output().unwrap();
    let timeline = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{timeline}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    for key in ["promoted", "rolled_back", "failed_requests", "detection_seconds", "rollback_seconds", "refused"] {
        assert!(line.get(key).is_some(), "{key} is missing in {line}");
    }
    assert_eq!(line["failed_requests"], 0, "{timeline}");
    assert_eq!((&line["promoted"], &line["rolled_back"]), (&"search:2".into(), &"search:3".into()), "{timeline}");
    all_is_told(&timeline);
    for told in [
        "dev.switchback.rollout.started search:2",
        "dev.switchback.rollout.promoted search:2",
        "dev.switchback.rollout.done search:2",
        "dev.switchback.rollout.rolled_back search:3",
    ] {
        assert!(timeline.contains(told), "{timeline} lacks {told}");
    }
    assert!(line["rollback_seconds"].as_f64().unwrap() < 1.0, "{line}");
    assert_eq!(line["units_that_changed_arm"], 0, "{timeline}");
    assert!(line["requests"].as_u64().unwrap() > 2_000, "{line}");
    let steps = line["steps"].as_array().unwrap();
    every_step_in_turn(steps);
    assert!(steps.iter().all(|step| step["is_within_4_sigma"] == true), "{line}");
    for flip in steps.iter().filter(|step| step["step"].as_str().unwrap().starts_with("flip")) {
        assert!(flip["last_answer_of_old_pool_ms"].as_f64().unwrap() < 250.0, "{flip}");
    }
    let count = |value: &Value| value.as_u64().unwrap();
    let in_steps: u64 = steps.iter().map(|step| count(&step["queries"])).sum();
    let others = count(&line["requests_between_steps"]) + count(&line["failed_requests"]);
    assert_eq!(in_steps + others, count(&line["requests"]), "the table adds up: {line}");
    let models = line["models"].as_array().unwrap();
    let of = |model: &Value| format!("{} on {}", model["version"].as_str().unwrap(), model["pool"].as_str().unwrap());
    assert_eq!(
        models.iter().map(of).collect::<Vec<_>>(),
        ["search:1 on blue", "search:1 on green", "search:1 on canary", "search:2 on green", "search:2 on canary", "search:3 on canary"]
    );
    let worth: Vec<f64> = models.iter().map(|model| model["ndcg_at_10"].as_f64().unwrap()).collect();
    assert!(worth[..5].iter().all(|worth| (0.8..0.95).contains(worth)) && worth[5] < 0.7, "real rankings, and a broken one: {line}");
    // The broken model is found out on what users clicked.
    let evidence = &line["evidence"];
    assert!(evidence["log_harm"].as_f64().unwrap() >= evidence["threshold_log"].as_f64().unwrap(), "{line}");
    assert!(evidence["summary"].as_str().unwrap().contains("clicks"), "{line}");
    assert!((1.0..60.0).contains(&line["detection_seconds"].as_f64().unwrap()), "{line}");
    let in_all: u64 = models.iter().map(|model| count(&model["queries"])).sum();
    assert!(count(&line["clicks"]) > in_all / 4, "{line}");
    assert!(timeline.matches(" of 4.6: ").count() >= 2, "it grows: {timeline}");
    refused_unseen(&line, &timeline);
    assert!(!timeline.contains('\u{1b}'), "no colours where nobody sees them");
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());
}

fn every_step_in_turn(steps: &[Value]) {
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "steady on blue",
            "canary 1 %",
            "canary 5 %",
            "canary 25 %",
            "plugin swapped",
            "canary 50 %",
            "flip to green",
            "flip back to blue",
            "search:2 at 10 %",
            "search:2 at 50 %",
            "search:2 baking",
            "search:2 done",
            "search:3 at 10 %",
            "search:3 rolled back"
        ]
    );
}

/// A person can follow what the job did.
fn all_is_told(timeline: &str) {
    for said in [
        "plugin",
        "in all",
        "bad plugin",
        "flip to green",
        "NDCG@10",
        "no query failed",
        "search:2 is pushed",
        "search:2 passed against search:1",
        "search:2 is live on search",
        "search:3 passed against search:2",
        "exit code 0",
        "exit code 2",
        "serve what they did before: blue search:1, green search:2, canary search:3",
    ] {
        assert!(timeline.contains(said), "{timeline} lacks {said}");
    }
}

/// Each bad model was refused for what is wrong with it, and no user got it.
fn refused_unseen(line: &Value, timeline: &str) {
    let refused = line["refused"].as_array().unwrap();
    let expected = [
        ("NaN scores", "search:4", "scores", "not a finite number"),
        ("other features", "search:5", "signature", "float32[?, 41]"),
        ("slow", "search:6", "latency", "ms for 100 documents"),
        ("upside down", "search:7", "ndcg@10", "worse by more than"),
        ("evil pickle", "search:8", "globals", "os.system"),
    ];
    assert_eq!(refused.len(), expected.len(), "{line}");
    for (one, (name, version, check, why)) in refused.iter().zip(expected) {
        assert_eq!((&one["name"], &one["version"], &one["check"]), (&name.into(), &version.into(), &check.into()), "{timeline}");
        assert!(one["reason"].as_str().unwrap().contains(why) && one["queries"] == 0, "{one}");
        assert!(timeline.contains(&format!("{version}: refused by {check}: ")), "{timeline} lacks {name}");
    }
}

/// The processes that one started, by id.
fn children_of(id: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect::<String>();
    children.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// These, what they started, and so on.
fn with_descendants(ids: Vec<u32>) -> Vec<u32> {
    ids.into_iter().flat_map(|id| [vec![id], with_descendants(children_of(id))].concat()).collect()
}

/// A demo whose nightly job waits for its rollout, what is left of its output, and all processes below it.
fn deploying(folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>, Vec<u32>) {
    let mut child = demo(&["--fast"], folder).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("the rollout of search:2 began")), "the job did not come so far");
    let started = with_descendants(children_of(child.id()));
    let named = |name: &str| started.iter().filter(|id| command_of(**id).contains(name)).count();
    assert_eq!((named(" serve "), named(" ranker "), named(" deploy ")), (1, 3, 1), "{started:?}");
    assert!(named("deploy_model") >= 2, "the script, and whoever waits for the demo's end");
    (child, lines, started)
}

fn command_of(id: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

#[test]
fn ctrl_c_ends_the_nightly_job_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _lines, started) = deploying(folder.path());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = eventually("the demo ends", Duration::from_secs(10), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(2));
    eventually("its processes end", Duration::from_secs(10), || started.iter().all(|id| has_ended(*id)).then_some(()));
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_demo_that_is_killed_takes_the_nightly_job_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _lines, started) = deploying(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("its processes end", Duration::from_secs(10), || started.iter().all(|id| has_ended(*id)).then_some(()));
}

/// A demo whose users have begun, what is left of its output, and the processes that it started.
fn running(folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>, Vec<u32>) {
    let mut child = demo(&[], folder).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("queries a second")), "the demo did not start");
    let started = children_of(child.id());
    assert_eq!(started.len(), 4, "three rankers and a router");
    (child, lines, started)
}

#[test]
fn ctrl_c_ends_everything_that_the_demo_started() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _lines, started) = running(folder.path());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = eventually("the demo ends", Duration::from_secs(10), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(2));
    eventually("its processes end", Duration::from_secs(10), || {
        started.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()).then_some(())
    });
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());
}

/// Gone, or only waiting for whoever has to look at how it ended.
fn has_ended(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _lines, started) = running(folder.path());
    assert!(started.iter().all(|id| !has_ended(*id)));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("its processes end", Duration::from_secs(10), || started.iter().all(|id| has_ended(*id)).then_some(()));
}

#[test]
fn a_missing_onnx_runtime_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(&["--fast"], folder.path()).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("scripts/fetch_onnxruntime.sh"), "{said}");
}

#[test]
fn what_the_nightly_job_needs_is_looked_for_first() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(tools.path().join("sh"), "").unwrap();
    let output = demo(&["--fast"], folder.path()).env("PATH", tools.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("flock is needed for the nightly job, and is not on the PATH: install util-linux"), "{said}");
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());
}
