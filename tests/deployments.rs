//! The promise: deployments in a row under load, good models and bad ones at random: every good one goes live, every bad one is refused or rolled back, no
//! query fails, and nobody waits longer while versions are loaded. Back to a version that is loaded in less than a second, to any other in less than a minute.
//!
//! In a run of all tests five of them; with `SWITCHBACK_FULL=1` it is 100, and the figures are kept in `tests/deployments/report.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "deployments/probe.rs"]
mod probe;
#[path = "deployments/report.rs"]
mod report;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use probe::Probe;
use report::{Deployed, Figures, Loads};
use serde_json::Value;
use switchback_tests::deploy::not_a_number;
use switchback_tests::model_pools::ModelPools;
use switchback_tests::ranker::{demo, queries};
use switchback_tests::registry::said;
use switchback_tests::shoppers::Random;
use switchback_tests::{Load, Router, eventually, python};

const SOON: Duration = Duration::from_secs(60);
/// What takes minutes takes seconds.
const PLAN: &str = "rollout = { steps = [\"10\", \"50\"], holdback_percent = \"10\", bake = \"2s\", max_step = \"60s\" }\n\
    rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
const SEED: u64 = 9;
/// Queries a second, of each of two kinds.
const RATE: u32 = 100;

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// Its ranking is upside down: judged queries show that.
    RanksBadly,
    /// A weight that is no number.
    NotANumber,
    /// It wants a feature more than users' queries have.
    OtherFeatures,
    /// A pickle that would run a command.
    Pickle,
    /// Nothing before users shows that it fails: documents with an uncommon feature get no score.
    FailsInUse,
}

impl Kind {
    fn draw(random: &mut Random) -> Kind {
        let bad = [Kind::RanksBadly, Kind::NotANumber, Kind::OtherFeatures, Kind::Pickle, Kind::FailsInUse, Kind::FailsInUse];
        if random.part() < 0.5 { Kind::Good } else { bad[random.number() as usize % bad.len()] }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::RanksBadly => "ranks upside down",
            Kind::NotANumber => "a weight is no number",
            Kind::OtherFeatures => "other features",
            Kind::Pickle => "a pickle that runs a command",
            Kind::FailsInUse => "fails on every other query, in use alone",
        }
    }

    /// How it has to end: the exit code, and the outcome.
    fn ends(self) -> (i32, &'static str) {
        match self {
            Kind::Good => (0, "live"),
            Kind::FailsInUse => (2, "rolled_back"),
            _ => (2, "refused"),
        }
    }
}

/// Everything that models are made of.
struct Models {
    folder: PathBuf,
    nan: PathBuf,
    made: u32,
}

