//! The promise: a rollout goes on, and a way back is taken, on servers that serve what the flags say; one that was restarted without its state is
//! found before that, and a step in which it had another model begins anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::json;
use switchback_tests::model_pools::{ModelPools, QUICK};
use switchback_tests::{Router, Running, eventually};

const SOON: Duration = Duration::from_secs(90);
/// Nobody else looks in the time of a test.
const SELDOM: &str = "check_every = \"1h\"\n";
const OFTEN: &str = "check_every = \"200ms\"\n";
const STEP: &str = "search:2 canary step 1 of 2 (10 %)";

fn done(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

fn reaches(router: &Router, phase: &str) {
    eventually(phase, SOON, || (router.route()["rollout"]["phase"] == phase).then_some(()));
}

fn live(router: &Router, pool: &str) {
    eventually("it is live", SOON, || (router.route()["live"] == pool).then_some(()));
}

/// It remembers nothing, takes its versions from the registry, and begins with this one.
fn restart(pools: &mut ModelPools, (pool, server): (usize, usize), version: &str) {
    let registry = format!("file://{}", pools.registry.path("registry").display());
    pools.rankers[pool][server].restart(&["--name", "search", "--registry", &registry, "--serve", version]);
}

/// A rollout that is in its first step, of which nothing was judged yet; the canary's server has gone back to search:1 since.
fn with_a_stray(loading: &str) -> (ModelPools, Router) {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}{loading}", pools.filled()));
    done(&router, &["rollout", "start", "search", "--candidate", "search:2"]);
    reaches(&router, "canary");
    restart(&mut pools, (2, 0), "1");
    assert_eq!(pools.served(&pools.rankers[2][0]), [1]);
    assert_eq!(router.metric("switchback_pool_stray_servers", &["pool=\"canary\""]), 0.0, "nobody looked yet");
    (pools, router)
}

fn steps(router: &Router) -> usize {
    router.transitions().iter().filter(|step| *step == STEP).count()
}

