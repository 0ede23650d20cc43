//! A body on its way into a stream, as fast as the other side takes it.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::Reason;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::hpack::Encoder;
use super::streams::Streams;

/// Others have their turn after so many bytes of a body.
const AT_A_TIME: usize = 64 << 10;

/// How trailers are written.
pub(super) type WriteMap = fn(&mut Encoder, &mut Vec<u8>, &HeaderMap);

/// The body.
pub(super) struct Sending<B: Body> {
    body: B,
    /// Taken from the body, waiting for room.
    next: Bytes,
    /// Nothing comes behind it.
    is_last: bool,
    /// What the other side is told when the body fails.
    reason: fn(&B::Error) -> Reason,
    write: WriteMap,
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    pub(super) fn new(body: B, reason: fn(&B::Error) -> Reason, write: WriteMap) -> Sending<B> {
        Sending { body, next: Bytes::new(), is_last: false, reason, write }
    }

    /// Ready when all of it is written, or nobody wants it any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, streams: &RefCell<Streams>, id: u32) -> Poll<()> {
        let mut left = AT_A_TIME;
        loop {
            while !self.next.is_empty() {
                let mut streams = streams.borrow_mut();
                let Some(room) = ready!(streams.poll_room(cx, id)) else { return Poll::Ready(()) };
                if left == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let count = room.min(self.next.len());
                let ends = self.is_last && count == self.next.len();
                streams.write_data(id, self.next.get(..count).unwrap_or_default(), ends);
                self.next.advance(count);
                left = left.saturating_sub(count);
                if ends {
                    return Poll::Ready(());
                }
            }
            // The other side may lose interest while there is nothing to send.
            if streams.borrow_mut().poll_reset(cx, id).is_ready() {
                return Poll::Ready(());
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if self.take(frame, streams, id) {
                return Poll::Ready(());
            }
        }
    }

    /// True at the end.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>, streams: &RefCell<Streams>, id: u32) -> bool {
        match frame {
            None => {
                streams.borrow_mut().write_data(id, &[], true);
                true
            }
            Some(Err(error)) => {
                streams.borrow_mut().stops_writing(id, (self.reason)(&error));
                true
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    (self.next, self.is_last) = (data, self.body.is_end_stream());
                    if self.next.is_empty() && self.is_last {
                        streams.borrow_mut().write_data(id, &[], true);
                    }
                    self.next.is_empty() && self.is_last
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let write = self.write;
                        streams.borrow_mut().write_fields(id, true, |encoder, out| write(encoder, out, &trailers));
                        return true;
                    }
                    false
                }
            },
        }
    }
}
