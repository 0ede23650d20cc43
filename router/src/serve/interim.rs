//! Interim responses: 103 Early Hints and the like, and 100 Continue, from a backend to a client.
//!
//! hyper's client tells of them only to a callback that has to be made anew for every query, and its server cannot send them. Our own HTTP/1.1 reads them itself; on a
//! connection of hyper's, which is asked to upgrade, the bytes are looked at while its head is waited for ([`Heard`]), which costs one comparison as long as
//! there is no interim response, and a look at where the lines end ([`head_lines`]). A [`Hearer`] is told what comes: a client's connection of HTTP/1.1
//! ([`Signals`]), which writes it between two flushes of hyper's, or its stream of HTTP/2 ([`Hints`]).
//!
//! 100 Continue is never passed as it is: it opens the [`Gate`] before the request's body, and whoever reads that body then says 100 to the
//! client. A backend that answers instead is passed on before a byte of the body was asked for.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::head_lines::{self, Lines};
use super::headers::prepare_response;
use super::http2::Hints;
use super::seen::Seen;
use super::watched::Signals;

/// Where the first digit of a status stands in `HTTP/1.1 103 `.
const STATUS_AT: usize = 9;
/// A head that is longer is left to hyper.
const HEAD_BYTES: usize = 1 << 20;
/// A head with more fields is left to hyper.
const FIELDS: usize = 100;

