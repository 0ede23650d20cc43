//! What HTTP/2 has of its own: tunnels on streams, streams that are cancelled, windows, connections that are told to go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response};
use switchback_tests::frames::{END_HEADERS, END_STREAM, GO_AWAY, HEADERS, SETTINGS, frame};
use switchback_tests::scenes::Stage;
use switchback_tests::{Backend, Behaviour, Router, Setup, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("in time") })
}

async fn connect(router: &Router) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(TcpStream::connect(router.traffic).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://search.test{path}")).body(()).unwrap()
}

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

/// A backend whose connections are served by `serve`, which is told their number.
fn served<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let stream = listener.accept().await.unwrap().0;
                tokio::task::spawn_local(serve(stream, counted.fetch_add(1, Ordering::SeqCst)));
            }
        });
    });
    (address, connections)
}

/// Before a pool of that one backend, which nobody checks.
fn before(address: SocketAddr, route: &str) -> Router {
    let keys = "protocol = \"h2\"\nhealth = { interval = \"0us\" }";
    Setup::default().route(route).bare_pool_at("blue", address, keys).start_unready()
}

async fn accept(stream: TcpStream, streams: u32) -> h2::server::Connection<TcpStream, Bytes> {
    h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream).await.unwrap()
}

fn answer(respond: &mut SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// A backend says of a stream that it has not begun with it: it is sent again, whatever its method, and with its body.
#[test]
fn a_query_that_was_refused_is_sent_again() {
    let whole = Arc::new(AtomicUsize::new(0));
    let seen = whole.clone();
    let (address, _) = served(move |stream, number| {
        let seen = seen.clone();
        async move {
            let mut connection = accept(stream, 100).await;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if number == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    continue;
                }
                let (seen, mut body) = (seen.clone(), request.into_body());
                tokio::task::spawn_local(async move {
                    assert_eq!(body.data().await.unwrap().unwrap(), "hello");
                    seen.fetch_add(1, Ordering::SeqCst);
                    answer(&mut respond);
                });
            }
        }
    });
    let router = before(address, "");
    run(async {
        let mut sender = connect(&router).await;
        for method in [Method::PATCH, Method::DELETE, Method::POST] {
            let request = Request::builder().method(method.clone()).uri("http://search.test/rank").body(()).unwrap();
            let (response, mut upload) = sender.send_request(request, false).unwrap();
            upload.send_data(Bytes::from_static(b"hello"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200, "{method}");
        }
    });
    assert_eq!(whole.load(Ordering::SeqCst), 3);
    assert_eq!(router.metric("switchback_requests_total", &["code=\"failure\""]), 0.0, "nobody failed");
}

