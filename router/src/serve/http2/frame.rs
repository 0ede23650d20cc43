//! Frames of HTTP/2 (RFC 9113, 4 and 6), from bytes and to bytes. Pure.

use std::ops::Range;

use h2::Reason;

/// A frame's own head, in bytes.
pub(super) const HEAD: usize = 9;
/// What we take in a frame: nobody was told anything else.
pub(super) const MOST: usize = 16 << 10;
/// The largest window there is.
pub(super) const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Kinds of frames.
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RESET: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GO_AWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// `None` while it is not all here.
    pub(super) fn read(bytes: &[u8]) -> Option<Head> {
        let [a, b, c, kind, flags, w, x, y, z, ..] = *bytes else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The highest bit is nobody's.
        let stream = u32::from_be_bytes([w & 0x7f, x, y, z]);
        Some(Head { length, kind, flags, stream })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let [w, x, y, z] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, w, x, y, z]
    }

    /// Appends it.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    /// Puts it where room was left for it.
    pub(super) fn put(self, place: &mut [u8]) {
        if let Some(place) = place.get_mut(..HEAD) {
            place.copy_from_slice(&self.bytes());
        }
    }
}

/// Where a payload is without its padding and, of HEADERS, the priority.
///
/// # Errors
/// There is more padding than frame, or a stream depends on itself; all of it ends the connection.
pub(super) fn unpadded(head: Head, payload: &[u8]) -> Result<Range<usize>, Reason> {
    let (mut from, mut to) = (0, payload.len());
    if head.has(flag::PADDED) {
        let padding = usize::from(*payload.first().ok_or(Reason::FRAME_SIZE_ERROR)?);
        from = 1;
        to = to.checked_sub(padding).filter(|to| *to >= from).ok_or(Reason::PROTOCOL_ERROR)?;
    }
    if head.kind == kind::HEADERS && head.has(flag::PRIORITY) {
        let on = payload.get(from..to).and_then(|rest| rest.get(..5)).ok_or(Reason::FRAME_SIZE_ERROR)?;
        depends_on_another(head.stream, on)?;
        from += 5;
    }
    Ok(from..to)
}

/// Priorities are of no use (RFC 9113, 5.3.2), and looked at for this alone.
///
/// # Errors
/// A stream that depends on itself.
pub(super) fn depends_on_another(stream: u32, priority: &[u8]) -> Result<(), Reason> {
    let [a, b, c, d, ..] = *priority else { return Err(Reason::FRAME_SIZE_ERROR) };
    if u32::from_be_bytes([a & 0x7f, b, c, d]) == stream { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) }
}

/// A payload that is one number.
///
/// # Errors
/// It has another length.
pub(super) fn number(payload: &[u8]) -> Result<u32, Reason> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Reason::FRAME_SIZE_ERROR)
}

/// What the other side says of how it will have things; what is not said stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) table_bytes: Option<u32>,
    /// It pushes, or takes pushes.
    pub(super) pushes: Option<bool>,
    /// So many streams at a time.
    pub(super) streams: Option<u32>,
    pub(super) window: Option<u32>,
    /// It takes tunnels (RFC 8441).
    pub(super) takes_tunnels: Option<bool>,
}

