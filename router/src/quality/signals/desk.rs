//! Where sampled bodies are handed in: a thread of its own reads them, behind a bounded queue.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::said::{BodyFault, Packing, Said, said};
use crate::config::Signals;
use crate::quality::events::{Cell, EventCounts};
use crate::quality::{Counts, Number, millionths};

/// Bodies that may wait.
const QUEUE: usize = 256;
/// What all copies together may hold.
const HELD_BYTES: usize = 32 << 20;

/// The desk; clones are the same one.
#[derive(Debug, Clone)]
pub struct SignalsDesk {
    shared: Arc<Shared>,
    queue: SyncSender<Heard>,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    held: AtomicUsize,
}

#[derive(Debug, Default)]
struct Books {
    counts: EventCounts,
    /// By route and version: bodies that were read, and what was wrong with them.
    read: BTreeMap<(u32, u32), Reading>,
}

/// What became of the sampled bodies of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// That were read.
    pub read: u64,
    /// By [`BodyFault::ALL`].
    pub faults: [u64; BodyFault::ALL.len()],
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose body it is.
#[derive(Debug, Clone, Copy)]
pub struct Hearing {
    /// Route, version, and the window of the query.
    pub cell: Cell,
    /// The unit's group.
    pub group: u8,
    /// How the body is packed.
    pub packing: Packing,
}

/// A sampled body on its way.
#[derive(Debug)]
pub struct Heard {
    hearing: Hearing,
    signals: Arc<Signals>,
    body: Vec<u8>,
    is_too_long: bool,
    desk: Arc<Shared>,
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.desk.held.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

impl Heard {
    /// A piece of it has passed.
    pub fn pass(&mut self, piece: &[u8]) {
        if self.is_too_long {
            return;
        }
        let is_much = self.desk.held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > HELD_BYTES;
        if is_much || self.body.len() + piece.len() > self.signals.max_body {
            self.is_too_long = true;
            self.desk.held.fetch_sub(piece.len() + self.body.len(), Ordering::Relaxed);
            self.body = Vec::new();
            return;
        }
        self.body.extend_from_slice(piece);
    }
}

impl SignalsDesk {
    /// Opens it, with a thread of its own that ends when the last clone is gone.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open() -> std::io::Result<SignalsDesk> {
        let shared = Arc::<Shared>::default();
        let (queue, bodies) = sync_channel::<Heard>(QUEUE);
        let work = move || {
            while let Ok(heard) = bodies.recv() {
                let read = match heard.is_too_long {
                    true => (Said::default(), vec![BodyFault::TooLong]),
                    false => said(&heard.body, heard.hearing.packing, &heard.signals),
                };
                heard.desk.books().take(&heard.hearing, &read);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(work)?;
        Ok(SignalsDesk { shared, queue })
    }

    /// A body that is about to pass.
    #[must_use]
    pub fn hear(&self, hearing: Hearing, signals: &Arc<Signals>) -> Heard {
        Heard { hearing, signals: signals.clone(), body: Vec::new(), is_too_long: false, desk: self.shared.clone() }
    }

    /// It has passed, whole. Waits for nobody.
    pub fn deliver(&self, heard: Heard) {
        let hearing = heard.hearing;
        if self.queue.try_send(heard).is_err() {
            self.shared.books().take(&hearing, &(Said::default(), vec![BodyFault::Busy]));
        }
    }

    /// Takes the counts of these windows.
    #[must_use]
    pub fn drain(&self, windows: impl RangeBounds<u32>) -> Vec<(Cell, Counts)> {
        self.shared.books().counts.drain(windows)
    }

    /// What became of the sampled bodies of a version.
    #[must_use]
    pub fn reading(&self, route: u32, version: u32) -> Reading {
        self.shared.books().read.get(&(route, version)).cloned().unwrap_or_default()
    }
}

impl Books {
    fn take(&mut self, hearing: &Hearing, (said, faults): &(Said, Vec<BodyFault>)) {
        let (cell, group) = (hearing.cell, hearing.group);
        let reading = self.read.entry((cell.route, cell.version)).or_default();
        reading.read += 1;
        for fault in faults {
            if let Some(count) = reading.faults.get_mut(*fault as usize) {
                *count += 1;
            }
        }
        if let Some(found) = said.found {
            self.counts.count(cell, group, &[(Number::ZeroSeen, 1), (Number::ZeroResults, u64::from(!found))]);
        }
        if let Some(quality) = said.quality {
            let (sum, squares) = (millionths(quality), millionths(quality * quality));
            let numbers = [(Number::QualitySeen, 1), (Number::QualitySum, sum), (Number::QualitySquares, squares)];
            self.counts.count(cell, group, &numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::said::tests::signals;
    use super::*;

    fn hearing() -> Hearing {
        Hearing { cell: Cell { window: 10, route: 1, version: 2 }, group: 3, packing: Packing::None }
    }

    fn settled(desk: &SignalsDesk, read: u64) -> Reading {
        let began = tokio::time::Instant::now();
        loop {
            let reading = desk.reading(1, 2);
            if reading.read >= read {
                return reading;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{reading:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_bodies_say_is_counted_in_their_window() {
        let desk = SignalsDesk::open().unwrap();
        let signals = Arc::new(signals(["/total", "", "", "/quality"]));
        for body in [r#"{"total": 0, "quality": 0.5}"#, r#"{"total": 3}"#, "no json"] {
            let mut heard = desk.hear(hearing(), &signals);
            let (first, second) = body.split_at(4);
            heard.pass(first.as_bytes());
            heard.pass(second.as_bytes());
            desk.deliver(heard);
        }
        let reading = settled(&desk, 3);
        assert_eq!(reading.faults, [0, 0, 1, 1, 0, 0, 0, 0]);
        let drained = desk.drain(..);
        let (cell, counts) = &drained[0];
        assert_eq!((cell.window, counts[Number::ZeroSeen], counts[Number::ZeroResults]), (10, 2, 1));
        assert_eq!((counts[Number::QualitySeen], counts[Number::QualitySum]), (1, 500_000));
        assert_eq!(desk.drain(..).len(), 0);
        assert_eq!(desk.shared.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_long_body_is_left_alone_and_gives_its_room_back() {
        let desk = SignalsDesk::open().unwrap();
        let signals = Arc::new(signals(["/total", "", "", ""]));
        let mut heard = desk.hear(hearing(), &signals);
        (0..10).for_each(|_| heard.pass(&[b' '; 1_000]));
        assert_eq!(desk.shared.held.load(Ordering::Relaxed), 0);
        desk.deliver(heard);
        assert_eq!(settled(&desk, 1).faults[BodyFault::TooLong as usize], 1);
        // One that is broken off says nothing, and holds nothing.
        let mut heard = desk.hear(hearing(), &signals);
        heard.pass(b"{");
        drop(heard);
        assert_eq!(desk.shared.held.load(Ordering::Relaxed), 0);
    }
}
