//! The promise: what a fleet knows of a candidate is what happened, judged once, by whichever router is there; and it can be judged again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(30);
const ROUTE: &str = "initial = { live = \"blue\", canary_percent = \"50\" }\nobserve_only = true\nexpose = [\"pool\"]";
/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"3s\"\nhistory = \"5s\"";

fn setup(blue: &Backend, canary: &Backend) -> Setup {
    Setup::default().pool("blue", &[blue]).pool("canary", &[canary]).workers(2).route(ROUTE).top(QUICK)
}

fn board(router: &Router) -> Value {
    let (status, body) = http::get(router.admin, "/api/v1/routes/search/evidence").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn evidence(router: &Router) -> Option<Value> {
    Some(board(router)["evidence"].clone()).filter(Value::is_object)
}

fn metric<'v>(evidence: &'v Value, id: &str) -> &'v Value {
    evidence["metrics"].as_array().unwrap().iter().find(|metric| metric["metric"] == id).unwrap_or(&Value::Null)
}

/// Observations of candidate and control.
fn requests(evidence: &Value) -> [u64; 2] {
    ["candidate", "control"].map(|role| metric(evidence, "errors")[role]["n"].as_u64().unwrap_or(0))
}

/// The logs of the newest rollout in a data folder.
fn logs(data_dir: &std::path::Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data_dir.join("windows/search"));
    let mut logs: Vec<PathBuf> = folder.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    logs
}

/// What the policy as native code makes of recorded windows: the last line of JSON.
fn replayed(logs: &[PathBuf]) -> Value {
    let mut command = std::process::Command::new(switchback_tests::binary());
    command.args(["policy", "simulate", "rollback-guardrail", "--native", "--json", "--replay"]).args(logs);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{out}{err}");
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// What both say of each metric: the same to the last bit.
fn assert_same(shown: &Value, replayed: &Value) {
    for said in replayed["evidence"].as_array().unwrap() {
        let mine = match said["metric"].as_str().unwrap() {
            "rollout" => {
                assert_eq!(shown["log_harm"], said["log_harm"]);
                continue;
            }
            id => metric(shown, id),
        };
        for field in ["log_harm", "log_safe", "difference"] {
            assert_eq!(mine[field], said[field], "{}: {mine:#} {said:#}", said["metric"]);
        }
    }
}

#[test]
fn a_candidate_that_fails_is_found_out_and_a_recorded_run_says_the_same() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let folder = tempfile::tempdir().unwrap();
    let router = setup(&blue, &canary).data_dir(folder.path()).start();
    let load = Load::new(router.traffic, 200).start();
    let good = eventually("a good candidate is held", SOON, || evidence(&router).filter(|evidence| evidence["verdict"] == "hold"));
    assert!(good["log_harm"].as_f64().unwrap() < 1.0, "{good:#}");
    assert_eq!((&good["candidate"]["pools"][0], &good["control"]["pools"][0]), (&"canary".into(), &"blue".into()));
    canary.behave(Behaviour::Status(503));
    let bad = eventually("it is found out", SOON, || evidence(&router).filter(|evidence| evidence["verdict"] == "roll_back"));
    assert!(bad["log_harm"].as_f64().unwrap() >= bad["threshold_log"].as_f64().unwrap(), "{bad:#}");
    assert!(bad["summary"].as_str().unwrap().starts_with("roll back: errors"), "{bad:#}");
    // It is shown to people and to Prometheus, and nothing acts on it yet.
    let status = router.run(&["status"]).1;
    assert!(status.contains("evidence against canary (control blue)") && status.contains("roll back: errors"), "{status}");
    assert!(router.metric("switchback_evidence_log", &["metric=\"rollout\""]) >= router.metric("switchback_evidence_threshold_log", &[]));
    assert_eq!(router.metric("switchback_verdict", &["verdict=\"roll_back\""]), 1.0);
    assert_eq!(router.route()["canary_percent"], 50.0);
    let policies = router.route()["policies"].clone();
    assert_eq!((&policies[1]["kind"], &policies[1]["state"]), (&"rollback".into(), &"in_force".into()), "{policies:#}");
    load.stop();
    router.set_flags(&["canary_percent=0"]);
    let over = eventually("it is over", SOON, || evidence(&router).filter(|evidence| evidence["is_over"] == true));
    let recorded = eventually("its windows are recorded", SOON, || {
        let again = replayed(&logs(folder.path()));
        let judged = over["windows"]["traffic"].as_u64().unwrap() + over["windows"]["engagement"].as_u64().unwrap();
        (again["windows"].as_u64() == Some(judged)).then_some(again)
    });
    assert_eq!((&recorded["verdict"], &recorded["failures"]), (&"roll back".into(), &0.into()));
    assert_same(&over, &recorded);
}

