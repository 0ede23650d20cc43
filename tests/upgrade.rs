//! The promise: a new binary takes over while queries are served, none is lost, and if it is no good the old one goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Setup, binary, eventually, http};

const SOON: Duration = Duration::from_secs(20);

fn colours(blue: &Backend, green: &Backend) -> Setup {
    Setup::default().pool("blue", &[blue]).pool("green", &[green])
}

/// Waits until the router says in its log that it goes on.
fn goes_on(router: &Router, why: &str) {
    eventually(why, SOON, || (router.log().contains("this one goes on") && router.log().contains(why)).then_some(()));
}

#[test]
fn ten_upgrades_under_load_cost_no_query_and_no_change() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let mut router = colours(&blue, &green).workers(2).start();
    let loads = [Load::new(router.traffic, 600).start(), Load::new(router.traffic, 200).fresh().start()];
    for round in 1..=10 {
        let live = if round % 2 == 0 { "blue" } else { "green" };
        router.set_flags(&[&format!("live={live}"), &format!("flag.round={round}")]);
        let epoch = router.route()["epoch"].as_u64().unwrap();
        assert_eq!(router.hand_over().code(), Some(0));
        let route = router.route();
        assert_eq!((route["live"].as_str(), route["epoch"].as_u64()), (Some(live), Some(epoch)), "what was written last is obeyed");
        let owner = std::fs::read_to_string(router.data_dir.join("owner")).unwrap();
        assert_eq!(owner.trim(), router.pid().to_string());
        loads[0].wait_for(u64::from(round as u32) * 300);
    }
    let reports = loads.map(switchback_tests::Running::stop);
    for report in &reports {
        assert_eq!(report.failures(), 0, "{report:?}\n{}", router.log());
    }
    let (status, history) = http::get(router.admin, "/api/v1/routes/search/history").unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&history).unwrap()["entries"].as_array().unwrap().len(),
        11,
        "and the first start"
    );
    println!("10 upgrades, {} queries, 0 failed, slowest {:?}", reports[0].sent + reports[1].sent, reports[0].slowest);
}

#[test]
fn with_redis_the_candidate_stays_and_nobody_sees_a_twin() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let setup = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).redis(&redis.url());
    let mut router = setup.state("router_id = \"edge-1\"").start();
    router.set_flags(&["canary_percent=100"]);
    let load = Load::new(router.traffic, 300).start();
    for _ in 0..3 {
        router.hand_over();
        load.wait_for(load.sent() + 100);
        let route = router.route();
        assert_eq!((route["canary_percent"].as_f64(), route["routers"].as_array().unwrap().len()), (Some(100.0), 1));
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(report.by_pool.get("blue"), None, "{report:?}");
    assert!(!router.log().contains("another router reports"), "{}", router.log());
}

#[test]
fn a_new_process_takes_the_config_as_it_is_then_with_what_waited_for_a_restart() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let mut router = colours(&blue, &green).start();
    router.write_config(&colours(&green, &blue).workers(2));
    router.hand_over();
    assert_eq!(http::get(router.traffic, "/rank").unwrap().1, "green");
    assert!(router.metric("switchback_worker_connections", &["worker=\"1\""]) >= 0.0);
    let (_, metrics) = http::get(router.admin, "/metrics").unwrap();
    assert!(metrics.contains("switchback_worker_connections{worker=\"1\""), "two workers now");
}

#[test]
fn a_config_that_the_new_process_refuses_leaves_the_old_one_serving() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let mut router = colours(&blue, &green).start();
    let pid = router.pid();
    router.write_config(&colours(&blue, &green).top("[limits]\nheaders = 1"));
    router.signal("USR2");
    goes_on(&router, "limits.headers = 1: must be a whole number from 16 to 1000");
    assert_eq!(http::get(router.traffic, "/rank").unwrap(), (200, "blue".to_owned()));
    router.set_flags(&["live=green"]);
    assert_eq!(router.status().unwrap()["pid"], pid);
    router.write_config(&colours(&blue, &green));
    router.hand_over();
    assert_eq!(http::get(router.traffic, "/rank").unwrap(), (200, "green".to_owned()));
}

#[test]
fn one_that_would_not_be_ready_in_time_is_ended() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let setup = || colours(&blue, &green).top("[lifecycle]\nupgrade_timeout = \"4s\"");
    let router = setup().start();
    // Nobody listens there: the flags of this store are never heard.
    router.write_config(&setup().redis("redis://127.0.0.1:1"));
    router.signal("USR2");
    goes_on(&router, "it was not prepared within 4s");
    assert!(router.log().contains("the flag store was not heard yet"), "{}", router.log());
    router.set_flags(&["live=green"]);
    assert_eq!(http::get(router.traffic, "/rank").unwrap(), (200, "green".to_owned()));
}

fn install(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).unwrap();
    std::fs::rename(beside, to).unwrap();
}

#[test]
fn the_program_is_the_one_that_is_at_its_path_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switchback");
    install(&binary(), &path);
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let mut router = colours(&blue, &green).program(&path).start();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    install(&script, &path);
    router.signal("USR2");
    goes_on(&router, "it ended: exit status: 3");
    std::fs::remove_file(&path).unwrap();
    router.signal("USR2");
    goes_on(&router, "a new process cannot be started");
    assert_eq!(http::get(router.traffic, "/rank").unwrap().0, 200);
    install(&binary(), &path);
    router.hand_over();
    assert_eq!(http::get(router.traffic, "/rank").unwrap().0, 200);
}
