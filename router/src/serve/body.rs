//! Response bodies: a backend's, passed on as it arrives, or the router's own.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::attempt::Attempt;
use super::clock::QueryInProgress;
use super::http1::PassedLines;
use super::idle::IdleTimer;
use super::incoming::{BrokenOff, Incoming};
use super::listen::BodyCopy;
use super::replay::Replay;
use super::trailers;
use super::upstream::Failure;
use crate::quality::Broken;

/// What a client gets.
pub(crate) struct ResponseBody {
    source: Source,
    /// Held until the body is done: until then the connection is busy.
    in_progress: Option<QueryInProgress>,
    /// Fields of the head that pass as the backend sent them.
    lines: Option<Box<PassedLines>>,
}

enum Source {
    /// Nothing, a short text of the router's own, or a backend's body that is all here.
    Own(Option<Bytes>),
    /// A backend's.
    Passed(Box<PassedBody>),
}

impl ResponseBody {
    /// A text of the router's own; `None` is an empty body.
    pub(crate) fn own(text: Option<Bytes>) -> ResponseBody {
        ResponseBody { source: Source::Own(text), in_progress: None, lines: None }
    }

    /// A backend's body of at most `room` bytes; `attempt` is ended, and its connection given back, when the body is. `request` is the client's body,
    /// which may go on meanwhile.
    pub(crate) fn passed(mut incoming: Incoming, request: Option<Rc<RefCell<Replay>>>, attempt: Box<Attempt>, room: u64) -> ResponseBody {
        if incoming.is_end_stream() {
            attempt.completed();
            is_answered(request.as_ref());
            return ResponseBody::own(None);
        }
        if let Some(data) = incoming.take_whole() {
            attempt.completed();
            is_answered(request.as_ref());
            return ResponseBody::own(Some(data));
        }
        let idle = IdleTimer::new(attempt.body_idle_timeout());
        ResponseBody {
            source: Source::Passed(Box::new(PassedBody { incoming, request, attempt, idle, room, copy: None, broken: None })),
            in_progress: None,
            lines: None,
        }
    }

    /// All of it is here.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }

    /// A copy is made of it as it passes.
    #[cold]
    pub(crate) fn copied(mut self, mut copy: Box<BodyCopy>) -> ResponseBody {
        match &mut self.source {
            Source::Passed(body) => body.copy = Some(copy),
            Source::Own(Some(data)) => {
                copy.pass(data);
                copy.deliver();
            }
            Source::Own(None) => {}
        }
        self
    }

    /// What it holds until then, for another to hold.
    pub(crate) fn in_progress(&mut self) -> Option<QueryInProgress> {
        self.in_progress.take()
    }

    /// Goes with these fields of its head, which pass as the backend sent them.
    pub(crate) fn with_lines(mut self, lines: Option<Box<PassedLines>>) -> ResponseBody {
        self.lines = lines;
        self
    }

    /// The same, for whoever writes the head.
    pub(crate) fn take_lines(&mut self) -> Option<Box<PassedLines>> {
        self.lines.take()
    }

    /// Holds this until the body is done.
    pub(crate) fn keeps(&mut self, in_progress: QueryInProgress) {
        self.in_progress = Some(in_progress);
    }
}

fn is_answered(request: Option<&Rc<RefCell<Replay>>>) {
    if let Some(request) = request {
        request.borrow_mut().is_answered();
    }
}

/// A backend's body on its way to the client, and the attempt that it ends.
pub(crate) struct PassedBody {
    incoming: Incoming,
    request: Option<Rc<RefCell<Replay>>>,
    attempt: Box<Attempt>,
    idle: IdleTimer,
    /// What may still come.
    room: u64,
    /// For whoever reads what it says.
    copy: Option<Box<BodyCopy>>,
    /// How it broke off: told when what came before was written.
    broken: Option<PassError>,
}

/// Why a body broke off. The client sees its connection (or stream) reset, as it would without the router.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The backend broke off.
    #[error("the backend broke off its response body: {0}")]
    Aborted(#[from] BrokenOff),
    /// The backend sent nothing for too long.
    #[error("the backend paused its response body for too long")]
    Idle,
    /// It is larger than the route allows.
    #[error("the backend's response body is larger than the route allows")]
    TooLarge,
}

