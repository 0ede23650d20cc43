//! The local breaker: each router's own guard of its users, with nobody to ask.
//!
//! Four times a second it looks at what this router's workers counted of candidate and control, errors and timeouts alone. When the candidate
//! fails more, its traffic goes to control on this router at once, on top of whatever the flags say. It holds until the candidate is gone
//! (another version, or none), or an operator clears it. The other routers hear of it with the heartbeat.
//!
//! It needs neither Redis nor a rollout: a share that somebody set by hand is guarded too, and so is a new live colour while a holdback is
//! left of the old one.

mod exact;
mod file;
mod guard;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use self::file::TripFiles;
use self::guard::Guard;
use super::board::Board;
use super::roles::{Arm, Arms, Setting};
use super::rollback::{hold_back, is_undone};
use super::under::{Under, newest};
use super::view::BreakerView;
use crate::config::Route;
use crate::flags::{Flags, Source, Trip};
use crate::quality::{Ended, FleetClock, Quality};
use crate::vocabulary::RouteIndex;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A route on which nobody is under test has nothing to guard: once in so many looks its limits are shown anew, which depend on how many routers there are.
const SHOWN_EVERY: usize = 20;

/// All routes' breakers.
pub(super) struct Breakers {
    under: watch::Receiver<Arc<Under>>,
    /// By place in the config.
    routes: Vec<RouteBreaker>,
    /// Counts looks.
    looks: usize,
    files: TripFiles,
    clock: FleetClock,
    board: Board,
    last_look: Instant,
}

/// One route's.
#[derive(Default)]
struct RouteBreaker {
    name: String,
    flags: Option<Arc<Flags>>,
    arms: Option<Arms>,
    guard: Option<Guard>,
    /// The guard has found the candidate out, and is done.
    is_spent: bool,
    view: BreakerView,
    /// What its file holds. An operator sets and clears trips, too.
    written: Option<Arc<Trip>>,
}

/// What a look is about.
struct Seen<'a> {
    under: &'a Under,
    index: RouteIndex,
    route: &'a Route,
    flags: Arc<Flags>,
    elapsed_ms: u32,
}

impl Breakers {
    /// What a process before this one held back is held back when this returns.
    pub(super) fn new(under: watch::Receiver<Arc<Under>>, clock: FleetClock, board: Board, data_dir: &Path) -> Breakers {
        let files = TripFiles::new(data_dir);
        let mut breakers = Breakers { under, routes: Vec::new(), looks: 0, files, clock, board, last_look: Instant::now() };
        breakers.under.mark_changed();
        breakers.look_at_all();
        breakers
    }

    /// Looks until the sender of configs is gone.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.under.has_changed().is_ok() {
            ticks.tick().await;
            self.look_at_all();
        }
    }

    /// The routes of this config: those that were there before go on.
    fn follow(&mut self, under: &Under) {
        let mut before: HashMap<String, RouteBreaker> = self.routes.drain(..).map(|breaker| (breaker.name.clone(), breaker)).collect();
        for (index, route) in (0..=u16::MAX).map(RouteIndex).zip(&under.config.routes) {
            let breaker = before.remove(&route.name).unwrap_or_else(|| {
                // What a process before this one held back.
                let written = self.files.read(&route.name).map(Arc::new);
                if written.is_some() {
                    under.flags.set_trip(index, written.clone());
                }
                RouteBreaker { written, ..RouteBreaker::default() }
            });
            // It is looked at anew: its pools and limits may be others.
            self.routes.push(RouteBreaker { name: route.name.clone(), flags: None, ..breaker });
        }
    }

    fn look_at_all(&mut self) {
        let (under, is_other) = newest(&mut self.under);
        if is_other {
            self.follow(&under);
        }
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.last_look, now));
        let elapsed_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        self.looks = self.looks.wrapping_add(1);
        let all = (0..=u16::MAX).map(RouteIndex).zip(&under.config.routes).zip(&mut self.routes);
        for ((index, route), breaker) in all {
            let (flags, before) = (under.flags.stored(index), under.flags.trip(index));
            let has_turn = index.get() % SHOWN_EVERY == self.looks % SHOWN_EVERY;
            if before.is_none() && breaker.written.is_none() && breaker.is_idle(&flags) && !has_turn {
                continue;
            }
            let seen = Seen { under: &under, index, route, flags, elapsed_ms };
            let after = breaker.look(&seen, before.clone(), self.clock.now_ms());
            if breaker.written != after {
                self.files.write(&route.name, after.as_deref());
                breaker.written = after.clone();
            }
            if before != after {
                under.flags.set_trip(index, after);
            }
            self.board.put_breaker(&route.name, &breaker.view);
        }
    }
}