#[test]
fn a_step_does_not_go_on_with_a_server_that_lost_the_candidate() {
    let (pools, router) = with_a_stray(SELDOM);
    let load = pools.load(&router, 100).start();
    reaches(&router, "done");
    assert_eq!(pools.served(&pools.rankers[2][0]), [2], "it was loaded there again");
    assert_eq!(steps(&router), 3, "it began, green was loaded, and it began anew: {:?}", router.transitions());
    let log = router.log();
    assert!(log.contains("servers of pool canary had lost search:2 and have it again: this step begins anew"), "{log}");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// Here Switchback leaves servers alone, and an operator does not wait for somebody to mend them.
#[test]
fn a_rollout_says_which_servers_it_waits_for() {
    let (pools, router) = with_a_stray(&format!("{SELDOM}restore = false\n"));
    let server = format!("http://{}", pools.rankers[2][0].address);
    let load = pools.load(&router, 100).start();
    let what = format!("servers of pool canary serve another version: {server} (search:1)");
    eventually("it waits", SOON, || (router.route()["rollout"]["waits_for"] == what).then_some(()));
    eventually("it is told", SOON, || (router.metric("switchback_pool_stray_servers", &["pool=\"canary\""]) == 1.0).then_some(()));
    assert_eq!((router.route()["rollout"]["phase"].clone(), router.route()["rollout"]["step"].clone()), (json!("canary"), json!(0)));
    // Whoever promotes waits for the servers of the pool that comes next alone.
    done(&router, &["rollout", "promote", "search"]);
    eventually("it goes on", SOON, || (router.route()["rollout"]["step"] == 1).then_some(()));
    assert!(router.transitions().contains(&"search:2 canary step 2 of 2 (50 %)".to_owned()), "{:?}", router.transitions());
    reaches(&router, "done");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// search:2 is live on green, under load; blue's server serves it, too, and not search:1 any more.
fn with_a_lost_way_back(loading: &str) -> (ModelPools, Router, Running) {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}{loading}", pools.filled()));
    done(&router, &["rollout", "start", "search", "--candidate", "search:2"]);
    done(&router, &["rollout", "promote", "search", "--full"]);
    let load = pools.load(&router, 50).start();
    reaches(&router, "done");
    live(&router, "green");
    restart(&mut pools, (0, 0), "2");
    (pools, router, load)
}

#[test]
fn a_way_back_whose_server_lost_its_version_is_loaded_first() {
    let (pools, router, load) = with_a_lost_way_back(SELDOM);
    assert_eq!(pools.served(&pools.rankers[0][0]), [2]);
    eventually("its server is healthy again", SOON, || (router.route()["pools"]["blue"]["healthy"] == 1).then_some(()));
    assert_eq!(done(&router, &["rollback", "search", "--to", "search:1"]), "rolled back: search:1 is live on search\n");
    assert_eq!((pools.served(&pools.rankers[0][0]), router.route()["live"].clone()), (vec![1], json!("blue")));
    let transitions = router.transitions();
    let began = transitions.iter().position(|step| step.starts_with("search:1 loading"));
    assert!(began.is_some(), "{transitions:?}");
    let server = format!("http://{}", pools.rankers[0][0].address);
    let said = format!("servers of pool blue serve another version: {server} (search:2): it is loaded there first");
    let why = router.route()["rollout"]["why"].clone();
    assert!(why.as_str().unwrap().contains(&said), "{why}");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// Which nobody loaded by a rollout, so that nobody restores it.
#[test]
fn nothing_begins_against_a_live_pool_that_serves_another_version() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}{OFTEN}", pools.filled()));
    restart(&mut pools, (0, 0), "2");
    eventually("it is noticed", SOON, || (router.metric("switchback_pool_stray_servers", &["pool=\"blue\""]) == 1.0).then_some(()));
    let server = format!("http://{}", pools.rankers[0][0].address);
    let says =
        format!("no server of the live pool blue serves search:1 ({server} (search:2)): a candidate would be compared with another model");
    let (code, _, error) = router.run(&["rollout", "start", "search", "--candidate", "search:2"]);
    assert!(code == 2 && error.contains(&says), "{code}: {error}");
    let (status, answer) = router.admin("GET", "/api/v1/routes/search/rollout/check?candidate=search:2", b"");
    assert!(status == 409 && answer["error"].as_str().unwrap().contains(&says), "{status}: {answer}");
    assert_eq!(router.route()["rollout"], json!(null), "nothing began");
    restart(&mut pools, (0, 0), "1");
    eventually("that is noticed", SOON, || (router.metric("switchback_pool_stray_servers", &["pool=\"blue\""]) == 0.0).then_some(()));
    done(&router, &["rollout", "start", "search", "--candidate", "search:2"]);
}

/// The old colour's server is known to serve another version: nobody is sent there.
#[test]
fn a_plain_rollback_to_servers_of_another_version_is_refused() {
    let (pools, router, load) = with_a_lost_way_back(OFTEN);
    eventually("it is noticed", SOON, || (router.metric("switchback_pool_stray_servers", &["pool=\"blue\""]) == 1.0).then_some(()));
    let server = format!("http://{}", pools.rankers[0][0].address);
    let says =
        format!("no server of the pool blue serves search:1 ({server} (search:2)): a rollback would give its traffic to another model");
    eventually("its server is healthy again", SOON, || (router.route()["pools"]["blue"]["healthy"] == 1).then_some(()));
    let (status, answer) = router.admin("POST", "/api/v1/routes/search/rollback", b"{}");
    assert!(status == 409 && answer["error"].as_str().unwrap().contains(&says), "{status}: {answer}");
    for more in [&[][..], &["--dry-run"]] {
        let (code, said, error) = router.run(&[&["rollback", "search"], more].concat());
        assert!(code == 2 && error.contains(&says), "{code}: {said}{error}");
    }
    assert_eq!(router.route()["live"], "green");
    assert_eq!(load.stop().failures(), 0);
}
