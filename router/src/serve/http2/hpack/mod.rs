//! HPACK (RFC 7541): the fields of a block as bytes, with as little done for each as can be.
//!
//! Reading, nothing is copied but what a client adds to its table, and what a field is made of is judged once, when it comes in letters. Writing,
//! nothing is ever taken out of the peer's table, so that what stands in it is found by one look.
//!
//! ```text
//! block -- decode -> Field (of statics, of the table, or of the block itself)
//!            (integer, huffman)  (table)
//! status, field, field_once -- encode -> block
//!                    (statics, letters, integer)
//! ```

mod decode;
mod encode;
mod huffman;
mod integer;
mod letters;
mod statics;
mod table;

#[cfg(test)]
mod examples_tests;
#[cfg(test)]
mod tests;

pub(super) use decode::Decoder;
pub(super) use encode::Encoder;

/// What a table may hold at most, in bytes, as they are counted by RFC 7541, 4.1: as much as both sides may until one says otherwise.
const TABLE_BYTES: usize = 4_096;
/// What an entry counts beyond its bytes (RFC 7541, 4.1).
const ENTRY_BYTES: usize = 32;

/// A field of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// As it was sent.
    pub(in crate::serve::http2) name: &'a [u8],
    /// As it was sent.
    pub(in crate::serve::http2) value: &'a [u8],
    /// The name is a token in lower case, perhaps behind a colon; the value has no control character but tab.
    pub(in crate::serve::http2) is_sound: bool,
}

/// Why a block cannot be read. What comes after it cannot be read either: the connection ends with COMPRESSION_ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It ends in the middle of a field.
    #[error("the block ends in the middle of a field")]
    Short,
    /// A number above 2^31, or of more than 5 bytes beyond its first.
    #[error("a number of the block is too large")]
    Number,
    /// Neither table has this index.
    #[error("an index leads to no entry")]
    Index,
    /// A string's Huffman codes are none, or do not end as they must.
    #[error("a string is not coded as it should be")]
    Huffman,
    /// The table's size is said elsewhere than at the beginning of a block.
    #[error("the table's size is said behind a field")]
    LateSize,
    /// The table would become larger than we let it.
    #[error("the table would be larger than allowed")]
    Size,
}
