//! What is read of a backend's bytes, against hyper's client: the same, or a refusal.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use switchback_fuzz::{Target, trace};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::head::Outgoing;
use super::super::replay::RequestBody;
use super::super::upstream::Hearers;
use super::{BackendBroke, Stream, Unanswered, Wire};
use crate::quality::Broken;

/// What a client made of a response.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    // The order of lines with another name means nothing.
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// A backend that answers whatever it is asked with these bytes, in pieces, and closes.
async fn backend(mut stream: DuplexStream, bytes: Vec<u8>, piece: usize) {
    let mut asked = [0; 1_024];
    let _ = stream.read(&mut asked).await;
    for piece in bytes.chunks(piece.max(1)) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Runs a client against such a backend.
pub(super) fn against<F: Future>(bytes: &[u8], piece: usize, client: impl FnOnce(DuplexStream) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let bytes = bytes.to_vec();
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        tokio::task::spawn_local(backend(theirs, bytes, piece));
        client(ours).await
    })
}

pub(super) fn request(method: &Method) -> http::request::Builder {
    Request::builder().method(method).uri("/rank").header("host", "a.test")
}

/// How our own ends: an answer and whether the connection goes on, or why not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Answer(Answer, bool),
    Broken(Broken),
    Closed,
    BrokeOff(BackendBroke),
}

/// Asks over a connection of ours, and reads all of the answer.
pub(super) async fn answered(wire: &Wire, request: Outgoing) -> Ends {
    let (response, _) = match wire.send(request, Hearers::NONE).await {
        Ok(answer) => answer,
        Err(Unanswered::Broken(broken)) => return Ends::Broken(broken),
        Err(Unanswered::Closed | Unanswered::Unsent(_)) => return Ends::Closed,
    };
    let (mut head, mut body) = response.into_parts();
    if let Some(passed) = body.take_lines() {
        // As whoever wants a map has them: but for a `Connection` that is for this hop.
        head.headers = passed.lines.to_map();
    }
    let body = match body.collect().await {
        Ok(body) => body,
        Err(broke) => return Ends::BrokeOff(broke),
    };
    let trailers = body.trailers().map(fields).unwrap_or_default();
    let answer = Answer { status: head.status.as_u16(), fields: fields(&head.headers), body: body.to_bytes().to_vec(), trailers };
    Ends::Answer(answer, !wire.0.borrow().is_over)
}

fn ours(bytes: &[u8], piece: usize, method: &Method) -> Ends {
    against(bytes, piece, |stream| async move {
        let wire = Wire::new(Stream::Piped(stream));
        answered(&wire, request(method).body(RequestBody::Empty).unwrap().into()).await
    })
}

/// All of a response that hyper reads.
pub(super) async fn taken(response: Response<hyper::body::Incoming>) -> Option<Answer> {
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().map(fields).unwrap_or_default();
    // What is for this hop alone is left out where lines pass as they came.
    let is_plain =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close") || value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    let lines: Vec<_> = head.headers.get_all("connection").iter().collect();
    if lines.len() == 1 && lines.into_iter().all(is_plain) {
        head.headers.remove("connection");
    }
    Some(Answer { status: head.status.as_u16(), fields: fields(&head.headers), body: body.to_bytes().to_vec(), trailers })
}

fn hypers(bytes: &[u8], method: &Method) -> Option<Answer> {
    against(bytes, bytes.len(), |stream| async move {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        taken(sender.send_request(request(method).body(Empty::<Bytes>::new()).unwrap()).await.ok()?).await
    })
}

