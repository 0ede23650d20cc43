//! What is wrong with a model file, and where.

use std::fmt::Display;

/// So much of an outside text is shown.
const SHOWN_CHARS: usize = 64;

/// A file that is not a well-formed model, or not one that is taken. One fault is named: the first that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Malformed {
    /// Where: `tree 3: left_child[5] = 99`.
    pub place: String,
    /// What is wrong, and what is allowed.
    pub what: String,
}

impl Malformed {
    pub(super) fn new(place: impl Display, what: impl Display) -> Malformed {
        Malformed { place: place.to_string(), what: what.to_string() }
    }

    /// The same fault, as part of something larger: `tree 3: ` before its place.
    pub(super) fn within(self, whole: impl Display) -> Malformed {
        Malformed { place: format!("{whole}: {}", self.place), what: self.what }
    }
}

/// An outside text in quotes: escaped, and cut when it is long.
pub(super) fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    let is_cut = start.len() < text.len();
    format!("{start:?}{}", if is_cut { "..." } else { "" })
}

/// Fails when there is more of something than is allowed.
pub(super) fn at_most(place: impl Display, count: usize, most: usize) -> Result<(), Malformed> {
    if count <= most { Ok(()) } else { Err(Malformed::new(format!("{place} = {count}"), format!("must be at most {most}"))) }
}
