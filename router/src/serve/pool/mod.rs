//! Pools: which endpoint gets a query, and how many queries a pool may have.
//!
//! [`SharedPool`] is what all workers, the control thread and the admin API see; [`Pool`] is one worker's side of it.
//!
//! ```text
//! control thread: health checks, outliers, names -> SharedEndpoint -> SharedPool::change
//! worker:         Pool::start -> the eligible, worked out when something changed -> two at random -> Slot
//! ```

mod ejection;
mod eligible;
mod endpoint;
mod ewma;
mod health;
mod names;
mod outlier;
mod places;
mod probe;
mod reason;
mod retry_budget;
mod shared_endpoint;
mod shared_pool;
mod slot;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use ejection::eject_outliers;
pub(crate) use endpoint::Endpoint;
pub(crate) use health::check_forever;
pub(crate) use names::{follow_name, look_up_all};
pub use outlier::Why;
pub(crate) use places::Place;
pub use probe::Probed;
pub(crate) use reason::{Fault, no_tls, unreadable};
pub use shared_endpoint::{EndpointState, SharedEndpoint};
pub(crate) use shared_pool::MirrorSlot;
pub use shared_pool::SharedPool;
pub(crate) use slot::Slot;

use eligible::Eligible;
use endpoint::{FULL_LOAD, LEFT_ALONE_LOAD};
use retry_budget::RetryBudget;

/// One worker's side of a pool.
pub(crate) struct Pool {
    pub(crate) shared: Arc<SharedPool>,
    endpoints: Vec<Endpoint>,
    /// What is chosen from, as of the pool's change number that stands beside it.
    eligible: RefCell<Eligible>,
    eligible_as_of: Cell<u32>,
    random: Cell<u64>,
    retries: RetryBudget,
}

impl Pool {
    pub(crate) fn new(shared: &Arc<SharedPool>, seed: u64, now: Instant) -> Pool {
        let endpoints = shared.endpoints.iter().map(|endpoint| Endpoint::new(endpoint.clone(), &shared.config, now));
        let as_of = shared.changes();
        Pool {
            endpoints: endpoints.collect(),
            eligible: RefCell::new(shared.eligible()),
            eligible_as_of: Cell::new(as_of),
            shared: shared.clone(),
            random: Cell::new(seed | 1),
            retries: RetryBudget::new(now),
        }
    }

    /// One worker's side of this pool under another config: `before` itself where the pool is the same; else a new one that takes over
    /// the idle connections to endpoints that stay.
    pub(crate) fn succeed(before: Option<&Rc<Pool>>, shared: &Arc<SharedPool>, seed: u64, now: Instant) -> Rc<Pool> {
        if let Some(before) = before.filter(|before| Arc::ptr_eq(&before.shared, shared)) {
            return before.clone();
        }
        let pool = Pool::new(shared, seed, now);
        for endpoint in &pool.endpoints {
            let old = before.into_iter().flat_map(|before| &before.endpoints);
            if let Some(old) = old.into_iter().find(|old| Arc::ptr_eq(&old.shared, &endpoint.shared)) {
                endpoint.take_over(old);
            }
        }
        Rc::new(pool)
    }

    /// An endpoint for one attempt, and the places that it takes there: the less loaded of two eligible ones taken at random, and not `avoid` if
    /// there is another. `None` when the pool is full, or each of its endpoints is.
    pub(crate) fn start(&self, avoid: Option<usize>, now: Instant) -> Option<(usize, Slot)> {
        if !self.shared.enter() {
            return None;
        }
        let entered = match self.endpoints.as_slice() {
            [only] => only.shared.enter().then_some((0, false)),
            _ => self.enter_one(avoid, now),
        };
        let slot = entered.and_then(|(index, is_probe)| {
            let endpoint = self.endpoints.get(index)?;
            Some((index, Slot::new(&self.shared, &endpoint.shared, is_probe)))
        });
        if slot.is_none() {
            self.shared.leave();
        }
        // A second attempt is no further query.
        if avoid.is_none() {
            self.retries.deposit();
        }
        slot
    }

