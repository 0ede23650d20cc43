//! What HTTP/2 has of its own: tunnels on streams, streams that are cancelled, windows, connections that are told to go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response};
use switchback_tests::Setup;
use switchback_tests::over_h2::{connect, get, run};
use switchback_tests::scenes::Stage;

fn tunnel(protocol: &str) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri("http://search.test/chat").body(()).unwrap();
    request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
    request.extensions_mut().insert(Protocol::from(protocol));
    request
}

/// Asks for a WebSocket: the response and both ways.
async fn open(sender: &mut SendRequest<Bytes>, protocol: &str) -> (Response<()>, SendStream<Bytes>, RecvStream) {
    let (response, sends) = sender.send_request(tunnel(protocol), false).unwrap();
    let (head, comes) = response.await.unwrap().into_parts();
    (Response::from_parts(head, ()), sends, comes)
}

async fn echoed(sends: &mut SendStream<Bytes>, comes: &mut RecvStream, text: &'static str) -> String {
    sends.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
    let mut seen = Vec::new();
    while seen.len() < text.len() {
        let data = comes.data().await.unwrap().unwrap();
        comes.flow_control().release_capacity(data.len()).unwrap();
        seen.extend_from_slice(&data);
    }
    String::from_utf8(seen).unwrap()
}

/// A backend of HTTP/1.1 that answers each request with this.
fn answering(text: &'static str) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut head, mut bytes) = (Vec::new(), [0; 4_096]);
                while !head.ends_with(b"\r\n\r\n") {
                    let count = stream.read(&mut bytes).unwrap();
                    assert!(count > 0, "half a head");
                    head.extend_from_slice(&bytes[..count]);
                }
                stream.write_all(text.as_bytes()).unwrap();
                // Until the other side closes.
                let _ = stream.read(&mut bytes);
            });
        }
    });
    address
}

