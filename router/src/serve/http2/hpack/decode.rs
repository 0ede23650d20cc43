//! Reads blocks (RFC 7541, 3.2 and 6).

use std::ops::Range;

use super::letters::{is_sound_name, is_sound_value};
use super::table::{Name, Table};
use super::{Fault, Field, TABLE_BYTES, huffman, integer};

/// Room for decoded strings that is kept from block to block.
const SCRATCH_BYTES: usize = 8_192;

/// Reads the blocks of one connection, which all must come to it, in their order.
#[derive(Debug)]
pub(in crate::serve::http2) struct Decoder {
    table: Table,
    /// Strings of one field that came in Huffman codes.
    scratch: Vec<u8>,
}

/// A string of a literal.
enum Text<'a> {
    /// It stands in the block.
    Plain(&'a [u8]),
    /// It stands in the scratch.
    Decoded(Range<usize>),
}

impl Text<'_> {
    fn bytes<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Text::Plain(bytes) => bytes,
            Text::Decoded(range) => scratch.get(range.clone()).unwrap_or_default(),
        }
    }
}

impl Decoder {
    /// With an empty table of 4,096 bytes at most.
    pub(in crate::serve::http2) fn new() -> Decoder {
        Decoder::of(TABLE_BYTES)
    }

    fn of(most: usize) -> Decoder {
        Decoder { table: Table::new(most), scratch: Vec::new() }
    }

    /// With a table of so many bytes at most.
    #[cfg(test)]
    pub(super) fn with_table(most: usize) -> Decoder {
        Decoder::of(most)
    }

    /// The table.
    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Calls `take` with each field of a whole block, in their order. A byte of a block can be a field of 4 KiB: who keeps fields must have a limit.
    ///
    /// # Errors
    /// A [`Fault`]. The fields that came before it have been told.
    pub(in crate::serve::http2) fn decode(&mut self, block: &[u8], take: &mut impl FnMut(Field<'_>)) -> Result<(), Fault> {
        let mut rest = self.sizes(block)?;
        while let Some((&first, behind)) = rest.split_first() {
            if first & 0x80 == 0 {
                rest = self.literal(first, behind, take)?;
                continue;
            }
            let (index, behind) = integer::read(first, 0x7f, behind)?;
            take(self.table.field(index)?);
            rest = behind;
        }
        if self.scratch.capacity() > SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Obeys what a block says of the table's size at its beginning; what stands behind that.
    fn sizes<'b>(&mut self, mut block: &'b [u8]) -> Result<&'b [u8], Fault> {
        while let Some((&first @ 0x20..0x40, behind)) = block.split_first() {
            let (limit, behind) = integer::read(first, 0x1f, behind)?;
            self.table.resize(limit)?;
            block = behind;
        }
        Ok(block)
    }

    /// A field in letters; what stands behind it.
    #[inline(never)]
    fn literal<'b>(&mut self, first: u8, rest: &'b [u8], take: &mut impl FnMut(Field<'_>)) -> Result<&'b [u8], Fault> {
        let is_kept = first & 0x40 != 0;
        if !is_kept && first & 0x20 != 0 {
            return Err(Fault::LateSize);
        }
        self.scratch.clear();
        let (index, rest) = integer::read(first, if is_kept { 0x3f } else { 0x0f }, rest)?;
        let (own_name, rest) = if index == 0 { string(rest, &mut self.scratch)? } else { (Text::Plain(&[]), rest) };
        let (value, rest) = string(rest, &mut self.scratch)?;
        let value = value.bytes(&self.scratch);
        let (name, is_name_sound) = if index == 0 {
            let name = own_name.bytes(&self.scratch);
            (Name::Given(name), is_sound_name(name))
        } else {
            self.table.name(index)?
        };
        let name_bytes = self.table.bytes_of(&name);
        let is_sound = is_name_sound && is_sound_value(value);
        take(Field { name: name_bytes, value, is_sound });
        if is_kept {
            self.table.insert(&name, value, is_name_sound, is_sound);
        }
        Ok(rest)
    }
}

/// The string that a block goes on with (RFC 7541, 5.2), and what stands behind it. In Huffman codes, it is put behind what is in the scratch.
fn string<'b>(block: &'b [u8], scratch: &mut Vec<u8>) -> Result<(Text<'b>, &'b [u8]), Fault> {
    let (&first, rest) = block.split_first().ok_or(Fault::Short)?;
    let (length, rest) = integer::read(first, 0x7f, rest)?;
    let (bytes, rest) = rest.split_at_checked(length).ok_or(Fault::Short)?;
    if first & 0x80 == 0 {
        return Ok((Text::Plain(bytes), rest));
    }
    let start = scratch.len();
    huffman::decode(bytes, scratch)?;
    Ok((Text::Decoded(start..scratch.len()), rest))
}