    /// The endpoint's place, and whether the attempt is a probe. Second attempts are not spent on probes.
    #[inline(never)]
    fn enter_one(&self, avoid: Option<usize>, now: Instant) -> Option<(usize, bool)> {
        self.follow_changes();
        let eligible = self.eligible.borrow();
        let enters = |index: usize| self.endpoints.get(index).is_some_and(|endpoint| endpoint.shared.enter());
        if avoid.is_none()
            && let Some(index) = eligible.half_open.iter().copied().find(|index| self.takes_probe(*index))
        {
            // A place that was full meanwhile is no answer of the endpoint: the probe waits for another query.
            if enters(index) {
                return Some((index, true));
            }
            let shared = &self.endpoints.get(index)?.shared;
            shared.give_probe_back(shared.probe_round());
        }
        let chosen = self.choose(eligible.places(avoid), avoid, now)?;
        if enters(chosen) {
            return Some((chosen, false));
        }
        // Another worker took the last place at this moment.
        eligible.places.iter().copied().find(|index| enters(*index)).map(|index| (index, false))
    }

    fn takes_probe(&self, index: usize) -> bool {
        self.endpoints.get(index).is_some_and(|endpoint| endpoint.shared.take_probe())
    }

    /// Works out what is chosen from, if an endpoint changed since the last time.
    fn follow_changes(&self) {
        let changes = self.shared.changes();
        if self.eligible_as_of.replace(changes) != changes {
            *self.eligible.borrow_mut() = self.shared.eligible();
        }
    }

    fn choose(&self, places: &[usize], avoid: Option<usize>, now: Instant) -> Option<usize> {
        let avoided = avoid.and_then(|avoid| places.iter().position(|place| *place == avoid));
        let count = places.len() - usize::from(avoided.is_some());
        if count == 0 {
            return places.first().copied();
        }
        // Places but for the avoided one, counted through.
        let nth = |number: usize| places.get(number + usize::from(avoided.is_some_and(|avoided| avoided <= number))).copied();
        let first = self.random_below(count);
        let second = (first + 1 + self.random_below(count - 1)) % count;
        let (one, other) = (nth(first)?, nth(second)?);
        let (one, other) = if self.load(other, now) < self.load(one, now) { (other, one) } else { (one, other) };
        if self.load(one, now) >= LEFT_ALONE_LOAD {
            return Some(self.any_other(places, one, now));
        }
        // One that came back lately wins less often, and begins with a share that grows.
        let is_passed_over = self.share(one, now) < 1.0 && self.is_unlucky(self.share(one, now)) && self.load(other, now) < LEFT_ALONE_LOAD;
        Some(if is_passed_over { other } else { one })
    }

    /// Both that were drawn failed a moment ago, or are full: the first that did not and is not, from a place taken at random. Without one, better
    /// an endpoint that failed than one that is full.
    fn any_other(&self, places: &[usize], drawn: usize, now: Instant) -> usize {
        let start = self.random_below(places.len());
        let below = |limit: f64| {
            let mut all = places.iter().cycle().skip(start).take(places.len()).copied();
            all.find(|place| self.load(*place, now) < limit)
        };
        below(LEFT_ALONE_LOAD).or_else(|| below(FULL_LOAD)).unwrap_or(drawn)
    }

    fn load(&self, index: usize, now: Instant) -> f64 {
        self.endpoints.get(index).map_or(FULL_LOAD, |endpoint| endpoint.load(now))
    }

    fn share(&self, index: usize, now: Instant) -> f64 {
        self.endpoints.get(index).map_or(1.0, |endpoint| endpoint.share(now))
    }

    /// True in `1 - share` of the cases.
    fn is_unlucky(&self, share: f64) -> bool {
        const STEPS: u32 = 1 << 16;
        let drawn = u32::try_from(self.random_below(STEPS as usize)).unwrap_or(0);
        f64::from(drawn) >= share * f64::from(STEPS)
    }

    pub(crate) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Leave to try a query once more; see [`retry_budget`].
    pub(crate) fn may_retry(&self, now: Instant) -> bool {
        self.retries.withdraw(now)
    }

    /// A number below `bound` (0 for a bound of 0): xorshift64*, good enough to spread load and free of system calls.
    fn random_below(&self, bound: usize) -> usize {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        let high = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        let bound = u64::try_from(bound).unwrap_or(0);
        usize::try_from((high * bound) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
