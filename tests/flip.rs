//! The promise: a person flips a flag with redis-cli, and every router obeys within milliseconds; nobody's query fails, and
//! the edit is adopted once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Setup, eventually};

const KEY: &str = "{switchback:search}:flags";
const MEDIAN: Duration = Duration::from_millis(50);
const WORST: Duration = Duration::from_millis(250);
const RATE: u32 = 500;

/// Two routers on one Redis in front of three pools, and users on both.
struct Fleet {
    redis: RedisServer,
    runtime: tokio::runtime::Runtime,
    routers: [Router; 2],
    blue: Backend,
    green: Backend,
    canary: Backend,
}

impl Fleet {
    fn start() -> Fleet {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        let (blue, green, canary) = (Backend::start("blue"), Backend::start("green"), Backend::start("canary"));
        let router =
            || Setup::default().pool("blue", &[&blue]).pool("green", &[&green]).pool("canary", &[&canary]).redis(&redis.url()).start();
        let routers = [router(), router()];
        Fleet { redis, runtime, routers, blue, green, canary }
    }

    fn load(&self) -> [switchback_tests::Running; 2] {
        [0, 1].map(|router| {
            let load = Load::new(self.routers[router].traffic, RATE).start();
            load.wait_for(200);
            load
        })
    }

    /// A bare HSET, as from redis-cli but without the time to start it. Returns the moment before it was sent.
    fn hset(&self, field: &str, value: &str) -> Instant {
        let mut connection = self.runtime.block_on(self.redis.connection()).unwrap();
        let before = Instant::now();
        let mut write = redis::cmd("HSET");
        write.arg(KEY).arg(field).arg(value);
        self.runtime.block_on(write.exec_async(&mut connection)).unwrap();
        before
    }

    fn field(&self, field: &str) -> String {
        self.redis.cli(&["HGET", KEY, field]).unwrap()
    }

    /// From a write to the last query that arrived at a pool which should get none any more.
    fn last_arrival_after(&self, written: Instant, old: &Backend, new: &Backend) -> Duration {
        let new_before = new.arrivals();
        eventually("the other pool gets queries", Duration::from_secs(5), || (new.arrivals() > new_before + 50).then_some(()));
        // Nothing for half a second of 1,000 queries: the old pool is out.
        let mut seen = (old.arrivals(), Instant::now());
        eventually("the old pool gets no more queries", Duration::from_secs(5), || {
            if old.arrivals() != seen.0 {
                seen = (old.arrivals(), Instant::now());
            }
            (seen.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
        old.last_arrival().saturating_duration_since(written)
    }

    fn settle(&self) {
        eventually("both routers are on the sealed epoch", Duration::from_secs(5), || {
            let epoch: u64 = self.field("epoch").parse().ok()?;
            let is_applied = |router: &Router| router.route()["applied_epoch"] == epoch;
            self.routers.iter().all(is_applied).then_some(())
        });
    }
}

fn assert_quick(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {} flips, last query on the old pool after: median {median:?}, worst {worst:?}", times.len());
    assert!(median < MEDIAN, "{what}: median {median:?}, all {times:?}");
    assert!(worst < WORST, "{what}: worst {worst:?}, all {times:?}");
}

#[test]
fn thirty_flips_of_live_are_obeyed_within_milliseconds_and_no_query_fails() {
    let fleet = Fleet::start();
    let loads = fleet.load();
    let mut times = Vec::new();
    for flip in 0..30 {
        let (colour, old, new) = if flip % 2 == 0 { ("green", &fleet.blue, &fleet.green) } else { ("blue", &fleet.green, &fleet.blue) };
        let written = fleet.hset("live", colour);
        times.push(fleet.last_arrival_after(written, old, new));
        fleet.settle();
    }
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures(), 0, "{report:?}");
    }
    assert_quick("live", times);
}

#[test]
fn thirty_changes_each_of_canary_percent_and_pin_are_obeyed_as_fast() {
    let fleet = Fleet::start();
    let loads = fleet.load();
    let mut canary = Vec::new();
    let mut pin = Vec::new();
    for _ in 0..15 {
        let written = fleet.hset("canary_percent", "100");
        canary.push(fleet.last_arrival_after(written, &fleet.blue, &fleet.canary));
        let written = fleet.hset("canary_percent", "0");
        canary.push(fleet.last_arrival_after(written, &fleet.canary, &fleet.blue));
        let written = fleet.hset("pin", "green");
        pin.push(fleet.last_arrival_after(written, &fleet.blue, &fleet.green));
        let written = fleet.hset("pin", "none");
        pin.push(fleet.last_arrival_after(written, &fleet.green, &fleet.blue));
    }
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures(), 0, "{report:?}");
    }
    assert_quick("canary_percent", canary);
    assert_quick("pin", pin);
}

