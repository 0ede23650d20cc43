//! One worker's split of one route: which pool a query goes to, by the policy in force.
//!
//! ```text
//! pin -> override -> experiments -> the policy in force -> the last good policy, where the route wants one -> the native policy
//!                                              | decided: a sample is noted for a shadow run, if one is under way
//! ```
//!
//! Everything that can be worked out when flags change is worked out then ([`Split::apply`]); a query hashes its unit and
//! makes one call.
//!
//! Invariant: a decision never fails. What no policy can answer, the native policy answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use split_weighted::WeightedSplit;
use switchback_policy::split::{Decision, Reason, Snapshot, SplitPolicy};
use tokio::sync::Notify;

use super::experiments::{Experiments, RunningArm};
use super::head::Head;
use super::position::PositionKey;
use super::query::Unit;
use super::seat::Seat;
use super::shadow::Shadow;
use crate::config;
use crate::flags::{Flags, Phase};
use crate::policy::{ShadowRun, SplitInForce, snapshot};
use crate::quality::{DECISIONS, NewArms, Outcomes, PoolCounters, RouteCounters, Series};
use crate::vocabulary::{PoolIndex, Ppm};

/// Places in [`DECISIONS`] of the reasons that are the host's.
const EXPERIMENT: u8 = 3;
const NATIVE: u8 = 5;
const PIN: u8 = 6;
const OVERRIDE: u8 = 7;
const LAST_GOOD: u8 = 8;

/// Whom a query counts for: its arm's series, or that of its pool's version.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    /// The unit's.
    pub(crate) group: u8,
    pub(crate) arm: Option<Arc<Series>>,
}

impl Counted {
    /// Where it is counted; `pool` is the one that answers.
    pub(crate) fn outcomes<'a>(&'a self, pool: &'a PoolCounters) -> &'a Outcomes {
        match &self.arm {
            None => pool.series.outcomes(),
            Some(series) => series.outcomes(),
        }
    }
}

/// Where one query goes, and why.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) pool: PoolIndex,
    /// The live pool's answer may stand in for this pool's. Not for the live pool itself, and not when an operator pinned one, or asked for
    /// it.
    pub(crate) may_fall_back: bool,
    /// Whom it counts for. What an override sends to a pool says nothing about the pool's own queries.
    pub(crate) counts: Option<Counted>,
    /// Place in [`DECISIONS`].
    pub(crate) reason: u8,
    /// Of the flags that were obeyed.
    pub(crate) epoch: u64,
}

/// One worker's split of one route.
pub(crate) struct Split {
    pub(crate) flags: Arc<Flags>,
    snapshot: Snapshot,
    /// Where a decision for a pool goes: there, unless the breaker holds it back.
    pools: Box<[PoolIndex]>,
    experiments: Experiments,
    rollout: PositionKey,
    /// Under which units are in groups.
    groups: PositionKey,
    /// Under which units are chosen to be mirrored; `None` where none is.
    mirror: Option<PositionKey>,
    /// The id of the rollout that mirrors, if one does.
    mirrors_for: Option<Arc<str>>,
    native: WeightedSplit,
    seat: Seat,
    /// The last good policy, where the route wants one.
    standby: Option<Seat>,
    shadow: Option<Shadow>,
}

impl Split {
    /// Where the route had a split `before`, under another config, its policy's instance goes on in this one.
    pub(crate) fn new(
        route: &config::Route,
        flags: Arc<Flags>,
        policy: Arc<SplitInForce>,
        new_arms: &NewArms,
        before: Option<&RefCell<Split>>,
    ) -> Split {
        let snapshot = snapshot(route, &flags);
        let experiments = match before {
            Some(before) => Experiments::of(route, &flags, &before.borrow().experiments, new_arms),
            None => Experiments::of(route, &flags, &Experiments::default(), new_arms),
        };
        let native = configure_native(&snapshot);
        let rollout = PositionKey::new(flags.salt.as_bytes());
        let groups = group_key(&flags);
        let (mirror, mirrors_for) = (mirror_key(&flags), rollout_that_mirrors(&flags));
        let kept = before.and_then(|before| before.borrow_mut().give_up_seats(&policy));
        let (seat, standby) = kept.map_or_else(
            || (Seat::new(policy.clone(), &snapshot, rollout), standby(&policy, &snapshot, rollout)),
            |(mut seat, mut standby)| {
                seat.apply(&snapshot, rollout);
                standby.iter_mut().for_each(|standby| standby.apply(&snapshot, rollout));
                (seat, standby)
            },
        );
        let pools = pools(route, &flags);
        Split { pools, flags, snapshot, experiments, rollout, groups, mirror, mirrors_for, native, seat, standby, shadow: None }
    }

