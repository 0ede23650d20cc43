//! One worker's split of one route: which pool a query goes to, by the policy in force.
//!
//! Everything that can be worked out when flags change is worked out then ([`Split::apply`]); a query hashes its unit and
//! makes one call.
//!
//! Invariant: a decision never fails. What a policy cannot answer, the native policy answers.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use split_weighted::WeightedSplit;
use switchback_policy::split::{Decision, Field, Reason, Salt, Snapshot, SplitPolicy, Wanted};
use tokio::time::Instant;

use super::position::PositionKey;
use super::query::{self, Unit};
use crate::config;
use crate::flags::Flags;
use crate::policy::{Kind, PolicyFailure, SplitInForce, SplitInstance, snapshot};
use crate::quality::{DECISIONS, RouteCounters};
use crate::vocabulary::PoolIndex;

/// One decision in so many is timed.
const TIMED_EVERY: u32 = 64;

/// Places in [`DECISIONS`] of the reasons that the host adds to the policy's.
const NATIVE: usize = 5;
const PIN: usize = 6;

/// Where one query goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) pool: PoolIndex,
    /// The live pool's answer may stand in for this pool's. Not for the live pool itself, and not when an operator pinned one.
    pub(crate) may_fall_back: bool,
}

/// One worker's split of one route.
pub(crate) struct Split {
    pub(crate) flags: Arc<Flags>,
    snapshot: Snapshot,
    rollout: PositionKey,
    native: WeightedSplit,
    policy: Arc<SplitInForce>,
    instance: Option<Configured>,
    /// The policy refused these flags: it is asked again when they change.
    is_refused: bool,
    until_timed: u32,
}

/// A policy instance, and what it wants to see.
struct Configured {
    instance: SplitInstance,
    keys: Vec<PositionKey>,
    fields: Vec<Field>,
}

impl Split {
    /// Where the route had a split `before`, under another config, its policy's instance goes on in this one.
    pub(crate) fn new(route: &config::Route, flags: Arc<Flags>, policy: Arc<SplitInForce>, before: Option<&RefCell<Split>>) -> Split {
        let snapshot = snapshot(route, &flags);
        let native = configure_native(&snapshot);
        let rollout = PositionKey::new(flags.salt.as_bytes());
        let instance = before.and_then(|before| before.borrow_mut().give_up_instance(&policy));
        let mut split = Split { flags: flags.clone(), snapshot, rollout, native, policy, instance, is_refused: false, until_timed: 0 };
        split.apply(route, flags);
        split
    }

    /// This one decides nothing any more: the instance, if it is one of `policy`.
    fn give_up_instance(&mut self, policy: &Arc<SplitInForce>) -> Option<Configured> {
        if Arc::ptr_eq(&self.policy, policy) { self.instance.take() } else { None }
    }

    /// Takes new flags. The instance is configured again; one that cannot be is made anew.
    pub(crate) fn apply(&mut self, route: &config::Route, flags: Arc<Flags>) {
        self.snapshot = snapshot(route, &flags);
        self.native = configure_native(&self.snapshot);
        self.rollout = PositionKey::new(flags.salt.as_bytes());
        self.flags = flags;
        self.is_refused = false;
        let kept = self.instance.take().filter(|_| !self.policy.health.is_quarantined(Instant::now()));
        let Some(Configured { mut instance, .. }) = kept else {
            return self.instantiate();
        };
        match instance.configure(&self.snapshot) {
            Ok(wanted) => {
                self.policy.accepted_flags();
                self.instance = Some(configured(instance, wanted, self.rollout));
            }
            Err(failure) => {
                self.configuring_failed(&failure);
                if !self.is_refused {
                    self.instantiate();
                }
            }
        }
    }

    /// A policy that refuses the flags is not kept at older ones: it would know the previous live pool, and must not hold up a
    /// flip. Native decisions stand in until the flags change.
    fn configuring_failed(&mut self, failure: &PolicyFailure) {
        self.is_refused = failure.is_refusal();
        self.policy.failed(failure, Instant::now());
    }