fn body_of(ends: &Ends) -> &[u8] {
    let Ends::Answer(answer, _) = ends else { panic!("{ends:?}") };
    &answer.body
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn each_kind_of_body_is_read_and_it_is_known_whether_the_connection_goes_on() {
    let get = Method::GET;
    for (bytes, body, keeps) in [
        (format!("{OK}content-length: 2\r\n\r\nhi"), "hi", true),
        (format!("{OK}Content-Length: 0\r\n\r\n"), "", true),
        (format!("{OK}content-length: 2\r\nconnection: close\r\n\r\nhi"), "hi", false),
        (format!("{OK}content-length: 2\r\nconnection: keep-alive, x, CLOSE\r\n\r\nhi"), "hi", false),
        (format!("{OK}transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n00A;a=\"b\"\r\n0123456789\r\n0\r\n\r\n"), "hi0123456789", true),
        (format!("{OK}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n"), "x", true),
        (format!("{OK}\r\nup to the end"), "up to the end", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx".to_owned(), "x", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: Keep-Alive\r\n\r\nx".to_owned(), "x", true),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), "", true),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_owned(), "", true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n".to_owned(), "", true),
        (format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{OK}content-length: 1\r\n\r\nx"), "x", true),
    ] {
        for piece in 1..=bytes.len() {
            let ends = ours(bytes.as_bytes(), piece, &get);
            assert_eq!(body_of(&ends), body.as_bytes(), "{bytes:?} in pieces of {piece}");
            assert!(matches!(ends, Ends::Answer(_, is) if is == keeps), "{bytes:?} in pieces of {piece}: {ends:?}");
        }
        let Ends::Answer(answer, _) = ours(bytes.as_bytes(), 1, &get) else { panic!() };
        assert_eq!(Some(answer), hypers(bytes.as_bytes(), &get), "{bytes:?}");
    }
    let head = ours(format!("{OK}content-length: 2\r\n\r\n").as_bytes(), 3, &Method::HEAD);
    assert!(matches!(&head, Ends::Answer(answer, true) if answer.body.is_empty()), "{head:?}");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let get = Method::GET;
    for (bytes, broken) in [
        (format!("{OK}content-length: 2\r\ncontent-length: 2\r\n\r\nhi"), Broken::Framing),
        (format!("{OK}content-length: 2, 2\r\n\r\nhi"), Broken::Framing),
        (format!("{OK}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), Broken::Framing),
        (format!("{OK}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Broken::Framing),
        (format!("{OK}transfer-encoding: identity\r\n\r\n"), Broken::Framing),
        ("HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n".to_owned(), Broken::Framing),
        (format!("\r\n{OK}content-length: 0\r\n\r\n"), Broken::Framing),
        (format!("{OK}content-length: +2\r\n\r\nhi"), Broken::Parse),
        (format!("{OK}content-length: 0x2\r\n\r\nhi"), Broken::Parse),
        (format!("{OK}content-length: 99999999999999999999\r\n\r\nhi"), Broken::Parse),
        (format!("{OK}content-length : 2\r\n\r\nhi"), Broken::Parse),
        (format!("{OK}a: b\r\n c: d\r\n\r\n"), Broken::Parse),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Broken::Parse),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), Broken::Parse),
        ("SSH-2.0-OpenSSH_9".to_owned(), Broken::Parse),
        (format!("{OK}{}\r\n", "a: b\r\n".repeat(101)), Broken::Fields),
        (format!("{OK}a: {}\r\n\r\n", "x".repeat(super::response::HEAD_BYTES)), Broken::HeadSize),
    ] {
        for piece in [1, 7, bytes.len()] {
            assert_eq!(
                ours(bytes.as_bytes(), piece, &get),
                Ends::Broken(broken),
                "{:?} in pieces of {piece}",
                &bytes[..bytes.len().min(90)]
            );
        }
    }
    for (chunks, broke) in [
        ("2\r\nhi", BackendBroke::Closed),
        ("2\r\nhi\r\n", BackendBroke::Closed),
        ("2\r\nhi\r\n0\r\n", BackendBroke::Closed),
        ("\r\n", BackendBroke::Malformed),
        (" 2\r\nhi\r\n0\r\n\r\n", BackendBroke::Malformed),
        ("2 \r\nhi\r\n0\r\n\r\n", BackendBroke::Malformed),
        ("0x2\r\nhi\r\n0\r\n\r\n", BackendBroke::Malformed),
        ("2\nhi\r\n0\r\n\r\n", BackendBroke::Malformed),
        ("2\r\nhi\n0\r\n\r\n", BackendBroke::Malformed),
        ("2;a\nb\r\nhi\r\n0\r\n\r\n", BackendBroke::Malformed),
        ("2\r\nhixx0\r\n\r\n", BackendBroke::Malformed),
        ("11111111111111112\r\n", BackendBroke::Malformed),
        ("0\r\na : b\r\n\r\n", BackendBroke::Malformed),
        ("0\r\na: b\n\r\n", BackendBroke::Malformed),
    ] {
        let bytes = format!("{OK}transfer-encoding: chunked\r\n\r\n{chunks}");
        for piece in [1, 2, bytes.len()] {
            assert_eq!(ours(bytes.as_bytes(), piece, &get), Ends::BrokeOff(broke), "{chunks:?} in pieces of {piece}");
        }
    }
    let extensions = format!("{OK}transfer-encoding: chunked\r\n\r\n{}", format!("1;{}\r\nx\r\n", "e".repeat(4_000)).repeat(5));
    assert_eq!(ours(extensions.as_bytes(), 100, &get), Ends::BrokeOff(BackendBroke::Malformed), "extensions without end");
    assert_eq!(ours(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", 9, &get), Ends::BrokeOff(BackendBroke::Closed));
    assert_eq!(ours(b"HTTP/1.1 200 OK\r\nco", 4, &get), Ends::Closed);
}

#[test]
fn a_length_is_looked_at_where_no_body_follows_too() {
    for (method, start) in [
        (Method::HEAD, OK),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n"),
        (Method::HEAD, "HTTP/1.1 204 No Content\r\n"),
    ] {
        for length in ["abc", "-1", "+1", "", "0x2", "18446744073709551616", "99999999999999999999999"] {
            let bytes = format!("{start}content-length: {length}\r\n\r\n");
            assert_eq!(ours(bytes.as_bytes(), bytes.len(), &method), Ends::Broken(Broken::Parse), "{method} {bytes:?}");
        }
        let old = format!("{}transfer-encoding: chunked\r\n\r\n", start.replacen("1.1", "1.0", 1));
        assert_eq!(ours(old.as_bytes(), old.len(), &method), Ends::Broken(Broken::Parse), "{method} {old:?}");
        // A HEAD and a 304 say of what there would be; a 204 says that there is nothing.
        let is_nothing = start.contains("204");
        for says in ["content-length: 2\r\n", "transfer-encoding: chunked\r\n"] {
            let bytes = format!("{start}{says}\r\n");
            let ends = ours(bytes.as_bytes(), bytes.len(), &method);
            assert_eq!(ends == Ends::Broken(Broken::Framing), is_nothing, "{method} {bytes:?}: {ends:?}");
            assert_eq!(matches!(&ends, Ends::Answer(answer, true) if answer.body.is_empty()), !is_nothing, "{method} {bytes:?}: {ends:?}");
        }
    }
}

#[test]
fn what_was_not_sent_comes_back_and_what_is_behind_a_response_is_nobodys() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let wire = Wire::new(Stream::Piped(ours));
        assert!(wire.is_usable());
        drop(theirs);
        assert!(!wire.is_usable(), "it is closed");
        let body = RequestBody::copied(vec![Bytes::from_static(b"hi")]);
        let request = request(&Method::PUT).header("content-length", "2");
        let unsent = wire.send(request.body(body).unwrap().into(), Hearers::NONE).await;
        assert!(matches!(unsent, Err(Unanswered::Closed)), "a body that cannot be had again");
        let request = request_of_nothing();
        let unsent = wire.send(request, Hearers::NONE).await;
        assert!(
            matches!(unsent, Err(Unanswered::Unsent(request)) if request.head.uri == "/rank" && request.head.fields.named("host").is_some())
        );
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let wire = Wire::new(Stream::Piped(ours));
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n").await.unwrap();
        let (response, _) = wire.send(request_of_nothing(), Hearers::NONE).await.unwrap_or_else(|_| panic!("no answer"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
        assert!(!wire.is_usable(), "something came that nobody asked for");
    });
}

#[test]
fn what_is_together_as_long_as_the_last_head_is_taken_apart() {
    let second = format!("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n{OK}content-length: 2\r\n\r\n");
    let body = format!("{OK}content-length: 50\r\n\r\n");
    for (heads, rest) in [(second.clone(), "hi".to_owned()), (body.clone(), format!("{}\r\n\r\n{}", "b".repeat(20), "c".repeat(26)))] {
        // The first one's head is as long as the second's heads, or as its head and the body up to an empty line in it.
        let length = heads.len() + rest.find("\r\n\r\n").map_or(0, |end| end + 4);
        let start = format!("{OK}content-length: 0\r\nx: ");
        let first = format!("{start}{}\r\n\r\n", "p".repeat(length - start.len() - 4));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            let wire = Wire::new(Stream::Piped(ours));
            for bytes in [first, format!("{heads}{rest}")] {
                theirs.write_all(bytes.as_bytes()).await.unwrap();
                let answer = wire.send(request_of_nothing(), Hearers::NONE).await;
                let (response, _) = answer.unwrap_or_else(|_| panic!("{bytes:?} is not read"));
                let read = response.into_body().collect().await.unwrap().to_bytes();
                assert!(read.is_empty() || read == rest, "{read:?}");
            }
            assert!(wire.is_usable());
        });
    }
}