/// Two routers share what they count; one of them judges, and when it is killed the other goes on. Nothing is judged twice.
#[test]
fn a_fleet_judges_what_it_counted_whoever_dies() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |folder: &tempfile::TempDir, id: &str| {
        let router = setup(&blue, &canary).redis(&redis.url()).data_dir(folder.path()).state(&format!("router_id = \"{id}\"")).start();
        eventually("the flags are heard", SOON, || (router.route()["canary_percent"] == 50.0).then_some(()));
        router
    };
    let [mut one, other] = [(&folders[0], "one"), (&folders[1], "other")].map(|(folder, id)| start(folder, id));
    // From its first whole second on, and so before the first query.
    eventually("the comparison has begun", SOON, || evidence(&other));
    let loads: Vec<_> = [&one, &other].map(|router| Load::new(router.traffic, 200).start()).into();
    let judge = eventually("somebody judges", SOON, || evidence(&other).filter(|evidence| requests(evidence)[0] > 300));
    assert_eq!(metric(&judge, "errors")["log_harm"], metric(&evidence(&one).unwrap(), "errors")["log_harm"], "both know the same");
    let mut reports: Vec<_> = loads.into_iter().map(switchback_tests::Running::stop).collect();
    // What was counted is told before the judge dies.
    let told = |router: &Router| {
        let (_, body) = http::get(router.admin, "/api/v1/routes/search/quality/fleet?seconds=600").unwrap();
        let versions = serde_json::from_str::<Value>(&body).unwrap()["versions"].clone();
        versions.as_array().unwrap().iter().map(|counts| counts["requests"].as_u64().unwrap()).sum::<u64>()
    };
    eventually("it is told", SOON, || (told(&other) == reports.iter().map(|report| report.sent).sum::<u64>()).then_some(()));
    let was_one = judge["judge"] == "one";
    let mut other = other;
    let (dies, lives) = if was_one { (&mut one, &other) } else { (&mut other, &one) };
    dies.kill();
    let load = Load::new(lives.traffic, 200).start();
    load.wait_for(1_000);
    reports.push(load.stop());
    let mut truth = [0_u64; 2];
    for report in &reports {
        assert_eq!(report.failures(), 0, "{report:?}");
        truth[0] += report.by_pool["canary"];
        truth[1] += report.by_pool["blue"];
    }
    let heir = if was_one { "other" } else { "one" };
    let all = eventually("the other one has judged everything", SOON, || {
        evidence(lives).filter(|evidence| requests(evidence) == truth && evidence["judge"] == heir)
    });
    lives.set_flags(&["canary_percent=0"]);
    let over = eventually("it is over", SOON, || evidence(lives).filter(|evidence| evidence["is_over"] == true));
    assert_eq!(requests(&over), truth, "{all:#}");
    let both = || folders.iter().flat_map(|folder| logs(folder.path())).collect::<Vec<_>>();
    let recorded = eventually("its windows are recorded", SOON, || {
        let again = replayed(&both());
        let judged = over["windows"]["traffic"].as_u64().unwrap() + over["windows"]["engagement"].as_u64().unwrap();
        (again["windows"].as_u64() == Some(judged)).then_some(again)
    });
    assert_same(&over, &recorded);
}

/// While the store is away nothing is judged, and that is said; when it is back, with nothing in it, the evidence goes on where it was.
#[test]
fn an_outage_of_the_store_loses_no_evidence() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = setup(&blue, &canary).redis(&redis.url()).start();
    eventually("the comparison has begun", SOON, || evidence(&router));
    let load = Load::new(router.traffic, 200).start();
    eventually("it is judged", SOON, || evidence(&router).filter(|evidence| requests(evidence)[0] > 100));
    redis.kill().unwrap();
    eventually("nothing is judged", SOON, || board(&router)["away"].is_string().then_some(()));
    assert_eq!(router.metric("switchback_judging", &[]), 0.0);
    load.wait_for(load.sent() + 400);
    runtime.block_on(redis.restart_empty()).unwrap();
    load.wait_for(load.sent() + 400);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    let truth = [report.by_pool["canary"], report.by_pool["blue"]];
    let all = eventually("everything is judged", SOON, || evidence(&router).filter(|evidence| requests(evidence) == truth));
    assert_eq!(all["failures"], 0, "{all:#}");
}

