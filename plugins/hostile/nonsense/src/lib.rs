//! A hostile guest: it names a pool that the route does not have.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Nonsense {
    manners: Manners,
}

impl SplitPolicy for Nonsense {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Nonsense { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            return Decision { pool: 999, ..self.manners.decent_decision() };
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Nonsense);
