//! The chain of a ledger's entries: each names the hash of the one before it, so that none can be changed, taken out or put in unseen. Pure.
//!
//! Who can write to the store can write the whole chain anew. So what is known of the newest entry is also kept elsewhere: by the store beside the ledger,
//! and by whoever was told of it.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ledger::{Kind, LedgerEntry};

/// What the first entry names.
pub(crate) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry as its store has it: its id (a stream's, or empty), and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) text: Vec<u8>,
    /// Its hash as a router said it, where the text is no longer the whole of what was written: a salt was hidden.
    pub(crate) said: Option<String>,
}

impl Line {
    /// As its store has it.
    pub(crate) fn new(id: String, text: Vec<u8>) -> Line {
        Line { id, text, said: None }
    }

    /// SHA-256 over id and text, in hex.
    pub(crate) fn hash(&self) -> String {
        if let Some(said) = &self.said {
            return said.clone();
        }
        let mut hash = Sha256::new();
        hash.update(self.id.as_bytes());
        hash.update(b"\n");
        hash.update(&self.text);
        hex::encode(hash.finalize())
    }

    /// What it says; `None` for what is no entry. A stream's id is its time.
    pub(crate) fn entry(&self) -> Option<LedgerEntry> {
        let mut entry: LedgerEntry = serde_json::from_slice(&self.text).ok()?;
        if !self.id.is_empty() {
            entry.time_ms = self.id.split('-').next()?.parse().ok()?;
        }
        Some(entry)
    }
}

/// What was found of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Entries that were looked at.
    pub entries: usize,
    /// The oldest one's epoch; older ones are gone where this is not the first.
    pub first_epoch: Option<u64>,
    /// The newest one's.
    pub last_epoch: Option<u64>,
    /// The newest one's hash: keep it elsewhere, and the ledger up to here cannot be written anew.
    pub head: Option<String>,
    /// Whether the oldest entry is the first that ever was.
    pub is_from_the_beginning: bool,
    /// Whether the oldest entry, which is not of epoch 1, was written when the store had lost what came before.
    pub begins_with_reseed: bool,
    /// What is wrong, in words; none in a ledger that nobody touched.
    pub problems: Vec<String>,
}

/// What is known of a ledger beside its entries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known<'a> {
    /// The newest entry is the one that the store knows to have been written last.
    pub(crate) is_newest: bool,
    /// Of the flags.
    pub(crate) epoch: u64,
    /// There are so many entries that older ones were given up.
    pub(crate) is_full: bool,
    /// The hash that an entry must have: somebody noted it.
    pub(crate) head: Option<&'a str>,
}

/// What an entry names when the one that was written last is not the newest any more: nothing, so that the gap is seen for ever.
pub(crate) fn gap(head: &str) -> String {
    format!("gone: {head}")
}

/// Looks at entries, oldest first.
pub(crate) fn verify(lines: &[Line], known: Known<'_>) -> Verified {
    let Known { is_newest, epoch, is_full, head } = known;
    let entries: Vec<Option<LedgerEntry>> = lines.iter().map(|line| serde_json::from_slice(&line.text).ok()).collect();
    let epoch_of = |entry: Option<&Option<LedgerEntry>>| entry.and_then(Option::as_ref).map(|entry| entry.epoch);
    let mut problems = Vec::new();
    let mut before: Option<(&Line, u64)> = None;
    for (line, entry) in lines.iter().zip(&entries) {
        let Some(entry) = entry else {
            problems.push(format!("the entry {} cannot be read", shown(line, before)));
            before = Some((line, before.map_or(0, |(_, epoch)| epoch)));
            continue;
        };
        let what = format!("the entry {} of epoch {}", shown(line, before), entry.epoch);
        if let Some((line_before, epoch_before)) = before {
            if entry.prev != line_before.hash() {
                problems
                    .push(format!("{what} does not follow the one before it: one of them was changed, or others were taken out or put in"));
            }
            if entry.epoch < epoch_before {
                problems.push(format!("{what} comes after one of epoch {epoch_before}"));
            }
        }
        before = Some((line, entry.epoch));
    }
    let last_epoch = epoch_of(entries.last());
    if !is_newest && !lines.is_empty() {
        problems.push("the newest entry is not the one that was written last: it was changed, or newer ones were taken out".to_owned());
    }
    if last_epoch.is_none_or(|last| last < epoch) && epoch > 0 {
        let last = last_epoch.map_or_else(|| "none".to_owned(), |last| last.to_string());
        problems.push(format!("the flags are at epoch {epoch}, and the newest entry is of epoch {last}"));
    }
    let first = entries.first().and_then(Option::as_ref);
    let is_from_the_beginning = first.is_some_and(|entry| entry.prev == GENESIS);
    if let Some(entry) = first.filter(|entry| is_from_the_beginning && entry.epoch > 1 && entry.kind != Kind::Reseed) {
        problems
            .push(format!("the oldest entry says that it is the first, and is of epoch {}: those before it were taken out", entry.epoch));
    }
    if let Some(head) = head.filter(|head| !lines.iter().any(|line| line.hash() == **head)) {
        problems.push(format!("no entry has the hash {}", head.chars().take(80).collect::<String>()));
    }
    if first.is_some() && !is_from_the_beginning && !is_full {
        problems.push("the oldest entry follows one that is not there, and there is room for it: older ones were taken out".to_owned());
    }
    Verified {
        entries: lines.len(),
        first_epoch: first.map(|entry| entry.epoch),
        last_epoch,
        head: lines.last().map(Line::hash),
        is_from_the_beginning,
        begins_with_reseed: first.is_some_and(|entry| entry.kind == Kind::Reseed && entry.epoch > 1),
        problems,
    }
}

