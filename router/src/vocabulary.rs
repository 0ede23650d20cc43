//! The nouns that the data path and the control path share. One name per idea: see docs/GLOSSARY.md.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// A share of the units in parts per million, 0..=1_000_000. 1 % is 10_000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Ppm(u32);

impl Ppm {
    /// Nobody.
    pub const ZERO: Ppm = Ppm(0);
    /// Everybody.
    pub const ALL: Ppm = Ppm(1_000_000);

    /// A share, or `None` above [`Ppm::ALL`].
    #[must_use]
    pub fn new(ppm: u32) -> Option<Ppm> {
        (ppm <= Ppm::ALL.0).then_some(Ppm(ppm))
    }

    /// Reads a percentage as people write it: `25`, `0.5`, `12.3456`; up to 4 decimals, 0 to 100.
    #[must_use]
    pub fn from_percent(text: &str) -> Option<Ppm> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let too_long = whole.len() > 3 || decimals.len() > 4;
        let dangling_point = text.ends_with('.');
        if whole.is_empty() || too_long || dangling_point || !digits(whole) || !digits(decimals) {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let decimals: u32 = format!("{decimals:0<4}").parse().ok()?;
        Ppm::new(whole.checked_mul(10_000)?.checked_add(decimals)?)
    }

    /// So much less; none where that is more than all of it.
    pub(crate) const fn less(self, ppm: u32) -> Ppm {
        Ppm(self.0.saturating_sub(ppm))
    }

    /// The share in parts per million.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// What is left for others.
    #[must_use]
    pub fn rest(self) -> Ppm {
        Ppm(Ppm::ALL.0 - self.0)
    }

    /// This part of a part of it.
    #[must_use]
    pub(crate) fn of(self, part: Ppm) -> Ppm {
        let product = u64::from(self.0) * u64::from(part.0) / u64::from(Ppm::ALL.0);
        Ppm(u32::try_from(product).unwrap_or(Ppm::ALL.0))
    }

    /// The share in percent, for JSON and for people.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// Writes a percentage that [`Ppm::from_percent`] reads back: no trailing zeros, no sign.
impl fmt::Display for Ppm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, self.0 % 10_000);
        if decimals == 0 {
            return write!(out, "{whole}");
        }
        let text = format!("{decimals:04}");
        write!(out, "{whole}.{}", text.trim_end_matches('0'))
    }
}

/// A pool of one route, by its place in [`crate::config::Route::pools`]. At most 64 pools a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(pub u8);

impl PoolIndex {
    /// As an index into a slice of the route's pools.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// A route, by its place in [`crate::config::Config::routes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(pub u16);

impl RouteIndex {
    /// As an index into a slice of routes.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// An arm of an experiment in tokens and windows, whatever else the route runs by the time the token comes back. An experiment of the same name with
/// another salt is another one. Never 0.
#[must_use]
pub fn arm_id(salt: &str, experiment: &str, arm: &str) -> u32 {
    hash32(&[b"arm\0", salt.as_bytes(), b"\0", experiment.as_bytes(), b"\0", arm.as_bytes()].concat()).max(1)
}

/// SipHash-2-4 with a key of zeros, its upper half: numbers in tokens and windows.
pub(crate) fn hash32(text: &[u8]) -> u32 {
    let mut hasher = SipHasher24::new();
    hasher.write(text);
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}

/// What [`is_model_name`] allows, in words.
pub(crate) const MODEL_NAME_RULE: &str = "1 to 128 of letters, digits, `.`, `_` and `-`, not starting with a dot";
/// What [`is_registry_name`] allows, in words.
pub(crate) const REGISTRY_NAME_RULE: &str = "1 to 64 lower-case letters, digits, '-', '_' and '.', with a letter or digit first";

/// Whether a server may call a model, or a file of one, so: names go into paths, and can hold nothing that climbs out of a folder.
pub(crate) fn is_model_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.')
}

/// Whether the registry may call a model, or an alias of one, so: safe in paths, URLs and metrics, and the same everywhere. Each is a
/// name that a server may use, too.
pub(crate) fn is_registry_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(good) && !name.starts_with(['-', '_', '.'])
}

