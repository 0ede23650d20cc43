//! The promise: whatever a plugin does, no query fails, the others wait hardly longer than without it, and what it took is given back.
//!
//! Each hostile guest behaves until `flag.misbehave` is set, and then runs under load: for two seconds, or for a minute each with
//! `SWITCHBACK_FULL=1` (`make test-full`), which also writes the figures to `bench/results/hostile-plugins.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Backend, Load, Report, Router, Setup, eventually, guests};

const RATE: u32 = 500;
const SOON: Duration = Duration::from_secs(30);
/// A p99 of two seconds on a machine that does other things as well says nothing about less than this.
const QUICK_FLOOR: Duration = Duration::from_millis(10);
const FULL_FLOOR: Duration = Duration::from_millis(2);
/// `policies.deadline`, and the two ticks of the policies' clock that a call may take longer.
const DEADLINE: Duration = Duration::from_millis(20 + 10);
/// The same of `policies.configure_deadline`.
const CONFIGURE_DEADLINE: Duration = Duration::from_millis(100 + 10);

/// What becomes of a guest.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It is quarantined.
    StruckOut,
    /// It refuses the flags, in order.
    Unconfigured,
    /// It does no harm that would be a strike.
    Unharmed,
}

struct Case {
    guest: &'static str,
    /// The value of `flag.misbehave`.
    how: &'static str,
    fate: Fate,
    /// For how long one call may hold up a worker.
    hold_up: Duration,
}

const fn case(guest: &'static str, how: &'static str, fate: Fate, hold_up: Duration) -> Case {
    Case { guest, how, fate, hold_up }
}

const CASES: [Case; 14] = [
    case("hostile-trap", "on", Fate::StruckOut, Duration::ZERO),
    case("hostile-deep", "on", Fate::StruckOut, Duration::ZERO),
    case("hostile-memory-bomb", "on", Fate::StruckOut, Duration::ZERO),
    case("hostile-nonsense", "on", Fate::StruckOut, Duration::ZERO),
    case("hostile-spin", "on", Fate::StruckOut, DEADLINE),
    case("hostile-slow", "on", Fate::Unharmed, DEADLINE),
    case("hostile-slow-configure", "on", Fate::StruckOut, CONFIGURE_DEADLINE),
    case("hostile-huge", "names", Fate::StruckOut, DEADLINE),
    case("hostile-huge", "salts", Fate::StruckOut, DEADLINE),
    case("hostile-huge", "name", Fate::StruckOut, DEADLINE),
    case("hostile-huge", "error", Fate::Unconfigured, DEADLINE),
    case("hostile-refuse", "on", Fate::Unconfigured, Duration::ZERO),
    case("hostile-flapping", "on", Fate::StruckOut, Duration::ZERO),
    case("hostile-chatty", "on", Fate::Unharmed, Duration::ZERO),
];

struct Scene {
    router: Router,
    _backends: [Backend; 2],
    seconds: u32,
    floor: Duration,
}

impl Scene {
    fn start() -> Scene {
        let backends = [Backend::start("blue"), Backend::start("canary")];
        let patience = "[policies]\nstrikes = 3\nstrike_window = \"2s\"\nquarantine = \"200ms\"\nquarantine_max = \"5s\"\n";
        let initial = "initial = { live = \"blue\", canary_percent = \"20\" }";
        let setup = Setup::default().pool("blue", &[&backends[0]]).pool("canary", &[&backends[1]]).workers(2);
        let router = setup.top(patience).route(initial).start();
        let is_full = std::env::var("SWITCHBACK_FULL").is_ok_and(|value| value == "1");
        let (seconds, floor) = if is_full { (60, FULL_FLOOR) } else { (2, QUICK_FLOOR) };
        Scene { router, _backends: backends, seconds, floor }
    }

    fn policy(&self) -> Value {
        self.router.route()["policies"][0].clone()
    }

