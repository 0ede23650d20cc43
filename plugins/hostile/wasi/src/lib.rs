//! A hostile guest: it calls what no policy is granted: the clock, through WASI. Built for `wasm32-wasip2`.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Snapshot, SplitPolicy, Wanted};

/// The policy.
pub struct Wasi {
    manners: Manners,
}

impl SplitPolicy for Wasi {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        Ok((Wasi { manners: Manners::of(snapshot) }, wanted()))
    }

    fn route(&self, _position: u32) -> Decision {
        if self.manners.are_bad {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            return Decision { arm: Some(now.subsec_nanos() % 2), ..self.manners.decent_decision() };
        }
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Wasi);
