//! Protocols towards backends, and connections that become something else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(5);
const GET: &str = "GET /rank?q=a HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: search.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

#[test]
fn a_pool_may_speak_http2() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let router = Setup::default().pool("blue", &[&blue]).pool_keys("protocol = \"h2\"").start();
    let response = http::raw(router.traffic, GET).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("GET http://search.test/rank?q=a\nover h2\n") && response.contains("via: 1.1 switchback"), "{response}");
    blue.behave(Behaviour::Echo);
    let post = "POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert!(http::raw(router.traffic, post).unwrap().contains("hello"));
}

#[test]
fn an_http2_backend_that_restarts_costs_no_query() {
    let (mut one, other) = (Backend::start("blue"), Backend::start("blue"));
    let router = Setup::default().pool("blue", &[&one, &other]).pool_keys("protocol = \"h2\"").start();
    let load = Load::new(router.traffic, 300).start();
    for _ in 0..5 {
        let sent = load.sent();
        one.restart();
        load.wait_for(sent + 100);
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// A backend that agrees to what it is asked, says hello, and then echoes; or that answers with this text instead.
fn upgrading(instead: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let head = read_head(&mut stream);
                if !head.to_ascii_lowercase().contains("upgrade: websocket") {
                    let text = instead.unwrap_or("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    return stream.write_all(text.as_bytes()).unwrap();
                }
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello ";
                stream.write_all(instead.unwrap_or(agreed).as_bytes()).unwrap();
                let mut bytes = [0; 4_096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    stream.write_all(&bytes[..count]).unwrap();
                }
            });
        }
    });
    address
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn connect(router: &Router) -> TcpStream {
    let stream = TcpStream::connect(router.traffic).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_websocket_goes_through_and_ends_when_either_side_ends_it() {
    let mut router = Setup::default().pool_at("blue", upgrading(None)).start_unready();
    let mut stream = connect(&router);
    // What comes before the 101 waits for it, and is then the first that is heard.
    stream.write_all(format!("{UPGRADE}early ").as_bytes()).unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    for there in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: x\r\n"] {
        assert!(head.contains(there), "{head}");
    }
    assert_eq!(read_exactly(&mut stream, 12), "hello early ");
    for round in 0..50 {
        let text = format!("{round:04}");
        stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(read_exactly(&mut stream, 4), text);
    }
    let in_flight = || router.route()["pools"]["blue"]["in_flight"].as_u64().unwrap();
    assert_eq!(in_flight(), 1, "it counts as long as it lasts");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    eventually("it has ended", SOON, || (in_flight() == 0).then_some(()));
    assert_eq!(router.metric("switchback_requests_total", &["code=\"1xx\""]), 1.0);
    let (status, _) = router.terminate();
    assert!(status.success());
}

#[test]
fn what_is_not_allowed_passes_as_if_it_had_not_been_asked_for() {
    let router = Setup::default().pool_at("blue", upgrading(None)).start_unready();
    for upgrade in ["h2c", "websocket, h2c", "tls/1.0"] {
        let request =
            UPGRADE.replace("upgrade: websocket", &format!("upgrade: {upgrade}")).replace("keep-alive, Upgrade", "close, Upgrade");
        let response = http::raw(router.traffic, &request).unwrap();
        assert!(response.starts_with("HTTP/1.1 426"), "{upgrade}: {response}");
    }
    let unnamed = UPGRADE.replace("keep-alive, Upgrade", "close");
    assert!(http::raw(router.traffic, &unnamed).unwrap().starts_with("HTTP/1.1 426"), "Connection does not name it");
    let none = Setup::default().pool_at("blue", upgrading(None)).route("upgrades = []").start_unready();
    let request = UPGRADE.replace("keep-alive, Upgrade", "close, Upgrade");
    assert!(http::raw(none.traffic, &request).unwrap().starts_with("HTTP/1.1 426"), "the route allows none");
}

#[test]
fn a_backend_that_does_not_agree_is_answered_for_like_any_other() {
    let no = "HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnope";
    let router = Setup::default().pool_at("blue", upgrading(Some(no))).start_unready();
    let response = http::raw(router.traffic, &UPGRADE.replace("keep-alive, Upgrade", "close, Upgrade")).unwrap();
    assert!(response.starts_with("HTTP/1.1 403") && response.ends_with("nope"), "{response}");
}

#[test]
fn a_101_that_nobody_asked_for_is_a_broken_answer() {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    let router = Setup::default().pool_at("blue", upgrading(Some(agreed))).start_unready();
    let response = http::raw(router.traffic, GET).unwrap();
    assert!(response.starts_with("HTTP/1.1 502"), "{response}");
}

#[test]
fn a_101_is_for_what_was_asked_for_and_has_no_body() {
    let router_before = |fields: &str| {
        let agreed: &'static str = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n{fields}\r\n").leak();
        Setup::default().pool_at("blue", upgrading(Some(agreed))).start_unready()
    };
    for wrong in [
        "",
        "upgrade: h2c\r\n",
        "upgrade: websocket, h2c\r\n",
        "upgrade: websocket\r\nupgrade: h2c\r\n",
        "upgrade: websocket\r\ncontent-length: 0\r\n",
        "upgrade: websocket\r\ntransfer-encoding: chunked\r\n",
    ] {
        let router = router_before(wrong);
        let response = http::raw(router.traffic, &UPGRADE.replace("keep-alive, Upgrade", "close, Upgrade")).unwrap();
        assert!(response.starts_with("HTTP/1.1 502"), "{wrong:?}: {response}");
        assert_eq!(router.metric("switchback_broken_responses_total", &["reason=\"upgrade\""]), 1.0, "{wrong:?}");
    }
    let router = router_before("upgrade: WebSocket\r\n");
    let mut stream = connect(&router);
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

/// hyper reads what answers such a request instead.
#[test]
fn a_length_where_no_body_follows_is_refused_of_who_was_asked_to_upgrade_too() {
    for (text, status) in [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", "502"),
        ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", "502"),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: -1\r\n\r\n", "502"),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "204"),
    ] {
        let router = Setup::default().pool_at("blue", upgrading(Some(text))).start_unready();
        let response = http::raw(router.traffic, &UPGRADE.replace("keep-alive, Upgrade", "close, Upgrade")).unwrap();
        assert_eq!(response.get(9..12), Some(status), "{text:?}: {response}");
    }
}

#[test]
fn an_upgraded_connection_that_is_silent_is_closed() {
    let router = Setup::default().pool_at("blue", upgrading(None)).top("[limits]\nupgrade_idle_timeout = \"200ms\"").start_unready();
    let mut stream = connect(&router);
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    read_head(&mut stream);
    assert_eq!(read_exactly(&mut stream, 6), "hello ");
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn an_old_backends_version_is_its_own() {
    let old = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let router = Setup::default().pool_at("blue", upgrading(Some(old))).start_unready();
    let response = http::raw(router.traffic, GET).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"), "{response}");
    let response = http::raw(router.traffic, "GET /rank HTTP/1.0\r\nhost: search.test\r\n\r\n").unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nok"), "{response}");
}

#[test]
fn an_old_client_that_names_no_host_is_passed_with_an_empty_one() {
    let blue = Backend::start("blue");
    blue.behave(Behaviour::ShowHead);
    let router = Setup::default().pool("blue", &[&blue]).start();
    let response = http::raw(router.traffic, "GET /rank HTTP/1.0\r\n\r\n").unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.contains("\nhost: \n"), "{response}");
}
