//! The promise: a candidate that is slower, or that users like less, is out of traffic as soon as is said. Two routers, one Redis, the shipped policy and
//! a rollout at its first step of 10 %.
//!
//! In a run of all tests one or two rollouts of each kind; with `SWITCHBACK_FULL=1` as many as the figures are of, and these are kept in
//! `tests/rollout_figures/report.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "rollout_figures/simulator.rs"]
mod simulator;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use simulator::{Delays, latencies};
use switchback_tests::fleet::Fleet;
use switchback_tests::shoppers::{Ranking, Shoppers, Shopping};
use switchback_tests::{Behaviour, Load, Router, Running, eventually, provenance};

/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
const MATURITY: Duration = Duration::from_secs(2);
/// The second in which a candidate begins is not judged.
const FIRST_SECOND: Duration = Duration::from_secs(1);
const PLAN: &str = "rollout = { steps = [\"10\", \"50\"] }";
/// Backends that answer at once, on a machine that has other things to do: what a busy processor adds to an answer is nothing that users notice.
const QUIET: &str = "rollback_config = { latency = { ignore_below_ms = 250 } }";
/// Windows of control alone before each rollout, as many as the simulator has.
const WARM_UP_SECONDS: u64 = 20;

fn is_full() -> bool {
    std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1")
}

/// Ten results: 30.0 % of the users click on one of them.
fn good() -> Ranking {
    Ranking(vec![0.145, 0.10, 0.07, 0.05, 0.04, 0.04, 0.03, 0.03, 0.03, 0.03])
}

fn begin(router: &Router) -> Instant {
    let began = Instant::now();
    let (code, said, error) = router.run(&["rollout", "start", "search"]);
    assert_eq!(code, 0, "{said}{error}");
    began
}

/// Whether the flags of both give the candidate nobody, and its rollout is over.
fn is_out(routers: &[Router; 2]) -> bool {
    routers.iter().all(|router| {
        let route = router.route();
        route["canary_percent"] == 0.0 && route["live"] == "blue" && route["rollout"]["phase"] == "rolled_back"
    })
}

/// Why the last rollout was taken back.
fn why(router: &Router) -> String {
    router.route()["rollout"]["why"].as_str().unwrap().to_owned()
}

/// Replaces one part of the report that is kept.
fn keep(part: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout_figures/report.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let parts = old.split("\n## ").skip(1).filter_map(|part| part.split_once('\n'));
    let mut parts: BTreeMap<String, String> = parts.map(|(part, text)| (part.to_owned(), text.trim().to_owned())).collect();
    let command = "SWITCHBACK_FULL=1 cargo test --release --locked --workspace --test rollout_figures -- --test-threads=1 --nocapture";
    parts.insert(part.to_owned(), format!("{}.\n`{command}`\n\n{}", provenance(), text.trim()));
    let mut report = "# How soon harm is found out: the last runs that were kept\n".to_owned();
    parts.iter().for_each(|(part, text)| write!(report, "\n## {part}\n\n{text}\n").unwrap());
    std::fs::write(path, report).unwrap();
}

fn seconds(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect::<Vec<_>>().join(", ")
}

/// Median, p95 and the longest, in seconds.
fn summary(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |part: usize| sorted[(sorted.len() * part).div_ceil(100).max(1) - 1].as_secs_f64();
    format!("{:.1} | {:.1} | {:.1}", at(50), at(95), at(100))
}

/// Queries a second of the candidate on each router, at 10 %.
const CANDIDATE_RATE: u32 = 50;

/// A fleet whose backends take their time: half of the answers 30 ms, one in a hundred 100 ms and more.
struct Slow {
    fleet: Fleet,
    routers: [Router; 2],
    loads: [Running; 2],
}

impl Slow {
    fn start() -> Slow {
        let fleet = Fleet::start();
        fleet.pools.iter().for_each(|pool| pool.behave(Behaviour::Takes(latencies(100.0))));
        let routers = fleet.routers(&fleet.redis.url(), "", PLAN);
        let loads = routers.each_ref().map(|router| Load { connections: 64, ..Load::new(router.traffic, CANDIDATE_RATE * 10) }.start());
        Slow { fleet, routers, loads }
    }

    fn pass(&self, seconds: u64) {
        let until = self.loads[0].sent() + seconds * u64::from(CANDIDATE_RATE) * 10;
        self.loads[0].wait_for(until);
    }

