//! The processes of the demo: three rankers and the router, each this same binary, in a folder with a registry that goes away with them.

use std::ffi::OsStr;
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
use super::job::{Job, look_for_tools};
use super::profile::{registry_url, router_config};
use super::receiver::Receiver;
use super::record::POOLS;
use crate::admin::TOKEN_FILE;

/// What runs at the beginning.
const RANKER_V1: &[u8] = include_bytes!("../../demo/models/ranker_v1.onnx");
/// Slightly better.
pub(super) const RANKER_V2: &[u8] = include_bytes!("../../demo/models/ranker_v2.onnx");
/// What a broken training job makes: it ranks upside down.
pub(super) const BROKEN: &[u8] = include_bytes!("../../demo/models/ranker_inverted.onnx");
/// Beside the models that the nightly job offers.
const JUDGED: &str = "judged.jsonl";
/// Folders below the demo's: where the job is called, and what is only there for a while.
const JOBS: &str = "nightly";
const TEMPORARY: &str = "tmp";
/// Settings of this program and of the script, which might be about routers of somebody else.
const FOREIGN: [&str; 2] = ["SWITCHBACK_", "DEPLOY_"];

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
    _rankers_running: Vec<Child>,
    /// The children's standard inputs. When these close, also because this process was killed, the children end.
    _inputs: Vec<ChildStdin>,
    folder: TempDir,
}

impl Cast {
    /// Fills the registry, starts the rankers and then the router, and waits until it is ready. `judged` are the judged queries, a line each.
    ///
    /// # Errors
    /// When something that the demo calls is missing, or one of them does not start, with its own words.
    pub(super) async fn start(judged: &str) -> Result<Cast, DemoError> {
        look_for_tools()?;
        let folder = TempDir::with_prefix("switchback-demo-").map_err(DemoError::Folder)?;
        for name in [JOBS, TEMPORARY] {
            std::fs::create_dir(folder.path().join(name)).map_err(DemoError::Folder)?;
        }
        place(folder.path(), JUDGED, judged.as_bytes())?;
        place(folder.path(), "ranker.onnx", RANKER_V1)?;
        let why = "what runs today";
        done(folder.path(), &["model", "push", "ranker.onnx", "--model", "search", "--alias", "champion", "--why", why]).await?;
        let (mut rankers, mut inputs, mut addresses, mut onnxruntime) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        for pool in POOLS {
            let (mut child, announced) = start_ranker(folder.path(), pool).await?;
            let text = |key: &str| announced.get(key).and_then(Value::as_str).unwrap_or_default();
            let address = text("listening").parse().map_err(|_| DemoError::process("a ranker", "did not say where it listens"))?;
            text("onnxruntime").clone_into(&mut onnxruntime);
            inputs.extend(child.stdin.take());
            rankers.push(child);
            addresses.push(address);
        }
        done(folder.path(), &["model", "validate", "search:1", "--judged", JUDGED]).await?;
        let rankers_at: [SocketAddr; 3] = addresses.try_into().map_err(|_| DemoError::process("a ranker", "is missing"))?;
        let receiver = Receiver::start().await.map_err(DemoError::Folder)?;
        let (mut router, traffic, admin) = start_router(folder.path(), &rankers_at, receiver.address).await?;
        inputs.extend(router.stdin.take());
        wait_until_ready(admin, folder.path()).await?;
        let token = std::fs::read_to_string(folder.path().join("data").join(TOKEN_FILE)).map_err(DemoError::Folder)?.trim().to_owned();
        Ok(Cast {
            rankers: rankers_at,
            onnxruntime,
            traffic,
            admin,
            token,
            receiver,
            router,
            _rankers_running: rankers,
            _inputs: inputs,
            folder,
        })
    }

    /// The nightly job begins with this model; `judges` says whether it has judged queries.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_job(&self, file: &str, model: &[u8], judges: bool) -> Result<Job, DemoError> {
        let folder = self.folder.path();
        place(folder, file, model)?;
        let mut command = own_environment("sh", folder);
        command.env("SWITCHBACK", std::env::current_exe().map_err(DemoError::Binary)?);
        command.env("SWITCHBACK_CONFIG", folder.join("switchback.toml")).env("SWITCHBACK_ADMIN", format!("http://{}", self.admin));
        command.env("DEPLOY_LOCK_DIR", folder).env("DEPLOY_TIMEOUT", "5m");
        let options: Vec<String> = judges.then(|| format!("--judged={JUDGED}")).into_iter().collect();
        Job::start(command, &folder.join(JOBS), &options, file)
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

/// Into the folder from which the job is called.
fn place(folder: &Path, name: &str, content: &[u8]) -> Result<(), DemoError> {
    std::fs::write(folder.join(JOBS).join(name), content).map_err(DemoError::Folder)
}

/// Runs this binary until it has done something.
async fn done(folder: &Path, arguments: &[&str]) -> Result<(), DemoError> {
    let mut command = own_binary(folder)?;
    let ended = command.args(arguments).current_dir(folder.join(JOBS)).stdin(Stdio::null()).output().await.map_err(DemoError::Binary)?;
    let name = || format!("switchback {}", arguments.get(..2).unwrap_or_default().join(" "));
    if ended.status.success() { Ok(()) } else { Err(DemoError::process(&name(), &String::from_utf8_lossy(&ended.stderr))) }
}

async fn start_ranker(folder: &Path, pool: &str) -> Result<(Child, Value), DemoError> {
    let name = format!("ranker-{pool}");
    let mut command = own_binary(folder)?;
    command.args(["ranker", "--end-with-stdin", "--listen", "127.0.0.1:0", "--name", "search", "--serve", "1", "--json", "--state"]);
    command.arg(folder.join(format!("{name}.json")));
    let (child, line) = start(command, &name, folder).await?;
    let announced = serde_json::from_str(&line).map_err(|_| DemoError::process(&name, &line))?;
    Ok((child, announced))
}

async fn start_router(
    folder: &Path,
    rankers: &[SocketAddr; 3],
    receiver: SocketAddr,
) -> Result<(Child, SocketAddr, SocketAddr), DemoError> {
    std::fs::create_dir_all(folder.join("data").join("policies")).map_err(DemoError::Folder)?;
    let config = folder.join("switchback.toml");
    std::fs::write(&config, router_config(folder, rankers, receiver)).map_err(DemoError::Folder)?;
    let mut command = own_binary(folder)?;
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

fn own_binary(folder: &Path) -> Result<Command, DemoError> {
    let mut command = own_environment(std::env::current_exe().map_err(DemoError::Binary)?, folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// A command that knows the demo's registry, leaves nothing outside of its folder, and nobody else's settings.
fn own_environment(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if FOREIGN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.env("SWITCHBACK_REGISTRY", registry_url(folder)).env("SWITCHBACK_WHO", "nightly job").env("TMPDIR", folder.join(TEMPORARY));
    command
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