impl PassError {
    /// What a client of HTTP/2 is told: what the backend said, if it said anything that is true of this response, too.
    pub(crate) fn reason(&self) -> h2::Reason {
        match self {
            PassError::Aborted(error) => error.reason().filter(|reason| !PROMISES.contains(reason)).unwrap_or(h2::Reason::INTERNAL_ERROR),
            PassError::Idle | PassError::TooLarge => h2::Reason::INTERNAL_ERROR,
        }
    }
}

/// What a response cannot be reset with that has begun: that it is whole (RFC 9113, 8.1), or that nobody had begun with the request (8.7).
const PROMISES: [h2::Reason; 2] = [h2::Reason::NO_ERROR, h2::Reason::REFUSED_STREAM];

/// What a backend is blamed for: chunks that make no sense are counted as that.
fn blame_for(error: &BrokenOff) -> fn(&Attempt) {
    if error.is_malformed() { |attempt| attempt.ended(&Failure::Broken(Broken::Framing)) } else { Attempt::failed }
}

impl PassedBody {
    /// The backend is to blame, unless the client's own body is.
    fn broke_off(&self, blame_backend: fn(&Attempt), is_clients_fault: fn(&Replay) -> bool) {
        let request = self.request.as_ref().map(|request| request.borrow());
        if request.as_ref().is_some_and(|request| request.is_too_large()) {
            self.attempt.ended(&Failure::TooLarge);
        } else if request.as_ref().is_some_and(|request| request.is_malformed()) {
            self.attempt.ended(&Failure::Malformed);
        } else if request
            .as_ref()
            .is_some_and(|request| request.is_late(&Failure::Late) || (is_clients_fault(request) && !request.has_failed()))
        {
            self.attempt.ended(&Failure::Late);
        } else if request.as_ref().is_some_and(|request| is_clients_fault(request)) {
            self.attempt.aborted();
        } else {
            blame_backend(&self.attempt);
        }
    }

    /// The client gets what there was of it: hyper drops what it has not written yet with the error.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.poll_pass(cx) {
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                if self.idle.poll_expired(cx).is_ready() {
                    self.broke_off(Attempt::timed_out, Replay::holds_things_up);
                    return Poll::Ready(Some(Err(PassError::Idle)));
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                self.idle.progressed();
                Poll::Ready(match frame {
                    Some(Ok(frame)) if frame.is_data() => Some(self.pass(frame)),
                    frame => self.end(frame),
                })
            }
        }
    }

    fn pass(&mut self, data: Frame<Bytes>) -> Result<Frame<Bytes>, PassError> {
        let bytes = data.data_ref().map_or(0, Bytes::len);
        let Some(room) = self.room.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX)) else {
            self.attempt.ended(&Failure::Broken(Broken::Size));
            return Err(PassError::TooLarge);
        };
        self.room = room;
        if let (Some(copy), Some(data)) = (&mut self.copy, data.data_ref()) {
            copy.pass(data);
        }
        if self.incoming.is_end_stream() {
            self.is_whole();
        }
        Ok(data)
    }

    /// Trailers are the end too, and nobody asks for more after them.
    fn end(&mut self, frame: Option<Result<Frame<Bytes>, BrokenOff>>) -> Option<Result<Frame<Bytes>, PassError>> {
        match frame {
            Some(Err(error)) => {
                self.broke_off(blame_for(&error), Replay::has_failed);
                Some(Err(error.into()))
            }
            Some(Ok(trailers)) => {
                self.is_whole();
                trailers::cleaned(trailers).map(Ok)
            }
            None => {
                self.is_whole();
                None
            }
        }
    }

    fn is_whole(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.deliver();
        }
        self.attempt.completed();
        is_answered(self.request.as_ref());
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = PassError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        let body = self.get_mut();
        let polled = match &mut body.source {
            Source::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Passed(body) => body.poll(cx),
        };
        if let Some(in_progress) = &body.in_progress {
            in_progress.polled_body(polled.is_pending());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(text) => text.is_none(),
            Source::Passed(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| u64::try_from(text.len()).unwrap_or(0))),
            Source::Passed(body) => body.incoming.size_hint(),
        }
    }
}
