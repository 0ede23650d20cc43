//! A split policy in about 20 lines: British users on the candidate, everybody else on the live pool.

use switchback_policy::split::{Decision, Field, Level, Reason, Salt, Snapshot, SplitPolicy, Wanted, log};

/// The policy.
pub struct HelloSplit {
    live: u32,
    candidate: u32,
}

impl SplitPolicy for HelloSplit {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let candidate = snapshot.candidate.as_ref().map_or(snapshot.live, |share| share.pool);
        log(Level::Info, &format!("hello from route {}: British users go to pool {candidate}", snapshot.route));
        let wanted = Wanted { salts: vec![Salt::Rollout], fields: vec![Field::Header("accept-language".into())] };
        Ok((HelloSplit { live: snapshot.live, candidate }, wanted))
    }

    fn route_fields(&self, _positions: &[u32], fields: &[Option<&str>]) -> Decision {
        match fields {
            [Some(language)] if language.starts_with("en-GB") => Decision { pool: self.candidate, reason: Reason::Rule, arm: None },
            _ => Decision { pool: self.live, reason: Reason::Live, arm: None },
        }
    }
}

switchback_policy::export_split_policy!(HelloSplit);
