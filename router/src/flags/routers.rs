//! Who else routes: the list of routers as heartbeats give it.

use serde::{Deserialize, Serialize};

use super::Trip;
use crate::vocabulary::Copies;

/// A router, as last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouterSeen {
    /// Its name.
    pub id: String,
    /// The epoch that it applied on the route asked for.
    pub epoch: u64,
    /// The seal that goes with it; empty while it obeys an edit that is not adopted yet.
    pub seal: String,
    /// How long ago it was heard of, by the store's clock.
    pub seen_ms_ago: u64,
    /// Whether it was heard of within `state.router_timeout`. "All known routers on epoch E" leaves the others out.
    pub is_known: bool,
    /// Its admin address.
    pub admin: String,
    /// What its breaker holds back on the route asked for.
    pub trip: Option<TripSeen>,
    /// Pools of the route asked for that have no healthy endpoint, as it sees them.
    pub down: Vec<String>,
    /// What became of the copies of queries that it sent for the rollout of the route asked for, where it sent any.
    pub copies: Option<CopiesSeen>,
}

/// What became of the copies of queries that one router sent for a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesSeen {
    /// The rollout's id.
    pub rollout: String,
    /// Since it began to send them; a router that was started anew counts from nothing.
    pub copies: Copies,
}

/// What a router's breaker holds back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripSeen {
    /// The candidate's model version.
    pub version: String,
    /// When it tripped, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The evidence, in a sentence.
    pub why: String,
}

impl TripSeen {
    pub(super) fn of(trip: &Trip) -> TripSeen {
        let Trip { version, since_unix_ms, why, .. } = trip;
        TripSeen { version: version.clone(), since_unix_ms: *since_unix_ms, why: why.clone() }
    }
}
