//! A hostile guest: it refuses every state of the flags.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Refuse {
    manners: Manners,
}

impl SplitPolicy for Refuse {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let manners = Manners::of(snapshot);
        if manners.are_bad {
            return Err("this policy wants other flags".to_owned());
        }
        Ok((Refuse { manners }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Refuse);
