//! What a bundle says of itself: where and when it was made, of what, and the SHA-256 of every member. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{MANIFEST, MOST_MEMBERS, Members, is_name};

/// The layout.
const FORM: u32 = 1;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Manifest {
    form: u32,
    /// The version of the program that made it.
    pub(in crate::cli) made_by: String,
    /// When, in milliseconds since 1970.
    pub(in crate::cli) made_unix_ms: u64,
    /// The router that was asked.
    pub(in crate::cli) router: String,
    pub(in crate::cli) route: String,
    /// The moment that it is about, in milliseconds since 1970.
    pub(in crate::cli) at_ms: u64,
    /// What it was made for: comparisons of this time are in it.
    pub(in crate::cli) from_ms: u64,
    pub(in crate::cli) to_ms: u64,
    /// What was asked for and is not in it, each with why.
    pub(in crate::cli) missing: Vec<String>,
    /// Everything else in the file, by name.
    pub(in crate::cli) members: Vec<MemberSeen>,
}

/// A member as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct MemberSeen {
    pub(in crate::cli) name: String,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) sha256: String,
}

/// What a bundle is about.
pub(super) struct About {
    pub(super) router: String,
    pub(super) route: String,
    pub(super) at_ms: u64,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) missing: Vec<String>,
}

impl Manifest {
    /// Of these members.
    pub(super) fn of(about: About, members: &Members) -> Manifest {
        let About { router, route, at_ms, from_ms, to_ms, missing } = about;
        let seen = |(name, bytes): (&String, &Vec<u8>)| MemberSeen { name: name.clone(), bytes: bytes.len() as u64, sha256: sha256(bytes) };
        let (made_by, made_unix_ms) = (env!("CARGO_PKG_VERSION").to_owned(), crate::admin::now_unix_ms());
        let members = members.iter().map(seen).collect();
        Manifest { form: FORM, made_by, made_unix_ms, router, route, at_ms, from_ms, to_ms, missing, members }
    }

    /// As it stands in the file.
    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads one; nothing is believed of the members yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| format!("{MANIFEST}: {error}"))?;
        if manifest.form != FORM {
            return Err(format!("{MANIFEST}: form = {}: this program reads form {FORM}", manifest.form));
        }
        if manifest.members.len() > MOST_MEMBERS {
            return Err(format!("{MANIFEST}: {} members; {MOST_MEMBERS} at most are allowed", manifest.members.len()));
        }
        let mut names = BTreeSet::new();
        for member in &manifest.members {
            if !is_name(&member.name) || member.name == MANIFEST || !names.insert(&member.name) {
                return Err(format!("{MANIFEST}: the member {:?}: no name for one, or there twice", shown(&member.name)));
            }
        }
        Ok(manifest)
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str) -> Option<&MemberSeen> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// In hex.
pub(in crate::cli) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The beginning of a name that is not believed.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

/// What is wrong with an archive may quote whatever is in it: the beginning of that, with all but ASCII escaped.
pub(super) fn quoted(error: &impl std::fmt::Display) -> String {
    const MOST: usize = 120;
    let text = error.to_string();
    let escaped = |letter: char| if matches!(letter, ' '..='~') { letter.to_string() } else { letter.escape_default().to_string() };
    let end = if text.chars().nth(MOST).is_some() { "..." } else { "" };
    text.chars().take(MOST).map(escaped).collect::<String>() + end
}
