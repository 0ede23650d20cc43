//! Connections as a backend sees them: frame by frame, and by a server of the h2 crate's.

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::frame::{flag, kind};
use super::super::streams::Comes;
use super::super::testing::{block, frame_of, next, next_of_all, wait_for};
use super::*;

pub(super) const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

pub(super) fn on_a_worker<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(test))
}

/// A connection, and its other end.
pub(super) fn begun() -> (Sender, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 20);
    (Sender::begin(Stream::Piped(near), false, Authority::from_static("backend.test:80")), far)
}

async fn served() -> (Sender, h2::server::Connection<DuplexStream, Bytes>) {
    let (sender, far) = begun();
    (sender, h2::server::Builder::new().max_concurrent_streams(3).handshake(far).await.unwrap())
}

fn request(method: &str, path: &str, body: RequestBody) -> Outgoing {
    Request::builder().method(method).uri(path).header(HOST, "search.test").header("te", "gzip").body(body).unwrap().into()
}

fn query() -> Outgoing {
    request("GET", "/rank?q=a", RequestBody::Empty)
}

/// The preface and our settings, and the server's own; settings are answered by whoever looks for them.
pub(super) async fn greet(far: &mut DuplexStream, settings: &[u8]) {
    let mut preface = [0; PREFACE.len()];
    far.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, PREFACE);
    far.write_all(&frame_of(kind::SETTINGS, 0, 0, settings)).await.unwrap();
}

/// What a query came to: its status and fields, and its body or how that ended.
pub(super) async fn outcome(sender: &Sender, request: Outgoing) -> String {
    let (mut response, _) = match sender.send(request, Hearers::NONE).await {
        Ok(answer) => answer,
        Err(SendError::Broken(broken)) => return format!("broken {broken:?}"),
        Err(SendError::Unsent(_)) => return "unsent".to_owned(),
        Err(SendError::Refused) => return "refused".to_owned(),
        Err(SendError::Closed) => return "closed".to_owned(),
    };
    let mut said = response.status().as_str().to_owned();
    let mut fields = Vec::new();
    if let Some(passed) = response.body_mut().take_lines() {
        passed.lines.each(|name, value| fields.extend_from_slice(&[name, b": ", value, b"\r\n"].concat()));
    }
    for (name, value) in response.headers() {
        fields.extend_from_slice(format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())).as_bytes());
    }
    said.extend(String::from_utf8_lossy(&fields).split_inclusive("\r\n").map(|line| format!(" {}", line.trim_end().replace(": ", "="))));
    match response.into_body().collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, HeaderMap::len);
            let data = body.to_bytes();
            said + &format!(" [{}]{}", String::from_utf8_lossy(&data), if trailers > 0 { "+" } else { "" })
        }
        Err(error) if error.is_malformed() => said + " [malformed]",
        Err(error) => said + &format!(" [{:?}]", error.reason()),
    }
}

/// What a GET comes to that is answered with these frames.
fn answered(method: &'static str, frames: Vec<Vec<u8>>) -> String {
    on_a_worker(async move {
        let (sender, mut far) = begun();
        let (said, ()) = tokio::join!(outcome(&sender, request(method, "/rank", RequestBody::Empty)), async {
            greet(&mut far, &[]).await;
            assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS);
            far.write_all(&frames.concat()).await.unwrap();
            if !frames.concat().is_empty() {
                // Until all of it was read.
                far.write_all(&frame_of(kind::PING, 0, 0, b"all read")).await.unwrap();
                while next(&mut far).await.is_some_and(|(head, _)| head.kind != kind::PING && head.kind != kind::GO_AWAY) {}
            }
            drop(far);
        });
        said
    })
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame_of(kind::HEADERS, flag::END_HEADERS, 1, &block(fields))
}

fn data(flags: u8, text: &str) -> Vec<u8> {
    frame_of(kind::DATA, flags, 1, text.as_bytes())
}

