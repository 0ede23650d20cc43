//! Why an artefact is refused: what, and where. Invariant: names from a file are cut and escaped before they are shown.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// The most refusals that one report lists.
pub const MOST_REFUSALS: usize = 32;
/// The longest name that is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// Where in an artefact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The entry of the archive; none where there is no archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Bytes from the beginning of the entry, or of the file, as it is after decompression.
    pub offset: u64,
    /// The opcode's name, as `pickletools` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opcode: Option<&'static str>,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = &self.entry {
            write!(out, "{}, ", shown(entry))?;
        }
        write!(out, "at byte {}", self.offset)?;
        match self.opcode {
            Some(opcode) => write!(out, " ({opcode})"),
            None => Ok(()),
        }
    }
}

/// One thing that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Where it is.
    pub place: Place,
    /// What it is, in words.
    pub why: String,
    /// The global that is refused, `module.name`; none where it is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.why)
    }
}

/// Why an artefact is not handed on.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsafe {
    /// It would do what is not allowed. All of it that was found, at most [`MOST_REFUSALS`]; where the bytes are broken after that, the
    /// last one says so.
    #[error("{}", listed(.0))]
    Refused(Vec<Refusal>),
    /// It is not a whole and well-formed pickle.
    #[error("{0}")]
    Broken(Refusal),
    /// It is over a limit.
    #[error("{place}: {what}: more than {limit}")]
    Limit {
        /// Where it is over it.
        place: Place,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The container is broken, of an unknown kind, or readable in more than one way.
    #[error("{0}")]
    Container(String),
}

fn listed(refusals: &[Refusal]) -> String {
    let lines: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    lines.join("; ")
}

/// What ends a walk. The walk adds the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes are not what they have to be.
    Broken(String),
    /// Something is over a limit.
    Limit { what: &'static str, limit: u64 },
}

impl Fault {
    pub(super) fn broken(why: impl Into<String>) -> Fault {
        Fault::Broken(why.into())
    }

    pub(super) fn at(self, place: Place) -> Unsafe {
        match self {
            Fault::Broken(why) => Unsafe::Broken(Refusal { place, why, global: None }),
            Fault::Limit { what, limit } => Unsafe::Limit { place, what, limit },
        }
    }
}

/// A name out of a file, fit to be shown.
pub(super) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push_str("...");
    }
    text
}
