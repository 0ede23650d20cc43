//! The promise: with real rankers behind two routers and one Redis, what the fleet counted of each version is what its users did: requests, clicks,
//! quality; also of those who click at another router than the one that answered; and the evidence is what the native policy makes of the recorded windows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::ranker::{Ranker, demo, queries};
use switchback_tests::redis::RedisServer;
use switchback_tests::{Router, Setup, binary, eventually, http};

const SOON: Duration = Duration::from_secs(40);
const ROUTE: &str = "initial = { live = \"blue\", canary_percent = \"50\" }\nobserve_only = true\nexpose = [\"version\"]";
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"4s\"";

/// What users saw and did, by version.
#[derive(Debug, Default, Clone, PartialEq)]
struct Book {
    requests: u64,
    clicks: u64,
    /// Observations and their sum, in thousandths.
    quality: (u64, u64),
}

type Books = BTreeMap<String, Book>;

/// One user's search: how good the answer is to them, and its token.
fn search(router: &Router, query: &Value, user: usize) -> (String, String, u64) {
    let body = json!({ "query": query["query"], "documents": without_labels(query) }).to_string();
    let request = format!(
        "POST /rank HTTP/1.1\r\nhost: a\r\nx-user-id: user{user}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = http::raw(router.traffic, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let field =
        |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {answer}")).to_owned();
    let ranking: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let first = ranking["ranking"][0]["id"].as_str().unwrap();
    let document = query["documents"].as_array().unwrap().iter().find(|document| document["id"] == first).unwrap();
    (field("x-switchback-version: "), field("x-switchback-token: "), document["label"].as_u64().unwrap())
}

fn without_labels(query: &Value) -> Vec<Value> {
    let mut documents = query["documents"].as_array().unwrap().clone();
    documents.iter_mut().for_each(|document| drop(document.as_object_mut().unwrap().remove("label")));
    documents
}

fn say(router: &Router, event: &Value) {
    let body = event.to_string();
    let post = format!("POST /_switchback/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = http::raw(router.traffic, &post).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("\"counted\":1"), "{answer}");
}

/// Searches, and clicks on what is good; the click comes to the other router half of the time.
fn users(routers: &[&Router], books: &mut Books, range: std::ops::Range<usize>) {
    let queries = queries(40);
    for user in range {
        let here = user % routers.len();
        let there = (user / 2) % routers.len();
        let (version, token, label) = search(routers[here], &queries[user % queries.len()], user);
        let book = books.entry(version).or_default();
        book.requests += 1;
        if label >= 2 {
            book.clicks += 1;
            say(
                routers[there],
                &json!({ "action_name": "click", "query_id": token, "event_attributes": { "position": { "ordinal": 1 } } }),
            );
        }
        if user % 3 == 0 {
            let thousandths = label * 250;
            book.quality = (book.quality.0 + 1, book.quality.1 + thousandths);
            say(routers[there], &json!({ "action_name": "quality", "query_id": token, "value": thousandths as f64 / 1_000.0 }));
        }
    }
}

fn evidence(router: &Router) -> Option<Value> {
    let (_, body) = http::get(router.admin, "/api/v1/routes/search/evidence").unwrap();
    Some(serde_json::from_str::<Value>(&body).unwrap()["evidence"].clone()).filter(Value::is_object)
}

fn metric<'v>(evidence: &'v Value, id: &str) -> &'v Value {
    evidence["metrics"].as_array().unwrap().iter().find(|metric| metric["metric"] == id).unwrap_or(&Value::Null)
}

/// What the evidence is of, by version.
fn judged(evidence: &Value) -> Books {
    let mut books = Books::new();
    for role in ["candidate", "control"] {
        let of = |id: &str| {
            let mean = &metric(evidence, id)[role];
            let (n, mean) = (mean["n"].as_u64().unwrap_or(0), mean["mean"].as_f64().unwrap_or(0.0));
            (n, mean * n as f64)
        };
        let (clicks, quality) = (of("clicks"), of("quality"));
        let book =
            Book { requests: of("errors").0, clicks: clicks.1.round() as u64, quality: (quality.0, (quality.1 * 1_000.0).round() as u64) };
        assert!(clicks.0 <= book.requests, "no more tokens than answers");
        books.insert(evidence[role]["version"].as_str().unwrap().to_owned(), book);
    }
    books
}

