//! What the router adds: one in ten of the users' queries goes through it and straight to the ranker that answers, under the same load.
//!
//! It is the users' own queries that are measured: queries of one more user, who never clicks, would be a tenth of the traffic, on one
//! side of the comparison. The order of the two changes by chance, so that neither always finds the ranker's caches warm.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use rand::{Rng, RngExt as _};
use tokio::time::Instant;

use super::http::Client;
use super::queries::Query;

/// This part of the queries: enough for a p99, too few to be load.
const MEASURED: f64 = 0.1;

/// The direct ways.
#[derive(Debug)]
pub(super) struct Probe {
    /// By [`super::record::POOLS`].
    rankers: [Client; 3],
}

impl Probe {
    pub(super) fn new(rankers: [SocketAddr; 3]) -> Probe {
        Probe { rankers: rankers.map(Client::new) }
    }

    /// Whether to measure this query.
    pub(super) fn is_due(&self, rng: &mut impl Rng) -> bool {
        rng.random_bool(MEASURED)
    }

    /// The query's time without the router, from the pool that is thought to answer it.
    pub(super) async fn straight(&mut self, pool: Option<usize>, query: &Query) -> Option<(usize, Duration)> {
        let pool = pool?;
        let ranker = self.rankers.get_mut(pool)?;
        let sent = Instant::now();
        let answer = ranker.send(Method::POST, "/rank", &[("x-user-id", "probe")], query.body.clone()).await;
        let took = sent.elapsed();
        answer.ok().filter(|answer| answer.status == StatusCode::OK).map(|_| (pool, took))
    }
}