/// Whatever somebody writes into Redis: it is named, it is left out or replaced, and the judging goes on.
#[test]
fn garbage_in_the_store_stops_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = setup(&blue, &canary).redis(&redis.url()).start();
    let traffic = || evidence(&router).map_or(0, |evidence| evidence["windows"]["traffic"].as_u64().unwrap());
    let goes_on = |what: &str| {
        let before = traffic();
        eventually(what, SOON, || (traffic() > before + 1).then_some(()));
    };
    eventually("the comparison has begun", SOON, || evidence(&router));
    let load = Load::new(router.traffic, 200).start();
    let kept = "{switchback:search}:evidence";
    for revision in ["18446744073709551614", "18446744073709551615", "99999999999999999999", "281474976710656", "abc", "-1", ""] {
        redis.cli(&["HSET", kept, "revision", revision]).unwrap();
        goes_on(&format!("revision {revision:?}"));
    }
    redis.cli(&["HSET", kept, "record", "garbage"]).unwrap();
    goes_on("a record that is none");
    // The page of this moment is somebody else's, and so is a field of the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let page = |number: u64| format!("{{switchback:search}}:quality:{number}");
    redis.cli(&["SET", &page(now / 10 + 1), "x"]).unwrap();
    redis.cli(&["HSET", &page(now / 10 + 2), "evil.traffic", "garbage"]).unwrap();
    eventually("both are named", SOON, || {
        let faults = board(&router)["faults"].to_string();
        (faults.contains("is no hash") || faults.contains("evil")).then_some(())
    });
    goes_on("pages that are none");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    let all = evidence(&router).unwrap();
    assert_eq!(all["failures"], 0, "{all:#}");
    assert!(!router.log().contains("panicked"), "{}", router.log());
}

/// A failover to a replica that is behind brings an older record back: the routers know better, and no window is judged a second time.
#[test]
fn an_older_record_in_the_store_does_not_come_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = setup(&blue, &canary).redis(&redis.url()).start();
    eventually("the comparison has begun", SOON, || evidence(&router));
    let (kept, old) = ("{switchback:search}:evidence", "{switchback:search}:old");
    let load = Load::new(router.traffic, 200).start();
    eventually("it is judged", SOON, || evidence(&router).filter(|evidence| requests(evidence)[0] > 100));
    assert_eq!(redis.cli(&["COPY", kept, old]).unwrap().trim(), "1");
    let newer = eventually("more is judged", SOON, || evidence(&router).filter(|evidence| requests(evidence)[0] > 500));
    assert_eq!(redis.cli(&["COPY", old, kept, "REPLACE"]).unwrap().trim(), "1");
    let report = load.stop();
    let truth = [report.by_pool["canary"], report.by_pool["blue"]];
    let windows = newer["windows"]["traffic"].as_u64();
    let all = eventually("everything is judged, once", SOON, || {
        let now = evidence(&router)?;
        assert!(now["windows"]["traffic"].as_u64() >= windows, "it does not go back: {now:#}");
        Some(now).filter(|evidence| requests(evidence) == truth)
    });
    assert_eq!(all["failures"], 0, "{all:#}");
}

/// A live model without a candidate is compared with itself some seconds ago: it alerts when it gets worse.
#[test]
fn a_live_model_that_gets_worse_alerts() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = setup(&blue, &canary).route("").start();
    router.set_flags(&["canary_percent=0"]);
    let load = Load::new(router.traffic, 200).start();
    let history = || Some(board(&router)["history"].clone()).filter(Value::is_object);
    eventually("it is compared", SOON, || {
        history().filter(|history| history["metrics"].as_array().unwrap().iter().any(|metric| metric["control"]["n"].as_u64() > Some(400)))
    });
    assert!(history().unwrap()["log_harm"].as_f64().unwrap() < 2.0, "{:#}", board(&router));
    blue.behave(Behaviour::Status(500));
    eventually("it alerts", SOON, || history().filter(|history| history["log_harm"].as_f64() > Some(4.7)));
    assert!(router.metric("switchback_history_evidence_log", &["metric=\"rollout\""]) > 4.0);
    eventually("it is logged", SOON, || router.log().contains("the live model is worse than it was").then_some(()));
    assert!(router.run(&["status"]).1.contains("is worse than it was"), "{}", router.run(&["status"]).1);
    load.stop();
}
