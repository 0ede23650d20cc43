//! The control side of policies: what the rest of the router asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::{io, thread};

use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use super::admission::{self, Terms};
use super::artefact::ArtefactCache;
use super::catalogue::{Catalogue, Choice, Found, Trouble};
use super::engine::{Limits, PolicyEngine};
use super::folder::Folder;
use super::health::Patience;
use super::host_v0_rollback::RollbackProgram;
use super::in_force::{Kind, SplitInForce};
use super::keeper::{Board, Event, Keeper, RouteSlot, RouteView, Views, in_keeping};
use super::kept::Kept;
use super::rollback::RollbackInstance;
use super::shadows::ShadowSlot;
use super::status::{AnsweredBy, InForceStatus, LastGoodStatus, PluginStatus, PolicyState, PolicyStatus, now_unix_ms};
use super::workshop::Workshop;
use crate::allocator;
use crate::config::{Config, Route};
use crate::flags::{Flags, PolicyRef};
use crate::vocabulary::RouteIndex;

/// The default policy's name.
pub(super) const SPLIT_WEIGHTED: &str = "split-weighted";

/// The plugins inside the binary, by name.
pub(super) const SHIPPED: [(&str, &[u8]); 4] = [
    (SPLIT_WEIGHTED, include_bytes!(concat!(env!("OUT_DIR"), "/split-weighted.wasm"))),
    ("split-rules", include_bytes!(concat!(env!("OUT_DIR"), "/split-rules.wasm"))),
    ("rollback-guardrail", include_bytes!(concat!(env!("OUT_DIR"), "/rollback-guardrail.wasm"))),
    ("rollback-threshold", include_bytes!(concat!(env!("OUT_DIR"), "/rollback-threshold.wasm"))),
];

/// The bytes of the plugin of this name inside the binary.
pub(crate) fn shipped(name: &str) -> Option<&'static [u8]> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, bytes)| *bytes)
}

/// Wake-ups that may wait; more say nothing new.
const EVENTS: usize = 64;

/// What was in force under the config before, by route: it stays.
type Before = BTreeMap<String, Stays>;

/// What stays of one route.
struct Stays {
    in_force: Arc<SplitInForce>,
    view: RouteView,
    shadow: Arc<ShadowSlot>,
}

