//! The table that both sides know (RFC 7541, appendix A), and how a name is found in it.

use super::letters::is_same;

/// Entries by their index less one.
pub(super) static STATICS: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// The index of the only entry that a name can be, by its place; 0 is none.
static BY_PLACE: [u8; 256] = by_place();

/// Where a name is looked for, by its length and its first and last letter: each that both sides know has a place of its own.
#[inline]
const fn place(length: usize, first: u8, last: u8) -> u8 {
    (length as u8).wrapping_add((first | 0x20).wrapping_mul(10)).wrapping_add((last | 0x20).wrapping_mul(4))
}

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler")]
const fn by_place() -> [u8; 256] {
    let mut by_place = [0; 256];
    let mut at = STATICS.len();
    while at > 0 {
        let (name, _) = STATICS[at - 1];
        // Status and request lines are written in another way.
        if name[0] != b':' {
            by_place[place(name.len(), name[0], name[name.len() - 1]) as usize] = at as u8;
        }
        at -= 1;
    }
    by_place
}

/// The index of the entry with this name, in whatever case it comes; 0 when there is none. Names behind a colon are not looked for.
pub(super) fn index_of(name: &[u8]) -> u8 {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let index = BY_PLACE.get(usize::from(place(name.len(), *first, *last))).copied().unwrap_or_default();
    let is_it = STATICS.get(usize::from(index).wrapping_sub(1)).is_some_and(|(known, _)| name == *known || is_same(name, known));
    if is_it { index } else { 0 }
}
