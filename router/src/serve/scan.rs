//! Looks at a client's HTTP/1 bytes before they are parsed, for what a lenient parser mends in silence: lines that end with a bare LF,
//! folded lines, a length that is said twice or beside a transfer coding. Somebody before us may have read such a request in the other way.
//!
//! It keeps each head as it came, which is all that a second attempt needs, and costs a twentieth of a copy of its fields.
//!
//! It follows bodies too, because the next head begins where one ends. Whatever is plainly broken it leaves to the parser, and stops
//! looking: nothing comes after that on this connection. Pure.

/// Heads and lines above this are refused by the parser long before.
const LINE_BYTES: usize = 1 << 20;

/// Where in the stream of requests we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// In the line with a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk, its line end included, are still to come.
    Chunk(u64),
    /// After the last chunk: lines until an empty one.
    Trailers,
    /// Not looking any more.
    Done,
}

/// What the head that is being read says of its body.
#[derive(Debug, Clone, Copy, Default)]
struct Framing {
    has_request_line: bool,
    lengths: u32,
    length: u64,
    /// A length is no number. The parser refuses that, but not beside a transfer coding.
    has_odd_length: bool,
    codings: u32,
}

/// One request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// Its bytes, the empty line at the end included.
    Whole(Box<[u8]>),
    /// It could be read in two ways. Nothing is looked at after it.
    Ambiguous,
}

/// One connection's reader.
#[derive(Debug)]
pub(crate) struct Scan {
    state: State,
    framing: Framing,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// What has come of the head that is being read.
    head: Vec<u8>,
}

impl Scan {
    pub(crate) fn new() -> Scan {
        Scan { state: State::Head, framing: Framing::default(), partial: Vec::new(), head: Vec::new() }
    }

    /// Takes the bytes that came next, and tells of each head that they end, in their order. `Some` when a line within a body could be read in
    /// two ways: where it ends. Nothing is looked at after it.
    pub(crate) fn feed(&mut self, all: &[u8], mut tell: impl FnMut(Head)) -> Option<usize> {
        // Where the head that is being read begins in `all`, or what has come of it goes on.
        let mut from = 0;
        let mut at = 0;
        while let Some(bytes) = all.get(at..).filter(|bytes| !bytes.is_empty()) {
            match self.state {
                State::Done => return None,
                State::Body(left) => {
                    let here = skipped(bytes, left);
                    self.state = if here == left { State::Head } else { State::Body(left - here) };
                    at += usize::try_from(here).unwrap_or(bytes.len());
                    from = at;
                }
                State::Chunk(left) => {
                    let here = skipped(bytes, left);
                    self.state = if here == left { State::ChunkSize } else { State::Chunk(left - here) };
                    at += usize::try_from(here).unwrap_or(bytes.len());
                }
                State::Head | State::ChunkSize | State::Trailers => {
                    let was_head = self.state == State::Head;
                    let (taken, step) = self.lines(bytes);
                    at += taken;
                    match step {
                        Step::Ambiguous => {
                            self.state = State::Done;
                            if !was_head {
                                return Some(at - 1);
                            }
                            tell(Head::Ambiguous);
                            return None;
                        }
                        Step::EndOfHead => {
                            tell(Head::Whole(self.take_head(all.get(from..at).unwrap_or_default())));
                            from = at;
                        }
                        Step::On if !was_head => from = at,
                        Step::On => {}
                    }
                }
            }
        }
        if self.state == State::Head {
            self.keep_head(all.get(from..).unwrap_or_default());
        }
        None
    }

    /// Takes lines until one of them comes to something or leaves this state, and keeps one that has no end yet; says how many bytes.
    fn lines(&mut self, bytes: &[u8]) -> (usize, Step) {
        let state = self.state;
        let mut start = 0;
        for end in line_ends(bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            start = end + 1;
            if state == State::Head && self.framing.has_request_line && is_ordinary(line) && self.partial.is_empty() {
                continue;
            }
            let joined;
            let line = if self.partial.is_empty() {
                line
            } else {
                joined = self.joined(line);
                &joined
            };
            let step = self.line(line);
            if step != Step::On || self.state != state {
                return (start, step);
            }
        }
        self.keep(bytes.get(start..).unwrap_or_default());
        (bytes.len(), Step::On)
    }

