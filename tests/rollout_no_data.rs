//! The promise: no data never decides. Where one arm has no queries, where the feed of events stops, where the candidate lacks a metric that control has,
//! and where the store is away, a rollout neither goes on nor back: it waits, says what for, and tells once that it takes too long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::shoppers::{Ranking, Shoppers, Shopping};
use switchback_tests::{Router, eventually, http};

const SOON: Duration = Duration::from_secs(40);
/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
/// A policy that lets on after little: what it waits for here is data.
const EAGER: &str = "rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 }, \
                     metrics = { clicks = { relative_margin = 0.4, last_relative_margin = 0.4 }, quality = { margin = 0.2, last_margin = 0.2 } } }";
const RATE: u32 = 300;

fn plan(step: &str) -> String {
    format!("rollout = {{ steps = [\"{step}\"], canary_max_percent = \"0\", max_step = \"8s\", bake = \"2s\" }}\n{EAGER}")
}

fn begin(fleet: &Fleet, route: &str) -> [Router; 2] {
    fleet.routers(&fleet.redis.url(), QUICK, route)
}

fn start(router: &Router) {
    let (code, said, error) = router.run(&["rollout", "start", "search"]);
    assert_eq!(code, 0, "{said}{error}");
}

fn users(routers: &[Router; 2]) -> Shopping {
    let good = Ranking(vec![0.5, 0.3, 0.2, 0.1, 0.05, 0.02]);
    let shoppers = Shoppers::new(&routers.each_ref().map(|router| router.traffic), RATE);
    let users = shoppers.start(&[("blue", &good), ("green", &good), ("canary", &good)]);
    // A minute of control teaches the policy what is usual; some seconds do too.
    users.wait_for(u64::from(RATE) * 6);
    users
}

fn rollout(router: &Router) -> Value {
    router.route()["rollout"].clone()
}

/// It is told that it takes too long, once, and then it waits for this, with the share that it has.
fn holds(routers: &[Router; 2], users: &Shopping, step: &str, waits_for: &str) {
    let first = format!("v2 canary step 1 of 1 ({step} %)");
    let stalled = format!("{first}, stalled");
    users.eventually("it is told", SOON, 10, || (routers[0].transitions().last() == Some(&stalled)).then_some(()));
    let waits = |router: &Router| rollout(router)["waits_for"].as_str().unwrap_or_default().to_owned();
    users.eventually(waits_for, SOON, 10, || routers.iter().any(|router| waits(router).contains(waits_for)).then_some(()));
    // Many more windows without data change nothing.
    users.wait_for(u64::from(RATE) * 6);
    let all = routers[1].transitions();
    assert_eq!(all, [first, stalled], "{:#}", routers[0].route()["evidence"]);
    assert!(routers.iter().any(|router| waits(router).contains(waits_for)), "{:?}", routers.each_ref().map(waits));
    assert_eq!(routers[0].route()["canary_percent"].as_f64().unwrap().to_string(), step);
}

#[test]
fn a_candidate_that_nobody_asks_is_held() {
    let fleet = Fleet::start();
    let routers = begin(&fleet, &plan("0.0001"));
    let users = users(&routers);
    start(&routers[0]);
    holds(&routers, &users, "0.0001", "no data");
    assert_eq!(fleet.pools[1].arrivals() + fleet.pools[2].arrivals(), 0);
    assert!(users.stop().failed.is_empty());
}

#[test]
fn a_candidate_that_is_compared_with_nobody_is_held() {
    let fleet = Fleet::start();
    let routers = begin(&fleet, &plan("99.9999"));
    let users = users(&routers);
    start(&routers[0]);
    holds(&routers, &users, "99.9999", "no data");
    assert!(users.stop().failed.is_empty());
}

#[test]
fn a_feed_of_events_that_stops_holds_and_goes_on_when_it_is_back() {
    let fleet = Fleet::start();
    let routers = begin(&fleet, &plan("30"));
    let users = users(&routers);
    users.be_silent(true);
    start(&routers[0]);
    holds(&routers, &users, "30", "clicks");
    users.be_silent(false);
    users.eventually("it goes live", SOON, 10, || (rollout(&routers[0])["phase"] == "baking").then_some(()));
    assert!(users.stop().failed.is_empty());
}

