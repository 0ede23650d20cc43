//! Who is compared with whom: the two roles, as the flags have them. Pure.

use serde::{Deserialize, Serialize};

use crate::config::{Pool, Route};
use crate::flags::{Flags, ROLLOUT_LAYER};
use crate::quality::version_id;
use crate::vocabulary::{PoolIndex, Ppm};

/// One role: a model version, on whatever pools it is. Where both roles have versions of the same name (or none was named), the pools
/// tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arm {
    pub(super) version: String,
    pub(super) pool: Option<String>,
}

impl Arm {
    /// As windows name what it counts.
    pub(super) fn ids(&self, route: &Route) -> Vec<u32> {
        self.pools(route).map(|pool| version_id(&pool.name, &pool.version)).collect()
    }

    /// The pools that it is on.
    pub(super) fn pools<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a Pool> {
        let is_mine = |pool: &&Pool| match &self.pool {
            Some(name) => pool.name == *name,
            None => pool.version == self.version,
        };
        route.pools.iter().filter(is_mine)
    }
}

/// Both roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arms {
    /// The version under test.
    pub(super) candidate: Arm,
    /// What it is compared with.
    pub(super) control: Arm,
}

/// What the flags say of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// `None`: nobody is under test.
    pub(super) arms: Option<Arms>,
    /// The candidate's share of all units, in parts per million.
    pub(super) step_ppm: u32,
    /// The candidate's share of the units of both roles; `None` where a policy of one's own or a pin gives other shares.
    pub(super) share_ppm: Option<u32>,
    /// The candidate is live, and control is a holdback.
    pub(super) is_baking: bool,
    /// Everybody follows next, or has.
    pub(super) is_last: bool,
}

impl Setting {
    /// Nobody is under test.
    pub(super) const NOBODY: Setting = Setting { arms: None, step_ppm: 0, share_ppm: None, is_baking: false, is_last: false };

    /// As these flags have it.
    pub(super) fn of(flags: &Flags, route: &Route) -> Setting {
        let holdback = flags.holdback.filter(|holdback| holdback.share > Ppm::ZERO);
        let held = holdback.map_or(Ppm::ZERO, |holdback| holdback.share.min(flags.candidate.share.rest()));
        let is_ramp = flags.candidate.share > Ppm::ZERO && flags.candidate.pool != flags.live;
        let (candidate, control, step_ppm, end_ppm) = match (is_ramp, holdback) {
            (true, _) => (flags.candidate.pool, flags.live, flags.candidate.share.get(), held.rest().get()),
            (false, Some(holdback)) => (flags.live, holdback.pool, held.rest().get(), Ppm::ALL.get()),
            (false, None) => return Setting::NOBODY,
        };
        let Some(arms) = arms(route, candidate, control) else { return Setting::NOBODY };
        let is_plain = flags.pin.is_none() && flags.split_policy.name == "split-weighted";
        // The candidate has the positions below its share, control those from there on.
        let left = || Some((left_by_experiments(flags, route, 0, step_ppm)?, left_by_experiments(flags, route, step_ppm, end_ppm)?));
        let share_ppm = is_plain.then(left).flatten().map(|(candidate, control)| share_of(candidate, candidate + control));
        let is_last = flags.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active() && rollout.is_last_step());
        Setting { arms: Some(arms), step_ppm, share_ppm, is_baking: !is_ramp, is_last: !is_ramp || is_last }
    }
}

fn arms(route: &Route, candidate: PoolIndex, control: PoolIndex) -> Option<Arms> {
    let (candidate, control) = (route.pools.get(candidate.get())?, route.pools.get(control.get())?);
    let are_told_apart = candidate.version != control.version;
    let arm = |pool: &Pool| Arm { version: pool.version.clone(), pool: (!are_told_apart).then(|| pool.name.clone()) };
    Some(Arms { candidate: arm(candidate), control: arm(control) })
}

/// How many of these positions the experiments of the rollout's layer leave; `None` where conditions decide. Those of other layers take the same part of both roles.
fn left_by_experiments(flags: &Flags, route: &Route, from: u32, below: u32) -> Option<u32> {
    let all = flags.experiments.iter().flat_map(|all| all.running());
    let in_layer =
        all.filter(|experiment| experiment.layer == ROLLOUT_LAYER && experiment.arms.iter().all(|arm| arm.pool_of(route, flags).is_some()));
    let mut left = below.saturating_sub(from);
    for experiment in in_layer {
        let (begin, end) = (experiment.from_percent.get(), experiment.from_percent.get().saturating_add(experiment.percent.get()));
        let taken = end.min(below).saturating_sub(begin.max(from));
        if taken > 0 && !experiment.when.is_empty() {
            return None;
        }
        left = left.saturating_sub(taken);
    }
    Some(left)
}

