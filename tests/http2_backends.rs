//! The promise: what an HTTP/2 backend says about its connection and its streams is obeyed, and costs no query that it need not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use switchback_tests::frames::{self, ACK, DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, PING, RESET, SETTINGS, frame};
use switchback_tests::over_h2::{connect, get, run};
use switchback_tests::{Backend, Behaviour, Router, Setup, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

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

/// Reads frames until so many heads have come, and answers pings.
async fn heads(stream: &mut TcpStream, most: usize) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    let (mut head, mut seen) = ([0; 9], 0);
    while seen < most {
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == PING && head[4] & ACK == 0 {
            stream.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
        }
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

/// HTTP/2 has no 101: whoever was told so would take its connection for something else from then on.
#[test]
fn an_interim_101_of_an_http2_backend_reaches_nobody() {
    let (address, _) = served(|mut stream, _| async move {
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        heads(&mut stream, 1).await;
        let status = frames::field(b":status", b"101");
        stream
            .write_all(&[frame(HEADERS, END_HEADERS, 1, &status), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])].concat())
            .await
            .unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    });
    for asks in
        ["", "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"]
    {
        let router = before(address, "");
        let close = if asks.is_empty() { "connection: close\r\n" } else { "" };
        let mut client = std::net::TcpStream::connect(router.traffic).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(format!("GET /rank HTTP/1.1\r\nhost: a\r\n{close}{asks}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 502", "{asks:?}");
        assert_eq!(router.metric("switchback_broken_responses_total", &["reason=\"upgrade\""]), 1.0, "{asks:?}");
    }
    let router = before(address, "");
    run(async {
        let mut sender = connect(&router).await;
        assert_eq!(sender.send_request(get("/rank"), true).unwrap().0.await.unwrap().status(), 502);
    });
}

/// h2 lets these pass; in HTTP/1.1 each would be another response.
#[test]
fn what_an_http2_backend_must_not_say_of_its_response_is_refused() {
    let (address, _) = served(|stream, _| async move {
        let mut connection = accept(stream, 100).await;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let response = match request.uri().path() {
                "/length" => Response::builder().status(204).header("content-length", "5"),
                "/blank" => Response::builder().header("x-a", " a"),
                "/tab" => Response::builder().header("x-a", "a\t"),
                _ => Response::builder().status(204).header("content-length", "0"),
            };
            respond.send_response(response.body(()).unwrap(), true).unwrap();
        }
    });
    let router = before(address, "");
    run(async {
        let mut sender = connect(&router).await;
        for (path, status) in [("/length", 502), ("/blank", 502), ("/tab", 502), ("/nothing", 204)] {
            let (response, _) = sender.send_request(get(path), true).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{path}");
        }
    });
    for (reason, times) in [("framing", 1.0), ("parse", 2.0)] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(router.metric("switchback_broken_responses_total", &[&label]), times, "{reason}");
    }
}

/// Answers the first query of each connection with these frames.
fn answering(frames: Vec<Vec<u8>>) -> SocketAddr {
    let (address, _) = served(move |mut stream, _| {
        let frames = frames.concat();
        async move {
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            heads(&mut stream, 1).await;
            stream.write_all(&frames).await.unwrap();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
        }
    });
    address
}

fn head_with(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| frames::field(name.as_bytes(), value.as_bytes())).collect();
    frame(HEADERS, END_HEADERS, 1, &[&[0x88], fields.as_slice()].concat())
}

#[test]
fn trailers_of_an_http2_backend_reach_a_client_of_http1() {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[frames::field(b"x-sum", b"7"), frames::field(b"x-other", b"8")].concat());
    let address = answering(vec![head_with(&[("trailer", "x-sum")]), frame(DATA, 0, 1, b"hello"), trailers]);
    let router = before(address, "");
    let mut client = std::net::TcpStream::connect(router.traffic).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"GET /rank HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
}

#[test]
fn a_body_without_a_length_that_comes_at_once_is_held_to_its_limit() {
    let body = vec![b'x'; 2_000];
    let address = answering(vec![head_with(&[]), frame(DATA, END_STREAM, 1, &body)]);
    for (most, status) in [(1_999, 502), (2_000, 200)] {
        let router = before(address, &format!("max_response_body = \"{most}B\""));
        run(async {
            let mut sender = connect(&router).await;
            assert_eq!(sender.send_request(get("/rank"), true).unwrap().0.await.unwrap().status(), status, "{most}");
        });
    }
}

/// Half a response is never said to be whole, nor its request not to have been begun with.
#[test]
fn what_a_backend_says_of_its_stream_is_passed_on_where_it_is_true_of_the_response() {
    for (reason, heard) in
        [(Reason::NO_ERROR, Reason::INTERNAL_ERROR), (Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR), (Reason::CANCEL, Reason::CANCEL)]
    {
        let reset = frame(RESET, 0, 1, &u32::from(reason).to_be_bytes());
        let address = answering(vec![head_with(&[]), frame(DATA, 0, 1, b"half"), reset]);
        let router = before(address, "");
        run(async {
            let mut sender = connect(&router).await;
            let mut response = sender.send_request(get("/rank"), true).unwrap().0.await.unwrap();
            let mut end = None;
            while end.is_none() {
                end = response.body_mut().data().await.expect("no end in order").err();
            }
            assert_eq!(end.and_then(|error| error.reason()), Some(heard), "{reason:?}");
        });
    }
}
