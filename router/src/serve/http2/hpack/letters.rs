//! Names and values, many letters at a time: whether two are the same, names in whatever case, and whether a field is sound.

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Of eight bytes, the bit of the case (0x20) where a letter in lower case stands.
#[inline]
const fn letters(word: u64) -> u64 {
    let low = word & eight(0x7f);
    let from_a = low.wrapping_add(eight(0x80 - b'a'));
    let beyond_z = low.wrapping_add(eight(0x7f - b'z'));
    ((from_a ^ beyond_z) & !word & eight(0x80)) >> 2
}

/// Names of up to so many bytes have nothing between their ends.
pub(super) const ALL: usize = 16;

/// The ends of a name: eight bytes each, or all of a shorter one in the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    head: u64,
    tail: u64,
    length: usize,
}

impl Ends {
    /// Of a name in whatever case.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Ends {
        let length = name.len();
        if let Some(head) = name.first_chunk()
            && let Some(tail) = name.last_chunk()
        {
            return Ends { head: u64::from_le_bytes(*head), tail: u64::from_le_bytes(*tail), length };
        }
        if let Some(head) = name.first_chunk()
            && let Some(tail) = name.last_chunk()
        {
            let word = u64::from(u32::from_le_bytes(*head)) | (u64::from(u32::from_le_bytes(*tail)) << 32);
            return Ends { head: word, tail: 0, length };
        }
        let word = name.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        Ends { head: word, tail: 0, length }
    }

    /// One of 64 places for it, the same in whatever case.
    #[inline]
    pub(super) fn place(&self) -> usize {
        // In which case a letter is, one bit says.
        let mixed = (self.head ^ self.tail.rotate_left(8)) | eight(0x20);
        (mixed.wrapping_add(self.length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 6)) as usize
    }
}

/// The ends of a name that others are compared with, in whatever case those come.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownEnds {
    head: u64,
    tail: u64,
    /// The bits that must be the same: where a letter stands, not the one of its case.
    head_bits: u64,
    tail_bits: u64,
    length: u16,
}

impl KnownEnds {
    /// Those of no name.
    pub(super) const NONE: KnownEnds = KnownEnds { head: 1, tail: 1, head_bits: u64::MAX, tail_bits: u64::MAX, length: 0 };

    /// Of a name in lower case, of less than 64 KiB.
    pub(super) fn of(name: &[u8]) -> KnownEnds {
        let Ends { head, tail, .. } = Ends::of(name);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        KnownEnds { head, tail, head_bits: !letters(head), tail_bits: !letters(tail), length }
    }

    /// Whether they are the same.
    #[inline]
    pub(super) fn are(&self, ends: &Ends) -> bool {
        let others = ((self.head ^ ends.head) & self.head_bits) | ((self.tail ^ ends.tail) & self.tail_bits);
        others == 0 && usize::from(self.length) == ends.length
    }

    /// How many bytes the name has.
    #[inline]
    pub(super) fn length(&self) -> usize {
        self.length.into()
    }
}

/// Whether two names of one length, `known` in lower case, are the same between their ends.
#[inline]
pub(super) fn is_same_within(name: &[u8], known: &[u8]) -> bool {
    let ((names, _), (knowns, _)) = (name.as_chunks(), known.as_chunks());
    names.iter().zip(knowns).skip(1).all(|(name, known)| {
        let known = u64::from_le_bytes(*known);
        let others = u64::from_le_bytes(*name) ^ known;
        others == 0 || others & !letters(known) == 0
    })
}

/// Whether a name in whatever case is `known`, which is in lower case.
pub(super) fn is_same(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len() && KnownEnds::of(known).are(&Ends::of(name)) && (name.len() <= ALL || is_same_within(name, known))
}

/// Whether two values are the same: for short ones, where a call costs more than to look.
#[inline(always)]
pub(super) fn is_equal(value: &[u8], known: &[u8]) -> bool {
    if value.len() != known.len() {
        return false;
    }
    if let Some(is_equal) = are_ends_equal::<16>(value, known) {
        let is_all = value.len() <= 32;
        return is_equal && (is_all || value.as_chunks::<16>().0 == known.as_chunks::<16>().0);
    }
    are_ends_equal::<8>(value, known)
        .or_else(|| are_ends_equal::<4>(value, known))
        .unwrap_or_else(|| value.iter().zip(known).all(|(byte, known)| byte == known))
}

