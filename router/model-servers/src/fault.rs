//! Why a version could not be brought up, and whether the pool is as it was.

use std::fmt;

/// So much of an outside text is quoted: two SHA-256, and the sentence around them.
const QUOTED_CHARS: usize = 400;

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A no: the server refused, scores differ, the latency was never held. The same again ends the same.
    Refused,
    /// Nothing that means no: no connection, no answer in time, a server that is busy or broken. Trying again may help.
    Away,
}

/// Why a version was not brought up, or not retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `http://host:port`, the folder, or empty when it is no single place.
    pub endpoint: String,
    /// Whether trying again may help.
    pub kind: FaultKind,
    /// What happened, in one line.
    pub why: String,
    /// Whether the pool is as it was: `None` when nothing had been changed, otherwise how undoing it went.
    pub undone: Option<Result<(), String>>,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.endpoint.is_empty() {
            write!(out, "{}: ", self.endpoint)?;
        }
        out.write_str(&self.why)?;
        match &self.undone {
            None => Ok(()),
            Some(Ok(())) => out.write_str(" (undone: the pool is as it was)"),
            Some(Err(why)) => write!(out, " (not undone: {why})"),
        }
    }
}

impl std::error::Error for Fault {}

/// A fault at a place that the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    pub(crate) why: String,
    /// No answer came in time: what was asked for may still come about.
    pub(crate) is_timeout: bool,
}

impl Trouble {
    pub(crate) fn refused(why: impl Into<String>) -> Trouble {
        Trouble { kind: FaultKind::Refused, why: why.into(), is_timeout: false }
    }

    pub(crate) fn away(why: impl Into<String>) -> Trouble {
        Trouble { kind: FaultKind::Away, why: why.into(), is_timeout: false }
    }

    pub(crate) fn timeout(why: impl Into<String>) -> Trouble {
        Trouble { kind: FaultKind::Away, why: why.into(), is_timeout: true }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.kind == FaultKind::Away
    }

    pub(crate) fn at(self, endpoint: &str) -> Fault {
        Fault { endpoint: endpoint.to_owned(), kind: self.kind, why: self.why, undone: None }
    }
}

/// An outside text as errors quote it: one line, cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    let text = text.trim();
    let mut shown: String =
        text.chars().take(QUOTED_CHARS).map(|letter| if letter.is_control() || is_invisible(letter) { ' ' } else { letter }).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Line and paragraph separators, and marks that change the direction of text.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line() {
        let mut fault = Trouble::refused("version 3: no").at("http://a:1");
        assert_eq!(fault.to_string(), "http://a:1: version 3: no");
        fault.undone = Some(Ok(()));
        assert_eq!(fault.to_string(), "http://a:1: version 3: no (undone: the pool is as it was)");
        fault.undone = Some(Err("http://b:1: gone".to_owned()));
        assert_eq!(fault.to_string(), "http://a:1: version 3: no (not undone: http://b:1: gone)");
    }

    #[test]
    fn what_is_quoted_is_short_and_plain() {
        assert_eq!(quoted(" a\nb\u{1b}[2J\u{202e}c "), "a b [2J c");
        assert_eq!(quoted(&"ä".repeat(500)).chars().count(), 403);
        let changed = format!(
            "search:2: models/search/artefacts/{}: its SHA-256 is {} and not {}: it was changed after it was pushed",
            "4".repeat(32),
            "a".repeat(64),
            "b".repeat(64)
        );
        assert_eq!(quoted(&changed), changed, "whole");
    }
}
