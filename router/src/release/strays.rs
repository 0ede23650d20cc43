//! Looks for strays now and then, tells of them, and has them load again what Switchback had loaded. docs/LOADING.md.
//!
//! A server that was started anew without what it remembered serves another version than the flags say. It is healthy, so that nothing else
//! would notice, and its answers count for a model that did not give them.
//!
//! It keeps out of the way of rollouts: while one is under way, only pools that it loads nothing on are looked at, those with users and the one
//! that has the candidate already. A rollout looks by itself before it goes on, and what that finds is confirmed here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mover::Look;
use super::rollout::Asked;
use crate::config::{Config, Pool, Route};
use crate::flags::Flags;
use crate::loading::{Load, Purpose, Stray, Trouble, load, strays};
use crate::vocabulary::{PoolIndex, Ppm};

/// What is found is looked at again this much later, or earlier where looks are, before it is believed.
const CONFIRM: Duration = Duration::from_secs(2);
/// While a rollout is under way, it waits for them: what failed is tried again this much later.
const AGAIN_AFTER: Duration = Duration::from_secs(15);

/// The strays of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolStrays {
    /// The version that the pool runs.
    pub version: String,
    /// Never none.
    pub strays: Vec<Stray>,
    /// What is done about it, in words; `None`: nothing, since somebody else loads versions there.
    pub restore: Option<String>,
    /// When the look that found them ended.
    pub seen: Option<Instant>,
}

/// Strays by pool.
pub type RouteStrays = BTreeMap<String, PoolStrays>;

/// What one route's servers serve.
#[derive(Default)]
pub(super) struct Strays {
    next: Option<Instant>,
    looking: Option<JoinHandle<RouteStrays>>,
    /// Found by the last look.
    found: RouteStrays,
    /// Found by two looks, one after the other.
    known: RouteStrays,
    /// Found by a look for a rollout, and not looked at again yet.
    doubted: RouteStrays,
    /// Pools that a rollout stands on: it loads nothing there.
    attended: BTreeSet<String>,
    /// When the last look ended.
    seen: Option<Instant>,
    restore: Option<Restore>,
    /// Pools that were tried, and when that began.
    tried: BTreeMap<String, Instant>,
    /// Why that was in vain.
    failed: BTreeMap<String, String>,
}

/// A load that is under way.
struct Restore {
    pool: String,
    version: String,
    /// Dropped or used, the servers get back what they had.
    cancel: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), String>>,
}

impl Strays {
    /// One look at a route; `is_moving`: a rollout is under way.
    pub(super) async fn look(&mut self, look: &Look<'_>, is_moving: bool) {
        self.end_restore(look).await;
        let Some(every) = checked_every(look.route) else {
            *self = Strays { restore: self.restore.take(), ..Strays::default() };
            return look.board.put_strays(&look.route.name, RouteStrays::new());
        };
        let now = Instant::now();
        let next = *self.next.get_or_insert(now + every);
        if self.looking.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(looking) = self.looking.take()
        {
            self.believe(looking.await.unwrap_or_default(), &look.route.name);
            self.seen = Some(now);
            let known = |pool: &String| self.known.get(pool).map_or(0, |known| known.strays.len());
            let is_open = self.found.iter().any(|(pool, found)| found.strays.len() > known(pool));
            // A rollout waits for those that are known.
            let is_soon = is_open || (is_moving && !self.known.is_empty());
            self.next = Some(now + if is_soon { CONFIRM.min(every) } else { every });
        } else if self.looking.is_none() && now >= next {
            let loads: Vec<Load> = self.looked_at(look, is_moving).filter_map(|pool| asked(look, &pool, None)).collect();
            self.looking = Some(tokio::spawn(ask(loads)));
        }
        let is_of_now: BTreeSet<(String, String)> = self.looked_at(look, is_moving).collect();
        for found in [&mut self.known, &mut self.doubted] {
            found.retain(|pool, found| is_of_now.contains(&(pool.clone(), found.version.clone())));
        }
        self.failed.retain(|pool, _| self.known.contains_key(pool));
        self.tell(look);
    }

