//! The promise: another config is put in force as one, or not at all; what stays, stays as it is; and no query notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);

fn get(router: &Router, path: &str) -> (u16, String) {
    http::get(router.traffic, path).unwrap()
}

/// Waits for the config after this one.
fn reloaded(router: &Router, generation: u64) {
    eventually("the config is reloaded", SOON, || (router.generation() == generation).then_some(()));
}

#[test]
fn all_of_it_changes_at_once_and_what_cannot_is_named() {
    let (old, new, ads) = (Backend::start("old"), Backend::start("new"), Backend::start("ads"));
    let router = Setup::default().pool("blue", &[&old]).start();
    assert_eq!(get(&router, "/rank"), (200, "old".to_owned()));
    let route =
        format!("[[route]]\nname = \"ads\"\nmatch = {{ path_prefix = \"/ads\" }}\n[route.pools.blue]\nendpoints = [\"{}\"]\n", ads.url());
    let next = || {
        Setup::default().pool("blue", &[&new]).workers(2).state("router_id = \"edge-1\"").top(&format!("[limits]\nheaders = 50\n{route}"))
    };
    let said = router.reload(&next());
    for line in [
        "generation 2: ",
        "  limits.headers = 50 (was 100)\n",
        "  route.search.pools.blue.endpoints = ",
        "  route.ads.name = \"ads\" (new)\n",
        "waiting for a restart:\n  listen.workers = 2 (was 1)\n  state.router_id = \"edge-1\" (new)\n",
    ] {
        assert!(said.contains(line), "{line:?} in\n{said}");
    }
    assert_eq!(get(&router, "/rank"), (200, "new".to_owned()), "in force when the command returns");
    assert_eq!(get(&router, "/ads/x"), (200, "ads".to_owned()));
    assert_eq!(router.metric("switchback_config_keys_waiting_for_restart", &[]), 2.0);
    let again = router.reload(&next());
    assert!(
        again.starts_with(
            "generation 3: nothing changed in the config; certificates and keys were read again\nwaiting for a restart:\n  listen.workers"
        ),
        "{again}"
    );
    router.write_config(&Setup::default().pool("blue", &[&old]));
    router.signal("HUP");
    reloaded(&router, 4);
    assert_eq!(get(&router, "/rank"), (200, "old".to_owned()));
    assert_eq!(get(&router, "/ads/x"), (200, "old".to_owned()), "the route is gone");
    assert_eq!(router.metric("switchback_config_reloads_total", &["applied"]), 3.0);
    assert_eq!(router.metric("switchback_config_keys_waiting_for_restart", &[]), 0.0);
    assert!(router.metric("switchback_config_last_reload_success_timestamp_seconds", &[]) > 1e9);
}

#[test]
fn a_config_with_an_error_changes_nothing_and_says_where() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let router = Setup::default().pool("blue", &[&old]).start();
    router.write_config(&Setup::default().pool("blue", &[&new]).top("[limits]\nheaders = 1"));
    let (code, out, error) = router.run(&["reload"]);
    assert_eq!((code, out.as_str()), (64, ""), "{error}");
    assert!(error.contains("switchback.toml:9: limits.headers = 1: must be a whole number from 16 to 1000"), "{error}");
    router.signal("HUP");
    eventually("it is counted", SOON, || (router.metric("switchback_config_reloads_total", &["refused"]) == 2.0).then_some(()));
    eventually("it is logged", SOON, || router.log().contains("limits.headers = 1").then_some(()));
    let missing = Setup::default().pool("blue", &[&new]).top("[[admin.token]]\nname = \"a\"\nrole = \"viewer\"\nfile = \"/nowhere\"");
    router.write_config(&missing);
    let (code, _, error) = router.run(&["reload"]);
    assert_eq!(code, 64, "{error}");
    assert!(error.contains("admin.token[0].file = \"/nowhere\": cannot be read"), "{error}");
    // What a restart would refuse, a reload refuses too.
    router.write_config(&Setup::default().pool("blue", &[&new]).route("initial = { salt = \"short\" }"));
    let (code, _, error) = router.run(&["reload"]);
    assert_eq!(code, 64, "{error}");
    assert!(error.contains("route.search.initial.salt = \"short\": must be 8 to 128"), "{error}");
    assert_eq!((router.generation(), get(&router, "/rank")), (1, (200, "old".to_owned())));
}