    /// The line that began in earlier bytes.
    #[cold]
    fn joined(&mut self, rest: &[u8]) -> Vec<u8> {
        self.partial.extend_from_slice(rest);
        std::mem::take(&mut self.partial)
    }

    /// What has come of the head before, and this.
    fn take_head(&mut self, rest: &[u8]) -> Box<[u8]> {
        if self.head.is_empty() {
            return Box::from(rest);
        }
        self.head.extend_from_slice(rest);
        std::mem::take(&mut self.head).into_boxed_slice()
    }

    fn keep_head(&mut self, bytes: &[u8]) {
        if self.head.len() + bytes.len() > LINE_BYTES {
            self.state = State::Done;
            self.head = Vec::new();
        } else {
            self.head.extend_from_slice(bytes);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > LINE_BYTES {
            self.state = State::Done;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// One line without its LF.
    #[inline]
    fn line(&mut self, line: &[u8]) -> Step {
        let Some(line) = line.strip_suffix(b"\r") else { return Step::Ambiguous };
        match self.state {
            State::Head => return self.head_line(line),
            State::ChunkSize => self.state = chunk(line),
            State::Trailers if line.is_empty() => self.state = State::Head,
            _ => {}
        }
        Step::On
    }

    fn head_line(&mut self, line: &[u8]) -> Step {
        let framing = &mut self.framing;
        let Some(first) = line.first() else {
            return if framing.has_request_line { self.end_of_head() } else { Step::On };
        };
        if !framing.has_request_line {
            framing.has_request_line = true;
            return Step::On;
        }
        match first {
            b' ' | b'\t' => return Step::Ambiguous,
            b'c' | b'C' => {
                if let Some(value) = value_of(line, b"content-length") {
                    framing.lengths += 1;
                    match number(value) {
                        Some(length) => framing.length = length,
                        None => framing.has_odd_length = true,
                    }
                }
            }
            b't' | b'T' if value_of(line, b"transfer-encoding").is_some() => framing.codings += 1,
            _ => {}
        }
        Step::On
    }

    fn end_of_head(&mut self) -> Step {
        let framing = std::mem::take(&mut self.framing);
        if framing.lengths > 1 || framing.has_odd_length || (framing.lengths > 0 && framing.codings > 0) {
            return Step::Ambiguous;
        }
        self.state = match (framing.codings, framing.length) {
            (1.., _) => State::ChunkSize,
            (0, 0) => State::Head,
            (0, length) => State::Body(length),
        };
        Step::EndOfHead
    }
}

/// What a line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    On,
    EndOfHead,
    Ambiguous,
}

/// Where each LF is: eight bytes at a time, and a head in one go. Lines are short: setting up a search for each costs more.
pub(super) fn line_ends(bytes: &[u8]) -> LineEnds<'_> {
    let (words, rest) = bytes.as_chunks::<WORD>();
    LineEnds { words: words.iter(), rest, found: 0, place: 0 }
}

const WORD: usize = 8;

pub(super) struct LineEnds<'a> {
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

/// Whether a line of a head is a field that says nothing of its body, as nearly all are.
fn is_ordinary(line: &[u8]) -> bool {
    match line {
        [b'c' | b'C', .., b'\r'] => line.get(b"content".len()) != Some(&b'-'),
        [first, .., b'\r'] => !matches!(first, b't' | b'T' | b' ' | b'\t' | b'\r'),
        _ => false,
    }
}

/// How much of what is left to be skipped is here.
fn skipped(bytes: &[u8], left: u64) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left)
}

/// The value of a field line with this name (lower case), when it has it.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    if !found.eq_ignore_ascii_case(name) {
        return None;
    }
    rest.strip_prefix(b":")
}

