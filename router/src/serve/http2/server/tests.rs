//! Connections as a client sees them: frame by frame, and by a client of the h2 crate's.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::super::frame::flag;
use super::super::testing::{block, frame_of, next, next_of_all, wait_for};
use super::*;
use crate::serve::answer::refused;

/// What a connection was asked, and what is to be answered.
#[derive(Default)]
struct Told {
    heads: RefCell<Vec<String>>,
    bodies: RefCell<Vec<Result<Vec<u8>, StreamBroke>>>,
    /// Answers are given up before their end.
    dropped: Cell<usize>,
    end: RefCell<Option<Result<(), Reason>>>,
}

struct CountsDrop(Rc<Told>, bool);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + usize::from(!self.1));
    }
}

/// Answers with what the path says: `/text/N` so many bytes, `/never`, `/body` the length of the body; at first each path is noted.
async fn answer(told: Rc<Told>, asked: Asked) -> Response<ResponseBody> {
    let raw = asked.head.fields.raw().unwrap();
    told.heads.borrow_mut().push(String::from_utf8_lossy(&raw).replace("\r\n", "|"));
    let mut is_through = CountsDrop(told.clone(), false);
    let path = asked.head.uri.path().to_owned();
    if path == "/never" {
        std::future::pending::<()>().await;
    }
    if path == "/body" {
        let body = asked.body.collect().await;
        let body = body.map(|all| all.to_bytes().to_vec()).map_err(|error| match error {
            crate::serve::incoming::BrokenOff::Stream(broke) => broke,
            other => panic!("{other:?}"),
        });
        told.bodies.borrow_mut().push(body);
    }
    is_through.1 = true;
    let length = path.strip_prefix("/text/").and_then(|length| length.parse().ok());
    let body = ResponseBody::own(length.map(|length| Bytes::from(vec![b'x'; length])));
    Response::builder().header("x-path", path).body(body).unwrap()
}

pub(super) fn limits() -> Limits {
    let config = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[limits]\nh2_streams = 8\nh2_pending_resets = 4\nh2_forced_resets = 4\n\
                  [[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let limits = crate::config::parse("test", config).unwrap().limits;
    Limits { header_bytes: 4 << 10, ..limits }
}

/// Runs a test with a connection that is driven beside it.
fn connected<F: Future>(test: impl FnOnce(DuplexStream, Rc<Told>, Rc<Cell<bool>>) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (told, closes) = (Rc::<Told>::default(), Rc::new(Cell::new(false)));
        let (heard, is_closing) = (told.clone(), closes.clone());
        tokio::task::spawn_local(async move {
            let asked = heard.clone();
            let answer = move |request| answer(asked.clone(), request);
            let mut connection = Connection::new(Stream::Piped(far), limits(), Arc::default(), answer, refused);
            let end = std::future::poll_fn(|cx| {
                if is_closing.take() {
                    connection.graceful_shutdown();
                }
                connection.poll(cx)
            });
            let end = end.await;
            *heard.end.borrow_mut() = Some(end);
        });
        test(near, told, closes).await
    }))
}

pub(super) fn hello(settings: &[u8]) -> Vec<u8> {
    [&PREFACE[..], &frame_of(kind::SETTINGS, 0, 0, settings)].concat()
}

fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)])
}

const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

/// How what was said ends: `goaway REASON`, `reset REASON`, `answered` or `closed`.
fn outcome(frames: Vec<Vec<u8>>) -> String {
    connected(async |mut near, told, _| {
        let ping = |nth: u8| frame_of(kind::PING, 0, 0, &[nth; 8]);
        near.write_all(&[frames.concat(), ping(1)].concat()).await.unwrap();
        let mut said = String::new();
        while let Some((head, payload)) = next(&mut near).await {
            let reason = |at: usize| format!("{:?}", Reason::from(frame::number(&payload[at..at + 4]).unwrap()));
            said = match head.kind {
                kind::GO_AWAY => return format!("goaway {}", reason(4)),
                kind::RESET => format!("reset {}", reason(0)),
                // Whoever answers has had a turn before the second one.
                kind::PING if payload == [1; 8] => {
                    near.write_all(&ping(2)).await.unwrap();
                    continue;
                }
                kind::PING => return said,
                kind::HEADERS | kind::DATA if head.has(flag::END_STREAM) && !said.starts_with("reset") => "answered".to_owned(),
                _ => continue,
            };
        }
        wait_for(|| told.end.borrow().is_some()).await;
        "closed".to_owned()
    })
}

