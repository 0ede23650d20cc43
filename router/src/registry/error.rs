//! What can go wrong with a registry.

use std::path::PathBuf;

use super::manifest::ManifestFault;
use super::names::{Name, NameError, Reference};
use crate::vocabulary::one_line;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its URL, or what belongs to it, makes no sense.
    #[error("{key} = {value:?}: {why}")]
    Config {
        /// The config key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store cannot be reached, or does not do what it is asked.
    #[error("the registry at {place} cannot be used: {why}")]
    Away {
        /// Where it is.
        place: String,
        /// What it said.
        why: String,
    },
    /// The store answers, and refuses: other credentials, another bucket or another region is needed.
    #[error("the registry at {place} refuses: {why}")]
    Denied {
        /// Where it is.
        place: String,
        /// What it refuses, and what to set.
        why: String,
    },
    /// A file on this machine cannot be used.
    #[error("{path}: cannot {what}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key that is none.
    #[error("{path}: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What it must be.
        why: String,
    },
    /// There is no such version or alias.
    #[error("{wanted}: there is none in the registry at {place}{hint}")]
    Unknown {
        /// What was asked for.
        wanted: Reference,
        /// Where it was looked for.
        place: String,
        /// What there is.
        hint: String,
    },
    /// The artefact of a version was removed.
    #[error("{model}:{version}: its artefact was removed from the registry by {}; the manifest is kept", one_line(.who))]
    Removed {
        /// The model.
        model: Name,
        /// The version.
        version: u64,
        /// Who removed it.
        who: String,
    },
    /// Nobody who is trusted vouches for it.
    #[error("{model}:{version} is not trusted: {}", one_line(.why))]
    Untrusted {
        /// The model.
        model: Name,
        /// The version.
        version: u64,
        /// Why not.
        why: String,
    },
    /// What is in the store is not what was pushed.
    #[error("{path}: its SHA-256 is {found} and not {expected}: it was changed after it was pushed")]
    Changed {
        /// The object, or the file.
        path: String,
        /// As the manifest has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// As [`RegistryError::Changed`], by its size: nobody read all of it.
    #[error("{path}: it has {found} bytes and not {expected}: it was changed after it was pushed")]
    Resized {
        /// The object.
        path: String,
        /// As the manifest has it.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The artefact of a version is not in the store, and nobody said that it was removed.
    #[error("{path}: it is missing in the store: somebody deleted it there; its SHA-256 was {sha256}, of {bytes} bytes")]
    Missing {
        /// The object.
        path: String,
        /// As the manifest has it.
        sha256: String,
        /// Its size.
        bytes: u64,
    },
    /// An object of the registry cannot be read.
    #[error("{} is not readable: {fault}", one_line(.path))]
    Object {
        /// The object.
        path: String,
        /// What is wrong with it.
        fault: ManifestFault,
    },
    /// What was said of a version makes no sense.
    #[error("{0}")]
    Manifest(#[from] ManifestFault),
    /// A version cannot be made from one that is not there.
    #[error("parent {parent}: {model} has no such version{hint}")]
    NoParent {
        /// The model.
        model: Name,
        /// What was said.
        parent: u64,
        /// What there is.
        hint: String,
    },
    /// An alias that would be taken for something else.
    #[error(transparent)]
    Alias(#[from] NameError),
    /// Somebody put an object there whose number leaves no room for another one.
    #[error("{path} is there, and no push or move made it: numbers go up to {most}; remove it")]
    Full {
        /// The object, or its folder.
        path: String,
        /// The largest number.
        most: u64,
    },
    /// Somebody else moved the alias meanwhile.
    #[error("{model}@{alias} is at {is} and not at {expected}: somebody moved it meanwhile")]
    Moved {
        /// The model.
        model: Name,
        /// The alias.
        alias: Name,
        /// Where it is, in words.
        is: String,
        /// Where it was thought to be.
        expected: String,
    },
    /// Larger than a registry takes.
    #[error("{path}: {bytes} bytes; {most} at most are allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// So many others were first, again and again.
    #[error("{model}: {tries} pushes were first, one after the other; try again")]
    Busy {
        /// The model.
        model: Name,
        /// How often it was tried.
        tries: u32,
    },
}

impl RegistryError {
    /// Nobody said no: something that is needed is not there.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, RegistryError::Away { .. } | RegistryError::Busy { .. })
    }

    /// A file on this machine cannot be written for want of room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, RegistryError::File { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// What was asked makes no sense, whatever is in the registry.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            RegistryError::Config { .. }
                | RegistryError::Denied { .. }
                | RegistryError::File { .. }
                | RegistryError::Key { .. }
                | RegistryError::Manifest(_)
                | RegistryError::NoParent { .. }
                | RegistryError::Alias(_)
        )
    }
}
