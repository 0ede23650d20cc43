//! Routers' flag stores at library level, and how tests wait for what they should come to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use switchback::config::{self, Config};
use switchback::flags::{Change, FlagStore, Flags};
use switchback::vocabulary::{PoolIndex, RouteIndex};
use tokio::time::Instant;

use crate::redis::RedisServer;

/// The first route of [`config()`].
pub const SEARCH: RouteIndex = RouteIndex(0);
/// The second.
pub const ADS: RouteIndex = RouteIndex(1);
/// The key of SEARCH's flags.
pub const FLAGS: &str = "{switchback:search}:flags";
/// Pool blue, on every route.
pub const BLUE: PoolIndex = PoolIndex(0);
/// Pool green.
pub const GREEN: PoolIndex = PoolIndex(1);

/// What docs/FLAGS.md says that a router's ACL user needs.
pub const ACL: &str = "~{switchback* resetchannels -@all +hello +auth +client|tracking +select +info +eval +evalsha +script|load +hlen \
                       +hkeys +hstrlen +hexists +hget +hmget +hgetall +hset +hdel +get +set +del +xadd +xrevrange +time +zadd +zrange +zrangebyscore +zrem +pexpire";
/// What it needs beside in a cluster.
pub const CLUSTER_ACL: &str = "+cluster|info +cluster|slots +asking";
/// What a user of the sentinels needs.
pub const SENTINEL_ACL: &str = "resetchannels -@all +auth +sentinel|get-master-addr-by-name +sentinel|master +sentinel|sentinels";

/// A config with two routes; `url` is the line of `[state]` that names the store, or nothing.
pub fn config(url: &str, data_dir: &Path, id: &str) -> Arc<Config> {
    config_of(&["search", "ads"], url, data_dir, id)
}

/// The same with these routes, each with blue, green and canary.
pub fn config_of(routes: &[&str], url: &str, data_dir: &Path, id: &str) -> Arc<Config> {
    let pools = |route: &str| {
        format!(
            "[[route]]\nname = \"{route}\"\nmatch = {{ path_prefix = \"/{route}\" }}\nunit = [\"client-address\"]\n\
             [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.pools.green]\nendpoints = [\"http://127.0.0.1:1\"]\n\
             [route.pools.canary]\nendpoints = [\"http://127.0.0.1:1\"]\n"
        )
    };
    let text = format!(
        "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[state]\n{url}data_dir = {data_dir:?}\nrouter_id = \"{id}\"\n\
         heartbeat_interval = \"100ms\"\nrouter_timeout = \"1s\"\n{}",
        routes.iter().map(|route| pools(route)).collect::<String>()
    );
    Arc::new(config::parse("test.toml", &text).unwrap())
}

/// A router's flag store with a data folder of its own.
pub struct Router {
    /// What is tested.
    pub store: Arc<FlagStore>,
    /// Its data folder.
    pub folder: tempfile::TempDir,
    /// The lines of `[state]` that name the store.
    keys: String,
    /// Its `state.router_id`.
    pub id: String,
}

impl Router {
    /// Opens with a fresh data folder.
    pub async fn open(server: &RedisServer, id: &str) -> Router {
        Router::at(&server.url(), id, tempfile::tempdir().unwrap()).await
    }

    /// Opens at any URL and with any data folder.
    pub async fn at(url: &str, id: &str, folder: tempfile::TempDir) -> Router {
        Router::with(&format!("url = {url:?}\n"), id, folder).await
    }

    /// Opens with these lines in `[state]`.
    pub async fn with(keys: &str, id: &str, folder: tempfile::TempDir) -> Router {
        let store = FlagStore::open(&config(keys, folder.path(), id)).await.unwrap();
        Router { store, folder, keys: keys.to_owned(), id: id.to_owned() }
    }

    /// The same router as a new process would start: same id, same data folder.
    pub async fn restart(self) -> Router {
        let Router { store, folder, keys, id } = self;
        drop(store);
        Router::with(&keys, &id, folder).await
    }

    /// SEARCH's flags in force.
    pub fn flags(&self) -> Arc<Flags> {
        self.store.view(SEARCH).flags
    }

    /// Whether what is in force is an epoch of its own: no edit waits to be adopted.
    pub fn is_sealed(&self) -> bool {
        !self.flags().seal.is_empty()
    }
}

/// Watches that a router never goes back an epoch, until its store is dropped; answers the last one.
pub fn never_back(router: &Router) -> tokio::task::JoinHandle<u64> {
    let mut watch = router.store.watch(SEARCH);
    let mut epoch = 0;
    tokio::spawn(async move {
        loop {
            let now = watch.borrow_and_update().epoch;
            assert!(now >= epoch, "back from {epoch} to {now}");
            epoch = now;
            if watch.changed().await.is_err() {
                return epoch;
            }
        }
    })
}

/// Waits for an effect; answers how long it took. Panics when it does not come.
pub async fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        crate::look_again().await;
    }
    start.elapsed()
}

/// Far longer than anything here takes, so that a busy machine fails no test.
pub const SOON: Duration = Duration::from_secs(5);

/// A change by alice; `None` deletes a field.
pub fn change(pairs: &[(&str, Option<&str>)], expected_epoch: Option<u64>) -> Change {
    let fields = pairs.iter().map(|(field, value)| ((*field).to_owned(), value.map(str::to_owned))).collect();
    Change { fields, expected_epoch, who: "alice".to_owned(), why: "a test".to_owned(), ..Change::default() }
}

/// What a person does with redis-cli.
pub async fn hset(connection: &mut MultiplexedConnection, pairs: &[(&str, &str)]) {
    let () = connection.hset_multiple(FLAGS, pairs).await.unwrap();
}

/// SEARCH's hash as it is in Redis.
pub async fn stored(connection: &mut MultiplexedConnection) -> BTreeMap<String, String> {
    connection.hgetall(FLAGS).await.unwrap()
}
