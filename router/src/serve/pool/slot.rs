//! An attempt's place in flight, and where what became of it is counted.

use std::cell::Cell;
use std::sync::Arc;

use super::{SharedEndpoint, SharedPool};

/// A place in the pool's and one endpoint's count of attempts in flight; given back when dropped.
pub(crate) struct Slot {
    pool: Arc<SharedPool>,
    endpoint: Arc<SharedEndpoint>,
    pub(crate) is_probe: bool,
    /// Of a probe: which time it is that the endpoint is half-open.
    probe_round: u32,
    /// Sent to see whether the endpoint works again, and nothing is known yet.
    is_open_probe: Cell<bool>,
}

impl Slot {
    /// Of places that were taken.
    pub(super) fn new(pool: &Arc<SharedPool>, endpoint: &Arc<SharedEndpoint>, is_probe: bool) -> Slot {
        let probe_round = if is_probe { endpoint.probe_round() } else { 0 };
        Slot { pool: pool.clone(), endpoint: endpoint.clone(), is_probe, probe_round, is_open_probe: Cell::new(is_probe) }
    }

    /// Counts how the attempt went, for or against its endpoint. In a pool of one there is nobody to compare it with.
    pub(crate) fn settle(&self, is_good: bool) {
        if self.pool.endpoints.len() > 1 {
            self.count(is_good);
        }
    }

    /// A head came: that is all that a probe is about. A body may take for ever.
    pub(crate) fn head_came(&self, is_good: bool) {
        if self.is_open_probe.get() {
            self.end_probe(is_good);
        }
    }

    fn count(&self, is_good: bool) {
        if self.is_open_probe.get() {
            self.end_probe(is_good);
        }
        if is_good {
            self.endpoint.attempt_succeeded();
        } else if self.endpoint.attempt_failed() >= self.pool.config.outlier.consecutive_failures {
            self.pool.news.notify_one();
        }
    }

    #[cold]
    fn end_probe(&self, is_good: bool) {
        self.is_open_probe.set(false);
        self.endpoint.probe_ended(self.probe_round, is_good);
        self.pool.news.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.leave();
        self.endpoint.leave();
        if self.is_open_probe.get() {
            self.endpoint.give_probe_back(self.probe_round);
        }
    }
}
