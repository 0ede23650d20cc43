//! The promise: one command brings a good model to all users and a bad one to nobody, says which, and may be called again at any time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::Behaviour;
use switchback_tests::deploy::{PLAN, Site, not_a_number};
use switchback_tests::eventually;
use switchback_tests::registry::said;

const SOON: Duration = Duration::from_secs(60);
/// A step that nobody gets past.
const LONG: &str = "rollout = { steps = [\"10\", \"50\"], dwell = \"1h\", bake = \"2s\" }";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_good_model_goes_live_and_is_left_alone_from_then_on() {
    let site = Site::with_users(PLAN);
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    let arguments = ["--file", text(&file), "--wait", "--timeout", "90s", "--why", "tonight's model", "--metric", "ndcg@10=0.89"];
    let (code, said, error) = site.deploy(&arguments);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.starts_with("search:2 is live on search: canary step 1 of 2 (10 %) ") && said.contains("baking"), "{said}");
    let told = [
        "search:2 is pushed, SHA-256 ",
        "search:2 passed against search:1, in ",
        "stored as report 1",
        "the rollout of search:2 began: canary step 1 of 2 (10 %)",
        "search@candidate points to version 2",
        "search:2 canary step 2 of 2 (50 %)",
        "search:2 baking",
        "    waits: it bakes",
        "search@champion points to version 2",
    ];
    let mut rest = error.as_str();
    for line in told {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is not told, or too early: {error}"));
        rest = &rest[at..];
    }
    assert!(!error.contains('\u{1b}') && error.lines().count() < 60, "plain lines, and few of them: {error}");
    let route = site.router.route();
    assert_eq!((&route["live"], &route["rollout"]["phase"]), (&"green".into(), &"done".into()));
    assert!(route["rollout"]["why"].is_string());
    assert_eq!((site.alias("candidate"), site.alias("champion")), (2.into(), 2.into()));
    let moved = site.registry.done(&["alias", "search", "champion"])["moves"][0]["why"].as_str().unwrap().to_owned();
    assert_eq!(moved, format!("rollout {} on search is done", route["rollout"]["id"].as_str().unwrap()));
    // Again, there is nothing to do.
    let (code, account) = site.deployed(&arguments);
    assert_eq!((code, &account["outcome"], &account["version"]), (0, &"live".into(), &2.into()), "{account:#}");
    assert_eq!((site.versions(), site.rollouts()), (vec![1, 2], 1));
    let shown = site.registry.done(&["show", "search:2"]);
    assert_eq!((&shown["about"]["why"], &shown["about"]["metrics"]["ndcg@10"]), (&"tonight's model".into(), &0.89.into()));
}

#[test]
fn a_bad_model_reaches_nobody() {
    let site = Site::start(PLAN);
    site.runs("search:2");
    let file = not_a_number(&site.registry);
    let (code, told, error) = site.deploy(&["--file", text(&file), "--wait"]);
    assert_eq!(code, 2, "{told}{error}");
    assert!(told.contains("REFUSED") && error.contains("search:2 is refused by its validation: "), "{told}{error}");
    // The report counts: nobody looks again.
    let (code, account) = site.deployed(&["--version", "2"]);
    assert_eq!((code, &account["outcome"], &account["report"]["passed"]), (2, &"refused".into(), &false.into()), "{account:#}");
    assert!(account["error"].as_str().unwrap().starts_with("search:2 is refused by its validation: "), "{account:#}");
    assert_eq!((site.rollouts(), site.router.route()["rollout"].clone()), (0, Value::Null));
    let reports = site.registry.path("registry/models/search/versions/2/reports");
    assert_eq!(std::fs::read_dir(reports).unwrap().count(), 1);
}

