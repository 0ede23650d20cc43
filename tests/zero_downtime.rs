//! The promise: nothing an operator does costs a query. One router with its flags in Redis under Sentinel serves clients of every kind: HTTP/1.1
//! and HTTP/2, in the clear and over TLS, with kept connections and with new ones. Meanwhile plugins are swapped, colours flipped, configs
//! reloaded, binaries replaced, backends restarted and killed and the Redis primary killed, all of it mixed. Each change is waited for until its
//! effect is seen. Green's backends are spoken to in HTTP/2, the others in HTTP/1.1.
//!
//! Some clients send PATCH, which the router never sends twice. Nobody can promise that such a query outlives the backend that has begun with
//! it; so these clients, and they alone, wait while a backend is *killed*. They go on through everything that is planned: a backend that is
//! restarted fails its health check first and stops when nothing is in flight, as an operator does it.
//!
//! In a run of all tests there are a few changes of each kind; with `SWITCHBACK_FULL=1` it is what is promised, and the figures are kept in
//! `tests/zero_downtime/report.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use switchback_tests::exchange::Speaks;
use switchback_tests::flags::FLAGS;
use switchback_tests::redis_groups::{Background, Watched, cli, hset};
use switchback_tests::tls::Authority;
use switchback_tests::{Backend, Load, Report, Router, Running, Setup, eventually, guests, provenance, time_of_day};

/// Far longer than any change takes.
const SOON: Duration = Duration::from_secs(30);
/// Clients that go on when a kept connection has had so many queries, with a new one.
const SOME: u32 = 30;
/// Not among `replayable_methods`, nor is it idempotent by its name.
const SENT_ONCE: &str = "PATCH";

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The live pool has two endpoints. One says that it is not ready, and stops when it has nothing to do.
    RestartBackend,
    SwapPlugin,
    /// With the CLI, or with a bare HSET.
    Flip,
    /// By SIGHUP, or with the CLI.
    Reload,
    HandOver,
    /// One dies in the middle of its queries.
    KillBackend,
    KillPrimary,
}

/// How many of each, and queries in all.
struct Plan {
    counts: [(Change, u64); 7],
    queries: u64,
}

const QUICK: Plan = Plan {
    counts: [
        (Change::RestartBackend, 3),
        (Change::SwapPlugin, 4),
        (Change::Flip, 4),
        (Change::Reload, 4),
        (Change::HandOver, 2),
        (Change::KillBackend, 2),
        (Change::KillPrimary, 1),
    ],
    queries: 20_000,
};
const FULL: Plan = Plan {
    counts: [
        (Change::RestartBackend, 10),
        (Change::SwapPlugin, 30),
        (Change::Flip, 30),
        (Change::Reload, 20),
        (Change::HandOver, 10),
        (Change::KillBackend, 10),
        (Change::KillPrimary, 1),
    ],
    queries: 200_000,
};

impl Plan {
    /// Every kind spread over the whole run: number `i` of `count` comes after a share of `(i + 1/2) / count`.
    fn in_order(&self) -> Vec<Change> {
        let spread = |(change, count): (Change, u64)| (0..count).map(move |number| ((number as f64 + 0.5) / count as f64, change));
        let mut changes: Vec<(f64, Change)> = self.counts.into_iter().flat_map(spread).collect();
        changes.sort_by(|one, other| one.0.total_cmp(&other.0));
        changes.into_iter().map(|(_, change)| change).collect()
    }
}

/// The clients, all of them at the same time.
fn clients(router: &Router, tls: &Arc<ClientConfig>, h2: &Arc<ClientConfig>) -> Vec<Running> {
    let (plain, encrypted) = (router.traffic, router.traffic_tls.unwrap());
    let over_tls = |rate: u32| Load { tls: Some(tls.clone()), ..Load::new(encrypted, rate) };
    let over_h2 =
        |rate: u32| Load { tls: Some(h2.clone()), speaks: Speaks::Http2, connections: 4, streams: 4, ..Load::new(encrypted, rate) };
    let once = |load: Load| Load { method: SENT_ONCE, ..load };
    let loads = [
        Load::new(plain, 700),
        Load::new(plain, 300).fresh(),
        Load { kind: "HTTP/1.1 over TLS, kept connections", ..over_tls(300) },
        Load { kind: "HTTP/1.1 over TLS, a connection for each query", ..over_tls(100).fresh() },
        Load { kind: "HTTP/2 over TLS, kept connections", ..over_h2(400) },
        Load { kind: "HTTP/2 over TLS, a connection for 30 queries", lasts: SOME, ..over_h2(200) },
        once(Load { kind: "PATCH, HTTP/1.1, kept connections", connections: 8, ..Load::new(plain, 100) }),
        once(Load { kind: "PATCH, HTTP/2 over TLS, kept connections", ..over_h2(100) }),
    ];
    loads.map(Load::start).into()
}