/// With this `Expect` a client waits with its body until it hears 100 Continue.
pub(crate) fn expects_continue(expect: Option<&[u8]>) -> bool {
    expect.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Holds a request's body back until the backend says 100, or has said nothing for a while.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_open: AtomicBool,
    body: Mutex<Option<Waker>>,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        if let Some(waker) = locked(&self.body).take() {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_open.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *locked(&self.body) = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The wait of one body before its [`Gate`].
pub(crate) struct Wait {
    pub(crate) gate: Arc<Gate>,
    patience: Pin<Box<Sleep>>,
}

impl Wait {
    pub(crate) fn new(patience: Duration) -> Wait {
        Wait { gate: Arc::default(), patience: Box::pin(tokio::time::sleep(patience)) }
    }

    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.gate.poll_open(cx)
    }
}

/// The client that is told of interim responses.
#[derive(Debug, Clone)]
pub(crate) enum Hearer {
    /// A connection of HTTP/1.1.
    Connection(Arc<Signals>),
    /// A stream of HTTP/2.
    Stream(Arc<Hints>),
}

impl Hearer {
    fn is(&self, other: &Hearer) -> bool {
        match (self, other) {
            (Hearer::Connection(one), Hearer::Connection(other)) => Arc::ptr_eq(one, other),
            (Hearer::Stream(one), Hearer::Stream(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Passes an interim response on, without fields that end at a hop, and without those that speak of a body.
    pub(crate) fn hear(&self, status: StatusCode, reason: &str, mut headers: HeaderMap) {
        let seen = Seen::of(&headers);
        prepare_response(&mut headers, seen);
        headers.remove(CONTENT_LENGTH);
        match self {
            Hearer::Connection(signals) => signals.interim(&written(status, reason, &headers)),
            Hearer::Stream(hints) => hints.say(status, headers),
        }
    }
}

/// Who hears of a backend connection's interim responses. Both ends are on one thread, so that the lock never waits; it is there because
/// hyper lets only what could go to another thread be upgraded.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    is_listening: AtomicBool,
    /// A head came whose lines could be read in two ways. Nothing else is carried after that.
    is_odd: AtomicBool,
    listener: Mutex<Listener>,
}

#[derive(Debug, Default)]
struct Listener {
    client: Option<Hearer>,
    gate: Option<Arc<Gate>>,
}

impl Ear {
    /// Listens for the query that is being sent, until the result is dropped. `client` is `None` where it can have no interim responses.
    pub(crate) fn listen(&self, client: Option<&Hearer>, gate: Option<Arc<Gate>>) -> Listening<'_> {
        let mut listener = locked(&self.listener);
        let is_same = match (&listener.client, client) {
            (Some(before), Some(now)) => before.is(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            listener.client = client.cloned();
        }
        if gate.is_some() || listener.gate.is_some() {
            listener.gate = gate;
        }
        drop(listener);
        self.is_listening.store(true, Ordering::Relaxed);
        Listening(self)
    }

    /// The lines of the head that came could be read in two ways.
    pub(crate) fn is_odd(&self) -> bool {
        self.is_odd.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.is_listening.store(false, Ordering::Relaxed);
    }

    fn hear(&self, head: &httparse::Response<'_, '_>) {
        let listener = locked(&self.listener);
        if head.code == Some(100) {
            if let Some(gate) = &listener.gate {
                gate.open();
            }
        } else if let (Some(client), Some((status, headers))) = (&listener.client, parts(head)) {
            client.hear(status, head.reason.unwrap_or_default(), headers);
        }
    }
}

/// Dropped when the head is here, or nobody waits for it any more: what comes later is nobody's.
pub(crate) struct Listening<'a>(&'a Ear);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a head says.
fn parts(head: &httparse::Response<'_, '_>) -> Option<(StatusCode, HeaderMap)> {
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        headers.append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some((StatusCode::from_u16(head.code?).ok()?, headers))
}

/// A head as HTTP/1.1 has it.
fn written(status: StatusCode, reason: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A backend connection's bytes, with interim responses heard on their way to hyper.
pub(crate) struct Heard<S> {
    stream: S,
    ear: Arc<Ear>,
    /// What has come of a head that is, or may become, an interim one.
    kept: Vec<u8>,
    /// How much of it was found to be lines of a head that has no end yet.
    known: usize,
    /// How long the last head was.
    usual: usize,
}

impl<S> Heard<S> {
    pub(crate) fn new(stream: S, ear: Arc<Ear>) -> Heard<S> {
        Heard { stream, ear, kept: Vec::new(), known: 0, usual: 0 }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let is_final = self.kept.is_empty() && bytes.get(STATUS_AT).is_some_and(|digit| *digit != b'1');
        if is_final && (head_lines::are_as_usual(bytes, self.usual) || self.are_whole(bytes)) {
            self.ear.stop();
        } else {
            self.look_closely(bytes);
        }
    }

    /// Whether a whole head is here whose lines are as they should be, of another length than the last one.
    #[inline(never)]
    fn are_whole(&mut self, bytes: &[u8]) -> bool {
        let Lines::Whole(length) = head_lines::of(bytes, 0) else { return false };
        self.usual = length;
        true
    }

    #[cold]
    fn look_closely(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        loop {
            match head_lines::of(&self.kept, self.known) {
                Lines::Part if self.kept.len() <= HEAD_BYTES => {
                    self.known = self.kept.len();
                    return;
                }
                Lines::Part => break,
                Lines::Odd => {
                    self.ear.is_odd.store(true, Ordering::Relaxed);
                    break;
                }
                Lines::Whole(_) => {}
            }
            let Some(length) = interim_head(&self.kept, |head| self.ear.hear(head)) else { break };
            drop(self.kept.drain(..length));
            self.known = 0;
        }
        self.ear.stop();
        self.kept = Vec::new();
        self.known = 0;
    }
}

/// Tells of the interim response that these bytes begin with, and says how long it is. `None` for any other whole head: hyper's business.
fn interim_head(bytes: &[u8], tell: impl FnOnce(&httparse::Response<'_, '_>)) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else { return None };
    if !matches!(head.code, Some(100 | 102..=199)) {
        return None;
    }
    tell(&head);
    Some(length)
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.ear.is_listening.load(Ordering::Relaxed) {
            let new = buffer.filled().get(before..).unwrap_or_default();
            if !new.is_empty() {
                self.look_at(new);
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINTS: &str =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Switchback-Pool: a\r\n\r\n";
    const PASSED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    const FINAL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// What a client is sent when a backend's bytes come in pieces of this size, and whether anybody still listens.
    fn heard(text: &str, piece: usize) -> (String, bool, bool) {
        let (ear, client, gate) = (Arc::new(Ear::default()), Arc::new(Signals::default()), Arc::new(Gate::default()));
        let _listening = ear.listen(Some(&Hearer::Connection(client.clone())), Some(gate.clone()));
        let mut heard = Heard::new((), ear.clone());
        for bytes in text.as_bytes().chunks(piece) {
            if ear.is_listening.load(Ordering::Relaxed) {
                heard.look_at(bytes);
            }
        }
        let sent = String::from_utf8(client.take_interim()).unwrap();
        (sent, ear.is_listening.load(Ordering::Relaxed), gate.is_open.load(Ordering::Relaxed))
    }

    #[test]
    fn interim_responses_are_heard_however_they_are_cut() {
        let processing = "HTTP/1.1 102 Processing\r\n\r\n";
        let all = [HINTS, processing, HINTS, FINAL].concat();
        let expected = [PASSED, processing, PASSED].concat();
        for piece in 1..=all.len() {
            assert_eq!(heard(&all, piece), (expected.clone(), false, false), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_hundred_opens_the_gate_and_is_not_passed() {
        let text = ["HTTP/1.1 100 Continue\r\n\r\n", FINAL].concat();
        for piece in 1..=text.len() {
            assert_eq!(heard(&text, piece), (String::new(), false, true), "in pieces of {piece}");
        }
        assert_eq!(heard("HTTP/1.1 100 Continue\r\n\r\n", 99), (String::new(), true, true), "the head is still to come");
    }

    #[test]
    fn what_is_no_interim_response_is_not_looked_at() {
        let endless = format!("HTTP/1.1 103 Early Hints\r\nlink: {}", "a".repeat(2 * HEAD_BYTES));
        for text in [FINAL, "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 1 what\r\n\r\n", "nonsense, no HTTP\r\n\r\n", &endless] {
            assert_eq!(heard(text, 1_000), (String::new(), false, false), "{}", &text[..20.min(text.len())]);
        }
    }

    #[test]
    fn a_head_with_odd_lines_is_told_of_however_it_is_cut() {
        let good = [FINAL.to_owned(), [HINTS, FINAL].concat(), format!("{FINAL}\n\n")];
        let odd = [
            format!("\r\n{FINAL}"),
            format!("\n{FINAL}"),
            FINAL.replacen("\r\n", "\n", 1),
            FINAL.replacen("\r\n\r\n", "\r\n\n", 1),
            [HINTS, "\r\n", FINAL].concat(),
            [&HINTS.replacen("\r\n", "\n", 1), FINAL].concat(),
        ];
        for (text, is_odd) in good.iter().map(|text| (text, false)).chain(odd.iter().map(|text| (text, true))) {
            for piece in 1..=text.len() {
                let ear = Arc::new(Ear::default());
                let _listening = ear.listen(None, None);
                let mut heard = Heard::new((), ear.clone());
                for bytes in text.as_bytes().chunks(piece) {
                    if ear.is_listening.load(Ordering::Relaxed) {
                        heard.look_at(bytes);
                    }
                }
                assert_eq!(ear.is_odd(), is_odd, "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn only_a_hundred_and_something_is_an_interim_response() {
        for text in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.11 200 OK\r\n\r\n", "HTTP/1.1 1000 OK\r\n\r\n"] {
            assert_eq!(interim_head(text.as_bytes(), |_| {}), None, "{text:?}");
        }
    }
}