    /// Pools, with their versions, that no rollout loads anything on at this moment.
    fn looked_at(&self, look: &Look<'_>, is_moving: bool) -> impl Iterator<Item = (String, String)> {
        let pools = (0..=u8::MAX).map(PoolIndex).zip(&look.route.pools);
        let is_free = move |(index, pool): &(PoolIndex, &Pool)| {
            let is_used = has_users(look.flags, *index) || has_candidate(look.flags, &pool.name);
            !is_moving || is_used || self.attended.contains(&pool.name)
        };
        pools.filter(is_free).map(|(_, pool)| (pool.name.clone(), pool.version.clone()))
    }

    /// A rollout stands on these pools.
    pub(super) fn attend(&mut self, pools: &[Asked]) {
        self.attended = pools.iter().map(|(pool, _)| pool.clone()).collect();
    }

    /// What a look for a rollout found on these pools is looked at again at once.
    pub(super) fn doubt(&mut self, found: RouteStrays, pools: &[Asked]) {
        self.attend(pools);
        if found.is_empty() {
            return;
        }
        // It may have begun before.
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        self.found.extend(found.clone());
        (self.doubted, self.next) = (found, Some(Instant::now()));
    }

    /// What is known, and what was found by a look for a rollout.
    pub(super) fn suspected(&self) -> RouteStrays {
        let mut all = self.doubted.clone();
        all.extend(self.known.clone());
        all
    }

    /// No look is due, and nothing is being done about one.
    pub(super) fn are_not_looked_for(&self) -> bool {
        self.next.is_none() && self.restore.is_none()
    }

    /// What two looks found is so.
    fn believe(&mut self, found: RouteStrays, route: &str) {
        let mut known = RouteStrays::new();
        for (pool, now) in &found {
            let Some(before) = self.found.get(pool).filter(|before| before.version == now.version) else { continue };
            let both: Vec<Stray> = now.strays.iter().filter(|stray| before.strays.contains(stray)).cloned().collect();
            if !both.is_empty() {
                known.insert(pool.clone(), PoolStrays { strays: both, ..now.clone() });
            }
        }
        for (pool, now) in known.iter().filter(|(pool, now)| self.known.get(*pool).is_none_or(|before| before.strays != now.strays)) {
            let (version, servers) = (&now.version, in_words(&now.strays));
            tracing::warn!(route, pool, version, servers, "servers serve another version than their pool runs");
        }
        for (pool, before) in self.known.iter().filter(|(pool, _)| !known.contains_key(*pool) && !found.contains_key(*pool)) {
            tracing::info!(route, pool, version = before.version, "no server of the pool is known to serve another version any more");
        }
        (self.found, self.known) = (found, known);
        self.doubted.clear();
    }

    fn tell(&mut self, look: &Look<'_>) {
        for (pool, known) in &mut self.known {
            known.seen = self.seen;
            let is_underway = self.restore.as_ref().is_some_and(|restore| restore.pool == *pool);
            known.restore = match self.failed.get(pool) {
                _ if is_underway => Some("it is loaded there again".to_owned()),
                Some(why) => Some(format!("loading it there again failed, and is tried again: {why}")),
                None if is_ours(look, (pool, &known.version)) => Some("it is about to be loaded there again".to_owned()),
                None => None,
            };
        }
        look.board.put_strays(&look.route.name, self.known.clone());
    }

    /// Whether this wants the route's lease: for a load that is under way, or is to begin.
    pub(super) fn wants_lease(&self, look: &Look<'_>) -> bool {
        self.restore.is_some() || self.next_pool(look).is_some()
    }

