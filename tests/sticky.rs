//! The promise: a unit keeps its arm. While the candidate's share grows nobody leaves it, shares are what was configured, and
//! every router decides alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use split_weighted::WeightedSplit;
use switchback::config::{self, Config};
use switchback::flags::Flags;
use switchback::policy::{Kind, Policies, SplitInstance, snapshot};
use switchback::serve::PositionKey;
use switchback::vocabulary::{Ppm, RouteIndex};
use switchback_policy::split::{POSITIONS, Reason, Snapshot, SplitPolicy};
use switchback_tests::{Backend, Router, Setup, eventually, http};

const UNITS: u32 = 1_000_000;
const SALT: &str = "0123456789abcdef0123456789abcdef";

fn positions() -> Vec<u32> {
    let key = PositionKey::new(SALT.as_bytes());
    (0..UNITS).map(|unit| key.position(format!("user{unit}").as_bytes())).collect()
}

fn test_config() -> Arc<Config> {
    let folder = tempfile::tempdir().unwrap().keep();
    let text = format!(
        "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nstate = {{ data_dir = {folder:?} }}\n\
         policies = {{ deadline = \"1s\" }}\n[[route]]\nname = \"search\"\n\
         [route.pools.blue]\nendpoints = [\"http://127.0.0.1:9001\"]\n[route.pools.canary]\nendpoints = [\"http://127.0.0.1:9003\"]\n"
    );
    Arc::new(config::parse("test", &text).unwrap())
}

fn flags_at(config: &Config, percent: u32) -> Flags {
    let mut flags = Flags::initial(&config.routes[0]);
    flags.candidate.share = Ppm::new(percent * 10_000).unwrap();
    flags
}

/// Four standard deviations of a binomial share.
fn assert_share(percent: u32, seen: usize) {
    let (n, p) = (f64::from(UNITS), f64::from(percent) / 100.0);
    let expected = n * p;
    let off = (seen as f64 - expected).abs();
    assert!(off <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{percent} %: {seen} of {UNITS} units");
}

/// Ramps from 0 to 100 in steps of one percent; `decide` configures itself for a snapshot and says who is on the candidate.
fn ramp(positions: &[u32], mut decide: impl FnMut(&Snapshot, &[u32]) -> Vec<bool>) {
    let config = test_config();
    let mut before = vec![false; positions.len()];
    for percent in 0..=100 {
        let now = decide(&snapshot(&config.routes[0], &flags_at(&config, percent)), positions);
        let left = before.iter().zip(&now).filter(|(was, is)| **was && !**is).count();
        assert_eq!(left, 0, "{left} units left the candidate at {percent} %");
        assert_share(percent, now.iter().filter(|is| **is).count());
        before = now;
    }
    assert!(before.iter().all(|is| *is), "100 % is everybody");
}

#[test]
fn nobody_leaves_a_growing_candidate_and_shares_are_as_configured() {
    ramp(&positions(), |snapshot, positions| {
        let (split, _) = WeightedSplit::configure(snapshot).unwrap();
        positions.iter().map(|position| split.route(*position).reason == Reason::Candidate).collect()
    });
}

#[tokio::test]
async fn the_component_in_force_decides_for_every_unit_as_its_native_twin() {
    let config = test_config();
    let (_keep, flags) = tokio::sync::watch::channel(Arc::new(Flags::initial(&config.routes[0])));
    let policies = Policies::open(&config, vec![flags]).unwrap();
    let in_force = policies.split(RouteIndex(0)).borrow().clone();
    assert_eq!(in_force.kind, Kind::Wasm);
    let mut instance: Option<SplitInstance> = None;
    ramp(&positions(), |snapshot, positions| {
        let mut configured = match instance.take() {
            Some(mut instance) => instance.configure(snapshot).map(|_| instance).unwrap(),
            None => in_force.instantiate(snapshot).unwrap().0,
        };
        let (native, _) = WeightedSplit::configure(snapshot).unwrap();
        let decisions = positions.iter().map(|position| {
            let decision = configured.route(*position).unwrap();
            assert_eq!(decision, native.route(*position));
            decision.reason == Reason::Candidate
        });
        let decisions = decisions.collect();
        instance = Some(configured);
        decisions
    });
}

#[test]
fn positions_are_spread_evenly() {
    const CELLS: usize = 100;
    let mut cells = [0_u32; CELLS];
    positions().into_iter().for_each(|position| cells[position as usize * CELLS / POSITIONS as usize] += 1);
    let expected = f64::from(UNITS) / CELLS as f64;
    let chi_square: f64 = cells.iter().map(|seen| (f64::from(*seen) - expected).powi(2) / expected).sum();
    // 99 degrees of freedom: beyond 160 lies less than one in ten thousand.
    assert!(chi_square < 160.0, "{chi_square}");
}

#[test]
fn two_routers_and_the_arithmetic_agree_on_every_user() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let initial = format!("initial = {{ live = \"blue\", canary_percent = \"37.5\", salt = {SALT:?} }}");
    let start = || Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(&initial).workers(2).start();
    let routers: [Router; 2] = [start(), start()];
    let key = PositionKey::new(SALT.as_bytes());
    for user in 0..1_000 {
        let user = format!("user{user}");
        let expected = if key.position(user.as_bytes()) < 375_000 { "canary" } else { "blue" };
        for router in &routers {
            assert_eq!(pool_of(router, &format!("x-user-id: {user}")), expected, "{user}");
            // The same person is the same unit, wherever the id comes from.
            assert_eq!(pool_of(router, &format!("cookie: a=b; sid={user}")), expected, "{user}");
        }
    }
}

#[test]
fn the_candidates_share_can_be_0_and_100() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).start();
    for (percent, pool, other) in [("0", "blue", &canary), ("100", "canary", &blue)] {
        router.set_flags(&[&format!("canary_percent={percent}")]);
        eventually("applied", Duration::from_secs(5), || (pool_of(&router, "x-user-id: u") == pool).then_some(()));
        let before = other.arrivals();
        for user in 0..200 {
            assert_eq!(pool_of(&router, &format!("x-user-id: user{user}")), pool);
        }
        assert_eq!(other.arrivals(), before, "{percent} % means none of the other");
    }
}

fn pool_of(router: &Router, header: &str) -> String {
    let response = http::raw(router.traffic, &format!("GET /rank HTTP/1.1\r\nhost: a\r\n{header}\r\nconnection: close\r\n\r\n")).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response.rsplit("\r\n\r\n").next().unwrap().to_owned()
}
