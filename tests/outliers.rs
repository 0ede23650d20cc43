//! The promise: an endpoint whose attempts fail loses its traffic, whatever its health checks say, and gets it back when it answers again;
//! and a pool is never left without endpoints by that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
/// Ejections that a test can wait for, and no ramp after them.
const QUICK: &str = "slow_start = \"0us\"\noutlier = { base_ejection_time = \"300ms\", max_ejection_time = \"2s\", interval = \"500ms\" }";

/// The state of blue's endpoint at this place, as the API says it.
fn state(router: &Router, index: usize) -> String {
    router.route()["pools"]["blue"]["endpoints"][index]["state"].as_str().unwrap().to_owned()
}

fn eventually_in_state(router: &Router, index: usize, wanted: &str) {
    eventually(wanted, SOON, || (state(router, index) == wanted).then_some(()));
}

fn ejections(router: &Router, reason: &str) -> f64 {
    router.metric("switchback_endpoint_ejections_total", &["pool=\"blue\"", &format!("reason=\"{reason}\"")])
}

fn out(router: &Router) -> usize {
    let route = router.route();
    let endpoints = route["pools"]["blue"]["endpoints"].as_array().unwrap();
    endpoints.iter().filter(|endpoint| matches!(endpoint["state"].as_str(), Some("ejected" | "half_open"))).count()
}

#[test]
fn an_endpoint_that_fails_is_ejected_probed_and_comes_back() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(QUICK).workers(2).start();
    let load = Load::new(router.traffic, 400).start();
    load.wait_for(100);
    other.behave(Behaviour::Status(500));
    eventually_in_state(&router, 1, "ejected");
    assert_eq!(ejections(&router, "consecutive_failures"), 1.0);
    assert_eq!(router.metric("switchback_endpoint_healthy", &[&other.address.to_string()]), 0.0);
    // Probes find that it still fails: it is ejected again, for longer each time.
    eventually("three failed probes", SOON, || (ejections(&router, "probe") >= 3.0).then_some(()));
    let (sent, arrived) = (load.sent(), other.arrivals());
    load.wait_for(sent + 200);
    assert!(other.arrivals() - arrived <= 6, "only probes: {}", other.arrivals() - arrived);
    let shown = router.run(&["status"]).1;
    let words = format!("blue {} is", other.address);
    assert!(shown.contains(&words), "{shown}");
    other.behave(Behaviour::Answer);
    eventually_in_state(&router, 1, "healthy");
    let before = other.arrivals();
    eventually("it has its share again", SOON, || (other.arrivals() - before > 20).then_some(()));
    let report = load.stop();
    // Five in a row, those in flight meanwhile, and the probes that failed.
    assert!(report.failures() <= 40, "{report:?}");
    for line in ["endpoint ejected", "the endpoint gets probes", "endpoint back in"] {
        assert!(router.log().contains(line), "{line} is not in the log");
    }
}

#[test]
fn an_endpoint_that_hangs_is_ejected_although_its_health_checks_pass() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let timeouts = "timeouts = { attempt = \"200ms\", total = \"1s\" }";
    // It is tried seldom, since it is slow: two in a row are as much as five of one that fails at once. The other one is slow too, or it
    // would hardly be tried at all.
    let keys = "outlier = { consecutive_failures = 2 }";
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(keys).route(timeouts).start();
    one.behave(Behaviour::Delay(Duration::from_millis(50)));
    other.behave(Behaviour::Hang);
    let load = Load::new(router.traffic, 200).start();
    eventually_in_state(&router, 1, "ejected");
    drop(load.stop());
}

#[test]
fn an_endpoint_that_fails_half_of_its_attempts_is_ejected_by_percentage() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(QUICK).start();
    other.behave(Behaviour::EveryOther(503));
    let load = Load::new(router.traffic, 400).start();
    eventually("ejected by percentage", SOON, || (ejections(&router, "failure_percentage") >= 1.0).then_some(()));
    drop(load.stop());
}

#[test]
fn in_a_panic_an_ejected_endpoint_is_probed_and_ends_it() {
    let (one, mut dead, other) = (Backend::start("one"), Backend::start("dead"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &dead, &other]).pool_keys(QUICK).workers(2).start();
    let is_panicking = || router.metric("switchback_pool_panic", &["pool=\"blue\""]) == 1.0;
    let load = Load::new(router.traffic, 400).start();
    load.wait_for(100);
    dead.stop();
    eventually_in_state(&router, 1, "unhealthy");
    other.behave(Behaviour::Status(500));
    eventually("panic", SOON, || is_panicking().then_some(()));
    // It fails its probes, and is ejected again, while its share of the queries goes on.
    eventually("three failed probes", SOON, || (ejections(&router, "probe") >= 3.0).then_some(()));
    assert!(is_panicking());
    let arrived = other.arrivals();
    load.wait_for(load.sent() + 200);
    assert!(other.arrivals() > arrived + 6, "more than probes: {}", other.arrivals() - arrived);
    other.behave(Behaviour::Answer);
    eventually_in_state(&router, 2, "healthy");
    eventually("the panic is over", SOON, || (!is_panicking()).then_some(()));
    assert_eq!(state(&router, 1), "unhealthy", "and the dead one has nothing to do with it");
    assert_eq!(router.metric("switchback_pool_panics_total", &["pool=\"blue\""]), 1.0);
    drop(load.stop());
}

