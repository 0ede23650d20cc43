//! A request's head that is put together field by field, into lines as HTTP/1.1 has them.
//!
//! Invariant: whoever gives names and values has looked whether they are sound.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use super::super::seen::Seen;
use super::lines::{Line, Lines, spare_list};

/// What a worker's heads share: it is used again when the last of them is gone.
const SHARED: usize = 64 << 10;
/// Room for a head as most are.
const ROOM: usize = 1 << 10;

thread_local! {
    static SPACE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// The head so far.
pub(crate) struct Draft {
    bytes: BytesMut,
    list: Vec<Line>,
    seen: Seen,
    target: (usize, usize),
}

/// A head that is whole.
pub(crate) struct Drafted {
    /// What it asks for.
    pub(crate) target: Bytes,
    pub(crate) lines: Lines,
    pub(crate) seen: Seen,
}

impl Draft {
    /// Begins with the request's line.
    pub(crate) fn begin(method: &[u8], target: &[u8]) -> Draft {
        let mut draft = Draft::of_fields();
        let bytes = &mut draft.bytes;
        bytes.extend_from_slice(method);
        bytes.extend_from_slice(b" ");
        let from = bytes.len();
        bytes.extend_from_slice(target);
        draft.target = (from, bytes.len());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        draft
    }

    /// Begins with no line: fields alone, as of a response.
    pub(crate) fn of_fields() -> Draft {
        let mut bytes = SPACE.take();
        if bytes.capacity() < ROOM {
            bytes.reserve(SHARED);
        }
        Draft { bytes, list: spare_list(), seen: Seen::default(), target: (0, 0) }
    }

    /// The next field; blanks at the ends of its value are nobody's.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let value = value.trim_ascii();
        self.seen.add(name, value);
        let at = self.bytes.len();
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.list.push(Line::new(at, name.len(), value_at, value.len()));
    }

    /// What was said so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// It is whole.
    pub(crate) fn end(mut self) -> Drafted {
        self.bytes.extend_from_slice(b"\r\n");
        let head = self.bytes.split().freeze();
        SPACE.set(self.bytes);
        let target = head.slice(self.target.0..self.target.1);
        Drafted { target, lines: Lines::drafted(head, self.list), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_what_a_client_of_http1_would_have_sent() {
        let mut draft = Draft::begin(b"GET", b"/rank?q=a");
        draft.field(b"host", b"search.test");
        draft.field(b"x-user-id", b" u1\t");
        draft.field(b"x-empty", b"");
        assert_eq!((draft.seen().hosts, draft.seen().has_x_forwarded), (1, false));
        let Drafted { target, lines, seen } = draft.end();
        assert_eq!((&target[..], seen.hosts), (&b"/rank?q=a"[..], 1));
        assert_eq!(lines.head(), &b"GET /rank?q=a HTTP/1.1\r\nhost: search.test\r\nx-user-id: u1\r\nx-empty: \r\n\r\n"[..]);
        assert_eq!((lines.get("x-user-id"), lines.get("x-empty")), (Some(&b"u1"[..]), Some(&b""[..])));
        let mut said = Vec::new();
        lines.each(|name, value| said.push((name.to_vec(), value.to_vec())));
        assert_eq!(said.len(), 3);
        assert_eq!(said[1], (b"x-user-id".to_vec(), b"u1".to_vec()));
        let mut out = Vec::new();
        lines.write(&mut out);
        assert_eq!(out, b"host: search.test\r\nx-user-id: u1\r\nx-empty: \r\n");
    }
}