#[test]
fn a_candidate_that_fails_is_rolled_back_and_said_so_with_the_evidence() {
    // A breaker would be quicker than any evidence.
    let site = Site::with_users(&format!("{PLAN}\nbreaker = {{ enabled = false }}"));
    site.runs("search:2");
    site.pools[2].behave(Behaviour::EveryOther(500));
    let file = site.model("ranker_v2.onnx");
    let (code, told, error) = site.deploy(&["--file", text(&file), "--wait", "--timeout", "90s"]);
    assert_eq!(code, 2, "{told}{error}");
    assert!(error.contains("search:2 was rolled back on search: "), "{error}");
    assert!(told.contains("against search:2 (control search:1)") && told.contains("errors"), "the evidence: {told}");
    assert_eq!(site.alias("champion"), Value::Null);
    // Whoever names it again wants it again.
    let (code, account) = site.deployed(&["--version", "2", "--wait", "--timeout", "90s"]);
    assert_eq!((code, &account["outcome"]), (2, &"rolled_back".into()), "{account:#}");
    assert_eq!(account["evidence"]["evidence"]["candidate"]["version"], "search:2", "{account:#}");
    let began = account["evidence"]["evidence"]["began_unix_seconds"].as_u64().unwrap();
    let started = site.router.route()["rollout"]["started_ms"].as_u64().unwrap();
    assert!((began + 2) * 1_000 > started, "of this rollout, not of the one before: {account:#}");
    assert!(account["why"].is_string() && account["phases"][0]["seconds"].is_number(), "{account:#}");
    assert_eq!(site.rollouts(), 2);
    // What follows has nothing to do with it.
    site.pools[2].behave(Behaviour::Answer);
    let (code, told, error) = site.router.run(&["rollback", "search", "--to", "search:2", "--why", "it was the canary"]);
    assert!(code == 0 && told == "rolled back: search:2 is live on search\n", "{told}{error}");
    // What is done at once is told as that.
    assert!(error.contains("search:2 is live on green, epoch ") && !error.contains("began"), "{error}");
    let (_, told, _) = site.router.run(&["status"]);
    assert!(told.contains("rollout of search:2 over search:1: done\n    last move: local-operator: it was the canary\n"), "{told}");
    assert!(!told.contains("against search:2"), "{told}");
}

#[test]
fn another_rollout_is_left_alone_ended_or_waited_for() {
    let site = Site::start(LONG);
    let (v2, other) = (site.model("ranker_v2.onnx"), site.model("ranker_shuffled.onnx"));
    site.registry.done(&["push", text(&v2), "--model", "search"]);
    site.registry.done(&["push", text(&other), "--model", "search"]);
    site.run_each("search:3", "search:2");
    let begin = site.router.run(&["rollout", "start", "search", "--candidate", "search:3", "--steps", "10"]);
    assert_eq!(begin.0, 0, "{begin:?}");
    let (code, _, error) = site.deploy(&["--version", "2"]);
    assert!(
        code == 2 && error.contains("another rollout is under way on search: search:3 canary step 1 of 1 (10 %); --if-busy=queue"),
        "{error}"
    );
    let (code, account) = site.deployed(&["--version", "2"]);
    assert_eq!((code, &account["outcome"], &account["rollout"]), (2, &"refused".into(), &Value::Null));
    // Queued, it says for what it waits; and begins when that is over.
    let (code, account) = site.deployed(&["--version", "2", "--if-busy", "queue", "--timeout", "2s"]);
    assert_eq!(code, 75, "{account:#}");
    let mut queued = site.watch(&["--version", "2", "--if-busy", "queue", "--steps", "5,20"]);
    assert!(queued.tells("queued") && queued.said().contains("search:3 canary step 1 of 1"), "{}", queued.said());
    assert_eq!(site.router.run(&["rollout", "abort", "search"]).0, 0);
    let (code, account) = queued.ended();
    assert_eq!((code, &account["outcome"]), (0, &"running".into()), "{account:#}");
    let rollout = site.router.route()["rollout"].clone();
    let steps = rollout["plan"]["steps"].as_array().unwrap().clone();
    assert_eq!((&rollout["candidate"], &steps[0]["percent"], &steps[1]["percent"]), (&"search:2".into(), &"5".into(), &"20".into()));
    assert_eq!((&steps[0]["dwell_ms"], steps.len()), (&3_600_000.into(), 2), "another share takes as long as the route's");
    // Superseded, the other one ends with the reason; whoever followed it is told.
    let mut followed = site.watch(&["--version", "2", "--wait"]);
    assert!(followed.tells("attached"));
    let (code, account) = site.deployed(&["--version", "3", "--if-busy", "supersede", "--why", "it is better"]);
    assert_eq!((code, &account["outcome"]), (0, &"running".into()), "{account:#}");
    let (code, account) = followed.ended();
    assert_eq!((code, &account["outcome"]), (2, &"aborted".into()), "{account:#}");
    assert!(account["why"].as_str().unwrap().contains("superseded by search:3: it is better"), "{account:#}");
    assert_eq!(site.router.route()["rollout"]["candidate"], "search:3");
    // What an operator forbids is forbidden here.
    assert_eq!(site.router.run(&["rollout", "abort", "search"]).0, 0);
    site.router.set_flags(&["freeze=true"]);
    let (code, _, error) = site.deploy(&["--version", "2"]);
    assert!(code == 2 && error.contains("freeze is set"), "{error}");
    site.router.set_flags(&["freeze=false", "canary_percent=7"]);
    let (code, _, error) = site.deploy(&["--version", "2"]);
    assert!(code == 2 && error.contains("a share already, by hand"), "{error}");
}

