//! Fuzz target of a backend's connection as a whole, against hyper's client: it is used again, requests have bodies, and responses come before those are sent.
//!
//! An input's first byte says what is asked (two bits for each request: [`Ask::of`]), its second how much of a response comes early, and the rest is what the
//! backend says. A response has the bytes that our own takes for it on a connection of its own; the next request is answered with the bytes that follow.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use switchback_fuzz::{Target, trace};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::super::head::Outgoing;
use super::super::replay::RequestBody;
use super::client_tests::{Answer, Ends, OK, WORDS, against, answered, request, taken};
use super::{Stream, Wire};

/// Requests on a connection, at most.
const EXCHANGES: usize = 3;
/// What is uploaded: more than a narrow connection takes while nobody reads.
const BODY: &[u8] = &[b'b'; 300];
/// Bytes that a narrow connection holds.
const NARROW: usize = 64;
/// A client that says nothing for so many turns of everybody waits for the backend: that closes then.
const TURNS: usize = 10_000;

/// A request.
#[derive(Debug, Clone)]
struct Ask {
    method: Method,
    /// So many bytes of the response come before its body is read.
    early: usize,
}

/// A request, and what a backend answers.
#[derive(Debug, Clone)]
struct Exchange {
    ask: Ask,
    portion: Vec<u8>,
}

impl Ask {
    fn of(bits: u8, early: u8) -> Ask {
        let (method, early) = match bits & 0b11 {
            0 => (Method::GET, 0),
            1 => (Method::HEAD, 0),
            2 => (Method::PUT, 0),
            _ => (Method::PUT, usize::from(early) + 1),
        };
        Ask { method, early }
    }

    fn body(&self) -> &'static [u8] {
        if self.method == Method::PUT { BODY } else { &[] }
    }

    fn request<B>(&self, body: B) -> Request<B> {
        let mut builder = request(&self.method);
        if !self.body().is_empty() {
            builder = builder.header("content-length", self.body().len());
        }
        builder.body(body).unwrap()
    }

    /// In two slices, where it has a body.
    fn ours(&self) -> Outgoing {
        let (first, second) = self.body().split_at(self.body().len() / 2);
        let slices = [first, second].into_iter().filter(|slice| !slice.is_empty()).map(Bytes::from_static).collect();
        self.request(RequestBody::copied(slices)).into()
    }

    /// As our own writes it.
    fn written(&self) -> Vec<u8> {
        let length = if self.body().is_empty() { String::new() } else { format!("content-length: {}\r\n", self.body().len()) };
        let head = format!("{} /rank HTTP/1.1\r\nhost: a.test\r\n{length}\r\n", self.method);
        [head.as_bytes(), self.body()].concat()
    }
}

/// The backend's side of a connection.
struct Backend {
    stream: DuplexStream,
    /// All that the client said.
    heard: Vec<u8>,
    /// So much of it was answered.
    answered: usize,
}

impl Backend {
    /// Answers each request with its portion, and closes; what it heard.
    async fn run(stream: DuplexStream, script: Vec<Exchange>, piece: usize) -> Vec<u8> {
        let mut backend = Backend { stream, heard: Vec::new(), answered: 0 };
        for exchange in &script {
            if backend.answer(exchange, piece).await.is_none() {
                break;
            }
        }
        backend.heard
    }

    async fn answer(&mut self, Exchange { ask, portion }: &Exchange, piece: usize) -> Option<()> {
        let (early, rest) = portion.split_at(ask.early.min(portion.len()));
        self.hear(0).await?;
        self.say(early, piece).await?;
        let end = self.hear(ask.body().len()).await?;
        self.say(rest, piece).await?;
        self.answered = end;
        Some(())
    }

