//! A request on its way to a backend: its head, and its body as it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http_body::Body as _;

use super::super::head::Head;
use super::super::replay::RequestBody;
use super::Stream;
use super::fields::number;

/// What is in chunks is not asked for while so many bytes were not written.
const GATHERED: usize = 16 << 10;

/// Why a request does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// The connection takes nothing more.
    Connection,
    /// Its body broke off, or is not as long as its head says.
    Body,
}

/// What is being sent.
#[derive(Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    written: usize,
    /// Behind them.
    slice: Bytes,
    body: Option<Sent>,
    /// Something of this request was taken.
    pub(super) has_begun: bool,
    needs_flush: bool,
}

/// A body that is being sent.
struct Sent {
    body: RequestBody,
    /// What is still to come of what its head promises; `None` in chunks.
    left: Option<u64>,
    /// Nothing more comes. It is kept until all of it was written: until then it may have to be had again.
    is_ended: bool,
}

impl Out {
    /// A request in origin form, with fields that say how long its body is.
    pub(super) fn begin(&mut self, head: &Head, body: RequestBody) {
        self.bytes.clear();
        (self.written, self.slice, self.has_begun) = (0, Bytes::new(), false);
        write_head(&mut self.bytes, head);
        self.body = match body {
            RequestBody::Empty => None,
            body => {
                let length = head.fields.get(&CONTENT_LENGTH).and_then(|length| number(length.trim_ascii()));
                let left = if head.fields.get(&TRANSFER_ENCODING).is_some() { None } else { Some(length.unwrap_or(0)) };
                Some(Sent { body, left, is_ended: false })
            }
        };
    }

    /// All of it was written.
    pub(super) fn is_through(&self) -> bool {
        self.body.is_none() && !self.has_bytes() && !self.needs_flush
    }

    /// What it holds.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.len() + self.slice.len()
    }

    /// Nobody wants the rest of it.
    pub(super) fn forget(&mut self) {
        *self = Out::default();
    }

    /// The body from its start, if it can be had again.
    pub(super) fn take_body(&mut self) -> Option<RequestBody> {
        match self.body.take() {
            None => Some(RequestBody::Empty),
            Some(mut sent) => sent.body.rewind().then_some(sent.body),
        }
    }

    /// Sends as much as goes; ready when all of it is written.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), Unsendable>> {
        loop {
            let is_waiting = self.poll_body(cx)?.is_pending();
            if self.has_bytes() {
                let first = self.bytes.get(self.written..).unwrap_or_default();
                match ready!(stream.poll_send(cx, first, &self.slice)) {
                    Ok(count @ 1..) => self.wrote(count),
                    Ok(0) | Err(_) => return Poll::Ready(Err(Unsendable::Connection)),
                }
                continue;
            }
            if self.needs_flush {
                ready!(stream.poll_forward(cx)).map_err(|_| Unsendable::Connection)?;
                self.needs_flush = false;
            }
            if is_waiting {
                return Poll::Pending;
            }
            self.body = None;
            return Poll::Ready(Ok(()));
        }
    }

    fn has_bytes(&self) -> bool {
        self.written < self.bytes.len() || !self.slice.is_empty()
    }

    fn wrote(&mut self, count: usize) {
        (self.has_begun, self.needs_flush) = (true, true);
        let head = count.min(self.bytes.len() - self.written);
        self.written += head;
        self.slice.advance(count - head);
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        }
    }

    /// Asks for more of the body once the last of it was written; pending while none has come.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsendable>> {
        // Once all that was promised is here, more of it would be wrong: nothing is sent before that is known, where it is known at once.
        while let Some(Sent { body, left, is_ended: is_ended @ false }) = &mut self.body
            && (self.slice.is_empty() || *left == Some(0))
            && (left.is_some() || self.bytes.len() < GATHERED)
        {
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                None => {
                    match left {
                        None => self.bytes.extend_from_slice(b"0\r\n\r\n"),
                        Some(0) => {}
                        Some(_) => return Poll::Ready(Err(Unsendable::Body)),
                    }
                    *is_ended = true;
                    break;
                }
                Some(frame) => frame.map_err(|_| Unsendable::Body)?,
            };
            match (frame.into_data(), left) {
                (Ok(data), _) if data.is_empty() => {}
                (Ok(data), Some(left)) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(Unsendable::Body)?;
                    self.slice = data;
                }
                (Ok(data), None) => {
                    self.bytes.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                    self.bytes.extend_from_slice(&data);
                    self.bytes.extend_from_slice(b"\r\n");
                    return Poll::Ready(Ok(()));
                }
                (Err(frame), None) => {
                    self.bytes.extend_from_slice(b"0\r\n");
                    if let Some(trailers) = frame.trailers_ref() {
                        write_fields(&mut self.bytes, trailers);
                    }
                    self.bytes.extend_from_slice(b"\r\n");
                    *is_ended = true;
                }
                // They have no place in a body whose length was said.
                (Err(_), Some(_)) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A head as a backend of HTTP/1.1 reads it.
fn write_head(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match &head.fields.lines() {
        Some(lines) => lines.write(out),
        None => write_fields(out, head.fields.as_map()),
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields, each on its line.
pub(super) fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}
