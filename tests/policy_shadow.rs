//! The promise: a shadow run says how often a candidate policy would send real queries elsewhere, with examples, and changes no
//! answer, whatever the candidate does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::{Backend, Load, Router, Setup, eventually, guests, http};

const SOON: Duration = Duration::from_secs(30);
const PATH: &str = "/api/v1/routes/search/shadow";
const RULES: &str = r#"
[[route.split_config.rules]]
name = "beta"
when = [{ field = "header:x-beta", equals = "1" }, { field = "header:x-user-id", prefix = "user" }]
pool = "green"
"#;

struct Scene {
    router: Router,
    blue: Backend,
    green: Backend,
}

impl Scene {
    fn start() -> Scene {
        let (blue, green) = (Backend::start("blue"), Backend::start("green"));
        let setup = Setup::default().pool("blue", &[&blue]).pool("green", &[&green]).workers(2);
        let router = setup.top("[policies]\nstrikes = 3\n").route(RULES).start();
        Scene { router, blue, green }
    }

    fn begin(&self, order: &Value) -> (u16, Value) {
        self.router.admin("POST", PATH, order.to_string().as_bytes())
    }

    fn report(&self) -> Value {
        self.router.admin("GET", PATH, b"").1["shadow"].clone()
    }
}

#[test]
fn disagreements_are_counted_with_examples_and_no_answer_changes() {
    let scene = Scene::start();
    assert_eq!(scene.report(), Value::Null);
    let beta = Load { headers: vec![("x-beta", "1")], ..Load::new(scene.router.traffic, 300) }.start();
    let plain = Load::new(scene.router.traffic, 300).start();
    let (status, answer) = scene.begin(&json!({ "policy": "split-rules", "sample_percent": 100, "seconds": 3600 }));
    assert_eq!((status, &answer["shadow"]["state"]), (201, &json!("running")), "{answer}");
    assert_eq!(scene.begin(&json!({ "policy": "split-rules" })).0, 409, "one at a time");
    let report = eventually("two thousand decisions", SOON, || {
        let report = scene.report();
        (report["decisions"].as_u64()? > 2_000).then_some(report)
    });
    let rate = report["disagreement_rate"].as_f64().unwrap();
    assert!((0.4..0.6).contains(&rate), "half of the queries have the header: {report:#}");
    assert_eq!(report["live"]["name"], "split-weighted");
    assert_eq!(report["failures"], 0, "{report:#}");
    let pairs = report["by_pool"].as_array().unwrap();
    assert_eq!(pairs.len(), 2, "{report:#}");
    assert!(pairs.iter().any(|pair| pair["live"] == "blue" && pair["candidate"] == "green"), "{report:#}");
    let examples = report["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 20, "no more are kept");
    for example in examples {
        assert_eq!((&example["live"]["pool"], &example["candidate"]["pool"]), (&json!("blue"), &json!("green")));
        assert_eq!(example["candidate"]["reason"], "rule");
        let fields = json!([{ "field": "header:x-beta", "value": "1" }, { "field": "header:x-user-id", "value": "(unit)" }]);
        assert_eq!(example["fields"], fields, "what it saw, without the unit");
    }
    let (_, seen, _) = http::send(scene.router.admin, "GET", PATH, &[], b"").unwrap();
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["shadow"]["examples"][0]["fields"][0], json!({ "field": "header:x-beta", "value": "(hidden)" }), "for a viewer");
    assert!(scene.router.metric("switchback_shadow_decisions_total", &["agrees=\"false\""]) > 500.0);
    let (status, stopped) = scene.router.admin("DELETE", PATH, b"");
    assert_eq!((status, &stopped["shadow"]["state"]), (200, &json!("stopped")));
    let last = scene.report()["decisions"].clone();
    plain.wait_for(plain.sent() + 300);
    let after = scene.report()["decisions"].as_u64().unwrap();
    assert!(after <= last.as_u64().unwrap() + 4, "at most what the workers were busy with: {last} {after}");
    for load in [beta, plain] {
        let report = load.stop();
        assert_eq!((report.failures(), report.by_pool.len()), (0, 1), "everything was answered by blue: {report:?}");
    }
    assert!(scene.green.arrivals() == 0 && scene.blue.arrivals() > 2_000);
}

