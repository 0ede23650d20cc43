//! What time it is, as the whole fleet counts it: this machine's monotonic clock, set by the store's.
//!
//! Windows and tokens of different routers meet, so they are of one clock. It is set by what the store says that the fleet's is, and never by steps of
//! the machine's own wall clock after the start. The store's own may jump: the fleet's goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The store's clock is followed when it is off by more than this: less is the network's.
const FOLLOWED_MS: i64 = 20;
/// A clock that is off by more than this is no clock. Wrong zones are half of it.
const MOST_MS: i64 = 86_400_000;
/// One that is set by more than this was another until then.
const STEP_MS: i64 = 5_000;

/// The clock; clones are the same one.
#[derive(Debug, Clone)]
pub struct FleetClock {
    began: Instant,
    /// The wall clock then.
    since_1970: Duration,
    ahead_ms: Arc<AtomicI64>,
    is_heard: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

impl Default for FleetClock {
    fn default() -> FleetClock {
        FleetClock::start()
    }
}

impl FleetClock {
    /// As this machine's wall clock has it, until the store says otherwise.
    #[must_use]
    pub fn start() -> FleetClock {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        FleetClock { began: Instant::now(), since_1970, ahead_ms: Arc::default(), is_heard: Arc::default(), steps: Arc::default() }
    }

    /// Time since 1970.
    #[must_use]
    pub fn since_1970(&self, now: Instant) -> Duration {
        let since = self.since_1970 + now.saturating_duration_since(self.began);
        let ahead = self.ahead_ms();
        let apart = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { since.saturating_sub(apart) } else { since + apart }
    }

    /// Milliseconds since 1970, now.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.ms(Instant::now())
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(self.since_1970(now).as_millis()).unwrap_or(u64::MAX)
    }

    /// Seconds since 1970, now.
    #[must_use]
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.since_1970(Instant::now()).as_secs()).unwrap_or(u32::MAX)
    }

    /// How much the store's clock is ahead of this machine's, in milliseconds.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Whether the store has said what time it is.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    /// How often it was set by so much that what was noted before is of another clock.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// The store says that it was this time then. Answers how much that is ahead, in milliseconds, where it is more than can be right; then it is not followed.
    pub fn hear_at(&self, now: Instant, store_ms: u64) -> Option<i64> {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let off = signed(store_ms).saturating_sub(signed(self.ms(now)));
        let ahead = self.ahead_ms().saturating_add(off);
        if ahead.abs() > MOST_MS {
            return Some(ahead);
        }
        self.is_heard.store(true, Ordering::Relaxed);
        if off.abs() > STEP_MS {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        if off.abs() > FOLLOWED_MS {
            self.ahead_ms.store(ahead, Ordering::Relaxed);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_clock_is_followed_as_far_as_it_is_one() {
        let clock = FleetClock::start();
        let now = clock.began;
        let began = clock.ms(now);
        assert_eq!((clock.hear_at(now, began + 15), clock.ahead_ms()), (None, 0), "the network takes that");
        assert_eq!((clock.hear_at(now, began + 5_000), clock.ms(now)), (None, began + 5_000));
        let later = now + Duration::from_secs(2);
        assert_eq!(clock.ms(later), began + 7_000);
        assert_eq!((clock.hear_at(later, began), clock.ms(later), clock.ahead_ms()), (None, began, -2_000));
        assert_eq!(clock.hear_at(later, began + 100_000_000), Some(99_998_000));
        assert_eq!((clock.ms(later), clock.is_heard(), clock.steps()), (began, true, 1));
        assert!(clock.hear_at(later, 0).is_some() && clock.hear_at(later, u64::MAX).is_some());
        assert_eq!(clock.ahead_ms(), -2_000);
    }
}