#[test]
fn a_version_that_waits_for_its_turn_never_goes_live_over_a_newer_one() {
    let site = Site::with_users(PLAN);
    for model in ["ranker_v2.onnx", "ranker_shuffled.onnx"] {
        site.registry.done(&["push", text(&site.model(model)), "--model", "search"]);
    }
    site.runs("search:3");
    assert_eq!(site.router.run(&["rollout", "start", "search", "--candidate", "search:3"]).0, 0);
    let mut queued = site.watch(&["--version", "2", "--if-busy", "queue", "--timeout", "90s"]);
    let newer = "; that is a newer version, and once it is live search:2 is not begun";
    assert!(queued.tells("queued") && queued.said().contains(newer), "{}", queued.said());
    assert_eq!(site.router.run(&["rollout", "promote", "search", "--full"]).0, 0);
    let (code, account) = queued.ended();
    assert_eq!((code, &account["outcome"], &account["rollout"]), (2, &"refused".into(), &Value::Null), "{account:#}");
    let why = "search:2 is not begun: search:3, which is newer, went live while it was waited for";
    assert!(account["error"].as_str().unwrap().starts_with(why), "{account:#}");
    let route = site.router.route();
    assert_eq!((&route["live"], &route["rollout"]["candidate"], site.rollouts()), (&"green".into(), &"search:3".into(), 1));
}

#[test]
fn whoever_stops_waiting_can_attach_again() {
    let mut site = Site::start(PLAN);
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    let (code, account) = site.deployed(&["--file", text(&file), "--wait", "--timeout", "3s"]);
    assert_eq!((code, &account["outcome"]), (75, &"running".into()), "{account:#}");
    let error = account["error"].as_str().unwrap();
    assert!(error.contains("to attach again: switchback deploy --route search --model search --version 2 --wait"), "{error}");
    // Ctrl-C says the same.
    let mut watched = site.watch(&["--version", "2", "--wait"]);
    assert!(watched.tells("attached") && watched.tells("waits"));
    watched.interrupt();
    let (code, account) = watched.ended();
    assert!(code == 130 && account["error"].as_str().unwrap().contains("the rollout goes on by itself"), "{code}: {account:#}");
    // Another router takes the place of the first one, twice; that ends nothing.
    let mut watched = site.watch(&["--version", "2", "--wait", "--timeout", "90s"]);
    assert!(watched.tells("attached"));
    site.restart();
    eventually("the second step", SOON, || (site.router.route()["rollout"]["step"] == 1 || site.phase() == "baking").then_some(()));
    site.restart();
    let (code, account) = watched.ended();
    assert_eq!((code, &account["outcome"]), (0, &"live".into()), "{account:#}");
    assert_eq!((site.rollouts(), site.versions()), (1, vec![1, 2]));
}

#[test]
fn until_live_ends_with_the_switch() {
    let mut site = Site::with_users(&PLAN.replace("bake = \"2s\"", "bake = \"1h\""));
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    let (code, account) = site.deployed(&["--file", text(&file), "--wait", "--until", "live", "--timeout", "90s"]);
    assert_eq!((code, &account["outcome"], site.phase().as_str()), (0, &"live".into(), "baking"), "{account:#}");
    assert_eq!(site.alias("champion"), Value::Null, "a holdback may still take it back");
    // A way back to a pool that nobody could be sent to is none; also a dry run says so.
    site.pools[0].stop();
    eventually("blue is known to be dead", SOON, || (site.router.route()["pools"]["blue"]["healthy"] == 0).then_some(()));
    for more in [&["--dry-run"][..], &[]] {
        let (code, told, error) = site.router.run(&[&["rollback", "search", "--to", "search:1"], more].concat());
        let says = "it is not ready: blue, which has search:1, has no healthy endpoint (0 of 1 endpoints healthy); mend it first; nothing was done";
        assert!(code == 2 && error.contains(says), "{code}: {told}{error}");
    }
    assert_eq!(site.router.route()["live"], "green");
}

