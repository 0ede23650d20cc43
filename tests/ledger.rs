//! The promise: the ledger says who served whom at any moment and why, and whoever touches it is found out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::{Behaviour, Load, Router, eventually};

const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "{switchback:search}:ledger";

fn verify(router: &Router) -> (i32, Value) {
    let (code, out, error) = router.run(&["ledger", "verify", "search", "--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")))
}

fn explain(router: &Router, arguments: &[&str]) -> Value {
    let (code, out, error) = router.run(&[&["explain", "search", "--json"], arguments].concat());
    assert_eq!(code, 0, "{out}{error}");
    serde_json::from_str(&out).unwrap()
}

fn shares(told: &Value) -> Vec<String> {
    let serves = told["serves"].as_array().unwrap().iter();
    serves
        .map(|serves| {
            format!("{} {} {}", serves["percent"].as_str().unwrap(), serves["pool"].as_str().unwrap(), serves["version"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn whoever_touches_the_ledger_is_found_out() {
    let fleet = Fleet::start();
    let [one, other] = fleet.routers(&fleet.redis.url(), "", "");
    for percent in ["1", "2", "3"] {
        one.set_flags(&[&format!("canary_percent={percent}")]);
        fleet.redis.cli(&["HSET", "{switchback:search}:flags", "flag.by_hand", percent]).unwrap();
        eventually("the edit is adopted", SOON, || {
            let flags = fleet.redis.cli(&["HGET", "{switchback:search}:sealed", "flag.by_hand"]).unwrap();
            (flags.trim() == percent).then_some(())
        });
    }
    let (code, whole) = verify(&other);
    assert_eq!((code, &whole["is_whole"], &whole["is_from_the_beginning"]), (0, &true.into(), &true.into()), "{whole:#}");
    assert_eq!((&whole["first_epoch"], &whole["last_epoch"], &whole["entries"]), (&1.into(), &7.into(), &7.into()));
    let head = whole["head"].as_str().unwrap();
    assert_eq!(one.run(&["ledger", "verify", "search", "--head", head]).0, 0);
    assert_eq!(one.run(&["ledger", "verify", "search", "--head", "00"]).0, 2);
    let script = "local kept = redis.call('XRANGE', KEYS[1], '-', '+') \
                  local at, what = tonumber(ARGV[1]), ARGV[2] \
                  redis.call('DEL', KEYS[1]) \
                  for i, entry in ipairs(kept) do \
                    local text = entry[2][2] \
                    if i == at and what == 'change' then text = string.gsub(text, 'local%-operator', 'some-body-else') text = string.gsub(text, 'external edit', 'internal edit') text = string.gsub(text, 'reseed', 'change') end \
                    if not (i == at and what == 'remove') then redis.call('XADD', KEYS[1], entry[1], 'entry', text) end \
                  end";
    let dump =
        fleet.redis.cli(&["--raw", "EVAL", "return redis.call('COPY', KEYS[1], KEYS[2])", "2", KEY, "{switchback:search}:kept"]).unwrap();
    assert_eq!(dump.trim(), "1");
    for at in 1..=7 {
        for what in ["change", "remove"] {
            fleet.redis.cli(&["EVAL", script, "1", KEY, &at.to_string(), what]).unwrap();
            let (code, found) = verify(&one);
            assert_eq!((code, &found["is_whole"]), (2, &false.into()), "{what} {at}: {found:#}");
            let back = "return redis.call('COPY', KEYS[2], KEYS[1], 'REPLACE')";
            fleet.redis.cli(&["EVAL", back, "2", KEY, "{switchback:search}:kept"]).unwrap();
        }
    }
    assert_eq!(verify(&one).0, 0);
    // It goes on where it was.
    other.set_flags(&["canary_percent=4"]);
    let (code, whole) = verify(&one);
    assert_eq!((code, &whole["last_epoch"]), (0, &8.into()), "{whole:#}");
    // A hash that was noted is found later, too.
    assert_eq!(one.run(&["ledger", "verify", "search", "--head", head]).0, 0);
    // Entries that come after the newest one was taken out, or changed, do not hide it; nor does a ledger that begins anew.
    const HEAD: &str = "{switchback:search}:ledger-head";
    let take = "redis.call('XDEL', KEYS[1], redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1])";
    let anew = "redis.call('DEL', KEYS[1], KEYS[2])";
    let copy =
        |from: &str, to: &str| fleet.redis.cli(&["EVAL", "return redis.call('COPY', KEYS[1], KEYS[2], 'REPLACE')", "2", from, to]).unwrap();
    for tamper in [take, script, anew] {
        assert_eq!(verify(&one).0, 0);
        let (kept, head) = ("{switchback:search}:kept", fleet.redis.cli(&["GET", HEAD]).unwrap());
        copy(KEY, kept);
        let newest = fleet.redis.cli(&["XLEN", KEY]).unwrap();
        fleet.redis.cli(&["EVAL", tamper, "2", KEY, HEAD, &newest, "change"]).unwrap();
        other.set_flags(&["canary_percent=5"]);
        let (code, found) = verify(&one);
        assert_eq!(code, 2, "{tamper}: {found:#}");
        // As it was, and one change more, which the ledger knows.
        copy(kept, KEY);
        fleet.redis.cli(&["SET", HEAD, &head]).unwrap();
        other.set_flags(&["canary_percent=6"]);
    }
}

#[test]
fn it_says_who_served_whom_and_why() {
    let fleet = Fleet::start();
    let quick = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
    let [one, other] = fleet.routers(&fleet.redis.url(), quick, "breaker = { enabled = false }");
    let load = Load::new(one.traffic, 200).start();
    assert_eq!(shares(&explain(&one, &[])), ["100 blue v1"]);
    fleet.pools[2].behave(Behaviour::EveryOther(500));
    one.set_flags(&["canary_percent=30", "--why", "a try"]);
    let tried = explain(&other, &[]);
    assert_eq!((shares(&tried), &tried["why"]), (vec!["70 blue v1".to_owned(), "30 canary v2".to_owned()], &"a try".into()));
    eventually("it is rolled back", SOON, || (one.route()["canary_percent"] == 0.0).then_some(()));
    let back = explain(&other, &[]);
    assert_eq!(
        (shares(&back), &back["kind"], &back["grounds"]["event"]),
        (vec!["100 blue v1".to_owned()], &"rollback".into(), &"rolled_back".into())
    );
    assert_eq!((&back["grounds"]["candidate"], &back["grounds"]["evidence"]["verdict"]), (&"v2".into(), &"roll_back".into()));
    assert!(back["grounds"]["policy"].as_str().unwrap().starts_with("rollback-guardrail@"), "{back:#}");
    // The moment before.
    let (since, tried_since) = (back["since_ms"].as_u64().unwrap(), tried["since_ms"].as_u64().unwrap());
    let (status, before) = other.admin("GET", &format!("/api/v1/routes/search/explain?time_ms={}", since - 1), b"");
    assert_eq!((status, shares(&before), &before["until_ms"]), (200, shares(&tried), &since.into()));
    let (status, before) = other.admin("GET", &format!("/api/v1/routes/search/explain?time_ms={}", tried_since - 1), b"");
    assert_eq!((status, shares(&before)), (200, vec!["100 blue v1".to_owned()]));
    let (status, error) = other.admin("GET", "/api/v1/routes/search/explain?time_ms=1", b"");
    assert!(
        status == 410 && error["error"].as_str().unwrap().contains("does not go back to 1970-01-01T00:00:00.001Z: its oldest entry is of"),
        "{error}"
    );
    let (code, said, _) = one.run(&["explain", "search"]);
    assert!(
        code == 0 && said.contains("  100 % on blue, which runs v1\n") && said.contains("(rollout rolled back): roll back: errors"),
        "{said}"
    );
    let (code, _, error) = one.run(&["explain", "search", "--time", "yesterday"]);
    assert!(code == 64 && error.contains("must be like 2026-08-01T09:30:00Z"), "{error}");
    let (code, _, error) = one.run(&["explain", "search", "--ago", "2h"]);
    assert!(code == 2 && error.contains("does not go back"), "{error}");
    drop(load.stop());
}

#[test]
fn alone_it_is_the_same() {
    let fleet = Fleet::start();
    let folder = tempfile::tempdir().unwrap();
    let router = fleet.setup("").data_dir(folder.path()).start();
    router.set_flags(&["canary_percent=5"]);
    router.set_flags(&["canary_percent=6"]);
    let (code, whole) = verify(&router);
    assert_eq!((code, &whole["entries"], &whole["problems"]), (0, &3.into(), &Value::Array(vec![])), "{whole:#}");
    assert_eq!(shares(&explain(&router, &[])), ["94 blue v1", "6 canary v2"]);
    let path = folder.path().join("flags/search.ledger.jsonl");
    let good = std::fs::read_to_string(&path).unwrap();
    for (at, bad) in [
        (0, good.replacen("\"5\"", "\"7\"", 1)),
        (1, good.replacen("\"6\"", "\"7\"", 1)),
        (2, good.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()),
    ] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(verify(&router).0, 2, "{at}");
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(verify(&router).0, 0);
    // An entry that comes after the newest one was taken out, or all of them, does not hide it.
    for left in [2, 0] {
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, good.lines().take(left).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        router.set_flags(&["canary_percent=7"]);
        router.set_flags(&["canary_percent=8"]);
        assert_eq!(verify(&router).0, 2, "{left} were left");
    }
}
