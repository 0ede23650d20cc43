//! Whether the pool that a state sends the candidate's traffic to can take it, and what makes it able to.

use super::layout::{carrier, loadable};
use super::next::Seen;
use crate::config::{LoadProtocol, Pool, Route};
use crate::flags::{Phase, Rollout};

/// Of more servers than these only the number is told.
const TOLD_SERVERS: usize = 4;

/// How far the loading of a version is, as whoever does it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSeen {
    /// On this pool.
    pub pool: String,
    /// The version.
    pub version: String,
    /// What became of it.
    pub state: LoadState,
}

/// What became of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// It is under way, or is tried again: in words.
    Underway(String),
    /// Every server has the version, is warm, and scores as it should.
    Loaded {
        /// In words.
        what: String,
        /// For so long, in milliseconds.
        took_ms: u64,
    },
    /// It cannot be had: trying again makes no sense.
    Refused(String),
}

/// A version that a pool is to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToLoad {
    /// Where.
    pub pool: String,
    /// `search:13`.
    pub version: String,
    /// Its number in the registry.
    pub number: u64,
    /// SHA-256 of its artefact, where the rollout is of that one alone.
    pub sha256: Option<String>,
}

/// What a pool lacks for the candidate's traffic.
pub(super) enum Lack {
    /// The version; its servers can load it.
    Version(ToLoad),
    /// In words.
    Other(String),
}

impl Lack {
    /// In words.
    pub(super) fn what(self) -> String {
        match self {
            Lack::Version(ToLoad { pool, version, .. }) => format!("pool {pool} has to load {version} first"),
            Lack::Other(what) => what,
        }
    }
}

impl Seen<'_> {
    /// That no server of a pool is healthy, as this router sees them: which those are.
    pub(super) fn without_servers(&self, pool: &str) -> Option<String> {
        let (index, pool) = self.route.pools.iter().enumerate().find(|(_, one)| one.name == pool)?;
        let is_dead = self.healthy.get(index).copied().unwrap_or(0) == 0;
        is_dead.then(|| format!("pool {} has no healthy server ({})", pool.name, servers(pool)))
    }

    /// The same of a pool that is to load something.
    pub(in crate::release) fn cannot_load(&self, to_load: &ToLoad) -> Option<String> {
        self.without_servers(&to_load.pool).map(|what| format!("{what}, so {} is not loaded there yet", to_load.version))
    }
}

/// `http://10.0.0.7:9001, http://10.0.0.8:9001`
fn servers(pool: &Pool) -> String {
    let endpoints = &pool.endpoints;
    let named = endpoints.iter().take(TOLD_SERVERS).map(|one| format!("http{}://{}", if one.is_tls { "s" } else { "" }, one.authority));
    let named = named.collect::<Vec<_>>().join(", ");
    match endpoints.len().saturating_sub(TOLD_SERVERS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The pool that a state sends the candidate's traffic to.
pub(super) fn used<'r>(rollout: &'r Rollout, route: &'r Route) -> Option<&'r str> {
    match rollout.phase {
        Phase::Pending | Phase::Mirroring | Phase::Canary => Some(carrier(rollout, route)),
        Phase::Baking => Some(&rollout.to),
        Phase::Loading | Phase::Done | Phase::RolledBack | Phase::Aborted | Phase::Retired => None,
    }
}

/// What a pool runs by its flag is what its servers had once: one that was started anew may have lost it. So a rollout asks them, before it
/// sends anybody there; those that have the version do nothing.
fn is_to_be_asked(name: &str, index: usize, seen: &Seen<'_>) -> bool {
    let Seen { rollout, route, flags, .. } = seen;
    let can_tell = route.loading.as_ref().is_some_and(|loading| loading.protocol == LoadProtocol::V2);
    let is_ours = flags.versions.keys().any(|at| at.get() == index) || rollout.goes_back();
    let was_asked = rollout.loaded_on.as_deref() == Some(name) || used(rollout, route) == Some(name);
    can_tell && is_ours && !was_asked
}

/// Why the pool that a state sends the candidate's traffic to cannot take it.
pub(super) fn not_ready(after: &Rollout, seen: &Seen<'_>) -> Option<Lack> {
    let name = used(after, seen.route)?;
    let other = |what: String| Some(Lack::Other(what));
    let to_load = |number| {
        let (pool, version, sha256) = (name.to_owned(), after.candidate.clone(), after.sha256.clone());
        Some(Lack::Version(ToLoad { pool, version, number, sha256 }))
    };
    let Some((index, pool)) = seen.route.pools.iter().enumerate().find(|(_, pool)| pool.name == name) else {
        return other(format!("there is no pool {name} any more"));
    };
    if pool.version != after.candidate {
        let is_flagged = seen.flags.versions.iter().any(|(at, version)| at.get() == index && *version == after.candidate);
        if is_flagged {
            return other(format!("this router does not have {} on {name} yet", after.candidate));
        }
        let Some(number) = loadable(&after.candidate, seen.route) else {
            return other(format!("pool {name} runs {} and not {}", pool.version, after.candidate));
        };
        return to_load(number);
    }
    if let Some(number) = loadable(&after.candidate, seen.route).filter(|_| is_to_be_asked(name, index, seen)) {
        return to_load(number);
    }
    if seen.healthy.get(index).copied().unwrap_or(0) == 0 {
        return other(format!("pool {name} has no healthy endpoint ({})", servers(pool)));
    }
    // Each router's users are sent there.
    let router = seen.routers.iter().find(|router| router.is_known && router.down.iter().any(|down| down == name))?;
    other(format!("pool {name} has no healthy endpoint, as {} sees it", router.id))
}