#[test]
fn an_answer_is_lines_and_data() {
    let ok = [(":status", "200"), ("x-a", "1")];
    let only = |fields: &[(&str, &str)]| vec![frame_of(kind::HEADERS, WHOLE, 1, &block(fields))];
    let end = flag::END_STREAM;
    for (frames, expected) in [
        (only(&ok), "200 x-a=1 []"),
        (vec![head(&ok), data(end, "abc")], "200 x-a=1 [abc]"),
        (vec![head(&ok), data(0, "ab"), data(0, "c"), data(end, "")], "200 x-a=1 [abc]"),
        (vec![head(&[(":status", "200"), ("content-length", "3")]), data(end, "abc")], "200 content-length=3 [abc]"),
        (vec![head(&ok), data(0, "ab"), frame_of(kind::HEADERS, WHOLE, 1, &block(&[("x-t", "1")]))], "200 x-a=1 [ab]+"),
        (vec![head(&[(":status", "103"), ("link", "</a>")]), head(&[(":status", "100")]), only(&ok).concat()], "200 x-a=1 []"),
        (only(&[(":status", "204"), ("content-length", "0")]), "204 content-length=0 []"),
        (only(&[(":status", "304"), ("content-length", "9")]), "304 content-length=9 []"),
        (only(&[(":status", "404"), ("x-switchback-pool", "own")]), "404 x-switchback-pool=own []"),
        (vec![frame_of(kind::HEADERS, end, 1, &[]), frame_of(kind::CONTINUATION, flag::END_HEADERS, 1, &block(&ok))], "200 x-a=1 []"),
        (vec![frame_of(99, 0xff, 77, b"?"), frame_of(kind::PRIORITY, 0, 9, &[0, 0, 0, 1, 9]), only(&ok).concat()], "200 x-a=1 []"),
        // It has answered, and wants nothing more (RFC 9113, 8.1).
        (vec![head(&ok), data(end, "abc"), frame_of(kind::RESET, 0, 1, &[0; 4])], "200 x-a=1 [abc]"),
        (
            vec![head(&[(":status", "200"), ("content-length", "3")]), data(0, "abc"), frame_of(kind::RESET, 0, 1, &[0; 4])],
            "200 content-length=3 [abc]",
        ),
    ] {
        assert_eq!(answered("GET", frames), expected);
    }
    assert_eq!(answered("HEAD", only(&[(":status", "200"), ("content-length", "9")])), "200 content-length=9 []");
}

