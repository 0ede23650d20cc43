//! The compressors of joblib: each a stream that is unpacked as it is read. Invariant: what comes out is counted by who reads it, and
//! nothing may come after the stream.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// A compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1950.
    Zlib,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The `.lzma` format of before xz.
    Lzma,
    /// xz.
    Xz,
    /// The frame format of LZ4.
    Lz4,
}

/// The most bytes of a bzip2 file: its first five bytes are also the opcode BINBYTES with a length of 826 million, and what is after that
/// many bytes would be opcodes.
const BZIP2_BYTES: usize = 800_000_000;

/// A stream that is unpacked.
pub(super) enum Unpacked<'a> {
    Zlib(Box<Zlib<'a>>),
    Gzip(flate2::bufread::GzDecoder<&'a [u8]>),
    Bzip2(bzip2::bufread::BzDecoder<&'a [u8]>),
    Lzma(Box<lzma_rust2::LzmaReader<&'a [u8]>>),
    Xz(Box<lzma_rust2::XzReader<&'a [u8]>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<Whole<'a>>>),
}

impl Compression {
    /// By the first bytes, as joblib tells them; none of these begins a pickle that could be loaded. Two bytes of zlib begin numbers as well, as
    /// the length that a safetensors file has first: where nothing can come out of what is after them, it is no stream.
    pub(super) fn guess(bytes: &[u8]) -> Option<Compression> {
        match bytes {
            [0x78, _, rest @ ..] if !may_be_deflated(rest) => None,
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some(Compression::Zlib),
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Compression::Bzip2),
            [0x5d, 0x00, ..] => Some(Compression::Lzma),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Compression::Lz4),
            _ => None,
        }
    }

    /// Begins to unpack. `memory` is the most that a stream's header may ask for, in bytes.
    pub(super) fn open(self, bytes: &[u8], memory: u64) -> Result<Unpacked<'_>, String> {
        let kibibytes = u32::try_from(memory >> 10).unwrap_or(u32::MAX);
        Ok(match self {
            Compression::Zlib => Unpacked::Zlib(Box::new(Zlib { rest: bytes, inflate: flate2::Decompress::new(true), is_done: false })),
            Compression::Gzip => Unpacked::Gzip(flate2::bufread::GzDecoder::new(bytes)),
            Compression::Bzip2 if bytes.len() > BZIP2_BYTES => {
                return Err(format!("a bzip2 file of more than {BZIP2_BYTES} bytes can also be read as a pickle"));
            }
            Compression::Bzip2 => Unpacked::Bzip2(bzip2::bufread::BzDecoder::new(bytes)),
            Compression::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(bytes, kibibytes, None);
                Unpacked::Lzma(Box::new(reader.map_err(|error| format!("its lzma stream cannot be read: {error}"))?))
            }
            Compression::Xz => Unpacked::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, false, kibibytes))),
            Compression::Lz4 => Unpacked::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(Whole(bytes)))),
        })
    }
}

/// Whether a first block may begin here: RFC 1951 has three kinds of them, and one that is stored says its length twice, the second time inverted. Every
/// decoder stops at any other before it gives a byte. What is too short for that may be one.
fn may_be_deflated(bytes: &[u8]) -> bool {
    match (bytes.first().map(|first| (first >> 1) & 3), bytes) {
        (Some(3), _) => false,
        (Some(0), [_, low, high, inverted_low, inverted_high, ..]) => *low == !*inverted_low && *high == !*inverted_high,
        _ => true,
    }
}

impl Unpacked<'_> {
    /// Bytes that are after the stream.
    pub(super) fn left_over(self) -> usize {
        match self {
            Unpacked::Zlib(reader) => reader.rest.len(),
            Unpacked::Gzip(reader) => reader.into_inner().len(),
            Unpacked::Bzip2(reader) => reader.into_inner().len(),
            Unpacked::Lzma(reader) => {
                let (rest, buffered) = reader.into_parts();
                rest.len() + buffered.len()
            }
            Unpacked::Xz(reader) => reader.into_inner().len(),
            Unpacked::Lz4(reader) => reader.into_inner().0.len(),
        }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Zlib(reader) => reader.read(buffer),
            Unpacked::Gzip(reader) => reader.read(buffer),
            Unpacked::Bzip2(reader) => reader.read(buffer),
            Unpacked::Lzma(reader) => reader.read(buffer),
            Unpacked::Xz(reader) => reader.read(buffer),
            Unpacked::Lz4(reader) => reader.read(buffer),
        }
    }
}

/// A zlib stream that has to come to its end, checksum and all: the decoder of `flate2` lets it be cut.
pub(super) struct Zlib<'a> {
    rest: &'a [u8],
    inflate: flate2::Decompress,
    is_done: bool,
}

impl Read for Zlib<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_done || buffer.is_empty() {
                return Ok(0);
            }
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(self.rest, buffer, flate2::FlushDecompress::None)?;
            let taken = usize::try_from(self.inflate.total_in().saturating_sub(taken)).unwrap_or(0);
            let given = usize::try_from(self.inflate.total_out().saturating_sub(given)).unwrap_or(0);
            self.rest = self.rest.get(taken..).unwrap_or_default();
            self.is_done = status == flate2::Status::StreamEnd;
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.is_done {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Bytes that are not to end before the frame does: the decoder of `lz4_flex` lets the end mark be cut.
pub(super) struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::Error::other("it ends in the middle")),
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bytes_are_no_zlib_stream() {
        for second in [0x01, 0x5e, 0x9c, 0xda] {
            // Lengths: 376 and others, after which JSON begins.
            assert_eq!(Compression::guess(&[0x78, second, 0, 0, 0, 0, 0, 0, b'{']), None);
            assert_eq!(Compression::guess(&[0x78, second, 0x07, 0, 0, 0, 0]), None);
            // A stored block, others, and what is too short to tell.
            assert_eq!(Compression::guess(&[0x78, second, 0x01, 0x02, 0, 0xfd, 0xff, b'N', b'.']), Some(Compression::Zlib));
            assert_eq!(Compression::guess(&[0x78, second, 0x03, 0]), Some(Compression::Zlib));
            assert_eq!(Compression::guess(&[0x78, second, 0xed, 0xc1]), Some(Compression::Zlib));
            assert_eq!(Compression::guess(&[0x78, second, 0]), Some(Compression::Zlib));
        }
        assert_eq!(Compression::guess(&[0x78, 0x02, 0x03, 0]), None);
    }
}
