//! What a rollback is: which flags it writes, and why it is due. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::roles::{Arm, Arms, Setting};
use crate::config::{Pool, Route};
use crate::flags::{Flags, Phase, Rollout as Record, TEXT_CHARS, Trip};
use crate::vocabulary::{NO_VERSION, Ppm, is_earlier};

/// Everything that a rollback changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The version that goes.
    pub candidate: String,
    /// The version that gets its traffic.
    pub control: String,
    /// The pool that gets its traffic.
    pub target: String,
    /// As [`crate::flags::Change`] has them.
    pub fields: BTreeMap<String, Option<String>>,
}

/// A pool's endpoints, as one router sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolHealth {
    /// Neither unhealthy nor ejected.
    pub healthy: usize,
    /// All.
    pub endpoints: usize,
}

impl Rollback {
    /// Why, and by whom the traffic is taken, where those are not all that the target has.
    #[must_use]
    pub fn reason(&self, cause: &str, health: PoolHealth) -> String {
        let PoolHealth { healthy, endpoints } = health;
        let target = &self.target;
        let shed = (healthy < endpoints).then(|| format!("; {target} takes the traffic with {healthy} of {endpoints} endpoints"));
        let shed = shed.unwrap_or_default();
        let room = TEXT_CHARS.saturating_sub(shed.chars().count());
        cause.chars().take(room).chain(shed.chars()).collect()
    }
}

/// What takes the candidate of these flags out of traffic, and with it ends the rollout that brought it, for this reason. `None` where there is none: nobody has a share beside
/// the live pool and no rollout is under way or done, or what has a share is of no other role.
#[must_use]
pub fn rollback(flags: &Flags, route: &Route, now_ms: u64, why: &str) -> Option<Rollback> {
    let mut back = taken_back(flags, route)?;
    let of_this = |rollout: &&Arc<Record>| rollout.candidate == back.candidate && rollout.phase.may_be_taken_back();
    if let Some(rollout) = flags.rollout.as_ref().filter(of_this) {
        let why = why.chars().take(TEXT_CHARS).collect();
        let moves = rollout.moves.saturating_add(1);
        let ended = Record { phase: Phase::RolledBack, since_ms: now_ms, moves, paused: None, why, ..Record::clone(rollout) };
        back.fields.insert("rollout".to_owned(), Some(ended.render()));
        back.fields.extend(["mirror_percent", "candidate_pool"].map(|field| (field.to_owned(), None)));
    }
    Some(back)
}

/// The same without what it does to a rollout.
pub(super) fn taken_back(flags: &Flags, route: &Route) -> Option<Rollback> {
    let Setting { arms, is_baking, .. } = Setting::of(flags, route);
    let Some(Arms { candidate, control }) = arms else { return of_live(flags, route).or_else(|| of_nobody(flags)) };
    let target = target(flags, route, is_baking)?;
    let mut fields = BTreeMap::from([("canary_percent".to_owned(), Some("0".to_owned()))]);
    if is_baking {
        fields.extend(flip(&target.name));
    }
    Some(Rollback { candidate: candidate.version, control: control.version, target: target.name.clone(), fields })
}

/// A candidate that is live, with nobody left to compare it with, can be taken back for as long as the colour before it still runs the version before it.
fn of_live(flags: &Flags, route: &Route) -> Option<Rollback> {
    let rollout = flags.rollout.as_ref().filter(|rollout| matches!(rollout.phase, Phase::Baking | Phase::Done))?;
    let live = route.pools.get(flags.live.get())?;
    let target = route.pools.iter().find(|pool| pool.name == rollout.from && pool.version == rollout.control)?;
    if rollout.control == NO_VERSION || (rollout.phase == Phase::Done && is_way_back(rollout)) {
        return None;
    }
    let is_as_left = live.name == rollout.to && live.version == rollout.candidate;
    let (candidate, control) = (rollout.candidate.clone(), rollout.control.clone());
    is_as_left.then(|| Rollback { candidate, control, target: target.name.clone(), fields: flip(&target.name).into() })
}

/// Whether a rollout brought an earlier version back over a later one, with nobody held back and no bake. Taking that back would bring the later one again, which is
/// done by naming it: two who roll back at the same moment mean the same.
fn is_way_back(rollout: &Record) -> bool {
    rollout.plan.holdback == Ppm::ZERO && rollout.plan.bake_ms == 0 && is_earlier(&rollout.candidate, &rollout.control)
}

