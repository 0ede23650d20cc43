//! The promise: with Sentinel a failover is not noticed by traffic, and flags are obeyed and writable again as soon as there is a primary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use switchback_tests::flags::{self, FLAGS, GREEN, SEARCH, SOON, change, never_back};
use switchback_tests::redis_groups::{Background, Watched, cli, hset};
use switchback_tests::tls::Authority;
use switchback_tests::{Backend, Load, Router, Running, Setup, eventually, http};

/// Far longer than the sentinels need: a second until the primary counts as down, then an election.
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(20);
/// What the issue allows beyond the sentinels' own failover.
const WRITABLE_WITHIN: Duration = Duration::from_secs(1);

/// A router under load, one more at library level that watches epochs, and the store.
struct Scene {
    group: Watched,
    router: Router,
    _backends: [Backend; 3],
}

impl Scene {
    fn start(group: Watched) -> Scene {
        Scene::with(group, "")
    }

    /// The same with these further keys of `[state]`.
    fn with(group: Watched, keys: &str) -> Scene {
        let backends = ["blue", "green", "canary"].map(Backend::start);
        let [blue, green, canary] = &backends;
        let setup = Setup::default().pool("blue", &[blue]).pool("green", &[green]).pool("canary", &[canary]);
        let router = setup.redis(&group.url()).state(&format!("poll_interval = \"60s\"\n{keys}")).start();
        router.set_flags(&["live=green"]);
        router.set_flags(&["canary_percent=10"]);
        Scene { group, router, _backends: backends }
    }

    fn load(&self) -> Running {
        Load::new(self.router.traffic, 300).start()
    }

    fn epoch(&self) -> u64 {
        self.router.route()["applied_epoch"].as_u64().unwrap()
    }

    /// Waits for the new primary, then until a change through the router is made there.
    fn fails_over(&self, from: u16) -> u16 {
        let began = Instant::now();
        let primary = eventually("the sentinels name another primary", FAILS_OVER_WITHIN, || {
            Some(self.group.primary()).filter(|primary| *primary != from)
        });
        let named = Instant::now();
        // A change that the old primary still took is written back at the new one.
        eventually("flags are writable again", FAILS_OVER_WITHIN, || {
            let (code, _, _) = self.router.run(&["flag", "set", "search", "flag.after=failover"]);
            let stored = cli(primary, &["HGET", FLAGS, "flag.after"]).unwrap();
            (code == 0 && stored == "failover").then_some(())
        });
        println!("the sentinels took {:?}; writable {:?} after that", named - began, named.elapsed());
        assert!(named.elapsed() < WRITABLE_WITHIN, "{:?}", named.elapsed());
        primary
    }