/// What is live again is the champion again, where it is known in which registry; and a registry that is away holds no rollback up.
#[test]
fn the_champion_goes_back_with_the_live_version() {
    let site = Site::with_users(PLAN);
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    site.registry.done(&["alias", "search", "champion", "1"]);
    let (code, account) = site.deployed(&["--file", text(&file), "--wait", "--timeout", "90s"]);
    assert_eq!((code, site.alias("champion")), (0, 2.into()), "{account:#}");
    let back = |more: &[&str]| said(&site.at(site.registry.command(&[&["rollback", "search"], more].concat())).output().unwrap());
    assert_eq!((back(&["--dry-run"]).0, site.alias("champion")), (0, 2.into()));
    let (code, told, error) = back(&["--why", "it ranks worse"]);
    assert!(code == 0 && told.starts_with("rolled back: search:2 gives its traffic to search:1 on blue"), "{told}{error}");
    assert!(error.contains("search@champion points to version 1"), "{error}");
    let moves = site.registry.done(&["alias", "search", "champion"])["moves"].clone();
    let last = moves.as_array().unwrap().last().unwrap();
    assert_eq!((&last["version"], &last["why"]), (&1.into(), &"rolled back on search: it ranks worse".into()));
    eventually("it is back", SOON, || (site.router.route()["live"] == "blue").then_some(()));
    // Once more, and without the registry: the folder is gone, as one is that is not mounted.
    let (code, account) = site.deployed(&["--version", "2", "--wait", "--timeout", "90s"]);
    assert_eq!((code, site.alias("champion")), (0, 2.into()), "{account:#}");
    let config = site.registry.path("switchback.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written.replace("/registry\"", "/away\"") + "[route.loading]\nmodel = \"search\"\n").unwrap();
    let (code, told, error) = back(&[]);
    assert!(code == 0 && told.starts_with("rolled back: search:2 gives its traffic to search:1"), "{told}{error}");
    let says = "warning: search@champion was not moved to version 1: ";
    assert!(error.contains(says) && error.contains("by hand: switchback model alias search champion 1"), "{error}");
    std::fs::write(&config, written).unwrap();
    assert_eq!(site.alias("champion"), 2);
}

