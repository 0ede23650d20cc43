//! The promise: experiments split who they should, count every arm to the unit over the whole fleet, and an arm that does harm is stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(60);
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"3s\"";
const ROUTE: &str = "initial = { live = \"blue\" }\nexpose = [\"pool\", \"arm\"]";

/// Live, candidate, and two pools for experiments.
fn backends() -> [Backend; 4] {
    ["blue", "green", "exp", "other"].map(Backend::start)
}

fn setup([blue, green, exp, other]: &[Backend; 4]) -> Setup {
    let setup = Setup::default().pool("blue", &[blue]).pool_keys("version = \"v1\"").pool("green", &[green]).pool_keys("version = \"v2\"");
    let setup = setup.pool("exp", &[exp]).pool_keys("version = \"v7\"").pool("other", &[other]).pool_keys("version = \"v8\"");
    setup.workers(2).top(QUICK).route(ROUTE)
}

/// Two routers of one fleet.
fn fleet(redis: &RedisServer, backends: &[Backend; 4]) -> [Router; 2] {
    fleet_with(redis, backends, "")
}

/// The same, with more keys of the route.
fn fleet_with(redis: &RedisServer, backends: &[Backend; 4], route: &str) -> [Router; 2] {
    let start = |id: &str| setup(backends).route(route).of_a_fleet().redis(&redis.url()).state(&format!("router_id = {id:?}")).start();
    let routers = ["one", "two"].map(start);
    for router in &routers {
        eventually("both are known", SOON, || (router.route()["routers"].as_array().unwrap().len() == 2).then_some(()));
    }
    routers
}

fn redis() -> (tokio::runtime::Runtime, RedisServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    (runtime, redis)
}

