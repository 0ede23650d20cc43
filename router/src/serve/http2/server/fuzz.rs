//! Fuzz target of HTTP/2, differential: what our own reading takes for a request, the h2 crate's server takes for the same one, or it is refused. Where it did not, a
//! request could be one thing to us and another to somebody else.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use switchback_fuzz::{Target, Trace, trace};
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::super::frame::{self, flag, kind};
use super::super::testing::{block, frames_behind};
use super::tests::{hello, limits};
use super::*;
use crate::serve::answer::refused;
use crate::serve::query;

/// What a request says: method, target, and fields by their names; and its body, if all of that came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    head: (Method, String, Vec<(String, Vec<u8>)>),
    body: Option<Vec<u8>>,
}

type Heard = Rc<RefCell<Vec<Said>>>;

/// True where it ended the connection for a fault of the client's.
type Served = tokio::task::JoinHandle<bool>;

/// By name; what RFC 9113 has changed on the way is changed in both.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let cookies: Vec<Vec<u8>> = fields.extract_if(.., |(name, _)| name == "cookie").map(|(_, value)| value).collect();
    if !cookies.is_empty() {
        fields.push(("cookie".to_owned(), cookies.join(&b"; "[..]).trim_ascii().to_vec()));
    }
    for (_, value) in &mut fields {
        *value = value.trim_ascii().to_vec();
    }
    // A name's values stay in their order.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

async fn our_answer(heard: Heard, asked: Asked) -> Response<ResponseBody> {
    let Asked { head, seen, body, .. } = asked;
    if query::check(&head, seen).is_err() {
        return refused(Refusal::Host);
    }
    let mut fields = Vec::new();
    head.fields.lines().unwrap().each(|name, value| fields.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec())));
    let place = heard.borrow().len();
    heard.borrow_mut().push(Said { head: (head.method.clone(), head.uri.to_string(), sorted(fields)), body: None });
    let body = body.collect().await;
    heard.borrow_mut()[place].body = body.ok().map(|body| body.to_bytes().to_vec());
    Response::new(ResponseBody::own(None))
}

fn serve_ours(far: DuplexStream, heard: Heard) -> Served {
    tokio::task::spawn_local(async move {
        let answer = move |asked| our_answer(heard.clone(), asked);
        let mut connection = Connection::new(Stream::Piped(far), limits(), Arc::default(), answer, refused);
        std::future::poll_fn(|cx| connection.poll(cx)).await.is_err()
    })
}

async fn their_answer(heard: Heard, request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (head, mut stream) = request.into_parts();
    let mut fields: Vec<(String, Vec<u8>)> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    if let Some(authority) = head.uri.authority() {
        fields.retain(|(name, value)| name != "host" || !value.eq_ignore_ascii_case(authority.as_str().as_bytes()));
        fields.push(("host".to_owned(), authority.as_str().as_bytes().to_vec()));
    }
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let place = heard.borrow().len();
    heard.borrow_mut().push(Said { head: (head.method, target, sorted(fields)), body: None });
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let Ok(data) = data else { return };
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    if stream.trailers().await.is_ok() {
        heard.borrow_mut()[place].body = Some(body);
        let _ = respond.send_response(Response::new(()), true);
    }
}

fn serve_theirs(far: DuplexStream, heard: Heard) -> Served {
    tokio::task::spawn_local(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(STREAM_WINDOW).max_frame_size(16 << 10);
        builder.max_concurrent_streams(8).max_header_list_size(4 << 10).enable_connect_protocol();
        let Ok(mut connection) = builder.handshake::<_, Bytes>(far).await else { return true };
        loop {
            match connection.accept().await {
                Some(Ok((request, respond))) => drop(tokio::task::spawn_local(their_answer(heard.clone(), request, respond))),
                Some(Err(error)) => return !error.is_io(),
                None => return false,
            }
        }
    })
}

/// Says it frame by frame, so that each is looked at before the next.
async fn tell(frames: &[Vec<u8>], serve: impl FnOnce(DuplexStream, Heard) -> Served) -> (Vec<Said>, bool) {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let heard = Heard::default();
    let served = serve(far, heard.clone());
    for frame in frames {
        if near.write_all(frame).await.is_err() {
            break;
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    drop(near);
    let is_broken = served.await.unwrap();
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    (heard.borrow().clone(), is_broken)
}

/// Every request that we take is one of theirs, in their order; of one that comes after they have given up, nobody can tell: what is malformed ends their connection, where it
/// resets our stream.
fn look(bytes: &[u8]) -> Trace {
    let frames = frames_behind(hello(&[]), bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ((ours, _), (theirs, is_broken)) = runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let ours = tell(&frames, serve_ours).await;
        (ours, tell(&frames, serve_theirs).await)
    }));
    let mut left = theirs.iter();
    let mut ways = Vec::new();
    // Tunnels are others' business; and codings have no capitals and small letters (RFC 9110, 10.1.4), which they tell apart.
    let is_odd = |(name, value): &(String, Vec<u8>)| name == "upgrade" || (name == "te" && value != b"trailers");
    for our in ours.iter().filter(|our| !our.head.2.iter().any(is_odd)) {
        let their = left.find(|their| their.head == our.head);
        let Some(their) = their else {
            if is_broken {
                break;
            }
            panic!("nobody else reads {our:?}, but {theirs:?}");
        };
        assert!(
            our.body.is_none() || our.body == their.body || (is_broken && their.body.is_none()),
            "{our:?} is {their:?} to somebody else"
        );
        ways.push((our.head.2.len().min(4), our.body.as_ref().map(|body| body.len().min(3))));
    }
    trace((ways, theirs.len().min(5), frames.len().min(6)))
}

#[test]
fn http2_requests() {
    let framed = |kind: u8, flags: u8, stream: u8, payload: &[u8]| [&[kind, flags, stream, payload.len() as u8], payload].concat();
    let get = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a")]);
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/b"), ("content-length", "3")]);
    let odd = block(&[("host", "a"), ("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers"), ("x", " 1 ")]);
    let whole = flag::END_HEADERS | flag::END_STREAM;
    let words = [
        framed(kind::HEADERS, whole, 1, &get),
        framed(kind::HEADERS, whole, 3, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a']),
        framed(kind::HEADERS, flag::END_HEADERS, 1, &post),
        framed(kind::HEADERS, flag::END_HEADERS, 3, &[get.as_slice(), &odd].concat()),
        framed(kind::HEADERS, 0, 5, &get),
        framed(kind::CONTINUATION, flag::END_HEADERS, 5, &odd),
        framed(kind::DATA, 0, 1, b"ab"),
        framed(kind::DATA, flag::END_STREAM, 1, b"c"),
        framed(kind::DATA, flag::END_STREAM | flag::PADDED, 3, b"\x01d\0"),
        framed(kind::HEADERS, whole, 3, &block(&[("x-trailer", "1")])),
        framed(kind::RESET, 0, 1, &[0, 0, 0, 8]),
        framed(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        framed(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]),
        block(&[("content-length", "0")]),
        block(&[(":authority", "b")]),
        b"\x40\x01x\x01y".to_vec(),
        b"\xbe".to_vec(),
        b"\x20".to_vec(),
        b"\x3f\xe1\x1f".to_vec(),
    ];
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let seeds =
        vec![words[..2].concat(), [words[2], words[6], words[7]].concat(), [words[3], words[8]].concat(), [words[4], words[5]].concat()];
    assert_eq!(frames_behind(hello(&[]), words[0]).len(), 2, "{}", frame::HEAD);
    Target { name: "http2_requests", words: &words, seeds, most_bytes: 1_024 }.run(look);
}
