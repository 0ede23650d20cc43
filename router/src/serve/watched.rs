//! What a client connection's bytes tell its clock, and what others have to say to its client.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hang_up::HangUp;

/// What the bytes tell: relaxed stores, and no look at the time. Both ends are on one thread, so that the lock never waits; these are
/// atomics and a lock because hyper's client, which tells of interim responses too, lets only what could go to another thread be upgraded.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    received: AtomicBool,
    writing: AtomicU8,
    /// Interim responses that nobody has written.
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    /// The connection's.
    task: Mutex<Option<Waker>>,
    is_hung_up: AtomicBool,
    is_lingering: AtomicBool,
}

/// Interim responses that a client does not take are dropped beyond this.
const INTERIM_BYTES: usize = 64 << 10;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The task that writes, to be woken when there is an interim response. Called once.
    pub(crate) fn is_written_by(&self, task: &Waker) {
        *locked(&self.task) = Some(task.clone());
    }

    /// To be written before the head of the response that is waited for.
    pub(crate) fn interim(&self, bytes: &[u8]) {
        let mut interim = locked(&self.interim);
        if interim.len() + bytes.len() > INTERIM_BYTES {
            return;
        }
        interim.extend_from_slice(bytes);
        self.has_interim.store(true, Ordering::Relaxed);
        if let Some(task) = locked(&self.task).as_ref() {
            task.wake_by_ref();
        }
    }

    pub(crate) fn has_interim(&self) -> bool {
        self.has_interim.load(Ordering::Relaxed)
    }

    pub(crate) fn take_interim(&self) -> Vec<u8> {
        self.has_interim.store(false, Ordering::Relaxed);
        std::mem::take(&mut *locked(&self.interim))
    }

    /// The connection is about to be dropped because the client does not take what is there for it.
    pub(crate) fn hang_up(&self) {
        self.is_hung_up.store(true, Ordering::Relaxed);
    }

    /// All was answered, and the connection ends by itself as soon as its client has seen that.
    pub(crate) fn lingers(&self) {
        self.is_lingering.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.is_lingering.load(Ordering::Relaxed)
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

/// The bytes of a connection of HTTP/2. That of HTTP/1 tells by itself.
pub(crate) struct Watched<S: HangUp> {
    stream: S,
    signals: Arc<Signals>,
}

impl<S: HangUp> Watched<S> {
    pub(crate) fn new(stream: S, signals: Arc<Signals>) -> Watched<S> {
        Watched { stream, signals }
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
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if result.is_ready() {
            self.signals.received();
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
