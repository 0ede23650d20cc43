//! Interim responses and `Expect: 100-continue`: a hint comes before the answer, and a body is sent only to a backend that wants it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use switchback_tests::{Router, Setup};

const SOON: Duration = Duration::from_secs(5);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EXPECTING: &str =
    "POST /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

/// A backend under the test's hand: what it was sent on its connections, and what it shall say next.
struct Backend {
    address: SocketAddr,
    heard: Receiver<String>,
    says: SyncSender<&'static str>,
}

fn backend() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = sync_channel(64);
    let (says, lines) = sync_channel::<&'static str>(64);
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut hears = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = hears.read(&mut bytes) {
                let _ = tell.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            }
        });
        while let Ok(text) = lines.recv() {
            stream.write_all(text.as_bytes()).unwrap();
        }
    });
    Backend { address, heard, says }
}

fn before(backend: &Backend, limits: &str) -> Router {
    let quiet = "health = { interval = \"0us\" }";
    let setup = Setup::default().top(&format!("[limits]\n{limits}"));
    setup.bare_pool_at("blue", backend.address, quiet).start_unready()
}

fn connect(router: &Router, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_hint_arrives_before_the_answer_exists() {
    let backend = backend();
    let router = before(&backend, "");
    let mut stream = connect(&router, GET);
    backend.heard.recv_timeout(SOON).unwrap();
    for _ in 0..3 {
        backend.says.send(HINT).unwrap();
        assert_eq!(read_head(&mut stream), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
    }
    backend.says.send(OK).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_hint_that_comes_with_the_answer_comes_before_it_and_http_1_0_gets_none() {
    const BOTH: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let backend = backend();
    let router = before(&backend, "");
    let ask = |request: &str| {
        let mut stream = connect(&router, request);
        backend.heard.recv_timeout(SOON).unwrap();
        backend.says.send(BOTH).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    let response = ask(GET);
    assert!(
        response.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n") && response.ends_with("ok"),
        "{response}"
    );
    let response = ask("GET /rank HTTP/1.0\r\nhost: search.test\r\n\r\n");
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && !response.contains("103"), "{response}");
}

#[test]
fn a_backend_that_says_no_gets_no_body() {
    let backend = backend();
    let router = before(&backend, "expect_timeout = \"1m\"");
    let mut stream = connect(&router, &EXPECTING.replace("connection: close\r\n", ""));
    assert!(backend.heard.recv_timeout(SOON).unwrap().contains("expect: 100-continue\r\n"));
    backend.says.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 4\r\n\r\nnope").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 417 Expectation Failed\r\n") && response.ends_with("nope"), "{response}");
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    assert!(backend.heard.try_recv().is_err(), "not a byte of a body");
}

#[test]
fn a_backend_that_says_continue_gets_the_body() {
    let backend = backend();
    let router = before(&backend, "expect_timeout = \"1m\"");
    let mut stream = connect(&router, EXPECTING);
    backend.heard.recv_timeout(SOON).unwrap();
    backend.says.send("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    assert_eq!(backend.heard.recv_timeout(SOON).unwrap(), "hello");
    backend.says.send(OK).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_backend_that_knows_no_expectations_gets_the_body_after_a_while() {
    let backend = backend();
    let router = before(&backend, "expect_timeout = \"200ms\"");
    let started = Instant::now();
    let mut stream = connect(&router, EXPECTING);
    backend.heard.recv_timeout(SOON).unwrap();
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(started.elapsed() >= Duration::from_millis(200));
    stream.write_all(b"hello").unwrap();
    assert_eq!(backend.heard.recv_timeout(SOON).unwrap(), "hello");
}

#[test]
fn a_client_that_does_not_take_its_hints_gets_an_unharmed_answer() {
    let link = "a".repeat(4 << 10);
    let hint: &'static str = Box::leak(format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n").into_boxed_str());
    let backend = backend();
    let router = before(&backend, "");
    let mut stream = connect(&router, GET);
    backend.heard.recv_timeout(SOON).unwrap();
    for _ in 0..4_000 {
        backend.says.send(hint).unwrap();
    }
    backend.says.send(OK).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (hints, answer) = response.split_at(response.find("HTTP/1.1 200").unwrap());
    assert!(hints.replace(hint, "").is_empty() && answer.ends_with("ok"), "{answer}");
    assert!(hints.len() < 4_000 * hint.len(), "what a client does not take is not kept for it");
}