    /// This one decides nothing any more: its instances, if they are of `policy`.
    fn give_up_seats(&mut self, policy: &Arc<SplitInForce>) -> Option<(Seat, Option<Seat>)> {
        Arc::ptr_eq(self.seat.policy(), policy).then(|| (self.seat.give_up(), self.standby.as_mut().map(Seat::give_up)))
    }

    /// Takes new flags.
    pub(crate) fn apply(&mut self, route: &config::Route, flags: Arc<Flags>, new_arms: &NewArms) {
        self.snapshot = snapshot(route, &flags);
        self.experiments = Experiments::of(route, &flags, &self.experiments, new_arms);
        self.native = configure_native(&self.snapshot);
        self.rollout = PositionKey::new(flags.salt.as_bytes());
        self.groups = group_key(&flags);
        (self.mirror, self.mirrors_for) = (mirror_key(&flags), rollout_that_mirrors(&flags));
        self.pools = pools(route, &flags);
        self.flags = flags;
        self.seat.apply(&self.snapshot, self.rollout);
        if let Some(standby) = &mut self.standby {
            standby.apply(&self.snapshot, self.rollout);
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.apply(&self.snapshot, self.rollout);
        }
    }

    /// Takes another policy. The old instance goes on until this has worked out.
    pub(crate) fn swap(&mut self, policy: Arc<SplitInForce>) {
        if Arc::ptr_eq(&policy, self.seat.policy()) {
            return;
        }
        self.standby = standby(&policy, &self.snapshot, self.rollout);
        self.seat = Seat::new(policy, &self.snapshot, self.rollout);
    }

    /// Takes part in a shadow run, or in none. `wake` says when a note waits for [`Split::look_at_note`].
    pub(crate) fn follow_shadow(&mut self, run: Option<Arc<ShadowRun>>, wake: &Rc<Notify>) {
        self.shadow = run.map(|run| Shadow::new(run, wake.clone(), &self.snapshot, self.rollout));
    }

    /// Asks a shadow run's candidate about one noted query; false when none waits.
    pub(crate) fn look_at_note(&mut self, counters: &RouteCounters) -> bool {
        self.shadow.as_mut().is_some_and(|shadow| shadow.look_at_note(&self.snapshot, self.rollout, counters))
    }

    /// Whether a policy should be answering and is not: it failed, or is in quarantine.
    pub(crate) fn lacks_instance(&self) -> bool {
        self.seat.lacks_instance() || self.standby.as_ref().is_some_and(Seat::lacks_instance)
    }

    /// Makes the instances that are missing, but for policies in quarantine. Takes 10-50 us each: not for the query path.
    pub(crate) fn instantiate(&mut self) {
        for seat in [Some(&mut self.seat), self.standby.as_mut()].into_iter().flatten() {
            if seat.lacks_instance() {
                seat.instantiate(&self.snapshot, self.rollout);
            }
        }
    }

    /// Decides one query; `asked` is the pool of a good override. Never fails, never waits.
    pub(crate) fn decide(&mut self, unit: &Unit<'_>, head: &Head, asked: Option<PoolIndex>, counters: &RouteCounters) -> Chosen {
        let epoch = self.flags.epoch;
        if let Some(pool) = self.flags.pin {
            count(counters, PIN);
            return Chosen { pool, may_fall_back: false, counts: Some(self.of_its_pool(unit)), reason: PIN, epoch };
        }
        if let Some(pool) = asked {
            count(counters, OVERRIDE);
            return Chosen { pool, may_fall_back: false, counts: None, reason: OVERRIDE, epoch };
        }
        if !self.experiments.is_empty()
            && let Some(arm) = self.experiments.arm(unit.bytes(), head)
        {
            count(counters, EXPERIMENT);
            return self.send_to_arm(arm, unit, EXPERIMENT);
        }
        let (decision, reason) = match self.seat.ask(unit, head, counters) {
            Some(decision) => {
                if let Some(shadow) = &mut self.shadow {
                    shadow.note(decision, unit, head);
                }
                (decision, reason_index(decision.reason))
            }
            None => self.stand_in(unit, head, counters),
        };
        count(counters, reason);
        if let Some(arm) = decision.arm.and_then(|number| self.experiments.numbered(number))
            && u32::from(arm.pool.0) == decision.pool
        {
            return self.send_to_arm(arm, unit, reason);
        }
        let pool = usize::try_from(decision.pool).ok().and_then(|place| self.pools.get(place)).copied().unwrap_or(self.flags.live);
        Chosen { pool, may_fall_back: pool != self.flags.live, counts: Some(self.of_its_pool(unit)), reason, epoch }
    }

