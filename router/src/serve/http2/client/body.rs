//! The body of a backend's response, as it comes on its stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::super::super::http1::PassedLines;
use super::super::streams::StreamBroke;
use super::Exchange;

/// A body as it comes.
pub(crate) struct Http2Body {
    exchange: Exchange,
    /// What is still to be read, where that was said.
    left: Option<u64>,
    /// The fields of its head, where they pass as they came.
    lines: Option<Box<PassedLines>>,
}

impl Http2Body {
    pub(super) fn new(exchange: Exchange, length: Option<u64>, lines: Option<Box<PassedLines>>) -> Http2Body {
        Http2Body { exchange, left: length, lines }
    }

    /// The fields of its head, where they pass as they came: the head has none then.
    pub(crate) fn take_lines(&mut self) -> Option<Box<PassedLines>> {
        self.lines.take()
    }

    /// All of it, where it came with its head: then the query is through.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let data = self.exchange.reads.streams.borrow_mut().take_whole(self.exchange.reads.id)?;
        self.exchange.is_answered();
        Some(data)
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = StreamBroke;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamBroke>>> {
        let frame = ready!(self.exchange.reads.poll(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        }
        if self.exchange.reads.has_ended() {
            self.exchange.is_answered();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.reads.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let is_here = || self.exchange.reads.streams.borrow().whole_length(self.exchange.reads.id);
        self.left.or_else(is_here).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
