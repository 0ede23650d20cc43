//! A backend's response head, from bytes to fields. Pure.
//!
//! Strict: what two readers could take in two ways is refused, and what is read is cut out of the buffer it came in, without a copy.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use httparse::{Header, Status};
use hyper::ext::ReasonPhrase;

use super::super::head_lines::{self, Lines};
use super::super::seen::Seen;
use super::fields::number;
use super::lines::{FIELDS, Lines as Fields, Said};
use crate::quality::Broken;

/// The longest head, in bytes.
pub(crate) const HEAD_BYTES: usize = 400 << 10;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Known(u64),
    /// In chunks.
    Chunked,
    /// Until the backend closes.
    ToClose,
}

/// A head that is here.
#[derive(Debug)]
pub(super) enum Head {
    /// There is more to come: 1xx, but not 101.
    Interim(StatusCode, HeaderMap),
    /// The response's own.
    Final(Box<Final>),
}

#[derive(Debug)]
pub(super) struct Final {
    pub(super) response: Response<()>,
    /// Its fields, where they pass as they came: the response has none then.
    pub(super) lines: Option<Fields>,
    pub(super) seen: Seen,
    pub(super) length: Length,
    /// Another query may follow on this connection.
    pub(super) keeps: bool,
}

/// What is known of a connection's heads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// How long the last one was: most are as long.
    usual: usize,
    /// So much of the buffer was looked at, and has no end of a head.
    known: usize,
}

impl Reader {
    /// Takes a head out of the buffer, once all of it is there. `method`: of the request.
    ///
    /// # Errors
    /// It is no HTTP, breaks a limit, or could be read in two ways.
    pub(super) fn take(&mut self, buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Broken> {
        let Some(length) = self.end(buffer)? else { return Ok(None) };
        self.known = 0;
        let mut bytes = buffer.split_to(length).freeze();
        let (head, read) = read(&bytes, method)?;
        if read < length {
            // Two heads, or a head and what follows it, were together as long as the usual one.
            put_back(buffer, bytes.split_off(read));
        }
        if matches!(head, Head::Final(_)) {
            self.usual = read;
        }
        Ok(Some(head))
    }

    /// Where it ends.
    fn end(&mut self, buffer: &[u8]) -> Result<Option<usize>, Broken> {
        if self.known == 0 && head_lines::are_as_usual(buffer, self.usual) {
            return Ok(Some(self.usual));
        }
        match head_lines::of(buffer, self.known) {
            Lines::Whole(length) if length <= HEAD_BYTES => Ok(Some(length)),
            Lines::Part if buffer.len() <= HEAD_BYTES => {
                self.known = buffer.len();
                // What is no HTTP may never have an end.
                if begins_as_http(buffer) { Ok(None) } else { Err(Broken::Parse) }
            }
            Lines::Whole(_) | Lines::Part => Err(Broken::HeadSize),
            Lines::Odd => Err(Broken::Framing),
        }
    }
}

/// What was taken out of the buffer is the first of it again.
#[cold]
pub(super) fn put_back(buffer: &mut BytesMut, bytes: Bytes) {
    let behind = std::mem::replace(buffer, BytesMut::from(bytes));
    buffer.extend_from_slice(&behind);
}

/// The head that the bytes begin with, and how long it is.
fn read(bytes: &Bytes, method: &Method) -> Result<(Head, usize), Broken> {
    let mut found = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let end = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut found) {
        Ok(Status::Complete(end)) => end,
        Err(httparse::Error::TooManyHeaders) => return Err(Broken::Fields),
        Ok(Status::Partial) | Err(_) => return Err(Broken::Parse),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Broken::Parse)?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let Said { lines, seen, wishes } = Fields::of(bytes.slice(..end), parsed.headers);
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((Head::Interim(status, lines.to_map()), end));
    }
    let length = length(status, version, method, seen, lines.get(CONTENT_LENGTH.as_str()))?;
    let keeps = wishes.keeps(version) && length != Length::ToClose && status != StatusCode::SWITCHING_PROTOCOLS;
    let mut response = Response::new(());
    (*response.status_mut(), *response.version_mut()) = (status, version);
    let lines = if passes_as_it_is(status, seen) {
        Some(lines)
    } else {
        *response.headers_mut() = lines.to_map();
        None
    };
    if let Some(reason) = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    Ok((Head::Final(Box::new(Final { response, lines, seen, length, keeps })), end))
}

/// Nothing in them ends here, and nobody needs to look at them.
pub(crate) fn passes_as_it_is(status: StatusCode, seen: Seen) -> bool {
    status != StatusCode::SWITCHING_PROTOCOLS && !(seen.has_connection || seen.has_hop_by_hop || seen.has_own || seen.has_signals)
}

/// As much of `HTTP/1.` as is here.
fn begins_as_http(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/1.").all(|(is, should)| is == should)
}

/// RFC 9112, 6.3.
fn length(status: StatusCode, version: Version, method: &Method, seen: Seen, said: Option<&[u8]>) -> Result<Length, Broken> {
    if seen.has_ambiguous_length() {
        return Err(Broken::Framing);
    }
    let length = if seen.has_transfer_encoding {
        // HTTP/1.0 has none.
        if version == Version::HTTP_11 { Length::Chunked } else { return Err(Broken::Parse) }
    } else if seen.content_lengths == 0 {
        Length::ToClose
    } else {
        Length::Known(number(said.unwrap_or_default()).ok_or(Broken::Parse)?)
    };
    let has_none =
        status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || *method == Method::HEAD;
    if !has_none {
        return Ok(length);
    }
    // A body that a 204 announces (RFC 9110, 8.6) may come, and would be read as the next response.
    if status == StatusCode::NO_CONTENT && !matches!(length, Length::ToClose | Length::Known(0)) {
        return Err(Broken::Framing);
    }
    Ok(Length::Known(0))
}
