//! The slow work: reading and admitting plugins, one after the other, on a thread of its own.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};

use super::admission::{self, Admitted, Terms};
use super::artefact::ArtefactCache;
use super::engine::PolicyEngine;
use super::folder;
use super::keeper::Event;
use super::kept::Kept;
use super::rejection::Rejection;
use crate::allocator;

/// Something to read and admit.
#[derive(Clone)]
pub(super) enum Job {
    /// A file of the folder. Bytes whose digest is `known` are not admitted again.
    File { name: String, path: PathBuf, known: HashSet<String> },
    /// A kept plugin: for flags that name it by digest, or because it is the last good one of a name whose file is refused.
    Kept { name: String, digest: String, is_last: bool },
}

/// What became of a job.
pub(super) struct Done {
    pub(super) job: Job,
    /// Digest of what was read.
    pub(super) digest: Option<String>,
    pub(super) outcome: Outcome,
}

/// See [`Done`].
pub(super) enum Outcome {
    /// The file changed while it was read.
    Unsettled,
    /// These bytes were admitted before.
    Known,
    Admitted(Box<Admitted>),
    Rejected(Rejection),
}

/// Everything that admission needs.
pub(super) struct Workshop {
    pub(super) engine: PolicyEngine,
    pub(super) terms: Terms,
    pub(super) cache: Option<ArtefactCache>,
    pub(super) kept: Option<Kept>,
}

impl Workshop {
    /// Works until the sender of the jobs is gone.
    pub(super) fn work(&self, jobs: &Receiver<Job>, done: &SyncSender<Event>) {
        while let Ok(job) = jobs.recv() {
            let is_wanted = done.send(Event::Done(Box::new(safely(job, |job| self.perform(job))))).is_ok();
            // A compiler takes megabytes, and the thread may have nothing to do for a day.
            allocator::give_back();
            if !is_wanted {
                return;
            }
        }
    }

    /// Does one job. Milliseconds to seconds.
    pub(super) fn perform(&self, job: Job) -> Done {
        let (digest, outcome) = match &job {
            Job::File { path, known, .. } => match folder::read(path, self.terms.file_bytes) {
                Ok(Some(bytes)) => self.judge(&bytes, Some(known)),
                Ok(None) => (None, Outcome::Unsettled),
                Err(rejection) => (None, Outcome::Rejected(rejection)),
            },
            Job::Kept { digest, .. } => match self.kept.as_ref().and_then(|kept| kept.load(digest, self.terms.file_bytes)) {
                Some(bytes) => self.judge(&bytes, None),
                None => {
                    let reason = "the kept copy is broken".to_owned();
                    (Some(digest.clone()), Outcome::Rejected(Rejection::Unreadable { reason }))
                }
            },
        };
        Done { job, digest, outcome }
    }

    /// Judges bytes that came by another way than a job. A plugin that makes the compiler panic is refused like any other.
    pub(super) fn judge_safely(&self, bytes: &[u8]) -> Outcome {
        caught(|| self.judge(bytes, None).1)
    }

    fn judge(&self, bytes: &[u8], known: Option<&HashSet<String>>) -> (Option<String>, Outcome) {
        let digest = admission::digest(bytes);
        if known.is_some_and(|known| known.contains(&digest)) {
            return (Some(digest), Outcome::Known);
        }
        let outcome = match admission::admit(&self.engine, self.cache.as_ref(), &self.terms, bytes) {
            Ok(admitted) => {
                if let Some(kept) = &self.kept {
                    kept.store(&digest, bytes);
                }
                Outcome::Admitted(Box::new(admitted))
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        (Some(digest), outcome)
    }
}

/// A plugin that makes the compiler panic is refused like any other, and the thread goes on.
fn safely(job: Job, perform: impl FnOnce(Job) -> Done) -> Done {
    let again = job.clone();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| perform(job))).unwrap_or_else(|_| Done {
        job: again,
        digest: None,
        outcome: Outcome::Rejected(panicked()),
    })
}

fn caught(judge: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).unwrap_or_else(|_| Outcome::Rejected(panicked()))
}

fn panicked() -> Rejection {
    Rejection::Unreadable { reason: "the WebAssembly compiler panicked; the log has its message".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_makes_the_compiler_panic_is_refused() {
        let job = Job::File { name: "mine".to_owned(), path: PathBuf::from("mine.wasm"), known: HashSet::new() };
        let done = safely(job, |_| panic!("internal compiler error"));
        assert!(matches!(&done.job, Job::File { name, .. } if name == "mine"));
        let Outcome::Rejected(rejection) = done.outcome else { panic!("it was not refused") };
        assert!(rejection.to_string().contains("the WebAssembly compiler panicked"), "{rejection}");
        let Outcome::Rejected(uploaded) = caught(|| panic!("internal compiler error")) else { panic!("it was not refused") };
        assert_eq!(uploaded, rejection);
    }
}
