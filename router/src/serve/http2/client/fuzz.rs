//! Fuzz target of a backend's HTTP/2, differential: what our own reading takes for an answer, the h2 crate's client takes for the same one, or it is refused. Where it did not,
//! an answer could be one thing to us and another to somebody else.

use std::cell::RefCell;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use switchback_fuzz::{Target, Trace, trace};
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::super::frame::{flag, kind};
use super::super::testing::{block, frame_of, frames_behind};
use super::tests::{WHOLE, on_a_worker};
use super::*;

const METHODS: [&str; 3] = ["GET", "HEAD", "GET"];

/// What an answer says: its status, and fields by their names; and its body, if all of that came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    head: (u16, Vec<(String, Vec<u8>)>),
    body: Option<Vec<u8>>,
}

/// What was heard on a connection.
#[derive(Default)]
struct Heard {
    answers: RefCell<[Option<Said>; METHODS.len()]>,
    /// It ended for a fault of the backend's.
    is_broken: Cell<bool>,
}

/// A name's values stay in their order.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

async fn ask_ours(near: DuplexStream, heard: Rc<Heard>) {
    let sender = Sender::begin(Stream::Piped(near), false, Authority::from_static("a"));
    for (place, method) in METHODS.into_iter().enumerate() {
        let (sender, heard) = (sender.clone(), heard.clone());
        tokio::task::spawn_local(async move {
            let request = Request::builder().method(method).uri("/").header("host", "a").body(RequestBody::Empty).unwrap();
            let Ok((response, _)) = sender.send(request.into(), Hearers::NONE).await else { return };
            let (head, mut body) = response.into_parts();
            let mut fields: Vec<(String, Vec<u8>)> =
                head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            if let Some(passed) = body.take_lines() {
                passed.lines.each(|name, value| fields.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec())));
            }
            heard.answers.borrow_mut()[place] = Some(Said { head: (head.status.as_u16(), sorted(fields)), body: None });
            if let Ok(body) = body.collect().await {
                heard.answers.borrow_mut()[place].as_mut().unwrap().body = Some(body.to_bytes().to_vec());
            }
        });
        tokio::task::yield_now().await;
    }
}

async fn ask_theirs(near: DuplexStream, heard: Rc<Heard>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).max_frame_size(16 << 10);
    builder.max_header_list_size(HEAD_BYTES).enable_push(false);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
    let broken = heard.clone();
    tokio::task::spawn_local(async move { broken.is_broken.set(connection.await.is_err_and(|error| !error.is_io())) });
    for (place, method) in METHODS.into_iter().enumerate() {
        let request = Request::builder().method(method).uri("http://a/").body(()).unwrap();
        let Ok((answer, _)) = sender.send_request(request, true) else { return };
        let heard = heard.clone();
        tokio::task::spawn_local(async move {
            let Ok(response) = answer.await else { return };
            let (head, mut stream) = response.into_parts();
            let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            let length = head.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
            heard.answers.borrow_mut()[place] = Some(Said { head: (head.status.as_u16(), sorted(fields)), body: None });
            let mut body = Vec::new();
            let mut end = None;
            while let Some(data) = stream.data().await {
                match data {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(error) => {
                        end = Some(error);
                        break;
                    }
                }
            }
            // A backend that has answered may lose interest in the request, and says so without an error (RFC 9113, 8.1); h2 does not say whether it had.
            let is_whole = match end {
                None => stream.trailers().await.is_ok(),
                Some(error) => {
                    error.is_remote() && error.reason() == Some(Reason::NO_ERROR) && length.is_none_or(|length: usize| length == body.len())
                }
            };
            if is_whole {
                heard.answers.borrow_mut()[place].as_mut().unwrap().body = Some(body);
            }
        });
        tokio::task::yield_now().await;
    }
}

/// Says it frame by frame, so that each is looked at before the next.
async fn tell<F: Future<Output = ()>>(frames: &[Vec<u8>], ask: impl FnOnce(DuplexStream, Rc<Heard>) -> F) -> Rc<Heard> {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let heard = Rc::<Heard>::default();
    ask(near, heard.clone()).await;
    for frame in frames {
        if far.write_all(frame).await.is_err() {
            break;
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    drop(far);
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    heard
}

/// Of what comes after they have given up, nobody can tell: a fault of one stream ends their connection in cases where it resets our stream.
fn look(bytes: &[u8]) -> Trace {
    let frames = frames_behind(frame_of(kind::SETTINGS, 0, 0, &[]), bytes);
    let (ours, theirs) = on_a_worker(async { (tell(&frames, ask_ours).await, tell(&frames, ask_theirs).await) });
    let mut ways = Vec::new();
    let is_broken = theirs.is_broken.get();
    for (our, their) in ours.answers.borrow().iter().zip(theirs.answers.borrow().iter()) {
        let Some(our) = our else {
            ways.push((0, their.as_ref().map(|_| 0)));
            continue;
        };
        let Some(their) = their else {
            assert!(is_broken, "nobody else reads {our:?}: {frames:x?}");
            continue;
        };
        assert_eq!(our.head, their.head, "{frames:x?}");
        assert!(
            our.body.is_none() || our.body == their.body || (is_broken && their.body.is_none()),
            "{our:?} is {their:?} to somebody else: {frames:x?}"
        );
        ways.push((1 + our.head.1.len().min(4), our.body.as_ref().map(|body| body.len().min(3))));
    }
    trace((ways, frames.len().min(6)))
}

#[test]
fn http2_responses() {
    let framed = |kind: u8, flags: u8, stream: u8, payload: &[u8]| [&[kind, flags, stream, payload.len() as u8], payload].concat();
    let text = block(&[(":status", "200"), ("content-length", "3")]);
    let plain = block(&[("x-a", "1"), ("set-cookie", "a=b"), ("set-cookie", "c=d")]);
    let words = [
        framed(kind::HEADERS, WHOLE, 1, &[0x88]),
        framed(kind::HEADERS, WHOLE, 3, &text),
        framed(kind::HEADERS, flag::END_HEADERS, 1, &text),
        framed(kind::HEADERS, flag::END_HEADERS, 5, &[&[0x88], plain.as_slice()].concat()),
        framed(kind::HEADERS, 0, 5, &[0x8d]),
        framed(kind::CONTINUATION, flag::END_HEADERS, 5, &plain),
        framed(kind::HEADERS, flag::END_HEADERS, 1, &block(&[(":status", "103"), ("link", "</a>")])),
        framed(kind::DATA, 0, 1, b"ab"),
        framed(kind::DATA, flag::END_STREAM, 1, b"c"),
        framed(kind::DATA, flag::END_STREAM | flag::PADDED, 5, b"\x01d\0"),
        framed(kind::HEADERS, WHOLE, 5, &block(&[("x-trailer", "1")])),
        framed(kind::RESET, 0, 1, &[0, 0, 0, 0]),
        framed(kind::RESET, 0, 5, &[0, 0, 0, 7]),
        framed(kind::GO_AWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
        framed(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        framed(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]),
        block(&[("content-length", "0")]),
        block(&[(":status", "204")]),
        b"\x40\x01x\x01y".to_vec(),
        b"\xbe".to_vec(),
        b"\x20".to_vec(),
        b"\x3f\xe1\x1f".to_vec(),
    ];
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let seeds = vec![
        words[..2].concat(),
        [words[2], words[7], words[8]].concat(),
        [words[3], words[9]].concat(),
        [words[4], words[5], words[10]].concat(),
        [words[6], words[2], words[13]].concat(),
    ];
    Target { name: "http2_responses", words: &words, seeds, most_bytes: 1_024 }.run(look);
}
