//! Who else routes: the list of routers as heartbeats give it.

use serde::Serialize;

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
}