/// What users rate is told of control alone: nothing speaks against the candidate, and nothing for it.
#[test]
fn a_metric_that_control_has_and_the_candidate_lacks_holds() {
    let fleet = Fleet::start();
    let routers = begin(&fleet, &plan("30"));
    let users = users(&routers);
    let rate = |router: &Router, user: u64| {
        let ask = format!("GET /rank HTTP/1.1\r\nhost: a\r\nx-user-id: rater{user}\r\nconnection: close\r\n\r\n");
        let answer = http::raw(router.traffic, &ask).unwrap();
        let said = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        if said("x-switchback-pool: ") == "blue" {
            tell(
                router.traffic,
                &format!("{{\"action_name\":\"quality\",\"query_id\":\"{}\",\"value\":0.8}}", said("x-switchback-token: ")),
            );
        }
    };
    let mut raters = 0..;
    (0..200).for_each(|_| rate(&routers[0], raters.next().unwrap()));
    start(&routers[0]);
    let is_told = |router: &Router| router.transitions().len() > 1;
    eventually("it is told", SOON, || {
        rate(&routers[1], raters.next().unwrap());
        is_told(&routers[0]).then_some(())
    });
    // The ledger may have it some milliseconds before this router does.
    eventually("it is told of quality", SOON, || rollout(&routers[0])["why"].as_str()?.contains("quality").then_some(()));
    holds(&routers, &users, "30", "quality");
    assert!(users.stop().failed.is_empty());
}

fn tell(router: SocketAddr, event: &str) {
    let post =
        format!("POST /_switchback/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{event}", event.len());
    let answer = http::raw(router, &post).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("\"counted\":1"), "{answer}");
}

/// A route about which nobody ever sends events: clicks gate nothing.
#[test]
fn a_metric_that_control_has_not_gates_nothing() {
    let fleet = Fleet::start();
    let routers = begin(&fleet, &plan("30"));
    let shoppers = Shoppers::new(&routers.each_ref().map(|router| router.traffic), RATE);
    let users = shoppers.start(&[]);
    start(&routers[0]);
    users.eventually("it goes live", SOON, 10, || (rollout(&routers[0])["phase"] == "baking").then_some(()));
    assert!(users.stop().failed.is_empty());
}

/// While the store is away under load nothing is judged, and nothing moves; when it is back the rollout goes on.
#[test]
fn a_store_that_is_away_holds_and_the_rollout_goes_on_when_it_is_back() {
    let mut fleet = Fleet::start();
    let route = format!(
        "rollout = {{ steps = [\"30\"], canary_max_percent = \"0\", dwell = \"12s\", max_step = \"60s\", bake = \"60s\" }}\n{EAGER}"
    );
    let routers = begin(&fleet, &route);
    let users = users(&routers);
    start(&routers[0]);
    let verdict = |router: &Router| router.route()["evidence"]["evidence"]["verdict"].as_str().map(str::to_owned);
    users.eventually("it is judged", SOON, 10, || routers.iter().all(|router| verdict(router).is_some()).then_some(()));
    let dump = fleet.runtime.block_on(fleet.redis.dump()).unwrap();
    fleet.redis.kill().unwrap();
    let waits = |router: &Router| rollout(router)["waits_for"].as_str().unwrap_or_default().to_owned();
    let is_said = |router: &Router| waits(router).contains("nothing is judged: ");
    users.eventually("nothing is judged", SOON, 10, || routers.iter().all(is_said).then_some(()));
    users.wait_for(u64::from(RATE) * 6);
    for router in &routers {
        let route = router.route();
        assert_eq!(
            (&route["canary_percent"], &route["live"], &route["rollout"]["phase"]),
            (&30.0.into(), &"blue".into(), &"canary".into())
        );
    }
    fleet.runtime.block_on(fleet.redis.restart_with(&dump)).unwrap();
    users.eventually("it goes live", SOON, 10, || (rollout(&routers[0])["phase"] == "baking").then_some(()));
    assert_eq!(routers[1].transitions(), ["v2 canary step 1 of 1 (30 %)", "v2 baking"]);
    assert!(users.stop().failed.is_empty());
}
