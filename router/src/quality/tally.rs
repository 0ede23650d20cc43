//! What this process counted, and what of it the fleet was told, in memory that outlives the process: a file that is mapped. From it, whoever comes after a process
//! that was killed knows what that one had not told, to the unit.
//!
//! The file is an array of slots of 16 words. Each slot has one writer, which adds to it with a plain load and store, as it does to its own counters; nothing is
//! ever written to the disk on purpose, since only the process may die, not the machine. There is one such file for a process, and so it is global here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::counts::{Counts, Number};

/// Words of a slot: whose it is, what kind, and the numbers.
const WORDS: usize = 16;
/// The first slot is the head.
const SLOTS: usize = 4_096;
/// Length of the file.
pub const TALLY_BYTES: usize = SLOTS * WORDS * 8;
/// What the file begins with; the last digit is its form.
const MARK: u64 = u64::from_le_bytes(*b"SBtally1");
/// Kinds of slots. 0 is one that nobody took.
const COUNTED: u64 = 1;
const TOLD: u64 = 2;
/// Where a slot's numbers begin.
const NUMBERS: usize = 2;

static TALLY: OnceLock<Tally> = OnceLock::new();

#[derive(Debug)]
struct Tally {
    words: &'static [AtomicU64],
    taken: AtomicUsize,
    /// Locked for as long as the process lives.
    _file: File,
}

/// One writer's numbers of one version on one route, as [`super::route_id`] and [`super::version_id`] have them.
///
/// Invariant: only one thread at a time calls its methods.
#[derive(Debug, Clone, Copy)]
pub struct Slot(&'static [AtomicU64; WORDS]);

impl Slot {
    /// Of what is counted. `None` without a tally, or when all slots are taken.
    #[must_use]
    pub fn counted(route: u32, version: u32) -> Option<Slot> {
        take(COUNTED, route, version)
    }

    /// Of what is told.
    #[must_use]
    pub fn told(route: u32, version: u32) -> Option<Slot> {
        take(TOLD, route, version)
    }

    /// Counts.
    pub fn add(self, number: Number, more: u64) {
        if let Some(word) = self.0.get(NUMBERS + number as usize) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        }
    }

    /// Says how far it has come.
    pub fn set(self, numbers: &[u64; Number::ALL.len()]) {
        for (word, number) in self.0.iter().skip(NUMBERS).zip(numbers) {
            word.store(*number, Ordering::Relaxed);
        }
    }
}

fn take(kind: u64, route: u32, version: u32) -> Option<Slot> {
    let tally = TALLY.get()?;
    let place = tally.taken.fetch_add(1, Ordering::Relaxed);
    if place == SLOTS {
        tracing::warn!("this process has counted so many versions that what it counts of further ones is not known after a kill");
    }
    let words = tally.words.chunks_exact(WORDS).nth(place)?;
    let slot: &'static [AtomicU64; WORDS] = words.try_into().ok()?;
    let [whose, of_kind, ..] = slot;
    whose.store(u64::from(route) | u64::from(version) << 32, Ordering::Relaxed);
    of_kind.store(kind, Ordering::Relaxed);
    Some(Slot(slot))
}

/// From now on, what this process counts is in this file, which is locked and has [`TALLY_BYTES`] zeros. Once a process.
///
/// # Errors
/// When it cannot be mapped.
pub fn keep_tally(file: File) -> io::Result<()> {
    // SAFETY: the mapping is of the whole file, aligned to a page, and never unmapped. Others who write to the file see and change atomics, which any value is
    // one of. Whoever cuts the file off ends this process with a bus error: it is private to this user, and locked.
    #[allow(unsafe_code)]
    let words = unsafe {
        let start = mmap(std::ptr::null_mut(), TALLY_BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)?;
        std::slice::from_raw_parts(start.cast::<AtomicU64>(), TALLY_BYTES / 8)
    };
    if let Some(head) = words.first() {
        head.store(MARK, Ordering::Relaxed);
    }
    let tally = Tally { words, taken: AtomicUsize::new(1), _file: file };
    TALLY.set(tally).map_err(|_| io::Error::other("this process keeps a tally already"))
}

/// Whether this process keeps one.
#[must_use]
pub fn is_tally_kept() -> bool {
    TALLY.get().is_some()
}

