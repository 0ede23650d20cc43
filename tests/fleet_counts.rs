//! The promise: what all routers counted is the truth, to the query, whatever becomes of Redis and of routers meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Report, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const CANARY: &str = "initial = { live = \"blue\", canary_percent = \"30\" }\nexpose = [\"pool\"]";

/// Stands before Redis and loses replies: a request that tells what was counted arrives, and then both ends are closed.
struct Lossy {
    port: u16,
    lost: Arc<AtomicU64>,
    /// One in so many is lost; 0 for none.
    odds: Arc<AtomicU64>,
}

impl Lossy {
    fn start(redis: u16) -> Lossy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lossy = Lossy { port: listener.local_addr().unwrap().port(), lost: Arc::default(), odds: Arc::default() };
        let (lost, odds) = (lossy.lost.clone(), lossy.odds.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While Redis is away, so is this.
                let Ok(server) = TcpStream::connect(("127.0.0.1", redis)) else { continue };
                let is_cut = Arc::new(AtomicBool::new(false));
                let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
                let ((from, to), (back_to, back_from)) = (ends(), ends());
                let (cut, lost, odds) = (is_cut.clone(), lost.clone(), odds.clone());
                std::thread::spawn(move || {
                    let mut told = 0_u64;
                    pass(&from, &to, |bytes| {
                        let odds = odds.load(Ordering::Relaxed);
                        if odds > 0 && bytes.windows(9).any(|window| window == b":quality:") {
                            told += 1;
                            cut.fetch_or(told.is_multiple_of(odds), Ordering::Relaxed);
                        }
                        true
                    });
                });
                std::thread::spawn(move || {
                    pass(&back_from, &back_to, |_| {
                        let is_lost = is_cut.load(Ordering::Relaxed);
                        lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
                        !is_lost
                    });
                });
            }
        });
        lossy
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Passes bytes on until one end closes or `may` says no; then both are closed.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut may: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !may(&bytes[..read]) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

struct Scene {
    runtime: tokio::runtime::Runtime,
    redis: RedisServer,
    backends: [Backend; 2],
}

impl Scene {
    fn start() -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        Scene { runtime, redis, backends: ["blue", "canary"].map(Backend::start) }
    }

    fn router(&self) -> Router {
        self.router_at(&self.redis.url())
    }

    fn router_at(&self, url: &str) -> Router {
        Scene::begun(self.setup().redis(url))
    }

    fn setup(&self) -> Setup {
        let [blue, canary] = &self.backends;
        Setup::default().pool("blue", &[blue]).pool("canary", &[canary]).workers(2).route(CANARY)
    }

    fn begun(setup: Setup) -> Router {
        let router = setup.start();
        // What is split before the flags were heard is not what this is about, but `x-switchback-pool` is the truth all the same.
        eventually("the flags are heard", SOON, || (router.route()["canary_percent"] == 30.0).then_some(()));
        router
    }

    /// Redis dies, and comes back with nothing in it.
    fn redis_dies(&mut self) {
        self.runtime.block_on(self.redis.restart_empty()).unwrap();
    }

    /// Commands that Redis has processed, those within scripts too.
    fn commands(&self) -> f64 {
        let stats = self.redis.cli(&["INFO", "stats"]).unwrap();
        stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().trim().parse().unwrap()
    }
}