/// A host that vanished says nothing, not even that it is gone: one query waits for it in vain, and not all that come after.
#[test]
fn a_connection_that_has_gone_silent_gets_nothing_more() {
    let (address, connections) = served(|stream, number| async move {
        let mut connection = accept(stream, 100).await;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            answer(&mut respond);
            if number == 0 {
                // The answer goes out with the look for the second query, and nothing is looked for after that.
                let _second = connection.accept().await;
                return std::future::pending().await;
            }
        }
    });
    let router = before(address, "timeouts = { attempt = \"300ms\", total = \"1s\" }");
    run(async {
        let mut sender = connect(&router).await;
        let mut ask = async || sender.send_request(get("/rank"), true).unwrap().0.await.unwrap().status().as_u16();
        assert_eq!((ask().await, ask().await), (200, 504));
        for _ in 0..20 {
            assert_eq!(ask().await, 200);
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_burst_shares_what_the_first_of_it_opens() {
    let (address, connections) = served(|stream, _| async move {
        let mut connection = accept(stream, 100).await;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            answer(&mut respond);
        }
    });
    let router = before(address, "");
    run(async {
        let mut sender = connect(&router).await;
        let answers: Vec<_> = (0..100).map(|_| sender.send_request(get("/rank"), true).unwrap().0).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert!(connections.load(Ordering::SeqCst) <= 2, "{connections:?} for a hundred queries at once");
}

#[test]
fn a_connection_that_is_full_is_not_waited_for() {
    let (streams, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    // Two streams at a time on each connection, and none is answered before there are six.
    let (address, connections) = served(move |stream, _| {
        let (streams, all) = (streams.clone(), all.clone());
        async move {
            let mut connection = accept(stream, 2).await;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let (streams, all) = (streams.clone(), all.clone());
                tokio::task::spawn_local(async move {
                    let waits = all.notified();
                    if streams.fetch_add(1, Ordering::SeqCst) == 5 {
                        all.notify_waiters();
                    } else {
                        waits.await;
                    }
                    answer(&mut respond);
                });
            }
        }
    });
    let router = before(address, "");
    run(async {
        let mut sender = connect(&router).await;
        let mut answers = Vec::new();
        for number in 0..6 {
            answers.push(sender.send_request(get("/rank"), true).unwrap().0);
            // One after the other: each sees how full the connections are that the ones before it have taken. The sixth ends the wait of all.
            while number < 5 && router.route()["pools"]["blue"]["in_flight"].as_u64().unwrap() <= number {
                switchback_tests::look_again().await;
            }
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert!(connections.load(Ordering::SeqCst) >= 3, "{connections:?} of two streams each");
}

/// A backend that goes away takes no query with it that it had not begun, whatever its method.
#[test]
fn a_backend_that_is_going_gets_no_more() {
    let (mut one, other) = (Backend::start("blue"), Backend::start("blue"));
    other.behave(Behaviour::Echo);
    one.behave(Behaviour::Echo);
    let router =
        Setup::default().pool("blue", &[&one, &other]).pool_keys("protocol = \"h2\"").route("replayable_methods = [\"GET\"]").start();
    run(async {
        let mut sender = connect(&router).await;
        let post = async |sender: &mut SendRequest<Bytes>| {
            let request = Request::post("http://search.test/rank").body(()).unwrap();
            let (response, mut upload) = sender.send_request(request, false).unwrap();
            upload.send_data(Bytes::from_static(b"hello"), true).unwrap();
            response.await.unwrap().status()
        };
        for _ in 0..20 {
            assert_eq!(post(&mut sender).await, 200);
        }
        one.stop();
        for _ in 0..20 {
            assert_eq!(post(&mut sender).await, 200, "nothing of it was sent to who had gone");
        }
    });
    eventually("it is found out", SOON, || (router.route()["pools"]["blue"]["healthy"] == 1).then_some(()));
}

/// Reads frames until so many heads have come.
async fn heads(stream: &mut TcpStream, most: usize) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    let (mut head, mut seen) = ([0; 9], 0);
    while seen < most {
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        tokio::io::copy(&mut (&mut *stream).take(length as u64), &mut tokio::io::sink()).await.unwrap();
        seen += usize::from(head[3] == HEADERS);
    }
}

/// The last stream that a GOAWAY names may have been begun with; those above it were not.
#[test]
fn what_is_above_the_last_stream_of_a_goaway_is_sent_again_and_nothing_else() {
    const QUERIES: usize = 3;
    for (reason, is_answered) in [(Reason::NO_ERROR, true), (Reason::NO_ERROR, false), (Reason::ENHANCE_YOUR_CALM, false)] {
        let (address, connections) = served(move |mut stream, number| async move {
            if number > 0 {
                let mut connection = accept(stream, 100).await;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    answer(&mut respond);
                }
                return;
            }
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            heads(&mut stream, QUERIES).await;
            let last_and_reason = [1_u32.to_be_bytes(), u32::from(reason).to_be_bytes()].concat();
            stream.write_all(&frame(GO_AWAY, 0, 0, &last_and_reason)).await.unwrap();
            if is_answered {
                // The first entry of HPACK's table that is a status: 200.
                stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])).await.unwrap();
            }
            stream.shutdown().await.unwrap();
            // A reset would overtake what was said.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
        });
        let router = before(address, "");
        let statuses = run(async {
            let mut sender = connect(&router).await;
            let patch = || Request::patch("http://search.test/rank").body(()).unwrap();
            let answers: Vec<_> = (0..QUERIES).map(|_| sender.send_request(patch(), true).unwrap().0).collect();
            let mut statuses = Vec::new();
            for answer in answers {
                statuses.push(answer.await.unwrap().status().as_u16());
            }
            statuses.sort_unstable();
            statuses
        });
        assert_eq!(statuses, [200, 200, if is_answered { 200 } else { 502 }], "{reason:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{reason:?}");
    }
}
