//! What events come to, until whoever collects windows takes it. Pure.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use super::book::{Booking, What};
use crate::quality::{Counts, Number, Slot};

/// Windows of versions that are kept. With nobody who takes them the oldest are dropped: some 30 MB.
const KEPT: usize = 16_384;

/// One version in one window of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// In seconds since 1970, as the token has it.
    pub window: u32,
    /// As [`crate::quality::route_id`] has it.
    pub route: u32,
    /// As [`crate::quality::version_id`] has it.
    pub version: u32,
}

/// Counts by cell, the oldest window first.
#[derive(Debug, Default)]
pub struct EventCounts {
    cells: BTreeMap<Cell, Counts>,
    dropped: u64,
    /// Sums by route and version that outlive the process.
    tallies: BTreeMap<(u32, u32), Option<Slot>>,
}

impl EventCounts {
    pub(super) fn add(&mut self, booking: &Booking) {
        let Booking { route, version, window, group, what } = *booking;
        let cell = Cell { window, route, version };
        match what {
            What::Click => self.count(cell, group, &[(Number::Clicks, 1)]),
            What::Conversion => self.count(cell, group, &[(Number::Conversions, 1)]),
            What::Quality(value) => {
                let value = u64::from(value);
                // Of millionths, rounded as a square of the number itself would be.
                let squares = (value * value + 500_000) / 1_000_000;
                let numbers = [(Number::QualitySeen, 1), (Number::QualitySum, value), (Number::QualitySquares, squares)];
                self.count(cell, group, &numbers);
            }
        }
    }

    /// Counts in a cell. Of too many cells, the oldest are dropped.
    pub(crate) fn count(&mut self, cell: Cell, group: u8, numbers: &[(Number, u64)]) {
        if self.cells.len() >= KEPT && !self.cells.contains_key(&cell) {
            self.cells.pop_first();
            self.dropped += 1;
        }
        let counts = self.cells.entry(cell).or_default();
        let tally = *self.tallies.entry((cell.route, cell.version)).or_insert_with(|| Slot::counted(cell.route, cell.version));
        for (number, more) in numbers {
            counts.add(*number, group, *more);
            if let Some(tally) = tally {
                tally.add(*number, *more);
            }
        }
    }

    /// Takes the counts of these windows, which start again from nothing: an event that comes later for one of them is there the next time.
    pub fn drain(&mut self, windows: impl RangeBounds<u32>) -> Vec<(Cell, Counts)> {
        self.cells.extract_if(.., |cell, _| windows.contains(&cell.window)).collect()
    }

    /// How many cells were dropped, since nobody took them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking(window: u32, version: u32, what: What) -> Booking {
        Booking { route: 1, version, window, group: 3, what }
    }

    #[test]
    fn what_is_drained_is_gone_and_the_rest_stays() {
        let mut counts = EventCounts::default();
        for window in [10, 11, 11, 12] {
            counts.add(&booking(window, 5, What::Click));
        }
        counts.add(&booking(11, 6, What::Conversion));
        counts.add(&booking(11, 6, What::Quality(500_000)));
        let drained = counts.drain(..12);
        let cells: Vec<(u32, u32)> = drained.iter().map(|(cell, _)| (cell.window, cell.version)).collect();
        assert_eq!(cells, [(10, 5), (11, 5), (11, 6)]);
        assert_eq!((drained[1].1[Number::Clicks], drained[1].1.of_group(3, Number::Clicks)), (2, 2));
        let quality = [Number::Conversions, Number::QualitySeen, Number::QualitySum, Number::QualitySquares];
        assert_eq!(quality.map(|number| drained[2].1[number]), [1, 1, 500_000, 250_000]);
        assert_eq!((counts.drain(..12).len(), counts.drain(..).len(), counts.dropped()), (0, 1, 0));
    }

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let mut counts = EventCounts::default();
        let most = u32::try_from(KEPT).unwrap();
        (0..most + 7).for_each(|window| counts.add(&booking(window, 5, What::Click)));
        assert_eq!(counts.dropped(), 7);
        let kept = counts.drain(..);
        assert_eq!((kept.len(), kept[0].0.window), (KEPT, 7));
    }
}