#[test]
fn what_stays_keeps_its_flags_its_health_and_its_counters() {
    let (blue, canary, named) = (Backend::start("blue"), Backend::start("canary"), Backend::start("named"));
    let mut dead = Backend::start("dead");
    let at = dead.address;
    let pools = || Setup::default().pool("blue", &[&blue]).pool_at("green", at).pool("canary", &[&canary]);
    let router = pools().pool("zebra", &[&named]).start();
    router.set_flags(&["candidate_pool=zebra", "canary_percent=25"]);
    dead.stop();
    let is_dead = |router: &Router| router.route()["pools"]["green"]["healthy"] == 0;
    eventually("the dead endpoint is found out", SOON, || is_dead(&router).then_some(()));
    for _ in 0..200 {
        get(&router, "/rank");
    }
    let before = router.route();
    let counted = |router: &Router| {
        ["switchback_requests_total", "switchback_decisions_total", "switchback_connections_total"].map(|name| router.metric(name, &[]))
    };
    let counts = counted(&router);
    // Another named pool moves the places of those behind it.
    router.reload(&pools().pool("zebra", &[&named]).pool("apple", &[&named]));
    let after = router.route();
    for key in ["live", "candidate_pool", "canary_percent", "epoch", "applied_epoch", "seal", "source"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["candidate_pool"], "zebra");
    assert!(is_dead(&router), "at once, without a first check");
    assert_eq!(after["policies"][0]["in_force"]["since_unix_ms"], before["policies"][0]["in_force"]["since_unix_ms"]);
    assert_eq!(counted(&router), counts);
    get(&router, "/rank");
    assert!(counted(&router)[0] > counts[0]);
    let said = router.reload(&Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]));
    assert!(said.contains("warning: route search: candidate_pool = zebra is not obeyed under this config"), "{said}");
    router.set_flags(&["candidate_pool=canary"]);
    assert_eq!(router.route()["faults"], serde_json::json!([]));
}

#[test]
fn the_candidate_does_not_blink_while_redis_is_away() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let url = redis.url();
    let setup = |headers: u32| {
        let limits = format!("[limits]\nheaders = {headers}");
        Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).redis(&url).top(&limits)
    };
    let router = setup(50).start();
    router.set_flags(&["canary_percent=100"]);
    let load = Load::new(router.traffic, 300).start();
    load.wait_for(100);
    for headers in [51, 52] {
        router.reload(&setup(headers));
    }
    redis.kill().unwrap();
    eventually("it is missed", SOON, || router.route()["warnings"].to_string().contains("is away").then_some(()));
    for headers in [53, 54] {
        router.reload(&setup(headers));
        assert_eq!(router.route()["canary_percent"], 100.0);
    }
    load.wait_for(load.sent() + 100);
    let report = load.stop();
    assert_eq!((report.failures(), report.by_pool.get("blue")), (0, None), "{report:?}");
}

#[test]
fn forty_reloads_under_load_cost_no_query() {
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let setup = |round: u32| {
        let pools = if round.is_multiple_of(2) { [&one, &two] } else { [&two, &three] };
        let setup = Setup::default().pool("blue", &pools).pool("green", &[&three]).workers(2);
        let memory = if round % 4 < 2 { 16 } else { 24 };
        setup.top(&format!("[limits]\nheaders = {}\n[policies]\nmemory = \"{memory}MiB\"", 50 + round))
    };
    let router = setup(0).start();
    let loads = [Load::new(router.traffic, 700).start(), Load::new(router.traffic, 200).fresh().start()];
    let mut answered = 0.0;
    for round in 1..=40 {
        router.reload(&setup(round));
        let now = router.metric("switchback_requests_total", &["pool=\"blue\""]);
        assert!(now >= answered, "back from {answered} to {now}");
        answered = now;
        loads[0].wait_for(u64::from(round) * 100);
    }
    let reports = loads.map(switchback_tests::Running::stop);
    for report in &reports {
        assert_eq!(report.failures(), 0, "{report:?}");
    }
    assert_eq!(router.generation(), 41);
    println!("40 reloads, {} queries, 0 failed, slowest {:?}", reports[0].sent + reports[1].sent, reports[0].slowest);
}

#[test]
fn tokens_are_read_again() {
    let (blue, folder) = (Backend::start("blue"), tempfile::tempdir().unwrap());
    let file = folder.path().join("token");
    std::fs::write(&file, "the-first-token-of-ann").unwrap();
    let setup = || {
        let keys = format!("[[admin.token]]\nname = \"ann\"\nrole = \"viewer\"\nfile = {:?}", file.display().to_string());
        Setup::default().pool("blue", &[&blue]).top(&keys)
    };
    let router = setup().start();
    let asks = |token: &str| {
        let head = format!("GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        http::raw(router.admin, &head).unwrap()[9..12].to_owned()
    };
    assert_eq!((asks("the-first-token-of-ann").as_str(), asks("the-second-token-of-ann").as_str()), ("200", "401"));
    std::fs::write(&file, "the-second-token-of-ann").unwrap();
    router.reload(&setup());
    assert_eq!((asks("the-first-token-of-ann").as_str(), asks("the-second-token-of-ann").as_str()), ("401", "200"));
}

#[test]
fn only_an_operator_reloads_and_a_stream_of_events_outlives_it() {
    let blue = Backend::start("blue");
    let setup =
        |headers: u32| Setup::default().pool("blue", &[&blue]).pool("green", &[&blue]).top(&format!("[limits]\nheaders = {headers}"));
    let router = setup(50).start();
    let answer = http::raw(router.admin, "POST /api/v1/reload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let mut watch = router.cli().args(["flag", "watch", "search", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    router.reload(&setup(51));
    router.set_flags(&["live=green"]);
    let seen = lines.map(Result::unwrap).find(|line| line.contains("\"live\":\"green\""));
    assert!(seen.is_some());
    watch.kill().unwrap();
    watch.wait().unwrap();
}
