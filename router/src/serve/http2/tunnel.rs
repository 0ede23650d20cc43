//! A stream that has become a tunnel (RFC 8441): bytes both ways.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of both ways.
pub(crate) struct StreamIo {
    sends: SendStream<Bytes>,
    comes: RecvStream,
    /// What has come and was not read yet.
    unread: Bytes,
    /// Held as long as the stream is.
    _held: Option<Box<dyn std::any::Any>>,
}

impl StreamIo {
    pub(super) fn new(sends: SendStream<Bytes>, comes: RecvStream, held: Option<Box<dyn std::any::Any>>) -> StreamIo {
        StreamIo { sends, comes, unread: Bytes::new(), _held: held }
    }
}

fn broken(error: h2::Error) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for StreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.comes.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.unread = data.map_err(broken)?,
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(self.unread.get(..count).unwrap_or_default());
        self.unread.advance(count);
        let _ = self.comes.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.sends.poll_reset(cx).map_err(broken)?.is_ready() {
            return Poll::Ready(Err(broken(Reason::CANCEL.into())));
        }
        self.sends.reserve_capacity(bytes.len());
        while self.sends.capacity() == 0 {
            match ready!(self.sends.poll_capacity(cx)) {
                Some(room) => room.map_err(broken)?,
                None => return Poll::Ready(Err(broken(Reason::CANCEL.into()))),
            };
        }
        let count = bytes.len().min(self.sends.capacity());
        let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        self.sends.send_data(data, false).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.sends.send_data(Bytes::new(), true).map_err(broken))
    }
}
