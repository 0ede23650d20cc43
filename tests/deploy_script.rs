//! The promise: `scripts/deploy_model.sh` is what cron or a CI job needs: it checks what it is given, lets one deployment at a time to a route, and ends as the
//! deployment ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use switchback_tests::deploy::{PLAN, Site, not_a_number};
use switchback_tests::registry::said;
use switchback_tests::{binary, eventually};

const SOON: Duration = Duration::from_secs(30);

fn script() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/deploy_model.sh"))
}

/// It, in a folder of its own, with this program as `switchback`.
fn command(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new(script());
    command.env("SWITCHBACK", program).env("DEPLOY_LOCK_DIR", folder).current_dir(folder).stdin(Stdio::null());
    command
}

/// A program in switchback's place.
fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn shellcheck_finds_nothing() {
    let tools = binary().parent().and_then(Path::parent).unwrap().join("tools/shellcheck");
    let install = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/install_test_tools.sh");
    assert!(Command::new(install).arg("shellcheck").arg(&tools).status().unwrap().success());
    let own = tools.join("bin/shellcheck");
    let checker = if own.exists() { own } else { PathBuf::from("shellcheck") };
    let (code, found, error) = said(&Command::new(checker).arg(script()).output().unwrap());
    assert_eq!(code, 0, "{found}{error}");
}

#[test]
fn it_is_helped_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, good) = (folder.path(), folder.path().join("model.onnx"));
    let (good, program) = (good.to_str().unwrap(), program(folder, "switchback", "exit 0"));
    fs::write(good, "a model").unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let (code, help, _) = said(&command(folder, &program).arg("--help").output().unwrap());
    for word in ["cron, every night", "GitHub Actions", "GitLab", "DEPLOY_TIMEOUT", "SWITCHBACK_TOKEN_FILE", "Exit codes: 0 live"] {
        assert!(code == 0 && help.contains(word), "{word}: {help}");
    }
    let base = ["--route", "search", "--model", "search"];
    for (arguments, says) in [
        (&["--model", "search", good][..], "--route is missing"),
        (&["--route", "search", good], "--model is missing"),
        (&base, "file is missing"),
        (&["--route", "a/b", "--model", "search", good], "--route a/b: must be letters"),
        (&[&base[..], &["missing"]].concat(), "missing: there is no such file"),
        (&[&base[..], &["empty"]].concat(), "empty: it is empty"),
        (&[&base[..], &[good, good]].concat(), "one file at a time"),
        (&[&base[..], &["--steps", "1,5", good]].concat(), "--steps: an option that is passed on must be like --option=value"),
        (&[&base[..], &["--wait", good]].concat(), "DEPLOY_TIMEOUT says how long"),
        (&["--route"], "--route needs a value"),
    ] {
        let (code, told, error) = said(&command(folder, &program).args(arguments).output().unwrap());
        assert!(code == 64 && told.is_empty() && error.contains(says), "{arguments:?}: {code} {told}{error}");
    }
    let nowhere = folder.join("nowhere");
    let (code, _, error) = said(&command(folder, &nowhere).args(base).arg(good).output().unwrap());
    assert!(code == 69 && error.contains("there is no such program"), "{error}");
    let (code, _, error) = said(&command(folder, &program).env("DEPLOY_LOCK_DIR", &nowhere).args(base).arg(good).output().unwrap());
    assert!(code == 69 && error.contains("DEPLOY_LOCK_DIR says where else"), "{error}");
    let (code, _, error) = said(&command(folder, &program).env("DEPLOY_LOG", nowhere.join("log")).args(base).arg(good).output().unwrap());
    assert!(code == 64 && error.contains("it cannot be written"), "{error}");
}

#[test]
fn it_ends_as_the_deployment_ended_and_logs_each_line_with_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, log) = (folder.path(), folder.path().join("log"));
    fs::write(folder.join("a model.onnx"), "a model").unwrap();
    let line = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ deploy_model: ").unwrap();
    for (code, says) in
        [(0, "is live on search"), (2, "users have the model before it"), (69, "exit code 69"), (75, "the same call attaches to it")]
    {
        let text = format!("for word in \"$@\"; do echo \"<$word>\"; done; printf 'no end of line' >&2; exit {code}");
        let program = program(folder, "program", &text);
        let mut command = command(folder, &program);
        command.args(["--steps=1,5", "--route=search", "--model=search", "--why=two words", "a model.onnx"]);
        let (is, told, error) = said(&command.env("DEPLOY_LOG", &log).env("DEPLOY_TIMEOUT", "5h").output().unwrap());
        assert!(is == code && told.is_empty() && error.contains(says), "{is}: {told}{error}");
        assert!(error.lines().all(|said| line.is_match(said)), "{error}");
        let words: Vec<&str> =
            error.lines().filter_map(|said| said.split_once(": <").map(|(_, word)| word.trim_end_matches('>'))).collect();
        let expected = ["deploy", "--route", "search", "--model", "search", "--file", "a model.onnx", "--wait", "--timeout", "5h"];
        assert_eq!(words, [&expected[..], &["--steps=1,5", "--why=two words"]].concat());
        assert!(error.contains("no end of line\n") && fs::read_to_string(&log).unwrap().ends_with(&error), "{error}");
    }
}

