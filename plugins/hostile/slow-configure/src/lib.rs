//! A hostile guest: its decisions are quick, and `configure` never ends.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct SlowConfigure {
    manners: Manners,
}

impl SplitPolicy for SlowConfigure {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let manners = Manners::of(snapshot);
        let mut turns = snapshot.epoch;
        while std::hint::black_box(manners.are_bad) {
            turns = std::hint::black_box(turns.wrapping_add(1));
        }
        Ok((SlowConfigure { manners }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(SlowConfigure);
