//! The promise: a thousand routes start about as soon as one, and at rest they take next to nothing: what is looked at is what changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use switchback_tests::{Backend, Router, Setup, eventually, http};

const ROUTES: usize = 1_000;
const SOON: Duration = Duration::from_secs(20);
/// From the start of the process; what plugins are compiled to is in the data folder.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// Health checks of the one pool that has them come ten times a second: so many are two seconds.
const CHECKS: u64 = 20;
/// Of one core.
const MOST_AT_REST: f64 = 0.05;
/// Of memory, for each route with two pools and two workers.
const MOST_BYTES: u64 = 256 << 10;

/// As many routes as that, beside the one of every set-up.
fn start(routes: usize, [blue, canary]: [&Backend; 2], data_dir: &Path) -> Router {
    let route = |number: usize| {
        let pool = |name: &str, backend: &Backend| {
            format!("[route.pools.{name}]\nendpoints = [\"{}\"]\nhealth = {{ interval = \"0s\" }}\n", backend.url())
        };
        let (blue, canary) = (pool("blue", blue), pool("canary", canary));
        format!("[[route]]\nname = \"r{number}\"\nmatch = {{ path_prefix = \"/r{number}\" }}\n{blue}{canary}")
    };
    let routes: String = (0..routes).map(route).collect();
    Setup::default().pool("blue", &[blue]).top(&routes).workers(2).data_dir(data_dir).start()
}

/// The share of a core that the router takes while so many health checks come to the backend.
fn busy(router: &Router, blue: &Backend) -> f64 {
    let (began, used, checks) = (Instant::now(), router.cpu_time(), blue.checks());
    eventually("health checks go on", SOON, || (blue.checks() >= checks + CHECKS).then_some(()));
    (router.cpu_time() - used).as_secs_f64() / began.elapsed().as_secs_f64()
}

#[test]
fn a_router_with_a_thousand_routes_is_ready_soon_and_rests_when_nobody_asks_it() {
    let (blue, canary, folder) = (Backend::start("blue"), Backend::start("canary"), tempfile::tempdir().unwrap());
    let backends = [&blue, &canary];
    let one = start(1, backends, folder.path());
    let of_one = one.resident_bytes();
    drop(one);

    // Their flags are written; the second time they are there.
    for flags in ["new", "as they were left"] {
        let began = Instant::now();
        let router = start(ROUTES, backends, folder.path());
        let took = began.elapsed();
        assert!(took < READY_WITHIN, "flags {flags}: {took:?}");
        assert_eq!(http::get(router.traffic, "/r999/x").unwrap(), (200, "blue".to_owned()));
    }

    let router = start(ROUTES, backends, folder.path());
    let mut last = 1.0;
    eventually("it rests", Duration::from_secs(60), || {
        last = busy(&router, &blue);
        println!("{:.1} % of a core", last * 100.0);
        (last < MOST_AT_REST).then_some(())
    });
    let bytes = router.resident_bytes().saturating_sub(of_one) / ROUTES as u64;
    println!("{} KiB for each route", bytes >> 10);
    assert!(bytes < MOST_BYTES, "{bytes} bytes for each route");

    // Who rests is awake at once.
    let set = router.cli().args(["flag", "set", "r999", "canary_percent=100"]).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    eventually("the canary answers", SOON, || (http::get(router.traffic, "/r999/x").unwrap().1 == "canary").then_some(()));
    let breaker = || router.admin("GET", "/api/v1/routes/r999", b"").1["breaker"]["state"] == "watching";
    eventually("the breaker watches it", SOON, || breaker().then_some(()));
    let judged = || router.admin("GET", "/api/v1/routes/r999/evidence", b"").1["evidence"].is_object();
    eventually("the candidate is judged", SOON, || judged().then_some(()));
    assert!(!router.admin("GET", "/api/v1/routes/r998/evidence", b"").1["evidence"].is_object());
}