/// A rollout whose candidate has no share, or not yet, ends.
fn of_nobody(flags: &Flags) -> Option<Rollback> {
    let rollout = flags
        .rollout
        .as_ref()
        .filter(|rollout| matches!(rollout.phase, Phase::Loading | Phase::Pending | Phase::Mirroring | Phase::Canary))?;
    let Record { candidate, control, from, .. } = Record::clone(rollout);
    Some(Rollback { candidate, control, target: from, fields: BTreeMap::from([("canary_percent".to_owned(), Some("0".to_owned()))]) })
}

/// The colour that is not live and the version that it runs, where somebody might want to go back to that: an earlier one of the same model than what is
/// live, and not the candidate that the last rollout did not bring live. A later one came to that colour as a candidate, and did not stay. Of labels without
/// a number nobody knows which is the earlier.
fn other_colour(flags: &Flags, route: &Route) -> Option<(String, String)> {
    let runs = |pool: usize| {
        let flagged = flags.versions.iter().find(|(at, _)| at.get() == pool).map(|(_, version)| version);
        flagged.or_else(|| route.pools.get(pool).map(|pool| &pool.version))
    };
    let live = route.pools.get(flags.live.get())?;
    let name = if live.name == "blue" { "green" } else { "blue" };
    let version = runs(route.pools.iter().position(|pool| pool.name == name)?)?;
    let ended = flags.rollout.as_ref().filter(|rollout| matches!(rollout.phase, Phase::RolledBack | Phase::Aborted));
    let is_failed = ended.is_some_and(|rollout| rollout.candidate == *version);
    let is_one = !is_failed && runs(flags.live.get()).is_some_and(|live| is_earlier(version, live));
    is_one.then(|| (name.to_owned(), version.clone()))
}

/// What to do where there is nothing to roll back, in words. A plain rollback is not repeated into the version before: two who act at the same moment would take
/// the good one away. So it has to be named.
#[must_use]
pub fn other_way(flags: &Flags, route: &Route) -> String {
    let name = &route.name;
    if let Some((pool, version)) = other_colour(flags, route) {
        return format!("{pool} runs {version}: to make that live: switchback rollback {name} --to {version}");
    }
    let done = flags.rollout.as_ref().filter(|rollout| rollout.phase == Phase::Done && is_way_back(rollout));
    if let Some(Record { candidate, control, .. }) = done.map(Arc::as_ref) {
        return format!("{candidate} was brought back over {control}; to make that live again: switchback rollback {name} --to {control}");
    }
    match route.loading {
        Some(_) => format!("to bring an earlier version back: switchback rollback {name} --to VERSION"),
        None => format!("to change who is live: switchback flag set {name} live=..."),
    }
}

fn flip(target: &str) -> [(String, Option<String>); 3] {
    let field = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    [field("live", target), field("canary_percent", "0"), field("holdback_percent", "0")]
}

/// The same on this router alone, on top of whatever the flags say.
#[must_use]
pub fn hold_back(flags: &Flags, route: &Route, now_ms: u64, why: String) -> Option<Trip> {
    let Setting { arms, is_baking, .. } = Setting::of(flags, route);
    let Some(arms) = arms else {
        let Rollback { candidate, target, .. } = of_live(flags, route)?;
        let arm = Arm { version: candidate, pool: None };
        return Some(Trip { is_undo: true, ..trip(&arm, route, &target, now_ms, why) });
    };
    let target = target(flags, route, is_baking)?;
    Some(trip(&arms.candidate, route, &target.name, now_ms, why))
}

/// Whether what an operator took back of a rollout that is done is still to be taken back by these flags.
pub(super) fn is_undone(trip: &Trip, flags: &Flags, route: &Route) -> bool {
    let is_it = |back: Rollback| back.candidate == trip.version && back.target == trip.control;
    trip.is_undo && Setting::of(flags, route).arms.is_none() && of_live(flags, route).is_some_and(is_it)
}

/// While the candidate ramps, live is control; while it bakes, the holdback is.
fn target<'r>(flags: &Flags, route: &'r Route, is_baking: bool) -> Option<&'r Pool> {
    let pool = if is_baking { flags.holdback?.pool } else { flags.live };
    route.pools.get(pool.get())
}

fn trip(candidate: &Arm, route: &Route, control: &str, since_unix_ms: u64, why: String) -> Trip {
    let pools = candidate.pools(route).map(|pool| pool.name.clone()).collect();
    Trip { version: candidate.version.clone(), pools, control: control.to_owned(), since_unix_ms, why, is_undo: false }
}

/// Why a rollback is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The rollback policy says so, in this sentence.
    Evidence(String),
    /// A gate of the rollout says so.
    Gate(String),
    /// The breakers of so many of the known routers tripped.
    Breakers { tripped: usize, known: usize, why: String },
}