#[test]
fn one_at_a_time_and_a_signal_is_passed_on() {
    let site = Site::start(PLAN);
    site.runs("search:2");
    let folder = tempfile::tempdir().unwrap();
    let (folder, log) = (folder.path(), folder.path().join("log"));
    let run = |route: &str, program: &Path| {
        let mut command = site.at(command(folder, program));
        command.env("SWITCHBACK_CONFIG", site.registry.path("switchback.toml")).env("DEPLOY_LOG", &log);
        command.args(["--route", route, "--model", "search"]).arg(site.model("ranker_v2.onnx"));
        command
    };
    let at_once = program(folder, "at_once", "exit 0");
    let mut first = run("search", &binary()).stderr(Stdio::null()).spawn().unwrap();
    let told = || fs::read_to_string(&log).unwrap_or_default();
    eventually("it began", SOON, || told().contains("the rollout of search:2 began").then_some(()));
    let (code, _, error) = said(&run("search", &at_once).output().unwrap());
    assert!(code == 75 && error.contains("another deployment to search is under way"), "{code}: {error}");
    assert_eq!(run("shop", &at_once).output().unwrap().status.code(), Some(0), "another route");
    assert!(Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap().success());
    assert_eq!(first.wait().unwrap().code(), Some(130), "{}", told());
    assert!(told().contains("the rollout goes on by itself"), "{}", told());
    assert_eq!(run("search", &at_once).output().unwrap().status.code(), Some(0), "the lock is free");
}

#[test]
fn it_deploys() {
    let site = Site::with_users(PLAN);
    site.runs("search:2");
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], file: &Path| {
        let mut command = site.at(command(folder.path(), &binary()));
        command.env("SWITCHBACK_CONFIG", site.registry.path("switchback.toml")).env("USER", "ann").env("DEPLOY_TIMEOUT", "90s");
        said(&command.args(["--route", "search", "--model", "search"]).args(arguments).arg(file).output().unwrap())
    };
    let good = site.model("ranker_v2.onnx");
    let (code, _, error) = run(&["--dry-run"], &good);
    assert!(code == 0 && error.contains("a rollout of the next version of search would begin") && error.contains("dry run"), "{error}");
    assert_eq!((site.versions(), site.rollouts()), (vec![1], 0));
    let (code, _, error) = run(&["--why=tonight's model"], &good);
    assert!(code == 0 && error.contains("search:2 is live on search: canary step 1"), "{code}: {error}");
    let (code, _, error) = run(&[], &not_a_number(&site.registry));
    assert!(code == 2 && error.contains("REFUSED") && error.contains("users have the model before it"), "{code}: {error}");
}

/// What was started for a test in the background, by the process ids in a file.
struct Background(PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        for pid in fs::read_to_string(&self.0).unwrap_or_default().lines() {
            let _ = Command::new("kill").arg(pid).stderr(Stdio::null()).status();
        }
    }
}

/// Its commands, one after the other, on other ports.
#[test]
fn the_guides_first_deployment_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = fs::read_to_string(root.join("docs/model-deployment-guide.md")).unwrap();
    let section = guide.split("\n## ").find(|section| section.starts_with("The first deployment")).unwrap();
    let mut commands: String = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let sockets = [8080, 9090, 9001, 9002, 9003].map(|port| (port, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    for (port, socket) in &sockets {
        commands = commands.replace(&format!("127.0.0.1:{port}"), &socket.local_addr().unwrap().to_string());
    }
    drop(sockets);
    commands = commands.replace("$PWD/target/release", binary().parent().unwrap().to_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let _background = Background(folder.path().join("pids"));
    let out = fs::File::create(folder.path().join("out")).unwrap();
    let mut bash = Command::new("timeout");
    bash.args(["180", "bash", "-euc", &commands]).current_dir(&root).env("FIRST", folder.path()).stdin(Stdio::null());
    for variable in ["SWITCHBACK_ADMIN", "SWITCHBACK_REGISTRY", "SWITCHBACK_TOKEN_FILE"] {
        bash.env_remove(variable);
    }
    let status = bash.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    let told = fs::read_to_string(folder.path().join("out")).unwrap();
    assert!(status.success() && told.contains("search:2 is live on search: loading "), "{told}");
}
