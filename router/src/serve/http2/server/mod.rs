//! A client's connection of HTTP/2, the router's own: frames are read as they come, each stream is answered by a task of its own, and what all of them have to
//! say at one time is one write.
//!
//! ```text
//! client -- frames --> Connection -- head as lines --> answer (a task for each stream)
//!            ^            |  (receive, request)           |
//!            |            `-- data --> Streams --> body   | (reply)
//!            |                          |                 |
//!            `------- one write --------'<-- head, data --'
//! ```
//!
//! A request's head becomes what a client of HTTP/1.1 would have sent, so that all that comes after it is the same for both, and fields of a response pass from a
//! backend's lines into a block without a map between them. `docs/decisions/http2.md` says why it is our own.

mod receive;
mod reply;
mod request;
mod upload;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use upload::StreamBody;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use h2::Reason;
use http::header::EXPECT;
use http::{Method, Response};
use tokio::io::AsyncWrite as _;
use tokio::sync::oneshot;

use super::super::body::ResponseBody;
use super::super::hang_up::HangUp as _;
use super::super::head::Head;
use super::super::http1::Stream;
use super::super::incoming::Incoming;
use super::super::interim::expects_continue;
use super::super::seen::Seen;
use super::super::watched::Signals;
use super::alive::{ALIVE, Alive, Due, GOING};
use super::frame::{self, kind};
use super::frames::Frames;
use super::hints::Hints;
use super::hpack::Decoder;
use super::reads::Reads;
use super::streams::{Begun, Side, StreamBroke, Streams};
use super::tunnel::StreamIo;
use super::{FIRST_WINDOW, PING_PATIENCE, PREFACE, ROOM, STREAM_WINDOW};
use crate::config::Limits;
use crate::quality::Refusal;
use reply::Reply;
use request::{Pseudo, Request};

/// Of so many streams that we reset last, at least, frames may still be on their way.
const RESET_LAST: usize = 64;

/// A request.
pub(crate) struct Asked {
    pub(crate) head: Box<Head>,
    pub(crate) seen: Seen,
    pub(crate) body: Incoming,
    pub(crate) side: StreamSide,
}

/// What a query has of its stream, beside head and body.
pub(crate) struct StreamSide {
    /// Where interim responses go.
    pub(crate) hints: Arc<Hints>,
    /// Where the tunnel comes from that was asked for (RFC 8441), once a success was sent. `None` as well when somebody has taken it.
    pub(crate) tunnel: Option<oneshot::Receiver<StreamIo>>,
}

/// How far a connection's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// Streams are begun.
    On,
    /// The client was told, and what it sent before it knew still comes.
    Told,
    /// No stream is begun any more.
    Last,
    /// The same, at the client's wish.
    Gone,
}

/// The connection, as a future that ends with it. `A` answers requests, `R` those that are refused as they are read.
pub(crate) struct Connection<A, R> {
    stream: Stream,
    signals: Arc<Signals>,
    frames: Frames,
    streams: Rc<RefCell<Streams>>,
    decoder: Decoder,
    pseudo: Pseudo,
    limits: Limits,
    alive: Alive,
    /// The last stream that was begun.
    last: u32,
    /// The last one that was not, since we were going.
    passed_over: u32,
    has_preface: bool,
    going: Going,
    /// Nothing more is read; `Some`: for this fault of the client's.
    closing: Option<Option<Reason>>,
    answer: A,
    refuse: R,
}

