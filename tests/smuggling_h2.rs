//! The promise: nothing that HTTP/2 can say becomes something else in HTTP/1.1. What could is refused; the rest reaches the backend as it was meant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use switchback_tests::cases::{Case, unescaped};
use switchback_tests::frames::{self, DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, RESET, frame, hello};
use switchback_tests::strict::{Seen, recording};
use switchback_tests::{Router, Setup, eventually, http};

/// The request of a case, as frames of stream 1.
fn request(case: &Case) -> Vec<u8> {
    let mut frames: Vec<(u8, u8, Vec<u8>)> = vec![(HEADERS, END_HEADERS, Vec::new())];
    for line in &case.lines {
        if let Some(data) = line.strip_prefix("DATA ") {
            frames.push((DATA, 0, unescaped(data)));
        } else if line == "TRAILERS" {
            frames.push((HEADERS, END_HEADERS, Vec::new()));
        } else {
            frames.last_mut().unwrap().2.extend(fields(line));
        }
    }
    frames.last_mut().unwrap().1 |= END_STREAM;
    frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, 1, payload)).collect()
}

/// `NAME = VALUE`, or the pseudo fields of `METHOD PATH`.
fn fields(line: &str) -> Vec<u8> {
    // An editor may have cut off the blank before a value of nothing.
    let named = line.split_once(" = ").or_else(|| Some((line.strip_suffix(" =")?, "")));
    match (named, line.split_once(' ')) {
        (Some((name, value)), _) => frames::field(&unescaped(name), &unescaped(value)),
        (None, Some((method, path))) => {
            let pseudo = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
            pseudo.iter().flat_map(|(name, value)| frames::field(name.as_bytes(), value.as_bytes())).collect()
        }
        (None, None) => panic!("neither a field nor a method and a path: {line:?}"),
    }
}

/// Sends it on a connection of its own, and says how its stream ended.
fn outcome(router: &Router, case: &Case) -> String {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&[hello(), request(case)].concat()).unwrap();
    let (mut head, mut payload, mut status) = ([0; 9], Vec::new(), None);
    loop {
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return "no answer".to_owned(),
            Err(_) => return "closed".to_owned(),
        }
        payload.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
        stream.read_exact(&mut payload).unwrap();
        let (kind, flags, is_ours) = (head[3], head[4], head[5..] == [0, 0, 0, 1]);
        match kind {
            GO_AWAY if payload[4..8] != [0; 4] => return "goaway".to_owned(),
            RESET if is_ours => return "reset".to_owned(),
            HEADERS if is_ours && status.is_none() => status = frames::status(&payload),
            _ => {}
        }
        if is_ours && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return match status {
                Some(200) => "passed".to_owned(),
                Some(status) => status.to_string(),
                None => format!("a head that is none: {payload:?}"),
            };
        }
    }
}

#[test]
fn nothing_is_smuggled_from_http2_into_http1() {
    let (backend, seen) = recording();
    let router = Setup::default().pool_at("blue", backend).start();
    let all = Case::all(include_str!("smuggling/h2.txt"));
    assert!(all.len() >= 80, "{}", all.len());
    let mut wrong = Vec::new();
    for case in &all {
        assert_eq!(case.verdict == "passed", !case.expected.is_empty(), "{}", case.name);
        seen.lock().unwrap().clear();
        let outcome = outcome(&router, case);
        // Whatever a case left on a kept connection would become a part of this.
        let (status, _) = http::get(router.traffic, "/after").unwrap();
        let requests = seen.lock().unwrap().clone();
        let last = "GET localhost /after".to_owned();
        let expected: Vec<Seen> = case.expected.iter().chain([&last]).cloned().map(Seen::Request).collect();
        if outcome != case.verdict || status != 200 || requests != expected {
            wrong.push(format!("{} ({}): {outcome}, then {status}; the backend read {requests:?}", case.name, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    let count = |is: fn(&str) -> bool| all.iter().filter(|case| is(&case.verdict)).count() as f64;
    let (ended, answered) = (count(|verdict| verdict == "goaway"), count(|verdict| verdict.starts_with("40")));
    let counted = || [&["reason=\"http2\""][..], &[]].map(|labels| router.metric("switchback_refusals_total", labels));
    // Each GOAWAY, and each answer of the router's own; what resets one stream is not.
    eventually("refusals are counted", Duration::from_secs(5), || (counted() == [ended, ended + answered]).then_some(()));
}