    fn of_its_pool(&self, unit: &Unit<'_>) -> Counted {
        Counted { group: self.groups.group(unit.bytes()), arm: None }
    }

    /// A query of an arm counts for that, and for no version.
    fn send_to_arm(&self, arm: &RunningArm, unit: &Unit<'_>, reason: u8) -> Chosen {
        let counts = Some(Counted { group: arm.groups.group(unit.bytes()), arm: Some(arm.series.clone()) });
        Chosen { pool: arm.pool, may_fall_back: arm.pool != self.flags.live, counts, reason, epoch: self.flags.epoch }
    }

    #[cold]
    fn stand_in(&mut self, unit: &Unit<'_>, head: &Head, counters: &RouteCounters) -> (Decision, u8) {
        match self.standby.as_mut().and_then(|standby| standby.ask(unit, head, counters)) {
            Some(decision) => (decision, LAST_GOOD),
            None => (self.native.route(self.rollout.position(unit.bytes())), NATIVE),
        }
    }

    /// The pool that gets a copy of this query, if any: the candidate's, of the queries of a share of the units, and not of those that go there
    /// anyway.
    pub(crate) fn mirror(&self, unit: &Unit<'_>, chosen: &Chosen) -> Option<PoolIndex> {
        let key = self.mirror.as_ref()?;
        let pool = self.flags.candidate.pool;
        (pool != chosen.pool && key.position(unit.bytes()) < self.flags.mirror.get()).then_some(pool)
    }

    /// The rollout for which queries are copied, and their answers compared; none where somebody set `mirror_percent` by hand.
    pub(crate) fn mirrors_for(&self) -> Option<&Arc<str>> {
        self.mirrors_for.as_ref()
    }
}

/// Of this worker alone: a count of holders that all workers shared would be a cache line that they fight for.
fn rollout_that_mirrors(flags: &Flags) -> Option<Arc<str>> {
    let rollout = flags.rollout.as_ref().filter(|rollout| rollout.phase == Phase::Mirroring)?;
    Some(rollout.id.as_str().into())
}

fn standby(policy: &SplitInForce, snapshot: &Snapshot, rollout: PositionKey) -> Option<Seat> {
    policy.last_good.as_ref().map(|good| Seat::new(good.clone(), snapshot, rollout))
}

/// By place, the pool itself; of those that are held back, control.
fn pools(route: &config::Route, flags: &Flags) -> Box<[PoolIndex]> {
    let itself = (0..=u8::MAX).map(PoolIndex).take(route.pools.len());
    let shed = flags.shed.as_ref();
    itself.map(|pool| shed.filter(|shed| shed.pools.contains(&pool)).map_or(pool, |shed| shed.control)).collect()
}

/// A salt of its own, made of the rollout's: a group has units of both roles.
fn group_key(flags: &Flags) -> PositionKey {
    PositionKey::new(format!("groups:{}", flags.salt).as_bytes())
}

/// A salt of its own, made of the rollout's: whose queries are mirrored has nothing to do with who is on the candidate. A pin sends everything to
/// one pool, copies included; and the live pool needs no copies of its own queries.
fn mirror_key(flags: &Flags) -> Option<PositionKey> {
    let is_mirrored = flags.mirror > Ppm::ZERO && flags.pin.is_none() && flags.candidate.pool != flags.live;
    is_mirrored.then(|| PositionKey::new(format!("mirror:{}", flags.salt).as_bytes()))
}

/// The native policy accepts every snapshot that is made of checked flags; if it ever should not, all goes to live.
fn configure_native(snapshot: &Snapshot) -> WeightedSplit {
    WeightedSplit::configure(snapshot).map_or_else(|_| WeightedSplit::all_live(snapshot.live), |(split, _)| split)
}

fn reason_index(reason: Reason) -> u8 {
    match reason {
        Reason::Live => 0,
        Reason::Candidate => 1,
        Reason::Holdback => 2,
        Reason::Experiment => EXPERIMENT,
        Reason::Rule => 4,
    }
}

fn count(counters: &RouteCounters, reason: u8) {
    let reason = usize::from(reason);
    debug_assert!(reason < DECISIONS.len());
    if let Some(count) = counters.decisions.get(reason) {
        count.increment();
    }
}
