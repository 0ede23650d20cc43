//! Which route a query belongs to, and one worker's state for each route.
//!
//! The lookup costs the same with one route and with a thousand: hosts are hashed, and prefixes are looked up from the path's
//! longest possible one down, segment by segment.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::events::EventsDoor;
use super::head::Head;
use super::issue::Tokens;
use super::listen::Ear;
use super::log_limit::LogLimit;
use super::overrides::Overrides;
use super::pool::Pool;
use super::query;
use super::replay::BodyLimits;
use super::split::Split;
use crate::config;
use crate::quality::signals::SignalsDesk;
use crate::quality::{NewArms, Quarter, Refusal, RouteCounters, Secret, TokenKeys, WorkerTotals};
use crate::vocabulary::{PoolIndex, RouteIndex};

/// One worker's state of one route.
pub(crate) struct RouteWorker {
    pub(crate) config: Arc<config::Route>,
    pub(crate) split: RefCell<Split>,
    /// Wakes the task that makes a new policy instance.
    pub(crate) needs_instance: Notify,
    /// For queries that nobody answered.
    pub(crate) log_limit: LogLimit,
    pub(crate) request_body: BodyLimits,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) upgrade_idle_timeout: Duration,
    pools: Vec<Rc<Pool>>,
    pool_names: Vec<HeaderValue>,
    pub(crate) tokens: Tokens,
    /// For what response bodies say.
    pub(crate) ear: Option<Ear>,
    /// Where answers of queries and of their copies are handed in.
    pub(crate) desk: SignalsDesk,
    counters: Arc<RouteCounters>,
    /// What this worker counts that is of no route.
    worker: Arc<WorkerTotals>,
}

impl RouteWorker {
    pub(crate) fn new(
        config: Arc<config::Route>,
        split: Split,
        pools: Vec<Rc<Pool>>,
        limits: &config::Limits,
        counters: Arc<RouteCounters>,
        worker: Arc<WorkerTotals>,
        (secrets, desk): (&[Secret], &SignalsDesk),
    ) -> RouteWorker {
        let keys = TokenKeys::of(&config.name, secrets);
        let tokens = Tokens::new(keys, config.pools.iter().map(|pool| (pool.name.as_str(), pool.version.as_str())));
        // A pool's name is letters, digits, - and _, so it is always a header value.
        let pool_names = config.pools.iter().map(|pool| HeaderValue::from_str(&pool.name).unwrap_or(HeaderValue::from_static("?")));
        RouteWorker {
            pool_names: pool_names.collect(),
            split: RefCell::new(split),
            needs_instance: Notify::new(),
            log_limit: LogLimit::new(),
            request_body: BodyLimits {
                replay_bytes: limits.replay_bytes,
                idle: limits.body_idle_timeout,
                upload: limits.upload_timeout,
                bytes: config.max_request_body.unwrap_or(u64::MAX),
                expect: limits.expect_timeout,
            },
            body_idle_timeout: limits.body_idle_timeout,
            upgrade_idle_timeout: limits.upgrade_idle_timeout,
            tokens,
            ear: Ear::new(&config, desk),
            desk: desk.clone(),
            config,
            worker,
            pools,
            counters,
        }
    }

    pub(crate) fn pool(&self, pool: PoolIndex) -> Option<&Pool> {
        self.pools.get(pool.get()).map(Rc::as_ref)
    }

    pub(crate) fn pools(&self) -> &[Rc<Pool>] {
        &self.pools
    }

    pub(crate) fn pool_name(&self, pool: PoolIndex) -> Option<HeaderValue> {
        self.pool_names.get(pool.get()).cloned()
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        if let Some(count) = self.worker.refusals.get(refusal as usize) {
            count.increment();
        }
    }

    pub(crate) fn counters(&self) -> &RouteCounters {
        &self.counters
    }

    /// Where it says which arms it counts in.
    pub(crate) fn new_arms(&self) -> &NewArms {
        &self.worker.new_arms
    }

    /// Which window it is.
    pub(crate) fn quarter(&self) -> Quarter {
        self.worker.clock.quarter()
    }
}

/// Host and path -> route: an exact host before any host, then the longest prefix.
pub(crate) struct RouteTable {
    by_host: HashMap<String, Prefixes>,
    any_host: Prefixes,
    /// Some route has a path prefix other than `/`.
    pub(crate) tells_paths_apart: bool,
}

/// Prefixes of one host, without their trailing slash.
#[derive(Default)]
struct Prefixes {
    routes: HashMap<String, RouteIndex>,
    /// The route of the empty prefix, which most configs have and no hash is needed for.
    root: Option<RouteIndex>,
    /// Segments of the longest prefix: no need to look further down a path.
    depth: usize,
}

