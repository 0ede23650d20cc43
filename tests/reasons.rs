//! The promise: whoever looks at a router is told why an endpoint gets no traffic, in a few words, wherever its state is shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use switchback_tests::tls::Authority;
use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";

/// A backend that answers whatever comes first on a connection with these bytes, and reads on.
fn saying(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut stream: TcpStream| {
        let read = stream.read(&mut [0; 1 << 10]).is_ok_and(|read| read > 0);
        let _ = read && stream.write_all(bytes).is_ok() && std::io::copy(&mut stream, &mut std::io::sink()).is_ok();
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Blue's endpoint at this place, as the API shows it.
fn endpoint(router: &Router, index: usize) -> Value {
    router.route()["pools"]["blue"]["endpoints"][index].clone()
}

/// Waits until the API says this state and such a reason, and then for the same in `status` and `status --json`.
fn eventually_told(router: &Router, index: usize, state: &str, words: &str) {
    let is_told = |shown: &Value| shown["state"] == state && shown["why"].as_str().is_some_and(|why| why.contains(words));
    let shown = eventually(&format!("{state}: {words}"), SOON, || Some(endpoint(router, index)).filter(is_told));
    assert!(shown["why"].as_str().unwrap().chars().count() <= 200, "{shown}");
    let line = format!("  blue {} is {state}", shown["endpoint"].as_str().unwrap());
    eventually("status tells it", SOON, || {
        let text = router.run(&["status"]).1;
        text.lines().any(|told| told.starts_with(&line) && told.contains(words)).then_some(())
    });
    let json: Value = serde_json::from_str(&router.run(&["status", "--json"]).1).unwrap();
    let told = &json["routes"][0]["pools"]["blue"]["endpoints"][index];
    assert!(told["why"].as_str().is_some_and(|why| why.contains(words)), "{told}");
}

#[test]
fn a_backend_with_a_certificate_for_another_name() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let wrong = Backend::start_tls("wrong", authority.server(&authority.issue(&["another.test"]), false));
    let tls = format!("tls = {{ ca = {:?} }}", authority.write(folder.path()));
    let router = Setup::default().pool("blue", &[&wrong]).pool_keys(&tls).start();
    eventually_told(&router, 0, "unhealthy", "TLS: invalid peer certificate: certificate not valid for name");
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
    let last = endpoint(&router, 0)["last_failure"].clone();
    assert!(last["what"].as_str().unwrap().starts_with("TLS: invalid peer certificate") && last["ms_ago"].is_u64(), "{last}");
}

#[test]
fn a_backend_that_speaks_something_else_than_its_config_says() {
    // What a server of HTTP/1.1 says to an HTTP/2 preface, one of HTTP/2 alone to a request of HTTP/1.1, and one of TLS to either.
    const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x46";
    let no_http = "cannot be read: it is not what the pool's `protocol` and the endpoint's scheme say";
    for (scheme, protocol, says, words) in [
        ("http", "h2", BAD_REQUEST, no_http),
        ("http", "http1", SETTINGS, no_http),
        ("http", "http1", ALERT, no_http),
        ("https", "http1", BAD_REQUEST, "TLS: it does not speak TLS there"),
    ] {
        let backend = saying(says);
        let keys = format!("protocol = {protocol:?}");
        let router = Setup::default().pool_of("blue", &[format!("{scheme}://{}", backend)]).pool_keys(&keys).start();
        eventually_told(&router, 0, "unhealthy", words);
        assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
        let last = endpoint(&router, 0)["last_failure"]["what"].clone();
        assert!(last.as_str().unwrap().contains(words), "{scheme} {protocol}: {last}");
        let examined = router.run(&["doctor", "--config", router.config().to_str().unwrap()]).1;
        assert!(examined.contains("-> say what the backend speaks"), "{scheme} {protocol}: {examined}");
    }
}

#[test]
fn a_response_with_more_fields_than_are_read() {
    let fields = "x: y\r\n".repeat(100);
    let with = |more: &str| -> &'static [u8] { format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{more}\r\n").into_bytes().leak() };
    let (many, large) = (with(&fields), with(&format!("x: {}\r\n", "y".repeat(400 << 10))));
    for (says, reason, words) in [
        (many, "fields", "its head has more than 100 fields"),
        (large, "head_size", "its head is too large: at most 400 KiB and 100 fields are read"),
    ] {
        let backend = saying(says);
        let router = Setup::default().bare_pool_at("blue", backend, "health = { interval = \"0us\" }").start();
        let answer = http::raw(router.traffic, GET).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains(words), "{answer}");
        assert!(!answer.contains(&backend.to_string()), "addresses are not for clients: {answer}");
        assert_eq!(endpoint(&router, 0)["last_failure"]["what"], format!("its response cannot be read: {words}"));
        let counted = format!("reason=\"{reason}\"");
        assert_eq!(router.metric("switchback_broken_responses_total", &[&counted]), 1.0, "{reason}");
        let in_log = || router.log().lines().find(|line| line.contains("response not passed on")).map(str::to_owned);
        let told = eventually("the log says whose it was", SOON, in_log);
        assert!(told.contains(words) && told.contains(&backend.to_string()) && told.contains("blue"), "{told}");
    }
}

#[test]
fn a_backend_that_refuses_and_one_that_says_503_to_its_health_check() {
    let (mut refusing, ailing) = (Backend::start("refusing"), Backend::start("ailing"));
    let router = Setup::default().pool("blue", &[&refusing, &ailing]).start();
    assert_eq!((&endpoint(&router, 0)["why"], &endpoint(&router, 0)["last_failure"]), (&Value::Null, &Value::Null));
    refusing.stop();
    ailing.feel(503);
    eventually_told(&router, 0, "unhealthy", "connect: refused");
    eventually_told(&router, 1, "unhealthy", "health check answered 503");
    ailing.feel(500);
    eventually_told(&router, 1, "unhealthy", "health check answered 500");
    ailing.feel(200);
    eventually("it is back, and nothing is said", SOON, || (endpoint(&router, 1)["why"].is_null()).then_some(()));
}

#[test]
fn one_that_is_ejected() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let router = Setup::default().pool("blue", &[&one, &other]).start();
    let load = Load::new(router.traffic, 300).start();
    load.wait_for(50);
    other.behave(Behaviour::Status(507));
    eventually_told(&router, 1, "ejected", " failures in a row, last: answered 507");
    assert_eq!(endpoint(&router, 1)["last_failure"]["what"], "answered 507");
    drop(load.stop());
}

#[test]
fn one_that_failed_a_probe() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let quick = "outlier = { base_ejection_time = \"300ms\" }";
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys(quick).start();
    let load = Load::new(router.traffic, 300).start();
    load.wait_for(50);
    other.behave(Behaviour::Status(500));
    eventually_told(&router, 1, "ejected", "a probe failed, last: answered 500");
    drop(load.stop());
}

#[test]
fn one_without_health_checks_that_nobody_could_stand_in_for() {
    // Alone in its pool it is never ejected: the last failure is all that there is to tell.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let router = Setup::default().bare_pool_at("blue", free, "health = { interval = \"0us\" }").start();
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
    let shown = endpoint(&router, 0);
    assert_eq!((&shown["state"], &shown["why"]), (&"healthy".into(), &Value::Null));
    assert_eq!(shown["last_failure"]["what"], "connect: refused", "{shown}");
}
