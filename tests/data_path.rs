//! The promise: a query gets an answer as if the router were not there, whatever the candidate does, and nobody can tie the
//! router up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use switchback_tests::strict::listen;
use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const QUERY: &str = "GET /rank?q=shoes HTTP/1.1\r\nhost: search.test\r\nx-user-id: u1\r\nconnection: close\r\n\r\n";

fn with_candidate(blue: &Backend, canary: &Backend) -> Setup {
    let everybody =
        "initial = { live = \"blue\", canary_percent = \"100\" }\ntimeouts = { connect = \"200ms\", attempt = \"300ms\", total = \"2s\" }";
    Setup::default().pool("blue", &[blue]).pool("canary", &[canary]).route(everybody)
}

fn assert_blue_answers(router: &Router) {
    let response = http::raw(router.traffic, QUERY).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("x-switchback-pool: blue") && response.ends_with("blue"), "{response}");
}

#[test]
fn live_answers_for_a_candidate_that_says_500_and_the_candidate_is_blamed() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = with_candidate(&blue, &canary).start();
    assert!(http::raw(router.traffic, QUERY).unwrap().contains("x-switchback-pool: canary"));
    canary.behave(Behaviour::Status(500));
    assert_blue_answers(&router);
    assert_eq!(router.metric("switchback_requests_total", &["pool=\"canary\"", "code=\"5xx\""]), 1.0);
    assert_eq!(router.metric("switchback_requests_total", &["pool=\"blue\""]), 0.0, "a fallback answer counts for neither role");
    assert_eq!(router.metric("switchback_fallbacks_total", &["pool=\"canary\""]), 1.0);
}

#[test]
fn live_answers_for_a_candidate_that_hangs() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = with_candidate(&blue, &canary).start();
    canary.behave(Behaviour::Hang);
    assert_blue_answers(&router);
    assert_eq!(router.metric("switchback_requests_total", &["pool=\"canary\"", "code=\"timeout\""]), 1.0);
}

#[test]
fn live_answers_for_a_candidate_that_is_down() {
    let (blue, mut canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = with_candidate(&blue, &canary).start();
    canary.stop();
    assert_blue_answers(&router);
    assert!(router.metric("switchback_requests_total", &["pool=\"canary\"", "code=\"failure\""]) >= 1.0);
}

/// It would take queries, and never answer them.
#[test]
fn a_candidate_or_holdback_without_a_healthy_endpoint_is_passed_over_at_once() {
    let slow = "timeouts = { connect = \"20s\", attempt = \"20s\", total = \"40s\" }";
    let roles = ["canary_percent = \"100\"", "canary_percent = \"0\", holdback_pool = \"canary\", holdback_percent = \"100\""];
    for role in roles {
        let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
        let keys = format!("initial = {{ live = \"blue\", {role} }}\n{slow}");
        let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(&keys).start();
        assert!(http::raw(router.traffic, QUERY).unwrap().contains("x-switchback-pool: canary"), "{role}");
        canary.behave(Behaviour::Hang);
        canary.feel(503);
        let is_known = || (router.route()["pools"]["canary"]["healthy"] == 0).then_some(());
        eventually("it is known to be unhealthy", Duration::from_secs(5), is_known);
        let (asked, started) = (canary.arrivals(), Instant::now());
        for _ in 0..5 {
            assert_blue_answers(&router);
        }
        assert!(started.elapsed() < Duration::from_secs(10) && canary.arrivals() == asked, "{role}: it was waited for");
        assert_eq!(router.metric("switchback_requests_total", &["pool=\"canary\"", "code=\"failure\""]), 5.0, "{role}");
        assert_eq!(router.metric("switchback_fallbacks_total", &["pool=\"canary\""]), 5.0, "{role}");
        canary.behave(Behaviour::Answer);
        canary.feel(200);
        eventually("it is asked again when it is back", Duration::from_secs(5), || {
            http::raw(router.traffic, QUERY).unwrap().contains("x-switchback-pool: canary").then_some(())
        });
    }
}

/// An operator who pins a pool wants that pool's answer, and the live one has no other pool to stand in.
#[test]
fn a_pinned_or_live_pool_without_a_healthy_endpoint_is_tried_all_the_same() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).start();
    for backend in [&blue, &canary] {
        backend.feel(503);
    }
    eventually("both are known to be unhealthy", Duration::from_secs(5), || {
        ["blue", "canary"].iter().all(|pool| router.route()["pools"][pool]["healthy"] == 0).then_some(())
    });
    assert_blue_answers(&router);
    router.set_flags(&["pin=canary"]);
    assert!(http::raw(router.traffic, QUERY).unwrap().contains("x-switchback-pool: canary"));
}

