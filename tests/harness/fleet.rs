//! A fleet: two model versions on three pools, one Redis, and routers that one operator may change all of.

use std::time::Duration;

use crate::redis::RedisServer;
use crate::{Backend, Router, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);

/// Blue is v1; green and canary are v2.
pub struct Fleet {
    /// For what is asked of Redis itself.
    pub runtime: tokio::runtime::Runtime,
    /// The routers' store.
    pub redis: RedisServer,
    /// Blue, green, canary.
    pub pools: [Backend; 3],
}

impl Fleet {
    /// Starts Redis and the backends.
    pub fn start() -> Fleet {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        Fleet { runtime, redis, pools: ["blue", "green", "canary"].map(Backend::start) }
    }

    /// A router of it that has no store yet; `route` is more keys of the route.
    pub fn setup(&self, route: &str) -> Setup {
        let [blue, green, canary] = &self.pools;
        let setup = Setup::default().pool("blue", &[blue]).pool_keys("version = \"v1\"").pool("green", &[green]);
        let setup = setup.pool_keys("version = \"v2\"").pool("canary", &[canary]).pool_keys("version = \"v2\"");
        setup.workers(2).of_a_fleet().route(&format!("{route}\nexpose = [\"pool\"]"))
    }

    /// Two of them, `one` and `other`, at this Redis, when each has heard of both. `top` is more sections of the config.
    pub fn routers(&self, url: &str, top: &str, route: &str) -> [Router; 2] {
        let start = |id: &str| self.setup(route).top(top).redis(url).state(&format!("router_id = {id:?}")).start();
        let routers = ["one", "other"].map(start);
        for router in &routers {
            eventually("both are known", SOON, || (router.route()["routers"].as_array().unwrap().len() == 2).then_some(()));
        }
        routers
    }
}
