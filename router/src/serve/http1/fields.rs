//! The fields of a head, cut out of the buffer that they came in without a copy. Pure, but for maps that are used again.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use httparse::Header;

use super::super::seen::Seen;

/// The most fields that a head has as a rule.
pub(super) const FIELDS: usize = 100;
/// Maps that wait to be used again, of each worker.
const SPARES: usize = 16;
/// Fields that the router adds.
const ADDED: usize = 4;

/// What the fields of a head say.
pub(super) struct Fields {
    pub(super) headers: HeaderMap,
    pub(super) seen: Seen,
    pub(super) wishes: Wishes,
}

/// Of `bytes`, which `parsed` was found in; `None` where one is no field.
pub(super) fn read(bytes: &Bytes, parsed: &[Header<'_>]) -> Option<Fields> {
    let mut headers = roomy(parsed.len() + ADDED);
    let (mut seen, mut wishes) = (Seen::default(), Wishes::default());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        seen.add(name.as_str(), &value);
        if name == CONNECTION {
            wishes.hear(&value);
        }
        headers.append(name, value);
    }
    Some(Fields { headers, seen, wishes })
}

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub(super) fn roomy(fields: usize) -> HeaderMap {
    let mut headers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(fields);
    headers
}

/// Nobody needs it any more: its room is used again.
pub(super) fn give_back(mut headers: HeaderMap) {
    if headers.capacity() <= 2 * FIELDS {
        headers.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                spare.push(headers);
            }
        });
    }
}

/// Digits and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| number.checked_mul(10)?.checked_add(char::from(*byte).to_digit(10)?.into());
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

/// What `Connection` says of the connection's end.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    closes: bool,
    keeps: bool,
}

impl Wishes {
    fn hear(&mut self, value: &HeaderValue) {
        for word in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.closes |= word.eq_ignore_ascii_case(b"close");
            self.keeps |= word.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Another request may follow.
    pub(super) fn keeps(&self, version: Version) -> bool {
        !self.closes && (version == Version::HTTP_11 || self.keeps)
    }
}
