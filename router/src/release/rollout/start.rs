//! How a rollout begins.

use std::borrow::Cow;

use super::event::Event;
use super::layout::{fields, loadable};
use super::next::{Move, Seen, is_gated};
use super::order::Refusal;
use super::ready::{Lack, not_ready};
use crate::config::{Pool, RolloutStep, Route};
use crate::flags::{Flags, Hurry, MirrorGate, Phase, Plan, PlannedStep, Rollout, Sides, TEXT_CHARS};
use crate::vocabulary::{NO_VERSION, PoolIndex, Ppm};

/// What whoever starts a rollout says of it.
#[derive(Debug, Clone, Default)]
pub struct Begin {
    /// The version; the one on the pool `canary`, or on the idle colour, unless it is said.
    pub candidate: Option<String>,
    /// SHA-256 of its artefact, where it has to be that one.
    pub sha256: Option<String>,
    /// The candidate's shares, rising; those of the route's plan unless they are said.
    pub steps: Option<Vec<Ppm>>,
    /// The rollout's id, 32 hex digits.
    pub id: String,
    /// Hashes units to positions: each rollout has its own, unless an experiment in its layer holds the one that there is.
    pub salt: String,
    /// The operator's name.
    pub who: String,
    /// The operator's reason.
    pub why: String,
    /// It becomes live as soon as the servers have it, and nobody is held back: the way back to a version that is known.
    pub at_once: bool,
    /// Servers that it would go back to at once and that serve another version, in words: they load it first.
    pub strays: Option<String>,
}

/// Of the units: with less than this nothing could be seen of a candidate.
pub const LEAST_LEFT: Ppm = Ppm::ALL.less(990_000);

/// The plan of the route's config, with these shares where some are said.
fn plan(route: &Route, wanted: Option<&[Ppm]>) -> Plan {
    let config = &route.rollout;
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let planned = |step: &RolloutStep| PlannedStep {
        percent: step.percent,
        dwell_ms: ms(step.dwell),
        min_samples: step.min_samples,
        approval: step.approval,
    };
    // A share that the route's plan has too is a step of that plan; another one is as its first, and needs no approval.
    let step = |percent: &Ppm| {
        let same = config.steps.iter().find(|step| step.percent == *percent).map(planned);
        let first = config.steps.first().map(planned);
        same.or_else(|| first.map(|first| PlannedStep { percent: *percent, approval: false, ..first }))
    };
    let steps = wanted.map_or_else(|| config.steps.iter().map(planned).collect(), |wanted| wanted.iter().filter_map(step).collect());
    let copies = (config.mirror > Ppm::ZERO && config.mirror_min_samples > 0).then_some(MirrorGate {
        min_samples: config.mirror_min_samples,
        max_failing: config.mirror_max_failing,
        max_top1_change: config.mirror_max_top1_change,
    });
    Plan {
        steps,
        canary_max: config.canary_max,
        mirror: config.mirror,
        mirror_ms: ms(config.mirror_for),
        mirror_gate: copies,
        holdback: config.holdback,
        bake_ms: ms(config.bake),
        max_step_ms: ms(config.max_step),
    }
}

/// The first transition of a new rollout. `healthy` is as in [`Seen`].
///
/// # Errors
/// Why none can begin.
pub fn begin(begin: &Begin, flags: &Flags, route: &Route, healthy: &[usize], now_ms: u64) -> Result<Move, Refusal> {
    let route = &as_flagged(route, flags);
    if let Some(active) = flags.rollout.as_ref().filter(|rollout| rollout.phase.is_active()) {
        return Err(Refusal(format!("a rollout is under way: {}; end it with switchback rollout abort", active.summary())));
    }
    nothing_by_hand(flags)?;
    let sides = sides(begin.candidate.as_deref(), flags, route)?;
    if sides.control.0 == NO_VERSION && !begin.at_once {
        let (candidate, live) = (&sides.candidate.0, &sides.control.1);
        return Err(Refusal(format!(
            "{live} is live and runs no version: there is nobody to compare {candidate} with; switchback rollback {} --to VERSION makes one live at once",
            route.name
        )));
    }
    let planned = Rollout::begin(begin.id.clone(), sides, plan(route, begin.steps.as_deref()), now_ms, is_gated(route));
    let planned = Rollout { sha256: begin.sha256.clone(), ..planned };
    let first = if begin.at_once { Rollout { phase: Phase::Baking, ..planned.clone() } } else { planned.clone() };
    // The way back waits for no server that is thought to have the version; a rollout asks first.
    let is_flipped = begin.at_once && begin.strays.is_none();
    let before = Rollout { phase: Phase::Loading, loaded_on: is_flipped.then(|| planned.to.clone()), ..planned.clone() };
    let seen =
        Seen { route, flags, rollout: &before, now_ms, evidence: None, routers: &[], healthy, gate: None, load: None, servers: None };
    let is_loaded = match not_ready(&first, &seen) {
        Some(Lack::Version(to_load)) => match seen.without_servers(&to_load.pool) {
            Some(what) if !may_revive(begin, &to_load.pool, route) => return Err(Refusal(what)),
            _ => false,
        },
        Some(Lack::Other(what)) => return Err(Refusal(what)),
        None => is_flipped || !begin.at_once,
    };
    let mut rollout = planned.clone();
    if !is_loaded {
        rollout.phase = Phase::Loading;
    }
    let mut why = if begin.why.is_empty() { begin.who.clone() } else { format!("{}: {}", begin.who, begin.why) };
    if let Some(strays) = begin.strays.as_ref().filter(|_| begin.at_once) {
        why.push_str(&format!("; servers of pool {} serve another version: {strays}: it is loaded there first", planned.to));
    }
    if begin.at_once {
        (rollout.plan.holdback, rollout.plan.bake_ms, rollout.hurry) = (Ppm::ZERO, 0, (!is_loaded).then_some(Hurry::Live));
        if is_loaded {
            return Ok(live_at_once(rollout, route, &why));
        }
    }
    let seen = Seen { rollout: &rollout, ..seen };
    let mut first = seen.moved(Event::Started, rollout.clone(), &why);
    first.fields = fields(&first.rollout, route);
    // An experiment in the rollout's layer has units by the same salt: they stay in it.
    if !flags.experiments.as_ref().is_some_and(|experiments| experiments.hold_the_rollouts_salt()) {
        first.fields.insert("salt".to_owned(), Some(begin.salt.clone()));
    }
    Ok(first)
}