impl RouteBreaker {
    /// Whether nobody is under test by these flags, as was seen before.
    fn is_idle(&self, flags: &Arc<Flags>) -> bool {
        self.arms.is_none() && self.flags.as_ref().is_some_and(|known| Arc::ptr_eq(known, flags))
    }

    /// What is held back from now on, given what was.
    fn look(&mut self, seen: &Seen<'_>, trip: Option<Arc<Trip>>, now_ms: u64) -> Option<Arc<Trip>> {
        let flags = &seen.flags;
        if !self.flags.as_ref().is_some_and(|known| Arc::ptr_eq(known, flags)) {
            self.arms = Setting::of(flags, seen.route).arms;
            self.flags = Some(flags.clone());
        }
        let alpha = seen.route.breaker.alpha / f64::from(routers(seen));
        self.view.threshold_log = -alpha.ln();
        self.view.is_enabled = seen.route.breaker.is_enabled;
        self.view.is_watching = self.arms.is_some() && self.view.is_enabled;
        if let Some(trip) = trip {
            return self.hold(seen, trip);
        }
        let Some(arms) = self.arms.as_ref().filter(|_| seen.route.breaker.is_enabled) else {
            (self.guard, self.view.log_harm, self.view.would_trip) = (None, None, None);
            return None;
        };
        let is_observed_only = seen.route.is_observed_only;
        let counted = [&arms.candidate, &arms.control].map(|arm| ended(&seen.under.quality, seen, arm));
        // One that found its candidate out, and was cleared by an operator, begins anew.
        let is_same = self.guard.as_ref().is_some_and(|guard| guard.arms == *arms) && (!self.is_spent || is_observed_only);
        if !is_same {
            (self.guard, self.is_spent, self.view.would_trip) = (Some(Guard::begin(arms.clone(), counted)), false, None);
        }
        let guard = self.guard.as_mut()?;
        let why = guard.look(counted, seen.elapsed_ms, alpha);
        self.view.log_harm = Some(guard.log_harm());
        let why = why.filter(|_| !self.is_spent)?;
        self.is_spent = true;
        let trip = hold_back(flags, seen.route, now_ms, why)?;
        let (route, version, why) = (&seen.route.name, &trip.version, &trip.why);
        if is_observed_only {
            tracing::warn!(route, version, why, "the breaker would trip, and observe_only says that it must not");
            self.view.would_trip = Some(why.clone());
            return None;
        }
        tracing::error!(route, version, control = trip.control, why, "the breaker tripped: this router sends nobody to the candidate");
        self.view.trips += 1;
        Some(Arc::new(trip))
    }

    /// It holds for as long as this candidate is compared with this control.
    fn hold(&mut self, seen: &Seen<'_>, trip: Arc<Trip>) -> Option<Arc<Trip>> {
        let is_same = self.arms.as_ref().is_some_and(|arms| {
            let is_control = arms.control.pools(seen.route).any(|pool| pool.name == trip.control);
            arms.candidate.version == trip.version && names(&arms.candidate, seen.route) == trip.pools && is_control
        });
        // A router that has not heard its store yet sends nobody to the candidate, and does not know whether there is one.
        let is_known = matches!(seen.under.flags.view(seen.index).source, Source::Embedded | Source::Redis);
        if is_same || is_undone(&trip, &seen.flags, seen.route) || !is_known {
            return Some(trip);
        }
        tracing::info!(route = seen.route.name, version = trip.version, "the breaker is closed again: the candidate is gone");
        (self.guard, self.view.log_harm) = (None, None);
        None
    }
}

/// How many share the rate of false alarms.
fn routers(seen: &Seen<'_>) -> u32 {
    let known = seen.under.flags.routers(seen.index).iter().filter(|router| router.is_known).count();
    u32::try_from(known).unwrap_or(u32::MAX).max(1)
}

fn names(arm: &Arm, route: &Route) -> Vec<String> {
    arm.pools(route).map(|pool| pool.name.clone()).collect()
}

/// What this router's workers counted of a role.
fn ended(quality: &Quality, seen: &Seen<'_>, arm: &Arm) -> Ended {
    let mut sum = Ended::default();
    for worker in quality.workers() {
        let Some(counters) = worker.routes.get(seen.index.get()) else { continue };
        for (pool, counters) in seen.route.pools.iter().zip(&counters.pools) {
            let is_of_role = match &arm.pool {
                Some(name) => pool.name == *name,
                None => pool.version == arm.version,
            };
            if let Some(outcomes) = counters.series.outcomes_if_any().filter(|_| is_of_role) {
                sum = sum.and(outcomes.all_ended());
            }
        }
    }
    sum
}
