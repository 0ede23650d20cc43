//! A hostile guest: good for a while, then it panics; the instance that follows is good for a while again. It would never be
//! noticed by whoever looks at the last answers only.

use std::cell::Cell;

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// Decisions between two panics.
const GOOD: u32 = 50;

/// The policy.
pub struct Flapping {
    manners: Manners,
    decisions: Cell<u32>,
}

impl SplitPolicy for Flapping {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Flapping { manners: Manners::of(snapshot), decisions: Cell::new(0) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        let decisions = self.decisions.get();
        self.decisions.set(decisions.wrapping_add(1));
        if self.manners.are_bad && decisions % (GOOD + 1) == GOOD {
            panic!("a guest that panics now and then");
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Flapping);
