//! A hostile guest: it floods the log, with lines that are longer than any may be.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Level, Snapshot, SplitPolicy, Wanted, log};

/// Lines for each decision.
const LINES: u32 = 20;
const LINE_BYTES: usize = 4 << 10;

/// The policy.
pub struct Chatty {
    manners: Manners,
    line: String,
}

impl SplitPolicy for Chatty {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Chatty { manners: Manners::of(snapshot), line: "flood ".repeat(LINE_BYTES / 6) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            for _ in 0..LINES {
                log(Level::Error, &self.line);
            }
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Chatty);
