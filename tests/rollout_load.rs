//! The promise: rollouts in a row under load, blue to green and back again, good candidates and bad ones at random: every good one goes live, every bad
//! one is taken back, no query fails, and no unit is outside its arm.
//!
//! In a run of all tests three of them; with `SWITCHBACK_FULL=1` it is 20, and the figures are kept in `tests/rollout_load/report.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "rollout_load/arms.rs"]
mod arms;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use arms::{Epochs, turncoats};
use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::shoppers::{Answered, Random, Ranking, Shoppers, Shopping};
use switchback_tests::{Backend, Behaviour, Router, Setup, eventually, provenance};

const SOON: Duration = Duration::from_secs(60);
const FLAGS: &str = "{switchback:search}:flags";
/// What takes minutes takes seconds: clicks are mature sooner, steps are short, and the policy lets on after little.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
const ROUTE: &str = "initial = { live = \"blue\" }\nexpose = [\"pool\", \"version\", \"epoch\", \"reason\"]\n\
                     rollout = { steps = [\"10\", \"50\"], holdback_percent = \"10\", bake = \"8s\", max_step = \"60s\" }\n\
                     rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, \
                     latency = { gated = false, ignore_below_ms = 150 }, metrics = { clicks = { relative_margin = 0.4, last_relative_margin = 0.4 } } }";

/// What is wrong with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// Every other answer is a 500.
    Fails,
    /// Every answer takes 300 ms.
    IsSlow,
    /// It ranks upside down.
    RanksBadly,
}

/// Where it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// From the first step on, which is on the canary's own pool.
    AtFirst,
    /// In the second step, which is on the idle colour.
    OnTheIdleColour,
    /// When it is live.
    WhenLive,
}

/// A candidate, as chance has it; half of them are good.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    fault: Fault,
    shows: Shows,
}

impl Candidate {
    fn draw(random: &mut Random) -> Candidate {
        let fault = [Fault::Nothing, Fault::Nothing, Fault::Nothing, Fault::Fails, Fault::IsSlow, Fault::RanksBadly]
            [(random.number() % 6) as usize];
        let places = [Shows::AtFirst, Shows::OnTheIdleColour, Shows::WhenLive];
        // A colour that is live and fails has nobody to answer in its place: that is another promise.
        let most = if fault == Fault::Fails { 2 } else { 3 };
        Candidate { fault, shows: places[(random.number() % most) as usize] }
    }

    fn is_good(self) -> bool {
        self.fault == Fault::Nothing
    }

    fn label(self) -> String {
        let when = match self.shows {
            Shows::AtFirst => "at 10 %",
            Shows::OnTheIdleColour => "at 50 %",
            Shows::WhenLive => "when it is live",
        };
        match self.fault {
            Fault::Nothing => "good".to_owned(),
            Fault::Fails => format!("fails, {when}"),
            Fault::IsSlow => format!("is slow, {when}"),
            Fault::RanksBadly => format!("ranks badly, {when}"),
        }
    }
}

fn good() -> Ranking {
    Ranking(vec![0.5, 0.3, 0.2, 0.1, 0.05, 0.02])
}

/// Two routers, two colours and a canary pool, and the versions that they run.
struct Scene {
    redis: RedisServer,
    /// Blue, green, canary.
    pools: [Backend; 3],
    versions: [String; 3],
    routers: Vec<Router>,
    live: usize,
    salts: Vec<String>,
}

/// What became of one rollout.
struct Told {
    candidate: Candidate,
    version: String,
    colour: &'static str,
    phase: String,
    took: Duration,
    why: String,
    queries: usize,
    turncoats: usize,
}

const COLOURS: [&str; 2] = ["blue", "green"];

