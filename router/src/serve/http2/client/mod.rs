//! A connection to a backend, the router's own, shared by the queries that it carries at the same time: what all of them have to say at one time is one write.
//!
//! ```text
//! query -- head, data --> Streams -- one write --> backend
//!   ^   (request)            ^  `- Driver (a task) -'
//!   |                        |        |  (receive)
//!   `------ Http2Body -------'<- head as lines, data <- frames
//!                               (response)
//! ```
//!
//! A response's head becomes lines as a backend of HTTP/1.1 would have sent them, which pass to the client without a map between. `docs/decisions/http2.md`
//! says why it is our own.

mod body;
mod driver;
mod receive;
mod request;
mod response;

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use body::Http2Body;
pub(super) use response::{Final, ResponseHead};

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use http::header::{HeaderValue, UPGRADE};
use http::uri::Authority;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::head::{Head, Outgoing};
use super::super::http1::{self, Stream};
use super::super::incoming::Incoming;
use super::super::replay::RequestBody;
use super::super::seen::Seen;
use super::super::timer::ReusedTimer;
use super::super::upstream::Hearers;
use super::reads::{Reads, Writes};
use super::sending::Sending;
use super::streams::{Begun, Side, StreamBroke, Streams};
use super::tunnel::StreamIo;
use super::{FIRST_WINDOW, PREFACE, STREAM_WINDOW, frame};
use crate::quality::Broken;
use driver::Driver;

/// What a backend may send us on all streams together before we have taken it: clients that do not read shall not hold up the others.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Names and values of a response's head, with 32 for each field.
const HEAD_BYTES: u32 = 64 << 10;
/// A connection that carries queries is asked so often whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Streams at a time until the backend has said how many, and however many it says.
const FIRST_STREAMS: usize = 100;
const MOST_STREAMS: usize = 1_000;
/// Of so many streams that we reset last, frames may still be on their way.
const RESETS: usize = 2 * MOST_STREAMS;
/// An upload goes on so long after its answer is whole: a backend that takes nothing more of it may never say so.
const LEFT_TO_SEND: Duration = Duration::from_secs(30);
/// Timers that wait to be used again.
const TIMERS: usize = 64;
/// No stream has a larger number.
const LAST_STREAM: u32 = frame::LARGEST_WINDOW;

/// A share in a connection: sends queries.
pub(crate) struct Sender {
    streams: Rc<RefCell<Streams>>,
    life: Rc<Life>,
}

/// What all of a connection's users know of it.
struct Life {
    is_https: bool,
    /// Of the endpoint, for a request that names no host.
    authority: Authority,
    /// How many shares there are.
    shares: Cell<usize>,
    /// The next stream's number.
    next: Cell<u32>,
    /// How many streams the backend takes at a time.
    most: Cell<usize>,
    /// The backend has said how it will have things.
    has_settings: Cell<bool>,
    takes_tunnels: Cell<bool>,
    is_closed: Cell<bool>,
    /// It takes no more streams.
    is_going: Cell<bool>,
    /// An answer did not come in time. It may be slow, or the connection dead: until a ping is answered, nothing new is sent.
    is_doubted: Cell<bool>,
    changed: Notify,
    /// Those of queries that were answered: setting one costs more than to use it again.
    timers: RefCell<Vec<ReusedTimer>>,
}

impl Life {
    fn is_open(&self) -> bool {
        !(self.is_closed.get() || self.is_going.get()) && self.next.get() <= LAST_STREAM
    }

    /// The last stream that was begun, or 0.
    fn last(&self) -> u32 {
        self.next.get().saturating_sub(2)
    }
}

/// Why a query got no answer.
pub(crate) enum SendError {
    /// The connection takes no more: nothing of it was sent.
    Unsent(Box<Outgoing>),
    /// The backend says that it had not begun with it (RFC 9113, 6.8 and 8.7): then it may be sent again, whatever its method.
    Refused,
    /// The stream ended without an answer, or the connection did.
    Closed,
    /// What came makes no sense.
    Broken(Broken),
}

