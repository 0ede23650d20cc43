//! Search users: a steady stream of queries through the router, each ranking looked at and clicked, each answer noted.
//!
//! Queries are sent when they are due, and never again: what fails here would have failed a user.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::clicks::cascade;
use super::http::{Answer, Client};
use super::probe::Probe;
use super::queries::Query;
use super::record::{Observation, POOLS, Record};

/// Connections that the queries are spread over.
const CONNECTIONS: u32 = 16;

/// Everything that was seen so far, shared by those who look.
pub(super) type SharedRecord = Arc<Mutex<Record>>;

/// Locks the record; what another thread left half done would be a count, so poison does no harm.
pub(super) fn lock(record: &SharedRecord) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The users: each asks as often as any other, and any of the queries.
#[derive(Debug, Clone)]
pub(super) struct Users {
    /// The router's traffic listener.
    pub(super) router: SocketAddr,
    /// By [`POOLS`]: where some of the queries also go, to see what the router adds.
    pub(super) rankers: [SocketAddr; 3],
    pub(super) queries: Arc<Vec<Query>>,
    pub(super) record: SharedRecord,
    /// Queries a second, in all.
    pub(super) rate: u32,
    /// How many different users there are: `u0`, `u1`, ...
    pub(super) units: u32,
    /// Set when the demo is over.
    pub(super) is_over: watch::Receiver<bool>,
}

#[derive(Deserialize)]
struct Ranking {
    ranking: Vec<Ranked>,
}

#[derive(Deserialize)]
struct Ranked {
    id: String,
}

impl Users {
    /// Begins to search; returns at once.
    pub(super) fn start(&self) -> Vec<tokio::task::JoinHandle<()>> {
        (0..CONNECTIONS).map(|number| tokio::spawn(self.clone().search(number))).collect()
    }

    /// One connection's users, in an order that is new each round.
    async fn search(self, number: u32) {
        let every = Duration::from_secs_f64(f64::from(CONNECTIONS) / f64::from(self.rate.max(1)));
        let first = Instant::now() + every.mul_f64(f64::from(number) / f64::from(CONNECTIONS));
        let mut due = interval_at(first, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mine: Vec<u32> = (number..self.units.max(CONNECTIONS)).step_by(CONNECTIONS as usize).collect();
        let mut connection = Connection {
            client: Client::new(self.router),
            probe: Probe::new(self.rankers),
            pools: HashMap::new(),
            rng: SmallRng::seed_from_u64(u64::from(number)),
            record: self.record,
        };
        while !*self.is_over.borrow() {
            mine.shuffle(&mut connection.rng);
            for unit in &mine {
                due.tick().await;
                if *self.is_over.borrow() {
                    return;
                }
                if let Some(query) = self.queries.choose(&mut connection.rng) {
                    connection.search_once(*unit, query).await;
                }
            }
        }
    }
}

/// Where some of the users sit.
struct Connection {
    client: Client,
    probe: Probe,
    /// The pool that each of them was answered by last.
    pools: HashMap<u32, usize>,
    rng: SmallRng,
    record: SharedRecord,
}

impl Connection {
    /// A query, which now and then also goes straight to the ranker, before or after.
    async fn search_once(&mut self, unit: u32, query: &Query) {
        let (is_pair, is_straight_first) = (self.probe.is_due(&mut self.rng), self.rng.random_bool(0.5));
        let mut straight = None;
        if is_pair && is_straight_first {
            straight = self.probe.straight(self.pools.get(&unit).copied(), query).await;
        }
        let Some(Looked { pool, took, click }) = self.look_once(unit, query).await else { return };
        self.pools.insert(unit, pool);
        if is_pair && !is_straight_first {
            straight = self.probe.straight(Some(pool), query).await;
        }
        if let Some((_, direct)) = straight.filter(|(from, _)| *from == pool) {
            let mut record = lock(&self.record);
            record.routed.push(took);
            record.direct.push(direct);
        }
        if let Some((token, rank)) = click {
            self.click(&token, rank).await;
        }
    }

    /// Through the router; `None` when it failed.
    async fn look_once(&mut self, unit: u32, query: &Query) -> Option<Looked> {
        let sent = Instant::now();
        let user = format!("u{unit}");
        let answer = self.client.send(Method::POST, "/rank", &[("x-user-id", &user)], query.body.clone()).await;
        let answered = Instant::now();
        let seen = answer.map_err(|error| super::chain(&error)).and_then(|answer| look(&answer, query));
        let mut record = lock(&self.record);
        record.sent += 1;
        match seen {
            Ok(Seen { pool, version, labels, token }) => {
                let (ndcg, clicks) = (query.ndcg(&labels), cascade(&labels, &mut self.rng));
                record.observations.push(Observation { unit, pool, version, sent, answered, ndcg, clicks: clicks.count });
                Some(Looked { pool, took: answered - sent, click: clicks.first_rank.map(|rank| (token, rank)) })
            }
            Err(reason) => {
                record.fail(format!("{user}: {reason}"));
                None
            }
        }
    }

    /// Says what was clicked first, as the page would.
    async fn click(&mut self, token: &str, rank: u32) {
        let event = json!({ "action_name": "click", "query_id": token, "event_attributes": { "position": { "ordinal": rank } } });
        let answer = self.client.send(Method::POST, "/_switchback/events", &[], Bytes::from(event.to_string())).await;
        let said = answer.map(|answer| serde_json::from_slice::<Value>(&answer.body).unwrap_or_default());
        match said {
            Ok(said) if said.get("counted") == Some(&json!(1)) => lock(&self.record).clicks += 1,
            Ok(said) => lock(&self.record).fail(format!("a click was not counted: {said}")),
            Err(error) => lock(&self.record).fail(format!("a click was not taken: {}", super::chain(&error))),
        }
    }
}

/// A query that was answered.
struct Looked {
    pool: usize,
    took: Duration,
    /// The answer's token, and the rank that is clicked first.
    click: Option<(String, u32)>,
}

/// What is seen of an answer.
struct Seen {
    pool: usize,
    version: u32,
    /// Of its ranking, from the top.
    labels: Vec<u8>,
    token: String,
}

fn look(answer: &Answer, query: &Query) -> Result<Seen, String> {
    if answer.status != StatusCode::OK {
        return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    let pool = pool_of(&answer.headers).ok_or("the answer does not say which pool it is from")?;
    let version = text_of(&answer.headers, "x-model-version").and_then(|version| version.parse().ok());
    let version = version.ok_or("the answer does not say which version scored")?;
    let ranking: Ranking = serde_json::from_slice(&answer.body).map_err(|error| format!("no ranking: {error}"))?;
    let labels = query.labels_of(ranking.ranking.iter().map(|ranked| ranked.id.as_str()));
    let token = text_of(&answer.headers, "x-switchback-token").ok_or("an answer without a token")?;
    Ok(Seen { pool, version, labels: labels.ok_or("a ranking of other documents")?, token: token.to_owned() })
}

/// The pool that a response names, as an index into [`POOLS`].
fn pool_of(headers: &HeaderMap) -> Option<usize> {
    let name = text_of(headers, "x-switchback-pool")?;
    POOLS.iter().position(|pool| *pool == name)
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
