//! The promise: in a cluster flags are obeyed within milliseconds on whichever node they are, also on one that joined later; traffic does
//! not notice a slot that moves or a primary that dies. The poll is a minute away in all of this: what is obeyed was announced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use switchback::flags::{Kind, Page, ShelfWord};
use switchback_tests::flags::{self, ADS, CLUSTER_ACL, FLAGS, GREEN, SEARCH, SOON, change, never_back};
use switchback_tests::redis_groups::{Background, Cluster, hset};
use switchback_tests::tls::Authority;
use switchback_tests::{Backend, Load, Router, Running, Setup, eventually};

const ADS_FLAGS: &str = "{switchback:ads}:flags";
/// An election takes the node timeout (1.5 s) and a little.
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(30);

fn keys(url: &str) -> String {
    format!("url = {url:?}\npoll_interval = \"60s\"\n")
}

/// A router at library level, with the routes `search` and `ads` on two different nodes.
fn store(runtime: &Background, cluster: &Cluster, id: &str) -> flags::Router {
    let router = runtime.block_on(flags::Router::with(&keys(&cluster.url()), id, tempfile::tempdir().unwrap()));
    eventually("both routes are heard", SOON, || [SEARCH, ADS].iter().all(|route| router.store.view(*route).node.is_some()).then_some(()));
    router
}

struct Traffic {
    router: Router,
    load: Running,
    _backends: [Backend; 3],
}

impl Traffic {
    fn start(cluster: &Cluster) -> Traffic {
        let backends = ["blue", "green", "canary"].map(Backend::start);
        let [blue, green, canary] = &backends;
        let setup = Setup::default().pool("blue", &[blue]).pool("green", &[green]).pool("canary", &[canary]);
        let router = setup.redis(&cluster.url()).state("poll_interval = \"60s\"").start();
        router.set_flags(&["live=green"]);
        router.set_flags(&["canary_percent=10"]);
        let load = Load::new(router.traffic, 300).start();
        Traffic { router, load, _backends: backends }
    }

    fn ends_without_failures(self) {
        self.load.wait_for(300);
        let report = self.load.stop();
        assert_eq!(report.failures(), 0, "{report:?}");
        assert!(!report.by_pool.contains_key("blue"), "nobody went back to the old colour: {report:?}");
        assert!(report.by_pool["green"] > 0 && report.by_pool["canary"] > 0, "{report:?}");
        println!("{} queries, none failed", report.sent);
    }
}

/// A store and the cluster that it follows.
struct Following<'a> {
    runtime: &'a Background,
    store: &'a flags::Router,
}

impl Following<'_> {
    /// A bare HSET of `flag.x` on this port is obeyed at once, and adopted.
    fn obeys(&self, port: u16, key: &str, value: &str, is_asking: bool) -> Duration {
        let route = if key == FLAGS { SEARCH } else { ADS };
        let sent = self.runtime.block_on(hset(port, key, ("flag.x", value), is_asking)).unwrap();
        let flags = || self.store.store.view(route).flags;
        eventually("obeyed", SOON, || flags().features.get("x").is_some_and(|now| now == value).then_some(()));
        let took = sent.elapsed();
        assert!(took < Duration::from_millis(250), "{value} at port {port} was obeyed after {took:?}");
        eventually("adopted", SOON, || (!flags().seal.is_empty()).then_some(()));
        took
    }
}

/// What routers tell each other beside the flags is kept where its keys belong, also by a user who may do no more than is documented.
#[test]
fn counts_evidence_and_the_key_of_tokens_are_kept_on_their_nodes() {
    let runtime = Background::start();
    let cluster = runtime.block_on(Cluster::start()).unwrap();
    let router = store(&runtime, &cluster, "a");
    let page = || Page { number: 7, fields: vec![("ab.traffic".to_owned(), vec![1])] };
    let store = &router.store;
    runtime.block_on(async {
        for route in ["search", "ads"] {
            store.shelve(ShelfWord { route, sender: "ab", number: 1, pages: &[page()], look_at: Some((7, "ab.traffic")) }).await.unwrap();
            assert_eq!(store.shelved(route, 7).await.unwrap().unwrap().0.len(), 1);
            assert!(store.replace_evidence(route, 0, 1, route.as_bytes()).await.unwrap());
            assert_eq!(store.evidence(route).await.unwrap(), Some((1, route.as_bytes().to_vec())));
            // One key for all routes.
            assert_eq!(store.token_key(route, route).await.unwrap(), "search");
        }
    });
}