    fn next_pool(&self, look: &Look<'_>) -> Option<(&String, &PoolStrays)> {
        let every = checked_every(look.route)?;
        let is_moving = look.flags.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active());
        let every = if is_moving { every.min(AGAIN_AFTER) } else { every };
        let is_early = |pool: &String| self.tried.get(pool).is_some_and(|at| at.elapsed() < every);
        self.known.iter().find(|(pool, known)| !is_early(pool) && is_ours(look, (pool, &known.version)))
    }

    /// Has the strays of one pool load its version again. Only for the router that has the route's lease.
    pub(super) fn restore(&mut self, look: &Look<'_>) {
        if self.restore.is_some() {
            return;
        }
        let Some((pool, known)) = self.next_pool(look) else { return };
        let (pool, version) = (pool.clone(), known.version.clone());
        let servers = known.strays.iter().map(|stray| stray.server.clone()).collect();
        let Some(wanted) = asked(look, &(pool.clone(), version.clone()), Some(servers)) else { return };
        let (cancel, cancelled) = oneshot::channel();
        self.tried.insert(pool.clone(), Instant::now());
        self.restore = Some(Restore { pool, version, cancel: Some(cancel), task: tokio::spawn(load_again(wanted, cancelled)) });
    }

    /// A rollout wants to load something on this pool: what it waits for, if anything.
    pub(super) fn leave(&mut self, pool: &str) -> Option<String> {
        self.attended.remove(pool);
        let restore = self.restore.as_mut().filter(|restore| restore.pool == pool)?;
        restore.cancel();
        Some(format!("pool {pool} gets back what it had before another version is loaded"))
    }

    /// Takes note of a load that is over, and ends one that is not wanted any more.
    async fn end_restore(&mut self, look: &Look<'_>) {
        let Some(mut restore) = self.restore.take() else { return };
        if !restore.task.is_finished() {
            let is_wanted = look.route.pools.iter().any(|pool| pool.name == restore.pool && pool.version == restore.version);
            if !is_wanted {
                restore.cancel();
            }
            self.restore = Some(restore);
            return;
        }
        let why = match restore.task.await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some("it failed within the router: its log says why".to_owned()),
        };
        match why {
            // The next look says whether that helped.
            None => {
                self.failed.remove(&restore.pool);
                self.next = Some(Instant::now());
            }
            Some(why) => {
                let (route, pool, version) = (&look.route.name, &restore.pool, &restore.version);
                if self.failed.get(pool) != Some(&why) {
                    tracing::warn!(route, pool, version, why, "servers that lost their version cannot load it again; it is tried again");
                }
                self.failed.insert(pool.clone(), why);
            }
        }
    }
}

impl Restore {
    fn cancel(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            let _ = cancel.send(());
        }
    }
}

/// How often servers are asked, where they can tell and somebody wants to know.
fn checked_every(route: &Route) -> Option<Duration> {
    route.loading.as_ref().filter(|loading| loading.is_checked()).map(|loading| loading.check_every)
}

fn has_users(flags: &Flags, pool: PoolIndex) -> bool {
    // Copies are judged as answers are.
    let is_candidate = flags.candidate.pool == pool && (flags.candidate.share > Ppm::ZERO || flags.mirror > Ppm::ZERO);
    flags.live == pool || flags.pin == Some(pool) || is_candidate || flags.holdback.is_some_and(|holdback| holdback.pool == pool)
}

/// Whether the rollout has loaded its candidate on this pool: it does so once.
fn has_candidate(flags: &Flags, pool: &str) -> bool {
    flags.rollout.as_ref().is_some_and(|rollout| rollout.loaded_on.as_deref() == Some(pool))
}

/// Whether Switchback had loaded this version there, and is to do it again.
fn is_ours(look: &Look<'_>, (pool, version): (&String, &String)) -> bool {
    let is_restored = look.route.loading.as_ref().is_some_and(|loading| loading.restore);
    let index = look.route.pool_named(pool);
    is_restored && index.and_then(|index| look.flags.versions.get(&index)) == Some(version)
}

fn asked(look: &Look<'_>, pool: &Asked, only: Option<Vec<String>>) -> Option<Load> {
    load_of(&look.under.config, look.route, pool, only)
}

/// A version on a pool, or on these of its servers alone.
pub(super) fn load_of(config: &Config, route: &Route, (name, version): &Asked, only: Option<Vec<String>>) -> Option<Load> {
    let pool = route.pools.iter().find(|pool| pool.name == *name)?.clone();
    let loading = route.loading.clone()?;
    let number = loading.version_of(version)?;
    let (registry, route) = (config.registry.clone(), route.name.clone());
    Some(Load { registry, route, loading, pool, others: Vec::new(), number, sha256: None, only, purpose: Purpose::Restore })
}

