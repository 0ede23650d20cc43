//! The promise: Redis may die, hang, come back empty or come back older. Traffic does not notice, and no router goes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Running, Setup, eventually, http};

const KEY: &str = "{switchback:search}:flags";
const RECOVERY: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(5);

struct Scene {
    redis: RedisServer,
    runtime: tokio::runtime::Runtime,
    backends: [Backend; 3],
    folders: [tempfile::TempDir; 2],
    routers: Vec<Router>,
}

impl Scene {
    /// Two routers, live green, the candidate at 10 %.
    fn start() -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        let backends = ["blue", "green", "canary"].map(Backend::start);
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut scene = Scene { redis, runtime, backends, folders, routers: Vec::new() };
        scene.routers = vec![scene.router(0), scene.router(1)];
        scene.routers[0].set_flags(&["live=green"]);
        scene.routers[0].set_flags(&["canary_percent=10"]);
        scene.everywhere("live green, 10 % canary", |route| route["live"] == "green" && route["canary_percent"] == 10.0);
        scene
    }

    fn router(&self, number: usize) -> Router {
        let [blue, green, canary] = &self.backends;
        let setup = Setup::default().pool("blue", &[blue]).pool("green", &[green]).pool("canary", &[canary]);
        setup.redis(&self.redis.url()).data_dir(self.folders[number].path()).start()
    }

    fn loads(&self) -> Vec<Running> {
        self.routers.iter().map(|router| Load::new(router.traffic, 300).start()).collect()
    }

    fn everywhere(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        eventually(what, SOON, || self.routers.iter().all(|router| holds(&router.route())).then_some(()));
    }

    fn epochs(&self) -> Vec<u64> {
        self.routers.iter().map(|router| router.route()["applied_epoch"].as_u64().unwrap()).collect()
    }

    fn stored(&self, field: &str) -> Option<String> {
        self.redis.cli(&["HGET", KEY, field]).ok().filter(|value| !value.is_empty())
    }

    fn age(&self, router: usize) -> f64 {
        self.routers[router].metric("switchback_flags_age_seconds", &[])
    }

    /// The store is back: within two seconds it holds these flags again, and both routers hear it.
    fn recovers(&self, at_least_epoch: u64) {
        let back = Instant::now();
        eventually("the hash is there again", RECOVERY, || {
            let epoch: u64 = self.stored("epoch")?.parse().ok()?;
            (epoch >= at_least_epoch && self.stored("live")? == "green" && self.stored("canary_percent")? == "10").then_some(())
        });
        let limit = RECOVERY.saturating_sub(back.elapsed()) + Duration::from_millis(100);
        eventually("both routers hear the store again", limit, || (self.age(0) < 1.5 && self.age(1) < 1.5).then_some(()));
        println!("recovered {:?} after the store answered again", back.elapsed());
    }
}

fn no_failures(loads: Vec<Running>) {
    for load in loads {
        // However quick the recovery was: enough queries for every pool to have had some.
        load.wait_for(300);
        let report = load.stop();
        assert_eq!(report.failures(), 0, "{report:?}");
        assert!(!report.by_pool.contains_key("blue"), "nobody went back to the old colour: {report:?}");
        assert!(report.by_pool["green"] > 0 && report.by_pool["canary"] > 0, "{report:?}");
    }
}

#[test]
fn killed_and_back_empty() {
    let mut scene = Scene::start();
    let loads = scene.loads();
    let before = scene.epochs();
    scene.redis.kill().unwrap();
    eventually("the age of the flags tells", SOON, || (scene.age(0) > 1.5 && scene.age(1) > 1.5).then_some(()));
    scene.everywhere("the last flags hold", |route| route["live"] == "green" && route["canary_percent"] == 10.0);
    let (_, flags, _) = scene.routers[0].run(&["flag", "get", "search"]);
    assert!(flags.contains("  warning: store: ") && flags.contains(" is away "), "{flags}");
    let (_, flags, _) = scene.routers[0].run(&["flag", "get", "search", "--json"]);
    let flags: serde_json::Value = serde_json::from_str(&flags).unwrap();
    assert!(flags["source"] == "redis" && flags["age_seconds"].as_f64().unwrap() > 1.5, "{flags}");
    eventually("readiness tells too", SOON, || {
        let (status, ready) = http::get(scene.routers[0].admin, "/readyz").unwrap();
        assert_eq!(status, 200, "{ready}");
        ready.contains("the flag store was last heard").then_some(())
    });
    scene.runtime.block_on(scene.redis.restart_empty()).unwrap();
    scene.recovers(before[0]);
    assert!(scene.epochs().iter().zip(&before).all(|(now, then)| now >= then), "{:?} after {before:?}", scene.epochs());
    // And it is obeyed again.
    scene.redis.cli(&["HSET", KEY, "flag.semantic", "on"]).unwrap();
    scene.everywhere("a new flag is obeyed", |route| route["flags"]["semantic"] == "on");
    no_failures(loads);
}

#[test]
fn back_with_an_older_epoch() {
    let mut scene = Scene::start();
    let dump = scene.runtime.block_on(scene.redis.dump()).unwrap();
    scene.routers[1].set_flags(&["flag.semantic=on"]);
    scene.everywhere("applied", |route| route["flags"]["semantic"] == "on");
    let loads = scene.loads();
    let before = scene.epochs();
    scene.runtime.block_on(scene.redis.restart_with(&dump)).unwrap();
    scene.recovers(before[0]);
    assert!(scene.stored("epoch").unwrap().parse::<u64>().unwrap() > before[0], "reseeded at a higher epoch");
    assert_eq!(scene.stored("flag.semantic").as_deref(), Some("on"), "what was lost is there again");
    assert!(scene.epochs().iter().zip(&before).all(|(now, then)| now >= then));
    no_failures(loads);
}

#[test]
fn thirty_seconds_without_an_answer() {
    let scene = Scene::start();
    let loads = scene.loads();
    let before = scene.epochs();
    scene.redis.pause().unwrap();
    let paused = Instant::now();
    eventually("thirty seconds of silence", Duration::from_secs(40), || {
        assert_eq!(scene.epochs(), before);
        std::thread::park_timeout(Duration::from_millis(200));
        (paused.elapsed() > Duration::from_secs(30)).then_some(())
    });
    assert!(scene.age(0) > 25.0, "{}", scene.age(0));
    scene.redis.resume().unwrap();
    scene.recovers(before[0]);
    scene.redis.cli(&["HSET", KEY, "flag.semantic", "on"]).unwrap();
    scene.everywhere("a new flag is obeyed", |route| route["flags"]["semantic"] == "on");
    no_failures(loads);
}

#[test]
fn a_router_that_starts_without_redis_serves_from_its_copy_with_nobody_on_the_candidate() {
    let mut scene = Scene::start();
    scene.redis.kill().unwrap();
    scene.routers.remove(1).kill();
    let late = scene.router(1);
    let (_, status, _) = late.run(&["status"]);
    assert!(status.contains("(disk, the store was never heard, for "), "{status}");
    let (_, ready) = http::get(late.admin, "/readyz").unwrap();
    assert!(ready.contains("the flag store was never heard"), "{ready}");
    let route = late.route();
    assert_eq!(route["live"], "green");
    assert_eq!(route["canary_percent"], 0.0);
    let load = Load::new(late.traffic, 300).start();
    load.wait_for(500);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(report.by_pool.keys().collect::<Vec<_>>(), ["green"], "{report:?}");
    scene.runtime.block_on(scene.redis.restart_empty()).unwrap();
    eventually("it takes part again", RECOVERY, || (late.route()["canary_percent"] == 10.0).then_some(()));
}
