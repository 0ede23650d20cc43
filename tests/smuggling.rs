//! The promise: no request and no response is read in two ways. What could be is refused; the rest reaches the other side as it was meant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use switchback_tests::cases::Case;
use switchback_tests::strict::{Seen, listen, recording};
use switchback_tests::{Router, Setup};

/// Sends the bytes, reads so many answers and then to the end; what came back.
fn exchange(router: &Router, bytes: &[u8], answers: usize) -> String {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut response, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let is_enough = answers > 0 && String::from_utf8_lossy(&response).matches("\r\n\r\nok").count() >= answers;
        if is_enough {
            let _ = stream.shutdown(Shutdown::Write);
        }
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => response.extend(&part[..count]),
            // The router closes while we still send: what came before counts.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&response)),
        }
    }
    String::from_utf8_lossy(&response).into_owned()
}

#[test]
fn no_request_is_read_in_two_ways() {
    let (backend, seen) = recording();
    let router = Setup::default().pool_at("blue", backend).start();
    let all = Case::all(include_str!("smuggling/requests.txt"));
    assert!(all.len() >= 60, "{}", all.len());
    let mut wrong = Vec::new();
    for case in &all {
        assert_eq!(case.verdict == "passed", !case.expected.is_empty(), "{}", case.name);
        seen.lock().unwrap().clear();
        let answers = case.expected.len();
        let response = exchange(&router, &case.bytes(), answers);
        let requests = seen.lock().unwrap().clone();
        let is_as_meant = requests == case.expected.iter().cloned().map(Seen::Request).collect::<Vec<_>>();
        let is_answered = match answers {
            0 => response.starts_with("HTTP/1.1 400") || response.starts_with("HTTP/1.1 405"),
            count => response.matches("HTTP/1.1 200").count() == count,
        };
        if !is_as_meant || !is_answered {
            wrong.push(format!("{} ({}): {response:?}, the backend read {requests:?}", case.name, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(router.metric("switchback_refusals_total", &["reason=\"framing\""]) >= 10.0);
}

/// What docs/PROXY.md says of each: bytes, status, whether the connection is closed, and the reason that is counted.
const REASONS: [(&str, &str, bool, &str); 27] = [
    ("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400", true, "framing"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", true, "framing"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400", true, "framing"),
    ("GET /s HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "400", true, "framing"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400", true, "framing"),
    (
        "POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n",
        "400",
        true,
        "framing",
    ),
    ("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", "400", true, "head"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\n", "400", true, "head"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "400", true, "head"),
    ("POST /s HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", true, "head"),
    ("GET /s HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "400", true, "head"),
    ("GET /s HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400", true, "head"),
    ("GET /s HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", "400", true, "head"),
    ("GET  /s HTTP/1.1\r\nHost: a\r\n\r\n", "400", true, "head"),
    ("hello there\r\n\r\n", "400", true, "head"),
    ("GET /s HTTP/1.1\r\n\r\n", "400", true, "host"),
    ("GET /s HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", true, "host"),
    ("GET /s HTTP/1.1\r\nHost: a b\r\n\r\n", "400", true, "host"),
    ("GET s HTTP/1.1\r\nHost: a\r\n\r\n", "400", true, "host"),
    ("GET ftp://a/s HTTP/1.1\r\nHost: a\r\n\r\n", "400", true, "host"),
    ("GET /s/../x HTTP/1.1\r\nHost: a\r\n\r\n", "400", false, "path"),
    ("GET /s/%2e%2E/x HTTP/1.1\r\nHost: a\r\n\r\n", "400", false, "path"),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "405", true, "method"),
    ("TRACE /s HTTP/1.1\r\nHost: a\r\n\r\n", "405", true, "method"),
    ("GET /s HTTP/1.1\r\nHost: a\r\nX: LARGE\r\n\r\n", "431", true, "head_size"),
    ("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world", "413", true, "body_size"),
    ("GET /s HTTP/1.1\r\nHo", "408", true, "head_time"),
];

#[test]
fn each_refusal_has_the_status_and_the_reason_that_the_docs_give() {
    let (backend, _) = recording();
    let limits =
        "[limits]\nheader_bytes = \"8KiB\"\nheader_timeout = \"1s\"\n[[route]]\nname = \"narrow\"\nmatch = { path_prefix = \"/s\" }";
    let narrow = format!("{limits}\nmax_request_body = \"10B\"\n[route.pools.blue]\nendpoints = [\"http://{backend}\"]");
    let router = Setup::default().pool_at("blue", backend).top(&narrow).start();
    for (bytes, status, is_closed, reason) in REASONS {
        let label = format!("reason=\"{reason}\"");
        let count = || router.metric("switchback_refusals_total", &[&label]);
        let before = count();
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes.replace("LARGE", &"x".repeat(9_000)).as_bytes()).unwrap();
        // A connection that stays open answers a second request; one that does not is at its end.
        let mut answers = Vec::new();
        if !is_closed {
            stream.write_all(b"GET /s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        }
        let _ = stream.read_to_end(&mut answers);
        let answers = String::from_utf8_lossy(&answers);
        assert_eq!(answers.get(9..12), Some(status), "{bytes:?}: {answers}");
        assert_eq!(answers.contains("HTTP/1.1 200"), !is_closed, "{bytes:?}: {answers}");
        switchback_tests::eventually("it is counted", Duration::from_secs(5), || (count() > before).then_some(()));
        assert!((count() - before - 1.0).abs() < 1e-9, "{bytes:?} is counted once as {reason}");
    }
}

const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

#[test]
fn no_response_is_read_in_two_ways() {
    let script = Arc::new(Mutex::new(Vec::new()));
    let said = script.clone();
    let backend = listen(move |mut stream| {
        let mut seen = [0; 8_192];
        while let Ok(1..) = stream.read(&mut seen) {
            let bytes = [said.lock().unwrap().as_slice(), EVIL].concat();
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    let router = Setup::default().pool_at("blue", backend).start_unready();
    let all = Case::all(include_str!("smuggling/responses.txt"));
    assert!(all.len() >= 20, "{}", all.len());
    let mut wrong = Vec::new();
    let mut refused = 0.0;
    for case in &all {
        let said = case.bytes();
        script.lock().unwrap().clone_from(&said);
        let method = if case.name.starts_with("HEAD") { "HEAD" } else { "GET" };
        let request = format!("{method} /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        // Twice, so that a connection with something left on it would be used again.
        for _ in 0..2 {
            let response = exchange(&router, request.as_bytes(), 0);
            let status = response.get(9..12).unwrap_or("");
            let is_right = match case.verdict.as_str() {
                "passed" => response.starts_with("HTTP/1.1 ") && said.windows(3).any(|bytes| bytes == status.as_bytes()),
                "refused" => status == "502",
                "broken" => status == "200" && !response.ends_with("0\r\n\r\n"),
                other => panic!("no verdict: {other}"),
            };
            if !is_right || response.contains("evil") {
                wrong.push(format!("{} ({}): {response:?}", case.name, case.verdict));
            }
            refused += if case.verdict == "passed" { 0.0 } else { 1.0 };
            let count = || router.metric("switchback_broken_responses_total", &[]);
            let is_counted = || (count() >= refused).then_some(());
            switchback_tests::eventually(&format!("{} is counted", case.name), Duration::from_secs(5), is_counted);
            assert_eq!(count(), refused, "{}", case.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(router.metric("switchback_broken_responses_total", &["reason=\"framing\""]) >= 10.0);
    assert!(router.metric("switchback_broken_responses_total", &["reason=\"upgrade\""]) >= 2.0);
}
