//! Where the judges of all routes say what they know, and the admin API reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::view::{EvidenceView, HistoryView, JudgeView};
use crate::config::Route;

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

/// The boards of all routes, by name; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, RouteBoard>>>);

impl Board {
    /// What is known of a route.
    #[must_use]
    pub fn of(&self, route: &str) -> RouteBoard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(route).cloned().unwrap_or_default()
    }

    pub(super) fn put(&self, route: &str, board: RouteBoard) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(route.to_owned(), board);
    }

    pub(super) fn forget(&self, route: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }
}

/// The log evidence from which a shipped policy rolls back; `None` for one's own, which has its own rule.
#[must_use]
pub(super) fn threshold_log(policy: &str, route: &Route) -> Option<f64> {
    let config = (policy == "rollback-guardrail").then(|| rollback_guardrail::check(&route.rollback_config).ok())??;
    Some(config.threshold_log())
}