/// The system, and how far the operator has come with it.
struct Scene {
    runtime: Background,
    group: Watched,
    /// The router's certificate as keys of its config, and the files that they name.
    tls: (String, tempfile::TempDir),
    router: Router,
    loads: Vec<Running>,
    blue: [Backend; 2],
    green: [Backend; 2],
    canary: [Backend; 1],
    is_green: bool,
    done: [u64; 7],
    /// An endpoint of the live pool that is down while the next change is made.
    is_one_down: bool,
    /// When what was done.
    diary: Vec<String>,
}

impl Scene {
    fn start() -> Scene {
        let runtime = Background::start();
        let group = runtime.block_on(Watched::start("")).unwrap();
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let (cert, key) = authority.issue(&["search.test"]).write(folder.path(), "search");
        let tls = format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n");
        // An address that no client connects from: its port is not taken while a backend is down.
        let backend = |name: &str| Backend::start_at(name, "127.0.0.2:0");
        let blue = ["blue-1", "blue-2"].map(backend);
        let green = ["green-1", "green-2"].map(backend);
        let canary = [backend("canary")];
        let router = setup(&group, &tls, [&blue, &green, &canary], 0).start();
        router.set_flags(&["live=blue", "canary_percent=10"]);
        let loads = clients(&router, &authority.client(None, &["http/1.1"]), &authority.client(None, &["h2", "http/1.1"]));
        let tls = (tls, folder);
        Scene {
            runtime,
            group,
            tls,
            router,
            loads,
            blue,
            green,
            canary,
            is_green: false,
            done: [0; 7],
            is_one_down: false,
            diary: Vec::new(),
        }
    }

    fn make(&mut self, change: Change) {
        let was_down = self.is_one_down;
        // A flip needs both colours. A new process has to find out by itself who is down.
        if was_down && matches!(change, Change::Flip | Change::RestartBackend | Change::KillBackend) {
            self.start_endpoint();
        }
        let (began, since) = (Instant::now(), time_of_day());
        let number = self.done[change as usize];
        match change {
            Change::SwapPlugin => self.swap_plugin(number),
            Change::Flip => self.flip(number),
            Change::Reload => self.reload(number),
            Change::HandOver => drop(self.router.hand_over()),
            Change::RestartBackend => self.stop_endpoint(),
            Change::KillBackend => self.kill_endpoint(),
            Change::KillPrimary => self.kill_primary(),
        }
        self.done[change as usize] += 1;
        self.diary.push(format!("{since} {change:?} {}, {:?}", number + 1, began.elapsed()));
        if was_down && self.is_one_down && !matches!(change, Change::RestartBackend | Change::KillBackend) {
            self.start_endpoint();
        }
    }

