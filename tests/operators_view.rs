//! What an operator is told while flags change: one line for each change, who obeys it, and what is amiss with a policy or a reason.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::json;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Router, Setup, binary, eventually};

const SOON: Duration = Duration::from_secs(10);

fn redis() -> RedisServer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(RedisServer::start()).unwrap()
}

fn two_colours(blue: &Backend, green: &Backend) -> Setup {
    Setup::default().pool("blue", &[blue]).pool("green", &[green])
}

/// `flag watch`, and its lines as they come.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(router: &Router) -> Watching {
        let mut child = router.cli().args(["flag", "watch", "search"]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Watching { child, lines }
    }

    /// The next line, without its time.
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(SOON).unwrap();
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "no time in {line}");
        rest.to_owned()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_change_is_one_line_with_who_and_what() {
    let (server, blue, green) = (redis(), Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).redis(&server.url()).start();
    let edit = |field: &str, value: &str| server.cli(&["HSET", "{switchback:search}:flags", field, value]).unwrap();
    let epoch = || router.route()["epoch"].as_u64().unwrap();
    let first = epoch();
    let watching = Watching::start(&router);
    assert_eq!(watching.next(), format!("search epoch {first}: live blue"));
    router.set_flags(&["live=green", "--why", "v42 is good"]);
    assert_eq!(watching.next(), format!("search epoch {}, local-operator: live: blue -> green (v42 is good)", first + 1));
    edit("live", "blue");
    assert_eq!(watching.next(), format!("search epoch {}, external: live: green -> blue (external edit)", first + 2));
    // Quicker than anybody reads.
    for percent in 1..=5 {
        router.set_flags(&[&format!("mirror_percent={percent}")]);
    }
    for percent in 1..=5 {
        let old = if percent == 1 { "-".to_owned() } else { (percent - 1).to_string() };
        let expected = format!("search epoch {}, local-operator: mirror_percent: {old} -> {percent}", first + 2 + percent);
        assert_eq!(watching.next(), expected);
    }
    edit("pin", "purple");
    let said = [watching.next(), watching.next()];
    assert!(said.iter().any(|line| line.starts_with("search not obeyed: pin = purple: must be ")), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("external: pin: - -> purple (external edit)")), "{said:?}");
    router.set_flags(&["--unset", "pin"]);
    let said = [watching.next(), watching.next()];
    assert!(said.iter().any(|line| line == "search in order again: pin"), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("local-operator: pin: purple -> -")), "{said:?}");
    router.set_flags(&["freeze=true"]);
    assert_eq!(watching.next(), format!("search epoch {}, local-operator: freeze: - -> true", epoch()), "and nothing between");
}

#[test]
fn a_router_that_was_not_heard_since_a_flip_is_not_said_to_be_behind() {
    let (server, blue, green) = (redis(), Backend::start("blue"), Backend::start("green"));
    let start = |id: &str| {
        let state = format!("router_id = \"{id}\"\nheartbeat_interval = \"10s\"\nrouter_timeout = \"60s\"");
        two_colours(&blue, &green).redis(&server.url()).state(&state).start()
    };
    let (other, router) = (start("other"), start("asked"));
    let status = || router.run(&["status"]).1;
    eventually("both are known", SOON, || status().contains("2 router(s), all on epoch").then_some(()));
    for pool in ["green", "blue", "green"] {
        router.set_flags(&[&format!("live={pool}")]);
        let epoch = router.route()["epoch"].as_u64().unwrap();
        let all = format!("2 router(s), all on epoch {epoch}");
        // Well before the next heartbeat, and never a word against a router that obeys.
        eventually("both are heard", Duration::from_secs(5), || {
            let status = status();
            let line = status.lines().find(|line| line.contains("router(s)")).unwrap().trim().to_owned();
            let is_honest = line == all || line == format!("2 router(s), not heard since epoch {epoch}: other");
            assert!(is_honest, "{line}, while the other is on {}", other.route()["applied_epoch"]);
            (line == all).then_some(())
        });
    }
}