/// The router cannot run policies at all.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No engine.
    #[error("the WebAssembly engine cannot start")]
    Engine(#[source] wasmtime::Error),
    /// No thread.
    #[error("no thread for the policies")]
    Thread(#[source] io::Error),
}

/// What there is of a rollback policy that flags name.
#[derive(Default)]
pub struct RollbackChoice {
    /// What can judge; `None` leaves the one that does.
    pub found: Option<RollbackFound>,
    /// Why that is not what the flags name.
    pub why: Option<String>,
}

/// A rollback policy that can judge.
pub struct RollbackFound {
    /// SHA-256 of its file.
    pub digest: String,
    /// Where it came from.
    pub source: String,
    /// `None` where the caller has one of this digest.
    pub instance: Option<RollbackInstance>,
}

/// The control side of policies.
pub struct Policies {
    config: Arc<Config>,
    engine: PolicyEngine,
    routes: Vec<Followed>,
    board: Board,
    pub(super) wake: SyncSender<Event>,
    pub(super) workshop: Arc<Workshop>,
    pub(super) patience: Patience,
    /// The watched folder, and whose turn it is to change it.
    pub(super) dir: PathBuf,
    pub(super) folder_turn: Semaphore,
}

/// One route: its config, and what is in force on it.
struct Followed {
    config: Route,
    flags: watch::Receiver<Arc<Flags>>,
    split: watch::Receiver<Arc<SplitInForce>>,
    shadow: Arc<ShadowSlot>,
}

impl Policies {
    /// Starts the engine and puts the policies in force that the flags name, as far as they are there; then goes on doing so
    /// on threads of its own. `flags` has one receiver for each route, in the config's order. Inside a tokio runtime, at start-up:
    /// it compiles on the calling thread (0.3 s, or 2 ms with a warm cache).
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly, or gives no threads. A plugin that is missing or bad is no error: the shipped
    /// policy is in force instead, and the status says why.
    pub fn open(config: &Arc<Config>, flags: Vec<watch::Receiver<Arc<Flags>>>) -> Result<Arc<Policies>, PolicyError> {
        let engine = PolicyEngine::new(Limits::of(&config.policies)).map_err(PolicyError::Engine)?;
        Policies::open_with(config, flags, engine, &Before::new())
    }

    /// Those of another config, after these. A policy in force stays so, with its strikes, on a route that stays, unless its limits are
    /// others: then it is loaded anew. As with [`Policies::open`], on the calling thread.
    ///
    /// # Errors
    /// As [`Policies::open`]; these go on then.
    pub fn succeed(&self, config: &Arc<Config>, flags: Vec<watch::Receiver<Arc<Flags>>>) -> Result<Arc<Policies>, PolicyError> {
        let limits = Limits::of(&config.policies);
        let has_same_limits = self.engine.limits() == limits;
        let engine = if has_same_limits { self.engine.clone() } else { PolicyEngine::new(limits).map_err(PolicyError::Engine)? };
        let has_same_patience = Patience::of(&self.config.policies) == Patience::of(&config.policies);
        let mut kept = BTreeMap::new();
        if has_same_limits && has_same_patience {
            let views = self.board.lock().unwrap_or_else(PoisonError::into_inner).routes.clone();
            for (followed, view) in self.routes.iter().zip(views) {
                let (in_force, shadow) = (followed.split.borrow().clone(), followed.shadow.clone());
                kept.insert(followed.config.name.clone(), Stays { in_force, view, shadow });
            }
        }
        let next = Policies::open_with(config, flags, engine, &kept);
        // On a thread that may have compiled, and ends or waits for the next reload.
        allocator::give_back();
        next
    }

    fn open_with(
        config: &Arc<Config>,
        flags: Vec<watch::Receiver<Arc<Flags>>>,
        engine: PolicyEngine,
        before: &Before,
    ) -> Result<Arc<Policies>, PolicyError> {
        let workshop = Arc::new(workshop(config, engine.clone()));
        let board = Board::default();
        let mut keeper = keeper(config, flags.clone(), Arc::clone(&workshop), Arc::clone(&board), before);
        keeper.start();
        let followed = |slot: &RouteSlot| Followed {
            config: slot.route.clone(),
            flags: slot.flags.clone(),
            split: slot.in_force.subscribe(),
            shadow: before.get(&slot.route.name).map(|kept| kept.shadow.clone()).unwrap_or_default(),
        };
        let routes = keeper.routes.iter().map(followed).collect();
        let (wake, events) = sync_channel(EVENTS);
        spawn_threads(keeper, workshop.clone(), events, &wake).map_err(PolicyError::Thread)?;
        announce_flags(flags, wake.clone());
        let (patience, dir, config) = (Patience::of(&config.policies), config.policies.dir.clone(), config.clone());
        Ok(Arc::new(Policies { config, engine, routes, board, wake, workshop, patience, dir, folder_turn: Semaphore::new(1) }))
    }

    /// The policy in force on a route, now and whenever it changes.
    ///
    /// # Panics
    /// For a route that the config does not have.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a route index comes from the config that this was opened with")]
    pub fn split(&self, route: RouteIndex) -> watch::Receiver<Arc<SplitInForce>> {
        self.routes.get(route.get()).expect("a route of the config").split.clone()
    }

    #[allow(clippy::expect_used, reason = "a route index comes from the config that this was opened with")]
    pub(super) fn shadow_slot(&self, route: RouteIndex) -> &ShadowSlot {
        &self.routes.get(route.get()).expect("a route of the config").shadow
    }

    /// A route's config and flags.
    pub(super) fn route(&self, route: RouteIndex) -> Option<(&Route, &watch::Receiver<Arc<Flags>>)> {
        self.routes.get(route.get()).map(|followed| (&followed.config, &followed.flags))
    }

    /// The routes whose flags name a policy so, without a digest.
    pub(super) fn routes_that_name(&self, name: &str) -> impl Iterator<Item = &str> {
        let names = move |followed: &&Followed| {
            let flags = followed.flags.borrow();
            flags.split_policy.digest.is_none() && flags.split_policy.name == name
        };
        self.routes.iter().filter(names).map(|followed| followed.config.name.as_str())
    }

    /// A line for each route where this policy is in force and in quarantine.
    pub(super) fn quarantines(&self, name: &str, digest: &str) -> Vec<String> {
        let now = Instant::now();
        let line = |followed: &Followed| {
            let split = followed.split.borrow();
            let left = split.health.quarantine_left(now).filter(|_| split.name == name && split.digest == digest)?;
            let failure = split.last_failure().unwrap_or_default();
            Some(format!("in quarantine on {} for another {:.1} s: {failure}", followed.config.name, left.as_secs_f64()))
        };
        self.routes.iter().filter_map(line).collect()
    }

    /// The routes where this policy is in force.
    pub(super) fn routes_with(&self, name: &str, digest: &str) -> Vec<String> {
        let has = |followed: &&Followed| {
            let split = followed.split.borrow();
            split.name == name && split.digest == digest
        };
        self.routes.iter().filter(has).map(|followed| followed.config.name.clone()).collect()
    }

    /// The plugins as the keeper last saw them.
    pub(super) fn plugin_views(&self) -> Vec<PluginStatus> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).plugins.clone()
    }

    /// Why this rollback policy would not be in force; `None` as for [`Policies::objection`].
    pub async fn rollback_objection(&self, wanted: &PolicyRef) -> Option<String> {
        let (answer, answered) = oneshot::channel();
        self.wake.try_send(Event::FindRollback(wanted.clone(), answer)).ok()?;
        match answered.await.ok()?.trouble? {
            Trouble::Refused(reason) => Some(reason),
            Trouble::Admitting => None,
        }
    }

    /// Why this split policy would not be in force, as far as that is known without trying it; `None` when nothing is known against
    /// it, also because it is still being looked at.
    pub async fn objection(&self, wanted: &PolicyRef) -> Option<String> {
        let (answer, answered) = oneshot::channel();
        self.wake.try_send(Event::Find(wanted.clone(), answer)).ok()?;
        let Trouble::Refused(reason) = answered.await.ok()?.trouble? else { return None };
        let kept = self.workshop.kept.as_ref();
        let is_kept = wanted.digest.as_ref().is_some_and(|digest| kept.is_some_and(|kept| kept.has(digest)));
        (!is_kept).then_some(reason)
    }

    /// The rollback policy that these flags name. `known` is the digest of the one that the caller has: that is not handed out again. Every route asks each
    /// second: nobody is woken for it.
    #[must_use]
    pub fn rollback(&self, wanted: &PolicyRef, known: Option<&str>) -> RollbackChoice {
        let catalogue = Arc::clone(&self.board.lock().unwrap_or_else(PoisonError::into_inner).catalogue);
        let Choice { found, mut trouble } = catalogue.choose(wanted);
        if in_keeping(&catalogue, self.workshop.kept.as_ref(), wanted).is_some() {
            trouble = Some(Trouble::Admitting);
        }
        let why = trouble.map(|trouble| match trouble {
            Trouble::Admitting => "it is being checked and compiled".to_owned(),
            Trouble::Refused(reason) => reason,
        });
        let found = found.map(|found: Found<RollbackProgram>| {
            let instance =
                (known != Some(found.digest.as_str())).then(|| RollbackInstance::wasm(found.program, wanted.name.as_str().into()));
            RollbackFound { digest: found.digest, source: found.source, instance }
        });
        RollbackChoice { found, why }
    }

    /// What operators are told about a route's policy.
    ///
    /// # Panics
    /// For a route that the config does not have.
    #[must_use]
    pub fn status(&self, route: RouteIndex) -> PolicyStatus {
        let in_force = Arc::clone(&self.split(route).borrow());
        let view = self.board.lock().unwrap_or_else(PoisonError::into_inner).routes.get(route.get()).cloned().unwrap_or_default();
        let quarantine_left = in_force.health.quarantine_left(Instant::now());
        let last_failure = in_force.last_failure();
        let (state, why) = match (&view.trouble, quarantine_left, in_force.kind) {
            (_, Some(_), _) => (PolicyState::Quarantined, last_failure.clone().unwrap_or_default()),
            (Some(Trouble::Admitting), ..) => (PolicyState::Admitting, "it is being checked and compiled".to_owned()),
            (Some(Trouble::Refused(reason)), _, Kind::Wasm) => (PolicyState::Refused, reason.clone()),
            (Some(Trouble::Refused(reason)), _, Kind::Native) => (PolicyState::Native, reason.clone()),
            (None, None, Kind::Native) => (PolicyState::Native, "no component could be compiled on this machine".to_owned()),
            (None, None, Kind::Wasm) if in_force.refuses_flags() => (PolicyState::Unconfigured, last_failure.clone().unwrap_or_default()),
            (None, None, Kind::Wasm) => (PolicyState::InForce, String::new()),
        };
        PolicyStatus {
            name: in_force.name.clone(),
            digest: in_force.digest.clone(),
            state,
            answered_by: answered_by(&in_force),
            last_good: in_force.last_good.as_ref().map(|good| LastGoodStatus {
                name: good.name.clone(),
                digest: good.digest.clone(),
                strikes: good.health.strikes(),
            }),
            wanted: view.wanted,
            why,
            in_force: InForceStatus {
                kind: in_force.kind,
                source: view.source,
                since_unix_ms: view.since_unix_ms,
                strikes: in_force.health.strikes(),
                quarantined_for_ms: quarantine_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                last_failure,
            },
            refusals: view.refusals,
        }
    }
}