/// After a hello, and a stream that is never answered.
fn outcome_of(frames: &[Vec<u8>]) -> String {
    let begun = [hello(&[]), frame_of(kind::HEADERS, flag::END_HEADERS, 1, &get("/never"))];
    outcome(begun.into_iter().chain(frames.iter().cloned()).collect())
}

#[test]
fn a_query_is_lines_and_its_answer_a_head_and_data() {
    connected(async |mut near, told, _| {
        let head = block(&[("x-user-id", "u1"), ("cookie", "a=b"), ("cookie", "c=d")]);
        let head = [get("/text/5"), head].concat();
        near.write_all(&[hello(&[]), frame_of(kind::HEADERS, WHOLE, 1, &head)].concat()).await.unwrap();
        let (head, payload) = next(&mut near).await.unwrap();
        assert_eq!((head.kind, head.flags, payload[0]), (kind::HEADERS, flag::END_HEADERS, 0x88), ":status 200");
        let (head, payload) = next(&mut near).await.unwrap();
        assert_eq!((head.kind, head.flags, payload.as_slice()), (kind::DATA, flag::END_STREAM, &b"xxxxx"[..]));
        assert_eq!(*told.heads.borrow(), ["GET /text/5 HTTP/1.1|host: a|x-user-id: u1|cookie: a=b; c=d||"]);
        drop(near);
        wait_for(|| told.end.borrow().is_some()).await;
        assert_eq!(*told.end.borrow(), Some(Ok(())));
    });
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_or_its_stream() {
    let window = |stream, more: u32| frame_of(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let head = |stream| frame_of(kind::HEADERS, WHOLE, stream, &get("/text/1"));
    for (frames, expected) in [
        (vec![head(3)], "answered"),
        (vec![head(2)], "goaway PROTOCOL_ERROR"),
        (vec![head(0)], "goaway PROTOCOL_ERROR"),
        (vec![head(5), head(3)], "goaway STREAM_CLOSED"),
        (vec![frame_of(kind::DATA, 0, 0, b"x")], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::DATA, 0, 7, b"x")], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::DATA, flag::END_STREAM, 1, b"x"), frame_of(kind::DATA, 0, 1, b"x")], "reset STREAM_CLOSED"),
        (vec![frame_of(kind::DATA, flag::END_STREAM, 1, b"x"), frame_of(kind::HEADERS, flag::END_HEADERS, 1, &[])], "reset STREAM_CLOSED"),
        (vec![frame_of(kind::RESET, 0, 1, &[0; 4]), frame_of(kind::DATA, 0, 1, b"x")], "reset STREAM_CLOSED"),
        (vec![frame_of(kind::RESET, 0, 1, &[0; 4]), head(1)], "reset STREAM_CLOSED"),
        (vec![frame_of(kind::DATA, flag::PADDED, 1, b"\x09x")], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::RESET, 0, 7, &[0; 4])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::RESET, 0, 1, &[0; 3])], "goaway FRAME_SIZE_ERROR"),
        (vec![frame_of(kind::SETTINGS, 0, 1, &[])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::SETTINGS, 0, 0, &[0; 5])], "goaway FRAME_SIZE_ERROR"),
        (vec![frame_of(kind::SETTINGS, flag::ACK, 0, &[0; 6])], "goaway FRAME_SIZE_ERROR"),
        (vec![frame_of(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 8])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::PING, 0, 1, &[0; 8])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::PING, 0, 0, &[0; 7])], "goaway FRAME_SIZE_ERROR"),
        (vec![frame_of(kind::GO_AWAY, 0, 1, &[0; 8])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 9])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::PRIORITY, 0, 9, &[0, 0, 0, 1, 9]), head(3)], "answered"),
        (vec![frame_of(kind::CONTINUATION, flag::END_HEADERS, 1, &[])], "goaway PROTOCOL_ERROR"),
        (vec![frame_of(kind::HEADERS, flag::END_STREAM, 3, &get("/")), head(5)], "goaway PROTOCOL_ERROR"),
        (
            vec![frame_of(kind::HEADERS, flag::END_STREAM, 3, &[]), frame_of(kind::CONTINUATION, flag::END_HEADERS, 3, &get("/"))],
            "answered",
        ),
        (vec![frame_of(kind::HEADERS, WHOLE, 3, &[0x80])], "goaway COMPRESSION_ERROR"),
        (vec![frame_of(kind::HEADERS, flag::END_HEADERS, 1, &block(&[("x", "1")]))], "reset PROTOCOL_ERROR"),
        (vec![frame_of(kind::HEADERS, WHOLE, 1, &block(&[(":path", "/")]))], "reset PROTOCOL_ERROR"),
        (vec![frame_of(kind::HEADERS, WHOLE, 3, &block(&[("x", "1")]))], "reset PROTOCOL_ERROR"),
        (vec![frame_of(kind::HEADERS, WHOLE, 3, &[get("/"), block(&[("x", "1\r\ny: 2")])].concat())], "reset PROTOCOL_ERROR"),
        (vec![frame_of(kind::HEADERS, WHOLE, 3, &[get("/"), block(&[("content-length", "5")])].concat())], "reset PROTOCOL_ERROR"),
        (vec![window(0, 0)], "goaway PROTOCOL_ERROR"),
        (vec![window(1, 0)], "reset PROTOCOL_ERROR"),
        (vec![window(9, 1)], "goaway PROTOCOL_ERROR"),
        (vec![window(0, frame::LARGEST_WINDOW)], "goaway FLOW_CONTROL_ERROR"),
        (vec![window(1, frame::LARGEST_WINDOW)], "reset FLOW_CONTROL_ERROR"),
        (vec![frame_of(99, 0xff, 77, b"?"), head(3)], "answered"),
        (vec![frame_of(kind::DATA, 0, 1, &vec![0; frame::MOST + 1])], "goaway FRAME_SIZE_ERROR"),
    ] {
        let shown: Vec<String> = frames.iter().map(|frame| format!("{:x?}", &frame[..frame.len().min(24)])).collect();
        assert_eq!(outcome_of(&frames), expected, "{shown:?}");
    }
    assert_eq!(outcome(vec![PREFACE.to_vec(), head(1)]), "goaway PROTOCOL_ERROR", "no settings");
    assert_eq!(outcome(vec![b"PRI * HTTP/2.1\r\n\r\n".to_vec()]), "goaway PROTOCOL_ERROR");
}