impl<A, R, F> Connection<A, R>
where
    A: Fn(Asked) -> F,
    R: Fn(Refusal) -> Response<ResponseBody>,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    /// Before anything has come.
    pub(crate) fn new(stream: Stream, limits: Limits, signals: Arc<Signals>, answer: A, refuse: R) -> Connection<A, R> {
        let resets = RESET_LAST.max(2 * limits.h2_streams as usize);
        let mut streams = Streams::new(Side { window: STREAM_WINDOW, resets, unwanted: Reason::NO_ERROR, keeps_unread: false });
        let list_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
        // Limits, and that tunnels are taken (RFC 8441).
        frame::write_settings(streams.out(), &[(3, limits.h2_streams), (4, STREAM_WINDOW), (6, list_bytes), (8, 1)]);
        frame::write_window(streams.out(), 0, STREAM_WINDOW - FIRST_WINDOW);
        Connection {
            stream,
            signals,
            frames: Frames::default(),
            streams: Rc::new(RefCell::new(streams)),
            decoder: Decoder::new(),
            pseudo: Pseudo::default(),
            alive: Alive::new(limits.keepalive_timeout, PING_PATIENCE),
            limits,
            last: 0,
            passed_over: 0,
            has_preface: false,
            going: Going::On,
            closing: None,
            answer,
            refuse,
        }
    }

    /// Takes no more streams, and says so (GOAWAY): those that the client had sent before it knew are answered.
    pub(crate) fn graceful_shutdown(&mut self) {
        if self.going == Going::On {
            self.going = Going::Told;
            let mut streams = self.streams.borrow_mut();
            frame::write_go_away(streams.out(), frame::LARGEST_WINDOW, Reason::NO_ERROR);
            frame::write(streams.out(), kind::PING, 0, 0, GOING);
        }
    }

    /// Its client takes nothing, and it is dropped next.
    pub(crate) fn hang_up(&self) {
        self.stream.reset_on_close();
    }

    /// Ready at its end: with an error where the client broke the protocol, or one of its limits, and was told so (GOAWAY).
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        self.streams.borrow_mut().is_driven_by(cx.waker());
        loop {
            if self.closing.is_none() && self.poll_gone(cx).is_ready() {
                // What is still to be written finds nobody.
                return Poll::Ready(Ok(()));
            }
            let is_all_read = self.closing.is_some() || self.poll_frames(cx).is_pending();
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(fault) = self.closing {
                let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                return Poll::Ready(fault.map_or(Ok(()), Err));
            }
            if matches!(self.going, Going::Last | Going::Gone) && self.streams.borrow().is_empty() {
                self.closing = Some(None);
            } else if is_all_read {
                // It may end with the last of them.
                self.streams.borrow_mut().is_waited_for = self.going != Going::On;
                return Poll::Pending;
            }
        }
    }

    /// Asks now and then whether the client is there; ready when it is not.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.alive.poll(true, cx)) {
                Due::Ask => frame::write(self.streams.borrow_mut().out(), kind::PING, 0, 0, ALIVE),
                Due::Gone => return Poll::Ready(()),
            }
        }
    }

    /// Reads what has come. Pending when all of it is done; ready when something has to be written first, or it ends.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.streams.borrow().is_flooded() {
                return Poll::Ready(());
            }
            match self.take_next() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(reason) => {
                    self.ends(reason);
                    return Poll::Ready(());
                }
            }
            self.frames.rest();
            let count = ready!(self.stream.poll_fill(cx, &mut self.frames.read, ROOM));
            self.signals.received();
            if !matches!(count, Ok(1..)) {
                self.closing = Some(None);
                return Poll::Ready(());
            }
        }
    }

    fn take_next(&mut self) -> Result<bool, Reason> {
        if self.has_preface {
            return self.take_frame();
        }
        let read = &mut self.frames.read;
        let here = read.len().min(PREFACE.len());
        if read.get(..here) != PREFACE.get(..here) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.has_preface = here == PREFACE.len();
        if self.has_preface {
            read.advance(here);
        }
        Ok(self.has_preface)
    }

    /// The client broke the protocol, or a limit.
    #[cold]
    fn ends(&mut self, reason: Reason) {
        self.closing = Some(Some(reason));
        self.streams.borrow_mut().go_away(self.last, reason, StreamBroke::Closed);
    }

    /// Writes all that there is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.streams.borrow_mut().poll_write(cx, &mut self.stream, |is_pending| self.signals.wrote(is_pending))
    }

    /// Begins to answer a request.
    fn answer(&self, id: u32, request: Request, ends: bool) {
        let Request { head, seen, length, wants_tunnel } = request;
        let hints = Arc::<Hints>::default();
        self.begins(id, length, ends);
        let is_head = head.method == Method::HEAD;
        let (mut opening, mut tunnel) = (None, None);
        let body = if wants_tunnel {
            let (open, opened) = oneshot::channel();
            (opening, tunnel) = (Some((Reads::new(&self.streams, id), open)), Some(opened));
            Incoming::None
        } else if ends {
            Incoming::None
        } else {
            let waiting = expects_continue(head.fields.get(&EXPECT)).then(|| hints.clone());
            Incoming::Stream(StreamBody::new(&self.streams, id, length, waiting))
        };
        let side = StreamSide { hints: hints.clone(), tunnel };
        let answering = (self.answer)(Asked { head, seen, body, side });
        let reply = Reply { streams: self.streams.clone(), id, hints, is_head, opening, is_tunnel: false };
        // It is large, and a task moves what it is made of several times.
        tokio::task::spawn_local(reply.run(Box::pin(answering)));
    }

    fn begins(&self, id: u32, length: Option<u64>, ends: bool) {
        self.streams
            .borrow_mut()
            .begin(id, Begun { length, is_head: false, has_head: true, has_ended: ends, is_read: false, is_written: true });
    }

    #[cold]
    fn refuse(&self, id: u32, refusal: Refusal, is_head: bool, ends: bool) {
        self.begins(id, None, ends);
        let response = (self.refuse)(refusal);
        let (streams, hints) = (self.streams.clone(), Arc::default());
        let reply = Reply { streams, id, hints, is_head, opening: None, is_tunnel: false };
        tokio::task::spawn_local(reply.run(Box::pin(std::future::ready(response))));
    }
}

impl<A, R> Drop for Connection<A, R> {
    fn drop(&mut self) {
        self.streams.borrow_mut().end_all(StreamBroke::Closed);
    }
}