/// Whether servers that are not healthy may be so again by a load: nobody is kept from a way back, and what was retired has nothing to answer with.
fn may_revive(begin: &Begin, pool: &str, route: &Route) -> bool {
    begin.at_once || route.pools.iter().any(|one| one.name == pool && one.version == NO_VERSION)
}

/// Whether a rollout could begin, as far as flags and pools go. One that is under way counts as ended; without a candidate it is about any.
///
/// # Errors
/// What is in the way.
pub fn could_begin(asked: &Begin, flags: &Flags, route: &Route, healthy: &[usize], now_ms: u64) -> Result<(), Refusal> {
    if flags.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active()) {
        return not_frozen(flags);
    }
    let live = as_flagged(route, flags).pools.get(flags.live.get()).map(|pool| pool.version.clone());
    match &asked.candidate {
        None => {
            nothing_by_hand(flags)?;
            // Whichever comes next, its servers have to load it.
            let Some(loading) = &route.loading else { return Ok(()) };
            let next = Begin { candidate: Some(format!("{}:{}", loading.model, u64::MAX)), ..asked.clone() };
            begin(&next, flags, route, healthy, now_ms).map(drop)
        }
        candidate if *candidate == live => Ok(()),
        Some(_) => begin(asked, flags, route, healthy, now_ms).map(drop),
    }
}

fn not_frozen(flags: &Flags) -> Result<(), Refusal> {
    let why = "freeze is set: take it back first (switchback flag set ROUTE freeze=false)";
    if flags.is_frozen { Err(Refusal(why.to_owned())) } else { Ok(()) }
}

/// That no flag which an operator set is in the way.
fn nothing_by_hand(flags: &Flags) -> Result<(), Refusal> {
    not_frozen(flags)?;
    if flags.candidate.share > Ppm::ZERO || flags.holdback.is_some() {
        let why = "a candidate or a holdback has a share already, by hand: take it away first (canary_percent=0, holdback_percent=0)";
        return Err(Refusal(why.to_owned()));
    }
    if let Some(left) = flags.experiments.as_ref().map(|all| all.left_for_rollouts()).filter(|left| *left < LEAST_LEFT) {
        let why =
            format!("experiments leave {left} % of the units, too few to see what a candidate does: stop one (switchback experiment stop)");
        return Err(Refusal(why));
    }
    Ok(())
}

/// The route with the versions that the flags say: the config in force follows them a moment later, and what was retired in between is gone.
fn as_flagged<'r>(route: &'r Route, flags: &Flags) -> Cow<'r, Route> {
    let other = |(pool, version): (&PoolIndex, &String)| route.pools.get(pool.get()).is_some_and(|pool| pool.version != *version);
    let mut route = Cow::Borrowed(route);
    if flags.versions.iter().any(other) {
        let pools = &mut route.to_mut().pools;
        for (pool, version) in &flags.versions {
            if let Some(pool) = pools.get_mut(pool.get()) {
                pool.version.clone_from(version);
            }
        }
    }
    route
}

/// One write, where the other colour still has the version.
fn live_at_once(rollout: Rollout, route: &Route, why: &str) -> Move {
    let last = rollout.plan.steps.len().saturating_sub(1);
    let why: String = why.chars().take(TEXT_CHARS).collect();
    let done = Rollout { phase: Phase::Done, step: last, moves: 1, why, ..rollout };
    let mut all = fields(&Rollout { phase: Phase::Baking, ..done.clone() }, route);
    all.extend(fields(&done, route));
    Move { event: Event::Switched, rollout: done, fields: all }
}