fn answered_by(in_force: &SplitInForce) -> AnsweredBy {
    let now = Instant::now();
    if in_force.is_asked(now) {
        return AnsweredBy::Policy;
    }
    let stands_in = in_force.last_good.as_ref().is_some_and(|good| good.is_asked(now));
    if stands_in { AnsweredBy::LastGood } else { AnsweredBy::Native }
}

impl Drop for Policies {
    fn drop(&mut self) {
        // When the channel is full the thread is awake, and takes this one soon.
        let _ = self.wake.send(Event::Stop);
    }
}

fn workshop(config: &Config, engine: PolicyEngine) -> Workshop {
    let data_dir = &config.state.data_dir;
    let warn = |what: &str, error: &io::Error| {
        tracing::warn!(data_dir = %data_dir.display(), %error, "{what}");
    };
    let cache = ArtefactCache::open(&data_dir.join("cache"), engine.engine())
        .inspect_err(|error| warn("no cache for compiled policies; each start compiles anew", error));
    let kept = Kept::open(&data_dir.join("policies-kept"))
        .inspect_err(|error| warn("admitted plugins cannot be kept; flags can name a digest only while its file is there", error));
    Workshop { engine, terms: Terms::of(config), cache: cache.ok(), kept: kept.ok() }
}

fn keeper(config: &Config, flags: Vec<watch::Receiver<Arc<Flags>>>, workshop: Arc<Workshop>, board: Board, before: &Before) -> Keeper {
    let mut catalogue = Catalogue::default();
    for (name, bytes) in SHIPPED {
        match admission::admit(&workshop.engine, workshop.cache.as_ref(), &workshop.terms, bytes) {
            Ok(admitted) => catalogue.ship(name, admitted),
            Err(rejection) => {
                tracing::error!(policy = name, "a shipped policy is refused: {rejection}");
                catalogue.ship_refused(name, rejection.to_string());
            }
        }
    }
    let dir = config.policies.dir.clone();
    if let Err(error) = std::fs::create_dir_all(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "the folder of plugins cannot be made; it is looked for each second");
    }
    let patience = Patience::of(&config.policies);
    let slots = config.routes.iter().zip(flags).map(|(route, flags)| {
        let kept = before.get(&route.name).map(|kept| kept.in_force.clone());
        slot(route, flags, &catalogue, patience, kept)
    });
    let routes: Vec<RouteSlot> = slots.collect();
    let fresh = || RouteView { source: "shipped".to_owned(), since_unix_ms: now_unix_ms(), ..RouteView::default() };
    let view = |slot: &RouteSlot| before.get(&slot.route.name).map_or_else(fresh, |kept| kept.view.clone());
    *board.lock().unwrap_or_else(PoisonError::into_inner) = Views { routes: routes.iter().map(view).collect(), ..Views::default() };
    Keeper {
        catalogue,
        folder: Folder::new(&dir),
        dir,
        queue: std::collections::VecDeque::new(),
        lost: Vec::new(),
        workshop,
        patience,
        routes,
        board,
        awaited: Vec::new(),
        is_busy: false,
        is_settling: false,
        is_serving: false,
        published: None,
    }
}

