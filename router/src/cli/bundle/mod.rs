//! Incident bundles: one file with what is needed to understand what happened on a route, and to judge it anew elsewhere.
//!
//! ```text
//! router ---admin API, as a viewer---> collect -> members -> write -> FILE.tar.gz
//!                                                                        |
//!                      explain, replay, ledger verify  <- members <- read (whatever somebody sent)
//! ```
//!
//! Invariant: a bundle is asked for as a viewer, so that no salt and no secret comes into it; and what is read of one is bounded, and
//! is what its manifest says.

mod collect;
#[cfg(test)]
mod fuzz;
mod manifest;
mod read;
mod write;

use std::collections::BTreeMap;

use serde_json::Value;

pub(super) use collect::{Wanted, collect};
pub(super) use manifest::Manifest;
pub(super) use read::open;
pub(super) use write::{pack, put};

use super::Failure;
use crate::flags::Ledger;

/// The first member.
pub(super) const MANIFEST: &str = "manifest.json";
/// The ledger, as the router wrote it out.
pub(super) const LEDGER: &str = "ledger.jsonl";
/// What holds the logs of judged windows: `windows/BEGAN/ROUTER.jsonl`.
pub(super) const WINDOWS: &str = "windows/";
/// What holds the policies: `policies/NAME@DIGEST.wasm`.
pub(super) const POLICIES: &str = "policies/";

/// Members, the manifest aside.
const MOST_MEMBERS: usize = 500;
/// Of one member.
const MEMBER_BYTES: u64 = 256 << 20;
/// Of all members together.
const ALL_BYTES: u64 = 1 << 30;
/// Of the file.
const FILE_BYTES: u64 = 512 << 20;
/// Of the manifest.
const MANIFEST_BYTES: u64 = 1 << 20;

/// Names and bytes.
pub(super) type Members = BTreeMap<String, Vec<u8>>;

/// A bundle that was made, or read and found to be what its manifest says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) manifest: Manifest,
    pub(super) members: Members,
}

impl Bundle {
    /// A member as JSON; null where it is missing or is none.
    pub(super) fn json(&self, name: &str) -> Value {
        self.members.get(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// Its ledger.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(super) fn ledger(&self) -> Result<Ledger, Failure> {
        let bytes = self.members.get(LEDGER).ok_or_else(|| Failure::refused(format!("the bundle has no {LEDGER}")))?;
        Ledger::read(bytes).map_err(|why| Failure::refused(format!("the bundle's {LEDGER}: {why}")))
    }
}

/// Whether a member may have this name: nothing that leads out of a folder, on any system, and nothing that a terminal would obey.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_letter);
    name.len() <= 200 && name.split('/').all(is_part) && name.split('/').count() <= 3
}

/// A router's name as part of a member's.
fn part_of_name(text: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_') { letter } else { '_' };
    let part: String = text.chars().take(64).map(letter).collect();
    if part.is_empty() { "router".to_owned() } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["manifest.json", "windows/1795870537/edge-1_8080.jsonl", "policies/rollback-guardrail@8f31.wasm"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", ".ssh", "a\\b", "c:x", "a\nb", "a/b/c/d", &"a".repeat(201)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert_eq!(
            (part_of_name("edge-1:8080"), part_of_name("../x"), part_of_name("")),
            ("edge-1_8080".into(), "___x".into(), "router".into())
        );
    }
}
