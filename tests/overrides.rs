//! Signed overrides: whoever has the key sends queries of their own to a pool, and nobody else does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::PathBuf;
use std::process::Command;

use switchback_tests::{Backend, Behaviour, Router, Setup, binary, http};

const OLD_KEY: &str = "an-old-key-of-thirty-two-letters";
const NEW_KEY: &str = "the-new-key-of-thirty-two-letters";

struct World {
    router: Router,
    blue: Backend,
    canary: Backend,
    folder: tempfile::TempDir,
}

impl World {
    fn new(route: &str) -> World {
        let (folder, blue, canary) = (tempfile::tempdir().unwrap(), Backend::start("blue"), Backend::start("canary"));
        let file = |name: &str, key: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{key}\n")).unwrap();
            path
        };
        let (new, old) = (file("new.key", NEW_KEY), file("old.key", OLD_KEY));
        let top = format!("[override]\nkey_files = [{new:?}, {old:?}]\nmax_lifetime = \"2h\"");
        let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).top(&top).route(route).start();
        World { router, blue, canary, folder }
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The header that the command line prints.
    fn signed(&self, key: &str, route: &str, pool: &str, lifetime: &str) -> String {
        let key = self.key(key);
        let arguments = ["override", "--key-file", key.to_str().unwrap(), "--route", route, "--pool", pool, "--for", lifetime];
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn ask(&self, header: &str) -> String {
        let request = format!("GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n{header}\r\n\r\n");
        http::raw(self.router.traffic, &request).unwrap()
    }

    fn faults(&self, reason: &str) -> f64 {
        self.router.metric("switchback_override_faults_total", &[&format!("reason=\"{reason}\"")])
    }
}

#[test]
fn a_good_one_is_obeyed_counts_for_no_pool_and_does_not_reach_the_backend() {
    let world = World::new("expose = []");
    for key in ["new.key", "old.key"] {
        let header = world.signed(key, "search", "canary", "1h");
        let response = world.ask(&header);
        assert!(response.ends_with("canary") && response.contains("x-switchback-pool: canary\r\n"), "{response}");
    }
    assert_eq!(world.router.metric("switchback_decisions_total", &["reason=\"override\""]), 2.0);
    assert_eq!(world.router.metric("switchback_requests_total", &[]), 0.0, "it counts for neither role");
    let plain = world.ask("accept: */*");
    assert!(plain.ends_with("blue") && plain.matches("x-switchback-").count() == 1, "nothing but the token: {plain}");
    world.canary.behave(Behaviour::ShowHead);
    let seen = world.ask(&world.signed("new.key", "search", "canary", "1h"));
    assert!(seen.contains("via: 1.1 switchback") && !seen.contains("override"), "{seen}");
}

#[test]
fn no_other_pool_answers_for_it() {
    let world = World::new("");
    world.canary.behave(Behaviour::Status(503));
    let response = world.ask(&world.signed("new.key", "search", "canary", "1h"));
    assert!(response.starts_with("HTTP/1.1 503") && response.ends_with("canary"), "{response}");
    assert_eq!(world.router.metric("switchback_fallbacks_total", &[]), 0.0);
    assert_eq!(world.blue.arrivals(), 0);
}

#[test]
fn a_pin_comes_first() {
    let world = World::new("initial = { live = \"blue\", pin = \"blue\" }");
    assert!(world.ask(&world.signed("new.key", "search", "canary", "1h")).ends_with("blue"));
    assert_eq!(world.router.metric("switchback_decisions_total", &["reason=\"pin\""]), 1.0);
}

#[test]
fn what_is_not_good_is_ignored_and_counted() {
    let world = World::new("");
    std::fs::write(world.key("strange.key"), "a-key-that-the-router-does-not-know").unwrap();
    let good = world.signed("new.key", "search", "canary", "1h");
    let cases = [
        (world.signed("strange.key", "search", "canary", "1h"), "signature"),
        (world.signed("new.key", "other", "canary", "1h"), "signature"),
        (good.replace("canary", "blue"), "signature"),
        (world.signed("new.key", "search", "canary", "3h"), "too_long"),
        (world.signed("new.key", "search", "green", "1h"), "pool"),
        (format!("{good}\r\n{good}"), "malformed"),
        ("x-switchback-override: canary".to_owned(), "malformed"),
    ];
    for (header, reason) in cases {
        let before = world.faults(reason);
        let response = world.ask(&header);
        assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("blue"), "{header}: {response}");
        assert_eq!(world.faults(reason), before + 1.0, "{reason}: {header}");
    }
    let expired = world.signed("new.key", "search", "canary", "1s");
    switchback_tests::eventually("it has ended", std::time::Duration::from_secs(5), || world.ask(&expired).ends_with("blue").then_some(()));
    assert!(world.faults("expired") >= 1.0);
    assert!(world.ask(&good).ends_with("canary"));
}

#[test]
fn a_response_says_what_it_is_asked_to() {
    let world =
        World::new("expose = [\"pool\", \"version\", \"epoch\", \"reason\"]\ninitial = { live = \"blue\", canary_percent = \"100\" }");
    let response = world.ask("accept: */*");
    for there in
        ["x-switchback-pool: canary\r\n", "x-switchback-version: unknown\r\n", "x-switchback-epoch: ", "x-switchback-reason: candidate\r\n"]
    {
        assert!(response.contains(there), "{there} is missing in {response}");
    }
    world.canary.behave(Behaviour::Status(500));
    let response = world.ask("accept: */*");
    assert!(response.contains("x-switchback-pool: blue\r\n") && response.contains("x-switchback-reason: fallback\r\n"), "{response}");
}

#[test]
fn the_command_checks_what_it_is_told() {
    let world = World::new("");
    let config = world.router.config();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(["override", "--config"]).arg(&config).args(arguments).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, header, _) = run(&["--route", "search", "--pool", "canary", "--for", "30m"]);
    assert!(code == 0 && world.ask(header.trim_end()).ends_with("canary"), "{header}");
    for (arguments, says) in [
        (["--route", "nosuch", "--pool", "canary", "--for", "1h"], "no route \"nosuch\""),
        (["--route", "search", "--pool", "nosuch", "--for", "1h"], "no pool \"nosuch\""),
        (["--route", "search", "--pool", "canary", "--for", "3h"], "override.max_lifetime"),
        (["--route", "search", "--pool", "canary", "--for", "soon"], "must be a duration"),
        (["--route", "se arch", "--pool", "canary", "--for", "1h"], "must be 1 to 64 of a-z"),
        (["--route", "search", "--pool", "Canary", "--for", "1h"], "must be 1 to 64 of a-z"),
    ] {
        let (code, _, said) = run(&arguments);
        assert!(code == 64 && said.contains(says), "{arguments:?}: {code} {said}");
    }
    let key = world.key("new.key");
    let by_key = |lifetime: &str| {
        let arguments = ["--route", "search", "--pool", "canary", "--for", lifetime];
        Command::new(binary()).args(["override", "--key-file"]).arg(&key).args(arguments).output().unwrap()
    };
    assert_eq!(by_key("720h").status.code(), Some(0));
    let refused = by_key("721h");
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("longer than 720h"), "{refused:?}");
}