#[test]
fn an_edit_is_adopted_once_by_one_router() {
    let fleet = Fleet::start();
    fleet.settle();
    let epoch: u64 = fleet.field("epoch").parse().unwrap();
    let seal = fleet.field("seal");
    fleet.redis.cli(&["HSET", KEY, "live", "green", "flag.semantic", "on"]).unwrap();
    eventually("adopted", Duration::from_secs(5), || (fleet.field("epoch") == (epoch + 1).to_string()).then_some(()));
    assert_ne!(fleet.field("seal"), seal);
    fleet.settle();
    let entries: Vec<serde_json::Value> = fleet.routers.iter().map(history).collect();
    assert_eq!(entries[0], entries[1], "both tell the same history");
    let external: Vec<&serde_json::Value> = entries[0].as_array().unwrap().iter().filter(|entry| entry["who"] == "external").collect();
    assert_eq!(external.len(), 1, "{external:?}");
    assert_eq!(fleet.field("epoch"), (epoch + 1).to_string(), "and only once");
    for router in &fleet.routers {
        assert_eq!(router.route()["live"], "green");
        let routers = router.route()["routers"].clone();
        eventually("heartbeats carry epoch and seal of both", Duration::from_secs(5), || {
            let all = router.route()["routers"].as_array()?.clone();
            let is_current = |seen: &serde_json::Value| seen["epoch"] == epoch + 1 && seen["seal"] == fleet.field("seal").as_str();
            (all.len() == 2 && all.iter().all(is_current)).then_some(())
        });
        assert!(routers.is_array());
    }
}

#[test]
fn a_write_on_a_state_that_somebody_edited_since_is_refused() {
    let fleet = Fleet::start();
    fleet.settle();
    let epoch = fleet.field("epoch");
    fleet.redis.cli(&["HSET", KEY, "live", "green"]).unwrap();
    let output = fleet.routers[0].cli().args(["flag", "set", "search", "canary_percent=5", "--if-epoch", &epoch]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    fleet.settle();
    assert_eq!(fleet.routers[0].route()["live"], "green");
    assert_eq!(fleet.routers[0].route()["canary_percent"], 0.0);
}

#[test]
fn garbage_in_one_field_does_not_hold_up_a_flip_in_another() {
    let fleet = Fleet::start();
    let loads = fleet.load();
    fleet.redis.cli(&["HSET", KEY, "mirror_percent", "lots", "freeze", "maybe"]).unwrap();
    let written = fleet.hset("live", "green");
    let late = fleet.last_arrival_after(written, &fleet.blue, &fleet.green);
    assert!(late < WORST, "{late:?}");
    let faults = fleet.routers[1].route()["faults"].clone();
    let named: Vec<&str> = faults.as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert!(named.contains(&"mirror_percent") && named.contains(&"freeze"), "{faults}");
    for load in loads {
        assert_eq!(load.stop().failures(), 0);
    }
}

fn history(router: &Router) -> serde_json::Value {
    let (status, body) = switchback_tests::http::get(router.admin, "/api/v1/routes/search/history").unwrap();
    assert_eq!(status, 200, "{body}");
    let entries: serde_json::Value = serde_json::from_str(&body).unwrap();
    entries.get("entries").or_else(|| entries.get("history")).unwrap_or(&entries).clone()
}
