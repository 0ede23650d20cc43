//! Connections as a backend sees them: streams, windows, tunnels and ends.

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::frame::{flag, kind};
use super::super::streams::Comes;
use super::super::testing::{block, frame_of, next, next_of_all, wait_for};
use super::tests::{WHOLE, begun, data, greet, head, on_a_worker, outcome, query, request, served};
use super::*;

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
