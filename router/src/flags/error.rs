//! What can go wrong with flags, named by operation.

use std::path::PathBuf;

use super::Fault;

/// A flag store that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FlagsError {
    /// Another router uses the data folder.
    #[error(
        "{path}: another router (pid {pid}) uses this data folder; stop that one, or give this router a state.data_dir of its own. Routers \
         share flags through Redis, with state.url"
    )]
    Owned {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as the lock file says.
        pid: String,
    },
    /// The data folder, or a file in it, cannot be used.
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
    /// A file of the embedded store was changed by something else than Switchback.
    #[error("{path}: {why}; put back a good copy, or move the file away to begin again with the route's initial flags")]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The task that keeps the flags is gone.
    #[error("the flag store has ended")]
    Ended,
    /// A password or certificate that `[state]` names cannot be used.
    #[error("{key} = {what:?}: {why}")]
    Named {
        /// The config key.
        key: String,
        /// The file or variable.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FlagsError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            FlagsError::Named { key, .. } => key,
            FlagsError::Owned { .. } | FlagsError::File { .. } | FlagsError::Corrupt { .. } => "state.data_dir",
            FlagsError::Ended => "state",
        }
    }
}

/// A change that was not made, or not known to be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Somebody else changed the flags first.
    #[error("the flags are at epoch {found}, not at {expected}: somebody changed them meanwhile; read them again")]
    Conflict {
        /// The epoch that the change was meant for.
        expected: u64,
        /// The epoch that the store has.
        found: u64,
    },
    /// The change makes no sense. Nothing was written.
    #[error("not a valid change: {}", describe(.0))]
    Invalid(Vec<Fault>),
    /// The store cannot be reached. Nothing was written.
    #[error("the flag store cannot be reached: {why}; nothing was written")]
    Unreachable {
        /// Since what.
        why: String,
    },
    /// The store did not answer in time.
    #[error("the flag store did not answer ({why}): the change may have been made or not; read the flags again")]
    Unanswered {
        /// How it failed.
        why: String,
    },
    /// The store has no room, or cannot write for another reason that passes: nothing is obeyed of it, and it may be asked again.
    #[error("the flag store cannot write: {why}; nothing has changed")]
    NotWritten {
        /// Why not.
        why: String,
    },
    /// The store refused the write. Nothing was written.
    #[error("the flag store refused the change: {why}")]
    NotSaved {
        /// Its words.
        why: String,
    },
}

/// A history that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the ledger cannot be read: {why}")]
pub struct HistoryError {
    /// Why not.
    pub why: String,
}

fn describe(faults: &[Fault]) -> String {
    let describe = |fault: &Fault| format!("{} = {:?}: must be {}", fault.field, fault.value, fault.allowed);
    faults.iter().map(describe).collect::<Vec<_>>().join("; ")
}
