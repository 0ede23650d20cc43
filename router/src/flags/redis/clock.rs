//! What a router knows of the fleet's clock: what the store said last, and how long ago that was by this machine's monotonic clock. Pure.
//!
//! The store keeps the fleet's clock beside its own (`heartbeat.lua`). Where the store cannot tell whether its clock has jumped or nobody asked for long, a router
//! that has known the fleet's clock for some seconds can: its monotonic clock does not jump.

use std::time::Duration;

use tokio::time::Instant;

/// Clocks that are apart by more than this are two.
const APART_MS: u64 = 5_000;
/// Who has known the fleet's clock for so long may say what it is.
const SETTLED: Duration = Duration::from_secs(3);
/// An answer that took longer tells too little.
const WITHIN: Duration = Duration::from_millis(100);

/// A time of the fleet's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetTime {
    /// In milliseconds since 1970.
    pub unix_ms: u64,
    /// When it was that, by this machine's monotonic clock.
    pub at: Instant,
}

/// What the store's clocks were in one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) fleet_ms: u64,
    pub(super) server_ms: u64,
    /// The server's clock may have jumped ahead.
    pub(super) is_odd: bool,
    /// Between question and answer.
    pub(super) took: Duration,
}

/// What is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    last: Option<FleetTime>,
    /// Since when it is this clock.
    since: Option<Instant>,
    /// What the fleet's clock is ahead of the server's, for the store to hear.
    say_ms: Option<i64>,
}

impl Known {
    /// What the fleet's clock is ahead of the server's, where the store should hear that. Once.
    pub(super) fn say(&mut self) -> Option<i64> {
        self.say_ms.take()
    }

    /// The last that is known.
    pub(super) fn last(&self) -> Option<FleetTime> {
        self.last
    }

    /// Whether the store should hear something at once.
    pub(super) fn has_to_say(&self) -> bool {
        self.say_ms.is_some()
    }

    /// Hears an answer that came now; answers whether its times can be believed.
    pub(super) fn hear(&mut self, answer: Answer, now: Instant) -> bool {
        if answer.took > WITHIN {
            return true;
        }
        let half_way = millis(answer.took / 2);
        let (told, server) = (answer.fleet_ms.saturating_add(half_way), answer.server_ms.saturating_add(half_way));
        let mine = self.last.map(|last| last.unix_ms.saturating_add(millis(now.saturating_duration_since(last.at))));
        let agrees = mine.is_some_and(|mine| mine.abs_diff(told) <= APART_MS);
        let is_settled = self.since.is_some_and(|since| now.saturating_duration_since(since) >= SETTLED);
        if let Some(mine) = mine.filter(|_| answer.is_odd) {
            let right = if agrees { told } else { mine };
            self.say_ms = is_settled.then(|| signed(right).saturating_sub(signed(server)));
            if !agrees {
                return false;
            }
        }
        if !agrees {
            self.since = Some(now);
        }
        self.last = Some(FleetTime { unix_ms: told, at: now });
        true
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fleet_ms: u64, server_ms: u64, is_odd: bool) -> Answer {
        Answer { fleet_ms, server_ms, is_odd, took: Duration::from_millis(2) }
    }

    #[test]
    fn who_has_known_the_clock_for_long_says_that_the_server_jumped() {
        let (mut known, began) = (Known::default(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!(known.hear(answer(1_000_000, 1_000_000, true), at(0)), "a new router knows nothing");
        assert!(known.hear(answer(1_001_000, 1_001_000, false), at(1)));
        // An hour more, in a second.
        assert!(!known.hear(answer(4_602_000, 4_602_000, true), at(2)));
        assert_eq!(
            (known.say(), known.last().map(|last| last.unix_ms)),
            (None, Some(1_001_001)),
            "it has not known it for long, and goes on with its own"
        );
        assert!(!known.hear(answer(4_603_000, 4_603_000, true), at(3)) && known.has_to_say());
        assert_eq!((known.say(), known.say()), (Some(-3_600_000), None));
        assert!(known.hear(answer(1_003_000, 4_603_000, false), at(3)) && !known.has_to_say());
        assert_eq!(known.last().map(|last| (last.unix_ms, last.at)), Some((1_003_001, at(3))));
        // Others know better than one that was stopped with its machine.
        assert!(known.hear(answer(1_063_000, 4_663_000, false), at(4)));
        assert_eq!(known.last().map(|last| last.unix_ms), Some(1_063_001));
    }

    /// It comes while the server's clock has jumped and nobody has said so yet.
    #[test]
    fn a_new_router_believes_what_it_hears_until_somebody_knows_better() {
        let (mut known, began) = (Known::default(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!(known.hear(answer(4_600_000, 4_600_000, true), at(0)));
        assert!(known.hear(answer(1_001_000, 4_601_000, false), at(1)));
        assert_eq!((known.last().map(|last| last.unix_ms), known.has_to_say()), (Some(1_001_001), false));
    }

    #[test]
    fn a_silence_is_no_jump_and_a_late_answer_tells_nothing() {
        let (mut known, began) = (Known::default(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        known.hear(answer(1_000_000, 900_000, false), at(0));
        known.hear(answer(1_004_000, 904_000, false), at(4));
        let before = known;
        assert!(known.hear(Answer { took: Duration::from_secs(1), ..answer(9, 9, true) }, at(30)) && known == before);
        assert!(known.hear(answer(1_064_000, 964_000, true), at(64)), "it was away for a minute");
        assert_eq!(known.say(), Some(100_000));
        // A store that has lost what its clock was ahead is told.
        assert!(!known.hear(answer(965_000, 965_000, true), at(65)));
        assert_eq!(known.say(), Some(100_000));
    }
}