#[test]
fn a_sample_is_as_large_as_was_asked_for_and_a_run_ends_in_time() {
    let scene = Scene::start();
    let load = Load::new(scene.router.traffic, 500).start();
    let before = load.sent();
    assert_eq!(scene.begin(&json!({ "policy": "split-rules", "sample_percent": 10, "seconds": 4 })).0, 201);
    eventually("the run ends", SOON, || (scene.report()["state"] == "finished").then_some(()));
    let sent = load.sent() - before;
    let report = scene.report();
    let asked = report["decisions"].as_u64().unwrap() + report["skipped"].as_u64().unwrap();
    assert!((sent / 20..=sent / 8).contains(&asked), "a tenth of {sent}: {report:#}");
    assert_eq!(report["disagreement_rate"], 0.0, "nobody has the header");
    assert_eq!(load.stop().failures(), 0);
}

#[test]
fn a_candidate_that_goes_bad_ends_its_run_and_nothing_else() {
    let scene = Scene::start();
    let load = Load::new(scene.router.traffic, 500).start();
    for (name, reason) in [("hostile-trap", "trapped"), ("hostile-spin", "deadline"), ("hostile-memory-bomb", "memory")] {
        let bytes = guests::sleeper(name);
        guests::install(&scene.router.policies_dir(), "candidate", &bytes);
        eventually("admitted", SOON, || {
            let (_, answer) = scene.router.admin("GET", "/api/v1/policies", b"");
            let plugin = answer["plugins"].as_array()?.iter().find(|plugin| plugin["name"] == "candidate")?.clone();
            (plugin["digest"] == guests::digest(&bytes).as_str()).then_some(())
        });
        let (status, answer) = scene.begin(&json!({ "policy": "candidate", "sample_percent": 100, "seconds": 600 }));
        assert_eq!(status, 201, "{answer}");
        eventually("it decides", SOON, || (scene.report()["decisions"].as_u64()? > 50).then_some(()));
        scene.router.set_flags(&["flag.misbehave=on"]);
        let report = eventually("the run ends", SOON, || Some(scene.report()).filter(|report| report["state"] == "failed"));
        assert!(report["why"].as_str().unwrap().contains(reason), "{report:#}");
        scene.router.set_flags(&["--unset", "flag.misbehave"]);
        let policy = scene.router.route()["policies"][0].clone();
        assert_eq!((&policy["state"], &policy["in_force"]["strikes"]), (&json!("in_force"), &json!(0)), "{policy:#}");
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn the_command_line_runs_one_and_shows_it() {
    let scene = Scene::start();
    let load = Load { headers: vec![("x-beta", "1")], ..Load::new(scene.router.traffic, 300) }.start();
    let shadow = ["policy", "shadow", "search"];
    assert!(scene.router.run(&shadow).1.contains("no shadow run since the router started"));
    let (code, _, why) = scene.router.run(&[&shadow[..], &["nothing"]].concat());
    assert_eq!((code, why.contains("no plugin \"nothing\"")), (2, true), "{why}");
    let (code, _, why) = scene.router.run(&[&shadow[..], &["split-weighted"]].concat());
    assert_eq!((code, why.contains("is in force on this route")), (2, true), "{why}");
    let (code, said, why) = scene.router.run(&[&shadow[..], &["split-rules", "--percent", "50", "--for", "2s", "--watch"]].concat());
    assert_eq!(code, 0, "{said}{why}");
    assert!(said.contains(" finished\n") && said.contains("(100.000 %)") && said.contains("header:x-beta=\"1\""), "{said}");
    let (_, json, _) = scene.router.run(&[&shadow[..], &["--json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["candidate"]["name"], "split-rules");
    assert_eq!(load.stop().failures(), 0);
}
