//! Search users: a steady stream of queries through the router, each ranking looked at and clicked, each answer noted.
//!
//! Queries are sent when they are due, and never again: what fails here would have failed a user.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::clicks::cascade;
use super::http::{Answer, Client};
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

/// The users.
#[derive(Debug, Clone)]
pub(super) struct Users {
    /// The router's traffic listener.
    pub(super) router: SocketAddr,
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
        let mut rng = SmallRng::seed_from_u64(u64::from(number));
        let mut client = Client::new(self.router);
        let mut mine: Vec<u32> = (number..self.units.max(CONNECTIONS)).step_by(CONNECTIONS as usize).collect();
        while !*self.is_over.borrow() {
            mine.shuffle(&mut rng);
            for unit in &mine {
                due.tick().await;
                if *self.is_over.borrow() {
                    return;
                }
                if let Some(query) = self.queries.choose(&mut rng) {
                    self.search_once(&mut client, *unit, query, &mut rng).await;
                }
            }
        }
    }

    async fn search_once(&self, client: &mut Client, unit: u32, query: &Query, rng: &mut SmallRng) {
        let sent = Instant::now();
        let user = format!("u{unit}");
        let answer = client.send(Method::POST, "/rank", &[("x-user-id", &user)], query.body.clone()).await;
        let answered = Instant::now();
        let seen = answer.map_err(|error| super::chain(&error)).and_then(|answer| look(&answer, query));
        let clicked = {
            let mut record = lock(&self.record);
            record.sent += 1;
            match seen {
                Ok(Seen { pool, labels, token }) => {
                    let (ndcg, clicks) = (query.ndcg(&labels), cascade(&labels, rng));
                    record.observations.push(Observation { unit, pool, sent, answered, ndcg, clicks: clicks.count });
                    clicks.first_rank.map(|rank| (token, rank))
                }
                Err(reason) => {
                    record.fail(format!("{user}: {reason}"));
                    None
                }
            }
        };
        if let Some((token, rank)) = clicked {
            self.click(client, &token, rank).await;
        }
    }

    /// Says what was clicked first, as the page would.
    async fn click(&self, client: &mut Client, token: &str, rank: u32) {
        let event = json!({ "action_name": "click", "query_id": token, "event_attributes": { "position": { "ordinal": rank } } });
        let answer = client.send(Method::POST, "/_switchback/events", &[], Bytes::from(event.to_string())).await;
        let said = answer.map(|answer| serde_json::from_slice::<Value>(&answer.body).unwrap_or_default());
        match said {
            Ok(said) if said.get("counted") == Some(&json!(1)) => lock(&self.record).clicks += 1,
            Ok(said) => lock(&self.record).fail(format!("a click was not counted: {said}")),
            Err(error) => lock(&self.record).fail(format!("a click was not taken: {}", super::chain(&error))),
        }
    }
}

/// What is seen of an answer.
struct Seen {
    pool: usize,
    /// Of its ranking, from the top.
    labels: Vec<u8>,
    token: String,
}

fn look(answer: &Answer, query: &Query) -> Result<Seen, String> {
    if answer.status != StatusCode::OK {
        return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    let pool = pool_of(&answer.headers).ok_or("the answer does not say which pool it is from")?;
    let ranking: Ranking = serde_json::from_slice(&answer.body).map_err(|error| format!("no ranking: {error}"))?;
    let labels = query.labels_of(ranking.ranking.iter().map(|ranked| ranked.id.as_str()));
    let token = answer.headers.get("x-switchback-token").and_then(|token| token.to_str().ok()).ok_or("an answer without a token")?;
    Ok(Seen { pool, labels: labels.ok_or("a ranking of other documents")?, token: token.to_owned() })
}

/// The pool that a response names, as an index into [`POOLS`].
pub(super) fn pool_of(headers: &HeaderMap) -> Option<usize> {
    let name = headers.get("x-switchback-pool")?.to_str().ok()?;
    POOLS.iter().position(|pool| *pool == name)
}
