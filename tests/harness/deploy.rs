//! A model that is deployed: a registry, three backends whose pools are said to run versions of it, a router, and users.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::ranker::demo;
use crate::registry::{Registry, said};
use crate::relay::Relay;
use crate::{Backend, Load, Router, Running, Setup, eventually};

const SOON: Duration = Duration::from_secs(20);

/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
/// A policy that lets on after little, so that a rollout takes seconds.
const EAGER: &str = "rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
/// Two steps and a short bake.
pub const PLAN: &str = "rollout = { steps = [\"10\", \"50\"], holdback_percent = \"20\", bake = \"2s\", max_step = \"60s\" }";

/// All of it. `search:1` is live on blue.
pub struct Site {
    /// Has `search:1`, which is `ranker_v1.onnx`.
    pub registry: Registry,
    /// Blue, green, canary.
    pub pools: [Backend; 3],
    /// Its flags are in its data folder.
    pub router: Router,
    /// The way to its admin listener, which stays when it restarts.
    pub relay: Relay,
    data_dir: tempfile::TempDir,
    plan: String,
    load: Option<Running>,
}

impl Site {
    /// With this plan for the route.
    pub fn start(plan: &str) -> Site {
        let registry = Registry::in_folder();
        let pools = ["blue", "green", "canary"].map(Backend::start);
        let data_dir = tempfile::tempdir().unwrap();
        let router = router(&pools, data_dir.path(), plan);
        let relay = Relay::to(router.admin.port());
        let site = Site { registry, pools, router, relay, data_dir, plan: plan.to_owned(), load: None };
        site.registry.done(&["push", site.model("ranker_v1.onnx").to_str().unwrap(), "--model", "search"]);
        site.router.set_flags(&["version.blue=search:1"]);
        site.follows("blue", "search:1");
        site
    }

    /// The same, with users.
    pub fn with_users(plan: &str) -> Site {
        let mut site = Site::start(plan);
        site.load = Some(Load::new(site.router.traffic, 150).start());
        site
    }

    /// A model of the demo's.
    pub fn model(&self, name: &str) -> PathBuf {
        demo("models").join(name)
    }

    /// Pools that have to be loaded by hand are said to run this version.
    pub fn runs(&self, version: &str) {
        self.run_each(version, version);
    }

    /// The pools `canary` and `green` are.
    pub fn run_each(&self, canary: &str, green: &str) {
        self.router.set_flags(&[&format!("version.canary={canary}"), &format!("version.green={green}")]);
        self.follows("canary", canary);
        self.follows("green", green);
    }

    fn follows(&self, pool: &str, version: &str) {
        eventually("the pool runs it", SOON, || (self.router.route()["pools"][pool]["version"] == version).then_some(()));
    }

    /// `switchback deploy --route search --model search ARGUMENTS`, as a nightly job calls it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.at(self.registry.command(&[&["deploy", "--route", "search", "--model", "search"], arguments].concat()))
    }

    /// A command that knows this router.
    pub fn at(&self, mut command: Command) -> Command {
        command.env("SWITCHBACK_ADMIN", format!("http://{}", self.relay.address));
        command.env("SWITCHBACK_TOKEN_FILE", self.data_dir.path().join("admin.token"));
        command
    }

    /// Runs it: exit code, and what it says on both outputs.
    pub fn deploy(&self, arguments: &[&str]) -> (i32, String, String) {
        said(&self.command(arguments).output().unwrap())
    }

    /// The same with `--json`: exit code, and the object at its end.
    pub fn deployed(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, said, error) = self.deploy(&[arguments, &["--json"]].concat());
        (code, serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{arguments:?}: {code}: {wrong}: {said}{error}")))
    }

    /// Starts it, to be watched.
    pub fn watch(&self, arguments: &[&str]) -> Watched {
        let mut command = self.command(&[arguments, &["--json"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let events = BufReader::new(child.stderr.take().unwrap());
        Watched { child, events: Box::new(events), last: String::new() }
    }

    /// The router ends, and another one takes its place.
    pub fn restart(&mut self) {
        drop(self.load.take().map(Running::stop));
        self.router.kill();
        self.router = router(&self.pools, self.data_dir.path(), &self.plan);
        self.relay.point_to(self.router.admin.port());
        self.load = Some(Load::new(self.router.traffic, 150).start());
    }

    /// The numbers of the model's versions.
    pub fn versions(&self) -> Vec<u64> {
        let all = self.registry.done(&["list", "search"]);
        all["versions"].as_array().unwrap().iter().map(|version| version["version"].as_u64().unwrap()).collect()
    }

    /// Where an alias points.
    pub fn alias(&self, alias: &str) -> Value {
        self.registry.done(&["alias", "search", alias])["moves"]
            .as_array()
            .unwrap()
            .last()
            .map_or(Value::Null, |last| last["version"].clone())
    }

    /// How many rollouts began, as the ledger has it.
    pub fn rollouts(&self) -> usize {
        let (_, body) = self.router.admin("GET", "/api/v1/routes/search/history?limit=1000", b"");
        body["entries"].as_array().unwrap().iter().filter(|entry| entry["grounds"]["event"] == "started").count()
    }

    /// The candidate's phase.
    pub fn phase(&self) -> String {
        self.router.route()["rollout"]["phase"].as_str().unwrap_or_default().to_owned()
    }
}

fn router(pools: &[Backend; 3], data_dir: &Path, plan: &str) -> Router {
    let [blue, green, canary] = pools;
    let setup = Setup::default().pool("blue", &[blue]).pool("green", &[green]).pool("canary", &[canary]);
    setup.top(QUICK).route(&format!("{plan}\n{EAGER}")).data_dir(data_dir).start()
}

/// A deployment under way; killed when dropped.
pub struct Watched {
    child: Child,
    events: Box<dyn BufRead + Send>,
    last: String,
}

impl Watched {
    /// Waits until it tells of this; whether it did before its end.
    pub fn tells(&mut self, event: &str) -> bool {
        loop {
            self.last.clear();
            if self.events.read_line(&mut self.last).unwrap_or(0) == 0 {
                return false;
            }
            let told: Value = serde_json::from_str(&self.last).unwrap_or_default();
            if told["event"] == event {
                return true;
            }
        }
    }

    /// The line that it told last.
    pub fn said(&self) -> &str {
        &self.last
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Its end: exit code and object.
    pub fn ended(mut self) -> (i32, Value) {
        let mut rest = String::new();
        while self.events.read_line(&mut rest).unwrap_or(0) > 0 {}
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{code}: {wrong}: {said}{rest}")))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A model with a weight that is no number.
pub fn not_a_number(registry: &Registry) -> PathBuf {
    let mut bytes = fs::read(demo("models/ranker_v2.onnx")).unwrap();
    let name = b"target_weights";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // The first of its floats: a tag, and four bytes.
    let tag = at + bytes[at..].iter().position(|byte| *byte == 0x3d).unwrap();
    bytes[tag + 1..tag + 5].copy_from_slice(&f32::NAN.to_le_bytes());
    registry.file("nan.onnx", &bytes)
}
