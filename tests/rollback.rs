//! The promise: a candidate that does harm is switched back for the whole fleet, by itself or by an operator, with Redis and without; and nothing else is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::{Backend, Behaviour, Load, Router, Running, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"3s\"";
const RAMP: &str = "initial = { live = \"blue\", canary_percent = \"30\" }";
/// A share that the breaker must not see, so that the evidence has to.
const WITHOUT_BREAKER: &str = "breaker = { enabled = false }";

fn routers(fleet: &Fleet, route: &str) -> [Router; 2] {
    fleet.routers(&fleet.redis.url(), QUICK, route)
}

fn history(router: &Router) -> Vec<Value> {
    let (status, body) = router.admin("GET", "/api/v1/routes/search/history?limit=20", b"");
    assert_eq!(status, 200, "{body}");
    body["entries"].as_array().unwrap().clone()
}

fn rollbacks(router: &Router) -> Vec<Value> {
    history(router).into_iter().filter(|entry| entry["kind"] == "rollback").collect()
}

fn is_without_candidate(router: &Router) -> Option<()> {
    (router.route()["canary_percent"] == 0.0).then_some(())
}

/// When what was under way has arrived, too.
fn arrivals_later(load: &Running, backend: &Backend) -> u64 {
    let sent = load.sent();
    load.wait_for(sent + 50);
    backend.arrivals()
}

#[test]
fn when_half_of_the_routers_hold_it_back_the_flags_follow_once() {
    let scene = Fleet::start();
    let routers = routers(&scene, RAMP);
    scene.pools[2].behave(Behaviour::Status(500));
    // One of them alone has traffic: that is half.
    let load = Load::new(routers[0].traffic, 200).start();
    routers.iter().for_each(|router| eventually("it is rolled back", SOON, || is_without_candidate(router)));
    assert_eq!(load.stop().failures(), 0);
    let entries = rollbacks(&routers[1]);
    assert_eq!(entries.len(), 1, "{entries:#?}");
    let (who, why) = (entries[0]["who"].as_str().unwrap(), entries[0]["why"].as_str().unwrap());
    assert!(who.starts_with("router:") && why.starts_with("the breakers of 1 of 2 routers tripped: errors"), "{who}: {why}");
    // The candidate is gone, and so the breaker closes.
    eventually("the breaker is closed", SOON, || (routers[0].route()["breaker"]["state"] == "idle").then_some(()));
    let written: f64 =
        routers.iter().map(|router| router.metric("switchback_rollbacks_total", &["route=\"search\"", "cause=\"breakers\""])).sum();
    assert_eq!(written, 1.0);
    eventually("how long it took is measured", SOON, || {
        let count: f64 = routers.iter().map(|router| router.metric("switchback_rollback_seconds_count", &["route=\"search\""])).sum();
        (count == 1.0).then_some(())
    });
}

#[test]
fn the_evidence_of_the_fleet_rolls_back_and_what_comes_again_is_looked_at_anew() {
    let scene = Fleet::start();
    let routers = routers(&scene, &format!("{RAMP}\n{WITHOUT_BREAKER}"));
    let loads: Vec<_> = routers.iter().map(|router| Load::new(router.traffic, 150).start()).collect();
    scene.pools[2].behave(Behaviour::EveryOther(500));
    routers.iter().for_each(|router| eventually("it is rolled back", SOON, || is_without_candidate(router)));
    let entries = rollbacks(&routers[0]);
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert!(entries[0]["why"].as_str().unwrap().starts_with("roll back: errors"), "{entries:#?}");
    // Mended, and given its share again soon: what was known of it before is not held against it.
    scene.pools[2].behave(Behaviour::Answer);
    let sent = loads[0].sent();
    loads[0].wait_for(sent + 150 * 2);
    routers[0].set_flags(&["canary_percent=30"]);
    let sent = loads[0].sent();
    loads[0].wait_for(sent + 150 * 8);
    assert_eq!(
        routers.each_ref().map(|router| router.route()["canary_percent"].as_f64().unwrap()),
        [30.0, 30.0],
        "{:#?}",
        history(&routers[0])
    );
    loads.into_iter().for_each(|load| drop(load.stop()));
}

