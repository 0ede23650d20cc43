//! The flag store as everybody else sees it, over the embedded store or Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::embedded::Embedded;
use super::owner::Owner;
use super::published::{Applied, Published, View};
use super::record_file::Revised;
use super::redis::{self, FleetTime, Heard, Lease, RedisStore, ShelfWord};
use super::{
    Change, ChangeError, CopiesSeen, Fault, Fields, Flags, FlagsError, HeldAt, HistoryError, Ledger, LedgerEntry, RouterSeen, Trip,
};
use crate::config::{Config, Route, StateUrl};
use crate::vocabulary::{Ppm, RouteIndex};

/// Flags of every route: many readers, one writer path. A [`RouteIndex`] that is not the config's panics.
///
/// One of these is of one config; [`FlagStore::succeed`] makes that of the next one over the same store.
#[derive(Debug)]
pub struct FlagStore {
    published: Arc<Published>,
    backing: Arc<Backing>,
    owner: Arc<Owner>,
}

/// The fields of a page: names and values.
pub type ShelfFields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
enum Backing {
    Embedded(Embedded),
    Redis(RedisStore),
}

impl FlagStore {
    /// Reads the passwords and certificates that `[state]` names, without opening anything.
    ///
    /// # Errors
    /// [`FlagsError::Named`]: one of them cannot be used.
    pub fn check(config: &Config) -> Result<(), FlagsError> {
        for route in &config.routes {
            check_initial(route)?;
        }
        match &config.state.url {
            StateUrl::Embedded => Ok(()),
            StateUrl::Redis(state) => redis::check(state),
        }
    }

    /// Opens the store that the config names, and starts its tasks on the current tokio runtime.
    ///
    /// # Errors
    /// Only what a restart would not mend: a data folder that another router uses, or that cannot be written. A Redis
    /// that cannot be reached is none: the router starts from its copy on disk.
    pub async fn open(config: &Arc<Config>) -> Result<Arc<FlagStore>, FlagsError> {
        FlagStore::open_as(config, Owner::of(&config.state.data_dir)?, true).await
    }

    /// Opens the store beside the process that has it and is about to hand over: from its copies, writing nothing and reporting nothing
    /// before [`FlagStore::take_over`].
    ///
    /// # Errors
    /// As [`FlagStore::open`].
    pub async fn open_beside(config: &Arc<Config>) -> Result<Arc<FlagStore>, FlagsError> {
        FlagStore::open_as(config, Owner::beside(&config.state.data_dir), false).await
    }

    async fn open_as(config: &Arc<Config>, owner: Owner, is_owner: bool) -> Result<Arc<FlagStore>, FlagsError> {
        let (published, backing) = match &config.state.url {
            StateUrl::Embedded => {
                let (published, embedded) = Embedded::open(config, is_owner)?;
                (published, Backing::Embedded(embedded))
            }
            StateUrl::Redis(state) => {
                let (published, redis) = RedisStore::open(config, state, is_owner).await?;
                (published, Backing::Redis(redis))
            }
        };
        Ok(Arc::new(FlagStore { published, backing: Arc::new(backing), owner: Arc::new(owner) }))
    }

    /// The same store under another config, whose `[state]` names the same one. Routes that stay are judged again from what is in force;
    /// a new one starts as at start-up. What this store is asked afterwards is asked of the new one, as far as the route is still there.
    ///
    /// # Errors
    /// A new route's file that cannot be read or written. Nothing has changed then.
    pub async fn succeed(&self, config: &Arc<Config>) -> Result<Arc<FlagStore>, FlagsError> {
        let published = match &*self.backing {
            Backing::Embedded(embedded) => embedded.succeed(config)?,
            Backing::Redis(redis) => redis.succeed(config).await?,
        };
        Ok(Arc::new(FlagStore { published, backing: self.backing.clone(), owner: self.owner.clone() }))
    }

