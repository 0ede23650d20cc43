//! What comes on a stream of a backend's: its answer.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Frame, SizeHint};

use super::client::Exchange;

/// A body as it comes.
pub(crate) struct Http2Body {
    stream: RecvStream,
    /// What is still to come, where that was said.
    left: Option<u64>,
    /// What else goes on of that exchange.
    exchange: Exchange,
}

impl Http2Body {
    pub(super) fn of_response(headers: &HeaderMap, stream: RecvStream, exchange: Exchange) -> Http2Body {
        Http2Body { left: announced(headers), stream, exchange }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// A backend may lose interest in the rest of a request once its answer is complete, and says so without an error
    /// (RFC 9113, 8.1).
    fn is_whole_in_spite_of(&self, error: &h2::Error) -> bool {
        error.is_remote() && error.reason() == Some(Reason::NO_ERROR) && self.left.unwrap_or(0) == 0
    }

    fn ended(&mut self, error: Option<h2::Error>) -> Option<Result<Frame<Bytes>, h2::Error>> {
        let error = error.filter(|error| !self.is_whole_in_spite_of(error));
        if error.is_none() {
            self.exchange.is_answered();
        }
        error.map(Err)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Whoever asks for a frame takes it: the sender may go on.
                let _ = self.stream.flow_control().release_capacity(data.len());
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                self.left = self.left.map(|left| left.saturating_sub(length));
                if self.stream.is_end_stream() {
                    self.ended(None);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(self.ended(Some(error))),
            None => Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
                Ok(Some(trailers)) => {
                    self.ended(None);
                    Some(Ok(Frame::trailers(trailers)))
                }
                Ok(None) => self.ended(None),
                Err(error) => self.ended(Some(error)),
            }),
        }
    }
}

/// What `Content-Length` says. h2 sees to it that DATA is neither more nor less.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
