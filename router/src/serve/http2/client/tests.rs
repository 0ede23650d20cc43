//! What answers come to, frame by frame.

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::frame::{flag, kind};
use super::super::testing::{block, frame_of, next};
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

pub(super) async fn served() -> (Sender, h2::server::Connection<DuplexStream, Bytes>) {
    let (sender, far) = begun();
    (sender, h2::server::Builder::new().max_concurrent_streams(3).handshake(far).await.unwrap())
}

pub(super) fn request(method: &str, path: &str, body: RequestBody) -> Outgoing {
    Request::builder().method(method).uri(path).header(HOST, "search.test").header("te", "gzip").body(body).unwrap().into()
}

pub(super) fn query() -> Outgoing {
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

pub(super) fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame_of(kind::HEADERS, flag::END_HEADERS, 1, &block(fields))
}

pub(super) fn data(flags: u8, text: &str) -> Vec<u8> {
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
