//! What the local breaker of one router holds back, on top of the flags: a candidate's traffic goes to control on this router, whatever the
//! store says and whether there is one. Pure.

use serde::{Deserialize, Serialize};

use super::{Flags, Phase, Rollout, Share};
use crate::config::Route;
use crate::vocabulary::{NO_VERSION, PoolIndex, Ppm};

/// A candidate that this router sends nobody to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// The candidate's model version.
    pub version: String,
    /// The pools that it is on.
    pub pools: Vec<String>,
    /// The pool that gets its traffic.
    pub control: String,
    /// When, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The evidence, in a sentence.
    pub why: String,
    /// An operator took back a live version that nobody is held back from, and no store could be told. Any other trip is over with the comparison that it is of.
    #[serde(default)]
    pub is_undo: bool,
}

/// Pools that nobody is sent to, and the one that stands in for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shed {
    /// By place in [`Route::pools`].
    pub pools: Vec<PoolIndex>,
    /// Another one.
    pub control: PoolIndex,
    /// The one that is live for routers that hold nobody back.
    pub live: PoolIndex,
}

impl Trip {
    /// The flags with the candidate's traffic on control. `None` when these flags compare no such candidate with that control any more: they are obeyed as they are.
    pub(super) fn shed(&self, flags: &Flags, route: &Route) -> Option<Flags> {
        let control = route.pool_named(&self.control)?;
        // A pool that runs another version by now has another candidate, of which nothing is known yet.
        let is_its = |pool: &PoolIndex| route.pools.get(pool.get()).is_some_and(|pool| pool.version == self.version);
        let pools = self.pools.iter().filter_map(|name| route.pool_named(name)).filter(|pool| *pool != control && is_its(pool));
        let pools: Vec<PoolIndex> = pools.collect();
        let is_shed = |pool: PoolIndex| pools.contains(&pool);
        let is_ramp = flags.live == control && flags.candidate.share > Ppm::ZERO && is_shed(flags.candidate.pool);
        let is_baking = is_shed(flags.live) && flags.holdback.is_some_and(|holdback| holdback.pool == control);
        let is_undone = self.is_undo && is_shed(flags.live) && self.is_of_done(flags, route);
        if !is_ramp && !is_baking && !is_undone {
            return None;
        }
        let (mut flags, live) = (flags.clone(), flags.live);
        flags.live = control;
        flags.candidate = Share { share: Ppm::ZERO, ..flags.candidate };
        flags.holdback = flags.holdback.filter(|holdback| !is_shed(holdback.pool) && holdback.pool != control);
        flags.shed = Some(Shed { pools, control, live });
        Some(flags)
    }

    /// Whether the last rollout brought this version live, nobody is held back from it, and the colour before it still runs what it ran.
    fn is_of_done(&self, flags: &Flags, route: &Route) -> bool {
        let before = route.pools.iter().find(|pool| pool.name == self.control);
        let is_it = |rollout: &Rollout| {
            let is_there = before.is_some_and(|pool| pool.version == rollout.control && pool.version != NO_VERSION);
            matches!(rollout.phase, Phase::Baking | Phase::Done)
                && rollout.candidate == self.version
                && rollout.from == self.control
                && is_there
        };
        flags.holdback.is_none() && flags.rollout.as_deref().is_some_and(is_it)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::flags::{Plan, PlannedStep, Sides};

    fn route(candidate: &str) -> Route {
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\n[[route]]\nname = \"search\"\n\
             [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"v1\"\n\
             [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = {candidate:?}\n\
             [route.pools.canary]\nendpoints = [\"http://127.0.0.1:3\"]\nversion = {candidate:?}\n"
        );
        crate::config::parse("test", &text).unwrap().routes.remove(0)
    }

    fn shed(fields: &[(&str, &str)]) -> Option<(u8, u32, Option<u8>)> {
        shed_of("v2", fields)
    }

