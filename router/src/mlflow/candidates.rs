//! Candidates that webhooks named: one at a time for each route, and of those that wait the newest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::child::{self, Program};
use super::deliveries::{Delivered, Deliveries};
use super::kept::{Kept, Left};
use super::webhook::Signed;
use super::wish::Wish;
use crate::config::Config;

/// Candidates of all routes that are worked on at the same time.
const AT_A_TIME: usize = 4;
/// Why one was withdrawn.
const WITHDRAWN: &str = "the router's config does not ask for it any more";

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
    /// A newer one came while it waited for its turn, or for another try.
    Replaced,
    /// The config in force does not ask for it any more.
    Withdrawn,
    /// It took too long.
    Late,
}

impl Ended {
    /// All of them.
    pub const ALL: [Ended; 6] = [Ended::Deployed, Ended::NotPushed, Ended::NotDeployed, Ended::Replaced, Ended::Withdrawn, Ended::Late];

    /// In metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Ended::Deployed => "deployed",
            Ended::NotPushed => "not_pushed",
            Ended::NotDeployed => "not_deployed",
            Ended::Replaced => "replaced",
            Ended::Withdrawn => "withdrawn",
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
    /// When it is tried again, and why, where somebody is away.
    pub waits: Option<String>,
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

/// How long one that met somebody who is away is tried again.
struct Patience {
    /// Before the second try; twice as long before each further one.
    first: Duration,
    /// The longest pause.
    longest: Duration,
    /// From the first try on.
    all: Duration,
}

const PATIENCE: Patience = Patience { first: Duration::from_secs(5), longest: Duration::from_secs(600), all: Duration::from_secs(86_400) };

struct Shared {
    program: Program,
    patience: Patience,
    room: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    /// The config in force, once it was told.
    config: Option<Arc<Config>>,
    /// What comes now is kept, for the next process.
    is_stopped: bool,
    /// By route.
    slots: BTreeMap<String, Slot>,
    taken: Deliveries,
    counts: BTreeMap<(String, Ended), u64>,
    /// By route.
    last: BTreeMap<String, (Outcome, Instant)>,
    deliveries: BTreeMap<&'static str, u64>,
}

struct Slot {
    next: Option<Wish>,
    work: AbortHandle,
    /// Told when there is a next one.
    wake: Arc<Notify>,
    /// When the next try is, and why.
    waits: Option<(Instant, String)>,
}

impl Candidates {
    /// Of a router that was started by this program with this config file, and keeps what it has not finished in this folder.
    #[must_use]
    pub fn new(program: PathBuf, config_file: &Path, data_dir: &Path) -> Candidates {
        let config_file = std::path::absolute(config_file).unwrap_or_else(|_| config_file.to_owned());
        let state = State { kept: Kept::in_folder(data_dir), ..State::default() };
        let program = Program { program, config_file };
        let room = Semaphore::new(AT_A_TIME);
        Candidates { shared: Arc::new(Shared { program, patience: PATIENCE, room, state: Mutex::new(state) }) }
    }

    /// Takes a delivery.
    #[must_use]
    pub fn take(&self, signed: &Signed, max_age: Duration, now_unix_ms: u64) -> Delivered {
        self.state().taken.take(signed, max_age, now_unix_ms)
    }

    /// Works on a wish as soon as the one before it is done. To be called on the runtime that it is worked on.
    pub fn submit(&self, wish: Wish) -> Told {
        let mut state = self.state();
        let (model, alias, before) = (wish.alias.model.clone(), wish.alias.alias.clone(), wish.before.clone());
        state.kept.add(&wish.route, Left { model, alias, before });
        let route = wish.route.clone();
        if state.is_stopped {
            return Told::Waits;
        }
        if let Some(slot) = state.slots.get_mut(&route) {
            let is_replaced = slot.next.replace(wish).is_some();
            slot.wake.notify_one();
            if is_replaced {
                state.count(&route, Ended::Replaced);
            }
            return Told::Waits;
        }
        let wake = Arc::new(Notify::new());
        let work = tokio::spawn(work(self.clone(), wish, Arc::clone(&wake))).abort_handle();
        state.slots.insert(route, Slot { next: None, work, wake, waits: None });
        Told::Begun
    }

    /// Takes up what the process before this one did not finish, as far as this config still asks for it.
    pub fn resume(&self, config: &Arc<Config>) {
        let kept = {
            let mut state = self.state();
            (state.is_stopped, state.config) = (false, Some(Arc::clone(config)));
            state.kept.read()
        };
        for (route, Left { model, alias, before }) in kept {
            let wish = Wish::of(config, &model, &alias).into_iter().find(|wish| wish.route == route);
            match wish {
                Some(wish) => {
                    tracing::info!(route, candidate = %wish.from(), "a candidate of MLflow's is taken up again");
                    self.submit(Wish { before, ..wish });
                }
                None => self.state().kept.remove(&route),
            }
        }
    }