    /// Leaves the data folder to a new process: no change is made and nothing is reported any more, when this returns. Flags are obeyed
    /// as before.
    pub async fn let_go(&self) {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.let_go(),
            Backing::Redis(redis) => redis.set_owner(false).await,
        }
        self.owner.let_go();
    }

    /// Takes the data folder that another process let go of, and obeys what that wrote last.
    ///
    /// # Errors
    /// It was not let go of, or a file cannot be read or written.
    pub async fn take_over(&self) -> Result<(), FlagsError> {
        self.owner.take().await?;
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.take_over(),
            Backing::Redis(redis) => {
                redis.set_owner(true).await;
                Ok(())
            }
        }
    }

    /// The route's flags as the data path obeys them, now and at each change: what the breaker holds back is held back.
    #[must_use]
    pub fn watch(&self, route: RouteIndex) -> watch::Receiver<Arc<Flags>> {
        of_the_config(self.published.watch(route))
    }

    /// The route's flags as the store has them, now and at each change.
    #[must_use]
    pub fn watch_stored(&self, route: RouteIndex) -> watch::Receiver<Arc<Flags>> {
        of_the_config(self.published.watch_stored(route))
    }

    /// The route's flags as the store has them now.
    #[must_use]
    pub fn stored(&self, route: RouteIndex) -> Arc<Flags> {
        of_the_config(self.published.newest(route))
    }

    /// What this router's breaker holds back on the route.
    #[must_use]
    pub fn trip(&self, route: RouteIndex) -> Option<Arc<Trip>> {
        self.published.trip(route)
    }

    /// Holds a candidate back on this router from now on, or (`None`) nothing any more. The other routers hear of it with the next heartbeat,
    /// which is sent at once.
    pub fn set_trip(&self, route: RouteIndex, trip: Option<Arc<Trip>>) {
        self.published.set_trip(route, trip);
    }

    /// Pools of the route that have no healthy endpoint, as this router sees them; the other routers hear of it as of a trip.
    pub(crate) fn set_down(&self, route: RouteIndex, pools: Vec<String>) {
        self.published.set_down(route, pools);
    }

    /// What became of the copies of queries that this router sent for the route's rollout; the other routers hear of it with the next heartbeat.
    pub(crate) fn set_copies(&self, route: RouteIndex, copies: Option<CopiesSeen>) {
        self.published.set_copies(route, copies);
    }

    /// An item whenever the route's fields were read from the store, also when nothing came of it.
    pub(crate) fn watch_reads(&self, route: RouteIndex) -> watch::Receiver<Arc<Applied>> {
        of_the_config(self.published.watch_reads(route))
    }

    /// The route's flags with what is wrong with them and where they come from.
    #[must_use]
    pub fn view(&self, route: RouteIndex) -> View {
        let applied = of_the_config(self.published.applied(route));
        let flags = of_the_config(self.published.flags(route));
        let mut warnings = self.published.warnings();
        warnings.extend(flags.cut_holdback().zip(flags.holdback).map(|(most, holdback)| {
            let share = holdback.share;
            format!("canary_percent leaves {most} % for the holdback, which gets that: holdback_percent is written as {share}")
        }));
        let (age, (topology, node)) = match &*self.backing {
            Backing::Embedded(_) => (Duration::ZERO, ("embedded", None)),
            Backing::Redis(redis) => (self.published.age_of(route), redis.server(route)),
        };
        let applied_for = self.published.applied_for(route);
        View { flags, faults: applied.faults.clone(), source: applied.source, age, applied_for, topology, node, warnings }
    }

    /// The route's fields as last read from the store, also those that are not obeyed.
    #[must_use]
    pub fn fields(&self, route: RouteIndex) -> Fields {
        self.published.applied(route).map(|applied| applied.fields.clone()).unwrap_or_default()
    }

    /// Changes flags: all of it or nothing. When it returns, this router applies the new epoch.
    ///
    /// # Errors
    /// See [`ChangeError`]; only `Unanswered` leaves open whether the change was made.
    pub async fn change(&self, route: RouteIndex, change: Change) -> Result<u64, ChangeError> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.change(&self.published, route, change).await,
            Backing::Redis(redis) => redis.change(&self.published, route, change).await,
        }
    }

    /// The routers that serve this route, as their heartbeats say, by id.
    #[must_use]
    pub fn routers(&self, route: RouteIndex) -> Vec<RouterSeen> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.routers(&self.published, route),
            Backing::Redis(redis) => redis.routers(&self.published, route),
        }
    }

    /// How long ago the store was heard, of the route that was not heard of for longest; since opening when it never was. Zero for the embedded store.
    #[must_use]
    pub fn age(&self) -> Duration {
        match &*self.backing {
            Backing::Embedded(_) => Duration::ZERO,
            Backing::Redis(_) => self.published.age(),
        }
    }

    /// What time the fleet has by the store, whenever that is heard; nothing is, alone.
    #[must_use]
    pub fn clock(&self) -> watch::Receiver<Option<FleetTime>> {
        match &*self.backing {
            Backing::Embedded(_) => watch::channel(None).1,
            Backing::Redis(redis) => redis.clock(),
        }
    }

    /// Whether other routers may count on the same routes.
    #[must_use]
    pub fn has_others(&self) -> bool {
        matches!(&*self.backing, Backing::Redis(_))
    }

    /// Keeps what a sender says of pages of windows of a route, beside the flags.
    ///
    /// # Errors
    /// In words that say what to do. Whether something was kept is not known then.
    pub async fn shelve(&self, word: ShelfWord<'_>) -> Result<Heard, String> {
        match &*self.backing {
            Backing::Embedded(embedded) => {
                let kept = embedded.shelf().put(word.route, word.sender, word.pages);
                let heard = Heard { may_have_lost: false, last_word: u64::MAX, is_there: true };
                kept.map(|()| heard).map_err(|error| format!("what was counted cannot be written to the data folder: {error}"))
            }
            Backing::Redis(redis) => redis.shelf().put(word).await,
        }
    }

    /// Everything that any sender said of a page, and whether the store may have lost some of it meanwhile. `None` where the key is of another type.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn shelved(&self, route: &str, page: u64) -> Result<Option<(ShelfFields, bool)>, String> {
        match &*self.backing {
            Backing::Embedded(embedded) => Ok(Some((embedded.shelf().get(route, page), false))),
            Backing::Redis(redis) => redis.shelf().get(route, page).await,
        }
    }

    /// What is known of a route's candidate, as the store has it.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn evidence(&self, route: &str) -> Result<Revised, String> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.records().read(route).map_err(|error| error.to_string()),
            Backing::Redis(redis) => redis.shelf().evidence(route).await,
        }
    }

    /// Replaces it, unless somebody else did since: then `replaces` is no longer its revision (0 for none), and the answer is false.
    ///
    /// # Errors
    /// In words that say what to do. Whether it was replaced is not known then.
    pub async fn replace_evidence(&self, route: &str, replaces: u64, revision: u64, record: &[u8]) -> Result<bool, String> {
        match &*self.backing {
            Backing::Embedded(embedded) if !embedded.is_owner() => Err(super::embedded::HANDING_OVER.to_owned()),
            Backing::Embedded(embedded) => embedded.records().replace(route, replaces, revision, record).map_err(|error| error.to_string()),
            Backing::Redis(redis) => redis.shelf().replace(route, replaces, revision, record).await,
        }
    }

    /// What is known of an experiment, as the store has it.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn experiment(&self, route: &str, name: &str) -> Result<Revised, String> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.records().read(&of_experiment(route, name)).map_err(|error| error.to_string()),
            Backing::Redis(redis) => redis.shelf().experiment(route, name).await,
        }
    }

    /// Replaces it, as [`FlagStore::replace_evidence`] does.
    ///
    /// # Errors
    /// In words that say what to do. Whether it was replaced is not known then.
    pub async fn replace_experiment(&self, route: &str, name: &str, replaces: u64, revision: u64, record: &[u8]) -> Result<bool, String> {
        match &*self.backing {
            Backing::Embedded(embedded) if !embedded.is_owner() => Err(super::embedded::HANDING_OVER.to_owned()),
            Backing::Embedded(embedded) => {
                embedded.records().replace(&of_experiment(route, name), replaces, revision, record).map_err(|error| error.to_string())
            }
            Backing::Redis(redis) => redis.shelf().replace_experiment((route, name), replaces, revision, record).await,
        }
    }

    /// Takes or keeps the right to move a route's rollout for so long, if nobody else has it; its term is at least `term`. The embedded store has
    /// no others.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn lease(&self, route: &str, me: &str, lasts: Duration, term: u64) -> Result<Lease, String> {
        match &*self.backing {
            Backing::Embedded(embedded) if !embedded.is_owner() => Err(super::embedded::HANDING_OVER.to_owned()),
            Backing::Embedded(_) => Ok(Lease { term: term.max(1), holder: me.to_owned() }),
            Backing::Redis(redis) => redis.shelf().lease(route, me, lasts, term).await,
        }
    }

    /// Takes or keeps the right to tell a target what happened on a route for so long, if nobody else has it; and notes, if it has, the epoch that was `told` last.
    /// Answers who has the right, and the epoch that was told last, which is `begin` where none was.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn announce(
        &self,
        route: &str,
        target: &str,
        me: &str,
        lasts: Duration,
        told: Option<u64>,
        begin: u64,
    ) -> Result<(String, u64), String> {
        match &*self.backing {
            Backing::Embedded(embedded) if !embedded.is_owner() => Err(super::embedded::HANDING_OVER.to_owned()),
            Backing::Embedded(embedded) => {
                let told = embedded.told().note(route, target, told, begin);
                told.map(|told| (me.to_owned(), told)).map_err(|error| format!("the data folder cannot be written: {error}"))
            }
            Backing::Redis(redis) => redis.shelf().announce((route, target), me, lasts, told, begin).await,
        }
    }

    /// The key of tokens that all routers of the store use: this one, unless another came first. The embedded store has no others.
    ///
    /// # Errors
    /// In words that say what to do.
    pub async fn token_key(&self, route: &str, offered: &str) -> Result<String, String> {
        match &*self.backing {
            Backing::Embedded(_) => Ok(offered.to_owned()),
            Backing::Redis(redis) => redis.shelf().token_key(route, offered).await,
        }
    }

    /// The newest changes of a route, newest first.
    ///
    /// # Errors
    /// [`HistoryError`] when the store cannot be read.
    pub async fn history(&self, route: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.history(&self.published, route, limit).await,
            Backing::Redis(redis) => redis.history(&self.published, route, limit).await,
        }
    }

    /// The whole ledger of a route, as far as it is there.
    ///
    /// # Errors
    /// [`HistoryError`] when the store cannot be read.
    pub async fn ledger(&self, route: RouteIndex) -> Result<Ledger, HistoryError> {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.ledger(&self.published, route).await,
            Backing::Redis(redis) => {
                let name = self.published.route(route).map(|route| route.name.clone()).unwrap_or_default();
                redis.shelf().ledger(&name, self.stored(route).epoch).await.map_err(|why| HistoryError { why })
            }
        }
    }

    /// What held on a route at this time, in milliseconds since 1970 by the store's clock.
    ///
    /// # Errors
    /// [`HistoryError`] when the store cannot be read.
    pub async fn held_at(&self, route: RouteIndex, time_ms: u64) -> Result<HeldAt, HistoryError> {
        match &*self.backing {
            Backing::Embedded(embedded) => {
                let mut held = HeldAt::default();
                let mut entries = embedded.history(&self.published, route, usize::MAX).await?.into_iter();
                while entries.next().is_some_and(|entry| held.look(entry, time_ms)) {}
                Ok(held)
            }
            Backing::Redis(redis) => {
                let name = self.published.route(route).map(|route| route.name.clone()).unwrap_or_default();
                redis.shelf().at(&name, time_ms).await.map_err(|why| HistoryError { why })
            }
        }
    }

    /// Tells heartbeats where this router's admin API really listens, once it is bound; before that they say what the config says.
    pub fn set_admin(&self, address: SocketAddr) {
        match &*self.backing {
            Backing::Embedded(embedded) => embedded.set_admin(address.to_string()),
            Backing::Redis(redis) => redis.set_admin(address.to_string()),
        }
    }
}

