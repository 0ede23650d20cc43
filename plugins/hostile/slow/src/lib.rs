//! A hostile guest: its decisions are right, and a thousand times too slow.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Slow {
    manners: Manners,
}

impl SplitPolicy for Slow {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Slow { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, position: u32) -> Decision {
        if self.manners.are_bad {
            let mut turns = u64::from(position);
            for _ in 0..500_000 {
                turns = std::hint::black_box(turns.wrapping_add(1));
            }
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Slow);