/// A part of a whole, in parts per million.
fn share_of(part: u32, whole: u32) -> u32 {
    let million = u64::from(Ppm::ALL.get());
    let share = (u64::from(part) * million + u64::from(whole) / 2).checked_div(u64::from(whole)).unwrap_or(0);
    u32::try_from(share.min(million)).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn route(versions: [&str; 3]) -> Route {
        let [blue, green, canary] = versions;
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\n[[route]]\nname = \"search\"\n\
             [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"{blue}\"\n\
             [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = \"{green}\"\n\
             [route.pools.canary]\nendpoints = [\"http://127.0.0.1:3\"]\nversion = \"{canary}\"\n"
        );
        crate::config::parse("test", &text).unwrap().routes.remove(0)
    }

    pub(crate) fn flags(route: &Route, fields: &[(&str, &str)]) -> Flags {
        let fields: BTreeMap<String, String> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (flags, faults) = Flags::read(&fields, &Flags::initial(route), route);
        assert_eq!(faults, []);
        flags
    }

    fn setting(versions: [&str; 3], fields: &[(&str, &str)]) -> Setting {
        let route = route(versions);
        Setting::of(&flags(&route, fields), &route)
    }

    fn named(version: &str) -> Arm {
        Arm { version: version.to_owned(), pool: None }
    }

    #[test]
    fn nobody_is_under_test_without_a_candidate() {
        for fields in [&[][..], &[("live", "green")], &[("mirror_percent", "50")]] {
            assert_eq!(setting(["1", "2", "3"], fields), Setting::NOBODY, "{fields:?}");
        }
    }

    #[test]
    fn evidence_goes_on_across_the_switch() {
        let ramp = setting(["v1", "v2", "v2"], &[("canary_percent", "5")]);
        let arms = Some(Arms { candidate: named("v2"), control: named("v1") });
        assert_eq!(ramp, Setting { arms: arms.clone(), step_ppm: 50_000, share_ppm: Some(50_000), is_baking: false, is_last: false });
        let idle = setting(["v1", "v2", "v2"], &[("canary_percent", "50"), ("candidate_pool", "green")]);
        assert_eq!((&idle.arms, idle.share_ppm), (&arms, Some(500_000)));
        let baking = setting(["v1", "v2", "v2"], &[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")]);
        assert_eq!(baking, Setting { arms, step_ppm: 900_000, share_ppm: Some(900_000), is_baking: true, is_last: true });
    }

    #[test]
    fn the_share_is_that_of_both_roles() {
        let with = |fields: &[(&str, &str)]| {
            let base = [("canary_percent", "20"), ("holdback_pool", "green"), ("holdback_percent", "50")];
            setting(["1", "2", "3"], &[&base[..], fields].concat()).share_ppm
        };
        assert_eq!(with(&[]), Some(400_000));
        assert_eq!(with(&[("pin", "blue")]), None);
        assert_eq!(with(&[("split_policy", "split-rules")]), None);
    }

    #[test]
    fn experiments_of_the_rollouts_layer_take_their_units_from_either_role() {
        let with = |from: &str, more: &str, fields: &[(&str, &str)]| {
            let arms = r#"[{"name": "control", "pool": "live"}, {"name": "big", "pool": "green"}]"#;
            let one = format!(
                r#"{{"name": "big", "layer": "rollout", "salt": "salt-of-big", "from_percent": "{from}", "percent": "20", "arms": {arms}{more}}}"#
            );
            let text = format!(r#"{{"experiments": [{one}]}}"#);
            setting(["1", "2", "3"], &[&[("experiments", text.as_str())], fields].concat()).share_ppm
        };
        let ramp = [("canary_percent", "10")];
        assert_eq!(with("70", "", &ramp), Some(125_000), "10 of 80");
        assert_eq!(with("0", "", &ramp), Some(0), "all of the candidate's, and some of control's");
        assert_eq!(with("5", "", &ramp), Some(62_500), "5 of 80");
        let baking = [("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "10")];
        assert_eq!(with("70", "", &baking), Some(875_000), "70 of 80");
        let when = r#", "when": [{"field": "path", "prefix": "/de"}]"#;
        assert_eq!(with("70", when, &ramp), None, "nobody knows how many");
        assert_eq!(
            with("70", when, &[("canary_percent", "10"), ("holdback_pool", "green"), ("holdback_percent", "30")]),
            Some(142_857),
            "they are the holdback's"
        );
        assert_eq!(with("70", r#", "stopped_ms": 5"#, &ramp), Some(100_000));
    }

    #[test]
    fn versions_of_one_name_are_told_apart_by_their_pools() {
        let route = route(["unknown", "unknown", "unknown"]);
        let Some(Arms { candidate, control }) = Setting::of(&flags(&route, &[("canary_percent", "5")]), &route).arms else { panic!() };
        assert_eq!((candidate.pool.as_deref(), control.pool.as_deref()), (Some("canary"), Some("blue")));
        assert_eq!(candidate.ids(&route), [version_id("canary", "unknown")]);
        let route = super::tests::route(["v1", "v2", "v2"]);
        assert_eq!(named("v2").ids(&route), [version_id("green", "v2"), version_id("canary", "v2")]);
    }
}