#[test]
fn a_policy_that_is_not_there_is_warned_of_and_written() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).start();
    let (code, _, warned) = router.run(&["flag", "set", "search", "split_policy=nosuch"]);
    assert_eq!(code, 0, "{warned}");
    assert!(
        warned.contains("warning: split_policy nosuch is not put in force, the policy split-weighted goes on: no plugin \"nosuch\""),
        "{warned}"
    );
    assert_eq!(router.run(&["flag", "get", "search", "split_policy"]).1, "nosuch\n");
    let (code, _, warned) = router.run(&["flag", "set", "search", "rollback_policy=nosuch"]);
    let warning = "warning: rollback_policy nosuch is not put in force, the one before it goes on judging: no plugin \"nosuch\"";
    assert!(code == 0 && warned.contains(warning), "{warned}");
    let (code, _, warned) = router.run(&["flag", "set", "search", "rollback_policy=split-rules"]);
    assert!(code == 0 && warned.contains("rollback_policy split-rules is not put in force"), "{warned}");
    let (code, _, warned) = router.run(&["flag", "set", "search", "rollback_policy=rollback-threshold", "holdback_percent=5"]);
    assert!(code == 0 && !warned.contains("rollback_policy"), "{warned}");
    assert!(warned.contains("holdback_percent does nothing until holdback_pool names another pool than live"), "{warned}");
    assert_eq!(router.run(&["flag", "set", "search", "holdback_percent="]).0, 0);
    let (code, _, warned) = router.run(&["flag", "set", "search", "split_policy=split-rules"]);
    assert_eq!((code, warned.as_str()), (0, ""));
}

#[test]
fn a_split_policy_of_the_config_that_is_not_there_is_in_the_log() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).route("split_policy = \"nosuch\"").env("RUST_LOG", "no such=filter=really").start();
    eventually("both warnings", SOON, || {
        let log = router.log();
        let has = |words: &[&str]| log.lines().any(|line| line.contains("WARN") && words.iter().all(|word| line.contains(word)));
        (has(&["split policy not put in force", "nosuch", "search"]) && has(&["RUST_LOG cannot be read"])).then_some(())
    });
    assert_eq!(router.log().matches("split policy not put in force").count(), 1, "said once");
}

/// Written by hand: the API refuses such a change.
#[test]
fn a_holdback_that_is_cut_is_shown_as_it_is_obeyed() {
    let (redis, blue, green) = (redis(), Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).redis(&redis.url()).start();
    let fields = ["candidate_pool", "green", "canary_percent", "70", "holdback_pool", "green", "holdback_percent", "60"];
    redis.cli(&[&["HSET", "{switchback:search}:flags"], &fields[..]].concat()).unwrap();
    let route = eventually("the edit is obeyed", SOON, || Some(router.route()).filter(|route| route["canary_percent"] == 70.0));
    assert_eq!(route["holdback_percent"], 30.0, "{route}");
    assert!(route["warnings"][0].as_str().unwrap().contains("written as 60"), "{route}");
    let (_, page, _) = router.run(&["status"]);
    assert!(page.contains("holdback 30 % on green") && page.contains("written as 60"), "{page}");
}

/// With `--json` a command that fails says so on standard output too, and exits as it does without.
#[test]
fn failures_come_as_json_too() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).start();
    let folder = tempfile::tempdir().unwrap();
    let (bad_plugin, bad_config) = (folder.path().join("bad.wasm"), folder.path().join("bad.toml"));
    std::fs::write(&bad_plugin, "no plugin").unwrap();
    std::fs::write(&bad_config, "[listen]\n").unwrap();
    let (bad_plugin, bad_config) = (bad_plugin.display().to_string(), bad_config.display().to_string());
    std::fs::write(router.config(), "[listen]\n").unwrap();
    let traffic = format!("http://{}", router.traffic);
    let cases: [(&[&str], i32, &str, &str); 10] = [
        (&["flag", "get", "nosuch"], 64, "no such route", ""),
        (&["flag", "get", "search", "pin"], 2, "pin is not set", ""),
        (&["flag", "set", "search", "live=purple"], 2, "live", "faults"),
        (&["flag", "set", "search", "freeze=true", "--if-epoch", "999"], 2, "epoch", "found"),
        (&["policy", "push", &bad_plugin], 2, "refused: ", ""),
        (&["policy", "remove", "nosuch"], 64, "no plugin", ""),
        (&["reload"], 64, "the config is refused", "problems"),
        (&["config", "show", &bad_config], 64, "the config is refused", "problems"),
        (&["status", "--admin", "http://127.0.0.1:1"], 69, "cannot be reached", ""),
        (&["status", "--admin", &traffic], 64, "this is no Switchback admin listener: http://", ""),
    ];
    for (arguments, code, error, detail) in cases {
        let (without, nothing, _) = router.run(arguments);
        assert_eq!((without, nothing.as_str()), (code, ""), "{arguments:?}");
        let (with, said, _) = router.run(&[arguments, &["--json"]].concat());
        let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{arguments:?}: {wrong}: {said:?}"));
        assert_eq!(with, code, "{arguments:?}: {said}");
        assert!(said["error"].as_str().unwrap().contains(error), "{arguments:?}: {said}");
        assert!(detail.is_empty() || !said[detail].is_null(), "{arguments:?} lacks {detail}: {said}");
    }
}

