//! Pools of real rankers before a real registry: everything that a version comes through on its way to users.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::ranker::{Ranker, demo, queries};
use crate::redis::RedisServer;
use crate::registry::Registry;
use crate::{Load, Router, Setup};

/// The pools, in the order of [`ModelPools::rankers`].
pub const POOLS: [&str; 3] = ["blue", "green", "canary"];
/// Keys of the route: a plan and a policy that take seconds.
pub const QUICK: &str = "rollout = { steps = [\"10\", \"50\"], holdback_percent = \"20\", bake = \"2s\", max_step = \"60s\" }\n\
    rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
/// Versions are loaded as fast as tests are.
const LOADING: &str =
    "[route.loading]\nmodel = \"search\"\npoll_every = \"20ms\"\nload_timeout = \"20s\"\nwarm_up_timeout = \"20s\"\nwarm_up_rounds = 2\n";

/// A registry with `search:1` in it, which three pools of rankers run; one of them has two.
pub struct ModelPools {
    /// For what is asked of rankers.
    pub runtime: tokio::runtime::Runtime,
    /// The routers' store.
    pub redis: RedisServer,
    /// Where the versions are.
    pub registry: Registry,
    /// Blue, green (two of them), canary.
    pub rankers: [Vec<Ranker>; 3],
    /// More of the routers' configs: keys of `[registry]`, and tables.
    pub top: String,
    /// Where queries of the canary go, when that is not its ranker.
    pub canary: Option<SocketAddr>,
}

impl ModelPools {
    /// Starts everything; validated versions of `ranker_v1.onnx` and of these are in the registry, from 1 on.
    pub fn start(more: &[&str]) -> ModelPools {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        let registry = Registry::in_folder();
        let mut pools =
            ModelPools { runtime, redis, registry, rankers: [Vec::new(), Vec::new(), Vec::new()], top: String::new(), canary: None };
        for model in ["ranker_v1.onnx"].iter().chain(more) {
            pools.push(model);
        }
        pools.rankers = POOLS.map(|pool| {
            let folder = pools.folder(pool);
            fs::create_dir_all(folder.join("search/1")).unwrap();
            fs::copy(demo("models/ranker_v1.onnx"), folder.join("search/1/model.onnx")).unwrap();
            let start = |_| Ranker::start(&["--name", "search", "--repository", folder.to_str().unwrap()]);
            (0..if pool == "green" { 2 } else { 1 }).map(start).collect()
        });
        pools
    }

    /// The repository that the rankers of a pool share.
    pub fn folder(&self, pool: &str) -> PathBuf {
        self.registry.path("repositories").join(pool)
    }

    /// Pushes a model of the demo and validates it: its number.
    pub fn push(&self, model: &str) -> u64 {
        let file = demo(&format!("models/{model}"));
        let pushed = self.registry.done(&["push", file.to_str().unwrap(), "--model", "search"]);
        let number = pushed["version"].as_u64().unwrap();
        self.registry.done(&["validate", &format!("search:{number}")]);
        number
    }

    /// Keys of `[route.loading]`: the router fills these folders.
    pub fn filled(&self) -> String {
        format!("repository = \"{}/{{pool}}\"\n", self.registry.path("repositories").display())
    }

    /// A router before them, named `id`; `route` and `loading` are more keys of the route and of its `[route.loading]`.
    pub fn router(&self, id: &str, route: &str, loading: &str) -> Router {
        let endpoints =
            |pool: usize| -> Vec<String> { self.rankers[pool].iter().map(|ranker| format!("http://{}", ranker.address)).collect() };
        let mut setup = Setup::default();
        for (index, pool) in POOLS.iter().enumerate() {
            let elsewhere = self.canary.filter(|_| *pool == "canary").map(|address| vec![format!("http://{address}")]);
            setup = setup.pool_of(pool, &elsewhere.unwrap_or_else(|| endpoints(index))).pool_keys("version = \"search:1\"");
        }
        let registry = format!("[registry]\nurl = \"file://{}\"\n", self.registry.path("registry").display());
        let top = format!("{registry}{}\n[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"", self.top);
        let route = format!("{route}\nexpose = [\"pool\"]\n{LOADING}{loading}");
        setup.workers(2).of_a_fleet().route(&route).top(&top).redis(&self.redis.url()).state(&format!("router_id = {id:?}")).start()
    }

    /// `switchback ARGUMENTS`, about this registry and this router.
    pub fn command(&self, router: &Router, arguments: &[&str]) -> Command {
        let mut command = self.registry.command(arguments);
        command.env("SWITCHBACK_ADMIN", format!("http://{}", router.admin)).env("SWITCHBACK_TOKEN_FILE", router.token_file());
        command
    }

    /// Users of a router, with a query that rankers can answer.
    pub fn load(&self, router: &Router, rate: u32) -> Load {
        Load { body: query(), ..Load::new(router.traffic, rate) }
    }

    /// The versions that a ranker serves.
    pub fn served(&self, ranker: &Ranker) -> Vec<u64> {
        let index = self.runtime.block_on(ranker.post("/v2/repository/index", json!({ "ready": true }).to_string())).body;
        let mut served: Vec<u64> = index.as_array().unwrap().iter().map(|model| number(&model["version"])).collect();
        served.sort_unstable();
        served
    }
}

fn number(version: &Value) -> u64 {
    version.as_str().unwrap().parse().unwrap()
}

/// A query with its documents, as `POST /rank` takes it.
pub fn query() -> Bytes {
    Bytes::from(queries(1).remove(0).to_string())
}
