//! What the router adds: the same query through it and straight to the ranker that answered, side by side under the same load.
//!
//! The order of the two changes by chance, so that neither always finds the ranker's caches warm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::http::{Client, HttpError};
use super::queries::Query;
use super::users::{SharedRecord, lock, pool_of};

/// Pairs of queries a second: enough for a p99, too few to be load.
const PAIRS_PER_SECOND: u32 = 40;

/// Measures until the demo is over.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) router: SocketAddr,
    /// By [`super::record::POOLS`].
    pub(super) rankers: [SocketAddr; 3],
    pub(super) queries: Arc<Vec<Query>>,
    pub(super) record: SharedRecord,
    pub(super) is_over: watch::Receiver<bool>,
}

impl Probe {
    /// Runs until the demo is over.
    pub(super) async fn run(self) {
        let mut rng = SmallRng::seed_from_u64(17);
        let mut router = Client::new(self.router);
        let mut rankers = self.rankers.map(Client::new);
        let mut due = interval(Duration::from_secs(1) / PAIRS_PER_SECOND);
        let mut expected_pool = 0;
        while !*self.is_over.borrow() {
            due.tick().await;
            let Some(query) = self.queries.choose(&mut rng) else { return };
            let direct_first = rng.random_bool(0.5);
            let mut direct = None;
            if direct_first {
                direct = straight(&mut rankers, expected_pool, &query.body).await;
            }
            let Some((pool, routed)) = self.through(&mut router, &query.body).await else { continue };
            if !direct_first {
                direct = straight(&mut rankers, pool, &query.body).await;
            }
            let is_a_pair = !direct_first || pool == expected_pool;
            expected_pool = pool;
            if let Some(direct) = direct.filter(|_| is_a_pair) {
                let mut record = lock(&self.record);
                record.routed.push(routed);
                record.direct.push(direct);
            }
        }
    }

    /// Through the router; a failure counts as any user's.
    async fn through(&self, router: &mut Client, body: &Bytes) -> Option<(usize, Duration)> {
        let sent = Instant::now();
        let answer = router.send(Method::POST, "/rank", &[("x-user-id", "probe")], body.clone()).await;
        let took = sent.elapsed();
        let mut record = lock(&self.record);
        record.sent += 1;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => {
                record.probes += 1;
                return pool_of(&answer.headers).map(|pool| (pool, took));
            }
            Ok(answer) => record.fail(format!("probe: {}", answer.status)),
            Err(error) => record.fail(format!("probe: {}", super::chain(&error))),
        }
        None
    }
}

async fn straight(rankers: &mut [Client; 3], pool: usize, body: &Bytes) -> Option<Duration> {
    let ranker = rankers.get_mut(pool)?;
    let sent = Instant::now();
    let answer: Result<_, HttpError> = ranker.send(Method::POST, "/rank", &[("x-user-id", "probe")], body.clone()).await;
    let took = sent.elapsed();
    answer.ok().filter(|answer| answer.status == StatusCode::OK).map(|_| took)
}
