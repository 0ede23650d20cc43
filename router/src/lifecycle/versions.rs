//! Which model version each pool runs: as the config file says, unless the flags say otherwise, because Switchback loaded it. The config in force follows them.
//!
//! A version is part of a generation, like everything else that counters, tokens and labels hang on: so another version on a pool is another
//! generation, of the same file.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep_until};

use super::reload::Base;
use super::running::Running;
use crate::config::Config;
use crate::flags::FlagStore;
use crate::vocabulary::RouteIndex;

/// After a failure, the next try.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Versions by the names of their route and pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Versions(BTreeMap<(String, String), String>);

impl Versions {
    /// What the flags say. `config` is what they are judged under.
    pub(super) fn of(flags: &FlagStore, config: &Config) -> Versions {
        let mut versions = Versions::default();
        for (index, route) in (0..=u16::MAX).map(RouteIndex).zip(&config.routes) {
            for (pool, version) in &flags.watch(index).borrow().versions {
                if let Some(pool) = route.pools.get(pool.get()) {
                    versions.0.insert((route.name.clone(), pool.name.clone()), version.clone());
                }
            }
        }
        versions
    }

    /// Puts them into a config, by name.
    pub(super) fn apply(&self, config: &mut Config) {
        for route in &mut config.routes {
            for pool in &mut route.pools {
                if let Some(version) = self.0.get(&(route.name.clone(), pool.name.clone())) {
                    pool.version.clone_from(version);
                }
            }
        }
    }
}

impl Running {
    /// Waits until the flags say another version of a pool than the config in force has.
    pub(super) async fn versions_moved(&self) {
        let mut watched = self.generation.flags.clone();
        if let Some(not_before) = self.follows_after {
            sleep_until(not_before).await;
        }
        while !watched.is_empty() && self.is_followed() {
            let changes = watched.iter_mut().map(|flags| Box::pin(flags.changed()));
            // The store lives as long as the process.
            let _ = select_all(changes).await;
        }
        if watched.is_empty() {
            std::future::pending::<()>().await;
        }
    }

    fn is_followed(&self) -> bool {
        let versions = Versions::of(&self.flags, self.config());
        let mut wanted = self.asked.clone();
        versions.apply(&mut wanted);
        let all = |config: &Config| -> Vec<((String, String), String)> {
            let pools = config.routes.iter().flat_map(|route| route.pools.iter().map(move |pool| (route, pool)));
            pools.map(|(route, pool)| ((route.name.clone(), pool.name.clone()), pool.version.clone())).collect()
        };
        all(&wanted) == all(self.config())
    }

    /// Makes the config in force that of the flags' versions.
    pub(super) async fn follow_versions(&mut self) {
        if self.is_followed() {
            return;
        }
        let done = match self.check(Base::InForce) {
            Ok(checked) => self.put_in_force(checked).await,
            Err(problems) => Err(problems),
        };
        match done {
            Ok(reloaded) => {
                self.follows_after = None;
                tracing::info!(generation = reloaded.generation, "the versions of pools are those of the flags");
            }
            Err(problems) => {
                self.follows_after = Some(Instant::now() + AGAIN_AFTER);
                tracing::error!(?problems, "the versions of pools cannot follow the flags; it is tried again");
            }
        }
    }
}
