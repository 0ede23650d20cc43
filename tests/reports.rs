//! The promise: what a validation found counts wherever a version is loaded. Nobody goes back to what was only ever refused; where a route has candidates
//! tried on judged queries, a look without them is none; and it does not undo what a stricter one found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::model_pools::{ModelPools, QUICK};
use switchback_tests::ranker::{demo, queries};
use switchback_tests::registry::said;
use switchback_tests::{Router, eventually};

const SOON: Duration = Duration::from_secs(60);

/// The demo's judged queries.
fn judged(pools: &ModelPools) -> String {
    let text: String = queries(300).iter().map(|query| format!("{query}\n")).collect();
    pools.registry.file("judged.jsonl", text.as_bytes()).to_str().unwrap().to_owned()
}

fn push(pools: &ModelPools, model: &str) {
    pools.registry.done(&["push", demo(&format!("models/{model}")).to_str().unwrap(), "--model", "search"]);
}

fn refused(router: &Router, arguments: &[&str], says: &[&str]) {
    let (code, told, error) = router.run(arguments);
    assert!(code == 2 && says.iter().all(|says| error.contains(says)), "{arguments:?}: {code}: {told}{error}");
}

#[test]
fn nobody_goes_back_to_what_was_only_ever_refused() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let judged = judged(&pools);
    push(&pools, "ranker_inverted.onnx");
    let (code, told, error) = pools.registry.model(&["validate", "search:3", "--live", "search:1", "--judged", &judged]);
    assert!(code == 2 && told.contains("stored as report 1 of search:3"), "{code}: {told}{error}");
    let router = pools.router("one", QUICK, &pools.filled());
    for more in [&["--dry-run"][..], &[]] {
        let says = ["search:3 never passed a validation (report 1 refused it: ndcg@10, mrr", "or go back to another version"];
        refused(&router, &[&["rollback", "search", "--to", "search:3"], more].concat(), &says);
    }
    let body = br#"{"candidate": "search:3", "at_once": true}"#;
    let (status, answer) = router.admin("POST", "/api/v1/routes/search/rollout", body);
    assert!(status == 409 && answer["error"].as_str().unwrap().starts_with("not loaded: search:3 never passed"), "{status}: {answer}");
    assert_eq!((router.route()["rollout"].clone(), router.route()["live"].clone()), (Value::Null, "blue".into()), "nothing began");
    // What nobody ever looked at is named by an operator, and what passed once was good enough.
    push(&pools, "ranker_v2.onnx");
    pools.registry.done(&["validate", "search:3"]);
    for version in ["search:4", "search:3"] {
        let (code, told, error) = router.run(&["rollback", "search", "--to", version, "--dry-run"]);
        assert!(code == 0 && told.starts_with("would be done: "), "{version}: {code}: {told}{error}");
    }
}

/// What a pool has already is shown to nobody for that; and where the idle colour would load it, a way back is looked at before anything is ended for it.
#[test]
fn what_was_refused_is_no_candidate_where_a_pool_has_it_already() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let judged = judged(&pools);
    push(&pools, "ranker_inverted.onnx");
    assert_eq!(pools.registry.model(&["validate", "search:3", "--live", "search:1", "--judged", &judged]).0, 2);
    let router = pools.router("one", QUICK, &format!("{}check_every = \"0s\"\n", pools.filled()));
    router.set_flags(&["version.canary=search:3"]);
    eventually("the canary is said to have it", SOON, || (router.route()["pools"]["canary"]["version"] == "search:3").then_some(()));
    let says = "search:3 was refused when it was validated: ndcg@10, mrr";
    refused(&router, &["rollout", "start", "search", "--candidate", "search:3"], &["not loaded: ", says]);
    let (status, answer) = router.admin("GET", "/api/v1/routes/search/rollout/check?candidate=search:3", b"");
    assert!(status == 409 && answer["error"].as_str().unwrap().contains(says), "{status}: {answer}");
    refused(
        &router,
        &["rollback", "search", "--to", "search:3"],
        &["search:3 never passed a validation (report 1 refused it: ndcg@10, mrr"],
    );
    assert_eq!(router.route()["rollout"], Value::Null, "nothing began");
}

#[test]
fn where_a_route_has_judged_queries_a_look_without_them_is_none() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let judged = judged(&pools);
    let router = pools.router("one", QUICK, &format!("{}[route.validation]\njudged = {judged:?}\n", pools.filled()));
    let deploy = |arguments: &[&str]| {
        let arguments = [&["deploy", "--route", "search", "--model", "search"], arguments].concat();
        said(&pools.command(&router, &arguments).output().unwrap())
    };
    // The config of the command is not the router's: it is told before anything is pushed.
    let file = demo("models/ranker_inverted.onnx");
    let file = file.to_str().unwrap();
    for arguments in [&["--file", file][..], &["--file", file, "--dry-run"], &["--version", "2"], &["--version", "2", "--dry-run"]] {
        let (code, told, error) = deploy(arguments);
        let says = ["the route search has candidates tried on judged queries", "--config FILE", "--judged FILE", "nothing was done"];
        assert!(code == 2 && says.iter().all(|says| error.contains(says)), "{arguments:?}: {code}: {told}{error}");
    }
    assert_eq!(pools.registry.done(&["list", "search"])["versions"].as_array().unwrap().len(), 2, "nothing was pushed");
    // Nor does the router take such a look for one.
    let candidate = |version: &'static str| ["rollout", "start", "search", "--candidate", version];
    let says = "report 1 on search:2 passed without a look at ndcg@10, which the route search asks for (route.validation.judged)";
    refused(&router, &candidate("search:2"), &["not loaded: ", says, "--judged FILE"]);
    let (status, answer) = router.admin("GET", "/api/v1/routes/search/rollout/check?candidate=search:2", b"");
    assert!(status == 409 && answer["error"].as_str().unwrap().contains(says), "{status}: {answer}");
    // What was refused on judged queries is not let on by a look without them.
    let (code, told, error) = deploy(&["--file", file, "--judged", &judged]);
    assert!(code == 2 && error.contains("search:3 is refused by its validation: ") && error.contains("ndcg@10"), "{code}: {told}{error}");
    pools.registry.done(&["validate", "search:3"]);
    let says = ["search:3 was refused when it was validated: ndcg@10, mrr", "(report 1); report 2, which passed, did not look at that"];
    refused(&router, &candidate("search:3"), &says);
    assert_eq!(router.route()["rollout"], Value::Null, "nothing began");
    let (code, told, error) = deploy(&["--version", "2", "--judged", &judged]);
    assert!(code == 0 && told.starts_with("search:2 is under way on search: "), "{code}: {told}{error}");
    eventually("it is loaded", SOON, || (router.route()["rollout"]["phase"] == "canary").then_some(()));
}