#[test]
fn floods_end_the_connection() {
    let heads = |count: u32, path: &str| -> Vec<Vec<u8>> {
        (0..count).map(|number| frame_of(kind::HEADERS, WHOLE, number * 2 + 3, &get(path))).collect()
    };
    assert_eq!(outcome_of(&heads(7, "/never")), "");
    assert_eq!(outcome_of(&heads(8, "/never")), "reset REFUSED_STREAM", "more than h2_streams");
    let resets = |count: u32| -> Vec<Vec<u8>> {
        let pair = |head: Vec<u8>| [head.clone(), frame_of(kind::RESET, 0, frame::Head::read(&head).unwrap().stream, &[0, 0, 0, 8])];
        heads(count, "/never").into_iter().flat_map(pair).collect()
    };
    assert_eq!(outcome_of(&resets(4)), "");
    assert_eq!(outcome_of(&resets(5)), "goaway ENHANCE_YOUR_CALM", "more than h2_pending_resets");
    assert_eq!(outcome_of(&heads(5, "no path")), "goaway ENHANCE_YOUR_CALM", "more than h2_forced_resets");
    let endless: Vec<Vec<u8>> =
        std::iter::once(frame_of(kind::HEADERS, 0, 3, &[])).chain((0..70).map(|_| frame_of(kind::CONTINUATION, 0, 3, &[]))).collect();
    assert_eq!(outcome_of(&endless), "goaway ENHANCE_YOUR_CALM", "frames of nothing");
}

#[test]
fn a_head_that_is_too_large_is_answered_and_the_connection_goes_on() {
    let large: Vec<u8> = (0..40).flat_map(|_| block(&[("x-large", &"1".repeat(120))])).collect();
    let frames = [frame_of(kind::HEADERS, WHOLE, 3, &[get("/"), large].concat()), frame_of(kind::HEADERS, WHOLE, 5, &get("/text/1"))];
    assert_eq!(outcome_of(&frames), "answered");
    connected(async |mut near, told, _| {
        near.write_all(&[hello(&[]), frames.concat()].concat()).await.unwrap();
        let mut statuses = Vec::new();
        while statuses.len() < 2 {
            let (head, payload) = next(&mut near).await.unwrap();
            if head.kind == kind::HEADERS {
                statuses.push((head.stream, payload[0]));
            }
        }
        statuses.sort_unstable();
        assert_eq!((statuses[0].1, statuses[1]), (0x08, (5, 0x88)), "431 is written out");
        assert_eq!(told.heads.borrow().len(), 1);
    });
}

