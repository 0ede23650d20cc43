//! What the flags are in each state of a rollout, and whether they are.

use std::collections::BTreeMap;

use crate::config::{Pool, Route};
use crate::flags::{Flags, Phase, Rollout};
use crate::vocabulary::{NO_VERSION, PoolIndex, Ppm};

/// Fields of the flags, as [`crate::flags::Change`] has them.
pub(super) type Fields = BTreeMap<String, Option<String>>;

/// Where the candidate is in this step: on the pool `canary` while its share is small and that has the version, or can load it, and else on the
/// colour that is to become live.
pub(super) fn carrier<'r>(rollout: &'r Rollout, route: &'r Route) -> &'r str {
    let is_small = rollout.planned().is_some_and(|step| step.percent <= rollout.plan.canary_max);
    let is_loaded = |pool: &Pool| pool.version == rollout.candidate || loadable(&rollout.candidate, route).is_some();
    let canary = route.pools.iter().find(|pool| pool.name == "canary" && is_loaded(pool));
    canary.filter(|_| is_small && rollout.from != "canary").map_or(rollout.to.as_str(), |pool| pool.name.as_str())
}

/// The registry's number of a version that the route's servers can load.
pub(super) fn loadable(version: &str, route: &Route) -> Option<u64> {
    route.loading.as_ref()?.version_of(version)
}

/// The fields that a state writes.
pub(super) fn fields(rollout: &Rollout, route: &Route) -> Fields {
    let step = rollout.planned().map_or(Ppm::ZERO, |step| step.percent);
    let text = |text: &str| Some(text.to_owned());
    let mut fields = Fields::new();
    let mut put = |field: &str, value: Option<String>| fields.insert(field.to_owned(), value);
    match rollout.phase {
        Phase::Loading => {
            put("canary_percent", text("0"));
        }
        Phase::Pending => {
            put("candidate_pool", text(carrier(rollout, route)));
            put("canary_percent", text("0"));
        }
        Phase::Mirroring => {
            put("candidate_pool", text(carrier(rollout, route)));
            put("canary_percent", text("0"));
            put("mirror_percent", Some(rollout.plan.mirror.to_string()));
        }
        Phase::Canary => {
            put("candidate_pool", text(carrier(rollout, route)));
            put("canary_percent", Some(step.to_string()));
            put("mirror_percent", None);
        }
        Phase::Baking => {
            put("live", text(&rollout.to));
            put("canary_percent", text("0"));
            put("candidate_pool", None);
            put("mirror_percent", None);
            put("holdback_pool", text(&rollout.from));
            put("holdback_percent", Some(rollout.plan.holdback.to_string()));
        }
        Phase::Done => {
            put("holdback_percent", text("0"));
        }
        Phase::RolledBack | Phase::Aborted => {
            put("mirror_percent", None);
        }
        Phase::Retired => {
            put(&format!("version.{}", rollout.from), text(NO_VERSION));
        }
    }
    put("rollout", Some(rollout.render()));
    fields
}

/// How the flags are not what this state wrote: somebody changed them by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ByHand {
    /// Another pool is live, or the record is gone: nothing is left of what the rollout stood on.
    Gone(String),
    /// A share or its pool.
    Share(String),
}

/// Whether somebody changed by hand what this state wrote.
pub(super) fn by_hand(rollout: &Rollout, flags: &Flags, route: &Route) -> Option<ByHand> {
    let name = |pool: PoolIndex| route.pools.get(pool.get()).map_or("", |pool| pool.name.as_str());
    let live = if rollout.phase == Phase::Baking { &rollout.to } else { &rollout.from };
    if flags.rollout.is_none() {
        return Some(ByHand::Gone("the field rollout was removed".to_owned()));
    }
    if name(flags.live) != live {
        return Some(ByHand::Gone(format!("live is {} and not {live}", name(flags.live))));
    }
    let differs = |field: &str, is: String, was: String| (is != was).then(|| ByHand::Share(format!("{field} is {is} and not {was}")));
    let candidate = flags.candidate;
    match rollout.phase {
        Phase::Loading | Phase::Pending | Phase::Mirroring => differs("canary_percent", candidate.share.to_string(), Ppm::ZERO.to_string()),
        Phase::Canary => {
            let share = rollout.planned().map_or(Ppm::ZERO, |step| step.percent);
            differs("canary_percent", candidate.share.to_string(), share.to_string())
                .or_else(|| other_version(rollout, route.pools.get(candidate.pool.get())?))
        }
        Phase::Baking => {
            let held = flags.holdback.filter(|holdback| name(holdback.pool) == rollout.from);
            let is = held.map_or(Ppm::ZERO, |holdback| holdback.share);
            differs("canary_percent", candidate.share.to_string(), Ppm::ZERO.to_string())
                .or_else(|| differs("holdback_percent", is.to_string(), rollout.plan.holdback.to_string()))
        }
        Phase::Done | Phase::RolledBack | Phase::Aborted | Phase::Retired => None,
    }
}

/// Any pool of the version will do, but for another version it is another rollout.
fn other_version(rollout: &Rollout, pool: &Pool) -> Option<ByHand> {
    let (name, version) = (&pool.name, &pool.version);
    (*version != rollout.candidate)
        .then(|| ByHand::Share(format!("the candidate is on {name}, which runs {version} and not {}", rollout.candidate)))
}
