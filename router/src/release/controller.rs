//! Switches back: when the evidence of the fleet says that a candidate does harm, or half of the routers hold it back, it is taken out of traffic everywhere.
//!
//! Every router looks, four times a second, and whoever sees it first writes the flags. A write names the epoch that it was decided on: of two routers, one writes, and a change that somebody else
//! made meanwhile is never overwritten. Nothing here moves a candidate forward.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::board::Board;
use super::grounds::grounds_of_rollback;
use super::mover::{Look, Mover};
use super::record::Word;
use super::roles::{Arms, Setting};
use super::rollback::{Cause, is_undone, of_breakers, rollback};
use super::under::{Under, newest};
use super::view::EvidenceView;
use crate::config::Route;
use crate::flags::{Change, ChangeError, CopiesSeen, Flags, Kind, Rollout};
use crate::quality::{DURATION_EDGES_MICROS, FleetClock, route_id};
use crate::vocabulary::RouteIndex;

/// What became of copies is told for so long after the last transition of a rollout that is over.
const COPIES_TOLD_MS: u64 = 600_000;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a write that failed, the next one is tried so much later.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A router that is known and has not obeyed by then is not waited for any more.
const OBEYED_WITHIN: Duration = Duration::from_secs(30);

/// All routes.
pub(super) struct Controller {
    under: watch::Receiver<Arc<Under>>,
    router: String,
    clock: FleetClock,
    board: Board,
    /// By place in the config.
    routes: Vec<RouteController>,
}

/// One route.
#[derive(Default)]
struct RouteController {
    name: String,
    /// Some pool of it had no healthy endpoint, the last time.
    has_down: bool,
    flags: Option<Arc<Flags>>,
    arms: Option<Arms>,
    /// The id of the rollout that they are of, where there is one.
    rollout: Option<String>,
    /// The epoch of the last flags before the arms became these, where this router saw it.
    arms_after: Option<u64>,
    not_before: Option<Instant>,
    /// A rollback that is written, and that not all routers obey yet.
    done: Option<Done>,
    /// Moves the rollout on.
    mover: Mover,
}

struct Done {
    epoch: u64,
    decided: Instant,
}

/// How rollbacks went, since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollbackTotals {
    /// By cause: `evidence`, `breakers`, `gate` or `operator`.
    pub by_cause: BTreeMap<&'static str, u64>,
    /// From the decision until every known router obeyed: by bucket, and the sum in microseconds.
    pub obeyed: [u64; DURATION_EDGES_MICROS.len() + 1],
    /// Their sum, in microseconds.
    pub obeyed_micros: u64,
}

impl RollbackTotals {
    pub(super) fn obeyed(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_EDGES_MICROS.partition_point(|edge| *edge < micros);
        if let Some(count) = self.obeyed.get_mut(bucket) {
            *count += 1;
        }
        self.obeyed_micros = self.obeyed_micros.saturating_add(micros);
    }
}

impl Controller {
    pub(super) fn new(mut under: watch::Receiver<Arc<Under>>, router: String, clock: FleetClock, board: Board) -> Controller {
        under.mark_changed();
        Controller { under, router, clock, board, routes: Vec::new() }
    }