    /// What the trip of v2 makes of flags whose candidate is this one.
    fn shed_of(candidate: &str, fields: &[(&str, &str)]) -> Option<(u8, u32, Option<u8>)> {
        let route = route(candidate);
        let fields: BTreeMap<String, String> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (flags, faults) = Flags::read(&fields, &Flags::initial(&route), &route);
        assert_eq!(faults, []);
        let pools = vec!["canary".to_owned(), "green".to_owned()];
        let trip = Trip {
            version: "v2".to_owned(),
            pools,
            control: "blue".to_owned(),
            since_unix_ms: 7,
            why: "it fails".to_owned(),
            is_undo: false,
        };
        let shed = trip.shed(&flags, &route)?;
        assert_eq!(shed.shed, Some(Shed { pools: vec![PoolIndex(2), PoolIndex(1)], control: PoolIndex(0), live: flags.live }));
        assert_eq!((shed.epoch, &shed.salt), (flags.epoch, &flags.salt));
        Some((shed.live.0, shed.candidate.share.get(), shed.holdback.map(|holdback| holdback.pool.0)))
    }

    #[test]
    fn a_ramps_traffic_goes_to_live_wherever_the_candidate_is() {
        assert_eq!(shed(&[("live", "blue"), ("canary_percent", "25")]), Some((0, 0, None)));
        assert_eq!(shed(&[("live", "blue"), ("canary_percent", "25"), ("candidate_pool", "green")]), Some((0, 0, None)));
    }

    #[test]
    fn a_new_live_colours_traffic_goes_to_the_holdback() {
        assert_eq!(shed(&[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")]), Some((0, 0, None)));
    }

    #[test]
    fn flags_without_that_candidate_are_obeyed_as_they_are() {
        for fields in [&[("live", "blue")][..], &[("live", "green")], &[("live", "green"), ("canary_percent", "5")]] {
            assert_eq!(shed(fields), None, "{fields:?}");
        }
    }

    /// Only where an operator took it back, and for as long as the colour before it has what it had.
    #[test]
    fn a_rollout_that_is_done_is_undone_where_no_store_can_be_told() {
        let (route, sides) =
            (route("v2"), Sides { candidate: ("v2".to_owned(), "green".to_owned()), control: ("v1".to_owned(), "blue".to_owned()) });
        let step = PlannedStep { percent: Ppm::ALL, dwell_ms: 0, min_samples: 0, approval: false };
        let plan = Plan {
            steps: vec![step],
            canary_max: Ppm::ZERO,
            mirror: Ppm::ZERO,
            mirror_ms: 0,
            mirror_gate: None,
            holdback: Ppm::ZERO,
            bake_ms: 0,
            max_step_ms: 1,
        };
        let done = Rollout { phase: Phase::Done, ..Rollout::begin("ab".repeat(16), sides, plan, 7, false) };
        let shed = |is_undo: bool, rollout: &Rollout, route: &Route| {
            let fields = BTreeMap::from([("live".to_owned(), "green".to_owned()), ("rollout".to_owned(), rollout.render())]);
            let (flags, faults) = Flags::read(&fields, &Flags::initial(route), route);
            assert_eq!(faults, []);
            let (version, pools, control) = ("v2".to_owned(), vec!["green".to_owned(), "canary".to_owned()], "blue".to_owned());
            let trip = Trip { version, pools, control, since_unix_ms: 7, why: String::new(), is_undo };
            trip.shed(&flags, route).map(|shed| shed.live.0)
        };
        let baking = Rollout { phase: Phase::Baking, ..done.clone() };
        for rollout in [&done, &baking] {
            assert_eq!((shed(true, rollout, &route), shed(false, rollout, &route)), (Some(0), None));
        }
        for phase in [Phase::RolledBack, Phase::Aborted, Phase::Retired, Phase::Canary] {
            assert_eq!(shed(true, &Rollout { phase, ..done.clone() }, &route), None, "{phase:?}");
        }
        let mut other = route.clone();
        other.pools.iter_mut().filter(|pool| pool.name == "blue").for_each(|pool| pool.version = "v0".to_owned());
        assert_eq!(shed(true, &done, &other), None, "blue runs another one by now");
    }

    /// It comes to the same pools as soon as the one before is rolled back, sooner than the breaker's next look.
    #[test]
    fn the_next_candidate_on_the_same_pools_is_not_held_back() {
        for fields in
            [&[("live", "blue"), ("canary_percent", "10")][..], &[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")]]
        {
            assert_eq!(shed_of("v3", fields), None, "{fields:?}");
        }
    }
}
