//! The promise: while a rollout mirrors, what the copy of a query is answered is compared with what the query was, and nobody who asks notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use switchback::vocabulary::Copies;
use switchback_tests::fleet::Fleet;
use switchback_tests::over_h2::{connect, get, run};
use switchback_tests::{Router, Setup, eventually, http, strict};

const SOON: Duration = Duration::from_secs(20);
const JSON: &str = "content-type: application/json\r\n";
/// Longer than this test takes.
const ROLLOUT: &str = "rollout = { mirror_percent = \"100\", mirror = \"10m\", steps = [\"10\"] }";

/// How a backend answers a path; lists are the letters of a text.
enum Answer {
    List(&'static str),
    Packed(&'static str),
    Chunked(&'static str),
    Text(&'static str),
    Html(&'static str),
    Status(u16),
    /// Longer than is read.
    Long,
    /// Closes in the middle of its body.
    Breaks,
    /// Sends until nobody takes it.
    Endless,
}

fn live(path: &str) -> Answer {
    match path {
        "/packed" => Answer::Packed("ab"),
        "/chunked" => Answer::Chunked("ab"),
        "/empty" => Answer::List(""),
        "/html" => Answer::Html("abc"),
        "/down" => Answer::Status(500),
        "/gone" => Answer::Status(404),
        "/long" => Answer::Long,
        "/live-breaks" => Answer::Breaks,
        "/endless" => Answer::Endless,
        _ => Answer::List("abc"),
    }
}

fn candidate(path: &str) -> Answer {
    match path {
        "/packed" | "/chunked" => Answer::List("ab"),
        "/packed-copy" => Answer::Packed("abc"),
        "/other" => Answer::List("bad"),
        "/empty" | "/nothing" => Answer::List(""),
        "/nonsense" => Answer::Text("{"),
        "/fails" => Answer::Status(500),
        "/gone" | "/refused" => Answer::Status(404),
        "/long" => Answer::Long,
        "/breaks" => Answer::Breaks,
        _ => Answer::List("abc"),
    }
}

fn list(letters: &str) -> String {
    let hits: Vec<String> = letters.chars().map(|id| format!("{{\"id\": \"{id}\"}}")).collect();
    format!("{{\"hits\": [{}]}}", hits.join(", "))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packing.write_all(text.as_bytes()).unwrap();
    packing.finish().unwrap()
}

/// Reads a request: its path; `None` when the other side closes.
fn next(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut path, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    path
}

fn backend(script: fn(&str) -> Answer) -> SocketAddr {
    strict::listen(move |stream| {
        let mut reader = BufReader::new(stream);
        while let Some(path) = next(&mut reader) {
            if !say(reader.get_mut(), script(&path)) {
                return;
            }
        }
    })
}

/// Whether the connection may be used again.
fn say(stream: &mut TcpStream, answer: Answer) -> bool {
    let mut send = |status: u16, fields: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).is_ok()
    };
    match answer {
        Answer::List(letters) => send(200, JSON, list(letters).as_bytes()),
        Answer::Packed(letters) => send(200, &format!("{JSON}content-encoding: gzip\r\n"), &gzip(&list(letters))),
        Answer::Text(text) => send(200, JSON, text.as_bytes()),
        Answer::Html(letters) => send(200, "content-type: text/html\r\n", list(letters).as_bytes()),
        Answer::Status(status) => send(status, JSON, list("abc").as_bytes()),
        Answer::Long => send(200, JSON, &vec![b' '; 100_000]),
        Answer::Chunked(letters) => {
            let list = list(letters);
            let (first, second) = list.split_at(5);
            let (before, after) = (first.len(), second.len());
            let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{JSON}\r\n{before:x}\r\n{first}\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            write!(stream, "{after:x}\r\n{second}\r\n0\r\n\r\n").is_ok()
        }
        Answer::Breaks => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n{JSON}\r\nhalf of it");
            false
        }
        Answer::Endless => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{JSON}\r\n");
            let chunk = format!("400\r\n{}\r\n", " ".repeat(1_024));
            while stream.write_all(chunk.as_bytes()).is_ok() {}
            false
        }
    }
}

/// Blue is v1 and live; canary and green are v2.
fn router(route: &str) -> Router {
    let (live, candidate) = (backend(live), backend(candidate));
    let setup = Setup::default().pool_at("blue", live).pool_keys("version = \"v1\"").pool_at("green", candidate);
    let setup = setup.pool_keys("version = \"v2\"").pool_at("canary", candidate).pool_keys("version = \"v2\"");
    let signals = "signals = { sample_percent = \"100\", max_body = \"4KiB\", ids = \"/hits/*/id\" }";
    setup.route(&format!("{signals}\n{route}")).start()
}

fn start_rollout(router: &Router) {
    eventually("it begins", SOON, || (router.run(&["rollout", "start", "search"]).0 == 0).then_some(()));
    eventually("it mirrors", SOON, || (router.route()["rollout"]["phase"] == "mirroring").then_some(()));
}

fn ask(router: &Router, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    http::raw(router.traffic, &format!("{head}{body}")).unwrap()
}

/// What the router tells of its own copies.
fn copies(router: &Router) -> Copies {
    let seen = router.route()["routers"][0]["copies"]["copies"].clone();
    serde_json::from_value(seen).unwrap_or_default()
}

fn eventually_counted(router: &Router, expected: Copies) {
    let counted = eventually("all copies are over", SOON, || Some(copies(router)).filter(|copies| copies.sent >= expected.sent));
    assert_eq!(counted, expected);
}

fn compared(router: &Router, result: &str) -> f64 {
    router.metric("switchback_mirror_compared_total", &["pool=\"canary\"", &format!("result=\"{result}\"")])
}

#[test]
fn lists_are_compared_however_they_come() {
    let router = router(ROLLOUT);
    start_rollout(&router);
    for (method, path, body) in [
        ("GET", "/same", ""),
        ("POST", "/other", "shoes"),
        ("GET", "/packed", ""),
        ("POST", "/packed-copy", "red shoes"),
        ("GET", "/chunked", ""),
        ("GET", "/nothing", ""),
        ("GET", "/empty", ""),
    ] {
        assert!(ask(&router, method, path, body).starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(ask(&router, "GET", "/same", "").ends_with(&list("abc")), "it passes as it is");
    run(async {
        let mut sender = connect(&router).await;
        let (response, _) = sender.send_request(get("/other"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut whole = Vec::new();
        while let Some(data) = body.data().await {
            whole.extend_from_slice(&data.unwrap());
        }
        assert_eq!(String::from_utf8(whole).unwrap(), list("abc"));
    });
    // The two of /other share half of their results, those of /nothing none, and the others all.
    let all = Copies { sent: 9, failed: 0, compared: 9, top1_changed: 3, jaccard_micros: 7_000_000, unread: 0 };
    eventually_counted(&router, all);
    assert_eq!(["same_top1", "changed_top1", "unread"].map(|result| compared(&router, result)), [6.0, 3.0, 0.0]);
    eventually("the sample is read as well", SOON, || {
        (router.metric("switchback_sampled_bodies_total", &["pool=\"blue\""]) >= 9.0).then_some(())
    });
    // It is over, and what became of its copies is still told.
    let (code, said, error) = router.run(&["rollout", "abort", "search", "--why", "seen enough"]);
    assert_eq!(code, 0, "{said}{error}");
    eventually("it is over", SOON, || (router.route()["rollout"]["phase"] == "aborted").then_some(()));
    assert_eq!(copies(&router), all);
    assert_eq!(router.route()["routers"][0]["copies"]["rollout"].as_str().map(str::len), Some(32));
}

#[test]
fn what_cannot_be_compared_is_counted_as_what_it_is() {
    let router = router(ROLLOUT);
    start_rollout(&router);
    // Says nothing of the copy; and one is not sent.
    assert!(ask(&router, "GET", "/down", "").starts_with("HTTP/1.1 500"));
    assert!(ask(&router, "PUT", "/same", "").starts_with("HTTP/1.1 200"));
    // Failed.
    for path in ["/fails", "/refused", "/breaks"] {
        assert!(ask(&router, "GET", path, "").ends_with(&list("abc")), "{path}");
    }
    // Unread.
    for path in ["/html", "/nonsense", "/long"] {
        assert!(ask(&router, "GET", path, "").starts_with("HTTP/1.1 200"), "{path}");
    }
    // No list to compare, or not all of it, and the copy is not to blame.
    assert!(ask(&router, "GET", "/gone", "").starts_with("HTTP/1.1 404"));
    let query = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: search.test\r\n\r\n");
    // Its client sees its connection reset, or what there was before.
    let _ = http::raw(router.traffic, &query("/live-breaks"));
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.write_all(query("/endless").as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 512]).unwrap() > 0);
    drop(stream);
    run(async {
        let mut sender = connect(&router).await;
        let (response, _) = sender.send_request(get("/endless"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(!body.data().await.unwrap().unwrap().is_empty());
    });
    eventually_counted(&router, Copies { sent: 10, failed: 3, compared: 0, top1_changed: 0, jaccard_micros: 0, unread: 3 });
    assert_eq!(["same_top1", "changed_top1", "unread"].map(|result| compared(&router, result)), [0.0, 0.0, 3.0]);
}

#[test]
fn copies_that_no_rollout_asked_for_are_not_compared() {
    let router = router("");
    router.set_flags(&["mirror_percent=100"]);
    (0..5).for_each(|_| drop(ask(&router, "GET", "/other", "")));
    let answered = || router.metric("switchback_mirrored_total", &["pool=\"canary\"", "result=\"answered\""]);
    eventually("they are sent", SOON, || (answered() >= 5.0).then_some(()));
    assert_eq!((copies(&router), compared(&router, "changed_top1")), (Copies::default(), 0.0));
}

/// The backends answer no JSON here, and the route does not say where a list is: failures count.
#[test]
fn each_router_tells_the_others_what_became_of_its_copies() {
    let fleet = Fleet::start();
    let routers = fleet.routers(&fleet.redis.url(), "", ROLLOUT);
    start_rollout(&routers[0]);
    for (router, queries) in routers.iter().zip([3, 5]) {
        eventually("it mirrors", SOON, || (router.route()["mirror_percent"] == 100.0).then_some(()));
        (0..queries).for_each(|_| assert!(ask(router, "GET", "/", "").contains(" 200 ")));
    }
    for router in &routers {
        let told = |id: &str| -> Copies {
            let route = router.route();
            let seen = route["routers"].as_array().unwrap().iter().find(|seen| seen["id"] == id).cloned().unwrap_or_default();
            serde_json::from_value(seen["copies"]["copies"].clone()).unwrap_or_default()
        };
        let sent = |sent: u64| Copies { sent, ..Copies::default() };
        eventually("what both sent", SOON, || (told("one") == sent(3) && told("other") == sent(5)).then_some(()));
    }
}
