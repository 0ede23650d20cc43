//! The promise: copies of queries are judged before anybody is answered by a candidate. One that fails, or ranks something else, ends there, and no user notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Backend, Behaviour, Load, Router, Running, Setup, eventually, strict};

const SOON: Duration = Duration::from_secs(60);
const AS_LIVE: &[&str] = &["shoe", "boot", "sock", "heel"];
const ANOTHER_FIRST: &[&str] = &["boot", "shoe", "sock", "heel"];

/// A model server that ranks these documents, in this order, whatever it is asked.
fn ranks(ids: &'static [&'static str]) -> SocketAddr {
    strict::listen(move |stream| {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            if reader.read_exact(&mut vec![0; length]).is_err() {
                return;
            }
            let hits: Vec<Value> = ids.iter().map(|id| serde_json::json!({ "id": id })).collect();
            let body = serde_json::json!({ "hits": hits }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            if (&mut reader.get_ref()).write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Blue ranks as v1 and is live; green runs v2. Everything is copied, and so many copies are judged.
fn start(green: SocketAddr, min_samples: u64) -> (Router, Running) {
    let plan = format!(
        "rollout = {{ steps = [\"10\"], mirror_percent = \"100\", mirror = \"1s\", mirror_min_samples = {min_samples} }}\n\
         signals = {{ sample_percent = \"100\", ids = \"/hits/*/id\" }}"
    );
    let setup = Setup::default().pool_at("blue", ranks(AS_LIVE)).pool_keys("version = \"v1\"");
    let router = setup.pool_at("green", green).pool_keys("version = \"v2\"").route(&plan).start();
    let load = Load::new(router.traffic, 150).start();
    (router, load)
}

fn order(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(&[&["rollout"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

/// The rollout, once it is so far.
fn reaches(router: &Router, phase: &str) -> Value {
    eventually(phase, SOON, || Some(router.route()["rollout"].take()).filter(|rollout| rollout["phase"] == phase))
}

/// The ledger's entry of the newest transition of this name.
fn entry(router: &Router, event: &str) -> Value {
    let (status, history) = router.admin("GET", "/api/v1/routes/search/history?limit=20", b"");
    assert_eq!(status, 200, "{history}");
    let entries = history["entries"].as_array().unwrap();
    entries.iter().find(|entry| entry["grounds"]["event"] == event).unwrap_or_else(|| panic!("{event}: {history:#}")).clone()
}

/// It ended for this reason, blue is live as before, and nobody was answered by anybody else.
fn ends(router: &Router, load: Running, why: [&str; 2]) {
    let rollout = reaches(router, "aborted");
    let said = rollout["why"].as_str().unwrap();
    assert!(why.iter().all(|part| said.contains(part)), "{said}");
    let route = router.route();
    assert_eq!((&route["live"], &route["canary_percent"], &route["mirror_percent"]), (&"blue".into(), &0.0.into(), &0.0.into()));
    let (entry, report) = (entry(router, "aborted"), load.stop());
    assert!(entry["why"] == said && entry["grounds"]["copies"]["sent"].as_u64() >= Some(30), "{entry:#}");
    let pools: Vec<&str> = report.by_pool.keys().map(String::as_str).collect();
    assert_eq!((report.failures(), pools), (0, vec!["blue"]), "{report:?}");
}

#[test]
fn a_candidate_that_fails_ends_before_anybody_is_answered_by_it() {
    let green = Backend::start("green");
    green.behave(Behaviour::EveryOther(500));
    let (router, load) = start(green.address, 30);
    order(&router, &["start", "search"]);
    ends(&router, load, ["the copies speak against it: of ", " % failed (at most 1 %)"]);
    assert!(green.arrivals() >= 30);
}

#[test]
fn a_candidate_that_ranks_something_else_first_ends_before_anybody_is_answered_by_it() {
    let (router, load) = start(ranks(ANOTHER_FIRST), 30);
    order(&router, &["start", "search"]);
    let why = ["the copies speak against it: of ", " compared lists 100.0 % have another first result (at most 70 %), Jaccard@10 1.00"];
    ends(&router, load, why);
}

#[test]
fn a_candidate_that_ranks_as_the_live_one_goes_on_and_the_ledger_has_its_numbers() {
    let (router, load) = start(ranks(AS_LIVE), 30);
    order(&router, &["start", "search"]);
    let rollout = reaches(&router, "canary");
    let said = rollout["why"].as_str().unwrap();
    assert!(said.starts_with("the time for copies is over: 0 of "), "{said}");
    assert!(said.contains(" copies failed, another first result for 0.0 % of ") && said.ends_with(" lists, Jaccard@10 1.00"), "{said}");
    let copies = &entry(&router, "step_began")["grounds"]["copies"];
    assert!(copies["sent"].as_u64() >= Some(30) && copies["compared"].as_u64() >= Some(30), "{copies}");
    assert_eq!((&copies["failed"], &copies["top1_changed"]), (&0.into(), &0.into()), "{copies}");
    assert_eq!(router.transitions(), ["v2 mirroring", "v2 canary step 1 of 1 (10 %)"]);
    assert_eq!(load.stop().failures(), 0);
}

#[test]
fn too_few_copies_decide_nothing_and_an_operator_goes_on_without_them() {
    let (router, load) = start(ranks(AS_LIVE), 1_000_000);
    order(&router, &["start", "search"]);
    let rollout = eventually("it waits", SOON, || {
        let rollout = router.route()["rollout"].take();
        rollout["waits_for"].as_str().is_some_and(|waits| waits.ends_with(" of 1000000 copies are over")).then_some(rollout)
    });
    assert_eq!(rollout["plan"]["mirror_gate"]["max_failing"], "1");
    let status = eventually("they are shown", SOON, || {
        Some(order(&router, &["status", "search"]))
            .filter(|status| status.contains("\n    copies: ") && status.contains("(Jaccard@10 1.00)"))
    });
    assert!(status.contains(" sent, 0 failed; another first result in 0.0 % of "), "{status}");
    assert!(order(&router, &["promote", "search", "--why", "night"]).contains("canary step 1 of 1 (10 %)"));
    reaches(&router, "canary");
    assert_eq!(load.stop().failures(), 0);
}