#[test]
fn windows_are_kept_and_opened() {
    connected(async |mut near, _, _| {
        // A stream may have 10 bytes.
        let settings = [0, 4, 0, 0, 0, 10];
        near.write_all(&[hello(&settings), frame_of(kind::HEADERS, WHOLE, 1, &get("/text/25"))].concat()).await.unwrap();
        assert_eq!(next(&mut near).await.unwrap().0.kind, kind::HEADERS);
        let (head, _) = next(&mut near).await.unwrap();
        assert_eq!((head.kind, head.length, head.flags), (kind::DATA, 10, 0));
        for nth in 0..3 {
            near.write_all(&frame_of(kind::PING, 0, 0, &[nth; 8])).await.unwrap();
            assert_eq!(next(&mut near).await.unwrap().0.kind, kind::PING, "no more");
        }
        near.write_all(&frame_of(kind::WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes())).await.unwrap();
        assert_eq!(next(&mut near).await.unwrap().0.length, 5);
        near.write_all(&frame_of(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 30])).await.unwrap();
        let (head, _) = next(&mut near).await.unwrap();
        assert_eq!((head.length, head.flags), (10, flag::END_STREAM), "windows of streams that are open change, too");
    });
}

#[test]
fn a_window_that_all_share_is_shared() {
    connected(async |mut near, _, _| {
        // Each stream may have a MiB, all of them together 65,535 bytes.
        let heads = [1, 3].map(|stream| frame_of(kind::HEADERS, WHOLE, stream, &get("/text/400000")));
        near.write_all(&[hello(&[0, 4, 0, 0x10, 0, 0]), heads.concat()].concat()).await.unwrap();
        let mut had = [0; 4];
        for nth in 0..9 {
            let window = frame_of(kind::WINDOW_UPDATE, 0, 0, &32_768_u32.to_be_bytes());
            near.write_all(&[window, frame_of(kind::PING, 0, 0, &[nth; 8])].concat()).await.unwrap();
            loop {
                let (head, _) = next(&mut near).await.unwrap();
                match head.kind {
                    kind::DATA => had[head.stream as usize] += head.length,
                    kind::PING => break,
                    _ => {}
                }
            }
        }
        assert!(had[1].min(had[3]) > 2 * 32_768, "{had:?}");
    });
}

#[test]
fn padding_opens_a_streams_window_as_data_does() {
    connected(async |mut near, told, _| {
        let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/body")]);
        near.write_all(&[hello(&[]), frame_of(kind::HEADERS, flag::END_HEADERS, 1, &post)].concat()).await.unwrap();
        let padded = frame_of(kind::DATA, flag::PADDED, 1, &[&[255, b'x'][..], &[0; 255]].concat());
        let mut opened = 0;
        // Three windows of it, of which one byte of 257 is data.
        let mut left = 3 * STREAM_WINDOW;
        let mut window = STREAM_WINDOW;
        loop {
            while window >= 257 && left > 0 {
                near.write_all(&padded).await.unwrap();
                (window, left) = (window - 257, left.saturating_sub(257));
            }
            if left == 0 {
                break;
            }
            let (head, payload) = next_of_all(&mut near).await.unwrap();
            if head.kind == kind::WINDOW_UPDATE && head.stream == 1 {
                window += frame::number(&payload).unwrap();
                opened += 1;
            }
        }
        near.write_all(&frame_of(kind::DATA, flag::END_STREAM, 1, b"")).await.unwrap();
        wait_for(|| !told.bodies.borrow().is_empty()).await;
        assert_eq!(told.bodies.borrow()[0].as_ref().unwrap().len(), (3 * STREAM_WINDOW).div_ceil(257) as usize);
        assert!(opened >= 2, "{opened}");
    });
}

/// A client of the h2 crate's.
async fn client(near: DuplexStream) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::Builder::new().initial_window_size(100_000).handshake(near).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    sender
}

async fn asks(sender: &mut SendRequest<Bytes>, path: &str, body: Option<Vec<u8>>) -> (StatusCode, usize) {
    let request = Request::builder().method(if body.is_some() { "POST" } else { "GET" }).uri(format!("http://a{path}")).body(()).unwrap();
    let (response, mut sends) = sender.clone().ready().await.unwrap().send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        sends.send_data(body.into(), true).unwrap();
    }
    let mut response = response.await.unwrap();
    let mut length = 0;
    while let Some(data) = response.body_mut().data().await {
        let data = data.unwrap();
        length += data.len();
        response.body_mut().flow_control().release_capacity(data.len()).unwrap();
    }
    (response.status(), length)
}

