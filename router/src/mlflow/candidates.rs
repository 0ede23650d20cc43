//! Candidates that webhooks named: one at a time for each route, and of those that wait the newest.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::child::{self, Program};
use super::kept::Kept;
use super::model_uri::ModelUri;
use super::webhook::Signed;
use crate::config::{Config, MlflowAlias};

/// Candidates of all routes that are worked on at the same time.
const AT_A_TIME: usize = 4;
/// Deliveries whose ids are remembered. Only signed ones are.
const DELIVERIES: usize = 4_096;

/// A candidate for a route: what an alias points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The route.
    pub route: String,
    /// The alias.
    pub alias: MlflowAlias,
    /// The MLflow server.
    pub url: String,
    /// `http://HOST:PORT` of this router's admin API.
    pub admin: String,
    /// For all of it.
    pub timeout: Duration,
}

impl Wish {
    /// Those of all routes that ask for this alias of this model.
    #[must_use]
    pub fn of(config: &Config, model: &str, alias: &str) -> Vec<Wish> {
        let Some(mlflow) = &config.mlflow else { return Vec::new() };
        let asks = |wanted: &MlflowAlias| wanted.model == model && wanted.alias == alias;
        let wish = |route: &str, wanted: &MlflowAlias| Wish {
            route: route.to_owned(),
            alias: wanted.clone(),
            url: mlflow.url.clone(),
            admin: admin_of(config),
            timeout: mlflow.timeout,
        };
        let routes = config.routes.iter().filter_map(|route| Some((route, route.mlflow.as_ref()?)));
        routes.filter(|(_, wanted)| asks(wanted)).map(|(route, wanted)| wish(&route.name, wanted)).collect()
    }

    /// What the alias is called in MLflow.
    pub(super) fn from(&self) -> ModelUri {
        ModelUri::of_alias(&self.alias.model, &self.alias.alias)
    }
}

/// A router that listens on every address is asked on loopback.
fn admin_of(config: &Config) -> String {
    let mut address = config.listen.admin;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

/// What becomes of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is worked on.
    Begun,
    /// It waits for the one before it, or for the next process; one that waited already is dropped for it.
    Waits,
}

/// How work on a candidate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its rollout has begun.
    Deployed,
    /// It could not be pushed.
    NotPushed,
    /// It was pushed, and not deployed.
    NotDeployed,
    /// A newer one came while it waited.
    Replaced,
    /// It took too long.
    Late,
}

impl Ended {
    /// All of them.
    pub const ALL: [Ended; 5] = [Ended::Deployed, Ended::NotPushed, Ended::NotDeployed, Ended::Replaced, Ended::Late];

    /// In metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Ended::Deployed => "deployed",
            Ended::NotPushed => "not_pushed",
            Ended::NotDeployed => "not_deployed",
            Ended::Replaced => "replaced",
            Ended::Late => "late",
        }
    }
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What it is called in MLflow.
    pub candidate: String,
    /// Its number in the registry, once it was pushed.
    pub version: Option<u64>,
    /// How it ended.
    pub result: Ended,
    /// Why it was not deployed: the end of what the command said.
    pub why: Option<String>,
}

/// What is done for a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// One is worked on.
    pub is_working: bool,
    /// Another one waits for it.
    pub is_waiting: bool,
    /// The last one that ended, in this process.
    pub last: Option<Outcome>,
    /// So long ago, in milliseconds.
    pub last_ms_ago: Option<u64>,
}

/// The candidates of a process, whatever its config. Clones share them.
#[derive(Clone)]
pub struct Candidates {
    shared: Arc<Shared>,
}

struct Shared {
    program: Program,
    room: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    /// What comes now is kept, for the next process.
    is_stopped: bool,
    /// By route.
    slots: BTreeMap<String, Slot>,
    /// Ids of deliveries, with the second in which each is forgotten.
    seen: HashMap<String, u64>,
    counts: BTreeMap<(String, Ended), u64>,
    /// By route.
    last: BTreeMap<String, (Outcome, Instant)>,
    deliveries: BTreeMap<&'static str, u64>,
}

struct Slot {
    next: Option<Wish>,
    work: AbortHandle,
}

impl Candidates {
    /// Of a router that was started by this program with this config file, and keeps what it has not finished in this folder.
    #[must_use]
    pub fn new(program: PathBuf, config_file: &Path, data_dir: &Path) -> Candidates {
        let config_file = std::path::absolute(config_file).unwrap_or_else(|_| config_file.to_owned());
        let state = State { kept: Kept::in_folder(data_dir), ..State::default() };
        let program = Program { program, config_file };
        Candidates { shared: Arc::new(Shared { program, room: Semaphore::new(AT_A_TIME), state: Mutex::new(state) }) }
    }

