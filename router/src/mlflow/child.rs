//! The processes that push and deploy a candidate: this program again, with the router's config. What they say goes into the router's log.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::candidates::{Ended, Outcome};
use super::wish::Wish;

/// Lines of one process that are logged; further ones are read, and dropped.
const LINES: usize = 200;
/// The longest line.
const LINE_BYTES: u64 = 4_096;
/// The most that is kept of what one says to programs: a manifest has 256 KiB.
const SAID_BYTES: u64 = 4 << 20;
/// Exit codes that say that it is another matter later: somebody is away, or something else is under way.
const FOR_NOW: [i32; 2] = [69, 75];
/// What belongs to the router alone: its sockets, its supervisor, and what would go over its config.
const NOT_FOR_CHILDREN: [&str; 11] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "SWITCHBACK_ADMIN",
    "SWITCHBACK_TOKEN_FILE",
    "SWITCHBACK_REGISTRY",
    "SWITCHBACK_CONFIG",
    "SWITCHBACK_HANDOVER",
];

/// What is run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) program: PathBuf,
    /// The router's.
    pub(super) config_file: PathBuf,
}

/// Why a process did not do it.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Late,
    /// With the end of what it said.
    Because(String),
    /// The same, and it may be another matter later: who it needs is away, or busy.
    ForNow(String),
}

/// How one try ended.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) outcome: Outcome,
    /// Another try may end otherwise.
    pub(super) is_for_now: bool,
}

/// Pushes what the alias points to, and begins its rollout.
pub(super) async fn deploy(program: &Program, wish: &Wish) -> Tried {
    let (until, candidate, mut version) = (Instant::now() + wish.timeout, wish.from().to_string(), None);
    let begun = begin(program, wish, until, &mut version).await;
    let is_for_now = matches!(begun, Err(Failed::ForNow(_)));
    let (result, why) = match begun {
        Ok(()) => (Ended::Deployed, None),
        Err(Failed::Late) => (Ended::Late, Some(format!("it took longer than mlflow.timeout, {:?}", wish.timeout))),
        Err(Failed::Because(why) | Failed::ForNow(why)) => {
            (if version.is_some() { Ended::NotDeployed } else { Ended::NotPushed }, Some(why))
        }
    };
    Tried { outcome: Outcome { candidate, version, result, why }, is_for_now }
}

async fn begin(program: &Program, wish: &Wish, until: Instant, version: &mut Option<u64>) -> Result<(), Failed> {
    let (route, candidate) = (wish.route.as_str(), wish.from().to_string());
    tracing::info!(route, candidate, "a candidate of MLflow's is pushed");
    let said = run(program, push_arguments(wish), (route, until)).await?;
    let pushed = version_of(&said).ok_or_else(|| Failed::Because("it named no version".to_owned()))?;
    *version = Some(pushed);
    tracing::info!(route, candidate, version = pushed, "a candidate of MLflow's is deployed");
    run(program, deploy_arguments(wish, pushed), (route, until)).await.map(|_| ())
}

fn push_arguments(wish: &Wish) -> Vec<String> {
    let from = wish.from().to_string();
    let said = ["model", "push", "--from-mlflow", &from, "--model", &wish.alias.registry_model, "--mlflow-url", &wish.url, "--json"];
    said.map(str::to_owned).to_vec()
}

fn deploy_arguments(wish: &Wish, version: u64) -> Vec<String> {
    let (version, why) = (version.to_string(), format!("{} was set in MLflow", wish.from()));
    let if_busy = format!("--if-busy={}", wish.alias.if_busy.label());
    let model = wish.alias.registry_model.as_str();
    let said = [
        "deploy",
        "--route",
        &wish.route,
        "--model",
        model,
        "--version",
        &version,
        &if_busy,
        "--why",
        &why,
        "--admin",
        &wish.admin,
        "--json",
    ];
    let before = wish.before.iter().map(|before| format!("--before={before}"));
    said.map(str::to_owned).into_iter().chain(before).collect()
}

/// The version of a manifest.
fn version_of(said: &[u8]) -> Option<u64> {
    let said: Value = serde_json::from_slice(said).ok()?;
    said.get("version").and_then(Value::as_u64)
}

/// Runs it to its end, and answers what it said on standard output. It is killed when this is dropped.
async fn run(program: &Program, arguments: Vec<String>, (route, until): (&str, Instant)) -> Result<Vec<u8>, Failed> {
    let because = |error: std::io::Error| Failed::Because(format!("{}: {error}", program.program.display()));
    let mut command = Command::new(&program.program);
    command.args(arguments.iter().map(OsString::from)).arg("--config").arg(&program.config_file);
    for name in NOT_FOR_CHILDREN {
        command.env_remove(name);
    }
    if std::env::var_os("SWITCHBACK_WHO").is_none() {
        command.env("SWITCHBACK_WHO", "mlflow");
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = spawned.map_err(because)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failed::Because("no pipes".to_owned()));
    };
    let ended = timeout_at(until, async {
        let (said, last) = tokio::join!(whole(stdout), log(stderr, route));
        (said, last, child.wait().await)
    });
    let Ok((said, last, status)) = ended.await else {
        // Whether or not: it is killed when it is dropped, too.
        let _ = tokio::time::timeout(Duration::from_secs(5), child.kill()).await;
        return Err(Failed::Late);
    };
    let status = status.map_err(because)?;
    let why = || format!("{status}: {last}");
    match status.code() {
        Some(0) => Ok(said),
        Some(code) if FOR_NOW.contains(&code) => Err(Failed::ForNow(why())),
        _ => Err(Failed::Because(why())),
    }
}

