//! The promise: a query is tried again when that is safe, and only then: nothing of it was sent, or no answer came, it may be sent twice, and
//! all of its body is still here. And retries never make a failure larger than it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use switchback_tests::{Act, Backend, Router, Scripted, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(10);
const KIB: usize = 1 << 10;

fn query(method: &str, body: usize) -> String {
    format!(
        "{method} /rank HTTP/1.1\r\nhost: search.test\r\nx-user-id: u1\r\nconnection: close\r\ncontent-length: {body}\r\n\r\n{}",
        "x".repeat(body)
    )
}

fn status(router: &Router, request: &str) -> u16 {
    http::raw(router.traffic, request).unwrap()[9..12].parse().unwrap()
}

fn retries(router: &Router) -> f64 {
    router.metric("switchback_retries_total", &[])
}

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Before a backend that fails the first query and answers every other.
fn before(script: fn(usize) -> Act) -> (Router, Scripted) {
    let backend = Scripted::start(script);
    (Setup::default().pool_at("blue", backend.address).start(), backend)
}

fn closes_first(number: usize) -> Act {
    if number == 0 { Act::Close } else { Act::Answer }
}

#[test]
fn a_query_that_may_be_sent_twice_is_when_no_answer_came() {
    for (method, body) in [("GET", 0), ("POST", 0), ("POST", 40 * KIB), ("POST", 64 * KIB)] {
        let (router, backend) = before(closes_first);
        assert_eq!(status(&router, &query(method, body)), 200, "{method} {body}");
        let seen = backend.seen();
        assert_eq!((seen.len(), retries(&router)), (2, 1.0));
        assert!(seen[0] == seen[1], "the same head and body both times");
        assert!(seen[1].ends_with(&"x".repeat(body)));
    }
}

#[test]
fn a_head_that_breaks_off_is_no_answer() {
    let (router, backend) = before(|number| if number == 0 { Act::Say("HTTP/1.1 200 OK\r\ncontent-le") } else { Act::Answer });
    assert_eq!(status(&router, &query("GET", 0)), 200);
    assert_eq!((backend.seen().len(), retries(&router)), (2, 1.0));
    let (router, backend) = before(|_| Act::Say("HTTP/1.1 200 OK\r\ncontent-le"));
    assert_eq!(status(&router, &query("PUT", 0)), 502);
    assert_eq!((backend.seen().len(), retries(&router)), (1, 0.0));
}

#[test]
fn a_method_that_may_not_be_sent_twice_is_not() {
    for method in ["PUT", "PATCH", "DELETE"] {
        let (router, backend) = before(closes_first);
        assert_eq!(status(&router, &query(method, 10)), 502, "{method}");
        assert_eq!((backend.seen().len(), retries(&router)), (1, 0.0), "{method}");
    }
}

/// A query of a client that keeps its connection, and its answer's status.
fn ask(client: &mut TcpStream, method: &str, meanwhile: impl FnOnce()) -> u16 {
    let query = query(method, 10).replace("connection: close\r\n", "");
    client.write_all(query.as_bytes()).unwrap();
    meanwhile();
    let mut response = Vec::new();
    let mut part = [0; 4 << 10];
    loop {
        let read = client.read(&mut part).unwrap();
        response.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&response);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if read == 0 || length.is_some_and(|length| body.len() >= length) {
            return text[9..12].parse().unwrap();
        }
    }
}

/// The router stands still while the query arrives and the kept connection is closed, in this order: when it takes the query it has heard of both, and
/// asks on another connection at once.
#[test]
fn what_was_not_sent_on_a_kept_connection_that_was_closed_is_sent_again_whatever_the_method() {
    let (router, backend) = before(|_| Act::Answer);
    let mut client = TcpStream::connect(router.traffic).unwrap();
    for (round, method) in (1_usize..).zip(["PUT", "PATCH", "DELETE"]) {
        assert_eq!(ask(&mut client, method, || ()), 200, "{method}");
        router.signal("STOP");
        eventually("the router stands still", SOON, || router.is_stopped().then_some(()));
        let status = ask(&mut client, method, || {
            backend.hang_up();
            router.signal("CONT");
        });
        assert_eq!((status, retries(&router)), (200, 0.0), "{method}");
        assert_eq!(backend.seen().len(), 2 * round, "{method}: it arrived once");
    }
}

#[test]
fn what_was_sent_on_a_kept_connection_may_have_arrived_and_is_not_sent_again() {
    for method in ["PUT", "PATCH", "DELETE"] {
        let (router, backend) = before(|number| if number == 1 { Act::Close } else { Act::Answer });
        let mut client = TcpStream::connect(router.traffic).unwrap();
        assert_eq!(ask(&mut client, method, || ()), 200, "{method}");
        assert_eq!(ask(&mut client, method, || ()), 502, "{method}");
        assert_eq!((backend.seen().len(), retries(&router)), (2, 0.0), "{method}");
    }
}

#[test]
fn a_body_that_is_no_longer_whole_is_not_sent_again() {
    let (router, backend) = before(closes_first);
    assert_eq!(status(&router, &query("POST", 65 * KIB)), 502);
    assert_eq!((backend.seen().len(), retries(&router)), (1, 0.0));
}