#[test]
fn chunks_that_a_backend_does_not_take_are_not_asked_for() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let wire = std::rc::Rc::new(Wire::new(Stream::Piped(ours)));
        let sends = wire.clone();
        let body = RequestBody::copied(vec![Bytes::from(vec![b'x'; 10_000]); 100]);
        let request = request(&Method::PUT).header("transfer-encoding", "chunked").body(body).unwrap();
        tokio::task::spawn_local(async move { sends.send(request.into(), Hearers::NONE).await.is_ok() });
        for _ in 0..50 {
            theirs.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(wire.0.borrow().out.held() < 40_000, "{}", wire.0.borrow().out.held());
    });
}

fn request_of_nothing() -> Outgoing {
    request(&Method::DELETE).body(RequestBody::Empty).unwrap().into()
}

/// A response of hyper's and ours, which must not be two.
fn compared(bytes: &[u8]) -> (Option<Answer>, Option<Answer>) {
    compared_to(if bytes.len().is_multiple_of(5) { &Method::HEAD } else { &Method::GET }, bytes)
}

/// The same as the response to a method.
fn compared_to(method: &Method, bytes: &[u8]) -> (Option<Answer>, Option<Answer>) {
    // What a refusal is for may depend on how far the bytes have come; whether it is one may not.
    let answer = |ends: Ends| if let Ends::Answer(answer, keeps) = ends { Some((answer, keeps)) } else { None };
    let whole = answer(ours(bytes, bytes.len(), method));
    let piece = bytes.len() % 7 + 1;
    assert_eq!(answer(ours(bytes, piece, method)), whole, "in pieces of {piece}: {}", bytes.escape_ascii());
    let theirs = hypers(bytes, method);
    let ours = whole.map(|(answer, _)| answer);
    if let Some(ours) = &ours {
        // What nobody asked for is refused by who looks at the response.
        let is_switching = ours.status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
        assert!(is_switching || Some(ours) == theirs.as_ref(), "{}: {theirs:?}, and here {ours:?}", bytes.escape_ascii());
    }
    (ours, theirs)
}

