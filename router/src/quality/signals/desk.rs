//! Where sampled bodies and pairs of answers are handed in: a thread of its own reads them, behind a bounded queue.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kept::Kept;
use super::pairs::{Half, PairOf, SENT, Sums, Task, compared, task};
use super::said::{BodyFault, Packing, Said, said};
use crate::config::Signals;
use crate::quality::events::{Cell, EventCounts};
use crate::quality::{Counts, Number, millionths};
use crate::vocabulary::Copies;

/// Bodies, and pairs of them, that may wait.
const QUEUE: usize = 256;

/// The desk; clones are the same one.
#[derive(Debug, Clone)]
pub struct SignalsDesk {
    shared: Arc<Shared>,
    queue: SyncSender<Work>,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    /// Beside the books, which are held for longer: a worker adds to them where the queue is full.
    sums: Mutex<Sums>,
    held: Arc<AtomicUsize>,
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

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread does.
enum Work {
    Read(Heard),
    Count(PairOf, Copies),
    Compare(Pair),
}

/// Two answers on their way.
struct Pair {
    of: PairOf,
    live: (Packing, Kept),
    copy: (Packing, Kept),
    signals: Arc<Signals>,
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
    kept: Kept,
}

impl Heard {
    /// A piece of it has passed.
    pub fn pass(&mut self, piece: &[u8]) {
        self.kept.pass(piece);
    }

    fn said(&self) -> (Said, Vec<BodyFault>) {
        match self.kept.whole() {
            Ok(body) => said(body, self.hearing.packing, &self.signals),
            Err(fault) => (Said::default(), vec![fault]),
        }
    }
}

impl SignalsDesk {
    /// Opens it, with a thread of its own that ends when the last clone is gone.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open() -> std::io::Result<SignalsDesk> {
        let shared = Arc::<Shared>::default();
        let (queue, asked) = sync_channel::<Work>(QUEUE);
        let counted = shared.clone();
        let work = move || {
            while let Ok(work) = asked.recv() {
                match work {
                    Work::Read(heard) => {
                        let read = heard.said();
                        let hearing = heard.hearing;
                        // First: whoever sees it counted finds its room given back.
                        drop(heard);
                        counted.books().take(&hearing, &read);
                    }
                    Work::Count(of, copies) => counted.sums().add(&of, &copies),
                    Work::Compare(Pair { of, live, copy, signals }) => {
                        let copies = compared(&live, &copy, &signals);
                        drop((live, copy));
                        counted.sums().add(&of, &copies);
                    }
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(work)?;
        Ok(SignalsDesk { shared, queue })
    }

    /// A body that is about to pass.
    #[must_use]
    pub fn hear(&self, hearing: Hearing, signals: &Arc<Signals>) -> Heard {
        Heard { hearing, signals: signals.clone(), kept: self.keep(signals.max_body) }
    }

    /// A copy of a body that is about to pass, of at most so many bytes.
    #[must_use]
    pub fn keep(&self, most: usize) -> Kept {
        Kept::new(most, &self.shared.held)
    }

    /// It has passed, whole. Waits for nobody.
    pub fn deliver(&self, heard: Heard) {
        let hearing = heard.hearing;
        if self.queue.try_send(Work::Read(heard)).is_err() {
            self.shared.books().take(&hearing, &(Said::default(), vec![BodyFault::Busy]));
        }
    }

    /// A query has its answer, and its copy has one. Waits for nobody: where too many wait, the pair counts, and is not compared.
    pub fn hand_in(&self, of: PairOf, live: Half, copy: Half, signals: Option<&Arc<Signals>>) {
        let work = match (task(live, copy), signals) {
            (Task::Nothing, _) => return,
            (Task::Count(copies), _) => Work::Count(of, copies),
            (Task::Compare(live, copy), Some(signals)) => Work::Compare(Pair { of, live, copy, signals: signals.clone() }),
            (Task::Compare(..), None) => Work::Count(of, SENT),
        };
        let Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) = self.queue.try_send(work) else { return };
        match work {
            Work::Count(of, copies) => self.shared.sums().add(&of, &copies),
            Work::Compare(pair) => self.shared.sums().add(&pair.of, &SENT),
            Work::Read(_) => {}
        }
    }

    /// What became of the copies of queries that were sent for a rollout; nothing where it is none of the route's last ones.
    #[must_use]
    pub fn copies(&self, route: u32, rollout: &str) -> Copies {
        self.shared.sums().of_rollout(route, rollout)
    }

    /// The same of all rollouts of a version since the process began.
    #[must_use]
    pub fn copies_of_version(&self, route: u32, version: u32) -> Copies {
        self.shared.sums().of_version(route, version)
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
    use std::sync::atomic::Ordering;
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

    #[test]
    fn pairs_are_compared_and_counted_for_their_rollout() {
        let desk = SignalsDesk::open().unwrap();
        let signals = Arc::new(signals(["", "/ids", "", ""]));
        let of = || PairOf { route: 1, version: 2, rollout: "abc".into() };
        let half = |text: &str| {
            let mut kept = desk.keep(signals.max_body);
            kept.pass(text.as_bytes());
            Half::Body(Packing::None, kept)
        };
        desk.hand_in(of(), half(r#"{"ids": ["a", "b"]}"#), half(r#"{"ids": ["b", "a"]}"#), Some(&signals));
        desk.hand_in(of(), half("{}"), half("{}"), Some(&signals));
        desk.hand_in(of(), half("{}"), Half::Failed, Some(&signals));
        desk.hand_in(of(), Half::Failed, half("{}"), Some(&signals));
        desk.hand_in(of(), Half::Unkept, Half::Unkept, None);
        let began = tokio::time::Instant::now();
        while desk.copies(1, "abc").sent < 4 {
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", desk.copies(1, "abc"));
            std::thread::yield_now();
        }
        let all = Copies { sent: 4, failed: 1, compared: 1, top1_changed: 1, jaccard_micros: 1_000_000, unread: 1 };
        assert_eq!((desk.copies(1, "abc"), desk.copies_of_version(1, 2)), (all, all));
        assert_eq!((desk.copies(1, "other"), desk.copies(2, "abc")), (Copies::default(), Copies::default()));
        assert_eq!(desk.shared.held.load(Ordering::Relaxed), 0);
    }
}
