//! The promise: a deployment that is killed, wherever it was, and called again ends as if it had not been: one version, one rollout, live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use switchback_tests::deploy::{PLAN, Site};
use switchback_tests::eventually;

const SOON: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ends_well(site: &Site, file: &str) {
    let (code, account) = site.deployed(&["--file", file, "--wait", "--timeout", "90s"]);
    assert_eq!((code, &account["outcome"], &account["version"]), (0, &"live".into(), &2.into()), "{account:#}");
    assert_eq!((site.versions(), site.rollouts()), (vec![1, 2], 1));
    assert_eq!((site.alias("candidate"), site.alias("champion")), (2.into(), 2.into()));
    let moves = |alias: &str| site.registry.done(&["alias", "search", alias])["moves"].as_array().unwrap().len();
    assert_eq!((moves("candidate"), moves("champion")), (1, 1), "each was moved once");
}

/// At each thing that it tells of, in one deployment.
#[test]
fn at_every_phase() {
    let site = Site::with_users(PLAN);
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    let arguments = ["--file", text(&file), "--wait", "--timeout", "90s"];
    // When the first bytes of it are in the registry.
    let artefacts = site.registry.path("registry/models/search/artefacts");
    let pushing = site.watch(&arguments);
    eventually("it is being pushed", SOON, || (std::fs::read_dir(&artefacts).unwrap().count() > 1).then_some(()));
    pushing.kill();
    let mut told = Vec::new();
    for event in ["pushed", "known", "validated", "validated", "started", "attached", "alias", "waits", "phase"] {
        let mut watched = site.watch(&arguments);
        told.push((event, watched.tells(event)));
        watched.kill();
    }
    let seen = |wanted: &str| told.iter().any(|(event, is_told)| *event == wanted && *is_told);
    assert!(seen("validated") && seen("waits"), "{told:?}");
    for phase in ["baking", "done"] {
        let watched = site.watch(&arguments);
        eventually(phase, SOON, || (site.phase() == phase || site.phase() == "done").then_some(()));
        watched.kill();
    }
    ends_well(&site, text(&file));
}

/// At whatever moment of its first second.
#[test]
fn at_any_moment() {
    let site = Site::with_users(PLAN);
    site.runs("search:2");
    let file = site.model("ranker_v2.onnx");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    for _ in 0..20 {
        let watched = site.watch(&["--file", text(&file), "--wait", "--timeout", "90s"]);
        let moment = Instant::now() + Duration::from_millis(random.random_range(0..400));
        eventually("the moment", SOON, || (Instant::now() >= moment).then_some(()));
        watched.kill();
    }
    ends_well(&site, text(&file));
}
