//! The registry: immutable versions of models, and aliases that point to them, in a folder or a bucket.
//!
//! ```text
//! models/NAME/artefacts/PUSH                 the file; nobody sees it before there is a manifest
//! models/NAME/versions/7/manifest.json       the version: created once, never changed
//! models/NAME/versions/7/removed.json        its artefact is gone (retention); the manifest stays, and so does the number
//! models/NAME/versions/7/reports/2.json      what its second validation found: created once
//! models/NAME/versions/7/golden/SHA256.jsonl queries with the scores that it gives them
//! models/NAME/aliases/champion/3.json        the alias's third move: created once
//! ```
//!
//! One mechanism carries all of it: an object that is created only if it is not there yet, which a folder has (a hard link) as well as S3 (`If-None-Match`). The
//! number of a version, and of a move, is the first that could be created. A push that ends anywhere before that has made nothing that anybody sees.
//! Why there are no objects that are replaced: docs/decisions/registry.md.

mod aliases;
mod bucket;
mod buffers;
mod credentials;
mod error;
mod format;
#[cfg(test)]
mod fuzz;
mod listed;
mod manifest;
mod names;
mod open;
mod pull;
mod push;
mod reports;
mod retention;
mod sign;
mod upload;
mod versions;

pub use aliases::{AliasMove, Expected};
pub use error::RegistryError;
pub use format::{format_of, looks_like};
pub use manifest::{About, Format, Manifest, ManifestFault, Tensor};
pub use names::{Name, NameError, Reference, Which};
pub use open::Registry;
pub(crate) use open::chain;
pub use push::Push;
pub use reports::StoredReport;
pub use retention::{Keep, Plan};
pub use sign::{Signature, SigningKey, TrustedKey};
pub use versions::{Found, Removed, Version};

/// How far a transfer is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So many are there.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}
