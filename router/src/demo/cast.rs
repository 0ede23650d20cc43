//! The processes of the demo: three rankers and the router, each this same binary, in a folder that goes away with them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use super::DemoError;
use super::http::Client;
use super::receiver::Receiver;
use super::record::POOLS;
use crate::admin::TOKEN_FILE;

/// The model that stands behind each pool, by [`POOLS`], and its version.
const MODELS: [(&str, &[u8]); 3] = [("1", RANKER_V1), ("2", RANKER_V2), ("2", RANKER_V2)];
const RANKER_V1: &[u8] = include_bytes!("../../demo/models/ranker_v1.onnx");
const RANKER_V2: &[u8] = include_bytes!("../../demo/models/ranker_v2.onnx");
/// What a broken training job makes: v1 upside down.
const BROKEN: &[u8] = include_bytes!("../../demo/models/ranker_inverted.onnx");
/// Its version, on the canary pool from then on.
const BROKEN_VERSION: &str = "3";

/// A rollout of seconds, in two steps: gates that are wide enough to be passed after some hundred queries. All processes share this machine's cores, and wait
/// for each other: differences of latency below a second are the machine's, and not a model's.
const PROFILE: &str = r#"rollout = { steps = ["10", "50"], holdback_percent = "10", bake = "3s" }
rollback_config = { min_samples = 100, min_dwell_seconds = 2, errors = { margin = 0.05, last_margin = 0.05 }, latency = { ignore_below_ms = 1000, margin = 0.2, last_margin = 0.2 }, metrics = { clicks = { relative_margin = 0.2, last_relative_margin = 0.2 } } }
"#;

/// A process that says nothing for so long will not start.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long the router may take to drain.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How often the router is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a process's own words in an error.
const LAST_WORDS: usize = 6;

/// The running processes. Dropping it kills them and removes the folder.
#[derive(Debug)]
pub(super) struct Cast {
    /// By [`POOLS`].
    pub(super) rankers: [SocketAddr; 3],
    /// Where ONNX Runtime was found.
    pub(super) onnxruntime: String,
    /// The router's traffic listener.
    pub(super) traffic: SocketAddr,
    /// Its admin listener.
    pub(super) admin: SocketAddr,
    /// Bearer token of the admin API.
    pub(super) token: String,
    /// Who is told of rollouts.
    pub(super) receiver: Receiver,
    router: Child,
    rankers_running: Vec<Child>,
    /// The children's standard inputs. When these close, also because this process was killed, the children end.
    inputs: Vec<ChildStdin>,
    folder: TempDir,
}

impl Cast {
    /// Starts the rankers, then the router, and waits until it is ready.
    ///
    /// # Errors
    /// When one of them does not start, with its own words.
    pub(super) async fn start() -> Result<Cast, DemoError> {
        let folder = TempDir::with_prefix("switchback-demo-").map_err(DemoError::Folder)?;
        let (mut rankers, mut inputs, mut addresses, mut onnxruntime) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        for (pool, (version, model)) in POOLS.iter().zip(MODELS) {
            let (mut child, announced) = start_ranker(folder.path(), pool, version, model).await?;
            let text = |key: &str| announced.get(key).and_then(Value::as_str).unwrap_or_default();
            let address = text("listening").parse().map_err(|_| DemoError::process("a ranker", "did not say where it listens"))?;
            text("onnxruntime").clone_into(&mut onnxruntime);
            inputs.extend(child.stdin.take());
            rankers.push(child);
            addresses.push(address);
        }
        let rankers_at: [SocketAddr; 3] = addresses.try_into().map_err(|_| DemoError::process("a ranker", "is missing"))?;
        let receiver = Receiver::start().await.map_err(DemoError::Folder)?;
        let (mut router, traffic, admin) = start_router(folder.path(), &rankers_at, receiver.address).await?;
        inputs.extend(router.stdin.take());
        wait_until_ready(admin, folder.path()).await?;
        let token = std::fs::read_to_string(folder.path().join("data").join(TOKEN_FILE)).map_err(DemoError::Folder)?.trim().to_owned();
        Ok(Cast { rankers: rankers_at, onnxruntime, traffic, admin, token, receiver, router, rankers_running: rankers, inputs, folder })
    }

    /// Puts a broken model on the canary pool, as a deployment would: another process with another version, and the router's config with both.
    /// It is in force after the next reload.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn break_canary(&mut self) -> Result<(), DemoError> {
        let (mut child, announced) = start_ranker(self.folder.path(), "broken", BROKEN_VERSION, BROKEN).await?;
        let address = announced.get("listening").and_then(Value::as_str).and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| DemoError::process("a ranker", "did not say where it listens"))?;
        self.inputs.extend(child.stdin.take());
        self.rankers_running.push(child);
        let ([blue, green, _], [(first, _), (second, _), _]) = (self.rankers, MODELS);
        let rankers = [(blue, first), (green, second), (address, BROKEN_VERSION)];
        let text = router_config(&self.folder.path().join("data"), &rankers, self.receiver.address);
        std::fs::write(self.folder.path().join("switchback.toml"), text).map_err(DemoError::Folder)
    }

    /// The folder that the router watches for plugins.
    pub(super) fn plugins(&self) -> PathBuf {
        self.folder.path().join("data").join("policies")
    }

    /// Drains the router as an init system would; whether it ended by itself with success.
    pub(super) async fn drain_router(&mut self) -> bool {
        let Some(id) = self.router.id() else { return false };
        let asked = Command::new("kill").args(["-TERM", &id.to_string()]).status().await;
        if !asked.is_ok_and(|status| status.success()) {
            return false;
        }
        matches!(timeout(DRAIN_WITHIN, self.router.wait()).await, Ok(Ok(status)) if status.success())
    }
}

