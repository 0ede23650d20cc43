//! Writes blocks (RFC 7541, 6), without Huffman codes, and with nothing ever taken out of the peer's table.
//!
//! Each name has one slot by its ends, and a slot knows one field that stands in the peer's table. What changes each time would fill the table,
//! so a slot takes another value only when twice in a row one has come that it did not have, and only a few times.

use super::letters::{ALL, Ends, KnownEnds, is_equal, is_same_within};
use super::statics::{STATICS, index_of};
use super::{ENTRY_BYTES, TABLE_BYTES, integer};

/// Slots for names, as many as [`Ends::place`] has places.
const SLOTS: usize = 64;
/// Room for entries that is there from the first on.
const FIRST_BYTES: usize = 512;
/// Values of up to so many bytes are looked at without a call.
const SHORT: usize = 64;
/// How often a slot gets another value.
const TURNS: u8 = 3;

/// A literal that goes into the peer's table, one that does not, and one that goes into nobody's.
const KEPT: (u8, u8) = (0x40, 0x3f);
const PASSING: (u8, u8) = (0x00, 0x0f);
const NEVER: (u8, u8) = (0x10, 0x0f);

/// Writes the blocks of one connection, which all must come from it, in their order.
#[derive(Debug)]
pub(in crate::serve::http2) struct Encoder {
    /// None before the first field is kept.
    slots: Vec<Slot>,
    /// The bytes of all entries of the peer's table: name and value.
    bytes: Vec<u8>,
    /// How many entries it has.
    entries: u16,
    /// What they count.
    size: usize,
    /// What it may have.
    limit: usize,
    /// The peer has not been told.
    is_new: bool,
}

/// A field in the peer's table.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Of its name, in lower case.
    ends: KnownEnds,
    /// Where the value stands among the bytes, behind the name, and how long it is.
    value: u16,
    length: u16,
    /// The number of its entry, from 1 on; 0 is none.
    number: u16,
    /// The name's index in the table that both sides know, or 0.
    known: u8,
    /// Values that it had before.
    turns: u8,
    /// The last value was another.
    is_doubted: bool,
}

impl Slot {
    const EMPTY: Slot = Slot { ends: KnownEnds::NONE, value: 0, length: 0, number: 0, known: 0, turns: 0, is_doubted: false };

    /// Whether it has this name.
    #[inline]
    fn is_named(&self, ends: &Ends, name: &[u8], bytes: &[u8]) -> bool {
        self.ends.are(ends) && (name.len() <= ALL || self.name(bytes).is_some_and(|known| is_same_within(name, known)))
    }

    #[inline]
    fn name<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(usize::from(self.value).wrapping_sub(self.ends.length())..self.value.into())
    }

    #[inline]
    fn value<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let start = usize::from(self.value);
        bytes.get(start..start + usize::from(self.length))
    }
}