#[test]
fn a_new_live_colour_that_does_harm_gives_way_to_the_old_one() {
    let scene = Fleet::start();
    let baking = "initial = { live = \"green\", holdback_pool = \"blue\", holdback_percent = \"20\" }";
    let routers = routers(&scene, &format!("{baking}\n{WITHOUT_BREAKER}"));
    let loads: Vec<_> = routers.iter().map(|router| Load::new(router.traffic, 150).start()).collect();
    scene.pools[1].behave(Behaviour::EveryOther(500));
    for router in &routers {
        eventually("blue is live again", SOON, || (router.route()["live"] == "blue").then_some(()));
        assert_eq!((&router.route()["holdback_percent"], &router.route()["canary_percent"]), (&0.0.into(), &0.0.into()));
    }
    loads.into_iter().for_each(|load| drop(load.stop()));
}

#[test]
fn observe_only_flips_nothing() {
    let scene = Fleet::start();
    let [router, _other] = routers(&scene, &format!("{RAMP}\nobserve_only = true"));
    scene.pools[2].behave(Behaviour::EveryOther(500));
    let load = Load::new(router.traffic, 200).start();
    eventually("the verdict is there", SOON, || (router.route()["evidence"]["evidence"]["verdict"] == "roll_back").then_some(()));
    let sent = load.sent();
    load.wait_for(sent + 600);
    assert_eq!((&router.route()["canary_percent"], rollbacks(&router)), (&30.0.into(), vec![]));
    drop(load.stop());
}

#[test]
fn an_operator_rolls_back_and_is_told_when_there_is_nothing_to_do_or_nobody_to_do_it() {
    let mut scene = Fleet::start();
    let routers = routers(&scene, RAMP);
    let at_once = "v2 gives its traffic to v1 on blue (1 of 1 endpoints healthy): at once, by one write";
    let (code, said, error) = routers[0].run(&["rollback", "search", "--dry-run"]);
    assert_eq!((code, said.as_str()), (0, format!("would be done: {at_once}\n").as_str()), "{error}");
    let (code, said, error) = routers[0].run(&["rollback", "search", "--dry-run", "--json"]);
    let asked: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &asked["would"], &asked["loads"]), (0, &at_once.into(), &false.into()), "{said}{error}");
    assert_eq!(routers[0].route()["canary_percent"], 30.0);
    let (code, said, error) = routers[0].run(&["rollback", "search", "--why", "it ranks worse"]);
    assert!(code == 0 && said.starts_with("rolled back: v2 gives its traffic to v1 on blue, epoch "), "{said}{error}");
    routers.iter().for_each(|router| eventually("all obey", SOON, || is_without_candidate(router)));
    let entry = &rollbacks(&routers[1])[0];
    assert_eq!(entry["why"], "it ranks worse");
    let (code, _, error) = routers[0].run(&["rollback", "search"]);
    assert!(code == 2 && error.contains("nothing to roll back"), "{code}: {error}");
    for (more, code, says) in [
        (
            &["--to", "v9"][..],
            64,
            "--to v9: must be MODEL:NUMBER like search:9, MODEL@ALIAS like search@champion, or a version that a pool",
        ),
        (&["--to", "v9", "--dry-run"], 64, "--to v9: must be MODEL:NUMBER"),
        (&["--to", "other:9"], 2, "other:9"),
    ] {
        let (is, said, error) = routers[0].run(&[&["rollback", "search"], more].concat());
        assert!(is == code && error.contains(says), "{more:?}: {is} {said}{error}");
    }
    // Nobody is left to take the traffic.
    routers[0].set_flags(&["canary_percent=30"]);
    scene.pools[0].stop();
    eventually("blue is known to be dead", SOON, || (routers[0].route()["pools"]["blue"]["healthy"] == 0).then_some(()));
    for more in [&[][..], &["--dry-run"], &["--dry-run", "--json"]] {
        let (code, said, error) = routers[0].run(&[&["rollback", "search"], more].concat());
        assert!(code == 2 && error.contains("the pool blue has no healthy endpoint"), "{more:?}: {code} {error}");
        assert_eq!(said.contains("\"error\""), more.contains(&"--json"), "{said}");
    }
}