fn sides(wanted: Option<&str>, flags: &Flags, route: &Route) -> Result<Sides, Refusal> {
    let Some(live) = route.pools.get(flags.live.get()) else { return Err(Refusal("there is no live pool".to_owned())) };
    let idle = if live.name == "blue" { "green" } else { "blue" };
    let pool = |name: &str| route.pools.iter().find(|pool| pool.name == name);
    let Some(to) = pool(idle) else {
        let why = format!("the route has no pool {idle}: a rollout ends with it live");
        return Err(Refusal(why));
    };
    let of = |version: &str| Sides { candidate: (version.to_owned(), to.name.clone()), control: (live.version.clone(), live.name.clone()) };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != live.version && loadable(wanted, route).is_some()) {
        return Ok(of(wanted));
    }
    let candidates: Vec<&Pool> = pool("canary").into_iter().chain([to]).collect();
    // What the last rollout replaced, or took back, comes again only for whoever names it.
    let former = former(flags, live);
    let is_new = |version: &str| version != live.version && former.is_none_or(|(former, _)| version != former);
    let is_wanted = |pool: &&&Pool| wanted.map_or_else(|| is_new(&pool.version), |wanted| pool.version == wanted);
    let Some(found) = candidates.iter().find(is_wanted).filter(|pool| pool.version != live.version) else {
        let versions: Vec<String> = candidates.iter().map(|pool| format!("{} runs {}", pool.name, pool.version)).collect();
        let versions = versions.join(", ");
        let why = match wanted {
            None if candidates.iter().any(|pool| pool.version != live.version) => {
                let (version, what) = former.unwrap_or_default();
                format!(
                    "there is no new version: {versions}, and {version} is what the last rollout {what}; --candidate {version} starts it all the same"
                )
            }
            Some(wanted) if wanted == live.version => format!("{wanted} is live already"),
            Some(wanted) => format!("no pool runs {wanted}: {versions}"),
            None => format!("there is no other version than {} on {}: {versions}", live.version, live.name),
        };
        let why = match (wanted, &route.loading) {
            (Some(wanted), Some(loading)) if wanted != live.version => format!("{why}; it can be loaded as {}:N", loading.model),
            _ => why,
        };
        return Err(Refusal(why));
    };
    Ok(of(&found.version))
}

/// The version that the last rollout put away, and how.
fn former<'f>(flags: &'f Flags, live: &Pool) -> Option<(&'f str, &'static str)> {
    let last = flags.rollout.as_deref()?;
    match last.phase {
        Phase::Done if last.candidate == live.version => Some((&last.control, "replaced")),
        Phase::RolledBack if last.control == live.version => Some((&last.candidate, "took back")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use super::*;

    #[test]
    fn what_is_in_the_way_is_told_before_anything_begins() {
        let mut scene = Scene::quiet(crate::release::roles::tests::route(["v1", "v2", "v3"]));
        let could = |scene: &Scene, candidate: Option<&str>| {
            let asked = Begin { candidate: candidate.map(str::to_owned), ..Begin::default() };
            could_begin(&asked, &scene.flags(), &scene.route, &scene.healthy, scene.now_ms).map_err(|refusal| refusal.0)
        };
        let says = |found: Result<(), String>, what: &str| assert!(found.as_ref().is_err_and(|why| why.contains(what)), "{found:?}");
        assert_eq!((could(&scene, Some("v3")), could(&scene, Some("v1")), could(&scene, None)), (Ok(()), Ok(()), Ok(())));
        says(could(&scene, Some("v9")), "no pool runs v9");
        scene.healthy = vec![2, 2, 0];
        says(could(&scene, Some("v3")), "pool canary has no healthy endpoint");
        scene.healthy = vec![2, 2, 2];
        for (field, value, what) in [("canary_percent", "7", "a share already, by hand"), ("freeze", "true", "freeze is set")] {
            scene.fields.insert(field.to_owned(), value.to_owned());
            for candidate in [Some("v3"), None] {
                says(could(&scene, candidate), what);
            }
        }
        // One that is under way counts as ended; a freeze does not.
        scene = Scene::start();
        assert_eq!(could(&scene, Some("v9")), Ok(()));
        scene.fields.insert("freeze".to_owned(), "true".to_owned());
        says(could(&scene, Some("v2")), "freeze is set");
    }

    #[test]
    fn steps_that_the_plan_has_too_are_as_there() {
        let mut route = crate::release::roles::tests::route(["v1", "v2", "v2"]);
        if let Some(step) = route.rollout.steps.get_mut(1) {
            (step.approval, step.min_samples) = (true, 70);
        }
        let wanted: Vec<Ppm> = ["5", "30"].iter().filter_map(|text| Ppm::from_percent(text)).collect();
        let told = |wanted: Option<&[Ppm]>| -> Vec<(String, u64, bool)> {
            plan(&route, wanted).steps.iter().map(|step| (step.percent.to_string(), step.min_samples, step.approval)).collect()
        };
        assert_eq!(told(Some(&wanted)), [("5".to_owned(), 70, true), ("30".to_owned(), 0, false)]);
        assert_eq!(told(None).len(), 4);
    }
}
