//! A client connection's bytes, with its clock told what becomes of them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hang_up::HangUp;
use super::scan::{Head, Scan};

/// What the bytes tell: relaxed stores, and no look at the time. Both ends are on one thread, so that the lock never waits; these are
/// atomics and a lock because hyper lets only what could go to another thread be upgraded.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    received: AtomicBool,
    writing: AtomicU8,
    /// Of requests that nobody answers yet, in their order.
    heads: Mutex<VecDeque<Head>>,
    is_tunnel: AtomicBool,
    is_hung_up: AtomicBool,
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

    fn found(&self, head: Head) {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).push_back(head);
    }

    /// The head of the next request, as it came. `None` for HTTP/2.
    pub(crate) fn take_head(&self) -> Option<Head> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From here on the bytes are not HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The connection is about to be dropped because the client does not take what is there for it.
    pub(crate) fn hang_up(&self) {
        self.is_hung_up.store(true, Ordering::Relaxed);
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
pub(crate) struct Watched<S: HangUp> {
    stream: S,
    signals: Arc<Signals>,
    /// Of HTTP/1 only.
    scan: Option<Scan>,
}

impl<S: HangUp> Watched<S> {
    pub(crate) fn http1(stream: S, signals: Arc<Signals>) -> Watched<S> {
        Watched { stream, signals, scan: Some(Scan::new()) }
    }

    pub(crate) fn http2(stream: S, signals: Arc<Signals>) -> Watched<S> {
        Watched { stream, signals, scan: None }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        self.signals.received();
        if let Some(scan) = &mut self.scan {
            if self.signals.is_tunnel() {
                self.scan = None;
            } else {
                scan.feed(bytes, |head| self.signals.found(head));
            }
        }
    }
}

impl<S: HangUp> Drop for Watched<S> {
    fn drop(&mut self) {
        if self.signals.is_hung_up.load(Ordering::Relaxed) {
            self.stream.reset_on_close();
        }
    }
}

impl<S: AsyncRead + HangUp + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if result.is_ready() {
            self.look_at(buffer.filled().get(before..).unwrap_or_default());
        }
        result
    }
}

impl<S: AsyncWrite + HangUp + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.signals.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.signals.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