    /// Looks until the sender of configs is gone.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.under.has_changed().is_ok() {
            ticks.tick().await;
            let (under, is_other) = newest(&mut self.under);
            if is_other {
                self.follow(&under);
            }
            for (index, route) in (0..=u16::MAX).map(RouteIndex).zip(&under.config.routes) {
                self.look(&under, index, route).await;
            }
        }
    }

    /// The routes of this config: those that were there before go on, and each is looked at anew.
    fn follow(&mut self, under: &Under) {
        let mut before: HashMap<String, RouteController> = self.routes.drain(..).map(|known| (known.name.clone(), known)).collect();
        for route in &under.config.routes {
            let mut known = before.remove(&route.name).unwrap_or_default();
            known.mover.rests = false;
            self.routes.push(RouteController { name: route.name.clone(), has_down: true, ..known });
        }
    }

    async fn look(&mut self, under: &Under, index: RouteIndex, route: &Route) {
        let Some(known) = self.routes.get_mut(index.get()) else { return };
        let flags = under.flags.stored(index);
        known.tell_down(under, index, route);
        tell_copies(under, (index, route), &flags, self.clock.now_ms());
        if known.is_idle(&flags) && under.flags.trip(index).is_none() {
            return;
        }
        known.follow(&flags, route);
        if known.done.as_ref().is_some_and(|done| done.is_over(under, index)) {
            let took = known.done.take().map(|done| done.decided.elapsed()).unwrap_or_default();
            tracing::info!(route = route.name, ?took, "the rollback is done: every known router obeys it");
            self.board.count_obeyed(&route.name, took);
        }
        let is_rolling_back = self.roll_back_if_due(under, (index, route), &flags).await;
        if !is_rolling_back && !is_behind(&flags, route) {
            let Some(known) = self.routes.get_mut(index.get()) else { return };
            let is_clock_heard = self.clock.is_heard() || !under.flags.has_others();
            let (router, now_ms, board) = (&self.router, self.clock.now_ms(), &self.board);
            let look = Look { under, index, route, flags: &flags, router, now_ms, is_clock_heard, board };
            known.mover.look(&look).await;
        }
    }

    /// Whether a rollback is due, or was written.
    async fn roll_back_if_due(&mut self, under: &Under, (index, route): (RouteIndex, &Route), flags: &Flags) -> bool {
        let Some(known) = self.routes.get(index.get()) else { return false };
        let is_early = known.not_before.is_some_and(|not_before| Instant::now() < not_before);
        // With nobody under test it is an operator's order.
        let may_act = known.arms.is_none() || !route.is_observed_only;
        let Some(cause) = known.due(under, index, &self.board.of(&route.name).evidence).filter(|_| may_act && !is_early) else {
            return is_early;
        };
        self.switch_back(under, (index, route), flags, &cause).await;
        true
    }

    async fn switch_back(&mut self, under: &Under, (index, route): (RouteIndex, &Route), flags: &Flags, cause: &Cause) {
        let back = rollback(flags, route, self.clock.now_ms(), &cause.to_string());
        let (Some(back), Some(known)) = (back, self.routes.get_mut(index.get())) else { return };
        // A pool that nobody can be sent to is no way out: whoever is answered now goes on being answered.
        let health = route.pool_named(&back.target).and_then(|pool| (under.health)(index).get(pool.get()).copied()).unwrap_or_default();
        if health.healthy == 0 {
            if known.not_before.is_none() {
                let (candidate, target) = (&back.candidate, &back.target);
                tracing::error!(route = route.name, candidate, target, %cause, "a rollback is due, and its target has no healthy endpoint: it waits for one");
            }
            known.not_before = Some(Instant::now() + AGAIN_AFTER);
            self.board.put_blocked(&route.name, Some(format!("a rollback is due, and {} has no healthy endpoint", back.target)));
            return;
        }
        self.board.put_blocked(&route.name, None);
        let (decided, why) = (Instant::now(), back.reason(&cause.to_string(), health));
        let grounds = Some(Box::new(grounds_of_rollback(&back, flags, &self.board.of(&route.name))));
        let change = Change {
            fields: back.fields,
            expected_epoch: Some(flags.epoch),
            kind: Kind::Rollback,
            who: format!("router:{}", self.router).chars().take(128).collect(),
            why: why.clone(),
            grounds,
        };
        let (candidate, control, target) = (&back.candidate, &back.control, &back.target);
        match under.flags.change(index, change).await {
            Ok(epoch) => {
                tracing::error!(route = route.name, candidate, control, target, epoch, why, "rolled back");
                known.done = Some(Done { epoch, decided });
                self.board.count_rollback(&route.name, cause.label());
            }
            // Somebody was first: what they wrote is looked at.
            Err(ChangeError::Conflict { .. }) => {}
            Err(error) => {
                if known.not_before.is_none() {
                    tracing::error!(route = route.name, candidate, %error, why = %cause, "a rollback is due and cannot be written; it is tried again");
                }
                known.not_before = Some(Instant::now() + AGAIN_AFTER);
            }
        }
    }
}

