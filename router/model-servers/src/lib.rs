//! The client with which a version of a model is brought up on the servers of a pool: loaded on every one, ready, warm, and right, before the
//! pool gets traffic.
//!
//! [`bring_up`] goes through four stages, each on every endpoint before the next begins:
//!
//! 1. *placing*: the model's file goes into the servers' repository, where that is a [`Folder`] that the caller fills;
//! 2. *loading*: the version is loaded beside those that are there, until the server says that it is ready;
//! 3. *warming*: [`Golden`] queries go to it, until they are answered in time; every score must be the expected one;
//! 4. *committing*: the versions beside it are dropped, so that a server that answers with its newest version answers with this one.
//!
//! A failure on any endpoint undoes what was done on all of them, and the [`Fault`] says whether that worked. Everything may be stopped at any
//! point (the future dropped, the process ended) and run again: it ends as if it had run once. [`retire`] takes a version away again;
//! [`serving()`] asks what a server serves.
//!
//! Servers speak the Open Inference Protocol v2 with its model repository extension, or have [`Hooks`]: URLs to load, to ask and to unload.
//! Of the former there are two kinds. Triton and `switchback ranker` are told *which versions* to serve; `MLServer` knows a model by its *name*
//! only, and serves every version that its folder holds.
//!
//! Invariants: every request has a time limit and every answer a size limit; what a server says is data, and is quoted cut and without control
//! characters. The HTTP client is the caller's: it should follow no redirects (one that is not followed is refused here) and use no proxy.

mod answers;
mod bring;
mod call;
mod fault;
mod folder;
#[cfg(test)]
mod fuzz;
mod golden;
mod hooks;
mod server;
mod serving;
mod settings;
mod template;
mod warm;

pub use bring::{bring_up, retire};
pub use fault::{Fault, FaultKind};
pub use folder::{Folder, SettingsFile};
pub use golden::Golden;
pub use serving::{Serving, serving};
pub use settings::{EndpointReport, Hooks, Progress, Protocol, Report, Settings, Stage, Wanted, WarmUp};
pub use template::{Filling, Template};

/// What names of models and files may be, in words.
const NAME_RULE: &str = "1 to 128 of letters, digits, `.`, `_` and `-`, not starting with a dot";

/// Names go into paths and URLs, so they can hold nothing that climbs out of a folder.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.')
}

/// A version's number as paths and answers have it: digits, at least 1, no leading zero.
fn read_version(text: &str) -> Option<u64> {
    let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Numbers of versions in a sentence.
fn listed<'a>(versions: impl IntoIterator<Item = &'a u64>) -> String {
    let numbers: Vec<String> = versions.into_iter().map(u64::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}