impl From<StreamBroke> for SendError {
    fn from(broke: StreamBroke) -> SendError {
        match broke {
            StreamBroke::Reset(Reason::REFUSED_STREAM) => SendError::Refused,
            StreamBroke::Reset(_) | StreamBroke::Closed => SendError::Closed,
            StreamBroke::Malformed => SendError::Broken(Broken::Parse),
        }
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        self.life.shares.set(self.life.shares.get() + 1);
        Sender { streams: self.streams.clone(), life: self.life.clone() }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let left = self.life.shares.get().saturating_sub(1);
        self.life.shares.set(left);
        if left == 0 {
            let mut streams = self.streams.borrow_mut();
            streams.is_waited_for = true;
            streams.wake();
        }
    }
}

impl Sender {
    /// Begins to speak. The connection lives in a task of its own until nobody uses it any more, or the backend ends it.
    pub(crate) fn begin(stream: Stream, is_https: bool, authority: Authority) -> Sender {
        let side = Side { window: CONNECTION_WINDOW, resets: RESETS, unwanted: Reason::CANCEL, keeps_unread: true };
        let mut streams = Streams::new(side);
        streams.out().extend_from_slice(PREFACE);
        // Nothing is to be pushed.
        frame::write_settings(streams.out(), &[(2, 0), (4, STREAM_WINDOW), (6, HEAD_BYTES)]);
        frame::write_window(streams.out(), 0, CONNECTION_WINDOW - FIRST_WINDOW);
        let streams = Rc::new(RefCell::new(streams));
        let life = Rc::new(Life {
            is_https,
            authority,
            shares: Cell::new(1),
            next: Cell::new(1),
            most: Cell::new(FIRST_STREAMS),
            has_settings: Cell::default(),
            takes_tunnels: Cell::default(),
            is_closed: Cell::default(),
            is_going: Cell::default(),
            is_doubted: Cell::default(),
            changed: Notify::new(),
            timers: RefCell::default(),
        });
        let mut driver = Driver::new(stream, streams.clone(), life.clone());
        tokio::task::spawn_local(std::future::poll_fn(move |cx| driver.poll(cx)));
        Sender { streams, life }
    }

    /// A timer for a query, which may be set to an earlier deadline.
    pub(crate) fn timer(&self, deadline: Instant) -> ReusedTimer {
        self.life.timers.borrow_mut().pop().unwrap_or_else(|| ReusedTimer::new(deadline))
    }

    /// The query is answered.
    pub(crate) fn give_back(&self, timer: Option<ReusedTimer>) {
        let mut timers = self.life.timers.borrow_mut();
        if timers.len() < TIMERS {
            timers.extend(timer);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.life.is_closed.get()
    }

    /// An answer did not come in time.
    pub(crate) fn is_late(&self) {
        self.life.is_doubted.set(true);
        self.streams.borrow_mut().wake();
    }

    /// Whether it takes one more query now.
    pub(crate) fn is_usable(&self) -> bool {
        self.life.is_open() && !self.life.is_doubted.get() && self.has_room()
    }

    fn has_room(&self) -> bool {
        let streams = self.streams.borrow();
        streams.all.len() < self.life.most.get() && !streams.is_full()
    }

    /// Sends a query and waits for the head of its answer. An upgrade that the request asks for becomes a tunnel (RFC 8441) where the backend
    /// takes those, and a 101 when it agrees; where it does not, the request goes without the wish.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn send(&self, request: Outgoing, hearers: Hearers<'_>) -> Result<(Response<Incoming>, Seen), SendError> {
        let mut protocol = request.head.fields.lines().map_or_else(|| request.head.fields.as_map().get(UPGRADE).cloned(), |_| None);
        if protocol.is_some() || !self.has_room() {
            Box::pin(self.wait(protocol.is_some())).await;
            protocol = protocol.filter(|_| self.life.takes_tunnels.get());
        }
        if !self.life.is_open() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        let Outgoing { head, body } = request;
        if let Some(protocol) = protocol {
            return Box::pin(self.open_tunnel(head, hearers, protocol)).await;
        }
        let ends = body.is_end_stream();
        let mut exchange = Exchange { reads: self.begin_stream(head, ends, None), upload: None };
        if !ends {
            exchange.upload = begin_upload(body, &exchange.reads).await;
        }
        let Final { response, lines, seen, length } = *head_of(&exchange.reads, hearers).await?;
        Ok((response.map(|()| Incoming::Http2(Http2Body::new(exchange, length, lines))), seen))
    }