/// The number of a model's version as paths and labels have it: digits, from 1 on, without a leading zero.
pub(crate) fn read_version(text: &str) -> Option<u64> {
    let is_number = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// What a pool runs whose servers let go of their version: nobody can be answered there.
pub(crate) const NO_VERSION: &str = "none";

/// Whether both labels are versions of one model of a registry, as `search:9` and `search:12` are, and the first has the lower number.
#[must_use]
pub(crate) fn is_earlier(version: &str, than: &str) -> bool {
    match (numbered(version), numbered(than)) {
        (Some((model, number)), Some((other, later))) => model == other && number < later,
        _ => false,
    }
}

fn numbered(label: &str) -> Option<(&str, u64)> {
    let (model, number) = label.rsplit_once(':')?;
    if is_registry_name(model) { Some((model, read_version(number)?)) } else { None }
}

/// What a reason, a description or a name that is shown to people must be.
pub(crate) const ONE_LINE_RULE: &str =
    "must be one line of text, without control characters and without those that change the direction of writing";

/// Whether a letter does something instead of being shown: it ends a line, is a control character, or changes the direction of writing.
#[must_use]
pub(crate) fn is_obeyed(letter: char) -> bool {
    let ends_a_line = matches!(letter, '\u{2028}' | '\u{2029}');
    let is_of_direction = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || ends_a_line || is_of_direction
}

/// A text on one line: what would be obeyed is written as JSON writes it, `\n` or `\u202e`.
#[must_use]
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// A text with the chosen ones of the letters that are obeyed written as JSON writes them, so that JSON stays what it is.
#[must_use]
pub(crate) fn escaped(text: &str, is_chosen: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_chosen) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            letter if !is_chosen(letter) => line.push(letter),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            letter => {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\u{:04x}", u32::from(letter));
            }
        }
    }
    line.into()
}

/// The first letter of a text that is none of one line, and where it is: whatever would be obeyed instead of being shown.
#[must_use]
pub(crate) fn not_one_line(text: &str) -> Option<String> {
    let (before, letter) = text.chars().enumerate().find(|(_, letter)| is_obeyed(*letter))?;
    let what = match letter {
        '\n' | '\u{2028}' | '\u{2029}' => "a line break".to_owned(),
        letter => format!("the control character {}", letter.escape_default()),
    };
    Some(format!("{what} after {before} characters"))
}

/// What became of copies of queries: sums since they began. docs/ROLLOUTS.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Copies {
    /// Copies of queries whose own answer was no server error: sent and over.
    pub sent: u64,
    /// Of these, copies without a whole answer in time, or answered with a 5xx, or with no 2xx where the query itself was.
    pub failed: u64,
    /// Of these, pairs of answers whose ranked lists were both read, and compared.
    pub compared: u64,
    /// Of these, pairs with another first result; a list that is empty beside one that is not is one, too.
    pub top1_changed: u64,
    /// Sum over the compared of Jaccard's index of the first ten results, in millionths.
    pub jaccard_micros: u64,
    /// Pairs of answers of which one has no list to read where the route says it is.
    pub unread: u64,
}

impl Copies {
    /// Adds those of another router.
    pub fn add(&mut self, other: &Copies) {
        let Copies { sent, failed, compared, top1_changed, jaccard_micros, unread } = other;
        self.sent = self.sent.saturating_add(*sent);
        self.failed = self.failed.saturating_add(*failed);
        self.compared = self.compared.saturating_add(*compared);
        self.top1_changed = self.top1_changed.saturating_add(*top1_changed);
        self.jaccard_micros = self.jaccard_micros.saturating_add(*jaccard_micros);
        self.unread = self.unread.saturating_add(*unread);
    }

