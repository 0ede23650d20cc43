//! What a client sends on a stream: the body of a request.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::super::hints::Hints;
use super::super::reads::Reads;
use super::super::streams::{StreamBroke, Streams};

/// A request's body.
pub(crate) struct StreamBody {
    reads: Reads,
    /// What is still to be read, where that was said.
    left: Option<u64>,
    /// The client waits to hear that it is wanted (`Expect: 100-continue`).
    asked_by: Option<Arc<Hints>>,
}

impl StreamBody {
    pub(super) fn new(streams: &Rc<RefCell<Streams>>, id: u32, length: Option<u64>, waiting: Option<Arc<Hints>>) -> StreamBody {
        StreamBody { reads: Reads::new(streams, id), left: length, asked_by: waiting }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = StreamBroke;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamBroke>>> {
        if let Some(hints) = self.asked_by.take() {
            hints.say(StatusCode::CONTINUE, HeaderMap::new());
        }
        let frame = ready!(self.reads.poll(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.reads.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