#[test]
fn an_answer_that_makes_no_sense_is_refused() {
    let ok = (":status", "200");
    let end = flag::END_STREAM;
    let field = |name, value| vec![frame_of(kind::HEADERS, WHOLE, 1, &block(&[ok, (name, value)]))];
    let huge = "1".repeat(15_000);
    let large: Vec<u8> = (0..5)
        .map(|nth| {
            frame_of(
                if nth == 0 { kind::HEADERS } else { kind::CONTINUATION },
                if nth == 4 { flag::END_HEADERS } else { 0 },
                1,
                &block_of_long(&huge, nth == 0),
            )
        })
        .collect::<Vec<_>>()
        .concat();
    for (frames, expected) in [
        (vec![head(&[("x-a", "1")])], "broken Parse"),
        (vec![head(&[ok, ok])], "broken Parse"),
        (vec![head(&[("x-a", "1"), ok])], "broken Parse"),
        (vec![head(&[(":status", "20")])], "broken Parse"),
        (vec![head(&[(":status", "2000")])], "broken Parse"),
        (vec![head(&[ok, (":path", "/")])], "broken Parse"),
        (vec![head(&[(":status", "101")])], "broken Upgrade"),
        (vec![frame_of(kind::HEADERS, WHOLE, 1, &block(&[(":status", "103")]))], "broken Parse"),
        (field("connection", "close"), "broken Parse"),
        (field("transfer-encoding", "chunked"), "broken Parse"),
        (field("keep-alive", "1"), "broken Parse"),
        (field("upgrade", "h2c"), "broken Parse"),
        (field("X-A", "1"), "broken Parse"),
        (field("x-a", " 1"), "broken Parse"),
        (field("x-a", "1\t"), "broken Parse"),
        (field("x-a", "1\r\ny: 2"), "broken Parse"),
        (field("content-length", "x"), "broken Parse"),
        (field("content-length", "5"), "broken Parse"),
        (vec![head(&[ok, ("content-length", "1"), ("content-length", "1")])], "broken Framing"),
        (vec![head(&[(":status", "204"), ("content-length", "5")])], "broken Framing"),
        (vec![large], "broken HeadSize"),
        (vec![data(0, "abc")], "broken Parse"),
        (vec![head(&[ok, ("content-length", "2")]), data(end, "abc")], "200 content-length=2 [malformed]"),
        (vec![head(&[ok, ("content-length", "4")]), data(end, "abc")], "200 content-length=4 [malformed]"),
        (vec![head(&[(":status", "304")]), data(end, "abc")], "304 [malformed]"),
        (vec![head(&[ok]), head(&[("x-t", "1")])], "200 [malformed]"),
        (vec![head(&[ok]), frame_of(kind::HEADERS, WHOLE, 1, &block(&[ok]))], "200 [malformed]"),
        (vec![head(&[ok]), data(0, "abc"), frame_of(kind::RESET, 0, 1, &[0, 0, 0, 2])], "200 [Some(INTERNAL_ERROR)]"),
        (vec![head(&[ok]), data(0, "abc"), frame_of(kind::RESET, 0, 1, &[0; 4])], "200 [Some(NO_ERROR)]"),
        (vec![head(&[ok]), data(0, "abc")], "200 [None]"),
        (vec![frame_of(kind::RESET, 0, 1, &[0, 0, 0, 7])], "refused"),
        (vec![frame_of(kind::RESET, 0, 1, &[0, 0, 0, 2])], "closed"),
        (vec![], "closed"),
        (vec![frame_of(kind::GO_AWAY, 0, 0, &[0; 8])], "refused"),
        (vec![frame_of(kind::GO_AWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), head(&[ok]), data(end, "a")], "200 [a]"),
        (vec![frame_of(kind::HEADERS, WHOLE, 3, &block(&[ok]))], "broken Parse"),
        (vec![frame_of(kind::HEADERS, WHOLE, 2, &block(&[ok]))], "broken Parse"),
        (vec![frame_of(kind::HEADERS, WHOLE, 0, &block(&[ok]))], "broken Parse"),
        (vec![frame_of(kind::HEADERS, WHOLE, 1, &[0x80])], "broken Parse"),
        (vec![frame_of(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 8])], "broken Parse"),
        (vec![frame_of(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1])], "broken Parse"),
        (vec![frame_of(kind::WINDOW_UPDATE, 0, 0, &[0; 4])], "broken Parse"),
    ] {
        let shown: Vec<String> = frames.iter().map(|frame| format!("{:x?}", &frame[..frame.len().min(40)])).collect();
        assert_eq!(answered("GET", frames), expected, "{shown:?}");
    }
    assert_eq!(answered("HEAD", vec![head(&[ok]), data(end, "abc")]), "200 [malformed]");
}