/// Of the windows of the last ten minutes.
fn fleet(router: &Router) -> Option<Value> {
    let (status, body) = http::get(router.admin, "/api/v1/routes/search/quality/fleet?seconds=600").unwrap();
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

fn requests(fleet: &Value) -> BTreeMap<String, u64> {
    let versions = fleet["versions"].as_array().unwrap();
    versions.iter().map(|counts| (counts["pool"].as_str().unwrap().to_owned(), counts["requests"].as_u64().unwrap())).collect()
}

fn books(reports: &[Report]) -> BTreeMap<String, u64> {
    let mut books = BTreeMap::new();
    for report in reports {
        assert_eq!(report.failures(), 0, "{report:?}");
        for (pool, count) in &report.by_pool {
            *books.entry(pool.clone()).or_default() += count;
        }
    }
    books
}

#[test]
fn the_fleets_sum_is_the_load_generators_own_books() {
    let mut scene = Scene::start();
    let routers = [scene.router(), scene.router()];
    let [one, mut other] = routers;
    let loads: Vec<_> = [&one, &other].map(|router| Load::new(router.traffic, 400).start()).into();
    for round in 1..=5 {
        loads.iter().for_each(|load| load.wait_for(round * 300));
        scene.redis_dies();
    }
    loads.iter().for_each(|load| load.wait_for(2_000));
    let mut reports: Vec<Report> = loads.into_iter().map(switchback_tests::Running::stop).collect();
    // One leaves in order, with its last word; another joins.
    other.terminate();
    let third = scene.router();
    let load = Load::new(third.traffic, 400).start();
    load.wait_for(400);
    reports.push(load.stop());
    let truth = books(&reports);
    let heard = eventually("everything is heard", SOON, || {
        fleet(&one).filter(|fleet| requests(fleet).values().sum::<u64>() >= truth.values().sum())
    });
    assert_eq!(requests(&heard), truth);
    assert_eq!((&heard["senders"], &heard["faults"]), (&3.into(), &serde_json::json!([])));
    assert_eq!(fleet(&third).map(|fleet| requests(&fleet)), Some(truth), "whoever is asked");
}

/// In full (SWITCHBACK_FULL=1) 20 deaths of Redis and 1,000 lost replies, else 2 and 20.
#[test]
fn nothing_is_lost_or_counted_twice_when_redis_dies_and_replies_are_lost() {
    // In full every reply is lost, so that it takes no longer than windows are kept.
    let (deaths, replies, odds) = if std::env::var_os("SWITCHBACK_FULL").is_some() { (20, 1_000, 1) } else { (2, 20, 2) };
    let mut scene = Scene::start();
    let proxies = [0; 2].map(|_| Lossy::start(scene.redis.port()));
    let routers = proxies.each_ref().map(|proxy| scene.router_at(&format!("redis://127.0.0.1:{}", proxy.port)));
    let loads: Vec<_> = routers.iter().map(|router| Load::new(router.traffic, 200).start()).collect();
    proxies.iter().for_each(|proxy| proxy.odds.store(odds, Ordering::Relaxed));
    let lost = || proxies.iter().map(Lossy::lost).sum::<u64>();
    for death in 1..=deaths {
        eventually("replies are lost", Duration::from_secs(600), || (lost() >= replies * death / deaths).then_some(()));
        scene.redis_dies();
    }
    let reports: Vec<Report> = loads.into_iter().map(switchback_tests::Running::stop).collect();
    let total = lost();
    proxies.iter().for_each(|proxy| proxy.odds.store(0, Ordering::Relaxed));
    // Over the whole time: windows are told for ten minutes, and in full this takes about as long.
    let dropped: u64 = routers.iter().map(|router| counted(router)["dropped"]["requests"].as_u64().unwrap()).sum();
    let truth = books(&reports);
    let heard = eventually("everything is heard", SOON, || {
        fleet(&routers[0]).filter(|fleet| requests(fleet).values().sum::<u64>() >= truth.values().sum())
    });
    assert_eq!((requests(&heard), dropped), (truth.clone(), 0));
    println!("{deaths} deaths of Redis, {total} lost replies, {} queries: counted to the unit, none dropped", truth.values().sum::<u64>());
}

/// What one router counted, and dropped.
fn counted(router: &Router) -> Value {
    let (_, body) = http::get(router.admin, "/api/v1/routes/search/quality").unwrap();
    serde_json::from_str(&body).unwrap()
}

/// A query, and a click on its answer.
fn click(router: &Router) {
    let answer = http::raw(router.traffic, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let token = answer.lines().find_map(|line| line.strip_prefix("x-switchback-token: ")).unwrap();
    let event = serde_json::json!({ "action_name": "click", "query_id": token }).to_string();
    let post =
        format!("POST /_switchback/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{event}", event.len());
    assert!(http::raw(router.traffic, &post).unwrap().contains("\"counted\":1"));
}

#[test]
fn what_a_killed_router_had_not_told_is_counted_by_the_next_one() {
    let scene = Scene::start();
    let folder = tempfile::tempdir().unwrap();
    let start = || Scene::begun(scene.setup().redis(&scene.redis.url()).data_dir(folder.path()));
    let (watching, mut killed) = (scene.router(), start());
    let load = Load::new(killed.traffic, 300).start();
    load.wait_for(900);
    let answered = books(&[load.stop()]).into_values().sum::<u64>();
    (0..20).for_each(|_| click(&killed));
    killed.kill();
    let next = start();
    let numbers = ["requests", "impressions", "clicks"];
    let dropped = eventually("the next one looks", SOON, || {
        let dropped = counted(&next)["dropped"].clone();
        (dropped["requests"] != 0).then(|| numbers.map(|number| dropped[number].as_u64().unwrap()))
    });
    let told = fleet(&watching).unwrap();
    let versions = told["versions"].as_array().unwrap();
    let told = numbers.map(|number| versions.iter().map(|counts| counts[number].as_u64().unwrap()).sum::<u64>());
    let by_version: u64 =
        counted(&next)["dropped"]["versions"].as_array().unwrap().iter().map(|counts| counts["requests"].as_u64().unwrap()).sum();
    assert_eq!(by_version, dropped[0]);
    let sums = [0, 1, 2].map(|place| told[place] + dropped[place]);
    assert_eq!(sums, [answered + 20, answered + 20, 20], "told {told:?}, dropped {dropped:?}");
    let (_, metrics) = http::get(next.admin, "/metrics").unwrap();
    let metric = format!("switchback_quality_dropped_total{{route=\"search\",number=\"requests\"}} {}", dropped[0]);
    assert!(metrics.contains(&metric), "{metric}");
    // Once: what it counted itself, and told, is not dropped, and neither is anything at the start after an orderly end.
    let mut next = next;
    (0..5).for_each(|_| click(&next));
    next.terminate();
    let last = start();
    let left = || std::fs::read_dir(folder.path().join("untold")).unwrap().count();
    eventually("tallies that nobody holds are gone", SOON, || (left() == 1).then_some(()));
    assert_eq!(counted(&last)["dropped"]["requests"], 0);
}

/// Commands a second while `meanwhile` goes on, those within scripts too.
fn commands_while(scene: &Scene, meanwhile: impl FnOnce()) -> f64 {
    let (began, before) = (Instant::now(), scene.commands());
    meanwhile();
    (scene.commands() - before) / began.elapsed().as_secs_f64()
}

#[test]
fn redis_is_asked_little_however_much_there_is_to_count() {
    let scene = Scene::start();
    let router = scene.router();
    let seconds_pass = |seconds: u64| {
        let began = Instant::now();
        eventually("seconds pass", SOON, || (began.elapsed() >= Duration::from_secs(seconds)).then_some(()));
    };
    // Polls and heartbeats; nothing to count, and nobody to judge.
    let evidence_is = |is_over: bool| {
        eventually("the comparison begins or ends", SOON, || (router.route()["evidence"]["evidence"]["is_over"] == is_over).then_some(()));
    };
    evidence_is(false);
    router.set_flags(&["canary_percent=0"]);
    evidence_is(true);
    let idle = commands_while(&scene, || seconds_pass(5));
    router.set_flags(&["canary_percent=30"]);
    evidence_is(false);
    let mut by_rate = Vec::new();
    for rate in [100, 1_000] {
        let load = Load::new(router.traffic, rate).start();
        load.wait_for(u64::from(rate));
        let busy = commands_while(&scene, || load.wait_for(load.sent() + 5 * u64::from(rate)));
        assert_eq!(load.stop().failures(), 0);
        by_rate.push(busy - idle);
    }
    println!(
        "commands a second, those within scripts too: {idle:.1} for the flags, and for counting and judging {by_rate:.1?} at 100 and 1,000 queries a second"
    );
    assert!(by_rate.iter().all(|commands| *commands <= 20.0), "{by_rate:?}");
    assert!(requests(&fleet(&router).unwrap()).values().sum::<u64>() > 4_000, "and yet it is told");
}

/// The embedded store does the same alone: what an orderly end told is there, and what a kill did not let it tell is counted.
#[test]
fn alone_nothing_is_lost_at_the_end_of_a_process_either() {
    let scene = Scene::start();
    let folder = tempfile::tempdir().unwrap();
    let start = || Scene::begun(scene.setup().data_dir(folder.path()));
    let numbers = ["requests", "impressions", "clicks"];
    let told = |router: &Router| {
        let told = fleet(router).unwrap();
        let versions = told["versions"].as_array().unwrap().clone();
        numbers.map(|number| versions.iter().map(|counts| counts[number].as_u64().unwrap()).sum::<u64>())
    };
    let mut first = start();
    let load = Load::new(first.traffic, 300).start();
    load.wait_for(600);
    let answered = books(&[load.stop()]).into_values().sum::<u64>() + 20;
    (0..20).for_each(|_| click(&first));
    first.terminate();
    let mut second = start();
    assert_eq!(told(&second), [answered, answered, 20], "an orderly end loses nothing");
    (0..30).for_each(|_| click(&second));
    second.kill();
    let third = start();
    let sums = eventually("what was killed is counted", SOON, || {
        let dropped = counted(&third)["dropped"].clone();
        let dropped = numbers.map(|number| dropped[number].as_u64().unwrap());
        (dropped[0] > 0).then(|| [0, 1, 2].map(|place| told(&third)[place] + dropped[place]))
    });
    assert_eq!(sums, [answered + 30, answered + 30, 50]);
}

/// Redis forgets what it was told while every connection stays: whoever told it tells it again.
#[test]
fn what_is_deleted_in_redis_is_told_again() {
    let scene = Scene::start();
    let router = scene.router();
    let load = Load::new(router.traffic, 200).start();
    let all = |router: &Router| fleet(router).map(|fleet| requests(&fleet).values().sum::<u64>()).unwrap();
    load.wait_for(600);
    eventually("it is told", SOON, || (all(&router) > 300).then_some(()));
    scene.redis.cli(&["FLUSHALL"]).unwrap();
    eventually("it is told again after a FLUSHALL", SOON, || (all(&router) > 500).then_some(()));
    load.wait_for(3_000);
    let pages = scene.redis.cli(&["KEYS", "{switchback:search}:quality:*"]).unwrap();
    let mut pages: Vec<&str> = pages.lines().collect();
    pages.sort_unstable();
    // Not the newest, which is told anew at any rate.
    assert!(pages.len() > 1, "{pages:?}");
    scene.redis.cli(&["DEL", pages[0]]).unwrap();
    eventually("a page that is gone is told again", Duration::from_secs(60), || {
        (scene.redis.cli(&["EXISTS", pages[0]]).unwrap().trim() == "1").then_some(())
    });
    // Somebody else's words, greater than any.
    let senders = scene.redis.cli(&["KEYS", "{switchback:search}:sender:*"]).unwrap();
    for junk in ["notanumber", "9223372036854775807"] {
        scene.redis.cli(&["SET", senders.trim(), junk]).unwrap();
        eventually("it is replaced", SOON, || (scene.redis.cli(&["GET", senders.trim()]).unwrap().trim() != junk).then_some(()));
    }
    assert_ne!(scene.redis.cli(&["TTL", senders.trim()]).unwrap().trim(), "-1");
    let truth = books(&[load.stop()]).into_values().sum::<u64>();
    eventually("everything is there", SOON, || (all(&router) == truth).then_some(()));
}