#[test]
fn bodies_of_any_length_go_both_ways() {
    connected(async |near, told, _| {
        let mut sender = client(near).await;
        for length in [0, 1, 16_384, 16_385, 70_000, 1 << 20] {
            assert_eq!(asks(&mut sender, &format!("/text/{length}"), None).await, (StatusCode::OK, length));
        }
        for length in [0, 1, 70_000, 3 << 20] {
            assert_eq!(asks(&mut sender, "/body", Some(vec![b'y'; length])).await, (StatusCode::OK, 0));
            assert_eq!(told.bodies.borrow().last().unwrap().as_ref().unwrap().len(), length);
        }
    });
}

#[test]
fn many_streams_share_a_connection() {
    connected(async |near, _, _| {
        let sender = client(near).await;
        let one = |length: usize| {
            let mut sender = sender.clone();
            async move { assert_eq!(asks(&mut sender, &format!("/text/{length}"), None).await.1, length) }
        };
        futures_util::future::join_all((0..200).map(|number| one(number * 997))).await;
    });
}

#[test]
fn a_client_that_loses_interest_ends_its_query() {
    connected(async |near, told, _| {
        let mut sender = client(near).await;
        let request = Request::get("http://a/never").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        wait_for(|| told.heads.borrow().len() == 1).await;
        drop(response);
        wait_for(|| told.dropped.get() == 1).await;
        // An upload that is cancelled is never a whole one.
        let request = Request::post("http://a/body").body(()).unwrap();
        let (_response, mut sends) = sender.clone().ready().await.unwrap().send_request(request, false).unwrap();
        sends.send_data(Bytes::from_static(b"half"), false).unwrap();
        wait_for(|| told.heads.borrow().len() == 2).await;
        sends.send_reset(Reason::CANCEL);
        wait_for(|| told.dropped.get() == 2 || !told.bodies.borrow().is_empty()).await;
        assert!(told.bodies.borrow().iter().all(Result::is_err), "{:?}", told.bodies.borrow());
        assert_eq!(asks(&mut sender, "/text/3", None).await.1, 3);
    });
}

#[test]
fn who_is_told_to_go_has_its_answers_first() {
    connected(async |mut near, told, closes| {
        let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/body")]);
        near.write_all(&[hello(&[]), frame_of(kind::HEADERS, flag::END_HEADERS, 1, &post)].concat()).await.unwrap();
        wait_for(|| told.heads.borrow().len() == 1).await;
        closes.set(true);
        near.write_all(&frame_of(kind::PING, 0, 0, b"wake it!")).await.unwrap();
        let mut last = Vec::new();
        while last.len() < 2 {
            let (head, payload) = next(&mut near).await.unwrap();
            match head.kind {
                kind::GO_AWAY => last.push(frame::number(&payload[..4]).unwrap()),
                kind::PING if !head.has(flag::ACK) => {
                    // It was on its way already.
                    near.write_all(&frame_of(kind::HEADERS, WHOLE, 3, &get("/text/1"))).await.unwrap();
                    near.write_all(&frame_of(kind::PING, flag::ACK, 0, &payload)).await.unwrap();
                }
                _ => {}
            }
        }
        assert_eq!(last, [frame::LARGEST_WINDOW, 3]);
        // One that comes too late, with all that may come behind its head.
        for (kind, flags, payload) in [
            (kind::HEADERS, flag::END_HEADERS, post.as_slice()),
            (kind::DATA, 0, b"x"),
            (kind::WINDOW_UPDATE, 0, &[0, 0, 0, 9]),
            (kind::RESET, 0, &[0, 0, 0, 8]),
        ] {
            near.write_all(&frame_of(kind, flags, 5, payload)).await.unwrap();
        }
        near.write_all(&frame_of(kind::DATA, flag::END_STREAM, 1, b"all")).await.unwrap();
        while next(&mut near).await.is_some() {}
        assert_eq!(*told.end.borrow(), Some(Ok(())));
        assert_eq!((told.heads.borrow().len(), told.bodies.borrow()[0].as_deref()), (2, Ok(&b"all"[..])), "and the last is not begun");
    });
}

/// Whatever is half told before it, this ends it: DATA of no stream.
fn ending() -> Vec<u8> {
    vec![0; 2 * frame::MOST]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_frames_are_too_odd(frames in proptest::collection::vec((0u8..11, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..12)) {
        let frames: Vec<Vec<u8>> = frames.iter().map(|(kind, flags, stream, payload)| frame_of(*kind, *flags, *stream, payload)).collect();
        outcome_of(&[frames, vec![ending()]].concat());
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        outcome_of(&[bytes, ending()]);
    }
}