/// A status, or none, and a field whose value is long.
fn block_of_long(value: &str, is_first: bool) -> Vec<u8> {
    let mut block = if is_first { vec![0x88] } else { Vec::new() };
    block.extend_from_slice(&[0, 1, b'x', 0x7f]);
    let mut rest = value.len() - 0x7f;
    while rest >= 0x80 {
        block.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    block.push(rest as u8);
    block.extend_from_slice(value.as_bytes());
    block
}

#[test]
fn a_connection_that_nobody_uses_any_more_ends() {
    on_a_worker(async {
        let (sender, mut server) = served().await;
        let share = sender.clone();
        drop(sender);
        assert!(share.is_usable());
        drop(share);
        // What the server still has to say finds nobody.
        let end = server.accept().await;
        assert!(end.as_ref().is_none_or(|end| end.as_ref().is_err_and(h2::Error::is_io)), "no stream, but the end: {end:?}");
    });
}

#[test]
fn a_request_says_whom_it_is_for_in_its_target() {
    on_a_worker(async {
        let (sender, mut server) = served().await;
        let old: Outgoing = Request::get("/rank").header(HOST, "").body(RequestBody::Empty).unwrap().into();
        let mut lines = request("DELETE", "/", RequestBody::Empty);
        lines.head.fields = drafted(&[("Host", "a.test"), ("X-User-Id", "u1"), ("TE", "trailers"), ("Cookie", "a=b")]).into();
        for (request, target, fields) in [
            (query(), "GET http://search.test/rank?q=a", ""),
            (old, "GET http://backend.test:80/rank", ""),
            (lines, "DELETE http://a.test/", "x-user-id=u1 te=trailers cookie=a=b "),
        ] {
            let sending = async { assert_eq!(outcome(&sender, request).await, "204 []") };
            let serving = async {
                let (request, mut respond) = server.accept().await.unwrap().unwrap();
                assert_eq!(format!("{} {}", request.method(), request.uri()), target);
                let said: String = request.headers().iter().map(|(name, value)| format!("{name}={} ", value.to_str().unwrap())).collect();
                assert_eq!(said, fields);
                respond.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
                // Until it is sent.
                std::future::poll_fn(|cx| Poll::Ready(server.poll_closed(cx).is_ready())).await;
            };
            tokio::join!(sending, serving);
        }
    });
}

fn drafted(fields: &[(&str, &str)]) -> http1::Lines {
    let mut draft = http1::Draft::begin(b"GET", b"/");
    fields.iter().for_each(|(name, value)| draft.field(name.as_bytes(), value.as_bytes()));
    draft.end().lines
}

#[test]
fn a_connection_that_is_going_gives_the_request_back() {
    on_a_worker(async {
        let (sender, mut server) = served().await;
        assert!(sender.is_usable());
        server.abrupt_shutdown(Reason::NO_ERROR);
        assert!(server.accept().await.is_none());
        drop(server);
        wait_for(|| !sender.is_usable()).await;
        assert!(matches!(sender.send(query(), Hearers::NONE).await, Err(SendError::Unsent(request)) if request.head.uri.path() == "/rank"));
    });
}

#[test]
fn bodies_of_any_length_go_both_ways() {
    on_a_worker(async {
        let (sender, mut server) = served().await;
        tokio::task::spawn_local(async move {
            while let Some(Ok((request, mut respond))) = server.accept().await {
                tokio::task::spawn_local(async move {
                    let mut body = request.into_body();
                    let mut sends = respond.send_response(Response::new(()), false).unwrap();
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        let _ = body.flow_control().release_capacity(data.len());
                        sends.send_data(data, false).unwrap();
                    }
                    sends.send_data(Bytes::new(), true).unwrap();
                });
            }
        });
        let one = |length: usize| {
            let sender = &sender;
            async move {
                let text = Bytes::from(vec![b'y'; length]);
                let pieces: Vec<Bytes> = text.chunks(9_999).map(Bytes::copy_from_slice).collect();
                let sent = request("POST", "/echo", RequestBody::copied(pieces));
                let (response, _) = sender.send(sent, Hearers::NONE).await.ok().unwrap();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert!(body == text, "{length}: {}", body.len());
            }
        };
        for length in [0, 1, 16_384, 16_385, 70_000, 3 << 20] {
            one(length).await;
        }
        // More than there is room for at a time.
        futures_util::future::join_all((0..200).map(|number| one(number * 997))).await;
        assert!(sender.streams.borrow().is_empty());
    });
}

#[test]
fn a_query_that_nobody_wants_any_more_is_cancelled() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[]).await;
        {
            let mut sending = std::pin::pin!(sender.send(query(), Hearers::NONE));
            let is_begun = async { assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS) };
            tokio::select! { biased; () = is_begun => {}, _ = &mut sending => panic!("nobody answered") }
        }
        let (head, payload) = next(&mut far).await.unwrap();
        assert_eq!((head.kind, head.stream, payload.as_slice()), (kind::RESET, 1, &[0, 0, 0, 8][..]), "CANCEL");
        // What was on its way already is passed over, and the table kept.
        let late = [0x88, 0x40, 1, b'x', 1, b'1'];
        far.write_all(&[frame_of(kind::HEADERS, flag::END_HEADERS, 1, &late), data(flag::END_STREAM, "abc")].concat()).await.unwrap();
        let answer = async {
            assert_eq!(next(&mut far).await.unwrap().0.stream, 3);
            far.write_all(&frame_of(kind::HEADERS, WHOLE, 3, &[0x88, 0xbe])).await.unwrap();
        };
        assert_eq!(tokio::join!(outcome(&sender, query()), answer).0, "200 x=1 []");
    });
}

