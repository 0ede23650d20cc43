//! What became of queries, by window: counted by one worker for one model version, without a lock.
//!
//! The control side moves [`WindowClock`] on every quarter of a second. A worker counts in the slot of the quarter that it sees; a slot is read when its quarter
//! is over and another has passed, so that a worker which was held up between looking at the clock and counting is still waited for. Counts
//! only grow, and the reader takes differences: one that comes later still is counted in a later window, and never lost.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counters::Count;
use super::counts::{Counts, Number, millionths};
use super::latency;
use super::tally;
use super::token::GROUPS;

/// Of a quarter of a second each.
pub const QUARTERS: u64 = 4;
/// Quarters that have slots of their own at a time.
const SLOTS: usize = 4;
/// The numbers that workers count, which come first in [`Number::ALL`]; clicks and conversions come back as events.
const COUNTED: usize = Number::Impressions as usize + 1;

/// Whether it cannot be this quarter `now` after it was another one before: by five seconds and more the clock was set back.
pub(super) fn is_another_clock(before: u64, now: u64) -> bool {
    now.saturating_add(20) < before
}

/// Which quarter of a second it is, since 1970: one writer, and every worker reads it.
#[derive(Debug, Default)]
pub struct WindowClock(AtomicU64);

impl WindowClock {
    /// From now on it is this quarter. It does not go back, but where the clock was another one until now.
    pub fn set(&self, quarter: u64) {
        if is_another_clock(self.0.load(Ordering::Relaxed), quarter) {
            self.0.store(quarter, Ordering::Relaxed);
        }
        self.0.fetch_max(quarter, Ordering::Relaxed);
    }

    /// The quarter now.
    #[must_use]
    pub fn quarter(&self) -> Quarter {
        Quarter(self.0.load(Ordering::Relaxed))
    }
}

/// A quarter of a second, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quarter(pub u64);

impl Quarter {
    /// The window that it is a part of: the second, since 1970.
    #[must_use]
    pub fn window(self) -> u32 {
        u32::try_from(self.0 / QUARTERS).unwrap_or(u32::MAX)
    }

    fn slot(self) -> usize {
        // Below the number of slots.
        usize::try_from(self.0 % SLOTS as u64).unwrap_or(0)
    }
}

/// How an attempt ended, as far as the backend is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and not with a 5xx.
    Answered,
    /// It answered with a 5xx, broke off, or could not be reached.
    Error,
    /// It ran out of time.
    Timeout,
}

/// How many attempts ended, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Those that the backend answers for.
    pub requests: u64,
    /// Of them, as [`Number::Errors`].
    pub errors: u64,
    /// Of them, as [`Number::Timeouts`].
    pub timeouts: u64,
}

impl Ended {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Ended) -> Ended {
        let Ended { requests, errors, timeouts } = other;
        Ended { requests: self.requests + requests, errors: self.errors + errors, timeouts: self.timeouts + timeouts }
    }

    /// Errors and timeouts. A worker that was held up may have counted one and not yet its request: no more than requests.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.saturating_add(self.timeouts).min(self.requests)
    }

    /// What came since. Nothing where there is less now: the counters are others.
    #[must_use]
    pub fn since(&self, before: &Ended) -> Ended {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Ended {
            requests: since(self.requests, before.requests),
            errors: since(self.errors, before.errors),
            timeouts: since(self.timeouts, before.timeouts),
        }
    }
}

/// What one worker counts of one model version. Some 35 KB, made when the first query comes.
#[derive(Debug)]
pub struct Outcomes {
    slots: [Slot; SLOTS],
    /// The same without windows and groups, where it outlives the process.
    tally: Option<tally::Slot>,
}

/// One quarter's counts.
#[derive(Debug)]
struct Slot {
    /// By group of units; what all of them come to is summed by whoever reads.
    groups: [[Count; COUNTED]; GROUPS as usize],
    latency: [Count; latency::BUCKETS],
}

impl Default for Outcomes {
    fn default() -> Outcomes {
        let group = |_| array::from_fn(|_| Count::default());
        let slot = |_| Slot { groups: array::from_fn(group), latency: array::from_fn(|_| Count::default()) };
        Outcomes { slots: array::from_fn(slot), tally: None }
    }
}