#[test]
fn a_router_whose_file_is_broken_is_reached_as_the_refusal_says() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).start();
    std::fs::write(router.config(), "[listen]\n").unwrap();
    let config = router.config().display().to_string();
    let (code, _, said) = router.run(&["status", "--config", &config]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("the config is refused") && said.trim_end().ends_with("--admin URL --data-dir FOLDER"), "{said}");
    let json = router.run(&["status", "--config", &config, "--json"]).1;
    assert!(!json.contains("--data-dir"), "{json}");
    let (admin, data_dir) = (format!("http://{}", router.admin), router.data_dir.display().to_string());
    let output = Command::new(binary()).args(["flag", "set", "search", "live=green", "--admin", &admin, "--data-dir", &data_dir]).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn a_shipped_policy_that_the_limits_refuse_says_which_limit() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).top("[policies]\nmemory = \"1MiB\"").start();
    let policy = router.route()["policies"][0].clone();
    let why = policy["why"].as_str().unwrap();
    assert_eq!((&policy["state"], &policy["answered_by"]), (&"native".into(), &"native".into()), "{policy}");
    assert!(
        why.starts_with("the limits in [policies] are too tight for the shipped split-weighted: ") && why.contains("memory"),
        "{policy}"
    );
    let (_, _, warned) = router.run(&["flag", "set", "search", "freeze=true"]);
    assert!(
        warned.contains("split_policy split-weighted is not put in force, native decisions go on: the limits in [policies]"),
        "{warned}"
    );
    let (_, listed, _) = router.run(&["policy", "list"]);
    assert!(listed.contains("split-weighted") && listed.contains("refused"), "{listed}");
}

/// What people read of a reason, in the ledger, a log or a terminal, is one line, and nothing that a terminal obeys.
#[test]
fn a_reason_is_one_line_wherever_it_is_given() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = two_colours(&blue, &green).start();
    let before = router.route()["epoch"].clone();
    let body = json!({ "why": "it ranks\u{1b}[2J worse" }).to_string();
    for path in ["rollback", "rollout", "rollout/pause", "experiments/big/stop"] {
        let (status, answer) = router.admin("POST", &format!("/api/v1/routes/search/{path}"), body.as_bytes());
        let error = answer["error"].as_str().unwrap();
        assert!(status == 400 && error.starts_with(r"why: the control character \u{1b} after 8 characters"), "{path}: {status} {error}");
    }
    for arguments in [
        &["flag", "set", "search", "pin=blue"][..],
        &["rollback", "search"],
        &["rollback", "search", "--to", "search:1"],
        &["rollout", "start", "search"],
        &["rollout", "pause", "search"],
        &["rollout", "promote", "search"],
        &["rollout", "retire", "search"],
        &["experiment", "stop", "search", "big"],
        &["experiment", "create", "search", "big", "--percent", "20", "--arm", "a=live", "--arm", "b=green"],
    ] {
        let (code, told, error) = router.run(&[arguments, &["--why", "one\rtwo", "--json"]].concat());
        let says = r"--why: the control character \r after 3 characters";
        assert!(code == 64 && error.contains(says) && told.contains("--why: the control character"), "{arguments:?}: {code} {told}{error}");
    }
    assert_eq!(router.route()["epoch"], before, "nothing was written");
}
