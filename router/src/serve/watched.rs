//! A client connection's bytes, with its clock told what becomes of them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

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
    /// Interim responses (and whatever else is written beside hyper) that have not been begun to be written.
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    /// hyper has nothing that it has begun to write.
    is_flushed: AtomicBool,
    /// The connection's.
    task: Mutex<Option<Waker>>,
    is_hung_up: AtomicBool,
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

    fn found(&self, head: Head) {
        locked(&self.heads).push_back(head);
    }

    /// The head of the next request, as it came. `None` for HTTP/2.
    pub(crate) fn take_head(&self) -> Option<Head> {
        locked(&self.heads).pop_front()
    }

    /// From here on the bytes are not HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The task that writes, to be woken when there is something to write beside hyper. Called once.
    pub(crate) fn is_written_by(&self, task: &Waker) {
        *locked(&self.task) = Some(task.clone());
    }

    /// To be written as soon as nothing else is being written: before the head of the response that is waited for.
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

    pub(crate) fn take_interim(&self) -> Vec<u8> {
        std::mem::take(&mut *locked(&self.interim))
    }

    /// The head of a response follows. An interim response that cannot go before it, because the client has not taken what came before
    /// both, is dropped: it is a hint, and nothing else may be written into the middle of a response.
    pub(crate) fn head_follows(&self) {
        if self.has_interim.load(Ordering::Relaxed) && !self.is_flushed.load(Ordering::Relaxed) {
            drop(self.take_interim());
        }
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
    /// What is being written beside hyper, and nothing else before it is through.
    beside: Vec<u8>,
    /// A line within a request's body could be read in two ways: it ends badly there.
    is_odd: bool,
}

impl<S: HangUp> Watched<S> {
    pub(crate) fn http1(stream: S, signals: Arc<Signals>) -> Watched<S> {
        Watched { stream, signals, scan: Some(Scan::new()), beside: Vec::new(), is_odd: false }
    }

    pub(crate) fn http2(stream: S, signals: Arc<Signals>) -> Watched<S> {
        Watched { stream, signals, scan: None, beside: Vec::new(), is_odd: false }
    }

    /// `Some` with how many of the bytes make sense, where not all of them do.
    fn look_at(&mut self, bytes: &[u8]) -> Option<usize> {
        self.signals.received();
        let scan = self.scan.as_mut()?;
        if self.signals.is_tunnel() {
            self.scan = None;
            return None;
        }
        scan.feed(bytes, |head| self.signals.found(head))
    }

    /// hyper gets what makes sense, and then an error, so that it ends the body, and the connection, as it does where chunks are broken.
    #[cold]
    fn ends_badly(&mut self, buffer: &mut ReadBuf<'_>, end: usize, before: usize) -> Poll<std::io::Result<()>> {
        self.is_odd = true;
        buffer.set_filled(end);
        if end == before { makes_no_sense() } else { Poll::Ready(Ok(())) }
    }
}

#[cold]
fn makes_no_sense() -> Poll<std::io::Result<()>> {
    Poll::Ready(Err(std::io::ErrorKind::InvalidData.into()))
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
        if self.is_odd {
            return makes_no_sense();
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if result.is_ready()
            && let Some(sound) = self.look_at(buffer.filled().get(before..).unwrap_or_default())
        {
            return self.ends_badly(buffer, before + sound, before);
        }
        result
    }
}

impl<S: AsyncWrite + HangUp + Unpin> Watched<S> {
    /// Writes what is to be written beside hyper, unless hyper is in the middle of something.
    #[cold]
    fn poll_write_beside(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.beside.is_empty() && self.signals.is_flushed.load(Ordering::Relaxed) {
                self.beside = self.signals.take_interim();
            }
            if self.beside.is_empty() {
                break;
            }
            let result = Pin::new(&mut self.stream).poll_write(cx, &self.beside);
            self.signals.wrote(result.is_pending());
            match ready!(result)? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => drop(self.beside.drain(..count)),
            }
        }
        let is_done = locked(&self.signals.interim).is_empty();
        self.signals.has_interim.store(!is_done, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + HangUp + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.signals.has_interim.load(Ordering::Relaxed) {
            ready!(self.poll_write_beside(cx))?;
        }
        self.signals.is_flushed.store(false, Ordering::Relaxed);
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.signals.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if self.signals.has_interim.load(Ordering::Relaxed) {
            ready!(self.poll_write_beside(cx))?;
        }
        self.signals.is_flushed.store(false, Ordering::Relaxed);
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.signals.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had, so that nothing is half written now.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.signals.is_flushed.store(true, Ordering::Relaxed);
        if self.signals.has_interim.load(Ordering::Relaxed) {
            ready!(self.poll_write_beside(cx))?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