impl Cause {
    /// In metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Cause::Evidence(_) => "evidence",
            Cause::Gate(_) => "gate",
            Cause::Breakers { .. } => "breakers",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Evidence(summary) => write!(f, "{summary}"),
            Cause::Gate(name) => write!(f, "the gate {name} says that the candidate is to go"),
            Cause::Breakers { tripped, known, why } => write!(f, "the breakers of {tripped} of {known} routers tripped: {why}"),
        }
    }
}

/// The routers that are heard of: for each, why it holds this candidate back, if it does.
pub(super) fn of_breakers(routers: &[Option<String>]) -> Option<Cause> {
    let (known, tripped) = (routers.len(), routers.iter().flatten().count());
    let why = routers.iter().flatten().next()?;
    (tripped * 2 >= known).then(|| Cause::Breakers { tripped, known, why: why.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::roles::tests::{flags, route};

    fn fields(rollback: &Rollback) -> Vec<(&str, &str)> {
        rollback.fields.iter().map(|(field, value)| (field.as_str(), value.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn a_target_that_is_not_whole_is_said() {
        let route = route(["v1", "v2", "v2"]);
        let back = rollback(&flags(&route, &[("canary_percent", "25")]), &route, 7, "").unwrap();
        let reason = |cause: &str, healthy| back.reason(cause, PoolHealth { healthy, endpoints: 3 });
        assert_eq!(reason("roll back: errors", 3), "roll back: errors");
        assert_eq!(reason("roll back: errors", 1), "roll back: errors; blue takes the traffic with 1 of 3 endpoints");
        let long = reason(&"é".repeat(2 * TEXT_CHARS), 1);
        assert_eq!((long.chars().count(), long.ends_with("1 of 3 endpoints")), (TEXT_CHARS, true));
    }

    #[test]
    fn a_ramp_is_taken_back_and_a_new_live_colour_flips_back() {
        let route = route(["v1", "v2", "v2"]);
        let ramp = flags(&route, &[("canary_percent", "25")]);
        let back = rollback(&ramp, &route, 7, "").unwrap();
        assert_eq!((back.candidate.as_str(), back.control.as_str(), back.target.as_str()), ("v2", "v1", "blue"));
        assert_eq!(fields(&back), [("canary_percent", "0")]);
        let baking = flags(&route, &[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")]);
        let back = rollback(&baking, &route, 7, "").unwrap();
        assert_eq!((back.candidate.as_str(), back.target.as_str()), ("v2", "blue"));
        assert_eq!(fields(&back), [("canary_percent", "0"), ("holdback_percent", "0"), ("live", "blue")]);
        assert_eq!(rollback(&flags(&route, &[]), &route, 7, ""), None);
    }

    #[test]
    fn the_other_colour_is_a_way_back_where_it_runs_an_earlier_version() {
        let route = route(["search:9", "search:12", "search:13"]);
        let live_green = flags(&route, &[("live", "green")]);
        assert_eq!(other_colour(&live_green, &route), Some(("blue".to_owned(), "search:9".to_owned())));
        let named =
            |blue: &str| other_colour(&flags(&route, &[("live", "green"), ("version.blue", blue)]), &route).map(|(_, version)| version);
        assert_eq!(named("search:8").as_deref(), Some("search:8"), "as the flags have it");
        // Live already; retired; what came after it, and was rolled back; nobody knows which was before.
        for blue in ["search:12", "none", "search:13", "v1", "ads:1"] {
            assert_eq!(named(blue), None, "{blue}");
        }
    }

    #[test]
    fn a_router_can_hold_the_same_back_alone() {
        let route = route(["v1", "v2", "v2"]);
        let trip = hold_back(&flags(&route, &[("canary_percent", "25")]), &route, 7, "I say so".to_owned()).unwrap();
        assert_eq!((trip.pools, trip.control.as_str()), (vec!["green".to_owned(), "canary".to_owned()], "blue"));
        let baking = flags(&route, &[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")]);
        assert_eq!(hold_back(&baking, &route, 7, String::new()).unwrap().control, "blue");
        assert_eq!(hold_back(&flags(&route, &[]), &route, 7, String::new()), None);
    }

    #[test]
    fn half_of_the_routers_are_enough() {
        let of = |tripped: usize, known: usize| {
            let routers: Vec<Option<String>> = (0..known).map(|number| (number < tripped).then(|| "it fails".to_owned())).collect();
            of_breakers(&routers).is_some()
        };
        assert_eq!([of(0, 0), of(0, 2), of(1, 3), of(2, 5)], [false; 4]);
        assert_eq!([of(1, 1), of(1, 2), of(2, 3), of(2, 4)], [true; 4]);
        let cause = of_breakers(&[None, Some("errors".to_owned())]).unwrap();
        assert_eq!(cause.to_string(), "the breakers of 1 of 2 routers tripped: errors");
    }
}