    /// One rollout whose candidate's p99 doubles after so many seconds: how long until both routers have it at 0 %.
    fn run(&self, good_seconds: u64) -> Duration {
        self.fleet.pools[2].behave(Behaviour::Takes(latencies(100.0)));
        self.pass(WARM_UP_SECONDS);
        let slow = Behaviour::Takes(latencies(200.0));
        let began = if good_seconds == 0 {
            self.fleet.pools[2].behave(slow);
            begin(&self.routers[0])
        } else {
            begin(&self.routers[0]);
            self.pass(good_seconds);
            self.fleet.pools[2].behave(slow);
            Instant::now()
        };
        let mut due = 0;
        let took = eventually("it is out of traffic", Duration::from_secs(120), || {
            if self.loads[0].sent() < due {
                return None;
            }
            due = self.loads[0].sent() + 25;
            is_out(&self.routers).then(|| began.elapsed())
        });
        let why = why(&self.routers[1]);
        assert!(why.starts_with("roll back: requests slower"), "{why}");
        println!("p99 doubled after {good_seconds} s: out of traffic {took:.2?} later: {why}");
        took
    }
}

#[test]
fn a_candidate_with_a_doubled_p99_is_out_of_traffic_within_30_seconds() {
    let limit = Duration::from_secs(30);
    let scene = Slow::start();
    // Seconds before its answers become slow, and runs.
    let kinds = if is_full() { [(0, 10), (15, 5)].as_slice() } else { &[(0, 1)] };
    let took: Vec<Vec<Duration>> = kinds.iter().map(|(good, runs)| (0..*runs).map(|_| scene.run(*good)).collect()).collect();
    assert!(took.iter().flatten().all(|took| *took <= limit), "{took:?}");
    assert!(scene.loads.into_iter().all(|load| load.stop().failures() == 0));
    if is_full() {
        keep("A candidate with a doubled p99", &told_of_slow(&took));
    }
}

fn told_of_slow(took: &[Vec<Duration>]) -> String {
    let mut text = "A candidate at 10 %, 50 of its queries a second on each of two routers. Control: a median of 30 ms and a p99 of 100 ms; the\n\
                    candidate: what lies above the p90 is stretched until its p99 is 200 ms. From the first slow answer (the beginning of the\n\
                    rollout, or the moment in which its answers become slow) until the flags of both routers send it nobody. Seconds; 30 are\n\
                    allowed.\n\n\
                    | its p99 doubles | runs | median | p95 | longest | all |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for (took, when) in took.iter().zip(["with its first share", "after 15 good seconds"]) {
        writeln!(text, "| {when} | {} | {} | {} |", took.len(), summary(took), seconds(took)).unwrap();
    }
    text
}

/// A fleet with users who click, 10 % of them on a candidate that ranks like this.
struct Liked {
    _fleet: Fleet,
    routers: [Router; 2],
    users: Shopping,
    rate: u32,
}

impl Liked {
    fn start(top: &str, users: &Shoppers, bad: &Ranking) -> Liked {
        let fleet = Fleet::start();
        let routers = fleet.routers(&fleet.redis.url(), top, &format!("{PLAN}\n{QUIET}"));
        let rate = users.rate;
        let users = Shoppers { routers: routers.each_ref().map(|router| router.traffic).to_vec(), ..users.clone() };
        let users = users.start(&[("blue", &good()), ("green", bad), ("canary", bad)]);
        Liked { _fleet: fleet, routers, users, rate }
    }

    /// One rollout: how long until both routers have it at 0 %.
    fn run(&self, limit: Duration) -> Duration {
        self.users.wait_for(WARM_UP_SECONDS * u64::from(self.rate));
        drop(self.users.take());
        let began = begin(&self.routers[0]);
        let took = self.users.eventually("it is out of traffic", limit, 10, || is_out(&self.routers).then(|| began.elapsed()));
        let visits = self.users.take();
        assert!(visits.failed.is_empty() && visits.lost_clicks.is_empty(), "{:?} {:?}", visits.failed, visits.lost_clicks);
        let why = why(&self.routers[1]);
        assert!(why.starts_with("roll back: clicks"), "{why}");
        let candidate = visits.answered.iter().filter(|answered| answered.pool == "canary").count();
        println!("out of traffic {took:.2?} after its first share, and {candidate} of its answers: {why}");
        took
    }
}