#[test]
fn what_is_not_there_is_said() {
    let mut site = Site::start(PLAN);
    let file = site.model("ranker_v2.onnx");
    let nobody = [("SWITCHBACK_ADMIN", "http://127.0.0.1:1")];
    let (code, _, error) = said(&site.command(&["--file", text(&file), "--timeout", "2s"]).envs(nobody).output().unwrap());
    assert!(code == 69 && error.contains("cannot be reached"), "{code}: {error}");
    assert_eq!(site.versions(), [1], "nothing is pushed for a router that is not there");
    let missing = site.registry.path("missing");
    let away = format!("file://{}", missing.display());
    let (code, _, error) = site.deploy(&["--version", "1", "--registry", &away]);
    assert!(code == 69 && error.contains("there is no such folder"), "{code}: {error}");
    for (arguments, code, says) in [
        (&["--version", "1", "--steps", "5,1"][..], 64, "each larger than the one before"),
        (&["--version", "1", "--steps", "0"], 64, "must be more than 0 and less than 100"),
        (&["--version", "1", "--timeout", "soon"], 64, "--timeout soon: must be from 1ms to 30d"),
        (&["--version", "1", "--if-busy", "hope"], 64, "possible values: refuse, supersede, queue"),
        (&["--version", "1", "--until", "live"], 64, "--wait"),
        (&["--version", "1", "--tag", "a=b"], 64, "--tag is said of a --file"),
        (&["--version", "1", "--file", "x"], 64, "cannot be used with"),
        (&[], 64, "required"),
        (&["--version", "9"], 2, "search:9: there is none in the registry"),
        (&["--file", text(&missing)], 64, "missing: cannot read it"),
        (&["--version", "1", "--judged", text(&missing)], 64, "missing: cannot read it"),
        (&["--version", "1", "--config", text(&missing)], 64, "the config is refused"),
    ] {
        let (is, told, error) = site.deploy(arguments);
        assert!(is == code && error.contains(says), "{arguments:?}: {is} {told}{error}");
    }
    let mut command = site.registry.command(&["deploy", "--route", "shop", "--model", "search", "--version", "1"]);
    command.env_remove("SWITCHBACK_CONFIG").env("SWITCHBACK_REGISTRY", format!("file://{}", site.registry.path("registry").display()));
    let (code, _, error) = said(&site.at(command).output().unwrap());
    assert!(code == 64 && error.contains("no such route"), "{code}: {error}");
    let (status, answer) = site.router.admin("POST", "/api/v1/routes/search/rollout", br#"{"steps": ["50", "1"]}"#);
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("steps = [50, 1]: must be 1 to 32 shares"), "{status}: {answer}");
    site.router.kill();
    let (code, account) = site.deployed(&["--version", "1", "--timeout", "1s"]);
    assert!(code == 69 && account["outcome"] == Value::Null, "{code}: {account:#}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let site = Site::start(LONG);
    let file = site.model("ranker_v2.onnx");
    let before = site.router.route()["epoch"].clone();
    let (code, told, error) = site.deploy(&["--file", text(&file), "--dry-run", "--steps", "5,20"]);
    assert_eq!(code, 0, "{told}{error}");
    for line in [
        "ranker_v2.onnx would be pushed as the next version of search",
        "passed in ",
        "a rollout of the next version of search would begin on search, with 5 %, 20 %; live is search:1",
    ] {
        assert!(told.contains(line), "{line:?} is not told: {told}{error}");
    }
    assert_eq!((site.versions(), site.rollouts()), (vec![1], 0));
    site.registry.done(&["push", text(&file), "--model", "search"]);
    let (code, account) = site.deployed(&["--version", "1", "--dry-run"]);
    assert_eq!((code, &account["would"][1]), (0, &"nothing would be done: search:1 is live already on search".into()), "{account:#}");
    let (code, _, error) = site.deploy(&["--file", text(&file), "--dry-run"]);
    assert!(code == 2 && error.contains("no rollout of search:2 would begin on search: no pool runs search:2"), "{error}");
    assert!(!site.registry.path("registry/models/search/versions/2/reports").exists(), "no report is stored");
    let bad = not_a_number(&site.registry);
    let (code, told, _) = site.deploy(&["--file", text(&bad), "--dry-run"]);
    assert!(code == 2 && told.contains("REFUSED"), "{told}");
    assert_eq!(site.router.route()["epoch"], before);
    site.runs("search:2");
    let (code, told, _) = site.deploy(&["--file", text(&file), "--dry-run"]);
    assert!(code == 0 && told.contains("nothing is pushed: search:2 is there already"), "{told}");
    assert_eq!(site.router.run(&["rollout", "start", "search", "--candidate", "search:2"]).0, 0);
    let (code, told, error) = site.deploy(&["--version", "2", "--dry-run"]);
    assert!(code == 0 && told.contains("its rollout is under way already: search:2 canary step 1 of 2 (10 %)"), "{told}{error}");
    site.registry.done(&["push", text(&site.model("ranker_shuffled.onnx")), "--model", "search"]);
    for (if_busy, code, says) in [("refuse", 2, ""), ("supersede", 0, "would be aborted, and"), ("queue", 0, "would be waited for; then")] {
        let (is, told, error) = site.deploy(&["--version", "3", "--dry-run", "--if-busy", if_busy]);
        assert!(is == code && told.contains(says), "{if_busy}: {is}: {told}{error}");
    }
    assert_eq!(site.rollouts(), 1);
}

/// What would refuse the rollout refuses the dry run, with the same words and the same exit code.
#[test]
fn a_dry_run_says_what_is_in_the_way() {
    let mut site = Site::start(LONG);
    let file = site.model("ranker_v2.onnx");
    let in_the_way = |site: &Site, arguments: &[&str], says: &str| {
        let (code, account) = site.deployed(&[arguments, &["--dry-run"]].concat());
        let error = account["error"].as_str().unwrap_or_default();
        assert!(code == 2 && error.contains(" would begin on search: ") && error.contains(says), "{arguments:?}: {code}: {account:#}");
        assert_eq!(account["outcome"], "refused", "{account:#}");
    };
    site.router.set_flags(&["freeze=true"]);
    in_the_way(&site, &["--file", text(&file)], "freeze is set");
    assert_eq!(site.versions(), [1], "nothing is pushed");
    site.registry.done(&["push", text(&file), "--model", "search"]);
    site.runs("search:2");
    in_the_way(&site, &["--version", "2"], "freeze is set");
    site.router.set_flags(&["freeze=false", "canary_percent=7"]);
    in_the_way(&site, &["--version", "2"], "a share already, by hand");
    site.router.set_flags(&["canary_percent=0"]);
    let (code, told, error) = site.deploy(&["--version", "2", "--dry-run"]);
    assert!(code == 0 && told.contains("a rollout of search:2 would begin on search"), "{told}{error}");
    site.pools[2].stop();
    eventually("the canary is known to be dead", SOON, || (site.router.route()["pools"]["canary"]["healthy"] == 0).then_some(()));
    in_the_way(&site, &["--version", "2"], "pool canary has no healthy endpoint");
    assert_eq!(site.rollouts(), 0);
    for (query, status) in [("candidate=search:2&sha256=0F", 400), ("sha256=00", 400), ("unvalidated=true", 200)] {
        let (is, answer) = site.router.admin("GET", &format!("/api/v1/routes/search/rollout/check?{query}"), b"");
        assert_eq!(is, status, "{query}: {answer}");
    }
}

/// Whoever may not begin a rollout pushes nothing for it.
#[test]
fn a_token_that_may_read_alone_pushes_nothing() {
    let site = Site::start(LONG);
    let file = site.model("ranker_v2.onnx");
    let without = |arguments: &[&str]| {
        let mut command = site.command(&[&["--file", text(&file)], arguments].concat());
        said(&command.env_remove("SWITCHBACK_TOKEN_FILE").current_dir(site.registry.path(".")).output().unwrap())
    };
    let (code, told, error) = without(&["--dry-run"]);
    let warning = "warning: a deployment needs a token with the role operator, and there is none: ";
    assert!(code == 0 && format!("{told}{error}").contains(warning), "{code}: {told}{error}");
    let (code, told, error) = without(&["--wait"]);
    assert!(code == 2 && error.contains("a deployment needs a token with the role operator, and there is none: "), "{code}: {told}{error}");
    assert!(error.contains("name one with --token-file") && error.contains("nothing was done"), "{error}");
    assert_eq!((site.versions(), site.rollouts()), (vec![1], 0));
}

/// It is no reason not to deploy another one.
#[test]
fn a_version_that_nobody_can_read_is_told_on_the_way() {
    let site = Site::start(LONG);
    let (other, file) = (site.model("ranker_shuffled.onnx"), site.model("ranker_v2.onnx"));
    site.registry.done(&["push", text(&other), "--model", "search"]);
    std::fs::write(site.registry.path("registry/models/search/versions/2/manifest.json"), "{").unwrap();
    let warning = "warning: models/search/versions/2/manifest.json is not readable: ";
    let to_do = "; nobody can deploy or go back to that version: push its file anew";
    let (code, told, error) = site.deploy(&["--file", text(&file), "--dry-run"]);
    assert_eq!(code, 0, "{told}{error}");
    let warnings = |error: &str| error.lines().filter(|line| line.starts_with(warning) && line.ends_with(to_do)).count();
    assert_eq!(warnings(&error), 1, "{error}");
    site.runs("search:3");
    let (code, told, error) = site.deploy(&["--file", text(&file)]);
    assert!(code == 0 && told.starts_with("search:3 is under way on search: "), "{told}{error}");
    assert_eq!(warnings(&error), 1, "{error}");
    let mut watched = site.watch(&["--file", text(&file)]);
    assert!(watched.tells("warning") && watched.said().contains(warning), "{}", watched.said());
}

/// Each of them finds no version, and pushes; and then sees that the other one was first.
#[test]
fn those_who_deploy_one_file_at_once_mean_one_version() {
    let site = Site::start(LONG);
    site.runs("search:2");
    // Of two on one machine, each may seem slow.
    let config = site.registry.path("switchback.toml");
    let patient = "[route.validation]\nlatency_ratio = 1000.0\n";
    std::fs::write(&config, format!("{}{patient}", std::fs::read_to_string(&config).unwrap())).unwrap();
    let file = site.model("ranker_v2.onnx");
    let both = [site.watch(&["--file", text(&file)]), site.watch(&["--file", text(&file)])];
    for watched in both {
        let (code, account) = watched.ended();
        assert_eq!((code, &account["version"], &account["outcome"]), (0, &2.into(), &"running".into()), "{account:#}");
    }
    assert_eq!((site.rollouts(), site.alias("candidate")), (1, 2.into()));
    // Whoever comes later means that one too; of several that are the same, what is live comes first.
    site.registry.done(&["push", text(&file), "--model", "search"]);
    let (code, account) = site.deployed(&["--file", text(&file)]);
    assert_eq!((code, &account["version"], site.rollouts()), (0, &2.into(), 1), "{account:#}");
    let live = site.model("ranker_v1.onnx");
    let same = site.registry.done(&["push", text(&live), "--model", "search"])["version"].as_u64().unwrap();
    assert_eq!(site.router.run(&["rollout", "abort", "search"]).0, 0);
    let (code, told, error) = site.deploy(&["--file", text(&live), "--dry-run"]);
    assert!(code == 0 && told.contains("nothing is pushed: search:1 is there already"), "{told}{error}");
    site.router.set_flags(&[&format!("version.blue=search:{same}")]);
    let version = format!("search:{same}");
    eventually("it is said to be live", SOON, || (site.router.route()["pools"]["blue"]["version"] == version.as_str()).then_some(()));
    let (code, account) = site.deployed(&["--file", text(&live)]);
    assert_eq!((code, &account["version"], &account["outcome"]), (0, &same.into(), &"live".into()), "{account:#}");
}

#[test]
fn another_model_than_the_routes_is_told_before_anything_is_done() {
    let site = Site::start(PLAN);
    let file = site.model("ranker_v2.onnx");
    let deploy = |more: &[&str]| {
        let arguments = [&["deploy", "--route", "search", "--model", "shop", "--file", text(&file)], more].concat();
        said(&site.at(site.registry.command(&arguments)).output().unwrap())
    };
    for more in [&[][..], &["--dry-run"]] {
        let (code, told, error) = deploy(more);
        let says = "shop is not the model of the route search: search:1 is live, and no pool runs a version of shop; nothing was done";
        assert!(code == 2 && error.contains(says), "{code}: {told}{error}");
    }
    assert!(!site.registry.path("registry/models/shop").exists());
    let (code, _, error) = site.deploy(&["--version", "1", "--why", "one\ntwo"]);
    assert!(code == 64 && error.contains("--why: a line break after 3 characters"), "{code}: {error}");
}

#[test]
fn where_keys_are_trusted_somebody_has_to_sign() {
    let site = Site::start(PLAN);
    site.runs("search:3");
    let (private, public) = site.registry.keys("ci");
    site.registry.trust(&public);
    let file = site.model("ranker_v2.onnx");
    let file = text(&file);
    let (code, _, error) = site.deploy(&["--file", file, "--dry-run"]);
    assert!(code == 2 && error.contains("nobody would sign it"), "{error}");
    let (code, account) = site.deployed(&["--file", file]);
    let why = account["error"].as_str().unwrap();
    assert!(code == 2 && why.contains("ranker_v2.onnx is not pushed: it would not be trusted: nobody would sign it"), "{account:#}");
    assert_eq!(site.versions(), [1], "nothing was pushed");
    // One that somebody pushed without a signature.
    site.registry.done(&["push", file, "--model", "search"]);
    let (code, account) = site.deployed(&["--file", file]);
    assert!(code == 2 && account["error"].as_str().unwrap().contains("search:2 is not trusted: nobody signed it"), "{account:#}");
    assert_eq!((site.rollouts(), &account["report"]), (0, &Value::Null), "nobody looks at what nobody vouches for");
    // Signed, the same file is another version.
    let (code, account) = site.deployed(&["--file", file, "--sign-key", text(&private)]);
    assert_eq!((code, &account["version"], &account["outcome"]), (0, &3.into(), &"running".into()), "{account:#}");
    let (code, account) = site.deployed(&["--file", file]);
    assert_eq!((code, &account["version"]), (0, &3.into()), "the one that is trusted: {account:#}");
    std::fs::write(&public, "no key").unwrap();
    let (code, account) = site.deployed(&["--version", "3"]);
    assert!(code == 64 && account["error"].as_str().unwrap().contains("ci.pub: it must be a public key of Ed25519"), "{account:#}");
    assert_eq!(account["phases"], json!([]));
}