impl Scene {
    fn start() -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = runtime.block_on(RedisServer::start()).unwrap();
        let pools = ["blue", "green", "canary"].map(Backend::start);
        let versions = ["v1", "v1", "v1"].map(str::to_owned);
        let mut scene = Scene { redis, pools, versions, routers: Vec::new(), live: 0, salts: Vec::new() };
        scene.routers = ["one", "other"].map(|id| scene.setup(id).start()).into();
        scene.salts.push(scene.salt());
        for router in &scene.routers {
            eventually("both are known", SOON, || (router.route()["routers"].as_array().unwrap().len() == 2).then_some(()));
        }
        scene
    }

    fn setup(&self, id: &str) -> Setup {
        let pools = self.pools.iter().zip(&self.versions).zip(["blue", "green", "canary"]);
        let setup = pools.fold(Setup::default(), |setup, ((backend, version), name)| {
            setup.pool(name, &[backend]).pool_keys(&format!("version = {version:?}"))
        });
        setup.workers(2).of_a_fleet().route(ROUTE).top(QUICK).redis(&self.redis.url()).state(&format!("router_id = {id:?}"))
    }

    /// The next model version comes to the idle colour and to the canary pool, with the faults that it has.
    fn deploy(&mut self, version: &str, candidate: Candidate, users: &Shopping) {
        let idle = 1 - self.live;
        for (place, is_bad) in [(idle, candidate.shows != Shows::WhenLive), (2, candidate.shows == Shows::AtFirst)] {
            self.versions[place] = version.to_owned();
            self.spoil(place, if is_bad { candidate.fault } else { Fault::Nothing }, users);
        }
        for (router, id) in self.routers.iter().zip(["one", "other"]) {
            let before = router.generation();
            router.write_config(&self.setup(id));
            router.signal("HUP");
            eventually("the config is reloaded", SOON, || (router.generation() == before + 1).then_some(()));
        }
    }

    fn salt(&self) -> String {
        self.redis.cli(&["HGET", FLAGS, "salt"]).unwrap()
    }

    fn spoil(&self, place: usize, fault: Fault, users: &Shopping) {
        self.pools[place].behave(match fault {
            Fault::Fails => Behaviour::EveryOther(500),
            Fault::IsSlow => Behaviour::Delay(Duration::from_millis(300)),
            Fault::Nothing | Fault::RanksBadly => Behaviour::Answer,
        });
        let ranking = if fault == Fault::RanksBadly { good().upside_down() } else { good() };
        users.show(["blue", "green", "canary"][place], &ranking);
    }

    fn rollout(&self, router: usize) -> Value {
        self.routers[router].route()["rollout"].clone()
    }

    /// One rollout from its beginning to its end, by itself.
    fn run(&mut self, version: &str, candidate: Candidate, users: &Shopping) -> Told {
        self.deploy(version, candidate, users);
        let idle = 1 - self.live;
        eventually("a rollout begins", SOON, || {
            let (code, said, error) = self.routers[0].run(&["rollout", "start", "search", "--candidate", version]);
            assert!(code == 0 || error.contains("no healthy endpoint"), "{said}{error}");
            (code == 0).then_some(())
        });
        let began = Instant::now();
        self.salts.push(self.salt());
        let mut is_spoilt = candidate.shows != Shows::WhenLive;
        let phase = users.eventually("it is over", Duration::from_secs(180), 20, || {
            let phases = [0, 1].map(|router| self.rollout(router)["phase"].as_str().unwrap().to_owned());
            if !is_spoilt && phases[0] == "baking" {
                self.spoil(idle, candidate.fault, users);
                is_spoilt = true;
            }
            (phases[0] == phases[1] && ["done", "rolled_back", "aborted"].contains(&phases[0].as_str())).then(|| phases[0].clone())
        });
        if phase == "done" {
            self.live = idle;
        }
        let why = self.rollout(0)["why"].as_str().unwrap().to_owned();
        Told { candidate, version: version.to_owned(), colour: COLOURS[idle], phase, took: began.elapsed(), why, queries: 0, turncoats: 0 }
    }

    /// Whether the flags of both are those of a route without a rollout.
    fn is_at_rest(&self) -> bool {
        self.routers.iter().all(|router| {
            let route = router.route();
            route["live"] == COLOURS[self.live] && route["canary_percent"] == 0.0 && route["holdback_percent"] == 0.0
        })
    }
}