/// A part of the pool that gets the traffic is dead: the other part takes it, and whoever reads of the rollback reads of that.
#[test]
fn the_healthy_part_of_the_target_takes_the_traffic_and_that_is_said() {
    let scene = Fleet::start();
    let [blue, _, canary] = &scene.pools;
    let mut second = Backend::start("blue");
    let setup = Setup::default().pool("blue", &[blue, &second]).pool_keys("version = \"v1\"");
    let setup = setup.pool("canary", &[canary]).pool_keys("version = \"v2\"").workers(2).of_a_fleet();
    let router = setup.route(RAMP).redis(&scene.redis.url()).start();
    let load = Load::new(router.traffic, 200).start();
    load.wait_for(100);
    second.stop();
    eventually("one of two is known to be dead", SOON, || (router.route()["pools"]["blue"]["healthy"] == 1).then_some(()));
    canary.behave(Behaviour::Status(500));
    eventually("it is rolled back", SOON, || is_without_candidate(&router));
    let entries = rollbacks(&router);
    let why = entries[0]["why"].as_str().unwrap();
    assert!(
        why.starts_with("the breakers of 1 of 1 routers tripped: ") && why.ends_with("; blue takes the traffic with 1 of 2 endpoints"),
        "{why}"
    );
    let (candidates, controls) = (arrivals_later(&load, canary), blue.arrivals());
    let sent = load.sent();
    load.wait_for(sent + 200);
    assert_eq!((load.stop().failures(), canary.arrivals()), (0, candidates), "nobody failed, and nobody is sent to the candidate");
    assert!(blue.arrivals() >= controls + 200, "the healthy part has it all");
    router.set_flags(&["canary_percent=30"]);
    let (code, said, error) = router.run(&["rollback", "search"]);
    assert!(
        code == 0 && said.starts_with("rolled back: v2 gives its traffic to v1 on blue (1 of 2 endpoints healthy), epoch "),
        "{said}{error}"
    );
}