#[test]
fn a_broken_ranking_is_out_of_traffic_as_soon_as_the_simulator_says() {
    let users = Shoppers::new(&[], 400);
    let bad = good().upside_down();
    // In a rollout of a quarter of a minute a user asks once or twice.
    let said = Delays::simulate(users.rate, good().clicks(), bad.clicks(), 2);
    // What the simulator counts from: the first window that is judged; and to: the end of the last one.
    let more = MATURITY + FIRST_SECOND;
    let scene = Liked::start(QUICK, &users, &bad);
    let runs = if is_full() { 20 } else { 1 };
    println!("simulated: {:?} at the median, {:?} at p95; {more:?} more here", said.median, said.p95);
    let took: Vec<Duration> = (0..runs).map(|_| scene.run(said.p95 * 2 + more + Duration::from_secs(5))).collect();
    let within = took.iter().filter(|took| **took <= said.p95 + more).count();
    if is_full() {
        keep("A broken ranking", &told_of_broken(&took, within, &said, more));
        assert!(within * 20 >= runs * 17, "{took:?}");
    }
    assert!(took.iter().all(|took| *took <= said.p95 * 2 + more), "{took:?}");
    assert!(scene.users.stop().failed.is_empty());
}

fn told_of_broken(took: &[Duration], within: usize, said: &Delays, more: Duration) -> String {
    let percent = |ranking: &Ranking| format!("{:.1} %", ranking.clicks() * 100.0);
    let (bad, good, runs, more_seconds) = (percent(&good().upside_down()), percent(&good()), took.len(), more.as_secs());
    let whole = |time: Duration| format!("{:.0}", time.as_secs_f64());
    let (median, p95, twice) = (whole(said.median + more), whole(said.p95 + more), whole(said.p95 * 2 + more));
    format!(
        "Users look down ten results and click (a cascade); the candidate ranks upside down: {bad} of its answers are clicked instead of {good}.\n\
         400 queries a second, 10 % of them the candidate's, the shipped policy, `evidence.maturity` 2 s (and\n\
         `ignore_below_ms` 250, so that a busy machine is no difference between the two). From the rollout's beginning until the\n\
         flags of both routers send it nobody. The simulator (`switchback policy simulate`, 2,000 rollouts with these rates, this share, windows\n\
         of 1 s, 20 of them of control alone before, two queries a user) counts from the first window that is judged to the end of the last one;\n\
         so {more_seconds} s are added to what it says: the maturity, and the second in which a candidate begins, which is not judged.\n\n\
         | seconds | median | p95 | longest | all |\n|---|---|---|---|---|\n| simulated, and {more_seconds} | {median} | {p95} | | |\n\
         | measured, {runs} runs | {} | {} |\n\n\
         {within} of {runs} within the simulated p95 (17 of 20 are promised); allowed to each is twice the simulated p95, {twice} s.\n",
        summary(took),
        seconds(took),
    )
}

/// In full alone: it takes minutes. Clicks come when users click, and are mature after a minute, as a config has it that says nothing else.
#[test]
fn a_tenth_fewer_clicks_are_found_out_within_ten_minutes_by_the_clock() {
    if !is_full() {
        return;
    }
    let users = Shoppers { users: 20_000, click_delay: Duration::from_secs(5), ..Shoppers::new(&[], 200) };
    let bad = good().with_best_at(3);
    let said = Delays::simulate(users.rate, good().clicks(), bad.clicks(), 4);
    let scene = Liked::start("", &users, &bad);
    let took = scene.run(Duration::from_secs(900));
    let reason = why(&scene.routers[0]);
    let percent = |ranking: &Ranking| format!("{:.1} %", ranking.clicks() * 100.0);
    // The second in which a candidate begins, and the maturity.
    let [took_seconds, median, p95] =
        [took, said.median + Duration::from_secs(61), said.p95 + Duration::from_secs(61)].map(|time| time.as_secs());
    let text = format!(
        "The candidate has its best result three places too low: {} of its answers are clicked instead of {}. 200 queries a second, 10 % of them\n\
         the candidate's; a click comes 5 s after its answer on average; `evidence.maturity` is a minute, as by\n\
         default, and so is all else but `ignore_below_ms` of latencies (250, so that a busy machine is no difference between the two).\n\n\
         | | seconds |\n|---|---|\n| from its first share until the flags of both routers send it nobody | {took_seconds} |\n| allowed | 600 |\n\
         | simulated, and a minute of maturity: median | {median} |\n| the same, p95 | {p95} |\n\nWhy, as the ledger has it: {reason}\n",
        percent(&bad),
        percent(&good()),
    );
    keep("A tenth fewer clicks, by the clock", &text);
    assert!(took < Duration::from_secs(600), "{took:?}");
    assert!(scene.users.stop().failed.is_empty());
}
