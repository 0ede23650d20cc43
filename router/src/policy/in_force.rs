//! The split policy that a route has in force: one value that every worker shares, and that a swap replaces whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use switchback_policy::split::{Snapshot, Wanted};
use tokio::time::Instant;

use super::failure::PolicyFailure;
use super::health::{Health, Patience};
use super::host_v0::SplitProgram;
use super::instance::SplitInstance;

/// How a policy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As a WebAssembly component.
    Wasm,
    /// As native code: `split-weighted` from the same source, when there is no component to run.
    Native,
}

/// A split policy in force on one route.
pub struct SplitInForce {
    /// Its name, as the flags say it.
    pub name: String,
    /// SHA-256 of its file, 64 hex digits; empty for [`Kind::Native`].
    pub digest: String,
    /// How it runs.
    pub kind: Kind,
    /// Its strikes since it came into force.
    pub health: Health,
    /// Who decides what it cannot, before the native decision: the policy before it, where the route wants that. It has none itself.
    pub last_good: Option<Arc<SplitInForce>>,
    label: Arc<str>,
    program: Option<SplitProgram>,
    last_failure: Mutex<Option<String>>,
    refuses_flags: AtomicBool,
}

impl SplitInForce {
    pub(super) fn wasm(route: &str, name: &str, digest: &str, program: SplitProgram, patience: Patience) -> SplitInForce {
        SplitInForce::new(route, name, digest, Some(program), patience)
    }

    /// The fallback, as a policy like any other: for a router without a component to run.
    #[must_use]
    pub fn native(route: &str, patience: Patience) -> SplitInForce {
        SplitInForce::new(route, "split-weighted", "", None, patience)
    }

    fn new(route: &str, name: &str, digest: &str, program: Option<SplitProgram>, patience: Patience) -> SplitInForce {
        SplitInForce {
            name: name.to_owned(),
            digest: digest.to_owned(),
            kind: if program.is_some() { Kind::Wasm } else { Kind::Native },
            health: Health::new(patience, Instant::now()),
            last_good: None,
            label: format!("{route}/{name}").into(),
            program,
            last_failure: Mutex::new(None),
            refuses_flags: AtomicBool::new(false),
        }
    }

    /// The same policy, to stand in for the one that follows it: with a health of its own.
    pub(super) fn as_last_good(&self, patience: Patience) -> SplitInForce {
        SplitInForce {
            name: self.name.clone(),
            digest: self.digest.clone(),
            kind: self.kind,
            health: Health::new(patience, Instant::now()),
            last_good: None,
            label: Arc::clone(&self.label),
            program: self.program.clone(),
            last_failure: Mutex::new(None),
            refuses_flags: AtomicBool::new(false),
        }
    }

    /// Whether nothing has gone wrong with it since it came into force.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.kind == Kind::Wasm && self.health.strikes() == 0 && !self.refuses_flags()
    }

    /// Whether it is asked at this moment: it runs, is not in quarantine, and took the flags.
    #[must_use]
    pub fn is_asked(&self, now: Instant) -> bool {
        self.kind == Kind::Wasm && !self.health.is_quarantined(now) && !self.refuses_flags()
    }

    /// A configured instance for the calling worker, and what the policy wants to see of each query. 20 to 60 us.
    ///
    /// # Errors
    /// When the policy fails at start-up, or refuses the flags. The caller reports it with [`SplitInForce::failed`].
    pub fn instantiate(&self, snapshot: &Snapshot) -> Result<(SplitInstance, Wanted), PolicyFailure> {
        let configured = match &self.program {
            Some(program) => SplitInstance::wasm(program.instantiate(Arc::clone(&self.label))?, snapshot),
            None => SplitInstance::native(snapshot),
        }?;
        self.accepted_flags();
        Ok(configured)
    }

    /// Reports that an instance took the newest flags.
    pub fn accepted_flags(&self) {
        self.refuses_flags.store(false, Ordering::Relaxed);
    }

    /// Whether it refused the newest flags, so that native decisions stand in until they change.
    #[must_use]
    pub fn refuses_flags(&self) -> bool {
        self.refuses_flags.load(Ordering::Relaxed)
    }

    /// Reports a failure: keeps its text for the status, logs it, and counts a strike unless the policy only refused the
    /// flags. True when the strike began a quarantine.
    pub fn failed(&self, failure: &PolicyFailure, now: Instant) -> bool {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
        let policy = &*self.label;
        if failure.is_refusal() {
            if !self.refuses_flags.swap(true, Ordering::Relaxed) {
                tracing::warn!(policy, digest = self.digest, "policy refused the flags, native decisions until they change: {failure}");
            }
            return false;
        }
        let is_quarantined = self.health.strike(now);
        if is_quarantined {
            let seconds = self.health.quarantine_left(now).unwrap_or_default().as_secs_f64();
            tracing::error!(
                policy,
                digest = self.digest,
                seconds,
                "policy failed too often and is quarantined; native decisions until then: {failure}"
            );
        } else {
            tracing::warn!(policy, digest = self.digest, "policy failed, native decision for this query: {failure}");
        }
        is_quarantined
    }

    /// The last failure since it came into force, in words.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for SplitInForce {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SplitInForce")
            .field("policy", &self.label)
            .field("digest", &self.digest)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
