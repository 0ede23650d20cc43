//! A response's head out of the fields of a block: checked as RFC 9113, 8 has it, and put into lines as HTTP/1.1 has them. Pure.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};

use super::super::hpack::Field;
use super::super::trailers::EACH;
use crate::quality::Broken;
use crate::serve::http1::{Draft, Drafted, Lines, PassedLines, number, passes_as_it_is};
use crate::serve::seen::Seen;

/// What a map takes, however little is in it.
const MAP_BYTES: usize = 1 << 10;

/// A head.
#[derive(Debug)]
pub(in super::super) enum ResponseHead {
    /// There is more to come: 1xx.
    Interim {
        status: StatusCode,
        headers: HeaderMap,
        /// What it counts.
        bytes: usize,
    },
    /// The response's own.
    Final(Box<Final>),
}

/// The head of a response.
#[derive(Debug)]
pub(in super::super) struct Final {
    pub(super) response: Response<()>,
    /// Its fields, where they pass as they came: the response has none then.
    pub(super) lines: Option<Box<PassedLines>>,
    pub(super) seen: Seen,
    /// What comes is so long, where that was said.
    pub(super) length: Option<u64>,
}

impl Final {
    /// What is to come of a body.
    pub(in super::super) fn left(&self) -> Option<u64> {
        self.length
    }
}

/// A head whose fields come one after the other.
pub(super) struct Reading {
    draft: Draft,
    status: Option<StatusCode>,
    has_fields: bool,
    bytes_left: usize,
    bytes: usize,
    fault: Option<Broken>,
}

impl Reading {
    /// Of at most so many bytes.
    pub(super) fn begin(bytes: usize) -> Reading {
        Reading { draft: Draft::of_fields(), status: None, has_fields: false, bytes_left: bytes, bytes, fault: None }
    }

    /// The next field.
    pub(super) fn take(&mut self, field: Field<'_>) {
        if self.fault.is_some() {
            return;
        }
        let Field { name, value, is_sound } = field;
        let Some(left) = self.bytes_left.checked_sub(name.len() + value.len() + EACH) else {
            self.fault = Some(Broken::HeadSize);
            return;
        };
        self.bytes_left = left;
        if !is_sound || has_blank_end(value) {
            self.fault = Some(Broken::Parse);
        } else if name.first() == Some(&b':') {
            let status = StatusCode::from_bytes(value).ok().filter(|_| name == b":status" && self.status.is_none() && !self.has_fields);
            self.fault = status.is_none().then_some(Broken::Parse);
            self.status = status;
        } else {
            self.has_fields = true;
            self.draft.field(name, value);
        }
    }

    /// All of it was told. `ends`: no body follows; `is_head`: it was asked for with HEAD.
    ///
    /// # Errors
    /// It makes no sense, breaks a limit, or would be read in another way in HTTP/1.1.
    pub(super) fn end(self, ends: bool, is_head: bool) -> Result<ResponseHead, Broken> {
        let Drafted { lines, seen, .. } = self.draft.end();
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let status = self.status.ok_or(Broken::Parse)?;
        // HTTP/2 has no 101 (8.6), and no fields of one connection (8.2.2).
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::Upgrade);
        }
        if seen.has_connection || seen.has_hop_by_hop {
            return Err(Broken::Parse);
        }
        if status.is_informational() {
            return Ok(ResponseHead::Interim { status, headers: lines.to_map(), bytes: self.bytes - self.bytes_left + MAP_BYTES });
        }
        let length = length(status, &lines, seen, ends, is_head)?;
        let mut response = Response::new(());
        *response.status_mut() = status;
        let lines = if passes_as_it_is(status, seen) {
            Some(Box::new(PassedLines { lines, seen }))
        } else {
            *response.headers_mut() = lines.to_map();
            None
        };
        Ok(ResponseHead::Final(Box::new(Final { response, lines, seen, length })))
    }
}

/// Blanks at the ends of a value are malformed (8.2.1).
fn has_blank_end(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

/// How long the body is, where that is known (RFC 9110, 8.6; RFC 9113, 8.1.1).
fn length(status: StatusCode, lines: &Lines, seen: Seen, ends: bool, is_head: bool) -> Result<Option<u64>, Broken> {
    if seen.has_ambiguous_length() {
        return Err(Broken::Framing);
    }
    let said = match lines.get(CONTENT_LENGTH.as_str()) {
        Some(said) => Some(number(said).ok_or(Broken::Parse)?),
        None => None,
    };
    let has_length = said.is_some_and(|length| length > 0);
    // A body that a 204 announces would be read as the next response in HTTP/1.1.
    if status == StatusCode::NO_CONTENT && has_length {
        return Err(Broken::Framing);
    }
    if is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Some(0));
    }
    if ends && has_length { Err(Broken::Parse) } else { Ok(said) }
}
