//! Where the judges of all routes say what they know, and the admin API reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::controller::RollbackTotals;
use super::experiments::view::ExperimentEvidence;
use super::strays::RouteStrays;
use super::view::{BreakerView, EvidenceView, HistoryView, JudgeView};
use crate::config::Route;
use crate::notify::Delivery;

/// What is known of one route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteBoard {
    /// Of its candidate, the last one; `None` when there was none.
    pub evidence: Option<EvidenceView>,
    /// Of the live model against itself, while there is no candidate.
    pub history: Option<HistoryView>,
    /// Who judges.
    pub judge: JudgeView,
    /// Why nothing is judged at this moment: the store is away.
    pub away: Option<String>,
    /// What other routers said and cannot be read; the first of it.
    pub faults: Vec<String>,
}

/// What this router knows of a rollout beside its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutBoard {
    /// What it waits for, after so many transitions.
    pub waits_for: Option<(u64, String)>,
    /// Why a rollback that is due is not written.
    pub blocked: Option<String>,
    /// The router that moves it, as far as is known.
    pub controller: Option<String>,
    /// Transitions that this router wrote, by event.
    pub moves: BTreeMap<&'static str, u64>,
}

/// The boards of all routes, by name; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Boards>>);

#[derive(Debug, Default)]
struct Boards {
    judged: BTreeMap<String, RouteBoard>,
    breakers: BTreeMap<String, BreakerView>,
    rollbacks: BTreeMap<String, RollbackTotals>,
    rollouts: BTreeMap<String, RolloutBoard>,
    experiments: BTreeMap<String, BTreeMap<String, ExperimentEvidence>>,
    strays: BTreeMap<String, RouteStrays>,
    targets: Vec<Arc<Delivery>>,
}

impl Board {
    /// What is known of a route.
    #[must_use]
    pub fn of(&self, route: &str) -> RouteBoard {
        self.lock().judged.get(route).cloned().unwrap_or_default()
    }

    /// What this router's own breaker knows of a route's candidate.
    #[must_use]
    pub fn breaker(&self, route: &str) -> BreakerView {
        self.lock().breakers.get(route).cloned().unwrap_or_default()
    }

    /// How rollbacks of a route went.
    #[must_use]
    pub fn rollbacks(&self, route: &str) -> RollbackTotals {
        self.lock().rollbacks.get(route).cloned().unwrap_or_default()
    }

    /// What is known of a route's rollout.
    #[must_use]
    pub fn rollout(&self, route: &str) -> RolloutBoard {
        self.lock().rollouts.get(route).cloned().unwrap_or_default()
    }

    /// What is known of an experiment of a route.
    #[must_use]
    pub fn experiment(&self, route: &str, name: &str) -> ExperimentEvidence {
        self.lock().experiments.get(route).and_then(|known| known.get(name)).cloned().unwrap_or_default()
    }

    pub(super) fn put_experiments(&self, route: &str, known: BTreeMap<String, ExperimentEvidence>) {
        self.lock().experiments.insert(route.to_owned(), known);
    }

    /// Servers of a route's pools that serve another version than their pool runs.
    #[must_use]
    pub fn strays(&self, route: &str) -> RouteStrays {
        self.lock().strays.get(route).cloned().unwrap_or_default()
    }

    pub(super) fn put_strays(&self, route: &str, strays: RouteStrays) {
        self.lock().strays.insert(route.to_owned(), strays);
    }

    pub(super) fn put_rollout(&self, route: &str, waits_for: Option<(u64, String)>, controller: Option<String>) {
        let mut boards = self.lock();
        let known = boards.rollouts.entry(route.to_owned()).or_default();
        (known.waits_for, known.controller) = (waits_for, controller);
    }

    pub(super) fn put_blocked(&self, route: &str, why: Option<String>) {
        self.lock().rollouts.entry(route.to_owned()).or_default().blocked = why;
    }

    /// Counts a transition that this router wrote.
    pub fn count_move(&self, route: &str, event: &'static str) {
        *self.lock().rollouts.entry(route.to_owned()).or_default().moves.entry(event).or_default() += 1;
    }

    /// Counts a rollback.
    pub fn count_rollback(&self, route: &str, cause: &'static str) {
        *self.lock().rollbacks.entry(route.to_owned()).or_default().by_cause.entry(cause).or_default() += 1;
    }

    /// Every known router obeys one, so long after it was decided.
    pub fn count_obeyed(&self, route: &str, took: Duration) {
        self.lock().rollbacks.entry(route.to_owned()).or_default().obeyed(took);
    }

    pub(super) fn put(&self, route: &str, board: RouteBoard) {
        self.lock().judged.insert(route.to_owned(), board);
    }

    pub(super) fn put_breaker(&self, route: &str, view: &BreakerView) {
        let mut boards = self.lock();
        match boards.breakers.get_mut(route) {
            Some(known) if known == view => {}
            Some(known) => known.clone_from(view),
            None => drop(boards.breakers.insert(route.to_owned(), view.clone())),
        }
    }

    /// Who is told of what happens, and what became of that.
    #[must_use]
    pub fn targets(&self) -> Vec<Arc<Delivery>> {
        self.lock().targets.clone()
    }

    pub(super) fn put_targets(&self, targets: &[Arc<Delivery>]) {
        self.lock().targets = targets.to_vec();
    }

    pub(super) fn forget(&self, route: &str) {
        let mut boards = self.lock();
        boards.judged.remove(route);
        boards.breakers.remove(route);
        boards.experiments.remove(route);
        boards.strays.remove(route);
    }

    fn lock(&self) -> MutexGuard<'_, Boards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log evidence from which a shipped policy rolls back; `None` for one's own, which has its own rule.
#[must_use]
pub(super) fn threshold_log(policy: &str, route: &Route) -> Option<f64> {
    let config = (policy == "rollback-guardrail").then(|| rollback_guardrail::check(&route.rollback_config).ok())??;
    Some(config.threshold_log())
}
