//! The promise: what all routers counted is the truth, to the query, whatever becomes of Redis and of routers meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Report, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const CANARY: &str = "initial = { live = \"blue\", canary_percent = \"30\" }\nexpose = [\"pool\"]";

struct Scene {
    runtime: tokio::runtime::Runtime,
    redis: RedisServer,
    backends: [Backend; 2],
}

impl Scene {
    fn start() -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        Scene { runtime, redis, backends: ["blue", "canary"].map(Backend::start) }
    }

    fn router(&self) -> Router {
        let [blue, canary] = &self.backends;
        let setup = Setup::default().pool("blue", &[blue]).pool("canary", &[canary]).workers(2).route(CANARY);
        let router = setup.redis(&self.redis.url()).start();
        // What is split before the flags were heard is not what this is about, but `x-switchback-pool` is the truth all the same.
        eventually("the flags are heard", SOON, || (router.route()["canary_percent"] == 30.0).then_some(()));
        router
    }

    /// Redis dies, and comes back with nothing in it.
    fn redis_dies(&mut self) {
        self.runtime.block_on(self.redis.restart_empty()).unwrap();
    }

    /// Commands that Redis has processed, those within scripts too.
    fn commands(&self) -> f64 {
        let stats = self.redis.cli(&["INFO", "stats"]).unwrap();
        stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().trim().parse().unwrap()
    }
}

/// Of the windows of the last ten minutes.
fn fleet(router: &Router) -> Option<Value> {
    let (status, body) = http::get(router.admin, "/api/v1/routes/search/quality/fleet?seconds=600").unwrap();
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

fn requests(fleet: &Value) -> BTreeMap<String, u64> {
    let versions = fleet["versions"].as_array().unwrap();
    versions.iter().map(|counts| (counts["pool"].as_str().unwrap().to_owned(), counts["requests"].as_u64().unwrap())).collect()
}

fn books(reports: &[Report]) -> BTreeMap<String, u64> {
    let mut books = BTreeMap::new();
    for report in reports {
        assert_eq!(report.failures(), 0, "{report:?}");
        for (pool, count) in &report.by_pool {
            *books.entry(pool.clone()).or_default() += count;
        }
    }
    books
}

#[test]
fn the_fleets_sum_is_the_load_generators_own_books() {
    let mut scene = Scene::start();
    let routers = [scene.router(), scene.router()];
    let [one, mut other] = routers;
    let loads: Vec<_> = [&one, &other].map(|router| Load::new(router.traffic, 400).start()).into();
    for round in 1..=5 {
        loads.iter().for_each(|load| load.wait_for(round * 300));
        scene.redis_dies();
    }
    loads.iter().for_each(|load| load.wait_for(2_000));
    let mut reports: Vec<Report> = loads.into_iter().map(switchback_tests::Running::stop).collect();
    // One leaves in order, with its last word; another joins.
    other.terminate();
    let third = scene.router();
    let load = Load::new(third.traffic, 400).start();
    load.wait_for(400);
    reports.push(load.stop());
    let truth = books(&reports);
    let heard = eventually("everything is heard", SOON, || {
        fleet(&one).filter(|fleet| requests(fleet).values().sum::<u64>() >= truth.values().sum())
    });
    assert_eq!(requests(&heard), truth);
    assert_eq!((&heard["senders"], &heard["faults"]), (&3.into(), &serde_json::json!([])));
    assert_eq!(fleet(&third).map(|fleet| requests(&fleet)), Some(truth), "whoever is asked");
}

/// Commands a second while `meanwhile` goes on, those within scripts too.
fn commands_while(scene: &Scene, meanwhile: impl FnOnce()) -> f64 {
    let (began, before) = (Instant::now(), scene.commands());
    meanwhile();
    (scene.commands() - before) / began.elapsed().as_secs_f64()
}

#[test]
fn redis_is_asked_little_however_much_there_is_to_count() {
    let scene = Scene::start();
    let router = scene.router();
    let seconds_pass = |seconds: u64| {
        let began = Instant::now();
        eventually("seconds pass", SOON, || (began.elapsed() >= Duration::from_secs(seconds)).then_some(()));
    };
    // Polls and heartbeats, and nothing to count.
    let idle = commands_while(&scene, || seconds_pass(4));
    let mut by_rate = Vec::new();
    for rate in [100, 1_000] {
        let load = Load::new(router.traffic, rate).start();
        load.wait_for(u64::from(rate));
        let busy = commands_while(&scene, || load.wait_for(load.sent() + 5 * u64::from(rate)));
        assert_eq!(load.stop().failures(), 0);
        by_rate.push(busy - idle);
    }
    println!(
        "commands a second, those within scripts too: {idle:.1} without traffic, and for counting {by_rate:.1?} at 100 and 1,000 queries a second"
    );
    assert!(by_rate.iter().all(|commands| *commands <= 20.0), "{by_rate:?}");
    assert!(requests(&fleet(&router).unwrap()).values().sum::<u64>() > 4_000, "and yet it is told");
}