async fn start_ranker(folder: &Path, pool: &str, version: &str, model: &[u8]) -> Result<(Child, Value), DemoError> {
    let name = format!("ranker-{pool}");
    let file = folder.join(format!("{name}.onnx"));
    std::fs::write(&file, model).map_err(DemoError::Folder)?;
    let mut command = own_binary()?;
    command
        .args(["ranker", "--end-with-stdin", "--listen", "127.0.0.1:0", "--name", "shop", "--version", version, "--json", "--model"])
        .arg(&file);
    let (child, line) = start(command, &name, folder).await?;
    let announced = serde_json::from_str(&line).map_err(|_| DemoError::process(&name, &line))?;
    Ok((child, announced))
}

async fn start_router(
    folder: &Path,
    rankers: &[SocketAddr; 3],
    receiver: SocketAddr,
) -> Result<(Child, SocketAddr, SocketAddr), DemoError> {
    let data = folder.join("data");
    std::fs::create_dir_all(data.join("policies")).map_err(DemoError::Folder)?;
    let config = folder.join("switchback.toml");
    let [blue, green, canary] = *rankers;
    let [(first, _), (second, _), (third, _)] = MODELS;
    let text = router_config(&data, &[(blue, first), (green, second), (canary, third)], receiver);
    std::fs::write(&config, text).map_err(DemoError::Folder)?;
    let mut command = own_binary()?;
    command.args(["serve", "--end-with-stdin", "--config"]).arg(&config);
    let (child, line) = start(command, "router", folder).await?;
    let address = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.trim_start().split([',', ' ', '\n']).next()?.parse().ok()
    };
    match (address("traffic"), address("admin")) {
        (Some(traffic), Some(admin)) => Ok((child, traffic, admin)),
        _ => Err(DemoError::process("router", &line)),
    }
}

/// As an operator would write it, but for ports that are given out by the system, quick health checks, clicks that are mature after 3 s (the demo's
/// users do not hesitate), and steps that take seconds: the demo profile.
fn router_config(data: &Path, rankers: &[(SocketAddr, &str); 3], receiver: SocketAddr) -> String {
    let mut text = format!(
        "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\n[state]\ndata_dir = {:?}\n\n\
         [evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"3s\"\n\n\
         [[notify]]\nname = \"demo\"\nurl = \"http://{receiver}/\"\n\n\
         [[route]]\nname = \"search\"\nmatch = {{ path_prefix = \"/\" }}\nunit = [\"header:x-user-id\", \"client-address\"]\n\
         expose = [\"pool\"]\nsplit_policy = \"split-weighted\"\n{PROFILE}",
        data.display().to_string()
    );
    for (pool, (address, version)) in POOLS.iter().zip(rankers) {
        let pool = format!(
            "\n[route.pools.{pool}]\nendpoints = [\"http://{address}\"]\nversion = \"v{version}\"\nhealth = {{ interval = \"250ms\" }}\n"
        );
        text.push_str(&pool);
    }
    text
}

fn own_binary() -> Result<Command, DemoError> {
    let binary = std::env::current_exe().map_err(DemoError::Binary)?;
    let mut command = Command::new(binary);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// Starts a process and returns the first line that it prints.
async fn start(mut command: Command, name: &str, folder: &Path) -> Result<(Child, String), DemoError> {
    let log = std::fs::File::create(log_file(folder, name)).map_err(DemoError::Folder)?;
    let mut child = command.stderr(log).spawn().map_err(DemoError::Binary)?;
    let Some(stdout) = child.stdout.take() else { return Err(DemoError::process(name, "has no output")) };
    let mut line = String::new();
    let read = timeout(START_WITHIN, BufReader::new(stdout).read_line(&mut line)).await;
    match read {
        Ok(Ok(length)) if length > 0 => Ok((child, line)),
        _ => Err(DemoError::process(name, &last_words(folder, name))),
    }
}

async fn wait_until_ready(admin: SocketAddr, folder: &Path) -> Result<(), DemoError> {
    let deadline = Instant::now() + START_WITHIN;
    let mut client = Client::new(admin);
    while Instant::now() < deadline {
        let answer = client.send(Method::GET, "/readyz", &[], Bytes::new()).await;
        if answer.is_ok_and(|answer| answer.status == StatusCode::OK) {
            return Ok(());
        }
        sleep(ASK_EVERY).await;
    }
    Err(DemoError::process("router", &format!("was not ready in time\n{}", last_words(folder, "router"))))
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn last_words(folder: &Path, name: &str) -> String {
    let log = std::fs::read_to_string(log_file(folder, name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
    if tail.is_empty() { "ended without a word".to_owned() } else { tail.join("\n") }
}
