//! The promise: which endpoint a query goes to follows from what is known of all of them: none that is full, less to one that just came
//! back, all of them when too few are healthy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";

fn is_panicking(router: &Router) -> bool {
    router.metric("switchback_pool_panic", &["pool=\"blue\""]) == 1.0
}

fn eventually_healthy(router: &Router, count: u64) {
    eventually("so many are healthy", SOON, || (router.route()["pools"]["blue"]["healthy"] == count).then_some(()));
}

#[test]
fn fewer_than_half_healthy_is_a_panic_and_costs_no_query() {
    let (one, mut two, mut three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let router = Setup::default().pool("blue", &[&one, &two, &three]).workers(2).start();
    let load = Load::new(router.traffic, 300).start();
    load.wait_for(100);
    two.stop();
    eventually_healthy(&router, 2);
    assert!(!is_panicking(&router));
    three.stop();
    eventually("panic", SOON, || is_panicking(&router).then_some(()));
    assert_eq!(router.route()["pools"]["blue"]["is_panicking"], true);
    load.wait_for(load.sent() + 300);
    two.restart();
    eventually("the panic is over", SOON, || (!is_panicking(&router)).then_some(()));
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(router.metric("switchback_pool_panics_total", &["pool=\"blue\""]), 1.0);
    assert_eq!(router.metric("switchback_endpoint_ejections_total", &[]), 0.0, "who is dead already is not ejected as well");
    assert!(router.log().contains("panic: too few endpoints are healthy"));
}

#[test]
fn a_dead_one_of_two_is_no_panic_and_gets_nothing() {
    let (one, mut other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).start();
    other.stop();
    eventually_healthy(&router, 1);
    assert!(!is_panicking(&router));
    let retries = router.metric("switchback_retries_total", &[]);
    for _ in 0..100 {
        assert!(http::raw(router.traffic, GET).unwrap().ends_with("one"));
    }
    assert_eq!(router.metric("switchback_retries_total", &[]), retries, "nobody tried the dead one");
}

/// Sends a query and leaves its answer to come.
fn send(router: &Router) -> TcpStream {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    stream
}

#[test]
fn a_full_endpoint_is_passed_over_and_a_full_pool_says_503() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys("max_in_flight_per_endpoint = 2").workers(2).start();
    one.behave(Behaviour::Hang);
    other.behave(Behaviour::Hang);
    let held: Vec<TcpStream> = (0..4).map(|_| send(&router)).collect();
    eventually("each has two", SOON, || (one.arrivals() == 2 && other.arrivals() == 2).then_some(()));
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 503"));
    drop(held);
    eventually("the places are free again", SOON, || (router.route()["pools"]["blue"]["in_flight"] == 0).then_some(()));
    other.behave(Behaviour::Answer);
    let unanswered = || router.metric("switchback_unanswered_total", &[]) as u64;
    let (before, refused) = ([one.arrivals(), other.arrivals()], unanswered());
    let mut held = Vec::new();
    while one.arrivals() < before[0] + 2 {
        held.push(send(&router));
        assert!(held.len() < 1_000);
    }
    // Every one that was sent has come to somebody, or was refused since those before it came at once.
    let arrived = || one.arrivals() + other.arrivals() - before[0] - before[1] + unanswered() - refused;
    eventually("only those two are left", SOON, || {
        (arrived() == held.len() as u64 && router.route()["pools"]["blue"]["in_flight"] == 2).then_some(())
    });
    for _ in 0..50 {
        let response = http::raw(router.traffic, GET).unwrap();
        assert!(response.ends_with("other"), "{response}");
    }
}

#[test]
fn a_pool_has_room_for_so_many_queries_over_all_its_endpoints_and_workers() {
    let (one, other, blue) = (Backend::start("one"), Backend::start("other"), Backend::start("blue"));
    let pools = Setup::default().pool("blue", &[&blue]).pool("green", &[&one, &other]).pool_keys("max_in_flight = 3");
    let router = pools.workers(2).route("initial = { live = \"green\" }").start();
    one.behave(Behaviour::Hang);
    other.behave(Behaviour::Hang);
    let in_flight = || router.route()["pools"]["green"]["in_flight"].as_u64().unwrap();
    let held: Vec<TcpStream> = (0..3).map(|_| send(&router)).collect();
    eventually("three are there", SOON, || (one.arrivals() + other.arrivals() == 3).then_some(()));
    for _ in 0..8 {
        let response = http::raw(router.traffic, GET).unwrap();
        assert!(response.starts_with("HTTP/1.1 503") && response.contains("no room for another query"), "{response}");
    }
    assert_eq!((in_flight(), one.arrivals() + other.arrivals()), (3, 3), "what was refused took no place, and reached nobody");
    assert_eq!(router.metric("switchback_unanswered_total", &[]), 8.0);
    // Of a candidate that is full the queries go to live.
    router.set_flags(&["live=blue", "candidate_pool=green", "canary_percent=100"]);
    assert!(http::raw(router.traffic, GET).unwrap().ends_with("blue"));
    assert_eq!(router.metric("switchback_fallbacks_total", &["pool=\"green\""]), 1.0);
    drop(held);
    eventually("the places are free again", SOON, || (in_flight() == 0).then_some(()));
    one.behave(Behaviour::Answer);
    other.behave(Behaviour::Answer);
    assert!(!http::raw(router.traffic, GET).unwrap().ends_with("blue"));
}

#[test]
fn an_endpoint_that_comes_back_begins_with_a_small_share() {
    let (one, mut other) = (Backend::start("one"), Backend::start("other"));
    // Slow enough that the first guess of a latency is no reason to stay away.
    one.behave(Behaviour::Delay(Duration::from_millis(20)));
    other.behave(Behaviour::Delay(Duration::from_millis(20)));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys("slow_start = \"8s\"").start();
    other.stop();
    eventually_healthy(&router, 1);
    let load = Load::new(router.traffic, 300).start();
    other.restart();
    eventually_healthy(&router, 2);
    assert_eq!(router.route()["pools"]["blue"]["endpoints"][1]["state"], "slow_start");
    let share_of = |queries: u64| {
        let (sent, arrived) = (load.sent(), other.arrivals());
        load.wait_for(sent + queries);
        (other.arrivals() - arrived) as f64 / queries as f64
    };
    let first = share_of(300);
    eventually("the ramp ends", SOON, || (router.route()["pools"]["blue"]["endpoints"][1]["state"] == "healthy").then_some(()));
    let later = share_of(300);
    assert!(first < 0.3 && later > first, "{first} in the first second of eight, {later} after them");
    assert_eq!(load.stop().failures(), 0);
}