/// Digits and nothing else, but for blanks around them.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// What follows a chunk's first line.
fn chunk(line: &[u8]) -> State {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size {
        Some(0) => State::Trailers,
        Some(size) => size.checked_add(2).map_or(State::Done, State::Chunk),
        None => State::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n0\r\n\r\nGET / HTTP/1.1\nhost: a\n\n....";
    const CHUNKED: &str =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;x=\"y\"\r\na\nb\n\r\n00A \r\n0123456789\r\n0\r\nx: y\r\n\r\n";

    /// The heads that are told of when the bytes come in pieces of this size.
    fn told(bytes: &[u8], piece: usize) -> Vec<Head> {
        let mut scan = Scan::new();
        let mut heads = Vec::new();
        for bytes in bytes.chunks(piece) {
            scan.feed(bytes, |head| heads.push(head));
        }
        heads
    }

    /// Where a body stops making sense.
    fn odd_place(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut scan = Scan::new();
        bytes.chunks(piece).enumerate().find_map(|(count, bytes)| Some(count * piece + scan.feed(bytes, |_| {})?))
    }

    fn head_of(text: &str) -> Head {
        let end = text.find("\r\n\r\n").unwrap() + 4;
        Head::Whole(Box::from(&text.as_bytes()[..end]))
    }

    #[test]
    fn what_can_be_read_in_one_way_passes() {
        let others = ["\r\nGET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length:  0 \r\n\r\n"];
        for text in [PLAIN, SIZED, CHUNKED].into_iter().chain(others) {
            for piece in 1..=text.len() {
                assert_eq!(told(text.as_bytes(), piece), [head_of(text)], "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told_in_its_place() {
        let bad = [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\tfolded\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: :\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n",
        ];
        for text in bad {
            for piece in 1..=text.len() {
                assert_eq!(told(text.as_bytes(), piece), [Head::Ambiguous], "{text:?} in pieces of {piece}");
            }
            let later = [PLAIN, SIZED, CHUNKED, text].concat();
            let expected = [head_of(PLAIN), head_of(SIZED), head_of(CHUNKED), Head::Ambiguous];
            assert_eq!(told(later.as_bytes(), later.len()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_is_cut_there() {
        for body in ["5\n", "5;a\n", "0\r\nx: 1\n", "0\r\n\n", "5\r\nhello\r\n0\r\nx: 1\r\ny: 2\n"] {
            let begun = format!("{PLAIN}POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            let text = format!("{begun}\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n");
            for piece in 1..=text.len() {
                assert_eq!(odd_place(text.as_bytes(), piece), Some(begun.len() - 1), "{text:?} in pieces of {piece}");
                assert_eq!(told(text.as_bytes(), piece).len(), 2, "{text:?}: nothing after it is a head");
            }
        }
        for text in [PLAIN, SIZED, CHUNKED] {
            assert_eq!(odd_place(text.as_bytes(), text.len()), None);
        }
    }

    proptest! {
        #[test]
        fn each_line_end_is_found(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\x0b'), Just(b'\x8a')], 0..40)) {
            let expected: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] == b'\n').collect();
            prop_assert_eq!(line_ends(&bytes).collect::<Vec<usize>>(), expected);
        }

        #[test]
        fn any_bytes_in_any_pieces_tell_the_same(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"\r\n :;0a"[..])], 1..300), piece in 1usize..20) {
            prop_assert_eq!(told(&bytes, bytes.len()), told(&bytes, piece));
        }

        #[test]
        fn requests_that_are_well_formed_pass(requests in proptest::collection::vec(proptest::sample::select(&[PLAIN, SIZED, CHUNKED][..]), 1..8), piece in 1usize..400) {
            let expected: Vec<Head> = requests.iter().map(|text| head_of(text)).collect();
            prop_assert_eq!(told(requests.concat().as_bytes(), piece), expected);
        }
    }
}