async fn ask(loads: Vec<Load>) -> RouteStrays {
    let mut found = RouteStrays::new();
    for load in &loads {
        let strays = strays(load, None).await;
        if !strays.is_empty() {
            let version = load.pool.version.clone();
            found.insert(load.pool.name.clone(), PoolStrays { version, strays, ..PoolStrays::default() });
        }
    }
    found
}

async fn load_again(wanted: Load, mut cancelled: oneshot::Receiver<()>) -> Result<(), String> {
    let (route, pool, version) = (&wanted.route, &wanted.pool.name, &wanted.pool.version);
    match load(&wanted, &mut cancelled, &|_| {}).await {
        Ok(Some(loaded)) => {
            tracing::info!(route, pool, version, what = loaded.what, "servers that lost their version have loaded it again");
            Ok(())
        }
        Ok(None) => Err("it was taken back".to_owned()),
        Err(Trouble::Refused(why) | Trouble::Away(why)) => Err(why),
    }
}

/// Servers and what they serve: `http://127.0.0.1:9001 (search:1)`.
#[must_use]
pub fn in_words(strays: &[Stray]) -> String {
    let one = |stray: &Stray| {
        let serves = if stray.serves.is_empty() { "nothing".to_owned() } else { stray.serves.join(", ") };
        format!("{} ({serves})", stray.server)
    };
    strays.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::roles::tests::{flags, route};

    fn found(version: &str, servers: &[&str]) -> RouteStrays {
        let stray = |server: &&str| Stray { server: (*server).to_owned(), serves: vec!["search:1".to_owned()] };
        let strays = PoolStrays { version: version.to_owned(), strays: servers.iter().map(stray).collect(), ..PoolStrays::default() };
        RouteStrays::from([("blue".to_owned(), strays)])
    }

    #[test]
    fn what_one_look_finds_is_not_believed() {
        let mut strays = Strays::default();
        strays.believe(found("search:2", &["a", "b"]), "search");
        assert_eq!(strays.known, RouteStrays::new());
        strays.believe(found("search:2", &["b", "c"]), "search");
        assert_eq!(strays.known, found("search:2", &["b"]));
        strays.believe(found("search:3", &["b"]), "search");
        assert_eq!(strays.known, RouteStrays::new(), "what is found of another version is new");
        strays.believe(RouteStrays::new(), "search");
        assert_eq!((strays.found.len(), strays.known.len()), (0, 0));
    }

    #[test]
    fn what_a_rollout_finds_is_in_its_way_until_it_is_looked_at_again() {
        let (mut strays, pool) = (Strays::default(), ("blue".to_owned(), "search:2".to_owned()));
        let one = || found("search:2", &["a"]);
        strays.doubt(one(), std::slice::from_ref(&pool));
        assert_eq!((strays.suspected(), strays.known.len(), strays.next.is_some()), (one(), 0, true));
        strays.believe(one(), "search");
        assert_eq!((strays.suspected(), &strays.known), (one(), &one()), "the first look counts");
        strays.believe(RouteStrays::new(), "search");
        assert_eq!(strays.suspected(), RouteStrays::new());
        strays.doubt(one(), &[pool]);
        strays.believe(RouteStrays::new(), "search");
        assert_eq!(strays.suspected(), RouteStrays::new(), "it was for a moment alone");
    }

    #[test]
    fn a_pool_with_users_is_one_that_no_rollout_loads_on() {
        let file = route(["v1", "v2", "v3"]);
        let users = |fields: &[(&str, &str)]| [0, 1, 2].map(|pool| has_users(&flags(&file, fields), PoolIndex(pool)));
        assert_eq!(users(&[("live", "blue")]), [true, false, false]);
        assert_eq!(users(&[("live", "blue"), ("candidate_pool", "canary"), ("canary_percent", "5")]), [true, false, true]);
        assert_eq!(users(&[("live", "green"), ("holdback_pool", "blue"), ("holdback_percent", "5")]), [true, true, false]);
    }

    #[test]
    fn strays_are_named_with_what_they_serve() {
        let mut strays = found("search:2", &["http://a:1"]).remove("blue").unwrap().strays;
        strays.push(Stray { server: "http://b:1".to_owned(), serves: Vec::new() });
        assert_eq!(in_words(&strays), "http://a:1 (search:1), http://b:1 (nothing)");
    }
}
