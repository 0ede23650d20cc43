//! What a client sends on a stream: the body of a request, and both ways of a tunnel (RFC 8441).

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::Reason;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::hints::Hints;
use super::streams::{StreamBroke, Streams};

/// Reads what comes on a stream, and says when nobody wants more of it.
pub(super) struct Reads {
    streams: Rc<RefCell<Streams>>,
    id: u32,
}

impl Reads {
    pub(super) fn new(streams: &Rc<RefCell<Streams>>, id: u32) -> Reads {
        streams.borrow_mut().is_read(id);
        Reads { streams: streams.clone(), id }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamBroke>>> {
        self.streams.borrow_mut().poll_comes(cx, self.id)
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.streams.borrow_mut().stops_reading(self.id);
    }
}

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
        self.reads.streams.borrow().has_ended(self.reads.id)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A stream that has become a tunnel: bytes both ways.
pub(crate) struct ClientTunnel {
    reads: Reads,
    /// What has come and was not read yet.
    unread: Bytes,
    has_ended: bool,
    /// Held as long as the stream is.
    _held: Option<Box<dyn Any>>,
}

impl ClientTunnel {
    pub(super) fn new(reads: Reads, held: Option<Box<dyn Any>>) -> ClientTunnel {
        ClientTunnel { reads, unread: Bytes::new(), has_ended: false, _held: held }
    }
}

fn broken(broke: StreamBroke) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, broke)
}

impl AsyncRead for ClientTunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.reads.poll(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(frame) => self.unread = frame.map_err(broken)?.into_data().unwrap_or_default(),
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(self.unread.get(..count).unwrap_or_default());
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientTunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut streams = self.reads.streams.borrow_mut();
        let room = ready!(streams.poll_room(cx, self.reads.id));
        let room = room.ok_or_else(|| broken(StreamBroke::Reset(Reason::CANCEL)))?;
        let now = bytes.get(..room).unwrap_or(bytes);
        streams.write_data(self.reads.id, now, false);
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.reads.streams.borrow_mut().write_data(self.reads.id, &[], true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for ClientTunnel {
    fn drop(&mut self) {
        self.reads.streams.borrow_mut().stops_writing(self.reads.id, Reason::CANCEL);
    }
}
