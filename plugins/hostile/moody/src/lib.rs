//! A hostile guest: it answers differently each time.

use std::cell::Cell;

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Moody {
    manners: Manners,
    turn: Cell<u32>,
}

impl SplitPolicy for Moody {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Moody { manners: Manners::of(snapshot), turn: Cell::new(0) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            let turn = self.turn.get();
            self.turn.set(turn + 1);
            return Decision { arm: Some(turn), ..self.manners.decent_decision() };
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Moody);