fn logs(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(folder.path().join("windows/search"));
    folder.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_judged_is_what_users_did_to_the_unit_and_to_the_bit() {
    let model = |name: &str| demo(&format!("models/{name}.onnx")).display().to_string();
    let ranker = |name: &str, version: &str| Ranker::start(&["--name", "shop", "--model", &model(name), "--version", version]);
    let (good, broken) = (ranker("ranker_v1", "1"), ranker("ranker_inverted", "2"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let folders = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let start = |folder: &tempfile::TempDir, id: &str| {
        let setup = Setup::default()
            .pool_at("blue", good.address.parse().unwrap())
            .pool_keys("version = \"v1\"")
            .pool_at("canary", broken.address.parse().unwrap())
            .pool_keys("version = \"v2\"");
        let router = setup
            .workers(2)
            .route(ROUTE)
            .top(QUICK)
            .redis(&redis.url())
            .data_dir(folder.path())
            .state(&format!("router_id = {id:?}"))
            .start();
        eventually("the flags are heard", SOON, || (router.route()["canary_percent"] == 50.0).then_some(()));
        router
    };
    let [one, mut other] = [start(&folders[0], "one"), start(&folders[1], "other")];
    eventually("the comparison has begun", SOON, || evidence(&other));
    let mut books = Books::new();
    users(&[&one, &other], &mut books, 0..600);
    // What was counted is told before one of them is killed; a third one joins, and knows the tokens of both.
    let fleet = |router: &Router| {
        let (_, body) = http::get(router.admin, "/api/v1/routes/search/quality/fleet?seconds=600").unwrap();
        let versions = serde_json::from_str::<Value>(&body).unwrap()["versions"].clone();
        let count = |what: &str| versions.as_array().unwrap().iter().map(|counts| counts[what].as_u64().unwrap()).sum::<u64>();
        (count("requests"), count("clicks"))
    };
    let of_all = |books: &Books| books.values().fold((0, 0), |sum, book| (sum.0 + book.requests, sum.1 + book.clicks));
    eventually("everything is told", SOON, || (fleet(&one) == of_all(&books)).then_some(()));
    other.kill();
    let third = start(&folders[2], "third");
    users(&[&one, &third], &mut books, 600..1_200);
    let all = eventually("everything is judged", SOON, || evidence(&one).filter(|evidence| judged(evidence) == books));
    assert!(books["v1"].clicks > books["v2"].clicks + 50, "one of them is broken: {books:#?}");
    assert_eq!(all["verdict"], "roll_back", "{all:#}");
    one.set_flags(&["canary_percent=0"]);
    let over = eventually("it is over", SOON, || evidence(&one).filter(|evidence| evidence["is_over"] == true));
    assert_eq!(judged(&over), books);
    let said = eventually("its windows are recorded", SOON, || {
        let mut command = std::process::Command::new(binary());
        command.args(["policy", "simulate", "rollback-guardrail", "--native", "--json", "--replay"]).args(folders.iter().flat_map(logs));
        let output = command.output().unwrap();
        let last: Value = serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())?).ok()?;
        let windows = over["windows"]["traffic"].as_u64().unwrap() + over["windows"]["engagement"].as_u64().unwrap();
        (last["windows"] == windows).then_some(last)
    });
    for weighed in said["evidence"].as_array().unwrap() {
        let id = weighed["metric"].as_str().unwrap();
        if id == "rollout" {
            assert_eq!(over["log_harm"], weighed["log_harm"]);
            continue;
        }
        for field in ["log_harm", "log_safe", "difference"] {
            assert_eq!(metric(&over, id)[field], weighed[field], "{id}");
        }
    }
}