impl Models {
    fn make(pools: &ModelPools) -> Models {
        let folder = pools.registry.path("made");
        fs::create_dir_all(&folder).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deployments/models.py");
        let made = Command::new(python()).arg(script).arg(demo("models/ranker_v2.onnx")).arg(&folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Models { folder, nan: not_a_number(&pools.registry), made: 0 }
    }

    /// A file like no other before it.
    fn next(&mut self, kind: Kind) -> PathBuf {
        self.made += 1;
        let (from, name) = match kind {
            Kind::Good => (demo("models/ranker_v2.onnx"), "good.onnx"),
            Kind::RanksBadly => (demo("models/ranker_inverted.onnx"), "upside_down.onnx"),
            Kind::NotANumber => (self.nan.clone(), "no_number.onnx"),
            Kind::OtherFeatures => (self.folder.join("wide.onnx"), "other.onnx"),
            // Written below.
            Kind::Pickle => (demo("models/ranker_v2.onnx"), "model.pkl"),
            Kind::FailsInUse => (self.folder.join("sometimes_nan.onnx"), "sometimes.onnx"),
        };
        let mut bytes = fs::read(from).unwrap();
        if kind == Kind::Pickle {
            // Protocol 0.
            bytes = format!("cos\nsystem\n(S'true {}'\ntR.", self.made).into_bytes();
        } else {
            // One more of an ONNX model's properties, which are field 14: `made` is a number.
            let number = self.made.to_string();
            let length = u8::try_from(number.len()).unwrap();
            bytes.extend([0x72, 8 + length, 0x0a, 4]);
            bytes.extend(b"made");
            bytes.extend([0x12, length]);
            bytes.extend(number.as_bytes());
        }
        let path = self.folder.join(format!("{}-{name}", self.made));
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn judged(pools: &ModelPools) -> PathBuf {
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(demo("queries.jsonl.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().take(200).collect();
    pools.registry.file("judged.jsonl", lines.join("\n").as_bytes())
}

/// A query whose first document has the feature that fails in use.
fn uncommon() -> bytes::Bytes {
    let mut query = queries(1).remove(0);
    query["documents"][0]["features"][0] = 5_000.into();
    query.to_string().into()
}

fn deploy(pools: &ModelPools, router: &Router, arguments: &[&str]) -> (i32, Value, String) {
    let (code, said, error) = said(
        &pools.command(router, &[&["deploy", "--route", "search", "--model", "search", "--json"], arguments].concat()).output().unwrap(),
    );
    let account = serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{arguments:?}: exit {code}: {wrong}: {said}{error}"));
    (code, account, error)
}

fn back(pools: &ModelPools, router: &Router, arguments: &[&str]) -> Duration {
    let began = Instant::now();
    let output = pools.command(router, &[&["rollback", "search"], arguments].concat()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {:?}", said(&output));
    began.elapsed()
}

fn version_of(router: &Router, pool: &str) -> String {
    router.route()["pools"][pool]["version"].as_str().unwrap().to_owned()
}

#[test]
fn every_good_one_goes_live_every_bad_one_goes_nowhere_and_nobody_notices() {
    let is_full = std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1");
    let mut random = Random(SEED);
    let few = vec![Kind::Good, Kind::FailsInUse, Kind::OtherFeatures, Kind::Pickle, Kind::Good];
    let kinds: Vec<Kind> = if is_full { (0..100).map(|_| Kind::draw(&mut random)).collect() } else { few };
    let pools = ModelPools::start(&[]);
    let mut models = Models::make(&pools);
    let judged = judged(&pools);
    let routers = ["one", "other"].map(|id| pools.router(id, PLAN, &pools.filled()));
    let users: Vec<_> = routers
        .iter()
        .flat_map(|router| [pools.load(router, RATE), Load { body: uncommon(), ..pools.load(router, RATE) }])
        .map(Load::start)
        .collect();
    let probe = Probe::start(&routers[0]);
    let (mut told, mut live) = (Vec::<Deployed>::new(), 1_u64);
    for (number, kind) in kinds.iter().enumerate() {
        // A while of nothing, to compare with.
        probe.wait_for(200);
        let file = models.next(*kind);
        let (began, router) = (Instant::now(), &routers[number % 2]);
        let arguments = ["--file", file.to_str().unwrap(), "--judged", judged.to_str().unwrap(), "--wait", "--timeout", "3m"];
        let (code, account, error) = deploy(&pools, router, &arguments);
        let outcome = account["outcome"].as_str().unwrap_or_default();
        assert_eq!((code, outcome), kind.ends(), "{number}: {}: {account:#}\n{error}", kind.label());
        let one = Deployed::of(*kind, &account, began.elapsed());
        println!("{number}: search:{} {}: {outcome} after {:.1?}: {}", one.version, kind.label(), one.took, one.why);
        if *kind == Kind::Good {
            live = one.version;
        }
        for router in &routers {
            let route = router.route();
            let colour = route["live"].as_str().unwrap();
            assert_eq!(route["pools"][colour]["version"], format!("search:{live}"), "{route:#}");
            assert_eq!((&route["canary_percent"], &route["holdback_percent"]), (&0.0.into(), &0.0.into()), "{route:#}");
        }
        told.push(one);
    }
    let versions: Vec<u64> = pools.registry.done(&["list", "search"])["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, (1..=kinds.len() as u64 + 1).collect::<Vec<_>>(), "one version for each deployment");
    let loads = Loads::of(&routers[1]);
    // Back: to the version that the other colour still has, and to the first of all, which nobody has any more.
    let old = if routers[0].route()["live"] == "blue" { "green" } else { "blue" };
    let loaded = version_of(&routers[0], old);
    let to_loaded = back(&pools, &routers[0], &["--to", &loaded]);
    let to_unloaded = back(&pools, &routers[1], &["--to", "search:1", "--why", "all of them rank worse"]);
    eventually("the first is live again", SOON, || {
        let route = routers[0].route();
        (route["pools"][route["live"].as_str().unwrap()]["version"] == "search:1").then_some(())
    });
    println!("back to {loaded}, which is loaded, in {to_loaded:?}; to search:1, which is not, in {to_unloaded:?}");
    assert!(to_loaded < Duration::from_secs(1) && to_unloaded < Duration::from_secs(60), "{to_loaded:?} {to_unloaded:?}");
    let (quiet, loading) = probe.stop().times(&loads);
    let reports: Vec<_> = users.into_iter().map(switchback_tests::Running::stop).collect();
    let (sent, failed): (u64, u64) = reports.iter().fold((0, 0), |(sent, failed), report| (sent + report.sent, failed + report.failures()));
    assert_eq!(failed, 0, "of {sent}: {:?}", reports.iter().flat_map(|report| &report.described).collect::<Vec<_>>());
    let figures = Figures { told, sent, quiet, loading, to_loaded, to_unloaded };
    println!("{}", figures.summary());
    if is_full {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deployments/report.md");
        fs::write(path, figures.report(SEED, RATE)).unwrap();
        assert!(figures.ratio() <= 1.2, "{}", figures.summary());
    }
}