fn keep(told: &[Told], queries: usize, units: u32, fallbacks: usize) {
    let mut text = format!(
        "# Rollouts in a row under load: the last run that was kept\n\n{}.\n\
         `SWITCHBACK_FULL=1 cargo test --release --locked --workspace --test rollout_load -- --nocapture`\n\n\
         Two routers, one Redis, {RATE} queries a second of {units} users who click. Steps of 10 % (on the canary pool) and 50 % (on the idle\n\
         colour), then live with a holdback of 10 %; clicks are mature after 2 s, and the policy lets on after 20 requests and a second. Before\n\
         each rollout both routers take a new config, by SIGHUP, in which the idle colour and the canary run the next version. Which candidate\n\
         is bad, how, and where it shows, is drawn (seed {SEED}).\n\n\
         | rollouts | good, and live | bad, and back | queries | failed | answered by live in a candidate's place | units outside their arm |\n|---|---|---|---|---|---|---|\n\
         | {} | {} | {} | {queries} | 0 | {fallbacks} | 0 |\n\n\
         | version | to | candidate | ended | after | queries | why |\n|---|---|---|---|---|---|---|\n",
        provenance(),
        told.len(),
        told.iter().filter(|told| told.candidate.is_good()).count(),
        told.iter().filter(|told| !told.candidate.is_good()).count(),
    );
    for Told { candidate, version, colour, phase, took, why, queries, .. } in told {
        let (seconds, what, why) = (took.as_secs_f64(), candidate.label(), why.split(';').next().unwrap_or_default());
        writeln!(text, "| {version} | {colour} | {what} | {} | {seconds:.1} s | {queries} | {why} |", phase.replace('_', " ")).unwrap();
    }
    text.push_str(
        "\nEach answer says its pool, the reason for it and the epoch of the flags; the flags of every epoch are in the ledger, and the salts in\n\
         Redis. An answer that is not of the pool which the position of its user has under these is outside its arm; one that the live pool gave\n\
         in the place of a candidate that failed, or that a breaker held back, is not. And no user changed sides but to the candidate, once, and\n\
         back by a rollback, once.\n",
    );
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout_load/report.md"), text).unwrap();
}

const RATE: u32 = 400;
const SEED: u64 = 6;

#[test]
fn every_good_one_goes_live_every_bad_one_comes_back_and_nobody_notices() {
    let is_full = std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1");
    let mut random = Random(SEED);
    let candidates: Vec<Candidate> = match is_full {
        true => (0..20).map(|_| Candidate::draw(&mut random)).collect(),
        // There and back again, and what only clicks show.
        false => vec![
            Candidate { fault: Fault::Nothing, shows: Shows::AtFirst },
            Candidate { fault: Fault::RanksBadly, shows: Shows::AtFirst },
            Candidate { fault: Fault::Fails, shows: Shows::OnTheIdleColour },
        ],
    };
    let mut scene = Scene::start();
    let routers: Vec<_> = scene.routers.iter().map(|router| router.traffic).collect();
    let users = Shoppers { users: 2_048, connections: 128, ..Shoppers::new(&routers, RATE) };
    let units = users.users;
    let users = users.start(&[("blue", &good()), ("green", &good()), ("canary", &good())]);
    users.wait_for(u64::from(RATE) * 5);
    let (mut told, mut answered, mut failed): (Vec<Told>, Vec<Answered>, Vec<String>) = Default::default();
    for (number, candidate) in candidates.iter().enumerate() {
        let mut one = scene.run(&format!("v{}", number + 2), *candidate, &users);
        let visits = users.take();
        failed.extend(visits.failed);
        // What the live pool answered in a candidate's place counts for neither, and so do clicks on it.
        failed.extend(visits.lost_clicks.into_iter().filter(|why| !why.contains("uncounted_token")));
        (one.queries, one.turncoats) = (visits.answered.len(), turncoats(&visits.answered, &one.version, one.phase == "rolled_back"));
        println!(
            "{} to {}: {}: {} after {:.1?}, {} queries: {}",
            one.version,
            one.colour,
            candidate.label(),
            one.phase,
            one.took,
            one.queries,
            one.why
        );
        assert_eq!(one.phase, if candidate.is_good() { "done" } else { "rolled_back" }, "{}: {}", candidate.label(), one.why);
        assert_eq!(one.turncoats, 0, "users changed sides");
        assert!(scene.is_at_rest(), "{:#}", scene.routers[0].route());
        answered.extend(visits.answered);
        told.push(one);
    }
    let rest = users.stop();
    failed.extend(rest.failed);
    answered.extend(rest.answered);
    assert!(failed.is_empty(), "{} failed: {:#?}", failed.len(), &failed[..failed.len().min(20)]);
    let epochs = Epochs::read(&scene.routers[1], &scene.salts);
    let outside: Vec<String> = answered.iter().filter_map(|answered| epochs.fault(answered)).collect();
    assert!(outside.is_empty(), "{} of {} outside their arm: {:#?}", outside.len(), answered.len(), &outside[..outside.len().min(20)]);
    let fallbacks = answered.iter().filter(|answered| answered.reason == "fallback").count();
    println!("{} queries, none failed, none outside its arm, {fallbacks} answered by the live pool in a candidate's place", answered.len());
    if is_full {
        keep(&told, answered.len(), units, fallbacks);
    }
}
