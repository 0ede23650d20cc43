//! What the hostile guests share: when to misbehave.
//!
//! A hostile guest misbehaves in every decision, so that admission refuses it. Built with the feature `sleeper`, it behaves until the
//! flag `flag.misbehave` is set, so that it is admitted and fails under load.

use switchback_policy::split::{Decision, Reason, Salt, Snapshot, Wanted};

/// How a guest behaves, as configured.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    live: u32,
    /// Whether the next decision is a bad one.
    pub are_bad: bool,
}

impl Manners {
    /// Reads them from the flags.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Manners {
        let is_told = snapshot.features.iter().any(|(name, _)| name == "misbehave");
        Manners { live: snapshot.live, are_bad: is_told || !cfg!(feature = "sleeper") }
    }

    /// A decision that nobody can object to.
    #[must_use]
    pub fn decent_decision(&self) -> Decision {
        Decision { pool: self.live, reason: Reason::Rule, arm: None }
    }
}

/// What a plain split wants.
#[must_use]
pub fn wanted() -> Wanted {
    Wanted { salts: vec![Salt::Rollout], fields: Vec::new() }
}
