//! A client's connection: requests one after the other, each answered before the next is read.
//!
//! ```text
//! head --> answering --> writing --> head ...
//!   |          |            `--> the end: the client, the response or the worker wants it so
//!   |          `--> the client is gone: the answer is dropped, and with it the query
//!   `--> cannot be read, or takes too long: told so, and the end
//! ```
//!
//! A client that still sends when its answer was written has some time to see the end ([`Linger`]).
//!
//! Invariant: a connection that waits for a request holds no memory for one.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Response, StatusCode, Version};
use tokio::sync::oneshot;

use super::super::body::ResponseBody;
use super::super::head::Head;
use super::super::incoming::Incoming;
use super::super::seen::Seen;
use super::super::watched::Signals;
use super::io::{Io, Upgraded};
use super::linger::{LINGERS_FOR, Linger};
use super::reply::{Facts, Reply};
use super::request::{RequestHead, RequestReader};
use super::stream::{ROOM, Stream};
use super::upload::{ClientBody, Upload};
use crate::quality::Refusal;

/// To a head that took too long.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// So many requests that came together are answered before others have their turn.
const AT_A_TIME: u32 = 16;

/// A request, with what a second attempt and an upgrade need of it.
pub(crate) struct Asked {
    pub(crate) head: Box<Head>,
    pub(crate) seen: Seen,
    pub(crate) body: Incoming,
    /// What the connection is once a 101 was sent; `None` where nobody asks for that.
    pub(crate) upgrade: Option<oneshot::Receiver<Upgraded>>,
}

/// The connection, as a future that ends with it. `A` answers requests, `R` those that cannot be read.
pub(crate) struct Connection<A, R, F> {
    io: Rc<RefCell<Io>>,
    reader: RequestReader,
    state: State<F>,
    is_closing: bool,
    lingers_for: Duration,
    answer: A,
    refuse: R,
}

enum State<F> {
    /// Of the next request.
    Head,
    Answering(Pin<Box<F>>, Exchange),
    Writing(Box<Reply>, Exchange),
    /// All was written.
    Closing,
    /// The same, and the client still sends.
    Lingering(Linger),
    Over,
}

/// A request that is being answered.
struct Exchange {
    facts: Facts,
    upgrade: Option<oneshot::Sender<Upgraded>>,
}

