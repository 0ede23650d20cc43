//! A request body that can be sent a second time.
//!
//! The client's body streams through as it arrives; what has passed is remembered (as shared slices, not copies) until it
//! outgrows the limit. A second attempt is given what is remembered and then goes on from the client.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::idle::IdleTimer;
use super::incoming::{BrokenOff, Incoming};
use super::interim::{Gate, Wait};
use super::trailers;
use super::upstream::Failure;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request body ended early. All of these are the client's doing, but for `Superseded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke off.
    #[error("the client broke off its request body")]
    Aborted,
    /// What the client sent is no chunked body.
    #[error("the client's request body cannot be read")]
    Malformed,
    /// The client sent nothing for too long, or was not through in time.
    #[error("the client took too long over its request body")]
    Late,
    /// It is larger than the route allows.
    #[error("the request body is larger than the route allows")]
    TooLarge,
    /// Another attempt reads the body now, or nobody does.
    #[error("another attempt took over the request body")]
    Superseded,
}

/// The client's body and what is remembered of it, shared by the attempts of one query.
pub(crate) struct Replay {
    /// `None` once nobody wants it any more.
    incoming: Option<Incoming>,
    remembered: Vec<Bytes>,
    remembered_bytes: usize,
    limit: usize,
    /// What may still come.
    room: u64,
    /// More passed than is remembered: there is no second attempt any more.
    is_forgotten: bool,
    is_ended: bool,
    failure: Option<BodyError>,
    /// The last look found that the client had not sent more yet.
    is_waiting: bool,
    attempt: u32,
    idle: IdleTimer,
    /// When the whole body must be through.
    end: Instant,
    /// The client waits for 100 Continue, and so do we.
    wait: Option<Wait>,
}

/// What a request's body may take.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    /// So much is kept for a second attempt.
    pub(crate) replay_bytes: usize,
    pub(crate) idle: Duration,
    pub(crate) upload: Duration,
    pub(crate) bytes: u64,
    /// For a backend to say 100 Continue.
    pub(crate) expect: Duration,
}

impl Replay {
    /// `expects`: the client waits for 100 Continue.
    pub(crate) fn new(incoming: Incoming, limits: &BodyLimits, expects: bool, started: Instant) -> Rc<RefCell<Replay>> {
        Rc::new(RefCell::new(Replay {
            incoming: Some(incoming),
            remembered: Vec::new(),
            remembered_bytes: 0,
            limit: limits.replay_bytes,
            room: limits.bytes,
            is_forgotten: false,
            is_ended: false,
            failure: None,
            is_waiting: false,
            attempt: 0,
            idle: IdleTimer::new(limits.idle),
            end: started + limits.upload,
            wait: expects.then(|| Wait::new(limits.expect)),
        }))
    }

    /// The client broke off, or paused for too long.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What the client sent cannot be read.
    pub(crate) fn is_malformed(&self) -> bool {
        self.failure == Some(BodyError::Malformed)
    }

    /// It is larger than the route allows.
    pub(crate) fn is_too_large(&self) -> bool {
        self.failure == Some(BodyError::TooLarge)
    }

    /// It paused for too long, was not through in time, or is what a query waits for whose time is up.
    pub(crate) fn is_late(&self, failure: &Failure) -> bool {
        self.failure == Some(BodyError::Late) || (matches!(failure, Failure::Timeout) && self.failure.is_none() && self.is_waiting)
    }