impl Outcomes {
    /// Of a version on a route.
    #[must_use]
    pub fn of(route: u32, version: u32) -> Outcomes {
        Outcomes { tally: tally::Slot::counted(route, version), ..Outcomes::default() }
    }

    /// An attempt ended.
    pub fn ended(&self, at: Quarter, group: u8, end: Outcome) {
        self.add(at, group, Number::Requests, 1);
        match end {
            Outcome::Answered => {}
            Outcome::Error => self.add(at, group, Number::Errors, 1),
            Outcome::Timeout => self.add(at, group, Number::Timeouts, 1),
        }
    }

    /// A response's head came after so long, or had not come when the cap was over.
    pub fn took(&self, at: Quarter, latency: Duration) {
        if let Some(count) = self.slots.get(at.slot()).and_then(|slot| slot.latency.get(latency::bucket(latency))) {
            count.increment();
        }
    }

    /// A token was issued.
    pub fn issued(&self, at: Quarter, group: u8) {
        self.add(at, group, Number::Impressions, 1);
    }

    /// A response said whether it found anything.
    pub fn found(&self, at: Quarter, group: u8, anything: bool) {
        self.add(at, group, Number::ZeroSeen, 1);
        self.add(at, group, Number::ZeroResults, u64::from(!anything));
    }

    /// A response came with a quality, 0..=1.
    pub fn was_worth(&self, at: Quarter, group: u8, quality: f64) {
        self.add(at, group, Number::QualitySeen, 1);
        self.add(at, group, Number::QualitySum, millionths(quality));
        self.add(at, group, Number::QualitySquares, millionths(quality * quality));
    }

    /// Everything so far, whatever the window: at once, without waiting for what a worker that is held up has still to count.
    #[must_use]
    pub fn all_ended(&self) -> Ended {
        let groups = self.slots.iter().flat_map(|slot| &slot.groups);
        let count = |group: &[Count; COUNTED], number: Number| group.get(number as usize).map_or(0, Count::get);
        groups.fold(Ended::default(), |sum, group| {
            let [requests, errors, timeouts] = [Number::Requests, Number::Errors, Number::Timeouts].map(|number| count(group, number));
            sum.and(Ended { requests, errors, timeouts })
        })
    }

    fn add(&self, at: Quarter, group: u8, number: Number, more: u64) {
        let slot = self.slots.get(at.slot());
        if let Some(count) = slot.and_then(|slot| slot.groups.get(usize::from(group))).and_then(|group| group.get(number as usize)) {
            count.add(more);
        }
        if let Some(tally) = self.tally {
            tally.add(number, more);
        }
    }
}

/// What was read of one [`Outcomes`] so far.
#[derive(Debug)]
pub struct Read {
    slots: [SlotRead; SLOTS],
}

#[derive(Debug, Clone, Copy)]
struct SlotRead {
    groups: [[u64; COUNTED]; GROUPS as usize],
    latency: [u64; latency::BUCKETS],
}

impl Default for Read {
    fn default() -> Read {
        Read { slots: [SlotRead { groups: [[0; COUNTED]; GROUPS as usize], latency: [0; latency::BUCKETS] }; SLOTS] }
    }
}

impl Read {
    /// What was counted in the slot of this quarter since it was last read.
    pub fn take(&mut self, outcomes: &Outcomes, quarter: Quarter) -> Counts {
        let mut counts = Counts::default();
        let (Some(slot), Some(seen)) = (outcomes.slots.get(quarter.slot()), self.slots.get_mut(quarter.slot())) else { return counts };
        for (group, (numbers, seen)) in (0..).zip(slot.groups.iter().zip(&mut seen.groups)) {
            for (number, (count, seen)) in Number::ALL.into_iter().zip(numbers.iter().zip(seen)) {
                counts.add(number, group, since(count, seen));
            }
        }
        for (bucket, (count, seen)) in (0..).zip(slot.latency.iter().zip(&mut seen.latency)) {
            let more = since(count, seen);
            if more > 0 {
                counts.latency.insert(bucket, more);
            }
        }
        counts
    }
}

