//! A policy's place on one worker: the policy, its configured instance, and whether it can be asked.
//!
//! Invariant: an instance that failed is never asked again, and one that refused the flags is not kept at older ones.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;
use switchback_policy::split::{Decision, Field, Salt, Snapshot, Wanted};
use tokio::time::Instant;

use super::head::Head;
use super::position::PositionKey;
use super::query::{self, Unit};
use crate::allocator;
use crate::policy::{Kind, PolicyFailure, SplitInForce, SplitInstance};
use crate::quality::RouteCounters;

/// One decision in so many is timed.
const TIMED_EVERY: u32 = 64;
/// Salts, or fields, for which nothing is allocated.
const FEW: usize = 4;

/// A policy on one worker.
pub(crate) struct Seat {
    policy: Arc<SplitInForce>,
    instance: Option<Configured>,
    /// The policy refused these flags: it is asked again when they change.
    is_refused: bool,
    until_timed: u32,
}

/// A policy instance, and what it wants to see.
pub(crate) struct Configured {
    pub(crate) instance: SplitInstance,
    pub(crate) keys: Vec<PositionKey>,
    pub(crate) fields: Vec<Field>,
}

impl Seat {
    pub(crate) fn new(policy: Arc<SplitInForce>, snapshot: &Snapshot, rollout: PositionKey) -> Seat {
        let mut seat = Seat { policy, instance: None, is_refused: false, until_timed: 0 };
        seat.instantiate(snapshot, rollout);
        seat
    }

    /// The same place without this one, which is left without an instance: another config's routes are in force.
    pub(crate) fn give_up(&mut self) -> Seat {
        Seat { policy: self.policy.clone(), instance: self.instance.take(), is_refused: self.is_refused, until_timed: self.until_timed }
    }

    pub(crate) fn policy(&self) -> &Arc<SplitInForce> {
        &self.policy
    }

    /// Takes new flags. The instance is configured again; one that cannot be is made anew.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot, rollout: PositionKey) {
        self.is_refused = false;
        let kept = self.instance.take().filter(|_| !self.policy.health.is_quarantined(Instant::now()));
        let Some(Configured { mut instance, .. }) = kept else {
            return self.instantiate(snapshot, rollout);
        };
        match instance.configure(snapshot) {
            Ok(wanted) => {
                self.policy.accepted_flags();
                self.instance = Some(Configured::new(instance, wanted, rollout));
            }
            Err(failure) => {
                self.configuring_failed(&failure);
                // One that took all of its time has held up this worker long enough: it is tried again in a while, and not at once.
                let was_late = matches!(failure, PolicyFailure::Deadline { .. });
                if !self.is_refused && !was_late {
                    self.instantiate(snapshot, rollout);
                }
            }
        }
    }

    /// A policy that refuses the flags is not kept at older ones: it would know the previous live pool, and must not hold up a
    /// flip. Others decide in its place until the flags change.
    fn configuring_failed(&mut self, failure: &PolicyFailure) {
        self.is_refused = failure.is_refusal();
        self.policy.failed(failure, Instant::now());
        // What it wanted may have been millions of salts.
        allocator::give_back();
    }

    /// Whether it should be answering and has no instance to do so: it failed, or is in quarantine.
    #[inline]
    pub(crate) fn lacks_instance(&self) -> bool {
        self.instance.is_none() && self.policy.kind == Kind::Wasm && !self.is_refused
    }

    /// Makes an instance, unless the policy is in quarantine. Takes 10-50 us: not for the query path.
    pub(crate) fn instantiate(&mut self, snapshot: &Snapshot, rollout: PositionKey) {
        if self.policy.kind != Kind::Wasm || self.policy.health.is_quarantined(Instant::now()) {
            return;
        }
        match self.policy.instantiate(snapshot) {
            Ok((instance, wanted)) => self.instance = Some(Configured::new(instance, wanted, rollout)),
            Err(failure) => self.configuring_failed(&failure),
        }
    }

    /// What the policy says of a query; `None` when it cannot be asked, or gives no usable answer.
    #[inline]
    pub(crate) fn ask(&mut self, unit: &Unit<'_>, head: &Head, counters: &RouteCounters) -> Option<Decision> {
        if self.policy.health.has_quarantine() && self.policy.health.is_quarantined(Instant::now()) {
            // Struck out by another worker: this one's instance goes too, and comes back when the quarantine ends.
            self.instance = None;
            return None;
        }
        let started = self.is_timed().then(Instant::now);
        let result = self.instance.as_mut()?.route(unit, head);
        if let Some(started) = started {
            counters.policy_durations.record(started.elapsed());
        }
        match result {
            Ok(decision) => Some(decision),
            Err(failure) => {
                counters.policy_failures.increment();
                self.instance = None;
                self.policy.failed(&failure, Instant::now());
                None
            }
        }
    }

    fn is_timed(&mut self) -> bool {
        let (left, overflowed) = self.until_timed.overflowing_sub(1);
        self.until_timed = if overflowed { TIMED_EVERY - 1 } else { left };
        overflowed
    }
}

impl Configured {
    pub(crate) fn new(instance: SplitInstance, wanted: Wanted, rollout: PositionKey) -> Configured {
        let keys = wanted.salts.iter().map(|salt| match salt {
            Salt::Rollout => rollout,
            Salt::Named(text) => PositionKey::new(text.as_bytes()),
        });
        Configured { instance, keys: keys.collect(), fields: wanted.fields }
    }

    /// The cheap call when the policy wants one position and nothing else.
    fn route(&mut self, unit: &Unit<'_>, head: &Head) -> Result<Decision, PolicyFailure> {
        if let ([key], []) = (self.keys.as_slice(), self.fields.as_slice()) {
            return self.instance.route(key.position(unit.bytes()));
        }
        self.route_fields(unit, head)
    }

    #[inline(never)]
    fn route_fields(&mut self, unit: &Unit<'_>, head: &Head) -> Result<Decision, PolicyFailure> {
        let positions: SmallVec<[u32; FEW]> = self.keys.iter().map(|key| key.position(unit.bytes())).collect();
        let values: SmallVec<[Option<Cow<'_, str>>; FEW]> = self.fields.iter().map(|field| query::field(head, field)).collect();
        let values: SmallVec<[Option<&str>; FEW]> = values.iter().map(Option::as_deref).collect();
        self.instance.route_fields(&positions, &values)
    }
}
