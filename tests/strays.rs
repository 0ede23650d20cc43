//! The promise: a model server that comes back with another version than its pool runs is noticed and named, and gets the version again that was
//! loaded there; no query fails for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::model_pools::{ModelPools, QUICK};
use switchback_tests::ranker::demo;
use switchback_tests::{Router, eventually};

const SOON: Duration = Duration::from_secs(60);
const BLUE: &str = "search: pool blue";
const OFTEN: &str = "check_every = \"200ms\"\n";

fn strays(router: &Router, pool: &str) -> f64 {
    router.metric("switchback_pool_stray_servers", &[&format!("pool=\"{pool}\"")])
}

/// What `doctor` finds under this name, and its exit code.
fn examined(router: &Router, name: &str) -> (i32, Vec<Value>) {
    let (code, said, error) = router.run(&["doctor", "--json", "--config", router.config().to_str().unwrap()]);
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}"));
    (code, said["findings"].as_array().unwrap().iter().filter(|finding| finding["name"] == name).cloned().collect())
}

/// Nobody loaded `search:1` there by a rollout: it is the config's, so that this is told, and left to whoever brought it.
#[test]
fn a_server_that_comes_back_with_another_version_is_named() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}{OFTEN}", pools.filled()));
    assert_eq!((strays(&router, "blue"), examined(&router, BLUE).1.len()), (0.0, 0));
    // Somebody put another version into its repository, and it remembers nothing.
    let folder = pools.folder("blue");
    fs::create_dir_all(folder.join("search/2")).unwrap();
    fs::copy(demo("models/ranker_v2.onnx"), folder.join("search/2/model.onnx")).unwrap();
    pools.rankers[0][0].restart(&["--name", "search", "--repository", folder.to_str().unwrap()]);
    let server = format!("http://{}", pools.rankers[0][0].address);
    assert_eq!(pools.served(&pools.rankers[0][0]), [2]);

    eventually("it is noticed", SOON, || (strays(&router, "blue") == 1.0).then_some(()));
    assert_eq!((strays(&router, "green"), strays(&router, "canary")), (0.0, 0.0));
    let mut found = router.route()["pools"]["blue"]["strays"].clone();
    let age = found[0].as_object_mut().unwrap().remove("seen_seconds_ago").unwrap();
    assert!(age.as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{age}");
    assert_eq!(found, json!([{ "server": server, "serves": ["search:2"], "restore": null }]));
    let line = format!("{server} serves search:2 and not search:1");
    let (_, said, _) = router.run(&["status"]);
    assert!(said.contains(&format!("  blue {line}")), "{said}");
    let (code, findings) = examined(&router, BLUE);
    assert_eq!((code, findings.len(), &findings[0]["status"]), (2, 1, &json!("failed")));
    assert!(findings[0]["found"].as_str().unwrap().starts_with(&line), "{findings:?}");
    let to_do = findings[0]["to_do"].as_str().unwrap();
    assert!(to_do.contains("switchback flag set search version.blue=search:1") && to_do.contains("--state"), "{to_do}");
    let told = |log: String| log.lines().filter(|line| line.contains("serve another version than their pool runs")).count();
    assert_eq!(told(router.log()), 1, "once, however often it is seen");

    let (code, _, error) = router.run(&["status", "--admin", &server]);
    assert!(code == 64 && error.contains(&format!("this is no Switchback admin listener: {server}: it answers 404")), "{code}: {error}");

    // As it says: the router is asked to see to that version, and does.
    let (code, said, error) = router.run(&["flag", "set", "search", "version.blue=search:1"]);
    assert_eq!(code, 0, "{said}{error}");
    eventually("it has its version again", SOON, || (pools.served(&pools.rankers[0][0]) == [1]).then_some(()));
    eventually("that is noticed", SOON, || (strays(&router, "blue") == 0.0).then_some(()));
    assert!(examined(&router, BLUE).1.is_empty());
}

/// As after a rollout: what Switchback had loaded it loads again, on the live pool and while users are there.
#[test]
fn a_server_that_lost_what_was_loaded_gets_it_again() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let routers = ["one", "other"].map(|id| pools.router(id, QUICK, &format!("{}{OFTEN}", pools.filled())));
    let [router, other] = &routers;
    let load = pools.load(router, 50).start();
    for order in [&["start", "search", "--candidate", "search:2"][..], &["promote", "search", "--full"]] {
        let (code, said, error) = router.run(&[&["rollout"], order].concat());
        assert_eq!(code, 0, "{order:?}: {said}{error}");
    }
    eventually("it is done", SOON, || (router.route()["rollout"]["phase"] == "done").then_some(()));
    assert_eq!(router.route()["live"], "green");
    load.stop();
    // The file still says search:1 of green, and nobody has to look at that.
    let found = examined(router, "config in force").1;
    assert_eq!((found.len(), &found[0]["status"]), (1, &json!("ok")), "{found:?}");
    // It takes its versions from the registry now, and is told to begin with an old one.
    let registry = format!("file://{}", pools.registry.path("registry").display());
    pools.rankers[1][0].restart(&["--name", "search", "--registry", &registry, "--serve", "1"]);
    let load = pools.load(router, 50).start();
    eventually("it has its version again", SOON, || (pools.served(&pools.rankers[1][0]) == [2]).then_some(()));
    assert_eq!(pools.served(&pools.rankers[1][1]), [2], "the one beside it is left alone");
    let restored = |router: &Router| router.log().contains("servers that lost their version have loaded it again");
    eventually("somebody says so", SOON, || (restored(router) || restored(other)).then_some(()));
    for router in &routers {
        eventually("that is noticed", SOON, || (strays(router, "green") == 0.0).then_some(()));
        let phase = router.route()["rollout"]["phase"].clone();
        assert_eq!((phase, router.route()["live"].clone()), (json!("done"), json!("green")), "nothing else is moved");
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// Nobody looks for strays here, and the flags still say what the canary had.
#[test]
fn a_rollout_asks_servers_that_had_the_version_once() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}check_every = \"0s\"\n", pools.filled()));
    let order = |order: &[&str]| {
        let (code, said, error) = router.run(&[&["rollout"], order].concat());
        assert_eq!(code, 0, "{order:?}: {said}{error}");
    };
    let is_in = |phase: &str| eventually(phase, SOON, || (router.route()["rollout"]["phase"] == phase).then_some(()));
    order(&["start", "search", "--candidate", "search:2"]);
    is_in("canary");
    order(&["abort", "search"]);
    let registry = format!("file://{}", pools.registry.path("registry").display());
    pools.rankers[2][0].restart(&["--name", "search", "--registry", &registry, "--serve", "1"]);
    assert_eq!((router.route()["pools"]["canary"]["version"].clone(), pools.served(&pools.rankers[2][0])), (json!("search:2"), vec![1]));

    order(&["start", "search", "--candidate", "search:2"]);
    is_in("canary");
    assert_eq!(pools.served(&pools.rankers[2][0]), [2], "before anybody is sent there");
}