/// The other routers hear what became of the copies of queries that this one sent for the rollout that runs, or ran some minutes ago.
fn tell_copies(under: &Under, (index, route): (RouteIndex, &Route), flags: &Flags, now_ms: u64) {
    let is_told = |rollout: &&Arc<Rollout>| rollout.phase.is_active() || now_ms.saturating_sub(rollout.since_ms) < COPIES_TOLD_MS;
    let copies = flags.rollout.as_ref().filter(is_told).map(|rollout| {
        let copies = under.signals.copies(route_id(&route.name), &rollout.id);
        CopiesSeen { rollout: rollout.id.clone(), copies }
    });
    under.flags.set_copies(index, copies.filter(|seen| seen.copies.sent > 0));
}

/// What an operator took back of a rollout that is done, while no store could be told: it is written as soon as one can, as what half of the routers do.
fn undone(under: &Under, index: RouteIndex, flags: &Flags) -> Option<Cause> {
    let route = under.config.routes.get(index.get())?;
    let own = under.flags.trip(index).filter(|trip| is_undone(trip, flags, route))?;
    let routers = under.flags.routers(index).into_iter().filter(|router| router.is_known);
    let held_back = routers.map(|router| router.trip.filter(|trip| trip.version == own.version).map(|trip| trip.why));
    of_breakers(&held_back.collect::<Vec<_>>())
}

/// Whether the flags say that a pool runs another version than this config has: it follows in a moment, as at a router's start. Until then what a pool runs is not
/// known here, and nothing is moved on for it.
fn is_behind(flags: &Flags, route: &Route) -> bool {
    let is_other = |(pool, version): (&crate::vocabulary::PoolIndex, &String)| {
        route.pools.get(pool.get()).is_some_and(|pool| pool.version != *version)
    };
    flags.versions.iter().any(is_other)
}

impl RouteController {
    /// Whether these flags were looked at, nobody is under test by them, and nothing is under way: another look would find nothing to do.
    fn is_idle(&self, flags: &Arc<Flags>) -> bool {
        let is_known = self.flags.as_ref().is_some_and(|known| Arc::ptr_eq(known, flags));
        is_known && self.arms.is_none() && self.done.is_none() && self.mover.rests
    }

    /// The other routers hear which pools have no healthy endpoint.
    fn tell_down(&mut self, under: &Under, index: RouteIndex, route: &Route) {
        let health = (under.health)(index);
        let has_down = health.iter().any(|health| health.healthy == 0);
        if std::mem::replace(&mut self.has_down, has_down) || has_down {
            let down = route.pools.iter().zip(health).filter(|(_, health)| health.healthy == 0);
            under.flags.set_down(index, down.map(|(pool, _)| pool.name.clone()).collect());
        }
    }

    /// Notes who is compared, and since which flags.
    fn follow(&mut self, flags: &Arc<Flags>, route: &Route) {
        if self.flags.as_ref().is_some_and(|known| Arc::ptr_eq(known, flags)) {
            return;
        }
        let before = self.flags.replace(flags.clone());
        self.mover.rests = false;
        let (arms, rollout) = (Setting::of(flags, route).arms, flags.rollout.as_ref().map(|rollout| rollout.id.clone()));
        if arms != self.arms || rollout != self.rollout {
            self.rollout = rollout;
            self.arms_after = before.map(|before| before.epoch).filter(|before| *before < flags.epoch);
            (self.arms, self.not_before) = (arms, None);
        }
    }

    /// Whether the candidate is to go, and why.
    fn due(&self, under: &Under, index: RouteIndex, evidence: &Option<EvidenceView>) -> Option<Cause> {
        let Some(arms) = self.arms.as_ref() else { return undone(under, index, self.flags.as_deref()?) };
        let routers = under.flags.routers(index).into_iter().filter(|router| router.is_known);
        let held_back: Vec<Option<String>> =
            routers.map(|router| router.trip.filter(|trip| trip.version == arms.candidate.version).map(|trip| trip.why)).collect();
        let of_gate = || self.mover.wants_rollback.clone().map(Cause::Gate);
        of_breakers(&held_back).or_else(of_gate).or_else(|| self.of_evidence(arms, evidence.as_ref()?))
    }

