//! A hostile guest: it panics.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Trap {
    manners: Manners,
}

impl SplitPolicy for Trap {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Trap { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            panic!("a guest that panics");
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Trap);