#[test]
fn a_bare_hset_is_obeyed_within_milliseconds_on_every_node() {
    let runtime = Background::start();
    let cluster = runtime.block_on(Cluster::start()).unwrap();
    let (one, other) = (store(&runtime, &cluster, "one"), store(&runtime, &cluster, "other"));
    let following = Following { runtime: &runtime, store: &one };
    for key in [FLAGS, ADS_FLAGS] {
        let node = cluster.owner(key);
        let mut took: Vec<Duration> =
            (0..20).map(|round| following.obeys(cluster.nodes[node].port(), key, &round.to_string(), false)).collect();
        took.sort();
        println!("{key} on node {node}: HSET to obeyed: median {:?}, worst {:?}", took[10], took[19]);
        assert!(took[10] < Duration::from_millis(50), "median {:?}", took[10]);
    }
    assert_ne!(cluster.owner(FLAGS), cluster.owner(ADS_FLAGS), "two nodes are tracked");
    let node = |route| one.store.view(route).node.unwrap();
    assert_eq!(node(SEARCH), format!("127.0.0.1:{}", cluster.nodes[cluster.owner(FLAGS)].port()));
    eventually("routers see each other", SOON, || (other.store.routers(SEARCH).len() == 2).then_some(()));
    assert_eq!(runtime.block_on(one.store.history(ADS, 10)).unwrap().len(), 10);
    // A node that could drop flags is told of, whichever it is.
    let evicting = cluster.owner(ADS_FLAGS);
    cluster.nodes[evicting].cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let late = store(&runtime, &cluster, "late");
    let word = format!("127.0.0.1:{} has maxmemory-policy allkeys-lru", cluster.nodes[evicting].port());
    eventually("warned", SOON, || late.store.view(SEARCH).warnings.iter().any(|warning| warning.contains(&word)).then_some(()));
    let single = cluster.url().replace("redis+cluster", "redis");
    let single = runtime.block_on(flags::Router::at(&single, "single", tempfile::tempdir().unwrap()));
    eventually("a cluster that is taken for one server is said", SOON, || {
        single.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("write redis+cluster://")).then_some(())
    });
}

#[test]
fn a_slot_moves_under_load_to_another_node_and_to_one_that_joined_later() {
    let runtime = Background::start();
    let mut cluster = runtime.block_on(Cluster::start()).unwrap();
    let traffic = Traffic::start(&cluster);
    let router = store(&runtime, &cluster, "watcher");
    let watch = runtime.within(|| never_back(&router));
    let following = Following { runtime: &runtime, store: &router };
    let before = router.flags();

    let from = cluster.owner(FLAGS);
    let to = (0..3).find(|node| *node != from && *node != cluster.owner(ADS_FLAGS)).unwrap();
    println!("at the owner: {:?}", following.obeys(cluster.nodes[from].port(), FLAGS, "before", false));
    cluster.move_slot(FLAGS, from, to);
    println!("at another node, right after the move: {:?}", following.obeys(cluster.nodes[to].port(), FLAGS, "moved", false));

    let joined = runtime.block_on(cluster.join()).unwrap();
    let slot = cluster.begin_move(FLAGS, to, joined);
    println!("on its way, not moved yet: {:?}", following.obeys(cluster.nodes[to].port(), FLAGS, "leaving", false));
    cluster.move_keys(&slot, to, joined);
    // The slot is the old owner's still, and the keys are at the new node already: `redis-cli -c` is sent there with ASK.
    println!("at a node that joined, the slot on its way: {:?}", following.obeys(cluster.nodes[joined].port(), FLAGS, "asked", true));
    let epoch = runtime.block_on(router.store.change(SEARCH, change(&[("flag.y", Some("written"))], None))).unwrap();
    cluster.end_move(&slot, joined);
    for round in 0..10 {
        following.obeys(cluster.nodes[joined].port(), FLAGS, &format!("joined{round}"), false);
    }
    let port = cluster.nodes[joined].port();
    eventually("the node in use is told", SOON, || {
        (traffic.router.metric("switchback_flags_node_info", &[&format!("127.0.0.1:{port}\"")]) == 1.0).then_some(())
    });
    let route = traffic.router.route();
    assert_eq!((&route["live"], &route["canary_percent"]), (&"green".into(), &10.0.into()));
    assert!(router.flags().live == before.live && router.flags().epoch > epoch);
    eventually("nothing is amiss", SOON, || router.store.view(SEARCH).warnings.is_empty().then_some(()));
    traffic.router.set_flags(&["flag.z=on"]);
    assert_eq!(cluster.nodes[joined].cli(&["HGET", FLAGS, "flag.z"]).unwrap(), "on");
    traffic.ends_without_failures();
    drop(router);
    assert!(runtime.block_on(watch).expect("never back") > epoch);
}