#[test]
fn how_much_is_kept_for_a_second_time_is_the_operators() {
    for (kept, body, expected) in [("1KiB", KIB, (200, 2, 1.0)), ("1KiB", KIB + 1, (502, 1, 0.0)), ("1MiB", KIB << 10, (200, 2, 1.0))] {
        let backend = Scripted::start(closes_first);
        let limits = format!("[limits]\nreplay_bytes = \"{kept}\"");
        let router = Setup::default().pool_at("blue", backend.address).top(&limits).start();
        let status = status(&router, &query("POST", body));
        let seen = backend.seen();
        assert_eq!((status, seen.len(), retries(&router)), expected, "{body} bytes, {kept} kept");
        assert!(seen.iter().all(|seen| seen.ends_with(&"x".repeat(body))), "{body} bytes, {kept} kept");
    }
}

#[test]
fn what_an_answer_has_begun_to_is_not_sent_again() {
    for begun in ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "HTTP/1.1 nonsense\r\n\r\n"] {
        let backend = Scripted::start(if begun.contains("nonsense") {
            |_| Act::Say("HTTP/1.1 nonsense\r\n\r\n")
        } else {
            |_| Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
        });
        let router = Setup::default().pool_at("blue", backend.address).start();
        let _ = http::raw(router.traffic, &query("GET", 0));
        assert_eq!((backend.seen().len(), retries(&router)), (1, 0.0), "{begun:?}");
    }
}

#[test]
fn whatever_was_not_sent_at_all_is_tried_elsewhere() {
    for (method, body) in [("GET", 0), ("PUT", 10), ("PATCH", 200 * KIB), ("POST", 200 * KIB)] {
        let backend = Scripted::start(|_| Act::Answer);
        let endpoints = [format!("http://{}", nowhere()), backend.url()];
        // No ejection and a health check that says nothing: the dead endpoint is tried over and over.
        let keys = "outlier = { max_ejection_percent = 0 }\nhealthy_panic_threshold = 100";
        let router = Setup::default().pool_of("blue", &endpoints).pool_keys(keys).start();
        eventually("a first attempt meets the dead endpoint", SOON, || {
            assert_eq!(status(&router, &query(method, body)), 200, "{method} {body}");
            (retries(&router) >= 1.0).then_some(())
        });
        assert!(backend.seen().iter().all(|seen| seen.ends_with(&"x".repeat(body))), "{method} {body}");
    }
}

/// A new process, also one that takes over, has to find out by itself which endpoints are down, and has no retries saved yet.
#[test]
fn a_burst_on_a_router_that_has_just_started_loses_nothing_to_endpoints_that_are_down() {
    const BURST: usize = 100;
    for down in [1, 2] {
        let backend = Scripted::start(|_| Act::Answer);
        let endpoints: Vec<String> = (0..down).map(|_| format!("http://{}", nowhere())).chain([backend.url()]).collect();
        let router = Setup::default().pool_of("blue", &endpoints).start_unready();
        // All of them arrive in one poll.
        router.signal("STOP");
        eventually("the router stands still", SOON, || router.is_stopped().then_some(()));
        let connect = |_| TcpStream::connect(router.traffic).unwrap();
        let mut clients: Vec<TcpStream> = (0..BURST).map(connect).collect();
        for client in &mut clients {
            client.write_all(query("PATCH", 10).as_bytes()).unwrap();
        }
        router.signal("CONT");
        let answer = |mut client: TcpStream| std::io::read_to_string(&mut client).unwrap();
        let failed: Vec<String> = clients.into_iter().map(answer).filter(|answer| !answer.starts_with("HTTP/1.1 200")).collect();
        assert!(failed.is_empty(), "{down} down, {} of {BURST} failed: {:?}", failed.len(), failed.first());
        assert_eq!(backend.seen().len(), BURST);
    }
}

#[test]
fn live_answers_for_a_candidate_that_cannot_be_reached_whatever_the_method() {
    let blue = Backend::start("blue");
    let initial = "initial = { live = \"blue\", canary_percent = \"100\" }";
    let router = Setup::default().pool("blue", &[&blue]).pool_at("canary", nowhere()).route(initial).start();
    let response = http::raw(router.traffic, &query("PATCH", 100 * KIB)).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("blue"), "{response}");
    assert_eq!(router.metric("switchback_fallbacks_total", &["pool=\"canary\""]), 1.0);
}

#[test]
fn what_a_candidate_was_sent_and_may_not_be_sent_twice_is_not_sent_to_live() {
    let (blue, canary) = (Backend::start("blue"), Scripted::start(|_| Act::Close));
    let initial = "initial = { live = \"blue\", canary_percent = \"100\" }";
    let router = Setup::default().pool("blue", &[&blue]).pool_at("canary", canary.address).route(initial).start();
    assert_eq!(status(&router, &query("PATCH", 10)), 502);
    assert_eq!((blue.arrivals(), canary.seen().len()), (0, 1));
}

#[test]
fn retries_are_a_fifth_of_the_queries_and_three_a_second() {
    const QUERIES: usize = 300;
    let backend = Scripted::start(|_| Act::Close);
    let router = Setup::default().pool_at("blue", backend.address).start();
    let started = Instant::now();
    for _ in 0..QUERIES {
        assert_eq!(status(&router, &query("GET", 0)), 502);
    }
    let allowed = QUERIES as f64 / 5.0 + 3.0 * started.elapsed().as_secs_f64() + 3.0;
    let made = retries(&router);
    assert!(made <= allowed && made > QUERIES as f64 / 5.0 - 1.0, "{made} retries, {allowed} allowed");
    assert_eq!(backend.seen().len() as f64, QUERIES as f64 + made);
}