/// What is done by the CLI, and works.
fn run(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(&[&["experiment"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

fn refused(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(&[&["experiment"], arguments].concat());
    assert_ne!(code, 0, "{arguments:?}: {said}");
    error
}

fn experiment(router: &Router, name: &str) -> Value {
    let (status, body) = router.admin("GET", &format!("/api/v1/routes/search/experiments/{name}"), b"");
    assert_eq!(status, 200, "{body}");
    body
}

/// A user's query: the pool that answered, the arm (empty without one), and the token.
fn ask(router: &Router, user: &str) -> [String; 3] {
    let request = format!("GET /search HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\nconnection: close\r\n\r\n");
    let answer = http::raw(router.traffic, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    ["x-switchback-pool: ", "x-switchback-arm: ", "x-switchback-token: "].map(field)
}

fn click(router: &Router, token: &str) {
    let body = json!({ "action_name": "click", "query_id": token }).to_string();
    let post = format!("POST /_switchback/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = http::raw(router.traffic, &post).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("\"counted\":1"), "{answer}");
}

/// Requests, impressions and clicks by arm.
type Truth = BTreeMap<String, [u64; 3]>;

/// What the fleet counted of the arms of an experiment.
fn counted(router: &Router, name: &str) -> Truth {
    let report = experiment(router, name);
    let arms = report["evidence"]["arms"].as_array().cloned().unwrap_or_default();
    let count = |arm: &Value| ["requests", "impressions", "clicks"].map(|key| arm[key].as_u64().unwrap());
    arms.iter().map(|arm| (format!("{name}/{}", arm["arm"].as_str().unwrap()), count(arm))).collect()
}

const ALL: [&str; 3] = ["big", "more", "late"];

/// Two experiments in layers of their own, and one in the rollout's.
fn create_all(router: &Router) {
    let live = "control=live";
    run(
        router,
        &["create", "search", "big", "--percent", "30", "--layer", "ranking", "--arm", live, "--arm", "big=version:v7", "--weights", "1,2"],
    );
    run(router, &["create", "search", "more", "--percent", "40", "--layer", "results", "--arm", live, "--arm", "more=other"]);
    run(
        router,
        &["create", "search", "late", "--percent", "20", "--layer", "rollout", "--arm", live, "--arm", "late=other", "--arm", "later=exp"],
    );
}

fn obey_all(routers: &[Router; 2]) {
    for router in routers {
        eventually("all run", SOON, || {
            let (_, all) = router.admin("GET", "/api/v1/routes/search/experiments", b"");
            let running = all["experiments"].as_array().unwrap().iter().filter(|experiment| experiment["state"] == "running").count();
            (running == ALL.len() && router.route()["applied_epoch"] == router.route()["epoch"]).then_some(())
        });
    }
}

#[test]
fn every_arm_is_counted_to_the_unit_over_the_fleet() {
    let (_runtime, redis) = redis();
    let backends = backends();
    let routers = fleet(&redis, &backends);
    create_all(&routers[0]);
    routers[1].set_flags(&["canary_percent=10", "candidate_pool=green"]);
    obey_all(&routers);
    eventually("the candidate has its share", SOON, || (routers[0].route()["canary_percent"] == 10.0).then_some(()));
    let (mut truth, mut arms, mut candidates) = (Truth::new(), BTreeMap::new(), 0);
    for query in 0..3_000_usize {
        // Each user comes twice, to another router.
        let user = format!("user-{}", query / 2);
        let [pool, arm, token] = ask(&routers[query % 2], &user);
        assert_eq!(
            arms.entry(user).or_insert_with(|| (pool.clone(), arm.clone())),
            &(pool.clone(), arm.clone()),
            "whichever router is asked"
        );
        let (experiment, name) = arm.split_once('/').unwrap_or_default();
        let expected = match (experiment, name) {
            ("", _) => ["blue", "green"].contains(&pool.as_str()),
            (_, "control") => pool == "blue",
            ("big", _) | ("late", "later") => pool == "exp",
            _ => pool == "other",
        };
        assert!(expected, "{arm} by {pool}");
        candidates += usize::from(arm.is_empty() && pool == "green");
        if arm.is_empty() {
            continue;
        }
        let of_arm = truth.entry(arm).or_default();
        (of_arm[0], of_arm[1]) = (of_arm[0] + 1, of_arm[1] + 1);
        if query % 5 < 2 {
            of_arm[2] += 1;
            click(&routers[query / 3 % 2], &token);
        }
    }
    assert!(truth.len() == 7 && candidates > 30, "{truth:?} {candidates}");
    for name in ALL {
        run(&routers[0], &["stop", "search", name, "--why", "enough is known"]);
    }
    for (router, name) in routers.iter().flat_map(|router| ALL.map(|name| (router, name))) {
        let truth: Truth =
            truth.iter().filter(|(arm, _)| arm.starts_with(&format!("{name}/"))).map(|(arm, of)| (arm.clone(), *of)).collect();
        eventually("what was counted is the truth", SOON, || (counted(router, name) == truth).then_some(()));
    }
    assert_eq!(ask(&routers[0], "user-1")[1], "", "nobody is in it any more");
    let report = run(&routers[1], &["report", "search", "big"]);
    assert!(
        report.starts_with("search: experiment big, stopped: 30 % of layer ranking\n    local-operator: enough is known\n"),
        "{report}"
    );
    assert!(report.contains("big against control: no difference is certain yet"), "{report}");
    // It is all in the ledger, without salts.
    let (_, history) = routers[0].admin("GET", "/api/v1/routes/search/history?limit=100", b"");
    let told: Vec<&Value> = history["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "experiment").collect();
    assert_eq!(told.len(), 6);
    assert_eq!(told.last().unwrap()["what"][0]["new"], "big (30 % of layer ranking)");
    assert_eq!(told[0]["grounds"], json!({ "event": "experiment_stopped", "experiment": "late" }));
    run(&routers[0], &["remove", "search", "big"]);
    assert!(
        refused(&routers[1], &["report", "search", "big"])
            .contains("route search has no experiment \"big\"; those that it has are more, late")
    );
}

/// A million queries would not show it sooner: the arm answers nobody, and users are answered by the live pool meanwhile.
#[test]
fn an_arm_that_does_harm_is_stopped_and_nobody_notices() {
    let (_runtime, redis) = redis();
    let backends = backends();
    let routers = fleet(&redis, &backends);
    let loads = routers.each_ref().map(|router| Load::new(router.traffic, 150).start());
    run(&routers[0], &["create", "search", "big", "--percent", "40", "--arm", "control=live", "--arm", "big=exp"]);
    backends[2].behave(Behaviour::EveryOther(500));
    let stopped =
        eventually("it is stopped", SOON, || Some(experiment(&routers[1], "big")).filter(|experiment| experiment["state"] == "stopped"));
    let why = stopped["why"].as_str().unwrap();
    assert!(why.starts_with("arm big of big: harm: errors: candidate "), "{why}");
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
    let (_, history) = routers[0].admin("GET", "/api/v1/routes/search/history?limit=1", b"");
    let entry = &history["entries"][0];
    assert!(entry["who"].as_str().unwrap().starts_with("router:") && entry["grounds"]["event"] == "experiment_stopped", "{entry}");
}

/// The published schema and the router agree on what makes sense, but for what no schema can say.
#[test]
fn the_schema_says_what_the_router_obeys() {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("experiments.json", serde_json::from_str(include_str!("../docs/experiments.schema.json")).unwrap()).unwrap();
    let schema = compiler.compile("experiments.json", &mut schemas).unwrap();
    let backends = backends();
    let router = setup(&backends).start();
    let judge = |all: &Value| {
        let body = json!({ "set": { "experiments": all } }).to_string();
        let (status, answer) = router.admin("PATCH", "/api/v1/routes/search/flags", body.as_bytes());
        assert!(status == 200 || status == 422, "{answer}");
        (schemas.validate(all, schema).is_ok(), status == 200, answer)
    };
    let arms = json!([{ "name": "a", "pool": "live" }, { "name": "b", "version": "v7", "weight": 3 }]);
    let good = json!({ "name": "e", "layer": "rollout", "salt": "0123456789", "percent": "2.5", "arms": arms });
    let with = |key: &str, value: Value| {
        let mut one = good.clone();
        one[key] = value;
        json!({ "experiments": [one] })
    };
    let when = |condition: Value| with("when", json!([condition]));
    let arm = |arm: Value| with("arms", json!([{ "name": "a", "pool": "live" }, arm]));
    let layers = |layers: Value| json!({ "layers": layers });
    for all in [
        json!({}),
        with("percent", json!(12.5)),
        with("percent", json!("100.0000")),
        with("confidence_percent", json!("99")),
        with("stop_on_harm", json!(false)),
        with("started_ms", json!(0)),
        with("why", json!("")),
        when(json!({ "field": "header:x-app", "one_of": ["ios"] })),
        when(json!({ "field": "path", "prefix": "/de/" })),
        when(json!({ "field": "cookie:beta", "present": true })),
        layers(json!([{ "name": "ranking", "salt": "0123456789" }])),
    ] {
        let (by_schema, by_router, answer) = judge(&all);
        assert!(by_schema && by_router, "{all}: {by_schema} {answer}");
    }
    for all in [
        json!({ "more": 1 }),
        json!({ "experiments": {} }),
        with("name", json!("a b")),
        with("salt", json!("short")),
        with("percent", json!("100.5")),
        with("percent", json!("1e1")),
        with("percent", json!(-1)),
        with("arms", json!([{ "name": "a", "pool": "live" }])),
        with("colour", json!("red")),
        with("stopped_ms", json!(-5)),
        with("stop_on_harm", json!("no")),
        arm(json!({ "name": "b" })),
        arm(json!({ "name": "b", "pool": "exp", "version": "v7" })),
        arm(json!({ "name": "b", "pool": "exp", "weight": 0 })),
        arm(json!({ "name": "b", "version": "" })),
        when(json!({ "field": "user", "equals": "a" })),
        when(json!({ "field": "path" })),
        when(json!({ "field": "path", "equals": "a", "prefix": "b" })),
        layers(json!([{ "name": "rollout", "salt": "0123456789" }])),
        layers(json!([{ "name": "ranking" }])),
    ] {
        let (by_schema, by_router, _) = judge(&all);
        assert!(!by_schema && !by_router, "{all}: {by_schema} {by_router}");
    }
}

/// Without Redis, on one router: what is refused says why, and what a person writes by hand is obeyed as far as it makes sense.
#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let backends = backends();
    let router = setup(&backends).start();
    assert!(run(&router, &["status", "search"]).contains("search: there is no experiment"));
    let create = |more: &[&str]| refused(&router, &[&["create", "search", "big"], more].concat());
    assert!(create(&["--percent", "20", "--arm", "control=live"]).contains("arms must be 2 to 8"));
    assert!(create(&["--percent", "20", "--arm", "control"]).contains("must be NAME=live, NAME=POOL or NAME=version:VERSION"));
    let two = ["--arm", "control=live", "--arm", "big=exp"];
    let with = |percent: &str, more: &[&str]| create(&[&["--percent", percent][..], &two, more].concat());
    assert!(with("120", &[]).contains("--percent 120: must be a number from 0 to 100"));
    assert!(with("20", &["--weights", "1"]).contains("--weights has 1 numbers for 2 arms"));
    assert!(with("20", &["--when", "user=7"]).contains("must be path, header:NAME"));
    assert!(with("20", &["--confidence", "20"]).contains("confidence_percent must be from 50 to 99.9999"));
    let gone = create(&["--percent", "20", "--arm", "control=live", "--arm", "big=version:v99"]);
    assert!(gone.contains("arm big: the route has no version v99; its pools are blue (v1), green (v2), exp (v7), other (v8)"), "{gone}");
    run(&router, &[&["create", "search", "big", "--percent", "60"], &two[..]].concat());
    assert!(refused(&router, &[&["create", "search", "more", "--percent", "50"], &two[..]].concat()).contains("40 % at most"));
    assert!(refused(&router, &["remove", "search", "big"]).contains("runs: stop it first"));
    // The file of a person, and a slip.
    let flags = json!({ "set": { "experiments": { "experiments": [{ "name": "hand", "layer": "rollout", "salt": "0123456789", "percent": 100,
        "arms": [{ "name": "a", "pool": "live" }, { "name": "b", "pool": "exp" }], "when": [{ "field": "header:x-user-id", "equals": "ann" }] }] } } });
    let (status, body) = router.admin("PATCH", "/api/v1/routes/search/flags", flags.to_string().as_bytes());
    assert_eq!(status, 200, "{body}");
    let arms: BTreeSet<String> = ["ann", "bob"].iter().map(|user| ask(&router, user)[1].clone()).collect();
    assert!(arms.len() == 2 && arms.contains("") && arms.iter().any(|arm| arm.starts_with("hand/")), "{arms:?}");
    let slip = json!({ "set": { "experiments": { "experiments": [{ "name": "hand" }] } } });
    let (status, body) = router.admin("PATCH", "/api/v1/routes/search/flags", slip.to_string().as_bytes());
    assert!(status == 422 && body["faults"][0]["allowed"].as_str().unwrap().contains("missing field `layer`"), "{body}");
    let shown = experiment(&router, "hand").to_string();
    assert!(!shown.contains("0123456789"), "{shown}");
    eventually("it is judged", SOON, || (counted(&router, "hand").values().map(|[requests, ..]| requests).sum::<u64>() == 1).then_some(()));
}

/// An experiment in the rollout's layer takes units of control alone, so that the candidate has a larger part of what is left: 60 % here, and not 30 %. The rollout
/// knows, and goes on. When weights are changed by hand the report begins anew.
#[test]
fn a_rollout_goes_live_beside_an_experiment_of_its_layer() {
    const PLAN: &str = "rollout = { steps = [\"30\"], holdback_percent = \"20\", canary_max_percent = \"0\", dwell = \"8s\", bake = \"3s\" }\n\
        rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
    let (_runtime, redis) = redis();
    let backends = backends();
    let routers = fleet_with(&redis, &backends, PLAN);
    let loads = routers.each_ref().map(|router| Load::new(router.traffic, 200).start());
    run(&routers[0], &["create", "search", "big", "--layer", "rollout", "--percent", "50", "--arm", "control=live", "--arm", "big=exp"]);
    let (code, said, error) = routers[0].run(&["rollout", "start", "search"]);
    assert_eq!(code, 0, "{said}{error}");
    eventually("it is live", SOON, || {
        let rollout = routers[1].route()["rollout"].clone();
        assert!(!rollout["waits_for"].as_str().is_some_and(|waits| waits.contains("sample ratio")), "{rollout}");
        (rollout["phase"] == "done").then_some(())
    });
    let judged = |requests: u64| {
        eventually("it is judged", SOON, || {
            let seen = experiment(&routers[1], "big");
            let arms = seen["evidence"]["arms"].as_array()?.clone();
            arms.iter().all(|arm| arm["requests"].as_u64() > Some(requests)).then_some(seen)
        })
    };
    let before = judged(1_000);
    let comparison = &before["evidence"]["comparisons"][0];
    assert!(comparison["is_sound"] == true && comparison["is_harmful"] == false, "{before:#}");
    // Three quarters of its users come to the arm, and those of before are of another experiment.
    let (_, flags) = routers[0].admin("GET", "/api/v1/routes/search/flags", b"");
    let written = flags["fields"]["experiments"].as_str().unwrap();
    let edited = written.replace(r#""pool":"exp""#, r#""pool":"exp","weight":3"#);
    assert_ne!(edited, written, "{flags}");
    routers[0].set_flags(&[&format!("experiments={edited}")]);
    let began = before["evidence"]["began_unix_seconds"].clone();
    let after = eventually("it begins anew", SOON, || {
        let seen = experiment(&routers[1], "big");
        (seen["evidence"]["began_unix_seconds"].as_u64() > began.as_u64() && seen["evidence"]["arms"][1]["requests"].as_u64() > Some(300))
            .then_some(seen)
    });
    assert_eq!(after["evidence"]["comparisons"][0]["is_sound"], true, "{after:#}");
    assert!(loads.into_iter().all(|load| load.stop().failures() == 0));
}

/// The router that judges is killed: another one goes on from the record, and counts nothing twice. An arm that does harm stays where whoever created it said so.
#[test]
fn another_router_goes_on_when_the_judge_dies_and_harm_is_only_told_where_that_was_asked_for() {
    let (_runtime, redis) = redis();
    let backends = backends();
    let routers = fleet(&redis, &backends);
    run(&routers[0], &["create", "search", "big", "--percent", "100", "--arm", "control=live", "--arm", "big=exp", "--keep-on-harm"]);
    let judge = |router: &Router| experiment(router, "big")["evidence"]["judge"].as_str().unwrap_or_default().to_owned();
    let first = eventually("somebody judges", SOON, || Some(judge(&routers[0])).filter(|judge| !judge.is_empty()));
    let [one, two] = routers;
    let (mut dies, stays) = if first == "one" { (one, two) } else { (two, one) };
    let mut truth = Truth::from([("big/big".to_owned(), [0; 3]), ("big/control".to_owned(), [0; 3])]);
    let mut ask_some = |users: std::ops::Range<u32>| {
        for user in users {
            let of_arm = truth.get_mut(&ask(&stays, &format!("user-{user}"))[1]).unwrap();
            (of_arm[0], of_arm[1]) = (of_arm[0] + 1, of_arm[1] + 1);
        }
        truth.clone()
    };
    let half = ask_some(0..300);
    eventually("the first half is judged", SOON, || (counted(&stays, "big") == half).then_some(()));
    dies.kill();
    let all = ask_some(300..600);
    eventually("it goes on", SOON, || (counted(&stays, "big") == all).then_some(()));
    assert_ne!(judge(&stays), first);
    backends[2].behave(Behaviour::Status(500));
    let load = Load::new(stays.traffic, 150).start();
    let told = eventually("harm is told", SOON, || {
        let seen = experiment(&stays, "big");
        (seen["evidence"]["comparisons"][0]["is_harmful"] == true).then_some(seen)
    });
    let sent = load.sent();
    load.wait_for(sent + 300);
    assert_eq!((load.stop().failures(), &experiment(&stays, "big")["state"]), (0, &json!("running")));
    let says = told["evidence"]["comparisons"][0]["summary"].as_str().unwrap();
    assert!(says.starts_with("harm: errors: candidate "), "{says}");
}
