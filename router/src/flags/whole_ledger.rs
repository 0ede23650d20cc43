//! A route's whole ledger, as its store has it: looked at, and taken elsewhere to be looked at there. Pure.
//!
//! Taken elsewhere it is JSON lines: one for what is known of it, then one for each entry, the oldest first.

use serde::{Deserialize, Serialize};

use super::chain::{Known, Line, verify};
use super::{HeldAt, LedgerEntry, Verified};

/// A store keeps half as many, and no more than twice its own bound while it is read.
const MOST_ENTRIES: usize = 50_000;
/// The layout of what is taken elsewhere.
const VERSION: u32 = 1;

/// Every entry of a ledger that is there, and what its store knows beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Of the flags in force.
    pub(crate) epoch: u64,
    /// The newest entry is the one that the store knows to have been written last.
    pub(crate) is_newest: bool,
    /// There are so many entries that older ones were given up.
    pub(crate) is_full: bool,
    /// The oldest first.
    pub(crate) lines: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    v: u32,
    epoch: u64,
    is_newest: bool,
    is_full: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    /// The hash of what was written, where the text is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    text: String,
}

impl Ledger {
    /// Whether every entry is as it was written; with `head`, whether an entry has that hash.
    #[must_use]
    pub fn verify(&self, head: Option<&str>) -> Verified {
        let Ledger { epoch, is_newest, is_full, lines } = self;
        verify(lines, Known { is_newest: *is_newest, epoch: *epoch, is_full: *is_full, head })
    }

    /// What held at this time, in milliseconds since 1970.
    #[must_use]
    pub fn held_at(&self, time_ms: u64) -> HeldAt {
        let mut held = HeldAt::default();
        let mut entries = self.entries().into_iter();
        while entries.next().is_some_and(|entry| held.look(entry, time_ms)) {}
        held
    }

    /// The entries that can be read, newest first. Of a folder's ledger, without those whose change was never made.
    #[must_use]
    pub fn entries(&self) -> Vec<LedgerEntry> {
        let mut below = self.epoch.saturating_add(1);
        let mut entries = Vec::new();
        for line in self.lines.iter().rev() {
            let Some(entry) = line.entry() else { continue };
            if line.id.is_empty() {
                if entry.epoch >= below {
                    continue;
                }
                below = entry.epoch;
            }
            entries.push(entry);
        }
        entries
    }

    /// The same ledger with entries changed by `hide`, which answers `None` for one that may be shown as it is. The hash of what was written stays.
    #[must_use]
    pub fn hiding(mut self, hide: impl Fn(&LedgerEntry) -> Option<LedgerEntry>) -> Ledger {
        for line in &mut self.lines {
            // What cannot be read may hold anything.
            let shown = match serde_json::from_slice::<LedgerEntry>(&line.text) {
                Ok(entry) => hide(&entry).and_then(|hidden| serde_json::to_vec(&hidden).ok()),
                Err(_) => Some(b"(not readable)".to_vec()),
            };
            if let Some(shown) = shown {
                line.said = Some(line.hash());
                line.text = shown;
            }
        }
        self
    }

    /// As JSON lines, one at a time.
    pub fn written(self) -> impl Iterator<Item = String> {
        let Ledger { epoch, is_newest, is_full, lines } = self;
        let head = serde_json::to_string(&Head { v: VERSION, epoch, is_newest, is_full }).unwrap_or_default();
        let entry = |line: Line| {
            let written = Written { id: line.id, hash: line.said, text: String::from_utf8_lossy(&line.text).into_owned() };
            serde_json::to_string(&written).unwrap_or_default()
        };
        std::iter::once(head).chain(lines.into_iter().map(entry)).map(|line| line + "\n")
    }

    /// Reads such lines.
    ///
    /// # Errors
    /// What is wrong, with the line's number.
    pub fn read(bytes: &[u8]) -> Result<Ledger, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("is no text: {error}"))?;
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|error| format!("line 1: {error}"))?;
        if head.v != VERSION {
            return Err(format!("line 1: v = {}: this program reads version {VERSION}", head.v));
        }
        let mut read = Vec::new();
        for (number, line) in (2..).zip(lines) {
            if read.len() == MOST_ENTRIES {
                return Err(format!("more than {MOST_ENTRIES} entries"));
            }
            let Written { id, hash, text } = serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
            read.push(Line { id, text: text.into_bytes(), said: hash });
        }
        Ok(Ledger { epoch: head.epoch, is_newest: head.is_newest, is_full: head.is_full, lines: read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FieldChange;
    use crate::flags::chain::GENESIS;

    fn ledger(is_of_redis: bool) -> Ledger {
        let mut lines: Vec<Line> = Vec::new();
        for epoch in 1..=4_u64 {
            let what = vec![FieldChange { field: "salt".to_owned(), old: None, new: Some(format!("s3cret{epoch}")) }];
            let prev = lines.last().map_or_else(|| GENESIS.to_owned(), Line::hash);
            let time_ms = if is_of_redis { 0 } else { 1_000 * epoch };
            let entry = LedgerEntry { epoch, time_ms, what, prev, ..LedgerEntry::default() };
            let id = if is_of_redis { format!("{}-0", 1_000 * epoch) } else { String::new() };
            lines.push(Line::new(id, serde_json::to_vec(&entry).unwrap()));
        }
        Ledger { epoch: 4, is_newest: true, is_full: false, lines }
    }

    fn hidden(entry: &LedgerEntry) -> Option<LedgerEntry> {
        (entry.epoch == 2).then(|| LedgerEntry { what: Vec::new(), ..entry.clone() })
    }

    #[test]
    fn elsewhere_it_says_the_same_and_its_hashes_hold() {
        for is_of_redis in [true, false] {
            let whole = ledger(is_of_redis);
            let text: String = whole.clone().hiding(hidden).written().collect();
            assert!(!text.contains("s3cret2") && text.contains("s3cret3"), "{text}");
            let read = Ledger::read(text.as_bytes()).unwrap();
            assert_eq!(read.verify(None), whole.verify(None));
            assert!(read.verify(None).problems.is_empty(), "{:?}", read.verify(None));
            let held = read.held_at(3_500);
            assert_eq!((held.entry.unwrap().epoch, held.ended_by.unwrap().epoch), (3, 4));
            assert_eq!((read.held_at(999).entry, read.held_at(999).oldest_ms), (None, Some(1_000)));
        }
    }

    #[test]
    fn a_change_elsewhere_is_found() {
        let text: String = ledger(true).written().collect();
        let read = Ledger::read(text.replace("s3cret3", "other").as_bytes()).unwrap();
        assert_eq!(read.verify(None).problems.len(), 1);
        assert!(Ledger::read(b"{\"v\":2,\"epoch\":1,\"is_newest\":true,\"is_full\":true}").unwrap_err().contains("v = 2"));
        assert!(Ledger::read(b"").is_err() && Ledger::read(b"\xff").is_err());
    }

    #[test]
    fn a_change_that_was_never_made_is_left_out() {
        let mut of_a_folder = ledger(false);
        of_a_folder.epoch = 3;
        assert_eq!(of_a_folder.entries().iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [3, 2, 1]);
    }
}
