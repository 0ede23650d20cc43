//! The promise: what goes wrong is counted once, and against whoever did it. A client that is slow or gone is not a model's failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(5);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";
/// A tenth of what it announces.
const PART: &str = "POST /rank HTTP/1.1\r\nhost: search.test\r\ncontent-length: 100\r\n\r\n0123456789";

/// A backend that answers each connection's first request with this text, and then keeps quiet. It has no health to check.
fn scripted(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut seen = [0; 4_096];
                while let Ok(1..) = stream.read(&mut seen) {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn requests(router: &Router, code: &str) -> f64 {
    router.metric("switchback_requests_total", &[&format!("code=\"{code}\"")])
}

fn eventually_counted_alone(router: &Router, code: &str) {
    eventually(code, SOON, || (requests(router, code) == 1.0).then_some(()));
    assert_eq!(router.metric("switchback_requests_total", &[]), 1.0, "and as nothing else");
}

fn open(router: &Router, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn a_response_with_trailers_is_a_success_and_keeps_its_connection() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-took\r\n\r\n5\r\nhello\r\n0\r\nx-took: 1\r\n\r\n";
    let router = Setup::default().pool_at("blue", scripted(answer)).start();
    let response = http::raw(router.traffic, &GET.replace("\r\n\r\n", "\r\nte: trailers\r\n\r\n")).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("hello"), "{response}");
    eventually_counted_alone(&router, "2xx");
}

/// A router before a backend that never answers.
fn before_a_hanging_backend(route: &str) -> (Router, Backend) {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Hang);
    (Setup::default().pool("blue", &[&blue]).route(route).start(), blue)
}

fn assert_only_the_client_is_blamed(router: &Router) {
    eventually_counted_alone(router, "client_abort");
    assert_eq!(router.metric("switchback_unanswered_total", &[]), 0.0);
}

#[test]
fn a_client_that_dawdles_over_its_request_is_not_the_backends_timeout() {
    let (router, _blue) = before_a_hanging_backend("timeouts = { attempt = \"200ms\", total = \"400ms\" }");
    let mut response = String::new();
    let _ = open(&router, PART).read_to_string(&mut response);
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert_only_the_client_is_blamed(&router);
}

#[test]
fn a_client_that_goes_away_before_its_request_is_whole_counts_as_that() {
    let (router, blue) = before_a_hanging_backend("");
    let stream = open(&router, PART);
    eventually("the backend has it", SOON, || (blue.arrivals() == 1).then_some(()));
    drop(stream);
    assert_only_the_client_is_blamed(&router);
}

#[test]
fn a_client_that_goes_away_while_both_bodies_run_counts_as_that() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Echo);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let mut stream = open(&router, "POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let mut seen = [0; 1_024];
    assert!(stream.read(&mut seen).unwrap() > 0);
    drop(stream);
    eventually_counted_alone(&router, "client_abort");
}

#[test]
fn a_backend_that_dies_on_a_kept_connection_is_counted_when_nobody_tries_again() {
    // It answers the first request of a connection, and closes at the second.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut seen = [0; 4_096];
                let _ = stream.read(&mut seen);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
                let _ = stream.read(&mut seen);
            });
        }
    });
    let router = Setup::default().pool_at("blue", address).route("replayable_methods = []").start();
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 200"));
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
    assert_eq!((requests(&router, "2xx"), requests(&router, "failure")), (1.0, 1.0));
    assert_eq!(router.metric("switchback_unanswered_total", &[]), 1.0);
}

#[test]
fn the_body_of_a_chunked_get_arrives() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Echo);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let request =
        "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let response = http::raw(router.traffic, request).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("hello"), "{response}");
}
