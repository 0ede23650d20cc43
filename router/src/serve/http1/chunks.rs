//! A body in chunks (RFC 9112, 7.1), read strictly. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest line with a chunk's size, its extensions included.
const LINE_BYTES: usize = 4 << 10;
/// Extensions of all chunks together.
const EXTENSION_BYTES: usize = 16 << 10;
/// The trailers.
const TRAILER_BYTES: usize = 16 << 10;
const TRAILERS: usize = 100;

/// The bytes make no sense as chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is there of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// Behind the last chunk; nothing comes after them.
    Trailers(HeaderMap),
    /// The end.
    End,
}

/// Where in the body the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
    /// So many bytes of a chunk are still to come.
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    Trailers,
    Over,
}

impl Chunks {
    /// The end was read.
    pub(super) fn are_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Takes the next piece out of the buffer; `None` while more bytes are needed for it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match self.place {
                Place::Size => {
                    let Some(size) = self.size(buffer)? else { return Ok(None) };
                    self.place = if size == 0 { Place::Trailers } else { Place::Data(size) };
                }
                Place::Data(_) if buffer.is_empty() => return Ok(None),
                Place::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - count as u64;
                    self.place = if left == 0 { Place::DataEnd } else { Place::Data(left) };
                    return Ok(Some(Piece::Data(buffer.split_to(count).freeze())));
                }
                Place::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.place = Place::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Malformed),
                },
                Place::Trailers => return self.trailers(buffer),
                Place::Over => return Ok(Some(Piece::End)),
            }
        }
    }

    /// A chunk's size: hexadecimal digits, and extensions, which nobody knows.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Malformed> {
        let Some(end) = line(buffer, LINE_BYTES)? else { return Ok(None) };
        let line = buffer.get(..end).unwrap_or_default();
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        if !(1..=16).contains(&size.len())
            || !matches!(extension.first(), None | Some(b';'))
            || !extension.iter().all(|byte| is_text(*byte))
        {
            return Err(Malformed);
        }
        self.extensions += extension.len();
        if self.extensions > EXTENSION_BYTES {
            return Err(Malformed);
        }
        let size = size.iter().fold(0_u64, |size, digit| (size << 4) | u64::from(char::from(*digit).to_digit(16).unwrap_or_default()));
        buffer.advance(end + 2);
        Ok(Some(size))
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.place = Place::Over;
            return Ok(Some(Piece::End));
        }
        let mut end = 0;
        loop {
            match line(buffer.get(end..).unwrap_or_default(), TRAILER_BYTES - end)? {
                None => return Ok(None),
                Some(0) => break,
                Some(length) => end += length + 2,
            }
            if end >= TRAILER_BYTES {
                return Err(Malformed);
            }
        }
        let bytes = buffer.split_to(end + 2).freeze();
        let mut fields = [httparse::EMPTY_HEADER; TRAILERS];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&bytes, &mut fields) else { return Err(Malformed) };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
            trailers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| Malformed)?);
        }
        self.place = Place::Over;
        Ok(Some(Piece::Trailers(trailers)))
    }
}

/// Where the line ends that the bytes begin with: CR LF, and no other LF or CR in it.
fn line(bytes: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() > most { Err(Malformed) } else { Ok(None) };
    };
    match bytes.get(end..) {
        _ if end > most => Err(Malformed),
        Some([b'\r', b'\n', ..]) => Ok(Some(end)),
        Some([b'\r']) => Ok(None),
        _ => Err(Malformed),
    }
}

/// What an extension may be made of.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
