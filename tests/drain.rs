//! The promise: a router that is told to stop lets every query end that does so in time, tells its clients, and says how many it cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, flags, http};

const SOON: Duration = Duration::from_secs(20);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\n\r\n";

fn router(blue: &Backend, announce: &str, timeout: &str) -> Router {
    let keys = format!("[limits]\ndrain_timeout = \"{timeout}\"\n[lifecycle]\ndrain_announce = \"{announce}\"");
    Setup::default().pool("blue", &[blue]).top(&keys).start()
}

fn in_flight(router: &Router, queries: u64) {
    eventually("the queries are in flight", SOON, || (router.route()["pools"]["blue"]["in_flight"] == queries).then_some(()));
}

fn connect(router: &Router) -> TcpStream {
    let stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(GET.as_bytes()).unwrap();
    let mut bytes = [0; 4_096];
    let count = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn a_query_that_ends_in_time_is_answered() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Delay(Duration::from_secs(1)));
    let mut router = router(&blue, "100ms", "20s");
    let address = router.traffic;
    let query = std::thread::spawn(move || http::raw(address, GET).unwrap());
    in_flight(&router, 1);
    let (status, took) = router.terminate();
    let answer = query.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("blue"), "{answer}");
    assert_eq!(status.code(), Some(0), "{}", router.log());
    assert!(took < SOON, "{took:?}");
    assert!(router.log().contains("drained: every query was answered"), "{}", router.log());
}

#[test]
fn a_query_that_does_not_is_cut_off_and_counted() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Hang);
    let mut router = router(&blue, "100ms", "1s");
    let address = router.traffic;
    let queries: Vec<_> = (0..3).map(|_| std::thread::spawn(move || http::raw(address, GET))).collect();
    in_flight(&router, 3);
    let (status, took) = router.terminate();
    for query in queries {
        let answer = query.join().unwrap();
        assert!(answer.as_ref().is_ok_and(String::is_empty) || answer.is_err(), "{answer:?}");
    }
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(status.code(), Some(75), "{}", router.log());
    assert!(router.log().contains("3 queries and 0 upgraded connections were cut off"), "{}", router.log());
}

#[test]
fn who_has_an_answer_and_does_not_close_is_no_query_and_not_waited_for_beyond_the_limit() {
    let blue = Backend::start("blue");
    let keys = "[limits]\ndrain_timeout = \"1s\"\n[lifecycle]\ndrain_announce = \"0us\"";
    let mut router = Setup::default().pool("blue", &[&blue]).top(keys).route("max_request_body = \"1KiB\"").start();
    let mut stream = connect(&router);
    stream.write_all(b"POST /rank HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let (status, took) = router.terminate();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(status.code(), Some(0), "{}", router.log());
    drop(stream);
}

#[test]
fn clients_are_told_before_the_door_closes() {
    let blue = Backend::start("blue");
    let mut router = router(&blue, "4s", "20s");
    let (mut busy, mut idle) = (connect(&router), connect(&router));
    assert!(!ask(&mut busy).contains("connection: close"));
    assert!(!ask(&mut idle).contains("connection: close"));
    router.signal("TERM");
    eventually("it is not ready", SOON, || (http::get(router.admin, "/readyz").unwrap().0 == 503).then_some(()));
    // The worker hears of it a moment after the admin listener says so: until then its answers are as ever.
    eventually("a response says so", SOON, || ask(&mut busy).contains("connection: close").then_some(()));
    assert_eq!(busy.read(&mut [0; 8]).unwrap(), 0);
    let late = ask(&mut connect(&router));
    assert!(late.starts_with("HTTP/1.1 200") && late.contains("connection: close"), "who comes meanwhile is answered: {late}");
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0, "who stays silent is closed when all were told");
    eventually("nobody listens any more", SOON, || TcpStream::connect(router.traffic).is_err().then_some(()));
    assert_eq!(router.child_status().code(), Some(0));
}

#[test]
fn an_http2_client_is_told_and_finishes_its_streams() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::Delay(Duration::from_secs(1)));
    let mut router = router(&blue, "100ms", "20s");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(router.traffic).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let queries: Vec<_> = (0..4)
            .map(|_| {
                let request = Request::get("http://search.test/rank").body(Full::default()).unwrap();
                tokio::spawn(sender.send_request(request))
            })
            .collect();
        flags::eventually("all are in flight", SOON, || blue.arrivals() == 4).await;
        router.signal("TERM");
        for query in queries {
            let response = query.await.unwrap().unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "blue");
        }
        // The router's GOAWAY, without an error: the client knows that it must not use this connection any more.
        connection.await.unwrap().unwrap();
        assert!(sender.ready().await.is_err());
    });
    assert_eq!(router.child_status().code(), Some(0), "{}", router.log());
}

#[test]
fn a_websocket_has_until_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4_096];
            let count = stream.read(&mut bytes).unwrap();
            if String::from_utf8_lossy(&bytes[..count]).contains("upgrade: websocket") {
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").unwrap();
                std::thread::spawn(move || while let Ok(1..) = stream.read(&mut bytes) {});
            }
        }
    });
    let keys = "[limits]\ndrain_timeout = \"1s\"\n[lifecycle]\ndrain_announce = \"0us\"";
    let mut router = Setup::default().pool_at("blue", address).top(keys).start_unready();
    let mut client = connect(&router);
    client.write_all(b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").unwrap();
    assert!(client.read(&mut [0; 4_096]).unwrap() > 0);
    let is_upgraded = || router.metric("switchback_worker_connections", &["upgraded"]) == 1.0;
    eventually("it is one", SOON, || is_upgraded().then_some(()));
    let started = Instant::now();
    let (status, _) = router.terminate();
    assert!(started.elapsed() >= Duration::from_millis(900), "it has its time");
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    assert_eq!(status.code(), Some(75));
    assert!(router.log().contains("0 queries and 1 upgraded connections were cut off"), "{}", router.log());
}

#[test]
fn a_drain_under_load_costs_no_query_of_who_heeds_it() {
    let blue = Backend::start("blue");
    let mut router = router(&blue, "5s", "20s");
    let load = Load::new(router.traffic, 500).start();
    load.wait_for(500);
    router.signal("TERM");
    eventually("it is not ready", SOON, || (http::get(router.admin, "/readyz").unwrap().0 == 503).then_some(()));
    load.wait_for(load.sent() + 200);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(router.child_status().code(), Some(0), "{}", router.log());
}
