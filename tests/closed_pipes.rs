//! The promise: a command whose output nobody reads (`| head -0`) ends quietly, and its exit code still says what it found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use switchback_tests::registry::Registry;
use switchback_tests::{Backend, Router, Setup, binary, eventually, guests, http, ranker};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// The exit codes with standard output closed, and with standard error closed as well. A panic would be 101.
fn codes(command: impl Fn() -> Command, arguments: &[&str]) -> (i32, i32) {
    let quiet = command().args(arguments).stdout(closed()).output().unwrap();
    let said = String::from_utf8_lossy(&quiet.stderr).into_owned();
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    let deaf = command().args(arguments).stdout(closed()).stderr(closed()).status().unwrap();
    (quiet.status.code().unwrap(), deaf.code().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn commands_that_look_at_files_end_with_their_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (good, bad) = (file("good.wasm", &guests::variant_of_split_weighted(1)), file("bad.wasm", b"no plugin"));
    let config = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[[route]]\nname = \"search\"\n\
                  [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let (config, broken) = (file("good.toml", config.as_bytes()), file("broken.toml", b"[listen]\ntraffic = 1\n"));
    let key = file("key", "k".repeat(32).as_bytes());
    let cases: &[(&[&str], i32)] = &[
        (&["--help"], 0),
        (&["--version"], 0),
        (&["nonsense"], 64),
        (&["policy", "check", text(&good)], 0),
        (&["policy", "check", "--json", text(&good)], 0),
        (&["policy", "check", text(&bad)], 2),
        (&["policy", "check", "--json", text(&bad)], 2),
        (&["policy", "check", "--json", "no such file"], 64),
        (&["policy", "check", "--config", text(&broken), text(&good)], 64),
        (&["policy", "bench", "--seconds", "0.1", text(&good)], 0),
        (&["policy", "bench", "--seconds", "0.1", "--json", text(&good)], 0),
        (&["policy", "bench", "--json", text(&bad)], 2),
        (&["config", "check", text(&config)], 0),
        (&["config", "check", "--json", text(&config)], 0),
        (&["config", "check", text(&broken)], 64),
        (&["config", "check", "--json", text(&broken)], 64),
        (&["config", "show", text(&config)], 0),
        (&["config", "show", "--json", text(&config)], 0),
        (&["config", "show", text(&broken)], 64),
        (&["override", "--key-file", text(&key), "--route", "search", "--pool", "blue", "--for", "1m"], 0),
        (&["serve", "--config", text(&broken)], 64),
        (&["ranker", "--model", "no such file"], 64),
        (&["status", "--admin", "http://127.0.0.1:1"], 69),
    ];
    for (arguments, expected) in cases {
        assert_eq!(codes(|| Command::new(binary()), arguments), (*expected, *expected), "{arguments:?}");
    }
}

#[test]
fn commands_that_ask_a_router_end_with_their_verdict() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router: Router = Setup::default().pool("blue", &[&blue]).pool("green", &[&green]).start();
    let plugin = router.data_dir.join("mine.wasm");
    std::fs::write(&plugin, guests::variant_of_split_weighted(1)).unwrap();
    let cases: &[(&[&str], i32)] = &[
        (&["status"], 0),
        (&["status", "--json"], 0),
        (&["status", "--watch"], 0),
        (&["flag", "get", "search"], 0),
        (&["flag", "get", "search", "--json"], 0),
        (&["flag", "get", "search", "live"], 0),
        (&["flag", "get", "search", "pin"], 2),
        (&["flag", "set", "search", "live=green"], 0),
        (&["flag", "set", "search", "live=purple"], 2),
        (&["flag", "watch", "search"], 0),
        (&["flag", "watch", "search", "--json"], 0),
        (&["policy", "push", text(&plugin)], 0),
        (&["policy", "list"], 0),
        (&["policy", "list", "--json"], 0),
        (&["policy", "shadow", "search"], 0),
        (&["policy", "remove", "nobody"], 64),
        (&["reload"], 0),
        (&["reload", "--json"], 0),
    ];
    for (arguments, expected) in cases {
        assert_eq!(codes(|| router.cli(), arguments), (*expected, *expected), "{arguments:?}");
    }
    let is_admitted = || router.run(&["policy", "list"]).1.lines().any(|line| line.contains("mine") && line.contains(" admitted"));
    eventually("what was pushed is there", Duration::from_secs(20), || is_admitted().then_some(()));
    let shadow = ["policy", "shadow", "search", "mine", "--for", "1s", "--percent", "1", "--watch"];
    assert_eq!(codes(|| router.cli(), &shadow), (0, 0));
    // What they were told to do is done.
    assert_eq!(router.route()["live"], "green");
    assert!(router.policies_dir().join("mine.wasm").exists());
}

#[test]
fn commands_that_ask_a_registry_end_with_their_verdict() {
    let registry = Registry::in_folder();
    // More than a pipe and a buffer hold.
    let model = registry.file("model", &vec![b'x'; 1 << 20]);
    assert_eq!(registry.model(&["push", text(&model), "--model", "search", "--format", "opaque"]).0, 0);
    let cases: &[(&[&str], i32)] = &[
        (&["model", "list"], 0),
        (&["model", "list", "search", "--json"], 0),
        (&["model", "show", "search"], 0),
        (&["model", "pull", "search", "--to", "-"], 0),
        (&["model", "pull", "search", "--to", "out"], 0),
        (&["model", "pull", "nothing", "--to", "-"], 2),
    ];
    for (arguments, expected) in cases {
        assert_eq!(codes(|| registry.command(&[]), arguments), (*expected, *expected), "{arguments:?}");
    }
    let quiet = registry.command(&["model", "pull", "search", "--to", "-"]).stdout(closed()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&quiet.stderr), "");
}

#[test]
fn a_ranker_whose_first_line_nobody_reads_serves_all_the_same() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let model = ranker::demo("models/ranker_v2.onnx");
    let mut command = Command::new(binary());
    command.args(["ranker", "--listen", &address.to_string(), "--model", text(&model)]).stdout(closed()).stderr(closed());
    let mut child = command.spawn().unwrap();
    eventually("it serves", Duration::from_secs(20), || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        (http::get(address, "/v2/health/ready").ok()?.0 == 200).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}
