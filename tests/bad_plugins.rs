//! The promise: a bad plugin never fails a query. It is refused, or struck out; everybody sees why; a good one heals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::{Backend, Load, Router, Setup, eventually, guests};

const RATE: u32 = 500;
const SOON: Duration = Duration::from_secs(20);

struct Scene {
    router: Router,
    _backends: [Backend; 2],
}

impl Scene {
    fn start() -> Scene {
        let backends = [Backend::start("blue"), Backend::start("canary")];
        let patience = "[policies]\nquarantine = \"2s\"\nstrikes = 3\n";
        let initial = "initial = { live = \"blue\", canary_percent = \"20\" }";
        let router =
            Setup::default().pool("blue", &[&backends[0]]).pool("canary", &[&backends[1]]).workers(2).top(patience).route(initial).start();
        Scene { router, _backends: backends }
    }

    fn policy(&self) -> serde_json::Value {
        self.router.route()["policies"][0].clone()
    }

    fn install(&self, bytes: &[u8]) {
        guests::install(&self.router.policies_dir(), "split-weighted", bytes);
    }

    fn eventually_in_force(&self, bytes: &[u8]) {
        let digest = guests::digest(bytes);
        eventually("in force", SOON, || {
            let policy = self.policy();
            (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
        });
    }
}

#[test]
fn plugins_that_are_no_good_are_refused_and_the_old_one_serves() {
    let scene = Scene::start();
    let old = scene.policy()["digest"].clone();
    let load = Load::new(scene.router.traffic, RATE).start();
    let refused = [
        ("hostile-trap", "trap"),
        ("hostile-spin", "deadline"),
        ("hostile-memory-bomb", "memory"),
        ("hostile-wrong-version", "0.9.0"),
        ("hostile-nonsense", "pool"),
        ("hostile-wasi", "trap"),
        ("hostile-foreign-import", "import"),
    ];
    for (name, reason) in refused {
        load.wait_for(load.sent() + 200);
        let bytes = guests::hostile(name);
        scene.install(&bytes);
        let digest = guests::digest(&bytes);
        let refusal = eventually(name, SOON, || {
            let refusals = scene.policy()["refusals"].as_array()?.clone();
            refusals.into_iter().find(|refusal| refusal["digest"] == digest.as_str())
        });
        let text = refusal["reason"].as_str().unwrap().to_lowercase();
        assert!(text.contains(reason), "{name}: {text}");
        assert_eq!(scene.policy()["digest"], old, "{name} must not take over");
    }
    let good = guests::variant_of_split_weighted(1);
    scene.install(&good);
    scene.eventually_in_force(&good);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn plugins_that_go_bad_under_load_cost_no_query_and_a_good_one_heals() {
    let scene = Scene::start();
    let load = Load::new(scene.router.traffic, RATE).start();
    for (round, name) in ["hostile-trap", "hostile-spin", "hostile-memory-bomb", "hostile-nonsense", "hostile-deep"].into_iter().enumerate()
    {
        let sleeper = guests::sleeper(name);
        scene.install(&sleeper);
        scene.eventually_in_force(&sleeper);
        let (failures, native) = (failures(&scene), native(&scene));
        scene.router.set_flags(&["flag.misbehave=on"]);
        eventually(name, SOON, || (scene.policy()["state"] == "quarantined").then_some(()));
        // Everybody is answered by the native decision meanwhile, canary share and all.
        let canary = || scene.router.metric("switchback_requests_total", &["pool=\"canary\""]);
        let before = canary();
        eventually("native decisions send a share to the canary", SOON, || (canary() > before + 20.0).then_some(()));
        // Not even by a worker that had an instance which never failed.
        let by_policy = || scene.router.metric("switchback_decisions_total", &["reason=\"rule\""]);
        let (asked, sent) = (by_policy(), load.sent());
        load.wait_for(sent + 100);
        assert_eq!(by_policy(), asked, "{name}: nobody asks a policy in quarantine");
        assert!(self::failures(&scene) > failures && self::native(&scene) > native, "{name}: visible in the metrics");
        assert!(scene.policy()["why"].as_str().is_some_and(|why| !why.is_empty()), "{name}: says why");
        let good = guests::variant_of_split_weighted(round as u64);
        if round.is_multiple_of(2) {
            // While it still misbehaves.
            scene.install(&good);
            scene.eventually_in_force(&good);
            scene.router.set_flags(&["--unset", "flag.misbehave"]);
        } else {
            scene.router.set_flags(&["--unset", "flag.misbehave"]);
            eventually("a quarantine ends by itself", SOON, || (scene.policy()["state"] == "in_force").then_some(()));
            scene.install(&good);
            scene.eventually_in_force(&good);
        }
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.slowest < Duration::from_secs(1), "{:?}", report.slowest);
}

#[test]
fn a_plugin_that_refuses_the_flags_holds_up_no_flip() {
    let scene = Scene::start();
    let picky = guests::sleeper("hostile-refuse");
    scene.install(&picky);
    scene.eventually_in_force(&picky);
    let load = Load::new(scene.router.traffic, RATE).start();
    scene.router.set_flags(&["flag.misbehave=on", "canary_percent=100"]);
    let policy = eventually("it says that it refuses", SOON, || {
        let policy = scene.policy();
        (policy["state"] == "unconfigured").then_some(policy)
    });
    assert_eq!(policy["why"], "it refused the flags: this policy wants other flags");
    assert_eq!(policy["in_force"]["strikes"], 0);
    let to_blue = || scene.router.metric("switchback_requests_total", &["pool=\"blue\""]);
    let before = (to_blue(), load.sent());
    load.wait_for(before.1 + 300);
    assert!(
        to_blue() <= before.0 + 5.0,
        "under the new flags everything goes to the canary; blue had {} before, now {}",
        before.0,
        to_blue()
    );
    scene.router.set_flags(&["--unset", "flag.misbehave"]);
    scene.eventually_in_force(&picky);
    assert_eq!(load.stop().failures(), 0);
}

fn failures(scene: &Scene) -> f64 {
    scene.router.metric("switchback_policy_failures_total", &[])
}

fn native(scene: &Scene) -> f64 {
    scene.router.metric("switchback_decisions_total", &["reason=\"native\""])
}