    /// Evidence on a candidate that had its share before, and is back, is not on this one.
    fn of_evidence(&self, arms: &Arms, evidence: &EvidenceView) -> Option<Cause> {
        let is_of_these = evidence.candidate.version == arms.candidate.version && evidence.control.version == arms.control.version;
        let is_of_now = self.arms_after.zip(evidence.began_epoch).is_none_or(|(after, began)| began > after);
        let says_so = evidence.verdict == Some(Word::RollBack.label());
        (is_of_these && is_of_now && says_so && !evidence.is_over).then(|| Cause::Evidence(evidence.summary.clone()))
    }
}

impl Done {
    /// Every router that is heard of obeys it, or is not waited for any more.
    fn is_over(&self, under: &Under, index: RouteIndex) -> bool {
        let mut routers = under.flags.routers(index).into_iter().filter(|router| router.is_known);
        routers.all(|router| router.epoch >= self.epoch) || self.decided.elapsed() > OBEYED_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::record::tests::record;
    use crate::release::roles::tests::{flags, route};
    use crate::release::view;

    #[test]
    fn a_route_is_idle_when_its_flags_were_looked_at_and_nothing_is_under_way() {
        let file = route(["v1", "v2", "v3"]);
        let mut known = RouteController::default();
        let at_rest = Arc::new(flags(&file, &[]));
        known.follow(&at_rest, &file);
        assert!(!known.is_idle(&at_rest), "what is left of a rollout is yet to be looked at");
        known.mover.rests = true;
        assert!(known.is_idle(&at_rest));
        known.done = Some(Done { epoch: 7, decided: Instant::now() });
        assert!(!known.is_idle(&at_rest), "a rollback is waited for");
        known.done = None;
        let others = Arc::new(flags(&file, &[("live", "green")]));
        assert!(!known.is_idle(&others));
        known.follow(&others, &file);
        assert!(!known.is_idle(&others), "flags that nobody moved a rollout by yet");
        let ramp = Arc::new(flags(&file, &[("canary_percent", "5")]));
        known.follow(&ramp, &file);
        known.mover.rests = true;
        assert!(!known.is_idle(&ramp), "somebody is under test");
    }

    #[test]
    fn evidence_on_a_candidate_that_was_taken_back_is_not_on_the_one_that_is_given_its_share_again() {
        let file = route(["v1", "v3", "v2"]);
        let at = |epoch: u64, percent: &str| Arc::new(Flags { epoch, ..flags(&file, &[("canary_percent", percent)]) });
        let (mut known, record) = (RouteController::default(), record());
        let mut evidence = view::evidence(record.comparison.as_ref().unwrap(), &record, &file);
        assert_eq!((evidence.began_epoch, evidence.verdict), (Some(7), Some("roll_back")));
        let mut acts = |known: &RouteController, began_epoch| {
            evidence.began_epoch = began_epoch;
            known.of_evidence(known.arms.as_ref().unwrap(), &evidence).is_some()
        };
        // A router that was there for neither the first change nor the last one before it.
        known.follow(&at(4, "5"), &file);
        assert!(acts(&known, Some(2)), "it saw nothing else than these arms");
        known.follow(&at(6, "20"), &file);
        assert!(acts(&known, Some(2)) && acts(&known, Some(6)), "a step is no other candidate");
        known.follow(&at(7, "0"), &file);
        known.follow(&at(9, "20"), &file);
        assert!(!acts(&known, Some(6)), "judged a second later, and of before all the same");
        assert!(acts(&known, Some(8)), "others saw it sooner than this one");
        assert!(acts(&known, Some(9)) && acts(&known, None));
        // A store that lost everything begins anew.
        known.follow(&at(1, "0"), &file);
        known.follow(&at(1, "20"), &file);
        assert!(acts(&known, Some(1)));
    }

    #[test]
    fn a_config_follows_the_versions_of_the_flags() {
        let file = route(["v1", "v2", "v3"]);
        assert!(!is_behind(&flags(&file, &[]), &file), "what the flags leave to the config is as the config says");
        let loaded = flags(&file, &[("version.canary", "search:2")]);
        assert!(is_behind(&loaded, &file));
        assert!(!is_behind(&loaded, &route(["v1", "v2", "search:2"])));
    }
}