/// Whether the first and the last so many bytes are the same, which may be looked at twice in part; `None` when there are fewer.
#[inline(always)]
fn are_ends_equal<const BYTES: usize>(value: &[u8], known: &[u8]) -> Option<bool> {
    let (first, last) = (value.first_chunk::<BYTES>()?, value.last_chunk::<BYTES>()?);
    Some(known.first_chunk() == Some(first) && known.last_chunk() == Some(last))
}

/// What names are made of: letters of a token (RFC 9110, 5.6.2), but none in upper case.
static TOKEN: [bool; 256] = token();

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler")]
const fn token() -> [bool; 256] {
    let mut token = [false; 256];
    let others = *b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        token[others[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0_u8;
    while byte < 0x80 {
        token[byte as usize] |= byte.is_ascii_lowercase() || byte.is_ascii_digit();
        byte += 1;
    }
    token
}

/// A token in lower case, perhaps behind a colon.
pub(super) fn is_sound_name(name: &[u8]) -> bool {
    let token = name.strip_prefix(b":").unwrap_or(name);
    !token.is_empty()
        && token.iter().fold(true, |is_token, byte| is_token & TOKEN.get(usize::from(*byte)).is_some_and(|is_token| *is_token))
}

/// No control character but tab.
pub(super) fn is_sound_value(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks();
    let has_control = match value.last_chunk() {
        // The last eight may be looked at twice in part, which does not matter.
        Some(last) => words.iter().any(|word| may_have_control(*word)) || may_have_control(*last),
        None => !rest.is_empty(),
    };
    !(has_control && value.iter().any(|byte| is_control(*byte)))
}

/// Whether any of eight bytes is a control character or a tab.
#[inline]
const fn may_have_control(bytes: [u8; 8]) -> bool {
    let word = u64::from_le_bytes(bytes);
    let deleted = word ^ eight(0x7f);
    let low = word.wrapping_sub(eight(0x20)) & !word;
    let delete = deleted.wrapping_sub(eight(1)) & !deleted;
    (low | delete) & eight(0x80) != 0
}

/// Tab is none.
const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_and_nothing_else_is() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut bytes = *b"aZ-`[{\xe1\xff";
                bytes[place] = byte;
                let expected = bytes.map(|byte| if byte.is_ascii_lowercase() { 0x20 } else { 0 });
                assert_eq!(letters(u64::from_le_bytes(bytes)).to_le_bytes(), expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn names_are_the_same_in_any_case_and_no_other_is() {
        let name = b"Strict-Transport-Security-And-More";
        for length in 0..=name.len() {
            let (name, lower) = (&name[..length], name[..length].to_ascii_lowercase());
            assert!(is_same(name, &lower));
            for place in 0..length {
                let mut other = name.to_vec();
                other[place] = b'0';
                assert!(!is_same(&other, &lower), "{length} {place}");
            }
        }
    }

    #[test]
    fn values_are_the_same_only_when_each_byte_is() {
        let value: Vec<u8> = (0..70).collect();
        for length in 0..=value.len() {
            let value = &value[..length];
            assert!(is_equal(value, &[value, b""].concat()) && !is_equal(value, &[value, b"x"].concat()));
            for place in 0..length {
                let mut other = value.to_vec();
                other[place] ^= 0x20;
                assert!(!is_equal(value, &other), "{length} {place}");
            }
        }
    }

    #[test]
    fn names_are_tokens_in_lower_case_perhaps_behind_a_colon() {
        for sound in ["a", ":path", "x-2", "!#$%&'*+-.^_`|~", "0"] {
            assert!(is_sound_name(sound.as_bytes()), "{sound}");
        }
        for bad in ["", ":", "::a", "a:", "A", "aB", "a b", "a\t", "\0", "a\x7f", "a\u{e9}", "a(", "a\"", "a,", "a/", "{", "a@", "[", "\\"]
        {
            assert!(!is_sound_name(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn values_have_no_control_character_but_tab() {
        for sound in ["", " ", "a\t", " a", "a", "a b", "a\tb", "0123456789\tabcdef", "\u{e9}", "~", "\u{e9}0123456789\u{e9}"] {
            assert!(is_sound_value(sound.as_bytes()), "{sound}");
        }
        for bad in ["a\r\nb", "\n", "0123456789\r", "\0", "a\x7f"] {
            assert!(!is_sound_value(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn every_byte_counts_at_every_place_of_a_value() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut value = vec![b'x'; length];
                    value[place] = byte;
                    assert_eq!(is_sound_value(&value), !is_control(byte), "{value:?}");
                }
            }
        }
    }
}
