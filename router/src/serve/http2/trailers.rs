//! Fields behind a body, out of a block. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hpack::Field;

/// What each field costs of the limit on a list, beside its name and value (RFC 9113, 6.5.2).
pub(super) const EACH: usize = 32;

/// Trailers so far.
pub(super) struct Trailers {
    map: HeaderMap,
    is_sound: bool,
    bytes_left: usize,
    most: usize,
}

impl Trailers {
    /// Of at most so many bytes and fields. `is_sound`: false where they cannot be any, and are read for the table alone.
    pub(super) fn begin(is_sound: bool, bytes: usize, most: usize) -> Trailers {
        Trailers { map: HeaderMap::new(), is_sound, bytes_left: bytes, most }
    }

    /// The next field.
    pub(super) fn take(&mut self, field: &Field<'_>) {
        if !self.is_sound {
            return;
        }
        let cost = field.name.len() + field.value.len() + EACH;
        self.is_sound = field.is_sound && field.name.first() != Some(&b':') && !is_of_connection(field.name);
        self.is_sound &= cost <= self.bytes_left && self.map.len() < self.most;
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        if self.is_sound
            && let Ok(name) = HeaderName::from_bytes(field.name)
            && let Ok(value) = HeaderValue::from_bytes(field.value.trim_ascii())
        {
            self.map.append(name, value);
        }
    }

    /// All of them; `None` where they make no sense.
    pub(super) fn end(self) -> Option<HeaderMap> {
        self.is_sound.then_some(self.map)
    }
}

/// Fields that have no place in HTTP/2, in trailers neither.
fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade")
}
