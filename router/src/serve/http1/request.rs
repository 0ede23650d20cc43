//! A client's request head, from bytes to fields. Pure.
//!
//! Strict: lines that end with a bare LF, folded lines, a length that is said twice or beside a transfer coding: somebody before us may have read such a request
//! in another way. What is read is cut out of the buffer that it came in, without a copy; a second attempt needs no more than that slice.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Method, Uri, Version};
use httparse::{Header, Status};

use super::super::head::{Fields, Head};
use super::super::head_lines::{self, Lines};
use super::super::interim::expects_continue;
use super::super::seen::Seen;
use super::fields::number;
use super::lines::{FIELDS, Lines as FieldLines, Said};
use super::response::{Length, put_back};
use crate::quality::Refusal;

/// As long as so few bytes of a head are here, each that comes is judged at once.
const LOOKED_AT: usize = 64;

/// A head that is here.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) head: Box<Head>,
    pub(crate) seen: Seen,
    /// Of the body: so many bytes, or chunks.
    pub(super) length: Length,
    /// The client wants to send another request on this connection.
    pub(super) keeps: bool,
    /// It waits with the body until it hears 100 Continue.
    pub(super) expects_continue: bool,
}

#[cfg(test)]
impl RequestHead {
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }
}

/// What is known of a connection's heads.
#[derive(Debug)]
pub(crate) struct RequestReader {
    /// The longest head, in bytes.
    most_bytes: usize,
    /// The most fields of one.
    most_fields: usize,
    /// How long the last one was: most are as long.
    usual: usize,
    /// So much of the buffer was looked at, and has no end of a head.
    known: usize,
}

impl RequestReader {
    pub(crate) fn new(most_bytes: usize, most_fields: usize) -> RequestReader {
        RequestReader { most_bytes, most_fields, usual: 0, known: 0 }
    }

    /// Takes a head out of the buffer, once all of it is there.
    ///
    /// # Errors
    /// [`Refusal::Framing`] where it could be read in two ways, [`Refusal::HeadSize`] where it breaks a limit, [`Refusal::Head`] where it is no HTTP. Nothing
    /// on this connection can be trusted after that.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<RequestHead>, Refusal> {
        // Empty lines before a request are passed over (RFC 9112, 2.2).
        while self.known == 0 && buffer.starts_with(b"\r\n") {
            buffer.advance(2);
        }
        let Some(length) = self.end(buffer)? else { return Ok(None) };
        self.known = 0;
        let mut bytes = buffer.split_to(length).freeze();
        let (head, read) = read(&bytes, self.most_fields)?;
        self.usual = read;
        if read < length {
            // Two heads were together as long as the usual one.
            put_back(buffer, bytes.split_off(read));
        }
        Ok(Some(head))
    }

    /// Where it ends.
    fn end(&mut self, buffer: &[u8]) -> Result<Option<usize>, Refusal> {
        if self.known == 0 && head_lines::are_as_usual(buffer, self.usual) {
            return Ok(Some(self.usual));
        }
        if matches!(buffer, [] | [b'\r']) {
            return Ok(None);
        }
        match head_lines::of(buffer, self.known) {
            Lines::Whole(length) if length <= self.most_bytes => Ok(Some(length)),
            Lines::Part if buffer.len() <= self.most_bytes => {
                // What is no HTTP may never have an end; what begins well is not looked at again and again.
                if self.known < LOOKED_AT {
                    self.begins_well(buffer)?;
                }
                self.known = buffer.len();
                Ok(None)
            }
            Lines::Whole(_) | Lines::Part => Err(Refusal::HeadSize),
            Lines::Odd => Err(Refusal::Framing),
        }
    }

    #[cold]
    fn begins_well(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut found = vec![httparse::EMPTY_HEADER; self.most_fields];
        httparse::Request::new(&mut found).parse(bytes).map(drop).map_err(fault)
    }
}

fn fault(error: httparse::Error) -> Refusal {
    if error == httparse::Error::TooManyHeaders { Refusal::HeadSize } else { Refusal::Head }
}

/// The head that the bytes begin with, and how long it is.
fn read(bytes: &Bytes, most: usize) -> Result<(RequestHead, usize), Refusal> {
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let mut many = Vec::new();
    let found = few.get_mut(..most).unwrap_or_else(|| {
        many.resize_with(most, MaybeUninit::uninit);
        &mut many
    });
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_request_with_uninit_headers(&mut parsed, bytes, found) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Err(Refusal::Head),
        Err(error) => return Err(fault(error)),
    };
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok()).ok_or(Refusal::Head)?;
    let target = parsed.path.unwrap_or_default();
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).map_err(|_| Refusal::Head)?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let Said { lines, seen, wishes } = FieldLines::of(bytes.slice(..length), parsed.headers);
    let head = Box::new(Head { method, uri, version, fields: lines.into() });
    let body = body_length(&head, seen)?;
    let expects_continue = body != Length::Known(0) && version == Version::HTTP_11 && expects_continue(head.fields.get(&EXPECT));
    Ok((RequestHead { head, seen, length: body, keeps: wishes.keeps(version), expects_continue }, length))
}

/// RFC 9112, 6.3.
fn body_length(head: &Head, seen: Seen) -> Result<Length, Refusal> {
    if seen.content_lengths > 1 || (seen.has_transfer_encoding && seen.content_lengths > 0) {
        return Err(Refusal::Framing);
    }
    if seen.has_transfer_encoding {
        // HTTP/1.0 has no transfer codings, and no request has a body that ends when its connection does.
        let is_chunked = head.version == Version::HTTP_11 && ends_with_chunked(&head.fields);
        return match (is_chunked, seen.has_odd_coding) {
            (true, false) => Ok(Length::Chunked),
            (true, true) => Err(Refusal::Framing),
            (false, _) => Err(Refusal::Head),
        };
    }
    if seen.content_lengths == 0 {
        return Ok(Length::Known(0));
    }
    let said = head.fields.get(&CONTENT_LENGTH).unwrap_or_default();
    number(said.trim_ascii()).map(Length::Known).ok_or(Refusal::Head)
}

/// Whether the last of all transfer codings is `chunked`.
fn ends_with_chunked(fields: &Fields) -> bool {
    let last = fields.all("transfer-encoding").last().and_then(|line| line.rsplit(|byte| *byte == b',').next());
    last.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}
