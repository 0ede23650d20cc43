//! A stream that has become a tunnel (RFC 8441): bytes both ways.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reads::{Reads, Writes};
use super::streams::StreamBroke;

/// The bytes of both ways, of a client's stream or of one to a backend.
pub(crate) struct StreamIo {
    reads: Reads,
    writes: Writes,
    /// What has come and was not read yet.
    unread: Bytes,
    has_ended: bool,
    /// Held as long as the stream is.
    _held: Option<Box<dyn Any>>,
}

impl StreamIo {
    pub(super) fn new(reads: Reads, writes: Writes, held: Option<Box<dyn Any>>) -> StreamIo {
        StreamIo { reads, writes, unread: Bytes::new(), has_ended: false, _held: held }
    }
}

fn broken(broke: StreamBroke) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, broke)
}

impl AsyncRead for StreamIo {
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

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut streams = self.writes.streams.borrow_mut();
        let room = ready!(streams.poll_room(cx, self.writes.id));
        let room = room.ok_or_else(|| broken(StreamBroke::Reset(Reason::CANCEL)))?;
        let now = bytes.get(..room).unwrap_or(bytes);
        streams.write_data(self.writes.id, now, false);
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.writes.streams.borrow_mut().write_data(self.writes.id, &[], true);
        }
        Poll::Ready(Ok(()))
    }
}