impl Encoder {
    /// For a peer with a table of 4,096 bytes.
    pub(in crate::serve::http2) fn new() -> Encoder {
        Encoder { slots: Vec::new(), bytes: Vec::new(), entries: 0, size: 0, limit: TABLE_BYTES, is_new: false }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes; of more than 4,096, as many are used.
    pub(in crate::serve::http2) fn limit(&mut self, bytes: u32) {
        let limit = usize::try_from(bytes).unwrap_or(TABLE_BYTES).min(TABLE_BYTES);
        if limit != self.limit {
            *self = Encoder { limit, is_new: true, ..Encoder::new() };
        }
    }

    /// Begins a block: says what has to be said of the table's size.
    #[inline]
    pub(in crate::serve::http2) fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_new) {
            // First of none: that empties it.
            out.push(0x20);
            integer::write(0x20, 0x1f, self.limit, out);
        }
    }

    /// The status (100 to 999).
    #[inline]
    pub(in crate::serve::http2) fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digit = |number: u16| b'0' + (number % 10) as u8;
                out.extend_from_slice(&[8, 3, digit(status / 100), digit(status / 10), digit(status)]);
                return;
            }
        };
        out.push(0x80 | index);
    }

    /// The method.
    pub(in crate::serve::http2) fn method(&mut self, method: &str, out: &mut Vec<u8>) {
        match method {
            "GET" => out.push(0x82),
            "POST" => out.push(0x83),
            _ => literal(PASSING, 2, b":method", method.as_bytes(), out),
        }
    }

    /// The scheme.
    pub(in crate::serve::http2) fn scheme(&mut self, is_https: bool, out: &mut Vec<u8>) {
        out.push(if is_https { 0x87 } else { 0x86 });
    }

    /// A field. Its name is written in lower case whatever it comes in; both must be sound beyond that.
    #[inline]
    pub(in crate::serve::http2) fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        // Mostly it is known, and one byte says it; to see that takes no call.
        let ends = Ends::of(name);
        if value.len() <= SHORT
            && out.len() < out.capacity()
            && let Some(slot) = self.slots.get_mut(ends.place())
            && slot.is_named(&ends, name, &self.bytes)
            && usize::from(slot.length) == value.len()
            && slot.value(&self.bytes).is_some_and(|known| is_equal(value, known))
            && let index = index(self.entries, slot.number)
            && index < 0x7f
        {
            slot.is_doubted = false;
            out.push(0x80 | index as u8);
            return;
        }
        self.any_field(name, value, out);
    }

    /// A field, whatever it is.
    #[inline(never)]
    fn any_field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let ends = Ends::of(name);
        let place = ends.place();
        match self.slots.get_mut(place) {
            Some(slot) if !slot.is_named(&ends, name, &self.bytes) => self.unknown(place, name, value, out),
            Some(slot) if slot.value(&self.bytes) == Some(value) => {
                slot.is_doubted = false;
                integer::write(0x80, 0x7f, index(self.entries, slot.number), out);
            }
            Some(_) => self.other(place, name, value, out),
            None => self.unknown(place, name, value, out),
        }
    }

    /// The same of one that is another each time, or secret: nobody on the way keeps it.
    pub(in crate::serve::http2) fn field_once(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        literal(NEVER, index_of(name).into(), name, value, out);
    }

    /// A field whose slot does not have its name.
    fn unknown(&mut self, place: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let known = index_of(name);
        if is_known(known, value) {
            out.push(0x80 | known);
        } else if self.slots.get(place).is_some_and(|slot| slot.number != 0) {
            literal(PASSING, known.into(), name, value, out);
        } else {
            self.keep(place, Slot { known, ..Slot::EMPTY }, known.into(), name, value, out);
        }
    }

    /// A field whose slot has another value.
    fn other(&mut self, place: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        if is_known(slot.known, value) {
            out.push(0x80 | slot.known);
            return;
        }
        let index = if slot.known == 0 { index(self.entries, slot.number) } else { slot.known.into() };
        if slot.is_doubted && slot.turns < TURNS {
            let next = Slot { turns: slot.turns + 1, is_doubted: false, ..*slot };
            self.keep(place, next, index, name, value, out);
        } else {
            slot.is_doubted = true;
            literal(PASSING, index, name, value, out);
        }
    }

    /// Writes a field, and puts it into the peer's table and the slot if there is room.
    fn keep(&mut self, place: usize, slot: Slot, index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let size = name.len().saturating_add(value.len()).saturating_add(ENTRY_BYTES).saturating_add(self.size);
        let (at, start) = (self.bytes.len(), self.bytes.len() + name.len());
        let (true, Ok(value_at), Ok(length)) = (size <= self.limit, u16::try_from(start), u16::try_from(value.len())) else {
            literal(PASSING, index, name, value, out);
            return;
        };
        literal(KEPT, index, name, value, out);
        if self.slots.is_empty() {
            self.slots = vec![Slot::EMPTY; SLOTS];
            self.bytes.reserve_exact(FIRST_BYTES);
        }
        put_name(name, &mut self.bytes);
        self.bytes.extend_from_slice(value);
        self.size = size;
        self.entries += 1;
        let ends = KnownEnds::of(self.bytes.get(at..start).unwrap_or_default());
        if let Some(place) = self.slots.get_mut(place) {
            *place = Slot { ends, value: value_at, length, number: self.entries, ..slot };
        }
    }

    /// How many entries the peer's table has, and what they count.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.entries.into(), self.size)
    }
}

/// The index of the entry with this number: the newest has the first behind those that both sides know.
#[inline]
fn index(entries: u16, number: u16) -> usize {
    STATICS.len() + 1 + usize::from(entries.wrapping_sub(number))
}

/// Whether both sides know a field of this name (by its index) with this value.
fn is_known(name: u8, value: &[u8]) -> bool {
    STATICS.get(usize::from(name).wrapping_sub(1)).is_some_and(|(_, known)| *known == value)
}

/// A field in letters, its name by its index if there is one.
fn literal((bits, mask): (u8, u8), index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Mostly the name has an index of two bytes at most, and the value a length of one.
    let beyond = index.wrapping_sub(mask.into());
    if value.len() >= 0x7f || index == 0 || beyond >= 0x80 {
        integer::write(bits, mask, index, out);
        if index == 0 {
            integer::write(0, 0x7f, name.len(), out);
            put_name(name, out);
        }
        integer::write(0, 0x7f, value.len(), out);
    } else {
        out.extend_from_slice(&[bits | mask, beyond as u8, value.len() as u8]);
    }
    out.extend_from_slice(value);
}

/// Puts a name there in lower case.
fn put_name(name: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(name);
    out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
}