    /// What came after these; nothing where somebody counts anew.
    #[must_use]
    pub fn since(&self, before: &Copies) -> Copies {
        Copies {
            sent: self.sent.saturating_sub(before.sent),
            failed: self.failed.saturating_sub(before.failed),
            compared: self.compared.saturating_sub(before.compared),
            top1_changed: self.top1_changed.saturating_sub(before.top1_changed),
            jaccard_micros: self.jaccard_micros.saturating_sub(before.jaccard_micros),
            unread: self.unread.saturating_sub(before.unread),
        }
    }

    /// The part of the copies that failed, 0 to 1; `None` without one.
    #[must_use]
    pub fn failing(&self) -> Option<f64> {
        part(self.failed, self.sent)
    }

    /// The part of the compared lists with another first result, 0 to 1; `None` without one.
    #[must_use]
    pub fn top1_change(&self) -> Option<f64> {
        part(self.top1_changed, self.compared)
    }

    /// The mean of Jaccard's index of the first ten results, 0 to 1; `None` without a compared pair.
    #[must_use]
    pub fn jaccard(&self) -> Option<f64> {
        part(self.jaccard_micros, self.compared).map(|mean| mean / 1e6)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of copies stay far below 2^53")]
fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_of_one_model_come_one_after_the_other() {
        assert!(is_earlier("search:9", "search:12"));
        for (version, than) in
            [("search:12", "search:9"), ("search:9", "search:9"), ("ads:9", "search:12"), ("v9", "v12"), ("none", "search:1")]
        {
            assert!(!is_earlier(version, than), "{version} {than}");
        }
    }

    #[test]
    fn percentages_are_read_to_four_decimals() {
        assert_eq!(Ppm::from_percent("25"), Ppm::new(250_000));
        assert_eq!(Ppm::from_percent("0.0001"), Ppm::new(1));
        assert_eq!(Ppm::from_percent("100"), Some(Ppm::ALL));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "-1", "100.0001", "101", "1e1", " 5", "5%", "0.00001", ".5", "5.", "NaN", "9999999999", "١"] {
            assert_eq!(Ppm::from_percent(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_and_versions_cannot_leave_the_folder() {
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "%2e", "ü"] {
            assert!(!is_model_name(name) && !is_registry_name(name), "{name:?}");
        }
        assert!(is_model_name("Ranker_v1.0-b") && !is_registry_name("Ranker_v1.0-b") && is_registry_name("ranker_v1.0-b"));
        for version in ["0", "01", "", "-1", "1.0", "+1", "99999999999999999999"] {
            assert_eq!(read_version(version), None, "{version:?}");
        }
        assert_eq!(read_version("12"), Some(12));
    }

    #[test]
    fn a_line_of_text_holds_nothing_that_is_obeyed() {
        let obeyed = "\n\r\t\0\u{1b}\u{7f}\u{9b}\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}";
        for letter in obeyed.chars() {
            let text = format!("a{letter}b");
            assert!(not_one_line(&text).is_some_and(|what| what.ends_with("after 1 characters")), "{letter:?}");
            let line = one_line(&text);
            assert!(not_one_line(&line).is_none() && line.starts_with("a\\") && line.ends_with('b'), "{letter:?}: {line}");
            let read: Result<String, _> = serde_json::from_str(&format!("\"{line}\""));
            assert_eq!(read.ok().as_deref(), Some(text.as_str()), "{letter:?}");
        }
        for text in ["", "größer, שלום", "a\u{200d}b\\n"] {
            assert_eq!((not_one_line(text), one_line(text)), (None, Cow::Borrowed(text)));
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(ppm in 0u32..=1_000_000) {
            let share = Ppm::new(ppm);
            prop_assert_eq!(share.and_then(|share| Ppm::from_percent(&share.to_string())), share);
        }
    }
}
