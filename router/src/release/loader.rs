//! Loads a version on the servers of a pool, beside everything else: the rollout looks at how far it is, and nothing waits for a server but the
//! transition that it is about.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::rollout::{LoadSeen, LoadState, ToLoad};
use crate::config::{Config, Route};
use crate::loading::{Load, Loaded, Purpose, Trouble, load};

/// Between two tries, where servers or the registry are away; a longer time after each, up to the last.
const AGAIN_AFTER: [u64; 4] = [1, 2, 5, 15];

/// The load that is under way, or was last.
struct Job {
    /// The rollout's id.
    rollout: String,
    to_load: ToLoad,
    state: watch::Receiver<LoadState>,
    /// Dropped or used, the pool gets back what it had.
    cancel: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// The loads of one route, one at a time.
#[derive(Default)]
pub(super) struct Loader {
    job: Option<Job>,
    /// Whose pool gets back what it had.
    leaving: Option<JoinHandle<()>>,
}

impl Loader {
    /// How far the load of a rollout is.
    pub(super) fn seen(&self, rollout: &str) -> Option<LoadSeen> {
        let job = self.job.as_ref().filter(|job| job.rollout == rollout)?;
        let ToLoad { pool, version, .. } = job.to_load.clone();
        // In this order: a task that has ended says nothing more.
        let (is_over, state) = (job.task.is_finished(), job.state.borrow().clone());
        let died = || LoadState::Refused(format!("loading {version} on {pool} failed within the router: its log says why"));
        let state = if is_over && matches!(state, LoadState::Underway(_)) { died() } else { state };
        Some(LoadSeen { pool, version, state })
    }

    /// Begins a load, unless it is under way; in words, how far it is.
    pub(super) fn begin(&mut self, (rollout, purpose): (&str, Purpose), to_load: ToLoad, config: &Arc<Config>, route: &Route) -> String {
        if let Some(job) = self.job.as_ref().filter(|job| job.rollout == rollout && job.to_load == to_load) {
            return in_words(&job.state.borrow(), &to_load);
        }
        self.take_back();
        // What is being taken back may be of the same pool.
        if self.is_leaving() {
            return format!("pool {} gets back what it had before another version is loaded", to_load.pool);
        }
        let Some(load) = asked(&to_load, purpose, config, route) else {
            return format!("there is no pool {} any more", to_load.pool);
        };
        let (say, state) = watch::channel(LoadState::Underway(format!("{} is loaded on {}", to_load.version, to_load.pool)));
        let (cancel, cancelled) = oneshot::channel();
        let task = tokio::spawn(keep_trying(load, say, cancelled));
        let words = in_words(&state.borrow(), &to_load);
        self.job = Some(Job { rollout: rollout.to_owned(), to_load, state, cancel: Some(cancel), task });
        words
    }

    /// Ends what another rollout wanted.
    pub(super) fn end_others(&mut self, rollout: &str) {
        if self.job.as_ref().is_some_and(|job| job.rollout != rollout) {
            self.take_back();
        }
    }

    /// The version is not wanted any more: where it is not loaded yet, its pool gets back what it had.
    pub(super) fn take_back(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        if let Some(cancel) = job.cancel.take().filter(|_| !job.task.is_finished()) {
            let _ = cancel.send(());
            self.leaving = Some(job.task);
        }
    }

    /// A pool gets back what it had.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| !leaving.is_finished())
    }

    /// Another router loads from now on.
    pub(super) fn let_go(&mut self) {
        if let Some(job) = self.job.take() {
            job.task.abort();
        }
    }
}

fn in_words(state: &LoadState, to_load: &ToLoad) -> String {
    match state {
        LoadState::Underway(what) | LoadState::Refused(what) => what.clone(),
        LoadState::Loaded { .. } => format!("{} is loaded on {}", to_load.version, to_load.pool),
    }
}

fn asked(to_load: &ToLoad, purpose: Purpose, config: &Config, route: &Route) -> Option<Load> {
    let pool = route.pools.iter().find(|pool| pool.name == to_load.pool)?.clone();
    let others = route.pools.iter().filter(|other| other.name != pool.name).cloned().collect();
    let (registry, loading) = (config.registry.clone(), route.loading.clone()?);
    let (route, sha256) = (route.name.clone(), to_load.sha256.clone());
    Some(Load { registry, route, loading, pool, others, number: to_load.number, sha256, only: None, purpose })
}

async fn keep_trying(wanted: Load, say: watch::Sender<LoadState>, mut cancelled: oneshot::Receiver<()>) {
    let mut pauses = AGAIN_AFTER.into_iter();
    let mut pause = 1;
    loop {
        let progress = |what: String| drop(say.send_replace(LoadState::Underway(what)));
        match load(&wanted, &mut cancelled, &progress).await {
            Ok(Some(Loaded { what, took_ms })) => return drop(say.send_replace(LoadState::Loaded { what, took_ms })),
            Ok(None) => return,
            Err(Trouble::Refused(why)) => return drop(say.send_replace(LoadState::Refused(why))),
            Err(Trouble::Away(why)) => {
                pause = pauses.next().unwrap_or(pause);
                let (route, pool) = (&wanted.route, &wanted.pool.name);
                tracing::warn!(
                    route,
                    pool,
                    version = wanted.number,
                    why,
                    again_in_s = pause,
                    "a version cannot be loaded; it is tried again"
                );
                say.send_replace(LoadState::Underway(format!("{why}; tried again")));
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(pause)) => {}
                    _ = &mut cancelled => return,
                }
            }
        }
    }
}