#[test]
fn a_live_pool_that_fails_gives_its_own_answer() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    blue.behave(Behaviour::Status(503));
    let response = http::raw(router.traffic, QUERY).unwrap();
    assert!(response.starts_with("HTTP/1.1 503") && response.ends_with("blue"), "{response}");
}

#[test]
fn an_endpoint_that_dies_costs_no_query() {
    let (one, mut other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).start();
    let load = Load::new(router.traffic, 400).start();
    let retries = || router.metric("switchback_retries_total", &[]);
    // A health check may come before a query meets the dead one; the promise is about those that do.
    let mut round = 0;
    while round < 3 || (retries() < 1.0 && round < 30) {
        round += 1;
        load.wait_for(load.sent() + 100);
        other.stop();
        load.wait_for(load.sent() + 100);
        let before = other.arrivals();
        other.restart();
        eventually("the endpoint gets queries again", Duration::from_secs(20), || (other.arrivals() > before).then_some(()));
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(retries() >= 1.0);
}

#[test]
fn health_checks_take_a_dead_endpoint_out_and_back_in() {
    let (one, mut other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).start();
    let endpoint = other.url().replace("http://", "");
    let becomes = |wanted: f64| {
        let what = format!("healthy: {wanted}");
        let look = || (router.metric("switchback_endpoint_healthy", &[&endpoint]) == wanted).then_some(());
        eventually(&what, Duration::from_secs(5), look);
    };
    becomes(1.0);
    other.stop();
    becomes(0.0);
    other.restart();
    becomes(1.0);
}

#[test]
fn a_backend_learns_whom_it_answers_and_nothing_that_a_client_made_up() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let request = "GET /rank?q=a%20b HTTP/1.1\r\nhost: search.test\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-host: evil\r\n\
                   x-switchback-pool: green\r\naccept-language: de\r\n\r\n";
    let response = http::raw(router.traffic, request).unwrap();
    let (_, seen) = response.split_once("\r\n\r\n").unwrap();
    assert!(seen.starts_with("GET /rank?q=a%20b\n"), "{seen}");
    for there in
        ["host: search.test", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "via: 1.1 switchback", "accept-language: de"]
    {
        assert!(seen.contains(there), "{there} is missing in\n{seen}");
    }
    for gone in ["x-hop", "keep-alive", "6.6.6.6", "x-forwarded-host", "x-switchback-"] {
        assert!(!seen.contains(gone), "{gone} is there in\n{seen}");
    }
}

#[test]
fn bodies_stream_both_ways() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Echo);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    // The first part comes back while the request is still being sent.
    let seen = read_until(&mut stream, "first");
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    assert!(seen.contains("\r\nconnection: close\r\n"), "how much is still to come is not known: {seen}");
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    read_until(&mut stream, "second");
}

#[test]
fn large_bodies_pass_whole_and_are_not_held_in_memory() {
    const BYTES: usize = 300 << 20;
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Large(BYTES));
    let router = Setup::default().pool("blue", &[&blue]).start();
    // Compiling is done: what it holds meanwhile is not the body's.
    eventually("both policies are in force", Duration::from_secs(60), || {
        let policies = router.route()["policies"].as_array().cloned().unwrap_or_default();
        (policies.len() == 2 && policies.iter().all(|policy| policy["state"] == "in_force")).then_some(())
    });
    let before = resident_bytes(router.pid());
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(QUERY.as_bytes()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut seen = stream.read(&mut buffer).unwrap();
    // The backend has far more ready than sockets hold, and the client has read only a little: the rest waits at the backend.
    eventually("the backend got the query", Duration::from_secs(5), || (blue.arrivals() == 1).then_some(()));
    let grown = resident_bytes(router.pid()).saturating_sub(before);
    assert!(grown < 20 << 20, "grew by {grown} bytes");
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        seen += bytes;
    }
    assert!(seen > BYTES && seen < BYTES + 1_000, "{seen}");
    let grown = resident_bytes(router.pid()).saturating_sub(before);
    assert!(grown < 20 << 20, "grew by {grown} bytes");
}

#[test]
fn http2_with_prior_knowledge_is_spoken() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(router.traffic).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::post("http://search.test/rank").body(Full::new(bytes::Bytes::from_static(b"hello"))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.version(), hyper::Version::HTTP_2);
        response.into_body().collect().await.unwrap().to_bytes()
    });
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("POST /rank\n") && text.contains("host: search.test") && text.contains("via: 2 switchback"), "{text}");
}