    /// A bare HSET at the primary is obeyed because it is announced: the poll is a minute away.
    fn obeys(&self, runtime: &Background, primary: u16) {
        let (epoch, value) = (self.epoch(), format!("at {primary}"));
        let start = runtime.block_on(hset(primary, FLAGS, ("flag.semantic", &value), false)).unwrap();
        eventually("obeyed", SOON, || (self.router.route()["flags"]["semantic"] == *value).then_some(()));
        println!("HSET at the primary obeyed after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
        eventually("adopted", SOON, || (self.epoch() == epoch + 1).then_some(()));
        assert!(!cli(primary, &["HGET", FLAGS, "seal"]).unwrap().is_empty());
    }

    fn holds(&self, before: u64) {
        let route = self.router.route();
        assert_eq!((&route["live"], &route["canary_percent"]), (&"green".into(), &10.0.into()), "{route}");
        assert!(self.epoch() >= before, "{} after {before}", self.epoch());
    }
}

fn no_failures(load: Running) {
    load.wait_for(300);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(!report.by_pool.contains_key("blue"), "nobody went back to the old colour: {report:?}");
    assert!(report.by_pool["green"] > 0 && report.by_pool["canary"] > 0, "{report:?}");
    println!("{} queries, none failed", report.sent);
}

#[test]
fn a_killed_primary_is_replaced_and_traffic_goes_on() {
    let runtime = Background::start();
    let mut scene = Scene::start(runtime.block_on(Watched::start("")).unwrap());
    let watcher = runtime.block_on(flags::Router::at(&scene.group.url(), "watcher", tempfile::tempdir().unwrap()));
    let watch = runtime.within(|| never_back(&watcher));
    let (load, before, old) = (scene.load(), scene.epoch(), scene.group.primary());
    let node = format!("node=\"127.0.0.1:{old}\"");
    assert_eq!(scene.router.metric("switchback_flags_node_info", &["topology=\"sentinel\"", &node]), 1.0);
    // The only sentinel that the config names is gone too: the others were learnt.
    eventually("the other sentinels are learnt", SOON, || (watcher.store.view(SEARCH).node.is_some()).then_some(()));
    scene.group.end_first_sentinel();
    scene.group.servers[0].kill().unwrap();
    eventually("status says that it is away", SOON, || {
        let (_, flags, _) = scene.router.run(&["flag", "get", "search"]);
        flags.contains(" is away ").then_some(())
    });
    scene.holds(before);
    let primary = scene.fails_over(old);
    scene.obeys(&runtime, primary);
    scene.holds(before);
    let (_, status, _) = scene.router.run(&["status"]);
    assert!(status.contains(&format!("redis sentinel 127.0.0.1:{primary}")), "{status}");
    let (code, ready) = http::get(scene.router.admin, "/readyz").unwrap();
    assert!(code == 200 && ready.contains("\"topology\":\"sentinel\""), "{ready}");
    no_failures(load);
    drop(watcher);
    assert!(runtime.block_on(watch).expect("never back") > before);
}

/// Everybody shows a certificate to everybody.
#[test]
fn over_tls_flags_are_obeyed_and_a_killed_primary_is_replaced() {
    let runtime = Background::start();
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (ca, issued) = (authority.write(folder.path()), authority.issue(&["127.0.0.1"]));
    let group = runtime.block_on(Watched::start_tls(folder.path(), &ca, &issued)).unwrap();
    let (cert, key) = authority.issue(&["router"]).write(folder.path(), "router");
    let url = group.url();
    let mut scene = Scene::with(group, &format!("ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}"));
    let (load, before, old) = (scene.load(), scene.epoch(), scene.group.primary());
    scene.obeys(&runtime, old);
    scene.group.servers[0].kill().unwrap();
    let primary = scene.fails_over(old);
    scene.obeys(&runtime, primary);
    scene.holds(before);
    no_failures(load);

    let keys = format!("url = {url:?}\nca = {ca:?}\n");
    let nobody = runtime.block_on(flags::Router::with(&keys, "nobody", tempfile::tempdir().unwrap()));
    eventually("one without a certificate is told so", SOON, || {
        nobody.store.view(SEARCH).warnings.iter().any(|warning| warning.to_lowercase().contains("certificate")).then_some(())
    });
}

#[test]
fn a_planned_failover_is_followed() {
    let runtime = Background::start();
    let scene = Scene::start(runtime.block_on(Watched::start("")).unwrap());
    let (load, before, old) = (scene.load(), scene.epoch(), scene.group.primary());
    scene.group.failover();
    let primary = scene.fails_over(old);
    scene.obeys(&runtime, primary);
    scene.holds(before);
    no_failures(load);
}

/// The sentinels cannot demote the old primary, and the router's connection to it is as good as ever: a partition. Each has a user of its
/// own for the servers, and another for the sentinels.
#[test]
fn a_primary_that_was_replaced_and_stays_reachable_is_left() {
    let runtime = Background::start();
    let group = runtime.block_on(Watched::start("")).unwrap();
    for server in &group.servers {
        let acl = flags::ACL.split_whitespace();
        let user: Vec<&str> = ["ACL", "SETUSER", "switchback", "on", ">s3cret"].into_iter().chain(acl).collect();
        server.cli(&user).unwrap();
    }
    let acl = flags::SENTINEL_ACL.split_whitespace();
    let user: Vec<&str> = ["ACL", "SETUSER", "asker", "on", ">0ther"].into_iter().chain(acl).collect();
    group.tell_sentinels(&user);
    let folder = tempfile::tempdir().unwrap();
    let (password, other) = (folder.path().join("password"), folder.path().join("other"));
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::write(&other, "0ther\n").unwrap();
    let keys = format!(
        "url = {:?}\nusername = \"switchback\"\npassword_file = {password:?}\nsentinel_username = \"asker\"\n\
         sentinel_password_file = {other:?}\npoll_interval = \"60s\"\n",
        group.url()
    );
    let router = runtime.block_on(flags::Router::with(&keys, "a", tempfile::tempdir().unwrap()));
    let set = change(&[("live", Some("green"))], None);
    runtime.block_on(router.store.change(SEARCH, set)).unwrap();
    assert_eq!(router.store.view(SEARCH).warnings, [""; 0]);

    let old = group.primary();
    cli(old, &["ACL", "SETUSER", "default", "-replicaof", "-slaveof", "-config", "-client|kill", "-multi"]).unwrap();
    group.failover();
    let primary = eventually("another primary", FAILS_OVER_WITHIN, || Some(group.primary()).filter(|primary| *primary != old));
    let named = Instant::now();
    assert!(cli(old, &["INFO", "replication"]).unwrap().contains("role:master"), "the old one does not know");
    let address = format!("127.0.0.1:{primary}");
    eventually("the old one is left", SOON, || (router.store.view(SEARCH).node.as_ref() == Some(&address)).then_some(()));
    println!("left the old primary {:?} after the sentinels named another", named.elapsed());
    assert!(named.elapsed() < WRITABLE_WITHIN, "{:?}", named.elapsed());
    assert!(router.flags().live == GREEN);
    cli(primary, &["HSET", FLAGS, "freeze", "true"]).unwrap();
    eventually("obeyed at the new one", SOON, || router.flags().is_frozen.then_some(()));
}

#[test]
fn what_is_wrong_with_the_sentinels_is_said() {
    let runtime = Background::start();
    let group = runtime.block_on(Watched::start("")).unwrap();
    let at = |url: String| runtime.block_on(flags::Router::at(&url, "a", tempfile::tempdir().unwrap()));
    let warned = |router: &flags::Router, word: &str| router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains(word));
    let unknown = at(group.url().replace("mymaster", "nobody"));
    eventually("the name is unknown", SOON, || warned(&unknown, "watch no primary of this name").then_some(()));
    let single = at(group.url().replace("redis+sentinel", "redis").replace("/mymaster", ""));
    eventually("a sentinel is no server", SOON, || warned(&single, "a sentinel: write redis+sentinel://").then_some(()));
    let replica = at(format!("redis://127.0.0.1:{}", group.servers[1].port()));
    eventually("a replica is no primary", SOON, || warned(&replica, "write redis+sentinel://").then_some(()));
}
