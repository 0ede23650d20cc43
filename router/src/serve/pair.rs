//! A query and its copy: what a rollout knows of both answers, until both are over.
//!
//! ```text
//! query's answer: head (Pair::listen) -> body as it passes (LiveHalf) --|
//!                                                                       |--> whoever lets go of the pair last hands it in
//! copy's answer:  head (Pair::begins) -> body as it is drained ---------|
//! ```
//!
//! Both are of one worker. A copy that nobody sent, and a query that nobody answered, leave their half empty: such a pair counts nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;

use super::listen::{BodyCopy, packing};
use super::routes::RouteWorker;
use crate::quality::signals::{Half, Kept, Packing, PairOf, has_list};
use crate::quality::{route_id, version_id};
use crate::vocabulary::PoolIndex;

/// A query that is copied.
pub(crate) struct Pair {
    pub(crate) route: Rc<RouteWorker>,
    /// That gets the copy.
    pub(crate) pool: PoolIndex,
    /// The rollout that mirrors; without one, nothing is compared.
    rollout: Option<Arc<str>>,
    live: RefCell<Option<Half>>,
    copy: RefCell<Option<Half>>,
}

/// The query's own answer, as its body passes.
pub(crate) struct LiveHalf {
    pair: Rc<Pair>,
    packing: Packing,
    kept: Kept,
}

impl Pair {
    pub(crate) fn new(route: &Rc<RouteWorker>, pool: PoolIndex, rollout: Option<&Arc<str>>) -> Rc<Pair> {
        let (live, copy) = (RefCell::new(None), RefCell::new(None));
        Rc::new(Pair { route: route.clone(), pool, rollout: rollout.cloned(), live, copy })
    }

    /// Whether anybody wants to know how the copy is answered.
    pub(crate) fn is_compared(&self) -> bool {
        self.rollout.is_some()
    }

    /// The query has the head of its answer, from the live pool or another one, with which nothing is compared. The body is copied as it passes, beside
    /// what `copy` is for.
    #[cold]
    pub(crate) fn listen(self: &Rc<Pair>, head: &Parts, is_live: bool, copy: Option<Box<BodyCopy>>) -> Option<Box<BodyCopy>> {
        if !is_live {
            return copy;
        }
        let half = match self.begins(head) {
            Half::Body(packing, kept) => {
                *self.live.borrow_mut() = Some(Half::Unkept);
                Some(LiveHalf { pair: self.clone(), packing, kept })
            }
            half => {
                *self.live.borrow_mut() = Some(half);
                None
            }
        };
        match half {
            Some(half) => Some(BodyCopy::and(copy, half)),
            None => copy,
        }
    }

    /// What an answer is by its head.
    pub(crate) fn begins(&self, head: &Parts) -> Half {
        if head.status.is_server_error() {
            return Half::Failed;
        }
        if !head.status.is_success() {
            return Half::Refused;
        }
        let signals = self.route.config.signals.as_ref().filter(|signals| self.is_compared() && has_list(signals));
        match (signals, packing(&head.headers)) {
            (None, _) => Half::Unkept,
            (Some(_), None) => Half::NoJson,
            (Some(signals), Some(packing)) => Half::Body(packing, self.route.desk.keep(signals.max_body)),
        }
    }

    /// The copy is over, so.
    pub(crate) fn is_copied(&self, half: Half) {
        *self.copy.borrow_mut() = Some(half);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let (rollout, live, copy) = (self.rollout.take(), self.live.take(), self.copy.take());
        let (Some(rollout), Some(live), Some(copy), Some(pool)) = (rollout, live, copy, self.route.config.pools.get(self.pool.get()))
        else {
            return;
        };
        let of = PairOf { route: route_id(&self.route.config.name), version: version_id(&pool.name, &pool.version), rollout };
        self.route.desk.hand_in(of, live, copy, self.route.config.signals.as_ref());
    }
}

impl LiveHalf {
    pub(crate) fn pass(&mut self, piece: &[u8]) {
        self.kept.pass(piece);
    }

    /// All of it has passed.
    pub(crate) fn deliver(self) {
        let LiveHalf { pair, packing, kept } = self;
        *pair.live.borrow_mut() = Some(Half::Body(packing, kept));
    }
}
