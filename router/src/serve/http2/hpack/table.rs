//! The table that a client fills (RFC 7541, 2.3.2 and 4): the bytes of its entries in one row, and where each stands.
//!
//! Entries are taken out at the front of the row and put in behind. Their bytes stay until enough of them are of no use, and then all that are
//! move to the front: so an entry is always in one piece, and a name can be put in again that was just taken out.

use std::collections::VecDeque;
use std::ops::Range;

use super::statics::STATICS;
use super::{ENTRY_BYTES, Fault, Field};

/// Bytes of no use that are put up with.
const SLACK: usize = 1_024;
/// Room that a table has from its first entry on.
const FIRST_BYTES: usize = 1_024;
const FIRST_ENTRIES: usize = 32;

/// The table, and the one that both sides know before it.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// The newest is last.
    entries: VecDeque<Entry>,
    /// As RFC 7541 counts: an entry is 32 bytes more than its name and value.
    size: usize,
    /// What the client lets it have at the moment.
    limit: usize,
    /// What we let it have.
    most: usize,
}

/// Where an entry's name stands among the bytes, and its value behind that.
#[derive(Debug)]
struct Entry {
    at: u16,
    name: u16,
    value: u16,
    is_sound: bool,
    is_name_sound: bool,
}

/// Where a name stands that a literal has from the tables.
#[derive(Debug, Clone)]
pub(super) enum Name<'a> {
    Given(&'a [u8]),
    /// Among the table's bytes.
    Kept(Range<usize>),
}

impl Entry {
    fn end(&self) -> usize {
        self.start() + usize::from(self.name) + usize::from(self.value)
    }

    fn start(&self) -> usize {
        self.at.into()
    }

    fn size(&self) -> usize {
        usize::from(self.name) + usize::from(self.value) + ENTRY_BYTES
    }
}

impl Table {
    /// An empty one of so many bytes (32 of them for each entry beyond its own), 4,096 at most.
    pub(super) fn new(most: usize) -> Table {
        Table { bytes: Vec::new(), entries: VecDeque::new(), size: 0, limit: most, most }
    }

    /// The field with this index; the first is 1.
    ///
    /// # Errors
    /// [`Fault::Index`] when there is none.
    #[inline]
    pub(super) fn field(&self, index: usize) -> Result<Field<'_>, Fault> {
        if let Some((name, value)) = STATICS.get(index.wrapping_sub(1)) {
            return Ok(Field { name, value, is_sound: true });
        }
        let entry = self.entry(index).ok_or(Fault::Index)?;
        let both = self.bytes.get(entry.start()..entry.end()).ok_or(Fault::Index)?;
        let (name, value) = both.split_at_checked(entry.name.into()).ok_or(Fault::Index)?;
        Ok(Field { name, value, is_sound: entry.is_sound })
    }

    #[inline]
    fn entry(&self, index: usize) -> Option<&Entry> {
        // The newest has the first index behind those that both sides know.
        self.entries.get(self.entries.len().wrapping_sub(index.wrapping_sub(STATICS.len())))
    }

    /// The name of the field with this index, and whether that is sound.
    ///
    /// # Errors
    /// [`Fault::Index`] when there is none.
    pub(super) fn name(&self, index: usize) -> Result<(Name<'static>, bool), Fault> {
        if let Some((name, _)) = STATICS.get(index.wrapping_sub(1)) {
            return Ok((Name::Given(name), true));
        }
        let entry = self.entry(index).ok_or(Fault::Index)?;
        Ok((Name::Kept(entry.start()..entry.start() + usize::from(entry.name)), entry.is_name_sound))
    }

    /// The bytes of a name, as long as nothing was put in since.
    pub(super) fn bytes_of<'a>(&'a self, name: &Name<'a>) -> &'a [u8] {
        match name {
            Name::Given(name) => name,
            Name::Kept(range) => self.bytes.get(range.clone()).unwrap_or_default(),
        }
    }

    /// What the client lets the table have from now on.
    ///
    /// # Errors
    /// [`Fault::Size`] when it is more than we do.
    pub(super) fn resize(&mut self, limit: usize) -> Result<(), Fault> {
        if limit > self.most {
            return Err(Fault::Size);
        }
        self.limit = limit;
        self.make_room(0);
        self.tidy();
        Ok(())
    }

    /// Puts a field in, for which others are taken out; one that is larger than the table empties it (RFC 7541, 4.4).
    /// Each is judged already: the name, and the whole.
    pub(super) fn insert(&mut self, name: &Name<'_>, value: &[u8], is_name_sound: bool, is_sound: bool) {
        let name_length = self.bytes_of(name).len();
        let size = name_length.saturating_add(value.len()).saturating_add(ENTRY_BYTES);
        self.make_room(size);
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(FIRST_BYTES);
            self.entries.reserve_exact(FIRST_ENTRIES);
        }
        let at = self.bytes.len();
        if size <= self.limit
            && let (Ok(at), Ok(length), Ok(value_length)) = (u16::try_from(at), u16::try_from(name_length), u16::try_from(value.len()))
        {
            match name {
                Name::Given(name) => self.bytes.extend_from_slice(name),
                // Even of an entry that was just taken out, they are still there.
                Name::Kept(range) => self.bytes.extend_from_within(range.clone()),
            }
            self.bytes.extend_from_slice(value);
            self.entries.push_back(Entry { at, name: length, value: value_length, is_sound, is_name_sound });
            self.size += size;
        }
        self.tidy();
    }

    /// Takes out the oldest until there are so many bytes free, or nothing is left.
    fn make_room(&mut self, size: usize) {
        while self.size.saturating_add(size) > self.limit
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size = self.size.saturating_sub(oldest.size());
        }
    }

    /// Moves the bytes to the front when too many before them are of no use.
    fn tidy(&mut self) {
        let Some(oldest) = self.entries.front() else {
            self.bytes.clear();
            return;
        };
        let useless = oldest.at;
        if usize::from(useless) > SLACK {
            drop(self.bytes.drain(..usize::from(useless)));
            for entry in &mut self.entries {
                entry.at = entry.at.saturating_sub(useless);
            }
        }
    }

    /// What it holds, as RFC 7541 counts.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How many entries it has.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes it keeps room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity()
    }
}