    /// What holds the body back, as long as something does.
    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        self.wait.as_ref().map(|wait| wait.gate.clone())
    }

    /// The query is answered. A body that the client was never asked for will not come: the connections of both sides end, as they could
    /// not tell it from what comes next.
    pub(crate) fn is_answered(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.incoming = None;
            wait.gate.open();
        }
    }

    /// The client waits to be asked for it.
    pub(crate) fn is_held_back(&self) -> bool {
        self.wait.is_some()
    }

    /// The client is being waited for, or has failed: then nobody else can be blamed for being late.
    pub(crate) fn holds_things_up(&self) -> bool {
        self.is_waiting || self.has_failed()
    }

    /// Whether everything that was read of the body can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.is_forgotten && self.failure.is_none()
    }

    /// All of the body, if it has come and is remembered.
    pub(crate) fn whole(&self) -> Option<Vec<Bytes>> {
        (self.has_come() && self.is_replayable()).then(|| self.remembered.clone())
    }

    /// Nothing more will come.
    pub(crate) fn has_come(&self) -> bool {
        self.is_ended || self.incoming.as_ref().is_some_and(Body::is_end_stream)
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.poll_over(cx));
            self.wait = None;
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        };
        let polled = Pin::new(incoming).poll_frame(cx);
        self.is_waiting = polled.is_pending();
        let Poll::Ready(frame) = polled else {
            return match self.idle.poll_expired_by(self.end, cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(self.fail(BodyError::Late)))),
                Poll::Pending => Poll::Pending,
            };
        };
        self.idle.progressed();
        Poll::Ready(match frame {
            None => {
                self.is_ended = true;
                None
            }
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                match self.room.checked_sub(bytes) {
                    Some(room) => {
                        self.room = room;
                        self.remember(&frame);
                        if frame.is_data() { Some(Ok(frame)) } else { self.last(frame).map(Ok) }
                    }
                    None => Some(Err(self.fail(BodyError::TooLarge))),
                }
            }
            // A stream of HTTP/2 is reset by who reads its frames, and that is all there is to say.
            Some(Err(error @ BrokenOff::Client(_))) if error.is_malformed() => Some(Err(self.fail(BodyError::Malformed))),
            Some(Err(_)) => Some(Err(self.fail(BodyError::Aborted))),
        })
    }

    /// The trailers that pass; without any this is the end.
    #[cold]
    fn last(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let left = trailers::cleaned(frame);
        self.is_ended = left.is_none();
        left
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.failure = Some(error);
        error
    }

    fn remember(&mut self, frame: &Frame<Bytes>) {
        let fits = frame.data_ref().filter(|data| self.remembered_bytes + data.len() <= self.limit);
        match fits {
            Some(data) if !self.is_forgotten => {
                self.remembered_bytes += data.len();
                self.remembered.push(data.clone());
            }
            // Trailers are not remembered either: a body that has some is sent once.
            _ => {
                self.is_forgotten = true;
                self.remembered = Vec::new();
            }
        }
    }
}

/// The body of one attempt.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// The client's, from the start.
    Replayed {
        /// Shared with the other attempts.
        replay: Rc<RefCell<Replay>>,
        /// Which attempt this is: a later one supersedes it.
        attempt: u32,
        /// How many of the remembered slices this attempt has sent.
        sent: usize,
    },
    /// All of it at hand, the next slice last.
    Copied(Vec<Bytes>),
}

impl RequestBody {
    /// These slices; an empty body where there are none.
    pub(crate) fn copied(mut slices: Vec<Bytes>) -> RequestBody {
        slices.reverse();
        if slices.is_empty() { RequestBody::Empty } else { RequestBody::Copied(slices) }
    }

    /// From its start again, as if nothing of it had been asked for; false where that is not remembered.
    pub(crate) fn rewind(&mut self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Copied(_) => false,
            RequestBody::Replayed { replay, sent, .. } => {
                *sent = 0;
                replay.borrow().is_replayable()
            }
        }
    }

    /// The body for a further attempt; earlier ones get nothing more.
    pub(crate) fn of(replay: &Rc<RefCell<Replay>>) -> RequestBody {
        let mut inner = replay.borrow_mut();
        inner.attempt += 1;
        RequestBody::Replayed { replay: replay.clone(), attempt: inner.attempt, sent: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (replay, attempt, sent) = match self.get_mut() {
            RequestBody::Replayed { replay, attempt, sent } => (replay, attempt, sent),
            RequestBody::Copied(slices) => return Poll::Ready(slices.pop().map(|slice| Ok(Frame::data(slice)))),
            RequestBody::Empty => return Poll::Ready(None),
        };
        let mut replay = replay.borrow_mut();
        if replay.attempt != *attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded.into())));
        }
        if let Some(slice) = replay.remembered.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(slice.clone()))));
        }
        if replay.is_ended {
            return Poll::Ready(None);
        }
        let frame = replay.poll_incoming(cx);
        if let Poll::Ready(Some(Ok(_))) = &frame {
            *sent += 1;
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Copied(slices) => slices.is_empty(),
            RequestBody::Replayed { replay, attempt, sent } => {
                let replay = replay.borrow();
                let all_sent = replay.remembered.len() <= *sent || replay.is_forgotten;
                replay.attempt == *attempt && all_sent && replay.has_come()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Copied(slices) => SizeHint::with_exact(slices.iter().map(|slice| slice.len() as u64).sum()),
            RequestBody::Replayed { replay, sent, .. } => {
                let replay = replay.borrow();
                let again: usize = replay.remembered.iter().skip(*sent).map(Bytes::len).sum();
                let again = u64::try_from(again).unwrap_or(u64::MAX);
                let rest = replay.incoming.as_ref().and_then(|incoming| incoming.size_hint().exact());
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest.saturating_add(again)))
            }
        }
    }
}
