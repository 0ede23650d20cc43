//! The bytes of a connection, in the clear or over TLS.
//!
//! What comes is read into memory that all connections of a worker share: a head or a body is a slice of it, and it is used again when the last of them is gone.
//! So a connection that waits holds none.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::super::hang_up::HangUp;

/// Room for what comes next, at least.
pub(super) const ROOM: usize = 8 << 10;
/// Bytes of a body that are read at a time, at most.
pub(super) const LARGE: usize = 64 << 10;
/// What a worker's connections share.
const SHARED: usize = 64 << 10;

thread_local! {
    static SPACE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A connection's bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Somebody else has it.
    Gone,
    /// For tests.
    #[cfg(test)]
    Piped(tokio::io::DuplexStream),
}

impl Stream {
    /// Appends what has come to `read`, and at most what there is room for; 0 is the end.
    pub(in super::super) fn poll_fill(&mut self, cx: &mut Context<'_>, read: &mut BytesMut, room: usize) -> Poll<io::Result<usize>> {
        if !read.is_empty() {
            if read.capacity() - read.len() < room / 4 {
                read.reserve(room);
            }
            return self.poll_take(cx, read);
        }
        // It is a slice of what is shared, which cannot be used again before it is gone.
        *read = BytesMut::new();
        SPACE.with_borrow_mut(|space| {
            if space.capacity() < room {
                space.reserve(SHARED.max(room));
            }
            let count = ready!(self.poll_take(cx, space))?;
            *read = space.split();
            Poll::Ready(Ok(count))
        })
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            // Whoever gave less than there is room for has no more: it is not asked again before the runtime hears of it (`try_read` would ask).
            Stream::Plain(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            Stream::Tls(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            Stream::Gone => Poll::Ready(Ok(0)),
            #[cfg(test)]
            Stream::Piped(stream) => pin!(stream.read_buf(buffer)).poll(cx),
        }
    }

    /// Writes of both, the first one first; how many bytes were taken.
    pub(in super::super) fn poll_send(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        match (self, first.is_empty(), second.is_empty()) {
            (Stream::Plain(stream), false, false) => Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
            (Stream::Plain(stream), true, _) => Pin::new(stream).poll_write(cx, second),
            (Stream::Plain(stream), ..) => Pin::new(stream).poll_write(cx, first),
            (Stream::Tls(stream), true, _) => Pin::new(stream).poll_write(cx, second),
            (Stream::Tls(stream), ..) => Pin::new(stream).poll_write(cx, first),
            (Stream::Gone, ..) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            (Stream::Piped(stream), ..) => Pin::new(stream).poll_write(cx, if first.is_empty() { second } else { first }),
        }
    }

    /// What was written is on its way.
    pub(in super::super) fn poll_forward(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) | Stream::Gone => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Stream::Piped(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads some of what has come and drops it: how many bytes, and 0 is the end. Over TLS nobody deciphers them.
    pub(super) fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; ROOM];
        let mut dropped = ReadBuf::new(&mut space);
        let read = match self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut dropped),
            Stream::Tls(stream) => Pin::new(stream.get_mut().0).poll_read(cx, &mut dropped),
            Stream::Gone => Poll::Ready(Ok(())),
            #[cfg(test)]
            Stream::Piped(stream) => Pin::new(stream).poll_read(cx, &mut dropped),
        };
        ready!(read)?;
        Poll::Ready(Ok(dropped.filled().len()))
    }

    /// Whether nothing has come, and no end: what an idle connection is like.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut buffer = BytesMut::new();
        match self {
            Stream::Plain(stream) => {
                let mut byte = [0];
                stream.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            _ => self.poll_take(&mut Context::from_waker(std::task::Waker::noop()), &mut buffer).is_pending(),
        }
    }
}

impl HangUp for Stream {
    fn reset_on_close(&self) {
        match self {
            Stream::Plain(stream) => stream.reset_on_close(),
            Stream::Tls(stream) => stream.get_ref().0.reset_on_close(),
            Stream::Gone => {}
            #[cfg(test)]
            Stream::Piped(_) => {}
        }
    }
}

/// As whatever it was upgraded to has it.
impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Gone => Poll::Ready(Ok(())),
            #[cfg(test)]
            Stream::Piped(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, bytes, &[])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_forward(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Gone => Poll::Ready(Ok(())),
            #[cfg(test)]
            Stream::Piped(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