/// The keys of a route go to another node one by one, in each order that matters, and stay half-way for as long as it takes to edit them by
/// hand and with the CLI: routers obey both meanwhile, and each edit is adopted once.
#[test]
fn flags_are_obeyed_and_written_while_their_keys_are_on_two_nodes() {
    let runtime = Background::start();
    let cluster = runtime.block_on(Cluster::start()).unwrap();
    let traffic = Traffic::start(&cluster);
    let (one, other) = (store(&runtime, &cluster, "one"), store(&runtime, &cluster, "other"));
    let watch = runtime.within(|| never_back(&one));
    let following = Following { runtime: &runtime, store: &one };
    let key = |name: &str| format!("{{switchback:search}}:{name}");
    let orders = [["flags", "sealed", "good", "ledger"], ["ledger", "good", "sealed", "flags"], ["sealed", "flags", "ledger", "good"]];
    let (mut edits, mut took) = (0, Vec::new());
    for (round, order) in orders.iter().enumerate() {
        let from = cluster.owner(FLAGS);
        let to = (from + 1) % 3;
        let slot = cluster.begin_move(FLAGS, from, to);
        for (step, name) in order.iter().enumerate() {
            cluster.migrate(&[&key(name)], from, to);
            let has_flags_moved = order[..=step].contains(&"flags");
            let (node, value) = (if has_flags_moved { to } else { from }, format!("{round}.{step}"));
            let epoch = one.flags().epoch;
            took.push(following.obeys(cluster.nodes[node].port(), FLAGS, &value, has_flags_moved));
            edits += 1;
            eventually("adopted once, and heard by all", SOON, || {
                let is_so = |router: &flags::Router| router.flags().epoch == epoch + 1 && router.is_sealed();
                (is_so(&one) && is_so(&other) && traffic.router.route()["applied_epoch"] == epoch + 1).then_some(())
            });
            assert_eq!(traffic.router.route()["flags"]["x"], value.as_str());
            traffic.router.set_flags(&[&format!("flag.cli={value}")]);
            eventually("the change is heard by all", SOON, || {
                let is_so = |router: &flags::Router| router.flags().features.get("cli").is_some_and(|now| *now == value);
                (is_so(&one) && is_so(&other)).then_some(())
            });
            assert_eq!(one.flags().epoch, epoch + 2);
        }
        cluster.end_move(&slot, to);
        following.obeys(cluster.nodes[to].port(), FLAGS, &format!("{round}.moved"), false);
        edits += 1;
    }
    took.sort();
    println!("half-way, HSET to obeyed: median {:?}, worst {:?} of {}", took[took.len() / 2], took[took.len() - 1], took.len());
    let history = runtime.block_on(one.store.history(SEARCH, 1_000)).unwrap();
    let count = |kind: Kind| history.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!((count(Kind::ExternalEdit), count(Kind::Reseed)), (edits, 1), "each edit once, and nothing was lost");
    let node = &cluster.nodes[cluster.owner(FLAGS)];
    let seal = |name: &str| node.cli(&["HGET", &key(name), "seal"]).unwrap();
    assert_eq!(seal("flags"), seal("sealed"), "the sealed fields are those of the flags");
    traffic.ends_without_failures();
    drop(one);
    assert!(runtime.block_on(watch).expect("never back") > 0);
}