    /// Another config is in force: what it does not ask for is not tried again.
    pub fn follow(&self, config: &Arc<Config>) {
        let mut state = self.state();
        state.config = Some(Arc::clone(config));
        for slot in state.slots.values() {
            slot.wake.notify_one();
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
            waits: slot.and_then(|slot| slot.waits.as_ref()).map(|(at, why)| {
                let seconds = at.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                format!("tried again in {seconds} s: {why}")
            }),
            last: last.map(|(outcome, _)| outcome.clone()),
            last_ms_ago: last.map(|(_, at)| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Tries one until it is deployed or refused, a newer one waits, the config asks for it no more, or it was tried for long enough.
    async fn to_its_end(&self, wish: &Wish, wake: &Notify) -> Outcome {
        let Shared { program, patience, room, .. } = &*self.shared;
        let (began, mut pause, mut version) = (Instant::now(), patience.first, None);
        loop {
            self.waits(&wish.route, None);
            // It is never closed.
            let permit = room.acquire().await;
            let Some(wish) = self.in_force(wish) else {
                let (candidate, why) = (wish.from().to_string(), Some(WITHDRAWN.to_owned()));
                return Outcome { candidate, version, result: Ended::Withdrawn, why };
            };
            let child::Tried { outcome, is_for_now } = child::deploy(program, &wish).await;
            drop(permit);
            if !is_for_now || began.elapsed() + pause > patience.all {
                return outcome;
            }
            let (route, why) = (wish.route.as_str(), outcome.in_words());
            tracing::warn!(route, candidate = outcome.candidate, why, ?pause, "a candidate of MLflow's is tried again");
            let until = Instant::now() + pause;
            self.waits(route, Some((until, why)));
            if self.is_replaced(&wish, wake, until).await {
                return Outcome { result: Ended::Replaced, ..outcome };
            }
            version = outcome.version;
            pause = (pause * 2).min(patience.longest);
        }
    }

    /// Whether another one of the route comes before then. It is known at once where the config asks for this one no more.
    async fn is_replaced(&self, wish: &Wish, wake: &Notify, until: Instant) -> bool {
        loop {
            let is_there = self.state().slots.get(&wish.route).is_some_and(|slot| slot.next.is_some());
            if is_there || self.in_force(wish).is_none() {
                return is_there;
            }
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep_until(until) => return false,
            }
        }
    }

    /// A wish as the config in force has it; `None` where that asks for it no more.
    fn in_force(&self, wish: &Wish) -> Option<Wish> {
        let config = self.state().config.clone();
        match config {
            Some(config) => wish.under(&config),
            None => Some(wish.clone()),
        }
    }

    fn waits(&self, route: &str, waits: Option<(Instant, String)>) {
        if let Some(slot) = self.state().slots.get_mut(route) {
            slot.waits = waits;
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

    /// The next one of the route, or none, and then nobody works for it. Who delivers again what failed wants it again.
    fn next(&mut self, wish: &Wish, outcome: Outcome) -> Option<Wish> {
        let route = wish.route.as_str();
        self.count(route, outcome.result);
        let has_failed = matches!(outcome.result, Ended::NotPushed | Ended::NotDeployed | Ended::Withdrawn | Ended::Late);
        if let Some(delivery) = wish.delivery.as_ref().filter(|_| has_failed) {
            self.taken.fail(delivery, route);
        }
        self.last.insert(route.to_owned(), (outcome, Instant::now()));
        let next = self.slots.get_mut(route).and_then(|slot| slot.next.take());
        if next.is_none() {
            self.slots.remove(route);
            self.kept.remove(route);
        }
        next
    }
}

impl Outcome {
    /// `not pushed: exit status: 69: ...`
    fn in_words(&self) -> String {
        let result = self.result.label().replace('_', " ");
        self.why.as_ref().map_or_else(|| result.clone(), |why| format!("{result}: {why}"))
    }

    fn log(&self, route: &str) {
        let (candidate, version, result) = (&self.candidate, self.version.unwrap_or_default(), self.result.label());
        match (&self.why, self.result) {
            (_, Ended::Replaced) => tracing::info!(route, candidate, version, "a newer candidate of MLflow's takes the place of one"),
            (_, Ended::Withdrawn) => tracing::info!(route, candidate, version, "a candidate of MLflow's is given up: {WITHDRAWN}"),
            (None, _) => tracing::info!(route, candidate, version, "the rollout of a candidate of MLflow's has begun"),
            (Some(why), _) => {
                tracing::error!(route, candidate, version, result, why, "a candidate of MLflow's is not deployed");
            }
        }
    }
}

/// One wish after the other.
async fn work(candidates: Candidates, mut wish: Wish, wake: Arc<Notify>) {
    loop {
        let outcome = candidates.to_its_end(&wish, &wake).await;
        outcome.log(&wish.route);
        let next = candidates.state().next(&wish, outcome);
        match next {
            Some(next) => wish = next,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wish::tests::config;
    use super::child::tests::{program, wish};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn candidates(folder: &Path, push: &str, [first, longest, all]: [Duration; 3]) -> Candidates {
        let (program, patience) = (program(folder, push, "true"), Patience { first, longest, all });
        let shared = Shared { program, patience, room: Semaphore::new(AT_A_TIME), state: Mutex::default() };
        Candidates { shared: Arc::new(shared) }
    }

    fn tries(folder: &Path) -> usize {
        let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
        asked.lines().filter(|line| line.contains("model push")).count()
    }

    #[tokio::test]
    async fn who_is_away_is_asked_again_until_the_answer_comes() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked").display().to_string();
        let push = format!("[ $(grep -c 'model push' {asked}) -gt 3 ] || {{ echo away >&2; exit 69; }}; echo '{{\"version\": 7}}'");
        let short = Duration::from_millis(1);
        let candidates = candidates(folder.path(), &push, [short, short * 3, MINUTE]);
        let outcome = candidates.to_its_end(&wish(MINUTE), &Notify::new()).await;
        assert_eq!((outcome.result, outcome.version, tries(folder.path())), (Ended::Deployed, Some(7), 4));
    }

    #[tokio::test]
    async fn it_is_not_tried_for_ever_and_not_where_it_is_refused() {
        for (push, all, least, most) in [("exit 75", Duration::from_secs(2), 2, usize::MAX), ("exit 2", MINUTE, 1, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let candidates = candidates(folder.path(), push, [Duration::from_millis(1), Duration::from_millis(400), all]);
            let (wish, wake) = (wish(MINUTE), Notify::new());
            let outcome = tokio::time::timeout(MINUTE, candidates.to_its_end(&wish, &wake)).await.unwrap();
            let tries = tries(folder.path());
            assert!(outcome.result == Ended::NotPushed && (least..=most).contains(&tries), "{push}: {tries}");
        }
    }

    #[tokio::test]
    async fn one_that_the_config_asks_for_no_more_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let candidates = candidates(folder.path(), "echo away >&2; exit 69", [MINUTE * 60, MINUTE * 60, MINUTE * 600]);
        candidates.follow(&config("champion"));
        assert_eq!(candidates.submit(wish(MINUTE)), Told::Begun);
        while candidates.progress("search").waits.is_none() {
            tokio::task::yield_now().await;
        }
        candidates.follow(&config("champion"));
        candidates.follow(&config("live"));
        while candidates.ended("search", Ended::Withdrawn) == 0 {
            tokio::task::yield_now().await;
        }
        let Progress { is_working, waits, last, .. } = candidates.progress("search");
        assert_eq!((is_working, waits, tries(folder.path())), (false, None, 1));
        assert_eq!(last.unwrap().why.unwrap(), WITHDRAWN);
    }

    #[tokio::test]
    async fn a_newer_one_takes_the_place_of_one_that_waits_for_another_try() {
        let folder = tempfile::tempdir().unwrap();
        let candidates = candidates(folder.path(), "echo away >&2; exit 69", [MINUTE * 60, MINUTE * 60, MINUTE * 600]);
        let is_seen = |what: &dyn Fn(&Progress) -> bool| what(&candidates.progress("search"));
        assert_eq!(candidates.submit(wish(MINUTE)), Told::Begun);
        while !is_seen(&|progress| progress.waits.is_some()) {
            tokio::task::yield_now().await;
        }
        let waits = candidates.progress("search").waits.unwrap();
        assert!(waits.starts_with("tried again in 3") && waits.ends_with(" s: not pushed: exit status: 69: away"), "{waits}");
        assert_eq!(candidates.submit(wish(MINUTE)), Told::Waits);
        while candidates.ended("search", Ended::Replaced) == 0 || !is_seen(&|progress| progress.waits.is_some()) {
            tokio::task::yield_now().await;
        }
        assert_eq!((tries(folder.path()), candidates.progress("search").is_waiting), (2, false));
        candidates.stop();
    }

    #[test]
    fn a_delivery_whose_candidate_failed_may_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let candidates = candidates(folder.path(), "true", [MINUTE; 3]);
        for result in Ended::ALL {
            let signed = Signed { id: format!("{result:?}"), unix_seconds: 100 };
            let take = || candidates.take(&signed, MINUTE, 100_000);
            assert_eq!((take(), take()), (Delivered::New, Delivered::Repeated));
            let delivered = Wish { delivery: Some(signed.id.clone()), ..wish(MINUTE) };
            let outcome = Outcome { candidate: "models:/a@b".to_owned(), version: None, result, why: None };
            assert_eq!(candidates.state().next(&delivered, outcome), None);
            let comes_again = !matches!(result, Ended::Deployed | Ended::Replaced);
            let again = if comes_again { Delivered::Again(["search".to_owned()].into()) } else { Delivered::Repeated };
            assert_eq!(take(), again, "{result:?}");
        }
    }
}
