//! Time and chance, so that tests have others.

use std::time::{Duration, SystemTime};

/// What a delivery knows of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;

    /// A random number from 0 up to 1, for a wait.
    fn fraction(&self) -> f64;

    /// Waits.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send;
}

/// The time of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn fraction(&self) -> f64 {
        rand::random()
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(wait)
    }
}