#[test]
fn an_answer_that_is_given_up_is_cancelled_and_its_window_comes_back() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[]).await;
        let sending = sender.send(query(), Hearers::NONE);
        let answering = async {
            assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS);
            far.write_all(&[head(&[(":status", "200")]), data(0, "abc")].concat()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(sending, answering);
        wait_for(|| !sender.streams.borrow().all[0].1.came.is_empty()).await;
        drop(answer);
        assert_eq!(next(&mut far).await.unwrap().1, [0, 0, 0, 8]);
        let streams = sender.streams.borrow();
        assert!(streams.is_empty() && streams.open == 0 && streams.taken == 3);
    });
}

#[test]
fn a_backend_says_how_many_streams_it_takes() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[0, 3, 0, 0, 0, 1]).await;
        wait_for(|| sender.life.has_settings.get()).await;
        let answering = async {
            for stream in [1, 3] {
                assert_eq!(next(&mut far).await.unwrap().0.stream, stream);
                far.write_all(&frame_of(kind::PING, 0, 0, b"a moment")).await.unwrap();
                let (head, _) = next(&mut far).await.unwrap();
                assert_eq!(head.kind, kind::PING, "nothing before it is answered");
                assert!(!sender.is_usable());
                far.write_all(&frame_of(kind::HEADERS, WHOLE, stream, &[0x88])).await.unwrap();
            }
        };
        let (one, other, ()) = tokio::join!(outcome(&sender, query()), outcome(&sender, query()), answering);
        assert_eq!((one.as_str(), other.as_str()), ("200 []", "200 []"));
    });
}

#[test]
fn who_is_doubted_is_asked_and_gets_nothing_until_it_answers() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[]).await;
        sender.is_late();
        assert!(!sender.is_usable());
        let (head, payload) = next(&mut far).await.unwrap();
        assert_eq!((head.kind, head.flags), (kind::PING, 0));
        far.write_all(&frame_of(kind::PING, flag::ACK, 0, &payload)).await.unwrap();
        wait_for(|| sender.is_usable()).await;
    });
}

#[test]
fn windows_are_kept_and_opened() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        // A stream may have 10 bytes.
        greet(&mut far, &[0, 4, 0, 0, 0, 10]).await;
        wait_for(|| sender.life.has_settings.get()).await;
        let sent = request("POST", "/", RequestBody::copied(vec![Bytes::from(vec![b'x'; 25])]));
        let answering = async {
            assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS);
            let (head, _) = next(&mut far).await.unwrap();
            assert_eq!((head.kind, head.length, head.flags), (kind::DATA, 10, 0));
            far.write_all(&frame_of(kind::WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes())).await.unwrap();
            assert_eq!(next(&mut far).await.unwrap().0.length, 5);
            far.write_all(&frame_of(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 30])).await.unwrap();
            let (last, _) = next(&mut far).await.unwrap();
            assert_eq!((last.length, last.flags), (10, flag::END_STREAM));
            // Three windows of a stream, as fast as they are opened.
            far.write_all(&head_of_200()).await.unwrap();
            let piece = frame_of(kind::DATA, 0, 1, &[b'y'; 16 << 10]);
            let (mut window, mut left) = (STREAM_WINDOW, 3 * STREAM_WINDOW);
            while left > 0 {
                while window >= 16 << 10 && left > 0 {
                    far.write_all(&piece).await.unwrap();
                    (window, left) = (window - (16 << 10), left - (16 << 10));
                }
                if left > 0 {
                    let (head, payload) = next_of_all(&mut far).await.unwrap();
                    if (head.kind, head.stream) == (kind::WINDOW_UPDATE, 1) {
                        window += frame::number(&payload).unwrap();
                    }
                }
            }
            far.write_all(&data(flag::END_STREAM, "")).await.unwrap();
        };
        let (said, ()) = tokio::join!(outcome(&sender, sent), answering);
        assert_eq!(said.len(), "200 []".len() + 3 * STREAM_WINDOW as usize);
    });
}

fn head_of_200() -> Vec<u8> {
    frame_of(kind::HEADERS, flag::END_HEADERS, 1, &[0x88])
}

