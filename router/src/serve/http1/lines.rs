//! The fields of a head as lines, in the bytes that they came in: nothing is copied, and no map is made. Pure, but for lists that are used again.
//!
//! Invariant: whoever parsed them found names and values that are sound, and each line ends with CR LF.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use httparse::Header;

use super::super::seen::Seen;

/// The most fields that a head has as a rule.
pub(crate) const FIELDS: usize = 100;
/// Lists that wait to be used again, of each worker.
const SPARES: usize = 16;
/// Fields that the router adds.
const ADDED: usize = 4;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The whole head.
    head: Bytes,
    list: Vec<Line>,
    /// Where the one stands that does not pass.
    gone: Option<usize>,
    /// Further lines, which go behind them.
    added: Bytes,
}

/// Places in the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    at: u32,
    name: u32,
    value_at: u32,
    value: u32,
}

impl Line {
    /// Places beyond 4 GiB are none: no head is as long.
    pub(super) fn new(at: usize, name: usize, value_at: usize, value: usize) -> Line {
        let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Line { at: place(at), name: place(name), value_at: place(value_at), value: place(value) }
    }
}

/// What `Connection` says of the connection's end.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    closes: bool,
    keeps: bool,
    /// It says nothing else.
    is_plain: bool,
}

/// What lines say.
pub(super) struct Said {
    pub(super) lines: Lines,
    pub(super) seen: Seen,
    pub(super) wishes: Wishes,
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// An empty list, with room where one waits to be used again.
pub(super) fn spare_list() -> Vec<Line> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

impl Lines {
    /// Of a whole head that was put together with these lines in it.
    pub(super) fn drafted(head: Bytes, list: Vec<Line>) -> Lines {
        Lines { head, list, gone: None, added: Bytes::new() }
    }

    /// Of a whole head, in which `parsed` was found.
    pub(super) fn of(head: Bytes, parsed: &[Header<'_>]) -> Said {
        let mut list = spare_list();
        list.reserve(parsed.len());
        let start = head.as_ptr() as usize;
        let place = |part: &[u8]| u32::try_from(part.as_ptr() as usize - start).unwrap_or(u32::MAX);
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
        let (mut seen, mut wishes, mut gone) = (Seen::default(), Wishes { is_plain: true, ..Wishes::default() }, None);
        for field in parsed {
            let name = field.name.as_bytes();
            // An empty value may be one that stands nowhere.
            let value_at = if field.value.is_empty() { 0 } else { place(field.value) };
            if seen.add(name, field.value) {
                wishes.is_plain &= gone.is_none();
                gone = Some(list.len());
                wishes.hear(field.value);
            }
            list.push(Line { at: place(name), name: length(name), value_at, value: length(field.value) });
        }
        if wishes.is_plain {
            // A `Connection` that is for this hop alone does not pass, and no map needs to be made for that.
            seen.has_connection = false;
        } else {
            gone = None;
        }
        Said { lines: Lines { head, list, gone, added: Bytes::new() }, seen, wishes }
    }

    /// The whole head.
    pub(crate) fn head(&self) -> &Bytes {
        &self.head
    }

    fn part(&self, at: u32, length: u32) -> &[u8] {
        let (at, length) = (at as usize, length as usize);
        self.head.get(at..at + length).unwrap_or_default()
    }

    /// The values of all with this name (lower case), in their order.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |line| self.is_named(line, name)).map(|line| self.part(line.value_at, line.value))
    }

    /// The value of the first with this name (lower case).
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let line = self.list.iter().find(|line| self.is_named(line, name))?;
        Some(self.part(line.value_at, line.value))
    }

    fn is_named(&self, line: &Line, name: &str) -> bool {
        line.name as usize == name.len() && self.part(line.at, line.name).eq_ignore_ascii_case(name.as_bytes())
    }

    /// Puts these behind them: whole lines.
    pub(crate) fn add(&mut self, lines: Bytes) {
        self.added = lines;
    }

    /// Writes those that pass, and what was added.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let first = self.list.first().map_or(0, |line| line.at as usize);
        // The empty line is not theirs.
        let end = if self.list.is_empty() { 0 } else { self.head.len().saturating_sub(2) };
        let gone = self.gone_range().unwrap_or(end..end);
        out.extend_from_slice(self.head.get(first..gone.start).unwrap_or_default());
        out.extend_from_slice(self.head.get(gone.end..end).unwrap_or_default());
        out.extend_from_slice(&self.added);
    }

    /// Calls `take` with the name and value of each that passes, and of what was added.
    pub(crate) fn each(&self, mut take: impl FnMut(&[u8], &[u8])) {
        for (place, line) in self.list.iter().enumerate() {
            if self.gone != Some(place) {
                take(self.part(line.at, line.name), self.part(line.value_at, line.value));
            }
        }
        for (name, value) in added(&self.added) {
            take(name, value);
        }
    }

    fn gone_range(&self) -> Option<Range<usize>> {
        let gone = self.gone?;
        let from = self.list.get(gone)?.at as usize;
        let to = self.list.get(gone + 1).map_or(self.head.len().saturating_sub(2), |next| next.at as usize);
        Some(from..to)
    }

    /// Those that pass, and what was added, as a map.
    #[inline(never)]
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut headers = super::fields::roomy(self.list.len() + ADDED);
        for (place, line) in self.list.iter().enumerate() {
            let value =
                if line.value == 0 { Bytes::new() } else { self.head.slice(line.value_at as usize..(line.value_at + line.value) as usize) };
            // They were parsed: both are sound.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(self.part(line.at, line.name)), HeaderValue::from_maybe_shared(value))
                && self.gone != Some(place)
            {
                headers.append(name, value);
            }
        }
        for (name, value) in added(&self.added) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// Names and values of whole lines, as the router writes them.
fn added(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = lines.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
    lines.map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        (name, value.strip_prefix(b": ").unwrap_or_default())
    })
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.list);
        if list.capacity() > 0 && list.capacity() <= 2 * FIELDS {
            list.clear();
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARES {
                    spare.push(list);
                }
            });
        }
    }
}

impl Wishes {
    fn hear(&mut self, value: &[u8]) {
        self.is_plain &= value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
        for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.closes |= word.eq_ignore_ascii_case(b"close");
            self.keeps |= word.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Another request may follow.
    pub(super) fn keeps(&self, version: Version) -> bool {
        !self.closes && (version == Version::HTTP_11 || self.keeps)
    }
}
