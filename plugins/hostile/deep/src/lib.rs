//! A hostile guest: it recurses without end.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// Too much between the call and the answer for a compiler to make a loop of it, and no local that needs memory, so that it is the
/// host's limit that is met and not the end of the guest's own stack.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 1;
    }
    descend(depth + 1).rotate_left(7).wrapping_mul(depth | 1)
}

/// The policy.
pub struct Deep {
    manners: Manners,
}

impl SplitPolicy for Deep {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Deep { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, position: u32) -> Decision {
        if self.manners.are_bad {
            let depth = descend(u64::from(position));
            assert!(depth != 0, "never reached: the stack ends first");
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Deep);
