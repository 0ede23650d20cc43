//! Whose word about a client is taken: `listen.trusted_proxies`, and nobody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Router, Setup, http};

const SAID: &str = "x-forwarded-for: 203.0.113.9\r\nx-forwarded-for: 10.1.1.1\r\nx-forwarded-proto: https\r\n\
                    x-forwarded-host: search.example\r\nx-forwarded-port: 443\r\nforwarded: for=203.0.113.9;proto=https\r\n";

fn before(blue: &Backend, trusted: &str) -> Router {
    blue.behave(Behaviour::ShowHead);
    Setup::default().pool("blue", &[blue]).listen(trusted).start()
}

fn sent(router: &Router, said: &str) -> String {
    let response =
        http::raw(router.traffic, &format!("GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n{said}\r\n")).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response
}

#[test]
fn a_trusted_proxys_word_passes_and_is_added_to() {
    let blue = Backend::start("blue");
    let router = before(&blue, "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1\"]");
    let seen = sent(&router, SAID);
    for there in [
        "x-forwarded-for: 203.0.113.9, 10.1.1.1, 127.0.0.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-host: search.example\n",
        "x-forwarded-port: 443\n",
        "forwarded: for=203.0.113.9;proto=https, for=127.0.0.1;proto=http\n",
    ] {
        assert!(seen.contains(there), "{there} is missing in\n{seen}");
    }
    let plain = sent(&router, "");
    assert!(plain.contains("x-forwarded-for: 127.0.0.1\n") && plain.contains("x-forwarded-proto: http\n"), "{plain}");
}

#[test]
fn nobody_elses_does() {
    let blue = Backend::start("blue");
    let router = before(&blue, "trusted_proxies = [\"10.0.0.0/8\"]");
    let seen = sent(&router, SAID);
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\n") && seen.contains("x-forwarded-proto: http\n"), "{seen}");
    for gone in ["203.0.113.9", "x-forwarded-host", "x-forwarded-port", "forwarded: for="] {
        assert!(!seen.contains(gone), "{gone} is there in\n{seen}");
    }
}

#[test]
fn the_unit_is_the_clients_address_and_not_its_proxys() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let half = "initial = { live = \"blue\", canary_percent = \"50\" }";
    let pools = |address: &str, trusted: &str| -> Vec<String> {
        let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(half).listen(trusted).start();
        let said = |client: u8| format!("x-forwarded-for: 198.51.100.{client}, {address}\r\n");
        (0..40).map(|client| sent(&router, &said(client))).map(|response| response.rsplit('\n').next().unwrap().to_owned()).collect()
    };
    let distinct = |pools: Vec<String>| pools.into_iter().collect::<BTreeSet<String>>().len();
    let trusted = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    assert_eq!(distinct(pools("10.9.9.9", trusted)), 2, "each client is a unit of its own");
    assert_eq!(distinct(pools("192.0.2.77", trusted)), 1, "the right-most address that is not trusted is the same for all");
    assert_eq!(distinct(pools("10.9.9.9", "")), 1, "without trust all are the peer");
}

/// What comes back over HTTP/2 for this request: its status, and its body as text.
fn over_h2(address: SocketAddr, request: ::http::Request<()>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let (head, mut body) = sender.send_request(request, true).unwrap().0.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(bytes) = body.data().await {
            text.extend_from_slice(&bytes.unwrap());
        }
        (head.status.as_u16(), String::from_utf8(text).unwrap())
    })
}

#[test]
fn over_http2_a_host_beside_the_authority_must_be_the_same() {
    let blue = Backend::start("blue");
    let router = before(&blue, "");
    let ask = |host: &str| over_h2(router.traffic, ::http::Request::get("http://search.test/rank").header("host", host).body(()).unwrap());
    let (status, seen) = ask("search.test");
    assert!(status == 200 && seen.contains("host: search.test\n"), "{status} {seen}");
    assert_eq!(ask("evil.test").0, 400);
    assert_eq!(router.metric("switchback_refusals_total", &["reason=\"host\""]), 1.0);
}

#[test]
fn a_cookie_that_came_in_pieces_over_http2_is_one_for_a_backend() {
    let blue = Backend::start("blue");
    let router = before(&blue, "");
    let request = ::http::Request::get("http://search.test/rank").header("cookie", "a=1").header("x-a", "1").header("cookie", "b=2");
    let (_, seen) = over_h2(router.traffic, request.body(()).unwrap());
    assert!(seen.contains("cookie: a=1; b=2\n") && seen.matches("cookie: ").count() == 1, "{seen}");
}

/// A backend that answers one request, of which it tells, with trailers.
fn with_trailers() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = sync_channel(1);
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let (mut request, mut part) = (String::new(), [0; 4_096]);
        while !(request.contains("\r\n0\r\n") && request.ends_with("\r\n\r\n")) {
            let count = stream.read(&mut part).unwrap();
            assert!(count > 0, "{request}");
            request.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
        tell.send(request).unwrap();
        let names = "trailer: x-sum, x-switchback-pool, x-forwarded-for, connection, via\r\ntransfer-encoding: chunked\r\n";
        let fields = "x-sum: 1\r\nx-switchback-pool: evil\r\nx-forwarded-for: evil\r\nconnection: evil\r\nvia: evil\r\n";
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{names}\r\n2\r\nok\r\n0\r\n{fields}\r\n").as_bytes()).unwrap();
    });
    (address, heard)
}

#[test]
fn trailers_say_nothing_that_belongs_into_a_head() {
    for (fields, left) in [("x-sum: 1\r\n", "x-sum: 1\r\n"), ("", "")] {
        let (address, heard) = with_trailers();
        let router = Setup::default().bare_pool_at("blue", address, "health = { interval = \"0us\" }").start_unready();
        let request = format!(
            "POST /rank HTTP/1.1\r\nhost: search.test\r\nte: trailers\r\nconnection: te, close\r\ntransfer-encoding: chunked\r\n\
             trailer: x-sum, x-forwarded-for, x-switchback-mirror, forwarded, via, connection, host\r\n\r\n2\r\nhi\r\n0\r\n{fields}\
             X-Forwarded-For: evil\r\nX-Switchback-Mirror: evil\r\nForwarded: evil\r\nVia: evil\r\nConnection: evil\r\nHost: evil\r\n\r\n"
        );
        let response = http::raw(router.traffic, &request).unwrap();
        let sent = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(sent.ends_with(&format!("\r\n2\r\nhi\r\n0\r\n{left}\r\n")), "{sent}");
        assert!(response.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), "{response}");
    }
}