    fn put_in_force(&self, bytes: &[u8]) {
        guests::install(&self.router.policies_dir(), "split-weighted", bytes);
        let digest = guests::digest(bytes);
        eventually("in force", SOON, || {
            let policy = self.policy();
            (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
        });
    }

    /// Queries for as long as a case takes; `meanwhile` is called when they have begun.
    fn load(&self, meanwhile: impl FnOnce()) -> Report {
        let load = Load::new(self.router.traffic, RATE).start();
        load.wait_for(u64::from(RATE / 4));
        meanwhile();
        load.wait_for(u64::from(RATE * self.seconds));
        load.stop()
    }

    /// Waits until the router takes no more than this. Queries go on meanwhile: who allocates also gives back.
    fn memory_within(&self, most: f64, what: &str) -> f64 {
        let load = Load::new(self.router.traffic, RATE / 4).start();
        let after =
            eventually(&format!("{what}: memory is given back; at most {most}"), SOON, || Some(self.memory()).filter(|now| *now <= most));
        assert_eq!(load.stop().failures(), 0);
        after
    }

    fn memory(&self) -> f64 {
        self.router.metric("process_resident_memory_bytes", &[])
    }
}

#[test]
fn no_hostile_plugin_costs_a_query_or_much_time_or_memory() {
    let scene = Scene::start();
    scene.put_in_force(&guests::variant_of_split_weighted(0));
    // The first run warms connections, pages and caches up.
    scene.load(|| ());
    let without = scene.load(|| ());
    assert_eq!(without.failures(), 0, "{:?}", without.failed);
    let base = without.quantile(0.99);
    let mut figures = String::new();
    for (round, case) in CASES.iter().enumerate() {
        let before = scene.memory();
        let sleeper = guests::sleeper(case.guest);
        scene.put_in_force(&sleeper);
        let misbehave = format!("flag.misbehave={}", case.how);
        let mut seen = Value::Null;
        let report = scene.load(|| {
            scene.router.set_flags(&[&misbehave]);
            seen = fate_of(&scene, case);
        });
        let what = format!("{} {}", case.guest, case.how);
        assert_eq!(report.failures(), 0, "{what}: {:?}", report.failed);
        let p99 = report.quantile(0.99);
        // In two seconds there are so few queries that two calls in a row are the p99.
        let hold_ups = if scene.seconds > 2 { 1 } else { 2 };
        let allowed = base.max(scene.floor) * 2 + case.hold_up * hold_ups;
        assert!(p99 <= allowed, "{what}: p99 {p99:?}, without it {base:?}, allowed {allowed:?}");
        scene.router.set_flags(&["--unset", "flag.misbehave"]);
        scene.put_in_force(&guests::variant_of_split_weighted(round as u64 + 1));
        let after = scene.memory_within(before * 1.1, &what);
        let strikes = &seen["in_force"]["strikes"];
        let (p50, slowest, sent) = (report.quantile(0.5), report.slowest, report.sent);
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        writeln!(
            figures,
            "| `{}` | {} | {sent} | 0 | {p50:.1?} | {p99:.1?} | {slowest:.1?} | {strikes} | {:.1} | {:.1} |",
            case.guest,
            case.how,
            mib(before),
            mib(after)
        )
        .unwrap();
    }
    let base_line = format!(
        "| without one | | {} | 0 | {:.1?} | {base:.1?} | {:.1?} | 0 | | |\n",
        without.sent,
        without.quantile(0.5),
        without.slowest
    );
    println!("{base_line}{figures}");
    if scene.seconds > 2 {
        write_report(&format!("{base_line}{figures}"), scene.seconds);
    }
}

/// Waits until the router has dealt with the guest as it should; the policy's status then.
fn fate_of(scene: &Scene, case: &Case) -> Value {
    match case.fate {
        Fate::StruckOut => eventually(&format!("{} {} is struck out", case.guest, case.how), SOON, || {
            Some(scene.policy()).filter(|policy| policy["state"] == "quarantined")
        }),
        Fate::Unconfigured => {
            let policy = eventually("it refuses", SOON, || Some(scene.policy()).filter(|policy| policy["state"] == "unconfigured"));
            assert!(policy["why"].as_str().unwrap().len() < 600, "its words are cut: {policy:#}");
            policy
        }
        Fate::Unharmed => {
            let rule = || scene.router.metric("switchback_decisions_total", &["reason=\"rule\""]);
            let before = rule();
            eventually("it goes on deciding", SOON, || (rule() > before + 100.0).then_some(()));
            scene.policy()
        }
    }
}

/// A guest that is good for a while between its failures would never be out if only the last answers counted.
#[test]
fn a_flapping_plugin_rests_longer_each_time() {
    let scene = Scene::start();
    scene.put_in_force(&guests::sleeper("hostile-flapping"));
    let load = Load::new(scene.router.traffic, RATE).start();
    scene.router.set_flags(&["flag.misbehave=on"]);
    let longest = |limit: u64| {
        eventually(&format!("a rest of more than {limit} ms"), SOON, || {
            scene.policy()["in_force"]["quarantined_for_ms"].as_u64().filter(|left| *left > limit)
        })
    };
    // It begins with 200 ms and doubles.
    for limit in [100, 250, 500, 1_000, 2_000] {
        longest(limit);
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn a_flood_of_log_lines_is_cut_down_to_what_is_allowed() {
    let scene = Scene::start();
    scene.put_in_force(&guests::sleeper("hostile-chatty"));
    let load = Load::new(scene.router.traffic, RATE).start();
    scene.router.set_flags(&["flag.misbehave=on"]);
    let began = std::time::Instant::now();
    load.wait_for(load.sent() + u64::from(3 * RATE));
    assert_eq!(load.stop().failures(), 0);
    let log = scene.router.log();
    let seconds = began.elapsed().as_secs() + 2;
    let lines = log.lines().filter(|line| line.contains("flood flood")).count() as u64;
    assert!(lines > 20 && lines <= 2 * 20 * seconds, "{lines} lines in {seconds} s of two workers");
    assert!(log.lines().all(|line| line.len() < 800), "a line is cut at 512 bytes");
    let dropped = |line: &str| line.rsplit_once("dropped=").and_then(|(_, count)| count.trim().parse::<u64>().ok());
    assert!(log.lines().filter_map(dropped).any(|dropped| dropped > 100), "it is said how many were dropped");
}

fn write_report(rows: &str, seconds: u32) {
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!(
        "# Hostile plugins under load\n\n{seconds} s each at {RATE} queries a second, two workers, on {cores} x {model}.\n\
         Made by `make test-full` (`SWITCHBACK_FULL=1 cargo test --release -p switchback-tests --test hostile_plugins`).\n\
         Memory is the router's, before the guest and after it was replaced, in MiB.\n\n\
         | guest | how | queries | failed | p50 | p99 | slowest | strikes | before | after |\n|---|---|---|---|---|---|---|---|---|---|\n{rows}"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results/hostile-plugins.md");
    std::fs::write(&path, text).unwrap();
    println!("wrote {}", path.display());
}