    /// Takes another policy. The old instance goes on until this has worked out.
    pub(crate) fn swap(&mut self, policy: Arc<SplitInForce>) {
        self.policy = policy;
        self.is_refused = false;
        self.instance = None;
        self.instantiate();
    }

    /// Whether a policy should be answering and none is: it failed, or is in quarantine.
    pub(crate) fn lacks_instance(&self) -> bool {
        self.instance.is_none() && self.is_wasm() && !self.is_refused
    }

    fn is_wasm(&self) -> bool {
        self.policy.kind == Kind::Wasm
    }

    /// Makes an instance, unless the policy is in quarantine. Takes 10-50 us: not for the query path.
    pub(crate) fn instantiate(&mut self) {
        if !self.is_wasm() || self.policy.health.is_quarantined(Instant::now()) {
            return;
        }
        match self.policy.instantiate(&self.snapshot) {
            Ok((instance, wanted)) => self.instance = Some(configured(instance, wanted, self.rollout)),
            Err(failure) => self.configuring_failed(&failure),
        }
    }

    /// Decides one query. Never fails, never waits.
    pub(crate) fn decide(&mut self, unit: &Unit<'_>, head: &http::request::Parts, counters: &RouteCounters) -> Chosen {
        if let Some(pool) = self.flags.pin {
            count(counters, PIN);
            return Chosen { pool, may_fall_back: false };
        }
        let (decision, reason) = match self.ask_policy(unit, head, counters) {
            Some(decision) => (decision, reason_index(decision.reason)),
            None => (self.native.route(self.rollout.position(unit.bytes())), NATIVE),
        };
        count(counters, reason);
        let pool = u8::try_from(decision.pool).map_or(self.flags.live, PoolIndex);
        Chosen { pool, may_fall_back: pool != self.flags.live }
    }

    fn ask_policy(&mut self, unit: &Unit<'_>, head: &http::request::Parts, counters: &RouteCounters) -> Option<Decision> {
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
    /// The cheap call when the policy wants one position and nothing else.
    fn route(&mut self, unit: &Unit<'_>, head: &http::request::Parts) -> Result<Decision, PolicyFailure> {
        if let ([key], []) = (self.keys.as_slice(), self.fields.as_slice()) {
            return self.instance.route(key.position(unit.bytes()));
        }
        let positions: Vec<u32> = self.keys.iter().map(|key| key.position(unit.bytes())).collect();
        let values: Vec<Option<Cow<'_, str>>> = self.fields.iter().map(|field| query::field(head, field)).collect();
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        self.instance.route_fields(&positions, &values)
    }
}

fn configured(instance: SplitInstance, wanted: Wanted, rollout: PositionKey) -> Configured {
    let keys = wanted.salts.iter().map(|salt| match salt {
        Salt::Rollout => rollout,
        Salt::Named(text) => PositionKey::new(text.as_bytes()),
    });
    Configured { instance, keys: keys.collect(), fields: wanted.fields }
}

/// The native policy accepts every snapshot that is made of checked flags; if it ever should not, all goes to live.
fn configure_native(snapshot: &Snapshot) -> WeightedSplit {
    WeightedSplit::configure(snapshot).map_or_else(|_| WeightedSplit::all_live(snapshot.live), |(split, _)| split)
}

fn reason_index(reason: Reason) -> usize {
    match reason {
        Reason::Live => 0,
        Reason::Candidate => 1,
        Reason::Holdback => 2,
        Reason::Experiment => 3,
        Reason::Rule => 4,
    }
}

fn count(counters: &RouteCounters, reason: usize) {
    debug_assert!(reason < DECISIONS.len());
    if let Some(count) = counters.decisions.get(reason) {
        count.increment();
    }
}
