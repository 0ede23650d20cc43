//! The pools of one config, with the tasks that look after them: health checks, outliers, names, and certificates that are
//! read again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::pool::{self, SharedPool};
use crate::config::{self, Config, Route};
use crate::tls::{ClientTls, TlsError};

/// How often certificates for backends are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);

/// So long a start, or a reload, waits for the names of endpoints: those that are slower are looked up again meanwhile.
const NAMES_WITHIN: Duration = Duration::from_secs(2);

/// Every pool of a config.
#[derive(Debug, Default)]
pub struct Pools {
    /// By route, then pool: endpoints with their health and what is in flight.
    pub shared: Vec<Vec<Arc<SharedPool>>>,
    /// Beside each.
    tasks: Vec<Vec<Arc<OnceLock<Tasks>>>>,
}

/// They end when no generation has the pool any more.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Pools {
    /// Those of a config, with the certificates of the pools that have `https` endpoints. Nobody looks after them yet.
    ///
    /// # Errors
    /// [`TlsError`], naming the key and the file.
    pub fn of(config: &Config) -> Result<Pools, TlsError> {
        Pools::default().succeed(&[], config)
    }

    /// Those of another config than that of the routes `before`. What is the same stays the same object; certificates are read again where
    /// their files have changed.
    ///
    /// # Errors
    /// As [`Pools::of`]; these are as they were.
    pub fn succeed(&self, before: &[Route], config: &Config) -> Result<Pools, TlsError> {
        let places: HashMap<&str, usize> = before.iter().enumerate().map(|(place, route)| (route.name.as_str(), place)).collect();
        let mut next = Pools::default();
        for route in &config.routes {
            let old = places.get(route.name.as_str()).and_then(|place| Some((self.shared.get(*place)?, self.tasks.get(*place)?)));
            let (mut all, mut all_tasks) = (Vec::new(), Vec::new());
            for pool in &route.pools {
                let old = old.and_then(|(shared, tasks)| shared.iter().zip(tasks).find(|(old, _)| old.config.name == pool.name));
                let shared = successor(&route.name, pool, old.map(|(shared, _)| shared))?;
                let is_same = |(old, _): &(&Arc<SharedPool>, &Arc<OnceLock<Tasks>>)| Arc::ptr_eq(old, &shared);
                all_tasks.push(old.filter(is_same).map(|(_, tasks)| tasks.clone()).unwrap_or_default());
                all.push(shared);
            }
            next.shared.push(all);
            next.tasks.push(all_tasks);
        }
        Ok(next)
    }

    /// Looks up the names of endpoints that were never looked up, so that the first query finds their addresses. A name that does not resolve is
    /// logged, and no error.
    pub async fn look_up_names(&self, config: &Config) {
        let routes = config.routes.iter().zip(&self.shared);
        let pools = routes.flat_map(|(route, pools)| pools.iter().map(|pool| (route.name.as_str(), pool)));
        pool::look_up_all(pools, NAMES_WITHIN).await;
    }

    /// Starts what is to look after those that are new. On the current runtime, which must be that of the control thread.
    pub(crate) fn look_after(&self, config: &Config) {
        let all = config.routes.iter().zip(self.shared.iter().zip(&self.tasks));
        for (route, (pools, tasks)) in all {
            for (pool, tasks) in pools.iter().zip(tasks) {
                tasks.get_or_init(|| Tasks(look_after(&route.name, pool)));
            }
        }
    }
}

fn successor(route: &str, pool: &config::Pool, old: Option<&Arc<SharedPool>>) -> Result<Arc<SharedPool>, TlsError> {
    let Some(old) = old else {
        return Ok(SharedPool::new(pool, ClientTls::load(route, pool)?.map(Arc::new)));
    };
    let has_same_files = old.config.tls == pool.tls && old.config.protocol == pool.protocol;
    let tls = match &old.tls {
        Some(tls) if has_same_files && pool.endpoints.iter().any(|endpoint| endpoint.is_tls) => {
            tls.reload()?;
            Some(tls.clone())
        }
        _ => ClientTls::load(route, pool)?.map(Arc::new),
    };
    Ok(old.succeed(pool, tls))
}

fn look_after(route: &str, pool: &Arc<SharedPool>) -> Vec<AbortHandle> {
    let checks = pool.endpoints.iter().map(|endpoint| {
        let check = pool::check_forever(route.to_owned(), pool.clone(), endpoint.clone());
        tokio::spawn(check).abort_handle()
    });
    let names = pool.endpoints.iter().map(|endpoint| {
        let follow = pool::follow_name(route.to_owned(), pool.clone(), endpoint.clone());
        tokio::spawn(follow).abort_handle()
    });
    let outliers = tokio::spawn(pool::eject_outliers(route.to_owned(), pool.clone())).abort_handle();
    let certificates = pool.tls.iter().map(|tls| tokio::spawn(tls.clone().follow(CERTIFICATES_EVERY)).abort_handle());
    checks.chain(names).chain([outliers]).chain(certificates).collect()
}
