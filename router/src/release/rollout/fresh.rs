//! Whether the servers that a transition stands on serve what their pools run: a look at them comes first, and what was judged of another model is
//! judged anew.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use super::next::{Move, Next, Seen, event_of};
use super::ready::used;
use crate::config::Route;
use crate::flags::{Flags, Phase, Rollout};
use crate::vocabulary::Ppm;

/// A pool, and the version that it runs.
pub type Asked = (String, String);

/// What is known of servers, in one step of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServersSeen {
    /// Whose servers were asked just now.
    pub asked: Vec<Asked>,
    /// Pools with servers that serve another version, and which those are, in words.
    pub strays: BTreeMap<String, String>,
    /// Pools that had such servers in this step.
    pub had: BTreeSet<String>,
}

impl Next {
    /// The transition that gates are asked of, where there is one. A step that begins anew sends nobody anywhere.
    pub(in crate::release) fn gated(&self, rollout: &Rollout) -> Option<Event> {
        match self {
            Next::Go(go) => (!is_anew(go, rollout)).then_some(go.event),
            Next::Look { event, .. } => Some(*event),
            Next::Rest | Next::Wait(_) | Next::Load(_) => None,
        }
    }
}

fn is_anew(go: &Move, rollout: &Rollout) -> bool {
    go.event == Event::StepBegan && (go.rollout.phase, go.rollout.step) == (rollout.phase, rollout.step)
}

impl Seen<'_> {
    /// Servers that are judged serve another version, or did so in this step: it waits for them, and then begins anew.
    pub(super) fn lost(&self) -> Option<Next> {
        let (rollout, servers) = (self.rollout, self.servers?);
        // Whoever promotes wants no evidence.
        let is_held = rollout.paused.is_some() || self.flags.is_frozen || self.flags.pin.is_some();
        if is_held || rollout.hurry.is_some() {
            return None;
        }
        let judged = judged(rollout, self.flags, self.route);
        if let Some(what) = in_the_way(&judged, servers) {
            return Some(self.wait(what));
        }
        let (pool, version) = judged.iter().find(|(pool, _)| servers.had.contains(pool))?;
        let why = format!("servers of pool {pool} had lost {version} and have it again: this step begins anew");
        Some(self.go(Event::StepBegan, rollout.clone(), why))
    }

    /// What has to be known of servers before a transition; `None`: they serve what they should, or nobody can tell.
    pub(super) fn looks_first(&self, after: &Rollout) -> Option<Next> {
        self.looks_before(event_of(after), after)
    }

    /// The same before this event.
    pub(super) fn looks_before(&self, event: Event, after: &Rollout) -> Option<Next> {
        let stands_on = stands_on(self, after);
        let nothing = ServersSeen::default();
        let servers = self.servers.unwrap_or(&nothing);
        if let Some(what) = in_the_way(&stands_on, servers) {
            return Some(self.wait(what));
        }
        let is_fresh = stands_on.iter().all(|one| servers.asked.contains(one));
        (!is_fresh).then_some(Next::Look { event, pools: stands_on })
    }
}

/// `servers of pool canary serve another version: http://127.0.0.1:9001 (search:1)`
fn in_the_way(pools: &[Asked], servers: &ServersSeen) -> Option<String> {
    let found = pools.iter().find_map(|(pool, _)| servers.strays.get_key_value(pool));
    found.map(|(pool, what)| format!("servers of pool {pool} serve another version: {what}"))
}

/// Answers are judged in this state, or copies are. Whoever goes back at once waits for nobody.
fn is_judging(rollout: &Rollout) -> bool {
    matches!(rollout.phase, Phase::Mirroring | Phase::Canary | Phase::Baking) && !rollout.is_at_once()
}

/// Whose users the evidence is of in this state, as far as their servers can tell what they serve.
pub(in crate::release) fn judged(rollout: &Rollout, flags: &Flags, route: &Route) -> Vec<Asked> {
    let candidate = match rollout.phase {
        _ if !is_judging(rollout) => return Vec::new(),
        // Nobody is compared with.
        Phase::Baking if rollout.plan.holdback == Ppm::ZERO => return tellable([rollout.to.as_str()], route),
        Phase::Baking => rollout.to.as_str(),
        _ => route.pools.get(flags.candidate.pool.get()).map_or("", |pool| pool.name.as_str()),
    };
    tellable([candidate, rollout.from.as_str()], route)
}

/// Those, and the pool that comes next; for whoever promotes, that one alone.
fn stands_on(seen: &Seen<'_>, after: &Rollout) -> Vec<Asked> {
    if !is_judging(seen.rollout) {
        return Vec::new();
    }
    let mut pools = if seen.rollout.hurry.is_some() { Vec::new() } else { judged(seen.rollout, seen.flags, seen.route) };
    for next in tellable(used(after, seen.route), seen.route) {
        if !pools.contains(&next) {
            pools.push(next);
        }
    }
    pools
}

/// Those of these pools whose servers can tell what they serve, where somebody wants to know.
pub fn tellable<'n>(names: impl IntoIterator<Item = &'n str>, route: &Route) -> Vec<Asked> {
    let Some(loading) = route.loading.as_ref().filter(|loading| loading.is_checked()) else { return Vec::new() };
    let of = |name: &str| route.pools.iter().find(|pool| pool.name == name && loading.version_of(&pool.version).is_some());
    names.into_iter().filter_map(of).map(|pool| (pool.name.clone(), pool.version.clone())).collect()
}