impl<A, R, F> Connection<A, R, F>
where
    A: Fn(Asked) -> F,
    R: Fn(Refusal) -> Response<ResponseBody>,
    F: Future<Output = Response<ResponseBody>>,
{
    /// Heads have at most so many bytes and fields.
    pub(crate) fn new(stream: Stream, bytes: usize, fields: usize, signals: Arc<Signals>, answer: A, refuse: R) -> Connection<A, R, F> {
        let reader = RequestReader::new(bytes, fields);
        let io = Rc::new(RefCell::new(Io::new(stream, signals)));
        Connection { io, reader, state: State::Head, is_closing: false, lingers_for: LINGERS_FOR, answer, refuse }
    }

    /// A client that still sends is waited for so long.
    #[cfg(test)]
    pub(super) fn lingering_for(mut self, time: Duration) -> Connection<A, R, F> {
        self.lingers_for = time;
        self
    }

    /// It ends after the request that is being answered, or at once if none is.
    pub(crate) fn graceful_shutdown(&mut self) {
        self.is_closing = true;
        if let State::Answering(_, exchange) = &mut self.state {
            exchange.facts.keeps = false;
        }
    }

    /// Says that a head took too long, if the client takes it, and ends.
    #[cold]
    pub(crate) fn time_out(&mut self, cx: &mut Context<'_>) {
        let mut io = self.io.borrow_mut();
        let _ = io.send(cx, REQUEST_TIMEOUT);
        let _ = io.poll_flush(cx);
        drop(io);
        self.state = self.linger();
    }

    /// How many bytes it holds.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.io.borrow().room()
    }

    /// The client is not waited for any more.
    pub(crate) fn hang_up(&self) {
        self.io.borrow().hang_up();
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut answered = 0;
        loop {
            if matches!(self.state, State::Head) {
                answered += 1;
                if answered > AT_A_TIME {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let next = match &mut self.state {
                State::Head => ready!(self.poll_head(cx)),
                State::Answering(answering, _) => match answering.as_mut().poll(cx) {
                    Poll::Ready(response) => self.begin_reply(cx, response),
                    Poll::Pending => {
                        let mut io = self.io.borrow_mut();
                        let is_told = io.send_interim(cx).and_then(|()| match io.poll_flush(cx) {
                            Poll::Ready(Err(error)) => Err(error),
                            _ => Ok(()),
                        });
                        if is_told.is_ok() {
                            ready!(io.poll_gone(cx));
                        }
                        State::Over
                    }
                },
                State::Writing(reply, _) => match reply.poll(cx, &self.io) {
                    Poll::Ready(Ok(())) => self.end_reply(cx),
                    Poll::Ready(Err(_)) => {
                        reply.break_off(&self.io);
                        State::Over
                    }
                    Poll::Pending => {
                        ready!(self.io.borrow_mut().poll_gone(cx));
                        State::Over
                    }
                },
                State::Lingering(linger) => {
                    ready!(linger.poll(cx, &mut self.io.borrow_mut()));
                    State::Over
                }
                State::Closing => {
                    let _ = ready!(self.io.borrow_mut().poll_shutdown(cx));
                    State::Over
                }
                State::Over => return Poll::Ready(()),
            };
            self.state = next;
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<State<F>> {
        loop {
            let mut io = self.io.borrow_mut();
            match self.reader.take(&mut io.read) {
                Ok(Some(head)) => {
                    drop(io);
                    return Poll::Ready(self.begin_answer(head));
                }
                Ok(None) => {
                    if self.is_closing && io.read.is_empty() {
                        return Poll::Ready(State::Closing);
                    }
                    match ready!(io.poll_fill(cx, ROOM)) {
                        Ok(1..) => {}
                        // In the middle of a head there is nobody left to be told.
                        Ok(0) => return Poll::Ready(State::Closing),
                        Err(_) => return Poll::Ready(State::Over),
                    }
                }
                Err(refusal) => {
                    let refusal = if speaks_tls(&io.read) { Refusal::Tls } else { refusal };
                    (io.read, io.upload) = (BytesMut::new(), Upload::given_up());
                    drop(io);
                    return Poll::Ready(self.refused(cx, refusal));
                }
            }
        }
    }

    fn begin_answer(&mut self, head: RequestHead) -> State<F> {
        let RequestHead { head, seen, length, keeps, expects_continue } = head;
        let upload = Upload::new(length, expects_continue);
        let body = if upload.is_over() { Incoming::None } else { Incoming::Client(ClientBody(self.io.clone())) };
        self.io.borrow_mut().upload = upload;
        // HTTP/1.0 has no upgrades (RFC 9110, 7.8).
        let (sender, receiver) =
            if seen.has_upgrade && head.version == Version::HTTP_11 { Some(oneshot::channel()).unzip() } else { (None, None) };
        let facts = Facts {
            version: head.version,
            is_head: head.method == Method::HEAD,
            keeps: keeps && !self.is_closing,
            takes_trailers: seen.takes_trailers,
        };
        // The room first: what is made then is made there, and kilobytes need not be moved.
        let room = Box::new_uninit();
        let answering = Box::write(room, (self.answer)(Asked { head, seen, body, upgrade: receiver }));
        State::Answering(Box::into_pin(answering), Exchange { facts, upgrade: sender })
    }

    fn begin_reply(&mut self, cx: &mut Context<'_>, response: Response<ResponseBody>) -> State<F> {
        let State::Answering(_, exchange) = std::mem::replace(&mut self.state, State::Closing) else { return State::Closing };
        self.write(cx, response, exchange)
    }

    #[cold]
    fn refused(&mut self, cx: &mut Context<'_>, refusal: Refusal) -> State<F> {
        let facts = Facts { version: Version::HTTP_11, is_head: false, keeps: false, takes_trailers: false };
        self.write(cx, (self.refuse)(refusal), Exchange { facts, upgrade: None })
    }

    fn write(&mut self, cx: &mut Context<'_>, response: Response<ResponseBody>, mut exchange: Exchange) -> State<F> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            exchange.upgrade = None;
        }
        let mut io = self.io.borrow_mut();
        // One that came with the response goes before it.
        if io.send_interim(cx).is_err() {
            return State::Over;
        }
        // The head says so where nothing can follow on this connection.
        if !io.upload.is_over() && exchange.upgrade.is_none() {
            exchange.facts.keeps = exchange.facts.keeps && io.may_go_on(cx, response.body().is_here());
        }
        drop(io);
        let Ok(mut reply) = Reply::begin(cx, response, &mut exchange.facts, &self.io) else { return State::Over };
        // Nearly all are written whole at once.
        match reply.poll(cx, &self.io) {
            Poll::Ready(Ok(())) => self.finish(cx, exchange),
            Poll::Ready(Err(_)) => {
                reply.break_off(&self.io);
                State::Over
            }
            Poll::Pending => State::Writing(Box::new(reply), exchange),
        }
    }

    fn end_reply(&mut self, cx: &mut Context<'_>) -> State<F> {
        let State::Writing(_, exchange) = std::mem::replace(&mut self.state, State::Closing) else { return State::Closing };
        self.finish(cx, exchange)
    }

    fn finish(&mut self, cx: &mut Context<'_>, exchange: Exchange) -> State<F> {
        if let Some(upgrade) = exchange.upgrade {
            // What is left of a body is no word of the other protocol.
            return if self.io.borrow().upload.is_over() { self.hand_over(upgrade) } else { self.linger() };
        }
        let goes_on = exchange.facts.keeps && !self.is_closing && self.io.borrow_mut().passes_over_upload(cx);
        if goes_on { State::Head } else { self.close() }
    }

    /// Most clients have sent all that they had to say.
    fn close(&self) -> State<F> {
        let io = self.io.borrow();
        let is_silent = io.upload.is_over() && io.read.is_empty();
        drop(io);
        if is_silent { State::Closing } else { self.linger() }
    }

    #[cold]
    fn linger(&self) -> State<F> {
        self.io.borrow_mut().gives_up_reading();
        State::Lingering(Linger::new(self.lingers_for))
    }

    #[cold]
    fn hand_over(&mut self, upgrade: oneshot::Sender<Upgraded>) -> State<F> {
        // Where nobody waits for it any more, it closes.
        drop(upgrade.send(self.io.borrow_mut().take_upgraded()));
        State::Over
    }
}

/// The handshake of TLS, whose first record is of kind 22 and version 3.x. No method begins so.
fn speaks_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x16) && bytes.get(1).is_none_or(|version| *version == 3)
}