#[test]
fn more_than_the_window_is_refused() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[]).await;
        let sending = async {
            let (response, _) = sender.send(query(), Hearers::NONE).await.ok().unwrap();
            // Nobody reads it.
            wait_for(|| sender.streams.borrow().all.first().is_some_and(|(_, stream)| matches!(stream.comes, Comes::Broken(_)))).await;
            response.into_body().collect().await.unwrap_err().is_malformed()
        };
        let answering = async {
            assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS);
            far.write_all(&head_of_200()).await.unwrap();
            for _ in 0..=STREAM_WINDOW >> 14 {
                far.write_all(&frame_of(kind::DATA, 0, 1, &[b'y'; 16 << 10])).await.unwrap();
            }
            let (head, payload) = next(&mut far).await.unwrap();
            assert_eq!((head.kind, payload.as_slice()), (kind::RESET, &[0, 0, 0, 3][..]), "FLOW_CONTROL_ERROR");
        };
        assert!(tokio::join!(sending, answering).0);
    });
}

#[test]
fn a_tunnel_is_bytes_both_ways() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[0, 8, 0, 0, 0, 1]).await;
        let asks = || {
            let mut asked = request("GET", "/ws", RequestBody::Empty);
            for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")] {
                asked.head.fields.map().insert(name, HeaderValue::from_static(value));
            }
            asked
        };
        let answering = async {
            assert_eq!(next(&mut far).await.unwrap().0.flags, flag::END_HEADERS);
            far.write_all(&head_of_200()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(sender.send(asks(), Hearers::NONE), answering);
        let (response, seen) = answer.ok().unwrap();
        assert_eq!(
            (response.status(), &response.headers()[UPGRADE], seen.has_upgrade),
            (StatusCode::SWITCHING_PROTOCOLS, &HeaderValue::from_static("websocket"), true)
        );
        let Incoming::Tunnel(mut io) = response.into_body() else { panic!("no tunnel") };
        io.write_all(b"there").await.unwrap();
        assert_eq!(next(&mut far).await.unwrap().1, b"there");
        far.write_all(&data(0, "back")).await.unwrap();
        let mut read = [0; 4];
        io.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"back");
        drop(io);
        assert_eq!(next(&mut far).await.unwrap().0.kind, kind::RESET);
        // One that is not agreed to is an ordinary answer.
        let answering = async {
            next(&mut far).await.unwrap();
            far.write_all(&frame_of(kind::HEADERS, WHOLE, 3, &block(&[(":status", "404")]))).await.unwrap();
        };
        assert_eq!(tokio::join!(outcome(&sender, asks()), answering).0, "404 []");
    });
}

#[test]
fn interim_heads_without_end_do_not_fill_memory() {
    on_a_worker(async {
        let (sender, mut far) = begun();
        greet(&mut far, &[]).await;
        let sending = sender.send(query(), Hearers::NONE);
        let flooding = async {
            assert_eq!(next(&mut far).await.unwrap().0.kind, kind::HEADERS);
            for _ in 0..200 {
                far.write_all(&head(&[(":status", "103"), ("link", &"a".repeat(1_000)[..120])]).repeat(100)).await.unwrap();
            }
            far.write_all(&frame_of(kind::HEADERS, WHOLE, 1, &[0x88])).await.unwrap();
        };
        let (answer, ()) = tokio::join!(sending, flooding);
        assert_eq!(answer.ok().unwrap().0.status(), 200);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_frames_are_too_odd(frames in proptest::collection::vec((0u8..11, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..12)) {
        let frames: Vec<Vec<u8>> = frames.iter().map(|(kind, flags, stream, payload)| frame_of(*kind, *flags, *stream, payload)).collect();
        on_a_worker(async {
            let (sender, mut far) = begun();
            let answering = async {
                greet(&mut far, &[]).await;
                let _ = far.write_all(&frames.concat()).await;
                drop(far);
            };
            tokio::join!(outcome(&sender, query()), answering);
            assert!(sender.streams.borrow().is_empty());
        });
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        on_a_worker(async {
            let (sender, mut far) = begun();
            let mut read = BytesMut::new();
            let answering = async {
                let _ = far.read_buf(&mut read).await;
                let _ = far.write_all(&bytes).await;
                drop(far);
            };
            tokio::join!(outcome(&sender, query()), answering);
            assert!(sender.streams.borrow().is_empty());
        });
    }
}