    /// Waits for the head of the next request and so many bytes behind it: where they end. `None` when the client says no more.
    async fn hear(&mut self, body: usize) -> Option<usize> {
        for _ in 0..TURNS {
            let head = self.heard[self.answered..].windows(4).position(|end| end == b"\r\n\r\n");
            let end = head.map(|head| self.answered + head + 4 + body);
            if let Some(end) = end.filter(|end| *end <= self.heard.len()) {
                return Some(end);
            }
            let mut space = [0; 512];
            let mut read = ReadBuf::new(&mut space);
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.stream).poll_read(cx, &mut read))).await;
            match (polled, read.filled()) {
                (Poll::Ready(Ok(())), came @ [_, ..]) => self.heard.extend_from_slice(came),
                (Poll::Ready(_), _) => return None,
                (Poll::Pending, _) => tokio::task::yield_now().await,
            }
        }
        None
    }

    async fn say(&mut self, bytes: &[u8], piece: usize) -> Option<()> {
        for bytes in bytes.chunks(piece) {
            self.stream.write_all(bytes).await.ok()?;
            tokio::task::yield_now().await;
        }
        Some(())
    }
}

/// Runs a client against a backend with this script; and what the backend heard.
fn against_script<F: Future>(script: &[Exchange], piece: usize, client: impl FnOnce(DuplexStream) -> F) -> (F::Output, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let is_narrow = script.iter().any(|exchange| exchange.ask.early > 0);
    let (near, far) = tokio::io::duplex(if is_narrow { NARROW } else { 1 << 16 });
    let backend = Backend::run(far, script.to_vec(), piece);
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let backend = tokio::task::spawn_local(backend);
        let output = client(near).await;
        (output, backend.await.unwrap())
    })
}

/// A response on a connection of its own, where all bytes come at once; and how many of them are behind it.
fn alone(bytes: &[u8], ask: &Ask) -> (Ends, usize) {
    against(bytes, bytes.len(), |stream| async move {
        let wire = Wire::new(Stream::Piped(stream));
        let ends = answered(&wire, ask.ours()).await;
        let left = wire.0.borrow().read.len();
        assert!(left == 0 || !wire.is_usable(), "{left} bytes that nobody asked for");
        (ends, left)
    })
}

/// What is asked and answered, and how our own reads each response alone. All but the last leave a connection that may be used again.
fn cut(bytes: &[u8]) -> (Vec<Exchange>, Vec<Ends>) {
    let (asks, early, mut rest) = match bytes {
        [asks, early, rest @ ..] => (*asks, *early, rest),
        _ => (0, 0, bytes),
    };
    let (mut script, mut read) = (Vec::new(), Vec::new());
    for place in 0..EXCHANGES {
        let ask = Ask::of(asks >> (2 * place), early);
        let (ends, left) = alone(rest, &ask);
        let goes_on = matches!(ends, Ends::Answer(_, true)) && place + 1 < EXCHANGES;
        let (portion, behind) = rest.split_at(if goes_on { rest.len() - left } else { rest.len() });
        script.push(Exchange { ask, portion: portion.to_vec() });
        read.push(ends);
        if !goes_on {
            break;
        }
        rest = behind;
    }
    (script, read)
}

/// Our own on one connection, as long as it may be used again; and what it sent.
fn ours(script: &[Exchange], piece: usize) -> (Vec<Ends>, Vec<u8>) {
    against_script(script, piece, |stream| async move {
        let wire = Wire::new(Stream::Piped(stream));
        let mut read = Vec::new();
        for exchange in script {
            let ends = answered(&wire, exchange.ask.ours()).await;
            let keeps = matches!(ends, Ends::Answer(_, true));
            read.push(ends);
            if !keeps {
                break;
            }
            assert!(read.len() == script.len() || wire.is_usable(), "it is kept, and cannot be used: {read:?}");
        }
        read
    })
}

/// hyper's answers on one connection, each with whether it takes another request then.
fn hypers(script: &[Exchange]) -> Vec<(Answer, bool)> {
    let run = against_script(script, usize::MAX, |stream| async move {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::task::spawn_local(async move { drop(connection.await) });
        let mut answers = Vec::new();
        for exchange in script {
            let Some(answer) = asked(&mut sender, &exchange.ask).await else { break };
            let goes_on = answers.len() + 1 < script.len() && sender.ready().await.is_ok();
            answers.push((answer, goes_on));
            if !goes_on {
                break;
            }
        }
        connection.abort();
        answers
    });
    run.0
}

