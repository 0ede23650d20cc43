//! The promise: a share of the queries is copied to the candidate, which nobody who asks ever notices, whatever the candidate does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use switchback_tests::scenes::Stage;
use switchback_tests::{Act, Backend, Behaviour, Load, Router, Scripted, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);

fn query(method: &str, user: &str, body: &str) -> String {
    format!(
        "{method} /rank?q=shoes HTTP/1.1\r\nhost: search.test\r\nx-user-id: {user}\r\nx-switchback-mirror: forged\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn mirrored(router: &Router, result: &str) -> f64 {
    router.metric("switchback_mirrored_total", &["pool=\"canary\"", &format!("result=\"{result}\"")])
}

fn eventually_mirrored(router: &Router, result: &str, count: f64) {
    eventually(result, SOON, || (mirrored(router, result) >= count).then_some(()));
    assert_eq!(mirrored(router, result), count, "{result}");
}

fn all_mirrored(percent: &str) -> String {
    format!("initial = {{ live = \"blue\", mirror_percent = \"{percent}\" }}")
}

fn assert_blue(router: &Router, request: &str) {
    let response = http::raw(router.traffic, request).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("blue"), "{response}");
}

#[test]
fn a_copy_is_the_same_query_and_says_that_it_is_one() {
    let (blue, canary) = (Backend::start("blue"), Scripted::start(|_| Act::Answer));
    let router = Setup::default().pool("blue", &[&blue]).pool_at("canary", canary.address).route(&all_mirrored("100")).start();
    for body in ["", "{\"query\":\"red shoes\"}", &"x".repeat(60_000)] {
        assert_blue(&router, &query("POST", "ann", body));
        eventually("the copy", SOON, || canary.seen().last().filter(|copy| copy.ends_with(body)).cloned());
    }
    let copy = canary.seen()[1].clone();
    for part in ["POST /rank?q=shoes HTTP/1.1\r\n", "host: search.test\r\n", "x-user-id: ann\r\n", "x-switchback-mirror: 1\r\n", "via: "] {
        assert!(copy.contains(part), "{part} in {copy}");
    }
    assert!(!copy.contains("forged"), "{copy}");
    eventually_mirrored(&router, "answered", 3.0);
    assert_eq!(blue.arrivals(), 3, "one answer for each query");
    assert_eq!(router.metric("switchback_requests_total", &["pool=\"canary\""]), 0.0, "copies count for no role");
    assert_eq!(router.route()["pools"]["canary"]["roles"][0], "mirror");
}

#[test]
fn a_websocket_is_not_copied() {
    let (blue, canary) = (Stage::start(), Stage::start());
    let router = Setup::default().pool_at("blue", blue.address).pool_at("canary", canary.address).route(&all_mirrored("100")).start();
    let upgrade = "GET /chat HTTP/1.1\r\nhost: search.test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n\r\n";
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    eventually_mirrored(&router, "unfit", 1.0);
    assert_eq!(canary.heads(), 0);
}

#[test]
fn a_live_query_is_not_marked() {
    let (blue, canary) = (Scripted::start(|_| Act::Answer), Backend::start("canary"));
    let router = Setup::default().pool_at("blue", blue.address).pool("canary", &[&canary]).route(&all_mirrored("100")).start();
    http::raw(router.traffic, &query("GET", "ann", "")).unwrap();
    assert!(!blue.seen()[0].contains("x-switchback-mirror"), "{}", blue.seen()[0]);
}

#[test]
fn a_share_of_the_units_is_mirrored_and_each_unit_always_or_never() {
    const USERS: usize = 600;
    let (blue, canary) = (Backend::start("blue"), Scripted::start(|_| Act::Answer));
    let router = Setup::default().pool("blue", &[&blue]).pool_at("canary", canary.address).route(&all_mirrored("25")).start();
    for _ in 0..2 {
        (0..USERS).for_each(|user| assert_blue(&router, &query("GET", &format!("user{user}"), "")));
    }
    let ended = || ["answered", "server_error", "failed", "dropped", "unfit"].map(|result| mirrored(&router, result)).iter().sum::<f64>();
    eventually("all copies have ended", SOON, || (canary.seen().len() as f64 == ended()).then_some(()));
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for copy in canary.seen() {
        let user = copy.lines().find(|line| line.starts_with("x-user-id")).unwrap();
        *copies.entry(user.to_owned()).or_default() += 1;
    }
    assert!(copies.values().all(|count| *count == 2), "{copies:?}");
    // 600 * 0.25 = 150, standard deviation 10.6; four of them.
    assert!((108..=192).contains(&copies.len()), "{} units", copies.len());
}

#[test]
fn whatever_the_candidate_does_no_query_waits_or_fails() {
    let (blue, mut canary) = (Backend::start("blue"), Backend::start("canary"));
    let route = format!("{}\ntimeouts = {{ attempt = \"1s\", total = \"1s\" }}", all_mirrored("100"));
    let keys = "max_mirrors_in_flight = 5";
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).pool_keys(keys).route(&route).workers(2).start();
    let load = Load::new(router.traffic, 300).start();
    let grows = |result: &str| {
        let before = mirrored(&router, result);
        eventually(result, SOON, || (mirrored(&router, result) > before + 3.0).then_some(()));
    };
    grows("answered");
    canary.behave(Behaviour::Status(500));
    grows("server_error");
    canary.behave(Behaviour::BreakBody);
    grows("failed");
    canary.behave(Behaviour::Hang);
    grows("dropped");
    grows("failed");
    canary.stop();
    grows("failed");
    canary.behave(Behaviour::Answer);
    canary.restart();
    grows("answered");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.slowest < Duration::from_millis(700), "a candidate that hangs holds nobody up: {:?}", report.slowest);
    assert_eq!(report.by_pool.get("canary"), None);
    eventually("nothing is left in flight", SOON, || (router.route()["pools"]["canary"]["in_flight"] == 0).then_some(()));
    assert_eq!(router.metric("switchback_requests_total", &["pool=\"canary\""]), 0.0);
    assert_eq!(router.metric("switchback_unanswered_total", &[]), 0.0);
}

#[test]
fn what_may_not_be_sent_twice_or_is_too_large_is_not_copied() {
    let (blue, canary) = (Backend::start("blue"), Scripted::start(|_| Act::Answer));
    let router = Setup::default().pool("blue", &[&blue]).pool_at("canary", canary.address).route(&all_mirrored("100")).start();
    assert_blue(&router, &query("PUT", "ann", "x"));
    assert_blue(&router, &query("POST", "ann", &"x".repeat(70_000)));
    eventually_mirrored(&router, "unfit", 2.0);
    assert!(canary.seen().is_empty());
}

#[test]
fn the_flag_is_obeyed_at_once_and_a_pin_stops_copies() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).start();
    let ask = |times: usize| (0..times).for_each(|_| assert_blue(&router, &query("GET", "ann", "")));
    ask(5);
    router.set_flags(&["mirror_percent=100"]);
    ask(5);
    eventually_mirrored(&router, "answered", 5.0);
    router.set_flags(&["pin=blue"]);
    ask(5);
    router.set_flags(&["pin=none", "mirror_percent=0"]);
    ask(5);
    router.set_flags(&["mirror_percent=100"]);
    ask(1);
    eventually_mirrored(&router, "answered", 6.0);
    // Who is on the candidate anyway is not copied to it.
    router.set_flags(&["canary_percent=100"]);
    assert!(http::raw(router.traffic, &query("GET", "ann", "")).unwrap().ends_with("canary"));
    assert_eq!((mirrored(&router, "answered"), canary.arrivals()), (6.0, 7));
}
