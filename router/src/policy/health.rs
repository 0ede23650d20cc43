//! Strikes and quarantine: a policy that keeps failing rests for a while, and is then tried again. It never stays dead.
//!
//! - So many strikes within `strike_window`, over all workers, begin a quarantine: workers take the native decision and
//!   do not call the policy.
//! - When it ends, the policy is on *probation* for one `strike_window`: the first strike begins the next quarantine, twice as
//!   long, up to `quarantine_max`.
//! - Once it has behaved for as long as its last quarantine (and the probation) took, the back-off starts anew.
//!
//! A fixed rest was tried on paper first: a policy that traps on one query in a hundred would fail some queries' first
//! choice for ever at the same rate, where the doubling makes it rare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// When a policy rests, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// So many strikes within `strike_window`. At least 1.
    pub strikes: u32,
    /// See `strikes`.
    pub strike_window: Duration,
    /// The first quarantine.
    pub quarantine: Duration,
    /// The longest.
    pub quarantine_max: Duration,
}

impl Patience {
    /// As the config says.
    #[must_use]
    pub fn of(policies: &config::Policies) -> Patience {
        Patience {
            strikes: policies.strikes,
            strike_window: policies.strike_window,
            quarantine: policies.quarantine,
            quarantine_max: policies.quarantine_max,
        }
    }

    /// The length of the quarantine at this level, in milliseconds: doubling, at least 1.
    fn rest_ms(&self, level: u8) -> u64 {
        let doubled = millis(self.quarantine).saturating_mul(1 << level.min(40));
        doubled.min(millis(self.quarantine_max)).max(millis(self.quarantine)).max(1)
    }
}

/// A quarantine, now or in the past. Milliseconds since the health began to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quarantine {
    /// It ends here; 0: there was none yet.
    until_ms: u64,
    /// How often the back-off has doubled.
    level: u8,
}

/// What one strike leads to. Pure: `is_too_many` says whether it filled the window.
fn step(last: Quarantine, is_too_many: bool, now_ms: u64, patience: &Patience) -> Option<Quarantine> {
    let is_resting = now_ms < last.until_ms;
    if is_resting {
        // A late strike of another worker, from before it saw the quarantine.
        return None;
    }
    let begins = |level| Some(Quarantine { until_ms: now_ms.saturating_add(patience.rest_ms(level)), level });
    if last.until_ms == 0 {
        return if is_too_many { begins(0) } else { None };
    }
    let behaved_ms = now_ms - last.until_ms;
    let probation_ms = millis(patience.strike_window);
    if behaved_ms < probation_ms {
        return begins(last.level.saturating_add(1));
    }
    let is_forgiven = behaved_ms >= probation_ms.saturating_add(patience.rest_ms(last.level));
    match (is_too_many, is_forgiven) {
        (false, _) => None,
        (true, true) => begins(0),
        (true, false) => begins(last.level.saturating_add(1)),
    }
}

/// The health of one policy in force, shared by all workers. No locks: a ring of the last strikes and one packed word.
#[derive(Debug)]
pub struct Health {
    patience: Patience,
    began: Instant,
    /// Times of the last `patience.strikes` strikes, in milliseconds plus 1; 0 is none.
    recent: Box<[AtomicU64]>,
    /// Strikes ever.
    strikes: AtomicU64,
    /// [`Quarantine`]: `until_ms << 8 | level`.
    quarantine: AtomicU64,
}

impl Health {
    pub(super) fn new(patience: Patience, now: Instant) -> Health {
        Health {
            patience,
            began: now,
            recent: (0..patience.strikes.max(1)).map(|_| AtomicU64::new(0)).collect(),
            strikes: AtomicU64::new(0),
            quarantine: AtomicU64::new(0),
        }
    }

    /// Whether the native decision is to be used without asking the policy. One relaxed load and a comparison.
    #[must_use]
    pub fn is_quarantined(&self, now: Instant) -> bool {
        let packed = self.quarantine.load(Ordering::Relaxed);
        packed != 0 && self.ms(now) < unpack(packed).until_ms
    }

    /// Whether there was a quarantine at all: one relaxed load, for the query path to look at before it looks at the clock.
    #[must_use]
    pub fn has_quarantine(&self) -> bool {
        self.quarantine.load(Ordering::Relaxed) != 0
    }

    /// Counts a failure. True when it began a quarantine.
    pub fn strike(&self, now: Instant) -> bool {
        let now_ms = self.ms(now);
        let is_too_many = self.remember(now_ms);
        let mut packed = self.quarantine.load(Ordering::Relaxed);
        loop {
            let Some(next) = step(unpack(packed), is_too_many, now_ms, &self.patience) else { return false };
            match self.quarantine.compare_exchange_weak(packed, pack(next), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // A rested policy starts with a clean window; its probation is what watches it more closely.
                    self.recent.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
                    return true;
                }
                Err(current) => packed = current,
            }
        }
    }

    /// Strikes since the policy came into force.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.strikes.load(Ordering::Relaxed)
    }

    /// How long the present quarantine will last; `None` when there is none.
    #[must_use]
    pub fn quarantine_left(&self, now: Instant) -> Option<Duration> {
        let left_ms = unpack(self.quarantine.load(Ordering::Relaxed)).until_ms.checked_sub(self.ms(now))?;
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }

    /// Puts the strike in the ring: true when as many as the window holds were all within it.
    fn remember(&self, now_ms: u64) -> bool {
        let count = self.strikes.fetch_add(1, Ordering::Relaxed);
        let slot = |count: u64| usize::try_from(count % self.recent.len() as u64).ok().and_then(|index| self.recent.get(index));
        if let Some(newest) = slot(count) {
            newest.store(now_ms + 1, Ordering::Relaxed);
        }
        // The ring holds the last N strikes: the oldest is in the slot that the next one will take.
        let oldest = slot(count.wrapping_add(1)).map_or(0, |oldest| oldest.load(Ordering::Relaxed));
        oldest != 0 && now_ms + 1 - oldest.min(now_ms + 1) <= millis(self.patience.strike_window)
    }

    fn ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.began))
    }
}

fn pack(quarantine: Quarantine) -> u64 {
    quarantine.until_ms << 8 | u64::from(quarantine.level)
}

fn unpack(packed: u64) -> Quarantine {
    Quarantine { until_ms: packed >> 8, level: (packed & 0xff) as u8 }
}

fn millis(duration: Duration) -> u64 {
    // 2^48 ms are 8,900 years: enough, and it leaves room for the packing.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 48)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