#[test]
fn a_response_that_breaks_off_is_broken_for_the_client_too_and_counted() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::BreakBody);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let response = http::raw(router.traffic, QUERY).unwrap();
    assert!(response.contains("half of") && !response.contains("\r\n0\r\n"), "{response}");
    eventually("counted", Duration::from_secs(5), || {
        (router.metric("switchback_requests_total", &["code=\"failure\""]) == 1.0).then_some(())
    });
}

/// What a client of HTTP/1.0 is sent without a length ends when its connection does: a response that broke off must not look whole.
#[test]
fn a_response_that_breaks_off_resets_the_connection_that_would_be_its_end() {
    for rest in ["x\r\n", "5\r\nhe"] {
        let backend = listen(move |mut stream| {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n{rest}").as_bytes());
        });
        let router = Setup::default().pool_at("blue", backend).start_unready();
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /rank HTTP/1.0\r\nhost: search.test\r\n\r\n").unwrap();
        let mut response = Vec::new();
        let end = stream.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response);
        assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && !response.contains("content-length"), "{response}");
        assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "{rest:?}: {response}");
    }
}

#[test]
fn a_client_that_goes_away_counts_against_nobody() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Hang);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(QUERY.as_bytes()).unwrap();
    eventually("the backend has it", Duration::from_secs(5), || (blue.arrivals() == 1).then_some(()));
    drop(stream);
    eventually("counted as an abort", Duration::from_secs(5), || {
        (router.metric("switchback_requests_total", &["code=\"client_abort\""]) == 1.0).then_some(())
    });
    assert_eq!(router.metric("switchback_requests_total", &[]), 1.0, "and as nothing else");
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_never_reaches_a_backend() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    let requests = [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    for request in requests {
        let response = http::raw(router.traffic, request).unwrap();
        assert!(response.starts_with("HTTP/1.1 4"), "{request:?} got {response:?}");
    }
    assert_eq!(blue.arrivals(), 0);
    assert!(router.metric("switchback_refusals_total", &["reason=\"host\""]) >= 2.0);
}

#[test]
fn a_path_that_is_another_one_to_a_backend_is_refused_where_paths_decide() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let ask = |router: &Router, path: &str| http::raw(router.traffic, &QUERY.replacen("/rank", path, 1)).unwrap();
    let anywhere = Setup::default().pool("blue", &[&blue]).start();
    assert!(ask(&anywhere, "/a/../b").contains("GET /a/../b"), "passed on as it is where there is one route for all paths");
    let top =
        format!("[[route]]\nname = \"ads\"\nmatch = {{ path_prefix = \"/ads\" }}\n[route.pools.blue]\nendpoints = [{:?}]\n", blue.url());
    let apart = Setup::default().pool("blue", &[&blue]).top(&top).start();
    for path in ["/ads/../rank", "/ads/%2E%2e/rank", "/./ads", "/ads/..;/rank"] {
        let response = ask(&apart, path);
        assert!(response.starts_with("HTTP/1.1 400") && response.contains("without them"), "{path}: {response}");
    }
    assert!(ask(&apart, "/ads/a.b").starts_with("HTTP/1.1 200"));
    assert_eq!(apart.metric("switchback_refusals_total", &["reason=\"path\""]), 4.0);
}

#[test]
fn options_of_a_host_alone_are_those_of_the_server() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let over_h1 = Setup::default().pool("blue", &[&blue]).start();
    let over_h2 = Setup::default().pool("blue", &[&blue]).pool_keys("protocol = \"h2\"").start();
    let ask = |router: &Router, target: &str| {
        http::raw(router.traffic, &format!("OPTIONS {target} HTTP/1.1\r\nhost: b.test\r\nconnection: close\r\n\r\n")).unwrap()
    };
    for (target, shown) in [("http://a.test", "*"), ("http://a.test/", "/"), ("http://a.test/x", "/x"), ("*", "*")] {
        let response = ask(&over_h1, target);
        assert!(response.contains(&format!("OPTIONS {shown}\n")), "{target}: {response}");
    }
    let response = ask(&over_h2, "http://a.test");
    assert!(response.contains("OPTIONS http://a.test*\n") || response.contains("OPTIONS *\n"), "{response}");
}

#[test]
fn a_silent_client_and_one_that_dawdles_are_hung_up_on() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).top("[limits]\nheader_timeout = \"300ms\"\nkeepalive_timeout = \"1s\"").start();
    for start in ["", "GET / HTT", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        let waited = time_until_closed(&mut stream);
        assert!(waited > Duration::from_millis(250) && waited < Duration::from_secs(3), "{start:?}: closed after {waited:?}");
    }
    // Between queries a client may take longer: the keep-alive limit holds, not the header's.
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    read_until(&mut stream, "blue");
    let waited = time_until_closed(&mut stream);
    assert!(waited > Duration::from_millis(800) && waited < Duration::from_secs(4), "closed after {waited:?}");
}

