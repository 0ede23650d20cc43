//! The promise: whatever dies, sleeps or loses its clock while a rollout is under way, the rollout goes on from where it was. No transition happens
//! twice, no epoch goes back, no bare edit is lost or overwritten, each event has one notification id, the ledger verifies, and a router that nothing
//! was done to fails no query.
//!
//! Each seed is a plan of faults (`plan.rs`), run against real processes. In a run of all tests it is eight seeds, with each kind of fault among them; with
//! `SWITCHBACK_FULL=1` it is 220, and the figures are kept in `tests/rollout_faults/report.md`. `SWITCHBACK_SEED=n` runs one again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "rollout_faults/eyes.rs"]
mod eyes;
#[path = "rollout_faults/plan.rs"]
mod plan;
#[path = "rollout_faults/report.rs"]
mod report;
#[path = "rollout_faults/scene.rs"]
mod scene;
#[path = "rollout_faults/verdict.rs"]
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plan::{Kind, Plan};
use report::Outcome;
use scene::Scene;

/// Runs at a time: each is mostly waiting.
const AT_ONCE: usize = 4;
/// Each kind is in one of them.
const QUICK: [u64; 8] = [0, 12, 17, 29, 6, 15, 59, 91];
const FULL: u64 = 220;
const COMMAND: &str = "SWITCHBACK_FULL=1 cargo test --release --locked --workspace --test rollout_faults -- --nocapture";

fn run(seed: u64) -> Outcome {
    let plan = Plan::of(seed);
    let (mut took, mut looks) = (None, 0);
    let mut violations = Vec::new();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut scene = Scene::start(plan.clone());
        let lasted = scene.drive();
        took = Some(lasted);
        violations.extend(verdict::violations(&scene, lasted));
        violations.extend(scene.stop_loads());
        let seen = scene.eyes.close();
        looks = seen.looks;
        violations.extend(verdict::hurried(&seen).filter(|_| plan.is_good));
        violations.extend(seen.violations);
    }));
    if let Err(panic) = ended {
        let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        violations.push(why.unwrap_or_else(|| "it panicked".to_owned()));
    }
    Outcome { plan, took, looks, violations }
}

/// All of them, some at a time; `keep` sees those that are over after each.
fn run_all(seeds: &[u64], keep: impl Fn(&[Outcome]) + Sync) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::<Outcome>::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(*seed);
                    println!("{}", outcome.line());
                    let mut outcomes = outcomes.lock().unwrap();
                    outcomes.push(outcome);
                    outcomes.sort_by_key(|outcome| outcome.plan.seed);
                    keep(&outcomes);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

#[test]
fn whatever_dies_the_rollout_goes_on_from_where_it_was() {
    let is_full = std::env::var_os("SWITCHBACK_FULL").is_some();
    let some: Option<String> = std::env::var("SWITCHBACK_SEED").ok();
    let seeds: Vec<u64> = match &some {
        Some(some) => some.split(',').map(|seed| seed.parse().expect("SWITCHBACK_SEED is a number, or several: 17,26")).collect(),
        None if is_full => (0..FULL).collect(),
        None => QUICK.to_vec(),
    };
    let outcomes = run_all(&seeds, |outcomes| {
        if is_full && some.is_none() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout_faults/report.md");
            std::fs::write(path, report::text(outcomes, seeds.len(), COMMAND)).unwrap();
        }
    });
    let wrong: Vec<String> = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).map(Outcome::line).collect();
    assert!(wrong.is_empty(), "{} of {} runs; repeat one with SWITCHBACK_SEED=n:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

#[test]
fn a_seed_is_always_the_same_plan_and_each_kind_has_its_turn() {
    let plans: Vec<Plan> = (0..FULL).map(Plan::of).collect();
    assert_eq!(plans, (0..FULL).map(Plan::of).collect::<Vec<_>>());
    for kind in Kind::ALL {
        let has = |plan: &&Plan| plan.faults.iter().any(|fault| fault.kind == kind);
        assert!(plans.iter().filter(has).count() >= 20 && plans.iter().filter(has).any(|plan| !plan.is_good), "{kind:?}");
        assert!(QUICK.iter().any(|seed| has(&&Plan::of(*seed))), "{kind:?}");
    }
    assert!(plans.iter().all(|plan| plan.faults.iter().all(|fault| fault.lasts < Duration::from_secs(10))));
}