/// A router with an endpoint that was ejected because it answers with 500, and another that does not.
fn beside_an_ejected_one(route: &str) -> (Router, [Backend; 2]) {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(QUICK).workers(2).route(route).start();
    let load = Load::new(router.traffic, 400).start();
    load.wait_for(100);
    other.behave(Behaviour::Status(500));
    eventually_in_state(&router, 1, "ejected");
    drop(load.stop());
    (router, [one, other])
}

#[test]
fn a_probe_that_is_answered_with_an_error_is_tried_elsewhere() {
    let (router, [_one, _other]) = beside_an_ejected_one("");
    let (probes, retries) = (ejections(&router, "probe"), router.metric("switchback_retries_total", &[]));
    let load = Load::new(router.traffic, 200).start();
    eventually("three failed probes", SOON, || (ejections(&router, "probe") >= probes + 3.0).then_some(()));
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(router.metric("switchback_retries_total", &[]) >= retries + 3.0);
}

#[test]
fn a_probe_that_may_not_be_sent_twice_has_its_own_answer() {
    let (router, [one, other]) = beside_an_ejected_one("replayable_methods = [\"GET\"]");
    let arrived = other.arrivals();
    let post = "POST /rank HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx";
    let (sent, before) = (std::cell::Cell::new(0), one.arrivals());
    let response = eventually("a probe", SOON, || {
        sent.set(sent.get() + 1);
        let response = http::raw(router.traffic, post).unwrap();
        (other.arrivals() > arrived).then_some(response)
    });
    assert!(response.starts_with("HTTP/1.1 500"), "{response}");
    assert_eq!(one.arrivals() - before, sent.get() - 1, "the other endpoint never saw it");
}

#[test]
fn at_most_half_of_a_pool_is_out() {
    let backends: Vec<Backend> = ["a", "b", "c", "d"].map(Backend::start).into();
    let all: Vec<&Backend> = backends.iter().collect();
    let router = Setup::default().pool("blue", &all).pool_keys(QUICK).workers(2).start();
    backends[1..].iter().for_each(|backend| backend.behave(Behaviour::Status(500)));
    let load = Load::new(router.traffic, 400).start();
    eventually("half of them are out", SOON, || (out(&router) == 2).then_some(()));
    for _ in 0..100 {
        assert!(out(&router) <= 2);
    }
    assert!(router.metric("switchback_pool_panic", &["pool=\"blue\""]) == 0.0, "half of a pool is no panic");
    drop(load.stop());
}

#[test]
fn when_all_fail_nobody_is_ejected() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(QUICK).workers(2).start();
    one.behave(Behaviour::Status(500));
    other.behave(Behaviour::Status(500));
    let load = Load::new(router.traffic, 400).start();
    load.wait_for(800);
    eventually("both have their share", SOON, || (one.arrivals().min(other.arrivals()) > 80).then_some(()));
    let report = load.stop();
    assert_eq!(report.failures(), report.sent, "the backends' own answers");
    assert_eq!(router.metric("switchback_endpoint_ejections_total", &[]), 0.0);
}

#[test]
fn whoever_failed_before_all_others_is_back_soon() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(QUICK).workers(2).start();
    let load = Load::new(router.traffic, 400).start();
    load.wait_for(100);
    other.behave(Behaviour::Status(500));
    eventually_in_state(&router, 1, "ejected");
    one.behave(Behaviour::Status(500));
    eventually("both are in use", SOON, || (out(&router) == 0).then_some(()));
    let (sent, before) = (load.sent(), ejections(&router, "consecutive_failures"));
    load.wait_for(sent + 400);
    assert_eq!((out(&router), ejections(&router, "consecutive_failures")), (0, before), "and nobody goes in its place");
    drop(load.stop());
    assert!(router.log().contains("no other endpoint does better"), "{}", router.log());
}

#[test]
fn ejection_can_be_turned_off() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys("outlier = { max_ejection_percent = 0 }").start();
    other.behave(Behaviour::Status(500));
    let load = Load::new(router.traffic, 400).start();
    eventually("far more than five failures in a row", SOON, || (other.arrivals() > 40).then_some(()));
    drop(load.stop());
    assert_eq!(router.metric("switchback_endpoint_ejections_total", &[]), 0.0);
}
