//! The promise: which model version a pool runs is what the flags say, on every router, at once and after a restart; and no query notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Setup, eventually};

const SOON: Duration = Duration::from_secs(20);

fn version(router: &Router, pool: &str) -> String {
    router.route()["pools"][pool]["version"].as_str().unwrap().to_owned()
}

fn follows(router: &Router, pool: &str, wanted: &str) {
    eventually("the pool runs it", SOON, || (version(router, pool) == wanted).then_some(()));
}

#[test]
fn every_router_follows_the_flags_and_no_query_notices() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let setup = || {
        let pools = Setup::default().pool("blue", &[&blue]).pool_keys("version = \"v1\"").pool("green", &[&green]);
        pools.pool_keys("version = \"v0\"").redis(&redis.url()).of_a_fleet()
    };
    let (one, other) = (setup().start(), setup().start());
    let load = Load::new(one.traffic, 200).start();
    assert_eq!((version(&one, "blue"), version(&one, "green")), ("v1".to_owned(), "v0".to_owned()));
    one.set_flags(&["version.green=search:2"]);
    for router in [&one, &other] {
        follows(router, "green", "search:2");
        assert_eq!(version(router, "blue"), "v1");
    }
    // By hand, as any flag; and queries are counted by it.
    redis.cli(&["HSET", "{switchback:search}:flags", "version.blue", "search:1"]).unwrap();
    for router in [&one, &other] {
        follows(router, "blue", "search:1");
    }
    eventually("it is counted by it", SOON, || (one.metric("switchback_requests_total", &["version=\"search:1\""]) > 0.0).then_some(()));
    // A slip changes nothing, and is told.
    redis.cli(&["HSET", "{switchback:search}:flags", "version.blue", "two words"]).unwrap();
    redis.cli(&["HSET", "{switchback:search}:flags", "version.purple", "search:3"]).unwrap();
    eventually("both slips are told", SOON, || {
        let faults: Value = one.route()["faults"].clone();
        (faults.as_array().is_some_and(|faults| faults.len() == 2)).then_some(())
    });
    assert_eq!(version(&one, "blue"), "search:1");
    let (code, _, error) = one.run(&["flag", "set", "search", "version.green=a b"]);
    assert!(code != 0 && error.contains("version.green"), "{code}: {error}");
    // Taken away, the config file's counts again; a config that is read anew does not change what the flags say.
    redis.cli(&["HDEL", "{switchback:search}:flags", "version.blue", "version.purple"]).unwrap();
    follows(&one, "blue", "v1");
    one.signal("HUP");
    eventually("it is read again", SOON, || (one.metric("switchback_config_reloads_total", &["applied"]) == 1.0).then_some(()));
    assert_eq!((version(&one, "blue"), version(&one, "green")), ("v1".to_owned(), "search:2".to_owned()));
    load.wait_for(1_000);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn a_version_that_flags_change_is_a_generation_and_no_reload() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).pool_keys("version = \"v1\"").start();
    assert_eq!(router.generation(), 1);
    router.set_flags(&["version.blue=search:7"]);
    eventually("it is in force", SOON, || (router.generation() == 2).then_some(()));
    let reloads = || router.status().unwrap()["reloads"]["applied"].clone();
    assert_eq!(reloads(), 0);
    router.signal("HUP");
    eventually("it is read again", SOON, || (reloads() == 1).then_some(()));
    assert_eq!(router.generation(), 3);
}

#[test]
fn a_router_starts_with_what_the_flags_say() {
    let blue = Backend::start("blue");
    let folder = tempfile::tempdir().unwrap();
    let setup = || Setup::default().pool("blue", &[&blue]).pool_keys("version = \"v1\"").data_dir(folder.path());
    let mut router = setup().start();
    router.set_flags(&["version.blue=search:7"]);
    follows(&router, "blue", "search:7");
    router.kill();
    let router = setup().start();
    assert_eq!(version(&router, "blue"), "search:7", "before it is ready");
}
