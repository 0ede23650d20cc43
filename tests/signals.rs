//! The promise: what a response's body says of its results is counted, and the response passes as it is, when it comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Router, Setup, eventually, http, strict};

const SOON: Duration = Duration::from_secs(20);
const HITS: &str = r#"{"hits": {"total": 2, "hits": [{"_id": "a", "_score": 0.9}, {"_id": "b", "_score": 0.5}]}}"#;
const NOTHING: &str = r#"{"hits": {"total": 0, "hits": []}}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packing.write_all(text.as_bytes()).unwrap();
    packing.finish().unwrap()
}

/// Answers each path in its own way; `/halves` sends the second half of its body when somebody comes to the barrier.
fn backend(barrier: Arc<Barrier>) -> SocketAddr {
    strict::listen(move |stream| {
        let mut reader = BufReader::new(stream);
        loop {
            let mut path = String::new();
            if reader.read_line(&mut path).unwrap_or(0) == 0 {
                return;
            }
            let path = path.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let say = |fields: &str, body: &[u8]| {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
                (&mut reader.get_ref()).write_all(&[head.as_bytes(), body].concat()).unwrap();
            };
            const JSON: &str = "content-type: application/json\r\n";
            match path.as_str() {
                "/hits" => say(JSON, HITS.as_bytes()),
                "/nothing" => say(JSON, NOTHING.as_bytes()),
                "/packed" => say(&format!("{JSON}content-encoding: gzip\r\n"), &gzip(HITS)),
                "/html" => say("content-type: text/html\r\n", HITS.as_bytes()),
                "/broken" => say(JSON, b"{"),
                "/long" => say(JSON, &vec![b' '; 100_000]),
                "/halves" => {
                    let (first, second) = HITS.split_at(20);
                    let mut stream = reader.get_ref();
                    write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{JSON}\r\n{:x}\r\n{first}\r\n", first.len()).unwrap();
                    barrier.wait();
                    write!(stream, "{:x}\r\n{second}\r\n0\r\n\r\n", second.len()).unwrap();
                }
                _ => say("", b""),
            }
        }
    })
}

fn router(backend: SocketAddr, sample: &str) -> Router {
    let signals = format!(
        "signals = {{ sample_percent = \"{sample}\", max_body = \"4KiB\", results = \"/hits/total\", ids = \"/hits/hits/*/_id\", scores = \"/hits/hits/*/_score\" }}"
    );
    Setup::default().pool_at("blue", backend).route(&signals).start()
}

/// The body as it came.
fn ask(router: &Router, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    answer.split_off(end + 4)
}

fn blue(router: &Router) -> Value {
    let (_, body) = http::get(router.admin, "/api/v1/routes/search/quality").unwrap();
    let mut quality: Value = serde_json::from_str(&body).unwrap();
    quality["totals"].get_mut(0).map(Value::take).unwrap_or_default()
}

#[test]
fn what_bodies_say_is_counted_and_they_pass_as_they_are() {
    let barrier = Arc::new(Barrier::new(2));
    let router = router(backend(barrier.clone()), "100");
    assert_eq!(ask(&router, "/hits"), HITS.as_bytes());
    assert_eq!(ask(&router, "/nothing"), NOTHING.as_bytes());
    assert_eq!(ask(&router, "/packed"), gzip(HITS));
    assert_eq!(ask(&router, "/html"), HITS.as_bytes());
    assert_eq!((ask(&router, "/broken"), ask(&router, "/long").len()), (b"{".to_vec(), 100_000));
    // The first half is here before the backend has sent the second one.
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(b"GET /halves HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(&HITS.as_bytes()[..20]) && !seen.ends_with(format!("{}\r\n", &HITS[..20]).as_bytes()) {
        let mut piece = [0; 512];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    barrier.wait();
    stream.read_to_end(&mut seen).unwrap();
    let counted = eventually("all are counted", SOON, || Some(blue(&router)).filter(|blue| blue["zero_results"]["seen"] == 4));
    assert_eq!((&counted["zero_results"]["of_them"], &counted["quality"]["seen"]), (&1.into(), &3.into()), "{counted:#}");
    assert_eq!(counted["quality"]["mean"], 0.7);
    assert_eq!(router.metric("switchback_sampled_bodies_total", &[]), 6.0, "all but the page");
    let faults = |reason: &str| router.metric("switchback_sampled_body_faults_total", &[&format!("reason=\"{reason}\"")]);
    assert_eq!(["bad_json", "too_long", "missing", "busy"].map(faults), [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn only_a_sample_is_read() {
    let router = router(backend(Arc::new(Barrier::new(2))), "20");
    (0..500).for_each(|_| drop(ask(&router, "/hits")));
    eventually("some are counted", SOON, || (blue(&router)["requests"] == 500).then_some(()));
    let read = router.metric("switchback_sampled_bodies_total", &[]);
    assert!((60.0..140.0).contains(&read), "{read}");
}