/// What a process counted and never told, by route and version; only those with something. Pure.
///
/// # Errors
/// What is wrong with its file.
pub fn untold(file: &[u8]) -> Result<BTreeMap<(u32, u32), Counts>, &'static str> {
    if file.len() != TALLY_BYTES {
        return Err("it is cut off, or no tally");
    }
    let (words, _) = file.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    if words.first() != Some(&MARK) {
        return Err("it is no tally of this form");
    }
    let (slots, _) = words.as_chunks::<WORDS>();
    let mut sums = BTreeMap::<(u32, u32), [[u64; Number::ALL.len()]; 2]>::new();
    for [whose, kind, numbers @ ..] in slots.iter().skip(1) {
        if *kind == 0 {
            continue;
        }
        // The lower and the upper half.
        #[allow(clippy::cast_possible_truncation)]
        let whose = (*whose as u32, (*whose >> 32) as u32);
        let [counted, told] = sums.entry(whose).or_default();
        let sum = match *kind {
            COUNTED => counted,
            TOLD => told,
            _ => return Err("it has a slot of a kind that there is not"),
        };
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(*number);
        }
    }
    let lost = sums.into_iter().map(|(whose, [counted, told])| {
        let mut lost = Counts::default();
        for (lost, (counted, told)) in lost.numbers.iter_mut().zip(counted.into_iter().zip(told)) {
            *lost = counted.saturating_sub(told);
        }
        (whose, lost)
    });
    Ok(lost.filter(|(_, lost)| !lost.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(slots: &[(u64, u32, u32, u64)]) -> Vec<u8> {
        let mut words = vec![0_u64; TALLY_BYTES / 8];
        words[0] = MARK;
        for (place, (kind, route, version, requests)) in slots.iter().enumerate() {
            let at = (place + 1) * WORDS;
            words[at] = u64::from(*route) | u64::from(*version) << 32;
            words[at + 1] = *kind;
            words[at + NUMBERS + Number::Requests as usize] = *requests;
        }
        words.into_iter().flat_map(u64::to_ne_bytes).collect()
    }

    fn requests(file: &[u8]) -> Result<BTreeMap<(u32, u32), u64>, &'static str> {
        Ok(untold(file)?.into_iter().map(|(whose, lost)| (whose, lost[Number::Requests])).collect())
    }

    #[test]
    fn what_was_counted_and_not_told_is_untold() {
        let two_workers = [(COUNTED, 1, u32::MAX, 40), (COUNTED, 1, u32::MAX, 30), (TOLD, 1, u32::MAX, 65)];
        assert_eq!(requests(&file(&two_workers)), Ok(BTreeMap::from([((1, u32::MAX), 5)])));
        let nothing = [(COUNTED, 1, 2, 40), (TOLD, 1, 2, 40), (TOLD, 3, 4, 7)];
        assert_eq!(requests(&file(&nothing)), Ok(BTreeMap::new()), "and what was told of what nobody counted is nothing");
    }

    #[test]
    fn what_is_no_tally_is_refused() {
        assert!(requests(b"").is_err() && requests(&file(&[])[1..]).is_err());
        assert!(requests(&vec![0; TALLY_BYTES]).is_err() && requests(&file(&[(7, 1, 2, 3)])).is_err());
    }

    #[test]
    fn a_process_keeps_one_tally_and_its_slots_are_in_the_file() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), vec![0; TALLY_BYTES]).unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        keep_tally(open()).unwrap();
        assert!(keep_tally(open()).is_err());
        let (counted, told) = (Slot::counted(7, 8).unwrap(), Slot::told(7, 8).unwrap());
        counted.add(Number::Requests, 9);
        counted.add(Number::Conversions, 3);
        let mut numbers = [0; Number::ALL.len()];
        numbers[0] = 4;
        told.set(&numbers);
        let lost = untold(&std::fs::read(path.path()).unwrap()).unwrap();
        let of_both = lost.get(&(7, 8)).unwrap();
        assert_eq!((of_both[Number::Requests], of_both[Number::Conversions]), (5, 3));
        let taken = std::iter::repeat_with(|| Slot::counted(1, 1)).take(SLOTS).flatten().count();
        assert!(taken < SLOTS && Slot::counted(1, 1).is_none(), "no more than there is room for");
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_file_is_read_or_refused(words in prop::collection::vec(any::<u64>(), 1..64), at in 0..TALLY_BYTES / 8 - 64) {
            let mut bytes = file(&[]);
            for (place, word) in words.iter().enumerate() {
                bytes[(at + place) * 8..][..8].copy_from_slice(&word.to_ne_bytes());
            }
            let _ = untold(&bytes);
        }
    }
}