#[test]
fn a_killed_primary_is_replaced_and_the_other_nodes_are_obeyed_meanwhile() {
    let runtime = Background::start();
    let mut cluster = runtime.block_on(Cluster::start()).unwrap();
    let dying = cluster.owner(FLAGS);
    let replica = runtime.block_on(cluster.join_as_replica(dying)).unwrap();
    let traffic = Traffic::start(&cluster);
    let router = store(&runtime, &cluster, "watcher");
    let watch = runtime.within(|| never_back(&router));
    let following = Following { runtime: &runtime, store: &router };
    let before = router.flags();

    cluster.nodes[dying].kill().unwrap();
    let killed = Instant::now();
    let ads = cluster.owner(ADS_FLAGS);
    let mut rounds = 0;
    eventually("the replica is the primary", FAILS_OVER_WITHIN, || {
        following.obeys(cluster.nodes[ads].port(), ADS_FLAGS, &format!("meanwhile{rounds}"), false);
        rounds += 1;
        let told = cluster.nodes[replica].cli(&["CLUSTER", "INFO"]).ok()?;
        let role = cluster.nodes[replica].cli(&["INFO", "replication"]).ok()?;
        (role.contains("role:master") && told.contains("cluster_state:ok")).then_some(())
    });
    let elected = Instant::now();
    assert_eq!(router.flags(), before, "the last flags hold");
    eventually("flags are writable again", FAILS_OVER_WITHIN, || {
        runtime.block_on(router.store.change(SEARCH, change(&[("flag.after", Some("failover"))], None))).ok()
    });
    println!(
        "elected {:?} after the kill; writable {:?} after that; {rounds} edits on another node meanwhile",
        elected - killed,
        elected.elapsed()
    );
    assert!(elected.elapsed() < Duration::from_secs(1), "{:?}", elected.elapsed());
    assert!(rounds > 3, "{rounds}");
    println!("at the new primary: {:?}", following.obeys(cluster.nodes[replica].port(), FLAGS, "after", false));
    eventually("and by the router under load", SOON, || (traffic.router.route()["flags"]["x"] == "after").then_some(()));
    eventually("nothing is amiss", SOON, || router.store.view(SEARCH).warnings.is_empty().then_some(()));
    traffic.ends_without_failures();
    drop(router);
    assert!(runtime.block_on(watch).expect("never back") > before.epoch);
}

#[test]
fn tls_with_a_client_certificate_an_acl_user_and_a_password_that_changes() {
    let runtime = Background::start();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (ca, issued) = (authority.write(folder.path()), authority.issue(&["127.0.0.1", "localhost"]));
    let cluster = runtime.block_on(Cluster::start_tls(folder.path(), &ca, &issued)).unwrap();
    let acl: Vec<&str> = flags::ACL.split_whitespace().chain(CLUSTER_ACL.split_whitespace()).collect();
    for node in &cluster.nodes {
        node.cli(&[&["ACL", "SETUSER", "switchback", "on", ">s3cret"][..], &acl].concat()).unwrap();
    }
    let (cert, key) = authority.issue(&["router"]).write(folder.path(), "router");
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let keys = |password: &std::path::Path| {
        format!(
            "{}ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\nusername = \"switchback\"\npassword_file = {password:?}\n",
            keys(&cluster.url())
        )
    };
    let router = runtime.block_on(flags::Router::with(&keys(&password), "a", tempfile::tempdir().unwrap()));
    let following = Following { runtime: &runtime, store: &router };
    let node = cluster.owner(FLAGS);
    runtime.block_on(router.store.change(SEARCH, change(&[("live", Some("green"))], None))).unwrap();
    following.obeys(cluster.nodes[node].port(), FLAGS, "tls", false);
    let to = (0..3).find(|other| *other != node).unwrap();
    cluster.move_slot(FLAGS, node, to);
    following.obeys(cluster.nodes[to].port(), FLAGS, "moved", false);
    assert!(router.flags().live == GREEN);
    eventually("the documented user is enough", SOON, || router.store.view(SEARCH).warnings.is_empty().then_some(()));

    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "guess\n").unwrap();
    let late = runtime.block_on(flags::Router::with(&keys(&wrong), "b", tempfile::tempdir().unwrap()));
    let warned = |word: &str| late.store.view(SEARCH).warnings.iter().any(|warning| warning.contains(word) && !warning.contains("guess"));
    eventually("the wrong password is said", SOON, || warned("check the user and password").then_some(()));
    std::fs::write(&wrong, "s3cret\n").unwrap();
    eventually("a mended password file needs no restart", SOON, || (late.flags().live == GREEN).then_some(()));
}