async fn asked(sender: &mut SendRequest<Full<Bytes>>, ask: &Ask) -> Option<Answer> {
    let body = Full::new(Bytes::from_static(ask.body()));
    taken(sender.send_request(ask.request(body)).await.ok()?).await
}

fn answer(ends: &Ends) -> Option<(&Answer, bool)> {
    if let Ends::Answer(answer, keeps) = ends { Some((answer, *keeps)) } else { None }
}

/// Our own on one connection and hyper's. What must hold:
///
/// - what our own sends is its requests, one whole one behind the other;
/// - it reads each response as on a connection of its own, in pieces of any size, early or not;
/// - it gives up a connection that may be used again only where the response came early, and never keeps another one;
/// - hyper reads the same answer from the same bytes, and takes another request where our own does.
fn compared(bytes: &[u8]) -> (Vec<Ends>, Vec<(Answer, bool)>) {
    let (script, alone) = cut(bytes);
    let (ours, heard) = ours(&script, bytes.len() % 7 + 1);
    let requests: Vec<u8> = script.iter().flat_map(|exchange| exchange.ask.written()).collect();
    assert!(requests.starts_with(&heard), "these are no requests: {}", heard.escape_ascii());
    for ((ours, alone), exchange) in ours.iter().zip(&alone).zip(&script) {
        let (here, there) = (answer(ours), answer(alone));
        assert_eq!(here.map(|(answer, _)| answer), there.map(|(answer, _)| answer), "{exchange:?}: {ours:?}, and alone {alone:?}");
        let [keeps, may_keep] = [here, there].map(|answer| answer.is_some_and(|(_, keeps)| keeps));
        let is_early = exchange.ask.early > 0;
        assert!(keeps == may_keep || (is_early && !keeps), "{exchange:?}: {ours:?}, and alone {alone:?}");
    }
    // Where our own ends, so does the comparison.
    let theirs = hypers(&script[..ours.len()]);
    compare_with_hyper(&ours, &theirs);
    (ours, theirs)
}

fn compare_with_hyper(ours: &[Ends], theirs: &[(Answer, bool)]) {
    for (place, ends) in ours.iter().enumerate() {
        let Some((answer, _)) = answer(ends) else { return };
        let their = theirs.get(place);
        // What nobody asked for is refused by who looks at the response.
        let is_switching = answer.status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
        assert!(is_switching || their.map(|(answer, _)| answer) == Some(answer), "response {place}: {theirs:?}, and here {ours:?}");
        let is_used_again = place + 1 < ours.len();
        if is_used_again && their.is_none_or(|(_, goes_on)| !goes_on) {
            // hyper does not look for `keep-alive` in a line that is not all ASCII, and closes. Where the next response begins is the same.
            let is_unheard = answer.fields.iter().any(|(name, value)| name == "connection" && !value.is_ascii());
            assert!(is_unheard, "hyper does not go on after response {place}: {theirs:?}, and here {ours:?}");
            return;
        }
    }
}

#[test]
fn a_connection_is_used_again_unless_a_response_was_through_before_its_request() {
    let responses = format!("{OK}content-length: 2\r\n\r\nhi").repeat(3);
    for (asks, early, answers) in [(0b00_10_00, 0, 3), (0b10_11_00, 9, 3), (0b10_11_00, 255, 2)] {
        let (ours, _) = compared(&[&[asks, early][..], responses.as_bytes()].concat());
        assert!(ours.len() == answers && ours.iter().all(|ends| answer(ends).is_some()), "{early} early: {ours:?}");
    }
}

#[test]
fn backend_connection() {
    let mut words = WORDS.to_vec();
    let whole: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ];
    words.extend(whole);
    Target { name: "backend_connection", words: &words, seeds: Vec::new(), most_bytes: 2_048 }.run(|bytes| {
        let (ours, theirs) = compared(bytes);
        let ours: Vec<_> = ours.iter().map(answer).collect();
        trace((ours, theirs))
    });
}
