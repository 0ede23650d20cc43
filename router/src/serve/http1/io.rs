//! A client's connection: its bytes both ways, shared by whoever answers its requests and by the body of the request that is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::hang_up::HangUp as _;
use super::super::watched::Signals;
use super::stream::{ROOM, Stream};
use super::upload::Upload;

/// The bytes.
pub(super) struct Io {
    stream: Stream,
    signals: Arc<Signals>,
    /// What has come and nobody has taken.
    pub(super) read: BytesMut,
    /// Of the request that is being answered.
    pub(super) upload: Upload,
    /// What the client has not taken yet.
    out: BytesMut,
    /// Behind it.
    slice: Bytes,
    needs_flush: bool,
}

impl Io {
    pub(super) fn new(stream: Stream, signals: Arc<Signals>) -> Io {
        Io {
            stream,
            signals,
            read: BytesMut::new(),
            upload: Upload::default(),
            out: BytesMut::new(),
            slice: Bytes::new(),
            needs_flush: false,
        }
    }

    /// Appends what has come; 0 is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_fill(cx, &mut self.read, room));
        self.signals.received();
        Poll::Ready(count)
    }

    /// Whether the client is still there, where it has nothing to say; what it says nevertheless is kept.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What it sends is kept, up to this: a few requests, or a stray line end.
        while self.upload.is_over() && self.read.len() < ROOM {
            match ready!(self.poll_fill(cx, ROOM)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// The client has taken all that there was for it.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.slice.is_empty()
    }

    /// What it holds.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.read.capacity() + self.out.capacity() + self.slice.len()
    }

    /// Writes these behind what there is, as far as the client takes them now; what it does not take is copied.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while self.is_empty() && !rest.is_empty() {
            match self.poll_write(cx, rest, &[]) {
                Poll::Ready(count) => rest = rest.get(count?..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.out.extend_from_slice(rest);
        Ok(())
    }

    /// The same of a head, and of a slice that is long enough not to be copied. There must be no other.
    pub(super) fn send_with(&mut self, cx: &mut Context<'_>, head: &[u8], slice: Bytes) -> io::Result<()> {
        let mut head = head;
        self.slice = slice;
        while self.out.is_empty() && !(head.is_empty() && self.slice.is_empty()) {
            let slice = std::mem::take(&mut self.slice);
            let wrote = self.poll_write(cx, head, &slice);
            self.slice = slice;
            let Poll::Ready(count) = wrote else { break };
            let count = count?;
            let of_head = count.min(head.len());
            head = head.get(of_head..).unwrap_or_default();
            self.slice.advance(count - of_head);
        }
        self.out.extend_from_slice(head);
        Ok(())
    }

    /// Ready when all is written, and on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let (out, slice) = (std::mem::take(&mut self.out), std::mem::take(&mut self.slice));
            let wrote = self.poll_write(cx, &out, &slice);
            (self.out, self.slice) = (out, slice);
            let count = ready!(wrote)?;
            let of_out = count.min(self.out.len());
            self.out.advance(of_out);
            self.slice.advance(count - of_out);
            if self.out.is_empty() {
                self.out = BytesMut::new();
            }
        }
        if self.needs_flush {
            ready!(self.stream.poll_forward(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// At least one byte, where there is one.
    fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.stream.poll_send(cx, first, second);
        self.signals.wrote(result.is_pending());
        let count = ready!(result)?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.needs_flush = true;
        Poll::Ready(Ok(count))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Nobody wants what the client still sends: what is here of it is dropped, and the clock, which knows no such end, lets it be.
    pub(super) fn gives_up_reading(&mut self) {
        (self.read, self.upload) = (BytesMut::new(), Upload::given_up());
        self.signals.lingers();
    }

    /// Drops some of what comes; 0 is the end.
    pub(super) fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_drop(cx)
    }

    /// Interim responses that nobody has written yet.
    pub(super) fn send_interim(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.signals.has_interim() {
            return Ok(());
        }
        let interim = self.signals.take_interim();
        // One that cannot go at once is only a hint: who does not read it does not wait for it either.
        if self.is_empty() { self.send(cx, &interim) } else { Ok(()) }
    }

    /// What it becomes another protocol's with. It is closed for HTTP then.
    pub(super) fn take_upgraded(&mut self) -> Upgraded {
        Upgraded { stream: std::mem::replace(&mut self.stream, Stream::Gone), read: std::mem::take(&mut self.read) }
    }

    /// Its end is a reset: the client does not take what is there for it and is not waited for, or must not take the end for one in order.
    pub(super) fn hang_up(&self) {
        self.stream.reset_on_close();
    }
}

/// A client's connection that is HTTP no more.
#[derive(Debug)]
pub(crate) struct Upgraded {
    stream: Stream,
    /// What the client sent behind its request.
    read: BytesMut,
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