/// A route as it starts: on what was in force before, else on the shipped default, or natively where that cannot run.
fn slot(
    route: &crate::config::Route,
    flags: watch::Receiver<Arc<Flags>>,
    catalogue: &Catalogue,
    patience: Patience,
    kept: Option<Arc<SplitInForce>>,
) -> RouteSlot {
    if let Some(in_force) = kept {
        return RouteSlot { route: route.clone(), flags, in_force: watch::Sender::new(in_force), failed_trial: None, settled: None };
    }
    let default = crate::flags::PolicyRef { name: SPLIT_WEIGHTED.to_owned(), digest: None };
    let in_force = match catalogue.choose(&default).found {
        Some(found) => SplitInForce::wasm(&route.name, SPLIT_WEIGHTED, &found.digest, found.program, patience),
        None => SplitInForce::native(&route.name, patience),
    };
    RouteSlot { route: route.clone(), flags, in_force: watch::Sender::new(Arc::new(in_force)), failed_trial: None, settled: None }
}

fn spawn_threads(keeper: Keeper, workshop: Arc<Workshop>, events: Receiver<Event>, wake: &SyncSender<Event>) -> io::Result<()> {
    let (jobs, queue) = sync_channel(1);
    let (done, wake) = (wake.clone(), wake.clone());
    thread::Builder::new().name("policy-admit".to_owned()).spawn(move || workshop.work(&queue, &done))?;
    thread::Builder::new().name("policy-keeper".to_owned()).spawn(move || keeper.run(&events, &wake, &jobs))?;
    Ok(())
}

