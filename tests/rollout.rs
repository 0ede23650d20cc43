//! The promise: a good candidate goes live by itself, step by step, whoever dies meanwhile; a bad one is taken back; and what people do by hand is theirs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::tls::Authority;
use switchback_tests::{Act, Backend, Behaviour, Load, Router, Running, Scripted, eventually};

const SOON: Duration = Duration::from_secs(60);
/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
/// A policy that lets on after little, so that a rollout takes seconds.
const EAGER: &str = "rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
const PLAN: &str = "rollout = { steps = [\"10\", \"50\"], holdback_percent = \"20\", bake = \"3s\", max_step = \"60s\" }";

fn start(fleet: &Fleet, plan: &str) -> [Router; 2] {
    fleet.routers(&fleet.redis.url(), QUICK, &format!("{plan}\n{EAGER}"))
}

fn rollout(router: &Router) -> Value {
    router.route()["rollout"].clone()
}

fn reaches(router: &Router, phase: &str) {
    eventually(phase, SOON, || (rollout(router)["phase"] == phase).then_some(()));
}

fn waits_for(router: &Router, what: &str) {
    eventually(what, SOON, || rollout(router)["waits_for"].as_str().is_some_and(|waits| waits.contains(what)).then_some(()));
}

/// What is done by the CLI, and works.
fn order(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(&[&["rollout"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

fn refused(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(&[&["rollout"], arguments].concat());
    assert_eq!(code, 2, "{arguments:?}: {said}{error}");
    error
}

fn loads(routers: &[Router; 2]) -> [Running; 2] {
    routers.each_ref().map(|router| Load::new(router.traffic, 150).start())
}

const WHOLE: [&str; 4] = ["v2 canary step 1 of 2 (10 %)", "v2 canary step 2 of 2 (50 %)", "v2 baking", "v2 done"];

#[test]
fn a_good_candidate_goes_live_and_can_be_taken_back() {
    let fleet = Fleet::start();
    let routers = start(&fleet, PLAN);
    let loads = loads(&routers);
    let said = order(&routers[0], &["start", "search", "--why", "tonight's model"]);
    assert!(said.starts_with("search: rollout of v2 over v1: canary step 1 of 2 (10 %)\n"), "{said}");
    assert!(refused(&routers[1], &["start", "search"]).contains("a rollout is under way"));
    let salt = fleet.redis.cli(&["HGET", "{switchback:search}:flags", "salt"]).unwrap();
    reaches(&routers[1], "baking");
    let route = routers[1].route();
    assert_eq!((&route["live"], &route["canary_percent"], &route["holdback_percent"]), (&"green".into(), &0.0.into(), &20.0.into()));
    routers.iter().for_each(|router| reaches(router, "done"));
    for router in &routers {
        let route = router.route();
        assert_eq!((&route["live"], &route["canary_percent"], &route["holdback_percent"]), (&"green".into(), &0.0.into(), &0.0.into()));
    }
    assert_eq!(routers[0].transitions(), WHOLE);
    assert_eq!(fleet.redis.cli(&["HGET", "{switchback:search}:flags", "salt"]).unwrap(), salt, "no unit changed sides");
    let canary = fleet.pools[2].arrivals();
    assert!(canary > 50, "the first step was on the canary's own pool: {canary}");
    let (_, status, _) = routers[0].run(&["rollout", "status", "search", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["phase"], &status["is_active"], &status["candidate"]), (&"done".into(), &false.into(), &"v2".into()));
    // What is done can be taken back, for as long as the old colour runs the old version.
    let (code, said, error) = routers[1].run(&["rollback", "search", "--why", "clicks fell"]);
    assert!(code == 0 && said.starts_with("rolled back: v2 gives its traffic to v1 on blue"), "{said}{error}");
    routers.iter().for_each(|router| reaches(router, "rolled_back"));
    assert_eq!(routers[0].route()["live"], "blue");
    let moves: f64 = routers.iter().map(|router| router.metric("switchback_rollout_transitions_total", &["event=\"switched\""])).sum();
    assert_eq!(moves, 1.0);
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
}

#[test]
fn a_bad_candidate_is_taken_back_at_its_first_step() {
    let fleet = Fleet::start();
    let routers = start(&fleet, PLAN);
    let loads = loads(&routers);
    fleet.pools[2].behave(Behaviour::EveryOther(500));
    order(&routers[0], &["start", "search"]);
    routers.iter().for_each(|router| reaches(router, "rolled_back"));
    assert_eq!(routers[0].route()["canary_percent"], 0.0);
    assert_eq!(routers[0].transitions(), [WHOLE[0], "v2 rolled back"]);
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0), "the live pool answered in its place");
}

/// At each transition the router that moves the rollout is killed, and comes back some time later.
#[test]
fn whoever_moves_it_may_die() {
    let fleet = Fleet::start();
    let route = format!("{PLAN}\n{EAGER}");
    let run = |id: &str| fleet.setup(&route).top(QUICK).redis(&fleet.redis.url()).state(&format!("router_id = {id:?}")).start();
    let mut routers = ["one", "other"].map(run);
    let mut loads = loads(&routers).map(Some);
    order(&routers[0], &["start", "search"]);
    let mut killed = Vec::new();
    while killed.len() < 3 {
        let (state, holder) = eventually("somebody moves it, or it is done", SOON, || {
            let seen = rollout(&routers[0]);
            let (state, holder) = (seen["summary"].as_str()?.to_owned(), seen["controller"].as_str().map(|id| usize::from(id == "other")));
            (holder.is_some() || state == WHOLE[3]).then_some((state, holder))
        });
        // Where a router takes long to start again, a state may be over before anybody looks.
        let Some(dies) = holder.filter(|_| state != WHOLE[3]) else { break };
        let stays = 1 - dies;
        drop(loads[dies].take().map(Running::stop));
        routers[dies].kill();
        killed.push(dies);
        // It goes on without it.
        eventually("the next state", SOON, || (rollout(&routers[stays])["summary"].as_str() != Some(state.as_str())).then_some(()));
        let id = ["one", "other"][dies];
        routers[dies] = run(id);
        loads[dies] = Some(Load::new(routers[dies].traffic, 150).start());
    }
    routers.iter().for_each(|router| reaches(router, "done"));
    assert_eq!(routers[0].transitions(), WHOLE, "each once; killed {killed:?}");
    let terms = rollout(&routers[0])["term"].as_u64().unwrap();
    assert!(killed.len() >= 2 && terms >= killed.len() as u64, "each holder had a term of its own: {terms}; killed {killed:?}");
    loads.into_iter().flatten().for_each(|load| drop(load.stop()));
}

/// A holder that is stopped, and goes on when another has moved it: it neither moves it again nor takes it back.
#[test]
fn a_holder_that_slept_changes_nothing() {
    let fleet = Fleet::start();
    let routers = start(&fleet, PLAN);
    let loads = loads(&routers);
    order(&routers[0], &["start", "search"]);
    let holder = eventually("somebody moves it", SOON, || rollout(&routers[0])["controller"].as_str().map(|id| usize::from(id == "other")));
    let (sleeps, wakes) = (&routers[holder], &routers[1 - holder]);
    let signal =
        |name: &str| assert!(std::process::Command::new("kill").args([name, &sleeps.pid().to_string()]).status().unwrap().success());
    signal("-STOP");
    eventually("the other one moves it", SOON, || (rollout(wakes)["step"] == 1).then_some(()));
    signal("-CONT");
    routers.iter().for_each(|router| reaches(router, "done"));
    assert_eq!(wakes.transitions(), WHOLE);
    loads.into_iter().for_each(|load| drop(load.stop()));
}

#[test]
fn without_queries_it_waits_and_says_so_once() {
    let fleet = Fleet::start();
    let routers = start(&fleet, "rollout = { steps = [\"10\", \"50\"], max_step = \"2s\" }");
    order(&routers[0], &["start", "search"]);
    let stalled = "v2 canary step 1 of 2 (10 %), stalled";
    eventually("it is told", SOON, || (routers[0].transitions().len() > 1).then_some(()));
    // Later the policy has looked at windows without a query, too.
    waits_for(&routers[1], "no data");
    assert_eq!(routers[0].transitions(), [WHOLE[0], stalled]);
    assert_eq!(routers[0].route()["canary_percent"], 10.0);
    assert_eq!(routers[0].metric("switchback_rollout_stalled", &["route=\"search\""]), 1.0);
    // Whoever takes the record out of the flags ends it, and that is told; the share is theirs.
    fleet.redis.cli(&["HDEL", "{switchback:search}:flags", "rollout"]).unwrap();
    routers.iter().for_each(|router| reaches(router, "aborted"));
    assert_eq!(routers[1].route()["canary_percent"], 10.0);
    assert!(order(&routers[1], &["status", "search"]).contains("changed by hand: the field rollout was removed"));
    routers[0].set_flags(&["canary_percent=0"]);
    order(&routers[0], &["start", "search"]);
    waits_for(&routers[1], "no data");
    // The store dies: nothing moves, nothing ends.
    let Fleet { mut redis, .. } = fleet;
    redis.kill().unwrap();
    waits_for(&routers[0], "nothing is judged: ");
    assert_eq!((rollout(&routers[0])["phase"].as_str(), rollout(&routers[0])["step"].as_u64()), (Some("canary"), Some(0)));
}

#[test]
fn operators_have_the_last_word() {
    let fleet = Fleet::start();
    let routers = start(&fleet, "rollout = { steps = [\"10\", \"50\"], approval = [\"10\"], bake = \"2s\" }");
    let [one, other] = &routers;
    let loads = loads(&routers);
    let by_hand = |field: &str, value: &str| drop(fleet.redis.cli(&["HSET", "{switchback:search}:flags", field, value]).unwrap());
    order(one, &["start", "search", "--candidate", "v2"]);
    waits_for(other, "an operator has to approve");
    assert!(order(other, &["status", "search"]).contains("waits for approval"));
    // Frozen, nothing goes on, approved or not.
    other.set_flags(&["freeze=true"]);
    order(other, &["approve", "search"]);
    waits_for(one, "freeze is set");
    assert!(refused(one, &["promote", "search"]).contains("freeze is set"));
    other.set_flags(&["freeze=false"]);
    eventually("the next step", SOON, || (rollout(one)["step"] == 1).then_some(()));
    order(one, &["pause", "search", "--why", "lunch"]);
    waits_for(other, "paused: ");
    order(one, &["resume", "search"]);
    // A share by hand is theirs: it stays, and nothing goes on.
    by_hand("canary_percent", "33");
    waits_for(one, "changed by hand: canary_percent is 33 and not 50");
    assert_eq!(other.route()["canary_percent"], 33.0);
    order(other, &["resume", "search"]);
    eventually("the share of the plan", SOON, || (other.route()["canary_percent"] == 50.0).then_some(()));
    // Another live pool ends it, whatever it was about to do.
    by_hand("live", "green");
    routers.iter().for_each(|router| reaches(router, "aborted"));
    assert_eq!((one.route()["live"].as_str(), one.route()["canary_percent"].as_f64()), (Some("green"), Some(0.0)));
    by_hand("live", "blue");
    eventually("blue is live", SOON, || (one.route()["live"] == "blue").then_some(()));
    order(other, &["start", "search"]);
    order(one, &["promote", "search", "--full"]);
    assert_eq!(one.route()["live"], "green");
    order(other, &["abort", "search", "--why", "wrong model"]);
    routers.iter().for_each(|router| reaches(router, "aborted"));
    assert_eq!((one.route()["live"].as_str(), one.route()["holdback_percent"].as_f64()), (Some("blue"), Some(0.0)));
    assert!(refused(one, &["pause", "search"]).contains("the last rollout is over"));
    let (code, _, error) = one.run(&["flag", "set", "search", "rollout={}"]);
    assert!(code == 2 && error.contains("it is moved with switchback rollout"), "{error}");
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
}

/// One gate before the first share, one before each further step, one that may ask for a rollback. What they say no to waits, and a rollback does not wait for them.
#[test]
fn gates_are_asked_and_never_block_a_rollback() {
    static FIRST: AtomicBool = AtomicBool::new(false);
    static BACK: AtomicBool = AtomicBool::new(false);
    const NO: Act = Act::Say("HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\nconnection: close\r\n\r\nnot before");
    let calendar = Scripted::start(|_| if FIRST.load(Ordering::SeqCst) { Act::Answer } else { NO });
    let silent = Scripted::start(|_| Act::Close);
    let dashboard = Scripted::start(|_| if BACK.load(Ordering::SeqCst) { Act::Answer } else { NO });
    let gate = |name: &str, kind: &str, of: &Scripted| {
        format!("{{ name = {name:?}, type = {kind:?}, url = \"{}/gate\", interval = \"200ms\" }}", of.url())
    };
    let gates =
        [gate("calendar", "confirm-rollout", &calendar), gate("load-test", "rollout", &silent), gate("dashboard", "rollback", &dashboard)];
    let fleet = Fleet::start();
    let routers = start(&fleet, &format!("rollout = {{ steps = [\"10\", \"50\"], gate = [{}] }}", gates.join(", ")));
    let [one, other] = &routers;
    let loads = loads(&routers);
    order(one, &["start", "search"]);
    assert_eq!((rollout(other)["phase"].as_str(), one.route()["canary_percent"].as_f64()), (Some("pending"), Some(0.0)));
    eventually("it waits for the calendar", SOON, || {
        routers.iter().any(|router| rollout(router)["waits_for"] == "gate calendar says no: 403 Forbidden: not before").then_some(())
    });
    FIRST.store(true, Ordering::SeqCst);
    reaches(other, "canary");
    let asked = calendar.seen();
    let asked = asked.last().unwrap();
    assert!(
        asked.contains("webhook-id: ") && asked.contains("\"type\":\"confirm-rollout\"") && asked.contains("\"candidate\":\"v2\""),
        "{asked}"
    );
    // Everything is there but the answer of the load test.
    eventually("it waits for the load test", SOON, || {
        routers
            .iter()
            .any(|router| rollout(router)["waits_for"].as_str().is_some_and(|waits| waits.starts_with("gate load-test says no: ")))
            .then_some(())
    });
    assert_eq!(rollout(one)["step"], 0);
    // The dashboard sees what nobody else does.
    BACK.store(true, Ordering::SeqCst);
    routers.iter().for_each(|router| reaches(router, "rolled_back"));
    let why = rollout(one)["why"].as_str().unwrap().to_owned();
    assert_eq!(why, "the gate dashboard says that the candidate is to go");
    assert_eq!(one.route()["canary_percent"], 0.0);
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
}

/// A gate over TLS is believed when an authority vouches for it that the config names, and not otherwise.
#[test]
fn a_gate_over_tls_is_believed_if_its_authority_is_known() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = ours.server(&ours.issue(&["127.0.0.1"]), false);
    let (calendar, impostor) = (Backend::start_tls("calendar", server.clone()), Backend::start_tls("impostor", server));
    calendar.behave(Behaviour::Status(403));
    let gate = |name: &str, kind: &str, of: &Backend, ca_file: PathBuf| {
        format!("{{ name = {name:?}, type = {kind:?}, url = \"{}/gate\", interval = \"200ms\", ca_file = {ca_file:?} }}", of.url())
    };
    let gates = [
        gate("calendar", "confirm-rollout", &calendar, ours.write(here.path())),
        gate("impostor", "rollout", &impostor, theirs.write(there.path())),
    ];
    let fleet = Fleet::start();
    let routers = start(&fleet, &format!("rollout = {{ steps = [\"10\", \"50\"], gate = [{}] }}", gates.join(", ")));
    let loads = loads(&routers);
    let some_wait_for = |what: &str| {
        eventually(what, SOON, || {
            routers.iter().map(rollout).find(|seen| seen["waits_for"].as_str().is_some_and(|waits| waits.contains(what)))
        })
    };
    order(&routers[0], &["start", "search"]);
    assert_eq!(some_wait_for("gate calendar says no: 403")["phase"], "pending");
    calendar.behave(Behaviour::Answer);
    let waits = some_wait_for("gate impostor says no: ");
    let why = waits["waits_for"].as_str().unwrap();
    assert!(why.contains("certificate") && waits["step"] == 0, "{waits}");
    assert_eq!((calendar.arrivals() > 0, impostor.arrivals()), (true, 0), "nothing is told to whom nobody vouches for");
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
}
