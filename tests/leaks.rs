//! The promise: a router that is changed all day holds no more at night: memory, descriptors and threads stay where they were.
//!
//! In a run of all tests there are 200 plugin swaps and 200 reloads; with `SWITCHBACK_FULL=1` it is 400 each, the bound is the one that is promised, and the figures
//! are kept in `tests/leaks/report.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::{Backend, Load, Router, Setup, eventually, guests};

/// Enough that an allocator's next piece of the system's memory, some megabytes, is no growth.
const QUICK: u64 = 200;
const FULL: u64 = 400;
const SOON: Duration = Duration::from_secs(20);
const INITIAL: &str = "initial = { live = \"blue\", canary_percent = \"20\" }";
/// Ordinary traffic meanwhile, so that workers make and drop instances.
const RATE: u32 = 100;

fn is_full() -> bool {
    std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1")
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    resident: u64,
    descriptors: usize,
    threads: usize,
}

fn sample(router: &Router) -> Sample {
    Sample { resident: router.resident_bytes(), descriptors: router.descriptors(), threads: router.threads() }
}

/// The middle one: a query in flight or a page more says nothing.
fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// What became of the second half of `changes`, as the medians of a tenth of the samples at its start and at its end.
struct Growth {
    changes: u64,
    middle: Sample,
    end: Sample,
}

impl Growth {
    fn of(samples: &[Sample], changes: u64) -> Growth {
        let window = samples.len() / 10;
        let around = |at: usize| {
            let part = &samples[at - window..at];
            Sample {
                resident: median(part.iter().map(|sample| sample.resident)),
                descriptors: median(part.iter().map(|sample| sample.descriptors)),
                threads: median(part.iter().map(|sample| sample.threads)),
            }
        };
        Growth { changes, middle: around(samples.len() / 2), end: around(samples.len()) }
    }

    /// Per hundred changes, in percent.
    fn memory_percent(&self) -> f64 {
        let grown = self.end.resident as f64 - self.middle.resident as f64;
        grown / self.middle.resident as f64 * 100.0 / (self.changes as f64 / 2.0 / 100.0)
    }

    fn check(&self, router: &Router, most_percent: f64) {
        let percent = self.memory_percent();
        let (middle, end) = (self.middle, self.end);
        assert!(percent < most_percent, "memory grows by {percent:.2} % per 100 changes: {middle:?}, then {end:?}");
        // What a change replaces ends a moment after it. A connection more or less is traffic, not a leak: one a change would be dozens here.
        eventually(&format!("no more threads and descriptors than in the middle, {middle:?}"), SOON, || {
            let now = sample(router);
            (now.descriptors <= middle.descriptors + 4 && now.threads <= middle.threads + 1).then_some(())
        });
    }

    fn row(&self, what: &str, queries: u64) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "| {what} | {} | {:.1} MiB | {:.1} MiB | {:+.2} % | {} to {} | {} to {} | {queries}, 0 failed |\n",
            self.changes,
            mebibytes(self.middle.resident),
            mebibytes(self.end.resident),
            self.memory_percent(),
            self.middle.descriptors,
            self.end.descriptors,
            self.middle.threads,
            self.end.threads,
        )
    }
}

/// Makes `changes` changes under load and looks at what they left behind.
fn growth(router: &Router, changes: u64, change: impl Fn(&Router, u64)) -> (Growth, u64) {
    let load = Load::new(router.traffic, RATE).start();
    let mut samples = Vec::new();
    for number in 0..changes {
        change(router, number);
        samples.push(sample(router));
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    (Growth::of(&samples, changes), report.sent)
}

fn setup() -> (Router, [Backend; 2]) {
    let backends = [Backend::start("blue"), Backend::start("canary")];

    let router = Setup::default().pool("blue", &[&backends[0]]).pool("canary", &[&backends[1]]).workers(2).route(INITIAL).start();
    (router, backends)
}

fn keep(what: &str, row: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("leaks/report.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = format!("| {what} |");
    let kept = text.lines().filter(|line| !line.starts_with(&start)).map(|line| format!("{line}\n"));
    std::fs::write(&path, kept.collect::<String>() + row).unwrap();
}

#[test]
fn swapped_plugins_leave_nothing_behind() {
    let (router, _backends) = setup();
    let changes = if is_full() { FULL } else { QUICK };
    let (growth, queries) = growth(&router, changes, |router, number| {
        let bytes = guests::variant_of_split_weighted(number);
        guests::install(&router.policies_dir(), "split-weighted", &bytes);
        let digest = guests::digest(&bytes);
        eventually("the plugin took over", SOON, || {
            let policy = router.route()["policies"][0].clone();
            (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
        });
    });
    let row = growth.row("plugin swaps", queries);
    println!("{row}");
    // In a short run the allocators are still filling up.
    growth.check(&router, if is_full() { 1.0 } else { 40.0 });
    if is_full() {
        keep("plugin swaps", &row);
    }
}

#[test]
fn reloaded_configs_leave_nothing_behind() {
    let backends = [Backend::start("blue"), Backend::start("canary")];
    // The endpoints of a pool and the name of another route change each time.
    let setup = |number: u64| {
        let blue = if number.is_multiple_of(2) { vec![&backends[0]] } else { vec![&backends[0], &backends[1]] };
        let other = format!(
            "[[route]]\nname = \"r{}\"\nmatch = {{ path_prefix = \"/r\" }}\n[route.pools.blue]\nendpoints = [\"{}\"]\n",
            number % 3,
            backends[1].url()
        );
        Setup::default().pool("blue", &blue).pool("canary", &[&backends[1]]).workers(2).route(INITIAL).top(&other)
    };
    let router = setup(0).start();
    let changes = if is_full() { FULL } else { QUICK };
    let (growth, queries) = growth(&router, changes, |router, number| {
        router.write_config(&setup(number + 1));
        router.signal("HUP");
        // The first generation is 1.
        eventually("the config is reloaded", SOON, || (router.generation() == number + 2).then_some(()));
    });
    let row = growth.row("config reloads", queries);
    println!("{row}");
    growth.check(&router, if is_full() { 1.0 } else { 40.0 });
    if is_full() {
        keep("config reloads", &row);
    }
}
