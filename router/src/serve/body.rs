//! Response bodies: a backend's, passed on as it arrives, or the router's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::attempt::Attempt;
use super::idle::IdleTimer;

/// What a client gets.
pub(crate) enum ResponseBody {
    /// Nothing, or a short text of the router's own.
    Own(Option<Bytes>),
    /// A backend's.
    Passed(PassedBody),
}

/// A backend's body on its way to the client, and the attempt that it ends.
pub(crate) struct PassedBody {
    incoming: Incoming,
    attempt: Attempt,
    idle: IdleTimer,
}

/// Why a body broke off. The client sees its connection (or stream) reset, as it would without the router.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The backend broke off.
    #[error("the backend broke off its response body: {0}")]
    Aborted(#[from] hyper::Error),
    /// The backend sent nothing for too long.
    #[error("the backend paused its response body for too long")]
    Idle,
}

impl PassedBody {
    /// Wraps a response's body; `attempt` is ended, and its connection given back, when the body is.
    pub(crate) fn new(incoming: Incoming, attempt: Attempt) -> ResponseBody {
        if incoming.is_end_stream() {
            attempt.completed();
            return ResponseBody::Own(None);
        }
        let idle = IdleTimer::new(attempt.body_idle_timeout());
        ResponseBody::Passed(PassedBody { incoming, attempt, idle })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                if self.idle.poll_expired(cx).is_ready() {
                    self.attempt.timed_out();
                    return Poll::Ready(Some(Err(PassError::Idle)));
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                self.idle.progressed();
                match &frame {
                    Some(Err(_)) => self.attempt.failed(),
                    Some(Ok(_)) if !self.incoming.is_end_stream() => {}
                    _ => self.attempt.completed(),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(PassError::from)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = PassError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        match self.get_mut() {
            ResponseBody::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            ResponseBody::Passed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(text) => text.is_none(),
            ResponseBody::Passed(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| u64::try_from(text.len()).unwrap_or(0))),
            ResponseBody::Passed(body) => body.incoming.size_hint(),
        }
    }
}
