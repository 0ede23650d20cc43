//! The promise: plugins are swapped, colours flipped and backends restarted under load, and no query fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::{Backend, Load, Router, Setup, eventually, guests};

const QUERIES: u64 = 30_000;
const RATE: u32 = 1_000;

#[test]
fn thirty_thousand_queries_across_swaps_flips_and_restarts() {
    let (one, mut other) = (Backend::start("blue-1"), Backend::start("blue-2"));
    let (green, canary) = (Backend::start("green"), Backend::start("canary"));
    let initial = "initial = { live = \"blue\", canary_percent = \"10\" }";
    let router = Setup::default()
        .pool("blue", &[&one, &other])
        .pool("green", &[&green])
        .pool("canary", &[&canary])
        .route(initial)
        .workers(2)
        .start();
    let load = Load::new(router.traffic, RATE).start();
    for round in 0..20 {
        swap_plugin(&router, round);
        let live = if round % 2 == 0 { "green" } else { "blue" };
        // A flip by an operator ends the ramp; this one starts it again at once.
        router.set_flags(&[&format!("live={live}"), "canary_percent=10"]);
        if round % 4 == 1 {
            other.stop();
            load.wait_for(load.sent() + 200);
            let before = other.arrivals();
            other.restart();
            eventually("the restarted backend gets queries", Duration::from_secs(20), || (other.arrivals() > before).then_some(()));
        }
        load.wait_for(QUERIES / 20 * (round + 1));
    }
    let report = load.stop();
    assert!(report.sent >= QUERIES, "{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(router.metric("switchback_policy_failures_total", &[]), 0.0);
    let [blue, green, canary] = ["blue", "green", "canary"].map(|pool| report.by_pool.get(pool).copied().unwrap_or(0));
    assert!(blue > 5_000 && green > 5_000 && canary > 2_000, "{report:?}");
    println!("{} queries, 0 failed, slowest {:?}", report.sent, report.slowest);
}

/// Puts another plugin in place of the one in force and waits until the router says that it took over.
fn swap_plugin(router: &Router, round: u64) {
    let bytes = guests::variant_of_split_weighted(round);
    guests::install(&router.policies_dir(), "split-weighted", &bytes);
    let digest = guests::digest(&bytes);
    eventually("the plugin took over", Duration::from_secs(20), || {
        let policy = router.route()["policies"][0].clone();
        (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
    });
}
