//! The promise: with `on_policy_failure = "last_good"`, what a policy cannot decide is decided by the policy before it, which did well;
//! only then natively. Without it, natively.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::{Backend, Load, Router, Setup, eventually, guests};

const SOON: Duration = Duration::from_secs(20);
const RULES: &str = r#"
split_policy = "split-rules"
[[route.split_config.rules]]
name = "beta"
when = [{ field = "header:x-beta", equals = "1" }]
pool = "green"
"#;

struct Scene {
    router: Router,
    _backends: [Backend; 2],
}

impl Scene {
    fn start(route: &str) -> Scene {
        let backends = [Backend::start("blue"), Backend::start("green")];
        let setup = Setup::default().pool("blue", &[&backends[0]]).pool("green", &[&backends[1]]).workers(2);
        let router = setup.top("[policies]\nstrikes = 3\nquarantine = \"60s\"\n").route(route).route(RULES).start();
        Scene { router, _backends: backends }
    }

    fn policy(&self) -> Value {
        self.router.route()["policies"][0].clone()
    }

    /// Puts this plugin in force in place of the one that is.
    fn follow_with(&self, name: &str, bytes: &[u8]) {
        guests::install(&self.router.policies_dir(), name, bytes);
        self.router.set_flags(&[&format!("split_policy={name}")]);
        let digest = guests::digest(bytes);
        eventually("in force", SOON, || (self.policy()["digest"] == digest.as_str()).then_some(()));
    }

    /// Waits until all queries with the header go there.
    fn beta_goes_to(&self, pool: &str, why: &str) {
        eventually(why, SOON, || {
            let load = Load { headers: vec![("x-beta", "1")], ..Load::new(self.router.traffic, 500) }.start();
            load.wait_for(200);
            let report = load.stop();
            assert_eq!(report.failures(), 0, "{report:?}");
            (report.by_pool.keys().collect::<Vec<_>>() == [pool]).then_some(())
        });
    }
}

#[test]
fn a_rules_policy_goes_on_deciding_when_the_one_that_replaced_it_goes_bad_under_load() {
    let scene = Scene::start("on_policy_failure = \"last_good\"");
    let load = Load { headers: vec![("x-beta", "1")], ..Load::new(scene.router.traffic, 500) }.start();
    for name in ["hostile-trap", "hostile-spin", "hostile-nonsense"] {
        scene.router.set_flags(&["split_policy=split-rules"]);
        eventually("rules", SOON, || (scene.policy()["name"] == "split-rules").then_some(()));
        scene.beta_goes_to("green", "the rules send them there");
        scene.follow_with(name, &guests::sleeper(name));
        scene.beta_goes_to("blue", "this one sends everybody to the live pool");
        assert_eq!((&scene.policy()["answered_by"], &scene.policy()["last_good"]["name"]), (&json!("policy"), &json!("split-rules")));
        let native = scene.router.metric("switchback_decisions_total", &["reason=\"native\""]);
        scene.router.set_flags(&["flag.misbehave=on"]);
        eventually("struck out", SOON, || (scene.policy()["state"] == "quarantined").then_some(()));
        assert_eq!(scene.policy()["answered_by"], "last_good");
        let (listed, page) = (scene.router.run(&["policy", "list"]).1, scene.router.run(&["status"]).1);
        assert!(listed.contains(&format!("  {name}: in quarantine on search for another ")), "{listed}");
        assert!(page.contains(" quarantined for another ") && page.contains("; split-rules decides in its place"), "{page}");
        scene.beta_goes_to("green", &format!("{name}: the rules decide again"));
        let by_last_good = scene.router.metric("switchback_decisions_total", &["reason=\"last_good\""]);
        assert!(by_last_good > 300.0, "{by_last_good}");
        assert_eq!(
            scene.router.metric("switchback_decisions_total", &["reason=\"native\""]),
            native,
            "{name}: nobody was decided natively"
        );
        assert_eq!(scene.policy()["last_good"]["strikes"], 0);
        scene.router.set_flags(&["--unset", "flag.misbehave"]);
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn two_bad_policies_in_a_row_leave_the_one_before_them_and_a_bad_last_good_the_native_decision() {
    let scene = Scene::start("on_policy_failure = \"last_good\"");
    assert_eq!(scene.policy()["last_good"], Value::Null, "what was never in use is not good yet");
    scene.follow_with("one", &guests::sleeper("hostile-trap"));
    scene.router.set_flags(&["flag.misbehave=on"]);
    scene.beta_goes_to("green", "the rules decide");
    eventually("struck", SOON, || (scene.policy()["in_force"]["strikes"].as_u64()? > 0).then_some(()));
    scene.router.set_flags(&["--unset", "flag.misbehave"]);
    scene.follow_with("two", &guests::sleeper("hostile-nonsense"));
    assert_eq!(scene.policy()["last_good"]["name"], "split-rules", "one had strikes: it is not good");
    scene.follow_with("three", &guests::sleeper("hostile-spin"));
    assert_eq!(scene.policy()["last_good"]["name"], "two", "two had none");
    scene.router.set_flags(&["flag.misbehave=on"]);
    eventually("both are struck out", SOON, || {
        scene.beta_goes_to("blue", "neither policy sends them elsewhere");
        (scene.policy()["answered_by"] == "native").then_some(())
    });
    scene.beta_goes_to("blue", "natively, to the live pool");
}

#[test]
fn without_it_the_native_decision_follows() {
    let scene = Scene::start("");
    scene.follow_with("sleeper", &guests::sleeper("hostile-trap"));
    scene.router.set_flags(&["flag.misbehave=on"]);
    scene.beta_goes_to("blue", "natively, to the live pool");
    assert_eq!((&scene.policy()["last_good"], &scene.policy()["answered_by"]), (&Value::Null, &json!("native")));
}