    /// Until there is room for another stream or no use in waiting; `for_settings`: and until the backend has said how it will have things.
    async fn wait(&self, for_settings: bool) {
        while self.life.is_open() && !(self.has_room() && (self.life.has_settings.get() || !for_settings)) {
            self.streams.borrow_mut().is_waited_for = true;
            self.life.changed.notified().await;
        }
    }

    /// Writes the head; whoever reads what comes.
    fn begin_stream(&self, mut head: Box<Head>, ends: bool, protocol: Option<&HeaderValue>) -> Reads {
        let id = self.life.next.get();
        self.life.next.set(id + 2);
        let mut streams = self.streams.borrow_mut();
        let is_head = head.method == Method::HEAD && protocol.is_none();
        streams.begin(id, Begun { length: None, is_head, has_head: false, has_ended: false, is_read: true, is_written: true });
        let protocol = protocol.map(HeaderValue::as_bytes);
        let address = request::Address { is_https: self.life.is_https, authority: self.life.authority.as_str() };
        streams.write_fields(id, ends, |encoder, out| request::write(encoder, out, &head, &address, protocol));
        drop(streams);
        if head.fields.lines().is_none() {
            http1::give_back(std::mem::take(head.fields.map()));
        }
        Reads { streams: self.streams.clone(), id }
    }

    /// Asks for a tunnel; whatever else the backend says than that it agrees is an ordinary answer.
    async fn open_tunnel(
        &self,
        head: Box<Head>,
        hearers: Hearers<'_>,
        protocol: HeaderValue,
    ) -> Result<(Response<Incoming>, Seen), SendError> {
        let reads = self.begin_stream(head, false, Some(&protocol));
        let writes = Writes::new(&reads);
        let Final { mut response, lines, seen, length } = *head_of(&reads, hearers).await?;
        if !response.status().is_success() {
            self.streams.borrow_mut().write_data(reads.id, &[], true);
            let body = Http2Body::new(Exchange { reads, upload: None }, length, lines);
            return Ok((response.map(|()| Incoming::Http2(body)), seen));
        }
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        if let Some(passed) = lines {
            *response.headers_mut() = passed.lines.to_map();
        }
        response.headers_mut().insert(UPGRADE, protocol);
        let seen = Seen::of(response.headers());
        let io = StreamIo::new(reads, writes, None);
        Ok((response.map(|()| Incoming::Tunnel(Box::new(io))), seen))
    }
}

/// The head of the answer; interim ones are told as they come.
async fn head_of(reads: &Reads, hearers: Hearers<'_>) -> Result<Box<Final>, SendError> {
    std::future::poll_fn(|cx| {
        let mut streams = reads.streams.borrow_mut();
        for (status, headers) in streams.take_interim(reads.id) {
            hearers.hear(status, headers);
        }
        streams.poll_head(cx, reads.id)
    })
    .await?
    .map_err(SendError::Broken)
}

/// Sends the body; most bodies are here already, and need no task for it.
async fn begin_upload(body: RequestBody, reads: &Reads) -> Option<AbortHandle> {
    let sending = Sending::new(body, |_| Reason::CANCEL, request::write_map);
    let mut upload = Upload { writes: Writes::new(reads), sending };
    let is_sent = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut upload).poll(cx).is_ready())).await;
    (!is_sent).then(|| tokio::task::spawn_local(upload).abort_handle())
}

/// A request's body on its way.
struct Upload {
    writes: Writes,
    sending: Sending<RequestBody>,
}

impl Future for Upload {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Upload { writes, sending } = self.get_mut();
        sending.poll(cx, &writes.streams, writes.id)
    }
}

/// A query on its stream. When it is dropped before the answer is whole, the query is of no interest any more, and the backend is told so.
struct Exchange {
    reads: Reads,
    upload: Option<AbortHandle>,
}

impl Exchange {
    /// The answer is whole. An upload that is not goes on by itself for a while, as long as the backend takes it.
    fn is_answered(&mut self) {
        if let Some(upload) = self.upload.take().filter(|upload| !upload.is_finished()) {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LEFT_TO_SEND).await;
                upload.abort();
            });
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}