#[test]
fn an_http2_client_that_lets_its_streams_wait_is_hung_up_on() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Large(10 << 20));
    let router = Setup::default().pool("blue", &[&blue]).top("[limits]\nbody_idle_timeout = \"300ms\"").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(router.traffic).await.unwrap();
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = client.initial_stream_window_size(1_000).handshake(TokioIo::new(stream)).await.unwrap();
        let driven = tokio::spawn(connection);
        let request = hyper::Request::get("http://search.test/rank").body(Empty::<bytes::Bytes>::new()).unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        assert!(response.frame().await.unwrap().is_ok(), "it takes a little, and then no more");
        let ended = tokio::time::timeout(Duration::from_secs(5), driven).await;
        assert!(ended.is_ok(), "the router must not wait for it forever");
    });
    eventually("its place in the pool is free again", Duration::from_secs(5), || {
        (router.metric("switchback_endpoint_in_flight", &[]) == 0.0).then_some(())
    });
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).top("[limits]\nheader_bytes = \"8KiB\"\nheaders = 20").start();
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-many: 1\r\n".repeat(50));
    for request in [long, many] {
        // The rest of the head may meet a closed socket: what counts is that the backend never sees it.
        if let Ok(response) = http::raw(router.traffic, &request) {
            assert!(response.starts_with("HTTP/1.1 431") || response.is_empty(), "{response}");
        }
    }
    assert_eq!(blue.arrivals(), 0);
}

#[test]
fn connections_over_the_limit_are_closed_and_those_within_go_on() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).top("[limits]\nconnections = 4").start();
    let mut open: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(router.traffic).unwrap()).collect();
    for stream in &mut open {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        read_until(stream, "blue");
    }
    let mut fifth = TcpStream::connect(router.traffic).unwrap();
    assert!(time_until_closed(&mut fifth) < Duration::from_secs(2));
    open[0].write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    read_until(&mut open[0], "blue");
    drop(open);
    eventually("a place is free again", Duration::from_secs(5), || {
        http::raw(router.traffic, QUERY).ok().filter(|response| response.starts_with("HTTP/1.1 200"))
    });
}

#[test]
fn sigterm_answers_what_is_in_flight_and_exits_0() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Delay(Duration::from_millis(800)));
    let mut router = Setup::default().pool("blue", &[&blue]).start();
    let traffic = router.traffic;
    let query = std::thread::spawn(move || http::raw(traffic, &QUERY.replace("connection: close\r\n", "")));
    eventually("the query is in flight", Duration::from_secs(5), || (blue.arrivals() == 1).then_some(()));
    let (status, took) = router.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let response = query.join().unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("blue"), "{response}");
}

fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4_096];
    while !seen.contains(wanted) {
        let bytes = stream.read(&mut buffer).unwrap();
        assert!(bytes > 0, "closed before {wanted:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
    }
    seen
}

fn time_until_closed(stream: &mut TcpStream) -> Duration {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let started = Instant::now();
    let mut buffer = [0; 4_096];
    while let Ok(1..) = stream.read(&mut buffer) {}
    started.elapsed()
}

fn resident_bytes(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn own_answers_to_a_body_that_is_still_to_come_say_that_the_connection_closes() {
    let blue = Backend::start("blue");
    let mut dead = Backend::start("dead");
    // Paths are told apart, so that dot segments are refused.
    let other =
        format!("[[route]]\nname = \"ads\"\nmatch = {{ path_prefix = \"/ads\" }}\n[route.pools.blue]\nendpoints = [{:?}]\n", blue.url());
    let router = Setup::default().pool("blue", &[&blue]).pool("green", &[&dead]).top(&other).start();
    dead.stop();
    let answer_to = |head: &str| {
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        while !answer.contains("switchback: ") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        (stream, answer)
    };
    let body = "content-length: 9\r\n\r\n";
    let (_, refused) = answer_to(&format!("POST /ads/../rank HTTP/1.1\r\nhost: a\r\n{body}"));
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("connection: close\r\n"), "{refused}");
    router.set_flags(&["live=green"]);
    eventually("the dead pool is live", SOON, || (router.route()["live"] == "green").then_some(()));
    let (_, unanswered) = answer_to(&format!("POST /rank HTTP/1.1\r\nhost: a\r\n{body}"));
    assert!(unanswered.starts_with("HTTP/1.1 50") && unanswered.contains("connection: close\r\n"), "{unanswered}");
    // Where nothing is to come, the connection goes on.
    let (mut stream, refused) = answer_to("GET /ads/../rank HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400") && !refused.contains("connection: close"), "{refused}");
    stream.write_all(b"GET /ads/../rank HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
}
