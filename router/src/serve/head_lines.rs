//! Looks at the lines of a head as it came: parsers take a bare LF for a line's end, and hyper's client skips empty lines before a head. Somebody before or
//! behind us may read such a head in another way. Pure.

/// So many bytes are compared at a time.
const STRIPE: usize = 32;

type Stripe = [u8; STRIPE];

/// What the lines of a head are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// All end with CR LF, and the empty one ends here.
    Whole(usize),
    /// The empty line has not come yet.
    Part,
    /// One ends with a bare LF, or is empty before there is a head.
    Odd,
}

/// The first `known` bytes were [`Lines::Part`] before.
pub(super) fn of(bytes: &[u8], known: usize) -> Lines {
    if begins_badly(bytes) {
        return Lines::Odd;
    }
    for end in line_ends(bytes.get(known..).unwrap_or_default()) {
        let place = known + end;
        match bytes.get(place.saturating_sub(2)..place) {
            Some(b"\n\r") => return Lines::Whole(place + 1),
            Some([_, b'\r']) => {}
            _ => return Lines::Odd,
        }
    }
    Lines::Part
}

fn begins_badly(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(b'\r' | b'\n'))
}

/// Whether these bytes begin with a head whose lines are as they should be, and that is as long as the last one on its connection: most are,
/// and to know where to stop makes it half as expensive. False where that needs a closer look.
pub(super) fn are_as_usual(bytes: &[u8], length: usize) -> bool {
    let Some(head) = bytes.get(..length) else { return false };
    let (Some(before), Some(here)) = (head.get(..length.saturating_sub(1)), head.get(1..)) else { return false };
    let (Some(last_before), Some(last_here)) = (before.last_chunk(), here.last_chunk()) else { return false };
    let mut found = [0; STRIPE];
    // What is beyond the last whole stripe, and some of it twice.
    add_bare(&mut found, last_before, last_here);
    for (before, here) in before.as_chunks().0.iter().zip(here.as_chunks().0) {
        add_bare(&mut found, before, here);
    }
    head.ends_with(b"\r\n\r\n") && !begins_badly(head) && found.iter().fold(0, |all, found| all | found) == 0
}

/// Finds an LF without a CR before it. There is no branch in it, so that the compiler compares many bytes at once.
#[inline]
fn add_bare(found: &mut Stripe, before: &Stripe, here: &Stripe) {
    for ((found, before), here) in found.iter_mut().zip(before).zip(here) {
        *found |= u8::from(*here == b'\n') & u8::from(*before != b'\r');
    }
}

/// Where each LF is: eight bytes at a time, and a head in one go. Lines are short: setting up a search for each costs more.
fn line_ends(bytes: &[u8]) -> LineEnds<'_> {
    let (words, rest) = bytes.as_chunks::<WORD>();
    LineEnds { words: words.iter(), rest, found: 0, place: 0 }
}

const WORD: usize = 8;

struct LineEnds<'a> {
    words: std::slice::Iter<'a, [u8; WORD]>,
    /// The last bytes, fewer than a word.
    rest: &'a [u8],
    /// The highest bit of each byte of the word before `place` that is an LF and was not told of.
    found: u64,
    /// Where the next word begins.
    place: usize,
}

impl Iterator for LineEnds<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let Some(word) = self.words.next() else { return self.next_of_rest() };
            self.found = line_feeds(u64::from_le_bytes(*word));
            self.place += WORD;
        }
        let place = self.place - WORD + self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(place)
    }
}

impl LineEnds<'_> {
    fn next_of_rest(&mut self) -> Option<usize> {
        let found = self.rest.iter().position(|byte| *byte == b'\n')?;
        self.rest = self.rest.get(found + 1..).unwrap_or_default();
        let place = self.place + found;
        self.place = place + 1;
        Some(place)
    }
}

/// The highest bit of each byte that is an LF.
fn line_feeds(word: u64) -> u64 {
    const LOWS: u64 = u64::from_ne_bytes([0x7f; WORD]);
    let differences = word ^ u64::from_ne_bytes([b'\n'; WORD]);
    // A byte is zero when neither its low bits carry into its highest one nor that one is set. No sum goes beyond its byte.
    !(((differences & LOWS) + LOWS) | differences | LOWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 412\r\n\r\n";

    /// Both ways to look, which must not differ.
    fn looked_at(text: &str) -> Lines {
        let lines = of(text.as_bytes(), 0);
        for length in 0..=text.len() {
            let is_usual = are_as_usual(text.as_bytes(), length);
            assert!(!is_usual || matches!(lines, Lines::Whole(_)), "{text:?} is said to be whole at {length}");
            assert!(is_usual || lines != Lines::Whole(length), "{text:?} is not as usual at {length}");
        }
        lines
    }

    #[test]
    fn an_odd_line_is_seen_wherever_it_is() {
        for body in ["", "{\"a\": 1}", &"x".repeat(400), "a\nb\r\n\r\n"] {
            assert_eq!(looked_at(&format!("{HEAD}{body}")), Lines::Whole(HEAD.len()), "{body}");
        }
        for (place, _) in HEAD.match_indices('\r') {
            let odd = format!("{}{}", &HEAD[..place], &HEAD[place + 1..]);
            assert_eq!(looked_at(&odd), Lines::Odd, "{odd:?}");
        }
        for before in ["\r\n", "\n", "\r"] {
            assert_eq!(looked_at(&format!("{before}{HEAD}")), Lines::Odd, "{before:?}");
        }
    }

    #[test]
    fn what_came_before_is_not_looked_at_again() {
        for end in 0..HEAD.len() {
            assert_eq!(of(&HEAD.as_bytes()[..end], 0), Lines::Part, "{end}");
            assert_eq!(of(HEAD.as_bytes(), end), Lines::Whole(HEAD.len()), "{end}");
        }
    }

    proptest! {
        #[test]
        fn each_line_end_is_found(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\x0b'), Just(b'\x8a')], 0..40)) {
            let expected: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] == b'\n').collect();
            prop_assert_eq!(line_ends(&bytes).collect::<Vec<usize>>(), expected);
        }

        #[test]
        fn the_quick_look_never_says_more(bytes in proptest::collection::vec(proptest::sample::select(&b"\r\n\r\n\r\naa"[..]), 33..90), length in 33usize..90) {
            if are_as_usual(&bytes, length) {
                prop_assert!(matches!(of(&bytes, 0), Lines::Whole(_)));
            }
        }
    }
}