/// Wakes the keeper at every change of flags. Ends with the runtime, or with the senders of the flags.
fn announce_flags(flags: Vec<watch::Receiver<Arc<Flags>>>, wake: SyncSender<Event>) {
    let mut changes = select_all(flags.into_iter().map(WatchStream::from_changes));
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            // When the channel is full, the thread is awake anyway and reads all flags.
            let _ = wake.try_send(Event::Changed);
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// More than wake-ups that may wait: routes beyond that were told nothing.
    #[tokio::test]
    async fn every_route_is_told_its_rollback_policy_however_many_ask_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nstate = {{ data_dir = {:?} }}\n[[route]]\nname = \"search\"\n\
             [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n",
            folder.path().display().to_string()
        );
        let config = Arc::new(crate::config::parse("test", &text).unwrap());
        let flags = watch::Sender::new(Arc::new(Flags::initial(config.routes.first().unwrap())));
        let policies = Policies::open(&config, vec![flags.subscribe()]).unwrap();
        let wanted = PolicyRef { name: "rollback-guardrail".to_owned(), digest: None };
        for _ in 0..=10 * EVENTS {
            let RollbackChoice { found, why } = policies.rollback(&wanted, None);
            assert_eq!((found.unwrap().source.as_str(), why), ("shipped", None));
        }
        let unknown = PolicyRef { name: "nobodys".to_owned(), digest: None };
        let RollbackChoice { found, why } = policies.rollback(&unknown, None);
        assert!(found.is_none() && why.unwrap().contains("no plugin \"nobodys\""));
    }
}