/// What responses are made of.
pub(super) const WORDS: [&[u8]; 30] = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"content-length: 2\r\n",
    b"Content-Length: 0\r\n",
    b"content-length: 2, 2\r\n",
    b"content-length:\t2 \r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"transfer-encoding:\x0bchunked\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"trailer: x-sum\r\n",
    b"x-a: b\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"hi",
    b"2\r\nhi\r\n",
    b"2;a=b\r\nhi\r\n",
    b"0\r\n\r\n",
    b"0\r\nx-sum: 1\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"\0",
    b"\x80",
];

/// The responses of the public smuggling classes, as bytes.
fn smuggled() -> Vec<Vec<u8>> {
    let cases = include_str!("../../../../tests/smuggling/responses.txt").split("\n=== ").skip(1);
    cases.filter_map(|case| Some(unescaped(&case.split_once('\n')?.1.replace('\n', "")))).collect()
}

/// `\r`, `\n`, `\t`, `\xNN` and `\\` as what they stand for.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut found, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let byte = match (byte, (byte == b'\\').then(|| rest.next()).flatten()) {
            (_, Some(b'r')) => b'\r',
            (_, Some(b'n')) => b'\n',
            (_, Some(b't')) => b'\t',
            (_, Some(b'x')) => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            (_, Some(other)) => other,
            (byte, None) => byte,
        };
        found.push(byte);
    }
    found
}

#[test]
fn every_smuggled_response_is_read_as_hyper_reads_it_or_refused() {
    let all = smuggled();
    let read = all.iter().flat_map(|bytes| [Method::GET, Method::HEAD].map(|method| compared_to(&method, bytes).0)).flatten().count();
    assert!(all.len() >= 40 && (6..all.len()).contains(&read), "{} of {}", read, all.len());
}

#[test]
fn fuzz_backend_response() {
    let mut seeds = vec![
        format!("{OK}content-length: 2\r\n\r\nhi").into_bytes(),
        format!("{OK}transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").into_bytes(),
        format!("{OK}\r\nhi").into_bytes(),
    ];
    seeds.extend(smuggled());
    Target { name: "backend_response", words: &WORDS, seeds, most_bytes: 2_048 }.run(|bytes| trace(compared(bytes)));
}

proptest! {
    #[test]
    fn chunks_of_any_size_in_any_pieces_are_the_same_body(
        sizes in proptest::collection::vec(1_usize..40, 0..12),
        piece in 1_usize..60,
    ) {
        let data: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|place| place as u8).collect();
        let (mut rest, mut bytes) = (data.as_slice(), format!("{OK}transfer-encoding: chunked\r\n\r\n").into_bytes());
        for size in sizes {
            let (chunk, after) = rest.split_at(size);
            bytes.extend(format!("{size:x}\r\n").bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
            rest = after;
        }
        bytes.extend(b"0\r\n\r\n");
        let ends = ours(&bytes, piece, &Method::GET);
        prop_assert_eq!(body_of(&ends), data);
    }
}
