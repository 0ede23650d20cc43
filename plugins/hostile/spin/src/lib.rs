//! A hostile guest: it never answers.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Spin {
    manners: Manners,
}

impl SplitPolicy for Spin {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Spin { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            let mut turns = 0u64;
            loop {
                turns = std::hint::black_box(turns.wrapping_add(1));
            }
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Spin);
