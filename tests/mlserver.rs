//! The promise: a model server that nobody here wrote, MLServer with its LightGBM runtime, behind blue, green and canary: deploy, promote and roll back by the
//! CLI, under load, and no query fails.
//!
//! `make mlserver` installs it (800 MB) and runs this; the figures are kept in `tests/mlserver/report.md`. In a run of all tests a hand-made MLServer stands in
//! for it: `router/model-servers/tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchback_tests::registry::{Registry, said};
use switchback_tests::{Load, Router, Setup, binary, eventually, http, provenance, python};

const SOON: Duration = Duration::from_secs(120);
const POOLS: [&str; 3] = ["blue", "green", "canary"];
const INFER: &str = "/v2/models/search/infer";
const PLAN: &str = "rollout = { steps = [\"20\", \"50\"], holdback_percent = \"20\", bake = \"3s\", max_step = \"120s\" }\n\
    rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";

/// One MLServer; killed when dropped.
struct MlServer {
    child: Child,
    port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The settings of a version, as the router's template makes them.
fn settings(version: u64) -> String {
    let template = include_str!("mlserver/model-settings.json");
    template.replace("{model}", "search").replace("{file}", "model.txt").replace("{version}", &version.to_string())
}

impl MlServer {
    /// Serves what is in the folder.
    fn start(program: &Path, folder: &Path) -> MlServer {
        let (port, grpc, metrics) = (free_port(), free_port(), free_port());
        let server = json!({ "host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0 });
        fs::write(folder.join("settings.json"), server.to_string()).unwrap();
        let log = fs::File::create(folder.join("mlserver.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("start").arg(folder).current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        MlServer { child: command.spawn().unwrap(), port }
    }

    fn wait(&mut self) {
        let address = ([127, 0, 0, 1], self.port).into();
        eventually("MLServer is ready", SOON, || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            (http::get(address, "/v2/models/search/ready").ok()?.0 == 200).then_some(())
        });
    }
}

impl Drop for MlServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The registry, the servers, and where everything is.
struct Site {
    registry: Registry,
    servers: Vec<MlServer>,
}

impl Site {
    fn start() -> Site {
        let program = binary().parent().and_then(Path::parent).unwrap().join("tools/mlserver/bin/mlserver");
        assert!(program.exists(), "make mlserver installs it");
        let registry = Registry::in_folder();
        let models = registry.path("models");
        fs::create_dir_all(&models).unwrap();
        let made = Command::new(python()).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/mlserver/models.py")).arg(&models).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut site = Site { registry, servers: Vec::new() };
        site.registry.done(&["push", site.model("v1").to_str().unwrap(), "--model", "search"]);
        for pool in POOLS {
            let folder = site.registry.path(&format!("repositories/{pool}"));
            fs::create_dir_all(folder.join("search/1")).unwrap();
            fs::copy(site.model("v1"), folder.join("search/1/model.txt")).unwrap();
            fs::write(folder.join("search/1/model-settings.json"), settings(1)).unwrap();
            site.servers.push(MlServer::start(&program, &folder));
        }
        site.servers.iter_mut().for_each(MlServer::wait);
        site
    }

    fn model(&self, name: &str) -> PathBuf {
        self.registry.path("models").join(format!("{name}.txt"))
    }

    fn router(&self) -> Router {
        let mut setup = Setup::default();
        for (pool, server) in POOLS.iter().zip(&self.servers) {
            setup = setup.pool_of(pool, &[format!("http://127.0.0.1:{}", server.port)]).pool_keys("version = \"search:1\"");
        }
        let template = concat!(env!("CARGO_MANIFEST_DIR"), "/mlserver/model-settings.json");
        let folder = self.registry.path("repositories");
        let loading = format!(
            "[route.loading]\nmodel = \"search\"\nrepository = \"{}/{{pool}}\"\nrepository_file = \"model.txt\"\nrepository_settings = \"{template}\"\n",
            folder.display()
        );
        let top = format!(
            "[registry]\nurl = \"file://{}\"\n[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"",
            self.registry.path("registry").display()
        );
        setup.workers(1).top(&top).route(&format!("{PLAN}\nexpose = [\"pool\"]\n{loading}")).start()
    }

    /// `switchback ARGUMENTS`, about this router: how long it took.
    fn done(&self, router: &Router, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let mut command = self.registry.command(arguments);
        command.env("SWITCHBACK_ADMIN", format!("http://{}", router.admin)).env("SWITCHBACK_TOKEN_FILE", router.token_file());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?}\n{}", said(&output), router.log());
        println!("{arguments:?}: {:?}", began.elapsed());
        began.elapsed()
    }
}

fn query() -> Value {
    let rows: Vec<f64> = (0..80).map(|place| f64::from(place % 13) / 7.0 - 0.9).collect();
    json!({ "inputs": [{ "name": "input", "shape": [10, 8], "datatype": "FP32", "data": rows }] })
}

/// The version that answers users.
fn answers(router: &Router) -> String {
    let text = query().to_string();
    let request =
        format!("POST {INFER} HTTP/1.1\r\nhost: search.test\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
    let answer = http::raw(router.traffic, &request).unwrap();
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    body["model_version"].as_str().unwrap().to_owned()
}

#[test]
fn an_mlserver_behind_every_pool_loses_no_query() {
    let site = Site::start();
    let router = site.router();
    let load = Load { body: query().to_string().into(), path: INFER, ..Load::new(router.traffic, 20) }.start();
    load.wait_for(40);
    assert_eq!(answers(&router), "1");
    let deploy = |name: &str, more: &[&str]| {
        let file = site.model(name);
        let arguments = ["deploy", "--route", "search", "--model", "search", "--file", file.to_str().unwrap(), "--timeout", "5m"];
        site.done(&router, &[&arguments, more].concat())
    };
    let deployed = deploy("v2", &["--wait"]);
    assert_eq!(answers(&router), "2");
    let back = site.done(&router, &["rollback", "search", "--why", "users complain"]);
    eventually("the first version answers", SOON, || (answers(&router) == "1").then_some(()));
    // An operator does not wait for evidence.
    deploy("v3", &[]);
    site.done(&router, &["rollout", "promote", "search", "--full"]);
    eventually("it is live", SOON, || (router.route()["rollout"]["phase"] == "done").then_some(()));
    assert_eq!(answers(&router), "3");
    let again = site.done(&router, &["rollback", "search", "--to", "search:2"]);
    assert_eq!(answers(&router), "2");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}\n{}", router.log());
    let text = format!(
        "# MLServer behind every pool: the last run that was kept\n\n{}. MLServer 1.7.1 with its LightGBM runtime, one for each of blue, green and canary.\n\
         `make mlserver`\n\n| what | time |\n|---|---|\n| `switchback deploy --file v2.txt --wait`: pushed, validated, loaded twice, two steps, live, baked | {:.1} s |\n\
         | `switchback rollback`: to the version that its colour still has | {:.2} s |\n| `switchback rollback --to search:2`: to a version that no server has | {:.1} s |\n\n\
         {} queries of 10 documents, none failed; p50 {:.0} ms, p99 {:.0} ms.\n",
        provenance(),
        deployed.as_secs_f64(),
        back.as_secs_f64(),
        again.as_secs_f64(),
        report.sent,
        report.quantile(0.5).as_secs_f64() * 1e3,
        report.quantile(0.99).as_secs_f64() * 1e3,
    );
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("mlserver/report.md"), text).unwrap();
}
