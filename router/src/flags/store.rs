//! The flag store as everybody else sees it, over the embedded store or Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::embedded::Embedded;
use super::owner::Owner;
use super::published::{Applied, Published, View};
use super::redis::{self, RedisStore};
use super::{Change, ChangeError, Fields, Flags, FlagsError, HistoryError, LedgerEntry, RouterSeen};
use crate::config::{Config, StateUrl};
use crate::vocabulary::RouteIndex;

/// Flags of every route: many readers, one writer path. A [`RouteIndex`] that is not the config's panics.
#[derive(Debug)]
pub struct FlagStore {
    published: Arc<Published>,
    backing: Backing,
    _owner: Owner,
}

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
        let owner = Owner::of(&config.state.data_dir)?;
        let (published, backing) = match &config.state.url {
            StateUrl::Embedded => {
                let (published, embedded) = Embedded::open(config)?;
                (published, Backing::Embedded(embedded))
            }
            StateUrl::Redis(state) => {
                let (published, redis) = RedisStore::open(config, state).await?;
                (published, Backing::Redis(redis))
            }
        };
        Ok(Arc::new(FlagStore { published, backing, _owner: owner }))
    }

    /// The route's flags in force, now and at each change.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn watch(&self, route: RouteIndex) -> watch::Receiver<Arc<Flags>> {
        self.published.watch(route).expect("a route of the config")
    }

    /// An item whenever the route's fields were read from the store, also when nothing came of it.
    #[allow(clippy::expect_used)]
    pub(crate) fn watch_reads(&self, route: RouteIndex) -> watch::Receiver<Arc<Applied>> {
        self.published.watch_reads(route).expect("a route of the config")
    }

    /// The route's flags with what is wrong with them and where they come from.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn view(&self, route: RouteIndex) -> View {
        let applied = self.published.applied(route).expect("a route of the config");
        let flags = self.published.flags(route).expect("a route of the config");
        let mut warnings = self.published.warnings();
        warnings.extend(
            flags.cut_holdback().map(|most| format!("canary_percent leaves {most} % for the holdback, and holdback_percent is more")),
        );
        let (age, (topology, node)) = match &self.backing {
            Backing::Embedded(_) => (Duration::ZERO, ("embedded", None)),
            Backing::Redis(redis) => (self.published.age_of(route), redis.server(route)),
        };
        View { flags, faults: applied.faults.clone(), source: applied.source, age, topology, node, warnings }
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
        match &self.backing {
            Backing::Embedded(embedded) => embedded.change(route, change).await,
            Backing::Redis(redis) => redis.change(route, change).await,
        }
    }

    /// The routers that serve this route, as their heartbeats say, by id.
    #[must_use]
    pub fn routers(&self, route: RouteIndex) -> Vec<RouterSeen> {
        match &self.backing {
            Backing::Embedded(embedded) => embedded.routers(route),
            Backing::Redis(redis) => redis.routers(route),
        }
    }

    /// How long ago the store was heard, of the route that was not heard of for longest; since opening when it never was. Zero for the embedded store.
    #[must_use]
    pub fn age(&self) -> Duration {
        match &self.backing {
            Backing::Embedded(_) => Duration::ZERO,
            Backing::Redis(_) => self.published.age(),
        }
    }

    /// The newest changes of a route, newest first.
    ///
    /// # Errors
    /// [`HistoryError`] when the store cannot be read.
    pub async fn history(&self, route: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        match &self.backing {
            Backing::Embedded(embedded) => embedded.history(route, limit).await,
            Backing::Redis(redis) => redis.history(route, limit).await,
        }
    }

    /// Tells heartbeats where this router's admin API really listens, once it is bound; before that they say what the config says.
    pub fn set_admin(&self, address: SocketAddr) {
        match &self.backing {
            Backing::Embedded(embedded) => embedded.set_admin(address.to_string()),
            Backing::Redis(redis) => redis.set_admin(address.to_string()),
        }
    }
}