/// How much a count has grown, which is remembered.
fn since(count: &Count, seen: &mut u64) -> u64 {
    let now = count.get();
    now.wrapping_sub(std::mem::replace(seen, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Event {
        Ended(u8, Outcome),
        Took(u64),
        Issued(u8),
        Found(u8, bool),
        Worth(u8, f64),
        /// So many quarters pass, and each is read when it may be.
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let group = 0..GROUPS;
        let end = prop::sample::select(vec![Outcome::Answered, Outcome::Error, Outcome::Timeout]);
        prop_oneof![
            (group.clone(), end).prop_map(|(group, end)| Event::Ended(group, end)),
            (0..200_000_000_u64).prop_map(Event::Took),
            group.clone().prop_map(Event::Issued),
            (group.clone(), any::<bool>()).prop_map(|(group, anything)| Event::Found(group, anything)),
            (group, 0.0..=1.0).prop_map(|(group, quality)| Event::Worth(group, quality)),
            (1..3_u64).prop_map(Event::Pass),
        ]
    }

    /// What one event counts.
    fn counted(event: &Event) -> Counts {
        let mut counts = Counts::default();
        match *event {
            Event::Ended(group, end) => {
                counts.add(Number::Requests, group, 1);
                counts.add(Number::Errors, group, u64::from(end == Outcome::Error));
                counts.add(Number::Timeouts, group, u64::from(end == Outcome::Timeout));
            }
            Event::Took(micros) => drop(counts.latency.insert(latency::bucket(Duration::from_micros(micros)) as u16, 1)),
            Event::Issued(group) => counts.add(Number::Impressions, group, 1),
            Event::Found(group, anything) => {
                counts.add(Number::ZeroSeen, group, 1);
                counts.add(Number::ZeroResults, group, u64::from(!anything));
            }
            Event::Worth(group, quality) => {
                counts.add(Number::QualitySeen, group, 1);
                counts.add(Number::QualitySum, group, millionths(quality));
                counts.add(Number::QualitySquares, group, millionths(quality * quality));
            }
            Event::Pass(_) => {}
        }
        counts
    }

    fn count(outcomes: &Outcomes, at: Quarter, event: &Event) {
        match *event {
            Event::Ended(group, end) => outcomes.ended(at, group, end),
            Event::Took(micros) => outcomes.took(at, Duration::from_micros(micros)),
            Event::Issued(group) => outcomes.issued(at, group),
            Event::Found(group, anything) => outcomes.found(at, group, anything),
            Event::Worth(group, quality) => outcomes.was_worth(at, group, quality),
            Event::Pass(_) => {}
        }
    }

    proptest! {
        /// Each quarter is read once, two quarters later, and says what was counted in it; together they say everything.
        #[test]
        fn every_window_gets_what_was_counted_in_it(events in prop::collection::vec(event(), 0..80)) {
            let (outcomes, clock, mut read) = (Outcomes::default(), WindowClock::default(), Read::default());
            let (mut now, mut expected) = (1_000_u64, Counts::default());
            clock.set(now);
            let mut by_quarter = std::collections::BTreeMap::<u64, Counts>::new();
            let mut seen = Counts::default();
            for event in events.iter().chain([&Event::Pass(2), &Event::Pass(1)]) {
                if let Event::Pass(quarters) = event {
                    for _ in 0..*quarters {
                        now += 1;
                        clock.set(now);
                        let over = Quarter(now - 2);
                        let counts = read.take(&outcomes, over);
                        let theirs = by_quarter.remove(&over.0).unwrap_or_default();
                        prop_assert_eq!(&counts, &theirs);
                        seen.merge(&counts);
                    }
                    continue;
                }
                count(&outcomes, clock.quarter(), event);
                by_quarter.entry(now).or_default().merge(&counted(event));
                expected.merge(&counted(event));
            }
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_clock_never_goes_back() {
        let clock = WindowClock::default();
        clock.set(41);
        clock.set(40);
        assert_eq!((clock.quarter(), clock.quarter().window()), (Quarter(41), 10));
    }
}