impl Settings {
    /// # Errors
    /// A value that is not allowed (RFC 9113, 6.5.2).
    pub(super) fn read(payload: &[u8]) -> Result<Settings, Reason> {
        let (all, []) = payload.as_chunks::<6>() else { return Err(Reason::FRAME_SIZE_ERROR) };
        let mut settings = Settings::default();
        for [a, b, w, x, y, z] in all {
            let value = u32::from_be_bytes([*w, *x, *y, *z]);
            match u16::from_be_bytes([*a, *b]) {
                1 => settings.table_bytes = Some(value),
                2 | 8 if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                2 => settings.pushes = Some(value == 1),
                3 => settings.streams = Some(value),
                4 if value > LARGEST_WINDOW => return Err(Reason::FLOW_CONTROL_ERROR),
                4 => settings.window = Some(value),
                8 => settings.takes_tunnels = Some(value == 1),
                5 if !(1 << 14..1 << 24).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                // Ours are no larger than everybody takes.
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// Whether it is a stream of the client's that there has been: none is beyond `last`.
///
/// # Errors
/// It is none.
pub(super) fn is_of_client(stream: u32, last: u32) -> Result<(), Reason> {
    if stream == 0 || stream.is_multiple_of(2) || stream > last { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) }
}

/// What a SETTINGS frame says; `None` where it says that it has heard ours.
///
/// # Errors
/// It is of a stream, has another length, or says what is not allowed.
pub(super) fn settings(head: Head, payload: &[u8]) -> Result<Option<Settings>, Reason> {
    match (head.stream, head.has(flag::ACK), payload) {
        (0, false, _) => Settings::read(payload).map(Some),
        (0, true, []) => Ok(None),
        (0, true, _) => Err(Reason::FRAME_SIZE_ERROR),
        _ => Err(Reason::PROTOCOL_ERROR),
    }
}

/// What a PING says, or its answer.
///
/// # Errors
/// It is of a stream, or has another length.
pub(super) fn ping(head: Head, payload: &[u8]) -> Result<&[u8; 8], Reason> {
    if head.stream == 0 { payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR) } else { Err(Reason::PROTOCOL_ERROR) }
}

/// The last stream that a GOAWAY has begun.
///
/// # Errors
/// It is of a stream, or too short.
pub(super) fn go_away(head: Head, payload: &[u8]) -> Result<u32, Reason> {
    match (head.stream, payload) {
        (0, [a, b, c, d, _, _, _, _, ..]) => Ok(u32::from_be_bytes([a & 0x7f, *b, *c, *d])),
        (0, _) => Err(Reason::FRAME_SIZE_ERROR),
        _ => Err(Reason::PROTOCOL_ERROR),
    }
}

/// A frame of a few bytes.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Head { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// What we say first: settings by their numbers (RFC 9113, 6.5.2; RFC 8441, 3).
pub(super) fn write_settings(out: &mut Vec<u8>, said: &[(u16, u32)]) {
    let payload: Vec<u8> = said.iter().flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
    write(out, kind::SETTINGS, 0, 0, &payload);
}

/// This stream ends here.
pub(super) fn write_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    write(out, kind::RESET, 0, stream, &u32::from(reason).to_be_bytes());
}

/// So much more may be sent on a stream, or (0) on all of them.
pub(super) fn write_window(out: &mut Vec<u8>, stream: u32, more: u32) {
    write(out, kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
}

/// Streams beyond `last` are not begun.
pub(super) fn write_go_away(out: &mut Vec<u8>, last: u32, reason: Reason) {
    Head { length: 8, kind: kind::GO_AWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&u32::from(reason).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head { length: 0x01_02_03, kind: kind::DATA, flags: flag::END_STREAM, stream: 0x7f00_0001 };
        let mut out = Vec::new();
        head.write(&mut out);
        assert_eq!(out, [1, 2, 3, 0, 1, 0x7f, 0, 0, 1]);
        assert_eq!(Head::read(&out), Some(head));
        out[5] |= 0x80;
        assert_eq!(Head::read(&out), Some(head), "a reserved bit");
        assert_eq!(Head::read(&out[..8]), None);
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let head = |kind, flags| Head { length: 0, kind, flags, stream: 1 };
        let of = |kind, flags, payload: &'static [u8]| {
            unpadded(head(kind, flags), payload).map(|range| std::str::from_utf8(&payload[range]).unwrap())
        };
        assert_eq!(of(kind::DATA, 0, b"ab").unwrap(), "ab");
        assert_eq!(of(kind::DATA, flag::PADDED, b"\x02ab\0\0").unwrap(), "ab");
        assert_eq!(of(kind::DATA, flag::PADDED, b"\x02\0\0").unwrap(), "");
        assert_eq!(of(kind::DATA, flag::PADDED, b"\x03\0\0"), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(of(kind::DATA, flag::PADDED, b""), Err(Reason::FRAME_SIZE_ERROR));
        assert_eq!(of(kind::HEADERS, flag::PADDED | flag::PRIORITY, b"\x01\0\0\0\x03\x10ab\0").unwrap(), "ab");
        assert_eq!(of(kind::HEADERS, flag::PRIORITY, b"\x80\0\0\x01\x10ab"), Err(Reason::PROTOCOL_ERROR), "on itself");
        assert_eq!(of(kind::HEADERS, flag::PRIORITY, b"\0\0\0\x03"), Err(Reason::FRAME_SIZE_ERROR));
        assert_eq!(of(kind::DATA, flag::PRIORITY, b"abcdef").unwrap(), "abcdef", "DATA has none");
    }

    #[test]
    fn settings_are_held_to_their_limits() {
        let one = |name: u16, value: u32| Settings::read(&[&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        assert_eq!(one(1, 100).unwrap().table_bytes, Some(100));
        assert_eq!(one(4, LARGEST_WINDOW).unwrap().window, Some(LARGEST_WINDOW));
        assert_eq!(one(4, LARGEST_WINDOW + 1), Err(Reason::FLOW_CONTROL_ERROR));
        assert_eq!(one(5, 16_384), Ok(Settings::default()));
        for (name, value) in [(2, 2), (5, 16_383), (5, 1 << 24), (8, 2)] {
            assert_eq!(one(name, value), Err(Reason::PROTOCOL_ERROR), "{name} {value}");
        }
        assert_eq!(one(77, u32::MAX), Ok(Settings::default()), "nobody knows it");
        assert_eq!(Settings::read(&[0; 7]), Err(Reason::FRAME_SIZE_ERROR));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..40), flags: u8, kind in 0u8..2) {
            let _ = Settings::read(&bytes);
            if let Ok(left) = unpadded(Head { length: bytes.len(), kind, flags, stream: 1 }, &bytes) {
                prop_assert!(bytes.get(left).is_some());
            }
        }
    }
}
