//! What a client connection's bytes tell its clock, and what others have to say to its client.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

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