/// As much as may be kept; the rest is read all the same, so that nobody waits for it to be.
async fn whole(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    // A pipe that breaks is at its end.
    let _ = (&mut from).take(SAID_BYTES).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    said
}

/// Into the log, and the last line to whoever asks why.
async fn log(from: impl AsyncRead + Unpin, route: &str) -> String {
    let (mut reader, mut line, mut last) = (BufReader::new(from), Vec::new(), String::new());
    for _ in 0..LINES {
        line.clear();
        match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            tracing::info!(route, "{text}");
            last = text;
        }
    }
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    last
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::config::{MlflowAlias, MlflowIfBusy};

    /// A program that writes down what it is asked, and does what a test says for each of the two commands.
    pub(in super::super) fn program(folder: &Path, push: &str, deploy: &str) -> Program {
        let script = format!(
            "#!/bin/sh\necho \"$SWITCHBACK_WHO: $*\" >> {}/asked\ncase $1 in model) {push};; deploy) {deploy};; esac\n",
            folder.display()
        );
        let path = folder.join("program");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Program { program: path, config_file: PathBuf::from("/etc/switchback.toml") }
    }

    pub(in super::super) fn wish(timeout: Duration) -> Wish {
        let alias = MlflowAlias {
            model: "Query Ranker".to_owned(),
            alias: "champion".to_owned(),
            registry_model: "ranker".to_owned(),
            if_busy: MlflowIfBusy::Supersede,
        };
        let (route, url, admin) = ("search".to_owned(), "http://mlflow:5000".to_owned(), "http://127.0.0.1:9090".to_owned());
        Wish { route, alias, url, admin, timeout, delivery: None, before: None }
    }

    async fn ends(push: &str, deploy: &str) -> (Outcome, String) {
        let folder = tempfile::tempdir().unwrap();
        let tried = self::deploy(&program(folder.path(), push, deploy), &wish(Duration::from_secs(60))).await;
        (tried.outcome, std::fs::read_to_string(folder.path().join("asked")).unwrap())
    }

    #[tokio::test]
    async fn a_candidate_is_pushed_and_then_its_version_is_deployed() {
        let (outcome, asked) = ends("echo '{\"version\": 7}'", "echo fine").await;
        assert_eq!((outcome.result, outcome.version, outcome.why), (Ended::Deployed, Some(7), None));
        let expected = [
            "mlflow: model push --from-mlflow models:/Query Ranker@champion --model ranker --mlflow-url http://mlflow:5000 --json --config /etc/switchback.toml",
            "mlflow: deploy --route search --model ranker --version 7 --if-busy=supersede --why models:/Query Ranker@champion was set in MLflow --admin http://127.0.0.1:9090 --json --config /etc/switchback.toml",
        ];
        assert_eq!(asked.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_live_when_it_was_named_is_said_in_every_try() {
        let wish = Wish { before: Some("ranker:3".to_owned()), ..wish(Duration::from_secs(60)) };
        assert_eq!(deploy_arguments(&wish, 4).last().unwrap(), "--before=ranker:3");
    }

    #[tokio::test]
    async fn how_it_ended_is_told_apart() {
        for push in ["echo away >&2; exit 69", "echo nonsense", "echo '{}'", "kill -KILL $$"] {
            let (outcome, asked) = ends(push, "true").await;
            assert_eq!((outcome.result, outcome.version, asked.lines().count()), (Ended::NotPushed, None, 1), "{push}");
        }
        let (outcome, _) = ends("echo '{\"version\": 7}'", "echo busy >&2; exit 2").await;
        assert_eq!((outcome.result, outcome.version), (Ended::NotDeployed, Some(7)));
        assert!(outcome.why.unwrap().ends_with(": busy"));
        let nowhere = Program { program: PathBuf::from("/nowhere/switchback"), config_file: PathBuf::new() };
        let tried = self::deploy(&nowhere, &wish(Duration::from_secs(60))).await;
        assert_eq!((tried.outcome.result, tried.is_for_now), (Ended::NotPushed, false));
        for (exit, is_for_now) in [("exit 69", true), ("exit 75", true), ("exit 2", false), ("exit 64", false)] {
            let folder = tempfile::tempdir().unwrap();
            let tried = self::deploy(&program(folder.path(), exit, "true"), &wish(Duration::from_secs(60))).await;
            assert_eq!((tried.outcome.result, tried.is_for_now), (Ended::NotPushed, is_for_now), "{exit}");
        }
    }

    #[tokio::test]
    async fn one_that_hangs_or_never_stops_talking_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (limit, began) = (Duration::from_millis(300), Instant::now());
        for push in ["exec sleep 600", "exec yes", "exec yes >&2"] {
            assert_eq!(self::deploy(&program(folder.path(), push, "true"), &wish(limit)).await.outcome.result, Ended::Late, "{push}");
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