fn shown(line: &Line, before: Option<(&Line, u64)>) -> String {
    match (line.id.is_empty(), before) {
        (false, _) => line.id.clone(),
        (true, Some((_, epoch))) => format!("after epoch {epoch}"),
        (true, None) => "at the beginning".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(epochs: &[u64]) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for epoch in epochs {
            let prev = lines.last().map_or_else(|| GENESIS.to_owned(), Line::hash);
            let (who, why) = ("alice".to_owned(), format!("reason {epoch}"));
            let entry = LedgerEntry { epoch: *epoch, kind: Kind::Change, who, why, prev, ..LedgerEntry::default() };
            lines.push(Line::new(format!("{}-0", 1_000 + epoch), serde_json::to_vec(&entry).unwrap()));
        }
        lines
    }

    const WHOLE: Known<'static> = Known { is_newest: true, epoch: 9, is_full: false, head: None };

    fn problems(lines: &[Line], head: &str) -> Vec<String> {
        verify(lines, Known { is_newest: lines.last().is_some_and(|newest| newest.hash() == head), ..WHOLE }).problems
    }

    #[test]
    fn a_ledger_that_nobody_touched_is_whole() {
        let lines = chain(&[1, 2, 3, 7, 9]);
        let found = verify(&lines, WHOLE);
        assert_eq!((found.problems.len(), found.first_epoch, found.last_epoch, found.is_from_the_beginning), (0, Some(1), Some(9), true));
        // The oldest entries are forgotten some day.
        let found = verify(&lines[2..], Known { is_full: true, ..WHOLE });
        assert_eq!((found.problems.len(), found.first_epoch, found.is_from_the_beginning), (0, Some(3), false));
        // Whoever noted a hash finds it, however many entries came after it.
        for line in &lines {
            assert_eq!(verify(&lines, Known { head: Some(&line.hash()), ..WHOLE }).problems, [""; 0]);
        }
        assert_eq!(verify(&lines, Known { head: Some("00"), ..WHOLE }).problems, ["no entry has the hash 00"]);
    }

    #[test]
    fn a_store_that_lost_all_begins_anew_and_that_is_seen() {
        let entry = LedgerEntry { epoch: 8, kind: Kind::Reseed, prev: GENESIS.to_owned(), ..LedgerEntry::default() };
        let lines = [Line::new("5-0".to_owned(), serde_json::to_vec(&entry).unwrap())];
        let found = verify(&lines, Known { epoch: 8, ..WHOLE });
        assert_eq!((found.problems.len(), found.is_from_the_beginning, found.begins_with_reseed), (0, true, true));
        let began_late = verify(&chain(&[7, 9]), WHOLE).problems;
        assert_eq!(began_late, ["the oldest entry says that it is the first, and is of epoch 7: those before it were taken out"]);
    }

    #[test]
    fn any_change_of_any_entry_is_found() {
        let lines = chain(&[1, 2, 3, 7, 9]);
        let head = lines.last().unwrap().hash();
        for at in 0..lines.len() {
            for byte in 0..lines[at].text.len() {
                let mut changed = lines.clone();
                changed[at].text[byte] ^= 1;
                assert!(!problems(&changed, &head).is_empty(), "entry {at}, byte {byte}");
            }
            let mut moved = lines.clone();
            moved[at].id = "999-0".to_owned();
            assert!(!problems(&moved, &head).is_empty(), "the time of {at}");
            let mut shorter = lines.clone();
            shorter.remove(at);
            assert!(!problems(&shorter, &head).is_empty(), "entry {at} taken out");
            let mut longer = lines.clone();
            longer.insert(at, lines[at].clone());
            assert!(!problems(&longer, &head).is_empty(), "entry {at} twice");
            let mut swapped = lines.clone();
            if at > 0 {
                swapped.swap(at - 1, at);
                assert!(!problems(&swapped, &head).is_empty(), "entries {at} swapped");
            }
        }
        assert!(!problems(&[], &head).is_empty());
    }
}