    /// Whether this delivery is new; `None` when so many came lately that it cannot be remembered.
    #[must_use]
    pub fn is_new(&self, signed: &Signed, max_age: Duration, now_unix_ms: u64) -> Option<bool> {
        let now = now_unix_ms / 1_000;
        let mut state = self.state();
        state.seen.retain(|_, until| *until >= now);
        if state.seen.contains_key(&signed.id) {
            return Some(false);
        }
        if state.seen.len() >= DELIVERIES {
            return None;
        }
        // As long as its own time is good.
        state.seen.insert(signed.id.clone(), signed.unix_seconds.saturating_add(max_age.as_secs()).saturating_add(1));
        Some(true)
    }

    /// Works on a wish as soon as the one before it is done. To be called on the runtime that it is worked on.
    pub fn submit(&self, wish: Wish) -> Told {
        let mut state = self.state();
        state.kept.add(&wish.route, &wish.alias.model, &wish.alias.alias);
        let route = wish.route.clone();
        if state.is_stopped {
            return Told::Waits;
        }
        if let Some(slot) = state.slots.get_mut(&route) {
            let is_replaced = slot.next.replace(wish).is_some();
            if is_replaced {
                state.count(&route, Ended::Replaced);
            }
            return Told::Waits;
        }
        let work = tokio::spawn(work(self.clone(), wish)).abort_handle();
        state.slots.insert(route, Slot { next: None, work });
        Told::Begun
    }

    /// Takes up what the process before this one did not finish, as far as this config still asks for it.
    pub fn resume(&self, config: &Config) {
        let kept = {
            let mut state = self.state();
            state.is_stopped = false;
            state.kept.read()
        };
        for (route, (model, alias)) in kept {
            let wish = Wish::of(config, &model, &alias).into_iter().find(|wish| wish.route == route);
            match wish {
                Some(wish) => {
                    tracing::info!(route, candidate = %wish.from(), "a candidate of MLflow's is taken up again");
                    self.submit(wish);
                }
                None => self.state().kept.remove(&route),
            }
        }
    }

    /// Ends all work; the next process of this data folder takes it up, and whatever comes until then.
    pub fn stop(&self) {
        let slots = {
            let mut state = self.state();
            state.is_stopped = true;
            std::mem::take(&mut state.slots)
        };
        for (route, slot) in slots {
            tracing::warn!(route, "work on a candidate of MLflow's is broken off; the next router in this data folder takes it up again");
            slot.work.abort();
        }
    }

    /// Counts a delivery by what became of it.
    pub fn count_delivery(&self, result: &'static str) {
        *self.state().deliveries.entry(result).or_default() += 1;
    }

    /// So many deliveries had this result.
    #[must_use]
    pub fn deliveries(&self, result: &'static str) -> u64 {
        self.state().deliveries.get(result).copied().unwrap_or_default()
    }

    /// So many candidates of a route ended so.
    #[must_use]
    pub fn ended(&self, route: &str, ended: Ended) -> u64 {
        self.state().counts.get(&(route.to_owned(), ended)).copied().unwrap_or_default()
    }

    /// What is done for a route, and what became of its last candidate.
    #[must_use]
    pub fn progress(&self, route: &str) -> Progress {
        let state = self.state();
        let (slot, last) = (state.slots.get(route), state.last.get(route));
        Progress {
            is_working: slot.is_some(),
            is_waiting: slot.is_some_and(|slot| slot.next.is_some()),
            last: last.map(|(outcome, _)| outcome.clone()),
            last_ms_ago: last.map(|(_, at)| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, route: &str, ended: Ended) {
        *self.counts.entry((route.to_owned(), ended)).or_default() += 1;
    }

    /// The next one of the route, or none, and then nobody works for it.
    fn next(&mut self, route: &str, outcome: Outcome) -> Option<Wish> {
        self.count(route, outcome.result);
        self.last.insert(route.to_owned(), (outcome, Instant::now()));
        let next = self.slots.get_mut(route).and_then(|slot| slot.next.take());
        if next.is_none() {
            self.slots.remove(route);
            self.kept.remove(route);
        }
        next
    }
}

/// One wish after the other.
async fn work(candidates: Candidates, mut wish: Wish) {
    loop {
        // It is never closed.
        let permit = candidates.shared.room.acquire().await;
        let outcome = child::deploy(&candidates.shared.program, &wish).await;
        drop(permit);
        let next = candidates.state().next(&wish.route, outcome);
        match next {
            Some(next) => wish = next,
            None => return,
        }
    }
}