#[test]
fn a_websocket_is_a_stream_beside_others_and_outlives_the_time_of_a_query() {
    for protocol in ["http1", "h2"] {
        let backend = Stage::start();
        let limits = "[limits]\nquery_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\n";
        let keys = format!("protocol = \"{protocol}\"");
        let router = Setup::default().pool_at("blue", backend.address).pool_keys(&keys).top(limits).start();
        run(async {
            let mut sender = connect(&router).await;
            let (response, mut sends, mut comes) = open(&mut sender, "websocket").await;
            assert!(sender.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL");
            assert_eq!(response.status(), 200);
            for name in ["sec-websocket-accept", "upgrade", "connection"] {
                assert!(!response.headers().contains_key(name), "{name}");
            }
            assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(2_500) {
                assert_eq!(echoed(&mut sends, &mut comes, "hello").await, "hello", "{protocol}");
                switchback_tests::look_again().await;
            }
            let (response, _) = sender.send_request(get("/empty"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            let in_flight = || router.route()["pools"]["blue"]["in_flight"].as_u64().unwrap();
            assert_eq!(in_flight(), 1, "it counts as long as it lasts");
            sends.send_data(Bytes::new(), true).unwrap();
            assert!(comes.data().await.is_none_or(|data| data.unwrap().is_empty()), "the backend ends it too");
            while in_flight() > 0 {
                switchback_tests::look_again().await;
            }
        });
    }
}

#[test]
fn a_silent_tunnel_ends_and_a_drain_is_told_of_it() {
    let backend = Stage::start();
    let limits = "[limits]\nupgrade_idle_timeout = \"300ms\"\n";
    let mut router = Setup::default().pool_at("blue", backend.address).top(limits).start();
    run(async {
        let mut sender = connect(&router).await;
        let (_, _sends, mut comes) = open(&mut sender, "websocket").await;
        assert!(comes.data().await.is_none_or(|end| end.is_err()), "nothing moved");
        let (_, mut sends, mut comes) = open(&mut sender, "websocket").await;
        router.signal("TERM");
        // The connection takes no more, and what is open goes on.
        while !matches!(sender.clone().ready().await, Err(error) if error.is_go_away()) {
            assert_eq!(echoed(&mut sends, &mut comes, "still here").await, "still here");
            switchback_tests::look_again().await;
        }
        assert_eq!(echoed(&mut sends, &mut comes, "still here").await, "still here");
    });
    assert!(router.terminate().0.success());
}

#[test]
fn a_tunnel_that_is_cut_off_is_told_as_one() {
    let backend = Stage::start();
    let keys = "[limits]\ndrain_timeout = \"500ms\"\n[lifecycle]\ndrain_announce = \"0us\"";
    let mut router = Setup::default().pool_at("blue", backend.address).top(keys).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _open = runtime.block_on(async {
        let mut sender = connect(&router).await;
        (open(&mut sender, "websocket").await, sender)
    });
    assert_eq!(router.terminate().0.code(), Some(75));
    assert!(router.log().contains("0 queries and 1 upgraded connections were cut off"), "{}", router.log());
}

#[test]
fn what_a_route_does_not_allow_is_refused() {
    let backend = Stage::start();
    let router = Setup::default().pool_at("blue", backend.address).start();
    run(async {
        let mut sender = connect(&router).await;
        let (response, _, _) = open(&mut sender, "connect-udp").await;
        assert_eq!(response.status(), 405);
        let plain = Request::builder().method(Method::CONNECT).uri("search.test:443").body(()).unwrap();
        assert_eq!(sender.send_request(plain, false).unwrap().0.await.unwrap().status(), 405);
        let mut long = tunnel("websocket");
        long.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        assert_eq!(sender.send_request(long, false).unwrap().0.await.unwrap().status(), 405, "a tunnel has no length");
    });
    assert_eq!(backend.heads(), 0);
    assert_eq!(router.metric("switchback_refusals_total", &["reason=\"method\""]), 3.0);
}

#[test]
fn a_backend_that_did_not_agree_opens_no_tunnel() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const WRONG_KEY: &str =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
    const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    for (text, status) in [(OK, 502), (WRONG_KEY, 502), (FORBIDDEN, 403)] {
        let router = Setup::default().bare_pool_at("blue", answering(text), "health = { interval = \"0us\" }").start_unready();
        let (response, end) = run(async {
            let mut sender = connect(&router).await;
            let (response, _, mut comes) = open(&mut sender, "websocket").await;
            (response, comes.data().await.unwrap().unwrap())
        });
        assert_eq!(response.status(), status, "{text:?}");
        assert!(status != 403 || end == "no", "{end:?}");
    }
}

/// The rest of an upload that was cancelled never comes, and nobody is made to believe that it has come.
#[test]
fn a_cancelled_upload_is_never_a_whole_one() {
    for protocol in ["http1", "h2"] {
        let backend = Stage::start();
        let router = Setup::default().pool_at("blue", backend.address).pool_keys(&format!("protocol = \"{protocol}\"")).start();
        run(async {
            let mut sender = connect(&router).await;
            for round in 0..200 {
                let post = Request::post("http://search.test/up").body(()).unwrap();
                let (_response, mut upload) = sender.send_request(post, false).unwrap();
                upload.send_data(Bytes::from_static(b"half"), false).unwrap();
                if round % 2 == 0 {
                    let before = backend.heads();
                    while backend.heads() <= before {
                        switchback_tests::look_again().await;
                    }
                }
                upload.send_reset(Reason::CANCEL);
                sender = sender.ready().await.unwrap();
            }
            let (response, _) = sender.send_request(get("/empty"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        });
        let got = backend.take_got().unwrap();
        assert_eq!(got.line, "GET /empty", "{protocol}: {got:?}");
    }
}

/// A client that does not read what it asked for does not hold up others, whose queries share a connection to the backend with its own.
#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let backend = Stage::start();
    let router = Setup::default().pool_at("blue", backend.address).pool_keys("protocol = \"h2\"").start();
    run(async {
        let mut stuck = Vec::new();
        for _ in 0..4 {
            let mut sender = connect(&router).await;
            let (response, _) = sender.send_request(get("/down"), true).unwrap();
            // The head is here, and nothing of the body is taken.
            stuck.push((response.await.unwrap(), sender));
        }
        let mut sender = connect(&router).await;
        for _ in 0..50 {
            let (response, _) = sender.send_request(get("/length"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "hello world");
        }
    });
}

#[test]
fn answers_of_the_routers_own_have_no_body_where_there_can_be_none() {
    let backend = Stage::start();
    let router = Setup::default().pool_at("blue", backend.address).start();
    run(async {
        let mut sender = connect(&router).await;
        let head = Request::head("http://search.test/rank").header("host", "other.test").body(()).unwrap();
        let response = sender.send_request(head, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 400);
        assert!(response.headers().contains_key("content-length") && response.headers().contains_key("date"));
        assert!(response.into_body().data().await.is_none());
    });
}