impl RouteTable {
    pub(crate) fn new<'a>(matches: impl Iterator<Item = &'a config::RouteMatch>) -> RouteTable {
        let mut table = RouteTable { by_host: HashMap::new(), any_host: Prefixes::default(), tells_paths_apart: false };
        for (index, route) in matches.enumerate() {
            let prefix = route.path_prefix.trim_end_matches('/');
            table.tells_paths_apart |= !prefix.is_empty();
            let prefixes = match &route.host {
                Some(host) => table.by_host.entry(host.clone()).or_default(),
                None => &mut table.any_host,
            };
            prefixes.depth = prefixes.depth.max(prefix.matches('/').count());
            let index = RouteIndex(u16::try_from(index).unwrap_or(u16::MAX));
            if prefix.is_empty() {
                prefixes.root.get_or_insert(index);
            } else {
                prefixes.routes.entry(prefix.to_owned()).or_insert(index);
            }
        }
        table
    }

    pub(crate) fn find(&self, head: &Head) -> Option<RouteIndex> {
        let path = head.uri.path();
        let by_host = if self.by_host.is_empty() { None } else { query::host(head).and_then(|host| self.of_host(host)) };
        by_host.and_then(|prefixes| prefixes.find(path)).or_else(|| self.any_host.find(path))
    }

    fn of_host(&self, host: &str) -> Option<&Prefixes> {
        match self.by_host.get(host) {
            None if host.bytes().any(|byte| byte.is_ascii_uppercase()) => self.by_host.get(&host.to_ascii_lowercase()),
            found => found,
        }
    }
}

impl Prefixes {
    /// The route of the longest prefix that ends where a segment of `path` ends.
    fn find(&self, path: &str) -> Option<RouteIndex> {
        if self.depth == 0 {
            return self.root;
        }
        let slashes = path.match_indices('/').map(|(at, _)| at).skip(1);
        let mut ends: [usize; 32] = [0; 32];
        let mut count = 0;
        for end in slashes.chain([path.len()]).take(self.depth.min(ends.len())) {
            if let Some(slot) = ends.get_mut(count) {
                *slot = end;
                count += 1;
            }
        }
        let longest_first = ends.iter().take(count).rev().filter_map(|end| path.get(..*end));
        longest_first.filter(|prefix| !prefix.is_empty()).find_map(|prefix| self.routes.get(prefix).copied()).or(self.root)
    }
}

/// All of one worker's routes, and what clients may take: one config's. Swapped whole.
pub(crate) struct Routes {
    pub(crate) table: RouteTable,
    pub(crate) all: Vec<Rc<RouteWorker>>,
    pub(crate) limits: config::Limits,
    /// Who may choose a pool.
    pub(crate) overrides: Arc<Overrides>,
    /// Where events come in.
    pub(crate) events: Rc<EventsDoor>,
    /// Who may speak for a client.
    pub(crate) trusted_proxies: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn table(routes: &[(Option<&str>, &str)]) -> RouteTable {
        let matches: Vec<_> = routes
            .iter()
            .map(|(host, prefix)| config::RouteMatch { host: host.map(str::to_owned), path_prefix: (*prefix).to_owned() })
            .collect();
        RouteTable::new(matches.iter())
    }

    fn find(table: &RouteTable, host: &str, path: &str) -> Option<u16> {
        let head = Head::of(Request::get(path).header("host", host).body(()).unwrap().into_parts().0);
        table.find(&head).map(|index| index.0)
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = table(&[(None, "/"), (None, "/search"), (None, "/search/images/")]);
        assert_eq!(find(&table, "h", "/"), Some(0));
        assert_eq!(find(&table, "h", "/search"), Some(1));
        assert_eq!(find(&table, "h", "/search?q=1"), Some(1));
        assert_eq!(find(&table, "h", "/search/images"), Some(2));
        assert_eq!(find(&table, "h", "/search/images/a/b/c"), Some(2));
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let table = table(&[(None, "/search")]);
        assert_eq!(find(&table, "h", "/searching"), None);
        assert_eq!(find(&table, "h", "/search/x"), Some(0));
    }

    #[test]
    fn an_exact_host_comes_first_and_falls_back_to_any() {
        let table = table(&[(Some("a.example"), "/search"), (None, "/")]);
        assert_eq!(find(&table, "A.example:8080", "/search"), Some(0));
        assert_eq!(find(&table, "a.example", "/other"), Some(1));
        assert_eq!(find(&table, "b.example", "/search"), Some(1));
    }

    #[test]
    fn a_path_of_slashes_costs_no_more_than_the_longest_prefix() {
        let table = table(&[(None, "/a/b")]);
        assert_eq!(find(&table, "h", &"/".repeat(10_000)), None);
    }
}