/// What there is for every [`RouteIndex`] of the config.
#[allow(clippy::expect_used)]
fn of_the_config<T>(found: Option<T>) -> T {
    found.expect("a route of the config")
}

/// Holds a route's initial flags to what a change of flags is held to.
fn check_initial(route: &Route) -> Result<(), FlagsError> {
    let refused =
        |field: &str, what: String, why: String| Err(FlagsError::Named { key: format!("route.{}.initial.{field}", route.name), what, why });
    let base = Flags::initial(route);
    let (flags, faults) = Flags::read(&route.initial, &base, route);
    if let Some(Fault { field, value, allowed }) = faults.into_iter().next() {
        return refused(&field, value, format!("must be {allowed}"));
    }
    if let Some(most) = flags.cut_holdback() {
        let why = format!("must be at most {most}: candidate and holdback are at most 100 together");
        return refused("holdback_percent", flags.holdback.map(|holdback| holdback.share.to_string()).unwrap_or_default(), why);
    }
    if flags.candidate.share > Ppm::ZERO && flags.candidate.pool == flags.live {
        let why = "must be 0: the candidate's pool is the live one".to_owned();
        return refused("canary_percent", flags.candidate.share.to_string(), why);
    }
    Ok(())
}

/// The embedded store's file: no route has such a name.
fn of_experiment(route: &str, name: &str) -> String {
    format!("{route}+{name}")
}