#[test]
fn with_redis_dead_each_router_is_told_and_the_flags_follow_when_it_is_back() {
    let mut scene = Fleet::start();
    let routers = routers(&scene, RAMP);
    let dump = scene.runtime.block_on(scene.redis.dump()).unwrap();
    scene.redis.kill().unwrap();
    let load = Load::new(routers[1].traffic, 100).start();
    load.wait_for(100);
    let (code, said, error) = routers[0].run(&["rollback", "search", "--why", "it ranks worse"]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(
        said.contains("  one: v2 gives its traffic to v1 on blue\n") && said.contains("  other: v2 gives its traffic to v1 on blue\n"),
        "{said}"
    );
    let before = arrivals_later(&load, &scene.pools[2]);
    let sent = load.sent();
    load.wait_for(sent + 200);
    // Long after nobody is known any more: those who were heard of last are asked.
    eventually("nobody is known", SOON, || {
        routers[0].route()["routers"].as_array().unwrap().iter().all(|router| router["is_known"] == false).then_some(())
    });
    let (code, said, error) = routers[0].run(&["breaker", "status", "search"]);
    assert!(
        code == 0 && said.starts_with("one: tripped: v2 gets nobody") && said.contains("\nother: tripped: v2 gets nobody"),
        "{said}{error}"
    );
    assert_eq!((load.stop().failures(), scene.pools[2].arrivals()), (0, before), "nobody is sent to the candidate");
    scene.runtime.block_on(scene.redis.restart_with(&dump)).unwrap();
    routers.iter().for_each(|router| eventually("the flags follow", SOON, || is_without_candidate(router)));
    let entries = rollbacks(&routers[0]);
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert!(entries[0]["why"].as_str().unwrap().ends_with("rolled back by local-operator: it ranks worse"), "{entries:#?}");
}

/// Starts a rollout on the first router, and orders it on to where all routers see it in this phase.
fn brought_to(phase: &str, routers: &[Router; 2]) {
    for (arguments, reached) in
        [(&["start", "search"][..], "canary"), (&["promote", "search", "--full"], "baking"), (&["promote", "search"], "done")]
    {
        let (code, said, error) = routers[0].run(&[&["rollout"], arguments].concat());
        assert_eq!(code, 0, "{said}{error}");
        is_in(reached, routers);
        if reached == phase {
            return;
        }
    }
}

fn is_in(phase: &str, routers: &[Router; 2]) {
    for router in routers {
        eventually(phase, SOON, || (router.route()["rollout"]["phase"] == phase).then_some(()));
    }
}

/// Nobody is compared any more: the new version has everybody, and its rollout is done, or bakes with nobody held back.
#[test]
fn with_redis_dead_a_live_version_is_taken_back_too() {
    for (phase, holdback) in [("done", "10"), ("baking", "0")] {
        let mut scene = Fleet::start();
        let route = format!("rollout = {{ steps = [\"50\"], holdback_percent = {holdback:?}, bake = \"10m\" }}\nobserve_only = true");
        let routers = routers(&scene, &route);
        brought_to(phase, &routers);
        let dump = scene.runtime.block_on(scene.redis.dump()).unwrap();
        scene.redis.kill().unwrap();
        let load = Load::new(routers[1].traffic, 100).start();
        load.wait_for(100);
        let (code, said, error) = routers[0].run(&["rollback", "search", "--why", "it ranks worse"]);
        let held = ["one", "other"].map(|router| format!("  {router}: v2 gives its traffic to v1 on blue\n"));
        assert!(code == 0 && held.iter().all(|line| said.contains(line)), "{code}: {said}{error}");
        let before = arrivals_later(&load, &scene.pools[1]);
        let sent = load.sent();
        load.wait_for(sent + 200);
        assert_eq!((load.stop().failures(), scene.pools[1].arrivals()), (0, before), "nobody is sent to the new version");
        scene.runtime.block_on(scene.redis.restart_with(&dump)).unwrap();
        is_in("rolled_back", &routers);
        let why = rollbacks(&routers[0]).iter().map(|entry| entry["why"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(why.len() == 1 && why[0].ends_with("rolled back by local-operator: it ranks worse"), "{why:?}");
        for router in &routers {
            eventually("nothing is held back any more", SOON, || (router.route()["breaker"]["state"] == "idle").then_some(()));
            assert_eq!(router.route()["live"], "blue");
        }
        let (code, _, error) = routers[0].run(&["rollback", "search"]);
        assert!(code == 2 && error.contains("nothing to roll back"), "{code}: {error}");
    }
}

/// What an operator ordered while no store could be told is not forgotten by a restart, and what was cleared does not come back.
#[test]
fn what_is_held_back_by_order_outlives_a_restart() {
    let mut scene = Fleet::start();
    let folder = tempfile::tempdir().unwrap();
    let route = "rollout = { steps = [\"50\"], holdback_percent = \"10\", bake = \"10m\" }";
    let setup = || scene.setup(route).top(QUICK).redis(&scene.redis.url()).state("router_id = \"one\"").data_dir(folder.path());
    let start = setup();
    let routers = [start.start(), scene.setup(route).top(QUICK).redis(&scene.redis.url()).state("router_id = \"other\"").start()];
    for router in &routers {
        eventually("both are known", SOON, || (router.route()["routers"].as_array().unwrap().len() == 2).then_some(()));
    }
    brought_to("done", &routers);
    let again = setup();
    scene.redis.kill().unwrap();
    let [mut one, other] = routers;
    let state = |router: &Router| router.route()["breaker"]["state"].clone();
    let (code, said, error) = one.run(&["rollback", "search"]);
    assert_eq!(code, 0, "{said}{error}");
    let file = folder.path().join("breaker/search.json");
    eventually("it is written", SOON, || file.exists().then_some(()));
    one.kill();
    let one = again.start();
    eventually("it is held back still", SOON, || (state(&one) == "tripped").then_some(()));
    let before = scene.pools[1].arrivals();
    let load = Load::new(one.traffic, 100).start();
    load.wait_for(100);
    assert_eq!((load.stop().failures(), scene.pools[1].arrivals()), (0, before), "nobody is sent to the new version");
    drop(other);
    // It has heard of nobody since, itself neither.
    let (code, said, error) = one.run(&["breaker", "clear", "search"]);
    assert!(code == 0 && said.contains(": v2 gets its share again\n"), "{said}{error}");
    eventually("it is cleared", SOON, || (state(&one) == "idle" && !file.exists()).then_some(()));
    let (code, said, error) = one.run(&["rollback", "search"]);
    assert!(code == 0 && said.contains(&format!("  {}: v2 gives its traffic to v1 on blue\n", one.admin)), "{said}{error}");
    assert_eq!(state(&one), "tripped");
}
