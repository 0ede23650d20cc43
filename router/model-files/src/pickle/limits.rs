//! What an artefact may cost to look at. Invariant: time and memory of an examination are linear in these, whatever the bytes are.

/// Limits of one examination; all of them are for the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The file, in bytes.
    pub bytes: u64,
    /// What is read after decompression, in bytes. It is walked as it comes out and never held.
    pub unpacked_bytes: u64,
    /// How many times as large as the file what comes out of it may be, once that is more than [`Limits::ratio_from`].
    pub ratio: u64,
    /// Below so many unpacked bytes no ratio is too large: arrays of zeros compress well.
    pub ratio_from: u64,
    /// Opcodes.
    pub opcodes: u64,
    /// Entries of a pickle's memo.
    pub memo: usize,
    /// Values and marks on a pickle's stack.
    pub stack: usize,
    /// The longest text whose value is known, in bytes; a longer one cannot be a name.
    pub text_bytes: usize,
    /// Texts, tuples and dicts whose contents are known, and lengths of lists, in bytes of this machine's memory. A file over it is refused.
    pub kept_bytes: u64,
    /// Containers in each other: an archive is one, an array file in it a second, the pickle a third.
    pub nesting: u32,
    /// Pickles, one after another or inside arrays.
    pub pickles: u32,
    /// Different globals.
    pub globals: usize,
    /// Entries of an archive.
    pub entries: usize,
    /// Memory of a decompressor, in bytes: what the header of an xz or lzma stream asks for.
    pub dictionary_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: 2 << 30,
            unpacked_bytes: 4 << 30,
            ratio: 200,
            ratio_from: 64 << 20,
            opcodes: 50_000_000,
            memo: 5_000_000,
            stack: 1_000_000,
            text_bytes: 4 << 10,
            kept_bytes: 256 << 20,
            nesting: 3,
            pickles: 1_000,
            globals: 1_000,
            entries: 100_000,
            dictionary_bytes: 128 << 20,
        }
    }
}
