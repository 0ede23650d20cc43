//! The default split policy: live, candidate and holdback by the unit's position.
//!
//! The candidate takes positions from the bottom, the holdback from the top, so that growing either only adds units to
//! it, shrinking removes the last added, and neither ever trades a unit with the other. The router links this source
//! natively too: it is the decision of last resort, and what the cost of WebAssembly is measured against.

use switchback_policy::split::{Decision, POSITIONS, Reason, Salt, Share, Snapshot, SplitPolicy, Wanted};

/// Live, candidate and holdback as plain numbers.
///
/// Invariant: `candidate_below <= POSITIONS`, and a share of 0 catches nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedSplit {
    live: u32,
    candidate: u32,
    /// Positions below this go to the candidate.
    candidate_below: u32,
    holdback: u32,
    /// Positions from here on go to the holdback, where the candidate has not taken them.
    holdback_from: u32,
}

impl WeightedSplit {
    /// Everybody to this pool: what is left when no flags make sense.
    #[must_use]
    pub fn all_live(live: u32) -> WeightedSplit {
        WeightedSplit { live, candidate: live, candidate_below: 0, holdback: live, holdback_from: POSITIONS }
    }
}

impl SplitPolicy for WeightedSplit {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let live = check_pool(snapshot, "live", snapshot.live)?;
        let candidate = check_share(snapshot, "candidate", snapshot.candidate.as_ref())?;
        let holdback = check_share(snapshot, "holdback", snapshot.holdback.as_ref())?;
        let split = WeightedSplit {
            live,
            candidate: candidate.pool,
            candidate_below: candidate.ppm,
            holdback: holdback.pool,
            holdback_from: POSITIONS - holdback.ppm,
        };
        Ok((split, Wanted { salts: vec![Salt::Rollout], fields: Vec::new() }))
    }

    fn route(&self, position: u32) -> Decision {
        let (pool, reason) = if position < self.candidate_below {
            (self.candidate, Reason::Candidate)
        } else if position >= self.holdback_from {
            (self.holdback, Reason::Holdback)
        } else {
            (self.live, Reason::Live)
        };
        Decision { pool, reason, arm: None }
    }
}

#[cfg(feature = "component")]
switchback_policy::export_split_policy!(WeightedSplit);

fn check_pool(snapshot: &Snapshot, role: &str, pool: u32) -> Result<u32, String> {
    let pools = snapshot.pools.len();
    match usize::try_from(pool) {
        Ok(index) if index < pools => Ok(pool),
        _ => Err(format!("{role} names pool {pool}, but the route has {pools} pools")),
    }
}

fn check_share(snapshot: &Snapshot, role: &str, share: Option<&Share>) -> Result<Share, String> {
    let Some(share) = share else {
        return Ok(Share { pool: snapshot.live, ppm: 0 });
    };
    if share.ppm > POSITIONS {
        return Err(format!("{role} has a share of {} ppm, but {POSITIONS} ppm is all units", share.ppm));
    }
    Ok(Share { pool: check_pool(snapshot, role, share.pool)?, ppm: share.ppm })
}

#[cfg(test)]
mod tests;
