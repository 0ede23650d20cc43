//! A client connection's bytes, with its clock told what becomes of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

/// What the bytes tell the clock: two relaxed stores a query, and no look at the time. Both ends are on one thread; these are atomics
/// because hyper lets only what could go to another thread be upgraded.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    received: AtomicBool,
    writing: AtomicU8,
}

/// What became of the last write.
const TAKEN: u8 = 0;
/// The client does not take more.
const STUCK: u8 = 1;
/// The same, and the clock has seen it.
const STILL_STUCK: u8 = 2;

impl Signals {
    pub(crate) fn received(&self) {
        self.received.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, is_stuck: bool) {
        if !is_stuck {
            self.writing.store(TAKEN, Ordering::Relaxed);
        } else if self.writing.load(Ordering::Relaxed) == TAKEN {
            self.writing.store(STUCK, Ordering::Relaxed);
        }
    }

    /// What came in was a query's.
    pub(crate) fn forget_received(&self) {
        self.received.store(false, Ordering::Relaxed);
    }

    /// Whether bytes came in since the last call.
    pub(crate) fn take_received(&self) -> bool {
        self.received.swap(false, Ordering::Relaxed)
    }

    /// `None` while the client takes what it gets; else whether it has taken nothing since the last call.
    pub(crate) fn look_at_writing(&self) -> Option<bool> {
        match self.writing.load(Ordering::Relaxed) {
            TAKEN => None,
            state => {
                self.writing.store(STILL_STUCK, Ordering::Relaxed);
                Some(state == STILL_STUCK)
            }
        }
    }
}

/// The bytes.
pub(crate) struct Watched<I> {
    pub(crate) io: I,
    pub(crate) signals: Arc<Signals>,
}

impl<I: Read + Unpin> Read for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if result.is_ready() {
            self.signals.received();
        }
        result
    }
}

impl<I: Write + Unpin> Write for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.signals.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.signals.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
