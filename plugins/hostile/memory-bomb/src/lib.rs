//! A hostile guest: it takes all memory that it can get.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct MemoryBomb {
    manners: Manners,
}

impl SplitPolicy for MemoryBomb {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((MemoryBomb { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
            }
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(MemoryBomb);
