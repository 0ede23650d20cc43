//! The bytes of a connection to a backend, in the clear or over TLS.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection's bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// For tests.
    #[cfg(test)]
    Piped(tokio::io::DuplexStream),
}

impl Stream {
    /// Appends what has come; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            // What is known not to be ready is not asked: no system call.
            Stream::Plain(stream) => loop {
                match stream.try_read_buf(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_read_ready(cx))?,
                    read => return Poll::Ready(read),
                }
            },
            Stream::Tls(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            #[cfg(test)]
            Stream::Piped(stream) => pin!(stream.read_buf(buffer)).poll(cx),
        }
    }

    /// Writes of both, the first one first; how many bytes were taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        match (self, first.is_empty(), second.is_empty()) {
            (Stream::Plain(stream), false, false) => Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
            (Stream::Plain(stream), true, _) => Pin::new(stream).poll_write(cx, second),
            (Stream::Plain(stream), ..) => Pin::new(stream).poll_write(cx, first),
            (Stream::Tls(stream), true, _) => Pin::new(stream).poll_write(cx, second),
            (Stream::Tls(stream), ..) => Pin::new(stream).poll_write(cx, first),
            #[cfg(test)]
            (Stream::Piped(stream), ..) => Pin::new(stream).poll_write(cx, if first.is_empty() { second } else { first }),
        }
    }

    /// What was written is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Stream::Piped(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing has come, and no end: what an idle connection is like.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut buffer = BytesMut::new();
        match self {
            Stream::Plain(stream) => {
                let mut byte = [0];
                stream.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            _ => self.poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buffer).is_pending(),
        }
    }
}