    fn swap_plugin(&self, number: u64) {
        let bytes = guests::variant_of_split_weighted(number);
        guests::install(&self.router.policies_dir(), "split-weighted", &bytes);
        let digest = guests::digest(&bytes);
        eventually("the plugin took over", SOON, || {
            let policy = self.router.route()["policies"][0].clone();
            (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
        });
    }

    fn flip(&mut self, number: u64) {
        self.is_green = !self.is_green;
        let live = if self.is_green { "green" } else { "blue" };
        let before = self.live().iter().map(Backend::arrivals).sum::<u64>();
        if number.is_multiple_of(2) {
            self.router.set_flags(&[&format!("live={live}"), "canary_percent=10"]);
        } else {
            self.runtime.block_on(hset(self.group.primary(), FLAGS, ("live", live), false)).unwrap();
            eventually("the flip is obeyed and adopted", SOON, || {
                let route = self.router.route();
                (route["live"] == live && route["canary_percent"] == 0.0).then_some(())
            });
            // A flip by hand ends the ramp; this starts it again.
            self.router.set_flags(&["canary_percent=10"]);
        }
        eventually("the other colour gets queries", SOON, || {
            (self.live().iter().map(Backend::arrivals).sum::<u64>() > before + 100).then_some(())
        });
    }

    fn reload(&self, number: u64) {
        let before = self.router.generation();
        let next = setup(&self.group, &self.tls.0, [&self.blue, &self.green, &self.canary], number + 1);
        if number.is_multiple_of(2) {
            self.router.write_config(&next);
            self.router.signal("HUP");
            eventually("the config is reloaded", SOON, || (self.router.generation() == before + 1).then_some(()));
        } else {
            let said = self.router.reload(&next);
            assert!(said.starts_with(&format!("generation {}: ", before + 1)), "{said}");
        }
    }

    /// As planned: the router is told by the health check, and nothing is in flight when it stops. It stays down while the next change is made.
    fn stop_endpoint(&mut self) {
        self.live()[1].feel(503);
        self.endpoint_is_found_out();
        eventually("its queries are answered", SOON, || (self.in_live_pool()["endpoints"][1]["in_flight"] == 0).then_some(()));
        self.live_mut()[1].stop();
        self.is_one_down = true;
    }

    /// In the middle of its queries. It stays down while the next change is made.
    fn kill_endpoint(&mut self) {
        self.sent_once().iter().for_each(Running::pause);
        self.live_mut()[1].stop();
        self.endpoint_is_found_out();
        self.sent_once().iter().for_each(Running::go_on);
        self.is_one_down = true;
    }

    /// The last two of [`clients`].
    fn sent_once(&self) -> &[Running] {
        &self.loads[self.loads.len() - 2..]
    }

    fn endpoint_is_found_out(&self) {
        eventually("the endpoint is found out", SOON, || (self.in_live_pool()["healthy"] == 1).then_some(()));
    }

    fn in_live_pool(&self) -> serde_json::Value {
        self.router.route()["pools"][if self.is_green { "green" } else { "blue" }].clone()
    }

    fn start_endpoint(&mut self) {
        let endpoint = &mut self.live_mut()[1];
        let before = endpoint.arrivals();
        endpoint.feel(200);
        endpoint.restart();
        eventually("the restarted backend gets queries", SOON, || (self.live()[1].arrivals() > before).then_some(()));
        eventually("it is trusted again", SOON, || (self.in_live_pool()["healthy"] == 2).then_some(()));
        self.is_one_down = false;
        self.diary.push(format!("{} the endpoint is back", time_of_day()));
    }

    fn kill_primary(&mut self) {
        let old = self.group.primary();
        self.group.servers.iter_mut().find(|server| server.port() == old).unwrap().kill().unwrap();
        let primary =
            eventually("the sentinels name another primary", SOON, || Some(self.group.primary()).filter(|primary| *primary != old));
        eventually("flags are writable again", SOON, || {
            let (code, _, _) = self.router.run(&["flag", "set", "search", "flag.after=failover"]);
            (code == 0 && cli(primary, &["HGET", FLAGS, "flag.after"]).unwrap() == "failover").then_some(())
        });
    }

    fn live(&self) -> &[Backend; 2] {
        if self.is_green { &self.green } else { &self.blue }
    }

    fn live_mut(&mut self) -> &mut [Backend; 2] {
        if self.is_green { &mut self.green } else { &mut self.blue }
    }

    fn check(&self, reports: &[Report]) {
        let failed: Vec<&String> = reports.iter().flat_map(|report| &report.described).collect();
        assert!(failed.is_empty(), "queries failed:\n{failed:#?}\nand this was done:\n{:#?}", self.diary);
        assert_eq!(self.router.metric("switchback_policy_failures_total", &[]), 0.0);
        let sent: u64 = reports.iter().map(|report| report.sent).sum();
        for report in reports {
            assert!(report.sent > sent / 50, "{} of {sent} queries: {}", report.sent, report.kind);
            // A new process gets new connections: whoever keeps them was told to go away and went.
            assert!(report.connections > self.done[Change::HandOver as usize], "{} connections: {}", report.connections, report.kind);
        }
        for pool in ["blue", "green", "canary"] {
            let answered: u64 = reports.iter().filter_map(|report| report.by_pool.get(pool)).sum();
            assert!(answered > sent / 50, "{answered} of {sent} queries by {pool}");
        }
    }
}

/// A config, and others that differ in limits, in what plugins may use, and in the endpoints of the candidate's pool.
fn setup(group: &Watched, tls: &str, [blue, green, canary]: [&[Backend]; 3], number: u64) -> Setup {
    let mut candidates: Vec<&Backend> = canary.iter().collect();
    if number % 4 > 1 {
        candidates.push(&green[0]);
    }
    let memory = if number % 6 < 3 { 16 } else { 24 };
    let limits = format!("[limits]\nheaders = {}\n[policies]\nmemory = \"{memory}MiB\"\n{tls}", 50 + number);
    let pools = Setup::default().pool("blue", &[&blue[0], &blue[1]]).pool("canary", &candidates);
    // What is sent to green comes on few connections: much is lost with one.
    let pools = pools.pool("green", &[&green[0], &green[1]]).pool_keys("protocol = \"h2\"");
    // The default, written out: what PATCH is here for.
    let pools = pools.listen("traffic_tls = \"127.0.0.1:0\"").route("replayable_methods = [\"GET\", \"HEAD\", \"POST\"]");
    pools.redis(&group.url()).state("router_id = \"edge-1\"").workers(2).top(&limits)
}

/// Makes all changes while at least so many queries are sent.
fn run(plan: &Plan) -> (Scene, Vec<Report>) {
    let mut scene = Scene::start();
    let changes = plan.in_order();
    for (number, change) in changes.iter().enumerate() {
        scene.make(*change);
        let due = plan.queries * (number as u64 + 1) / changes.len() as u64;
        let sent = || scene.loads.iter().map(Running::sent).sum::<u64>();
        eventually("the load sends its queries", Duration::from_secs(600), || (sent() >= due).then_some(()));
    }
    if scene.is_one_down {
        scene.start_endpoint();
    }
    let reports = scene.loads.drain(..).map(Running::stop).collect();
    (scene, reports)
}

fn keep(plan: &Plan, reports: &[Report]) {
    let count = |change: Change| plan.counts[change as usize].1;
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let mut text = format!(
        "# Nothing an operator does costs a query: the last run that was kept\n\n\
         {}.\n`SWITCHBACK_FULL=1 cargo nextest run --release --locked --workspace --test zero_downtime`: all of it mixed, under all of the load at the\n\
         same time. Green's backends are spoken to in HTTP/2, the others in HTTP/1.1.\n\n\
         | what | how many |\n|---|---|\n\
         | plugin swaps | {} |\n| flips, half with the CLI and half by a bare `HSET` | {} |\n\
         | config reloads, half by `SIGHUP` and half with `switchback reload` | {} |\n| hand-overs to a new process | {} |\n\
         | planned restarts of one of the live pool's two backends: it fails its health check, and stops when nothing is in flight | {} |\n\
         | kills of one of them in the middle of its queries | {} |\n| kills of the Redis primary, with a failover by Sentinel | {} |\n\
         | queries | {}, {} failed |\n\n",
        provenance(),
        count(Change::SwapPlugin),
        count(Change::Flip),
        count(Change::Reload),
        count(Change::HandOver),
        count(Change::RestartBackend),
        count(Change::KillBackend),
        count(Change::KillPrimary),
        sum(|report| report.sent),
        sum(Report::failures),
    );
    text.push_str(
        "| clients | queries a second | queries | failed | connections | sent again | p99 | slowest |\n|---|---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let Report { kind, rate, sent, connections, sent_again, slowest, .. } = report;
        let (failed, p99) = (report.failures(), report.quantile(0.99));
        writeln!(text, "| {kind} | {rate} | {sent} | {failed} | {connections} | {sent_again} | {p99:.1?} | {slowest:.0?} |").unwrap();
    }
    text.push_str(
        "\n*Sent again* are queries that HTTP/2 says may be: their connection ended before they were sent, or the router said that it had not begun\n\
         with them (GOAWAY, REFUSED_STREAM). All others are POST and are sent once by these clients.\n\n\
         PATCH is not among `replayable_methods`: the router sends it once. These clients wait while a backend is killed, since nobody can send a query\n\
         again that may have been carried out; all other changes are made under them too.\n",
    );
    std::fs::write(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("zero_downtime/report.md"), text).unwrap();
}

#[test]
fn nothing_an_operator_does_costs_a_query() {
    let is_full = std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1");
    let plan = if is_full { FULL } else { QUICK };
    let (scene, reports) = run(&plan);
    println!("{:#?}", scene.diary);
    for report in &reports {
        let Report { kind, sent, connections, sent_again, slowest, .. } = report;
        let (failed, p99) = (report.failures(), report.quantile(0.99));
        println!(
            "{kind}: {sent} queries, {failed} failed, {connections} connections, {sent_again} sent again, p99 {p99:?}, slowest {slowest:?}"
        );
    }
    scene.check(&reports);
    let all: u64 = plan.counts.iter().map(|(_, count)| count).sum();
    assert_eq!(scene.done.iter().sum::<u64>(), all);
    assert!(reports.iter().map(|report| report.sent).sum::<u64>() >= plan.queries);
    if is_full {
        keep(&plan, &reports);
    }
}
