//! `switchback ranker` on the project's own models: right scores, clear refusals, and versions swapped under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use switchback_tests::binary;
use switchback_tests::ranker::{Client, Ranker, demo, queries, report, with_one_more_feature};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const MODELS: [&str; 4] = ["ranker_v1", "ranker_v2", "ranker_shuffled", "ranker_inverted"];

fn model(name: &str) -> String {
    demo(&format!("models/{name}.onnx")).display().to_string()
}

/// Score of each document by its id.
fn scores(answer: &Value) -> serde_json::Map<String, Value> {
    answer["ranking"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ranked| (ranked["id"].as_str().unwrap().to_owned(), ranked["score"].clone()))
        .collect()
}

fn assert_golden(answer: &Value, query: &Value, golden: &Value) {
    let scores = scores(answer);
    for (document, expected) in query["documents"].as_array().unwrap().iter().zip(golden.as_array().unwrap()) {
        let (score, expected) = (scores[document["id"].as_str().unwrap()].as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((score - expected).abs() < 1e-5, "{}: {score}, expected {expected}", document["id"]);
    }
}

#[tokio::test]
async fn scores_are_those_of_the_training_recipe() {
    let report = report();
    for name in MODELS {
        let ranker = Ranker::start(&["--name", "shop", "--model", &model(name), "--version", "7"]);
        assert_eq!(ranker.announced["features"], 40);
        for (query, golden) in queries(5).iter().zip(report["models"][name]["golden_scores"].as_array().unwrap()) {
            let answer = ranker.post("/rank", query.to_string()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            assert_eq!(answer.version.as_deref(), Some("7"));
            assert_eq!(
                (&answer.body["model"], &answer.body["version"], &answer.body["query"]),
                (&json!("shop"), &json!("7"), &query["query"])
            );
            assert_golden(&answer.body, query, golden);
            let order: Vec<f64> =
                answer.body["ranking"].as_array().unwrap().iter().map(|ranked| ranked["score"].as_f64().unwrap()).collect();
            assert_eq!(order.len(), query["documents"].as_array().unwrap().len());
            assert!(order.windows(2).all(|pair| pair[0] >= pair[1]), "best first: {order:?}");
        }
    }
}

#[tokio::test]
async fn the_inference_protocol_gives_the_same_scores() {
    let ranker = Ranker::start(&["--name", "shop", "--model", &model("ranker_v2"), "--version", "2", "--threads", "2"]);
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/shop", "/v2/models/shop/ready", "/v2/models/shop/versions/2/ready"]
    {
        assert_eq!(ranker.get(path).await.status, StatusCode::OK, "{path}");
    }
    let metadata = ranker.get("/v2/models/shop/versions/2").await.body;
    assert_eq!(metadata["versions"], json!(["2"]));
    assert_eq!(metadata["inputs"], json!([{ "name": "features", "datatype": "FP32", "shape": [-1, 40] }]));
    let query = &queries(1)[0];
    let rows: Vec<Value> = query["documents"].as_array().unwrap().iter().map(|document| document["features"].clone()).collect();
    let tensor = json!({ "name": "features", "datatype": "FP32", "shape": [rows.len(), 40], "data": rows });
    let request = json!({ "id": "q1", "inputs": [tensor], "outputs": [{ "name": metadata["outputs"][0]["name"] }] });
    let answer = ranker.post("/v2/models/shop/versions/2/infer", request.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!((&answer.body["model_version"], &answer.body["id"]), (&json!("2"), &json!("q1")));
    let output = &answer.body["outputs"][0];
    assert_eq!(output["shape"], json!([rows.len(), 1]));
    let golden = report()["models"]["ranker_v2"]["golden_scores"][0].clone();
    for (score, expected) in output["data"].as_array().unwrap().iter().zip(golden.as_array().unwrap()) {
        assert!((score.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-5);
    }
}

#[tokio::test]
async fn features_by_name_rank_as_features_in_order() {
    let ranker = Ranker::start(&["--model", &model("ranker_v2")]);
    let names = report()["features"].clone();
    let query = queries(1).remove(0);
    let mut named = query.clone();
    for document in named["documents"].as_array_mut().unwrap() {
        let by_name = names.as_array().unwrap().iter().zip(document["features"].as_array().unwrap()).rev();
        document["features"] = by_name.map(|(name, value)| (name.as_str().unwrap().to_owned(), value.clone())).collect();
    }
    let (listed, named) = (ranker.post("/rank", query.to_string()).await, ranker.post("/rank", named.to_string()).await);
    assert_eq!(named.status, StatusCode::OK, "{}", named.body);
    assert_eq!(listed.body, named.body);
}

#[tokio::test]
async fn bad_input_is_refused_clearly_and_the_model_goes_on() {
    let ranker = Ranker::start(&["--name", "shop", "--model", &model("ranker_v1"), "--max-body", "64KiB", "--max-documents", "30"]);
    let good = queries(1).remove(0);
    let before = ranker.post("/rank", good.to_string()).await.body;
    let zeros = vec![0; 40];
    let document = |features: Value| json!({ "documents": [{ "id": "a", "features": features }] }).to_string();
    let mut infinite = document(json!(zeros));
    infinite = infinite.replacen('0', "1e39", 1);
    let not_a_number = document(json!(zeros)).replacen('0', "NaN", 1);
    let many: Vec<Value> = (0..31).map(|n| json!({ "id": n.to_string(), "features": zeros })).collect();
    let tensor =
        |shape: Value| json!({ "inputs": [{ "name": "features", "datatype": "FP32", "shape": shape, "data": zeros }] }).to_string();
    let refusals = [
        ("/rank", document(json!([1, 2, 3])), 400, "documents[0].features (id \"a\"): 3 features; the model takes 40"),
        ("/rank", document(json!({ "bm25_title": 1 })), 400, "39 of 40 features are missing"),
        ("/rank", document(json!({ "colour": 1 })), 400, "no feature `colour`"),
        ("/rank", document(json!("none")), 400, "documents[0].features: "),
        ("/rank", not_a_number, 400, "NaN and Infinity are not JSON"),
        ("/rank", infinite, 400, "documents[0].features[0]: 1e39 is no finite 32-bit number"),
        ("/rank", "{\"documents\": [".to_owned(), 400, "not JSON"),
        ("/rank", "null".to_owned(), 400, "the body must be a JSON object"),
        ("/rank", "[]".to_owned(), 400, "the body must be a JSON object"),
        ("/rank", json!(["boots", []]).to_string(), 400, "the body must be a JSON object"),
        ("/rank", "{\"query\": \"boots\"}".to_owned(), 400, "missing field `documents`"),
        ("/rank", json!({ "documents": many }).to_string(), 400, "31 documents; one query may have 30"),
        ("/rank", " ".repeat(100 << 10), 413, "over 65536 bytes"),
        ("/v2/models/shop/infer", tensor(json!([1, 39])), 400, "inputs[0].shape: [1, 39]; the model takes [documents, 40]"),
        ("/v2/models/shop/infer", tensor(json!([2, 40])), 400, "40 numbers; the shape [2, 40] wants 80"),
        ("/v2/models/other/infer", tensor(json!([1, 40])), 404, "no model `other` here; there is: shop"),
        ("/v2/models/shop/versions/9/infer", tensor(json!([1, 40])), 404, "no version 9 loaded; loaded: 1"),
        ("/v2/repository/models/shop/load", "{\"parameters\": {\"config\": 1}}".to_owned(), 400, "parameters.config must be a string"),
        ("/v2/repository/models/..%2f/load", String::new(), 404, "no version"),
        ("/elsewhere", String::new(), 404, "there is nothing at /elsewhere"),
        ("/v2/health/ready", String::new(), 405, "only GET"),
    ];
    for (path, body, status, expected) in refusals {
        let answer = ranker.post(path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.error().contains(expected), "{path}: {} lacks {expected:?}", answer.body);
    }
    assert_eq!(ranker.post("/rank", good.to_string()).await.body, before);
}

/// A repository of one model, `shop`, with these files as versions 1, 2, ...
fn repository(files: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (place, file) in files.iter().enumerate() {
        let version = folder.path().join("shop").join((place + 1).to_string());
        fs::create_dir_all(&version).unwrap();
        fs::copy(demo(&format!("models/{file}.onnx")), version.join("model.onnx")).unwrap();
    }
    folder
}

fn versions(wanted: &[u64]) -> String {
    let config = json!({ "version_policy": { "specific": { "versions": wanted } } }).to_string();
    json!({ "parameters": { "config": config } }).to_string()
}

/// What clients saw while something was done to the ranker.
#[derive(Default)]
struct Seen {
    by_version: [AtomicU64; 3],
    failed: AtomicU64,
    is_over: AtomicBool,
}

async fn query_all_the_time(address: String, body: String, seen: Arc<Seen>) {
    let mut client = Client::connect(&address).await.unwrap();
    while !seen.is_over.load(Ordering::Relaxed) {
        let answer = client.send("POST", "/rank", body.clone().into()).await;
        let version = answer.ok().filter(|answer| answer.status == StatusCode::OK).and_then(|answer| answer.version?.parse::<usize>().ok());
        match version.and_then(|version| seen.by_version.get(version)) {
            Some(count) => count.fetch_add(1, Ordering::Relaxed),
            None => seen.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_new_version_is_loaded_beside_the_old_one_without_a_failed_query() {
    let folder = repository(&["ranker_v1", "ranker_v2"]);
    let path = folder.path().display().to_string();
    let ranker = Ranker::start(&["--name", "shop", "--model", &model("ranker_v1"), "--version", "1", "--repository", &path]);
    let (seen, query) = (Arc::new(Seen::default()), queries(1)[0].to_string());
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(query_all_the_time(ranker.address.clone(), query.clone(), seen.clone()))).collect();
    let count = |version: usize| seen.by_version[version].load(Ordering::Relaxed);
    eventually("queries on version 1", || count(1) > 200).await;
    assert_eq!(count(2), 0);

    let load = "/v2/repository/models/shop/load";
    let loaded = ranker.post(load, versions(&[1, 2])).await;
    assert_eq!(loaded.status, StatusCode::OK, "{}", loaded.body);
    eventually("queries on version 2", || count(2) > 200).await;
    assert_eq!(ranker.get("/v2/models/shop").await.body["versions"], json!(["1", "2"]));
    assert_eq!(ranker.get("/v2/models/shop/versions/1/ready").await.status, StatusCode::OK, "the old one stays warm");

    for round in 0..10 {
        let (wanted, version) = if round % 2 == 0 { ([1], 1) } else { ([2], 2) };
        assert_eq!(ranker.post(load, versions(&wanted)).await.status, StatusCode::OK);
        let before = count(version);
        eventually("queries on the version of this round", || count(version) > before + 20).await;
    }
    seen.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(seen.failed.load(Ordering::Relaxed), 0, "of {} queries", count(1) + count(2));
}

#[tokio::test]
async fn a_broken_file_leaves_the_served_version_untouched() {
    let folder = repository(&["ranker_v1", "ranker_v2", "ranker_v2", "ranker_v2"]);
    let shop = folder.path().join("shop");
    let whole = fs::read(shop.join("2/model.onnx")).unwrap();
    fs::write(shop.join("2/model.onnx"), &whole[..whole.len() / 2]).unwrap();
    fs::write(shop.join("3/model.onnx"), b"this is no model").unwrap();
    fs::write(shop.join("4/model.onnx"), b"").unwrap();
    let path = folder.path().display().to_string();
    let ranker = Ranker::start(&["--name", "shop", "--model", &model("ranker_v1"), "--version", "1", "--repository", &path]);
    let query = queries(1)[0].to_string();
    let before = ranker.post("/rank", query.clone()).await.body;
    for version in [2, 3, 4] {
        let refused = ranker.post("/v2/repository/models/shop/load", versions(&[1, version])).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.error().contains(&format!("version {version}: ")), "{}", refused.body);
        assert_eq!(ranker.post("/rank", query.clone()).await.body, before);
    }
    let missing = ranker.post("/v2/repository/models/shop/load", versions(&[9])).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.error().contains("no version 9 of it; found: 1, 2, 3, 4"), "{}", missing.body);
    let index = ranker.post("/v2/repository/index", "").await.body;
    let states: Vec<&str> = index.as_array().unwrap().iter().map(|entry| entry["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["READY", "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE"]);
    assert!(index[1]["reason"].as_str().unwrap().contains("model.onnx"), "{index}");
}

#[tokio::test]
async fn a_model_of_another_shape_stands_beside_the_served_one_where_it_is_named() {
    let folder = repository(&["ranker_v1", "ranker_v2", "ranker_v2"]);
    let file = folder.path().join("shop/2/model.onnx");
    fs::write(&file, with_one_more_feature(&fs::read(&file).unwrap())).unwrap();
    let (path, state) = (folder.path().display().to_string(), folder.path().join("served.json").display().to_string());
    let arguments = ["--name", "shop", "--model", &model("ranker_v1"), "--version", "1", "--repository", &path, "--state", &state];
    let mut ranker = Ranker::start(&arguments);
    let (load, query) = ("/v2/repository/models/shop/load", queries(1)[0].to_string());
    let before = ranker.post("/rank", query.clone()).await.body;
    let rows = |features: usize| {
        let input = json!({ "name": "features", "shape": [1, features], "datatype": "FP32", "data": vec![0.5; features] });
        json!({ "inputs": [input] }).to_string()
    };
    assert_eq!(ranker.post(load, versions(&[1, 2])).await.status, StatusCode::OK);
    // It comes back with both.
    for _ in 0..2 {
        assert_eq!(ranker.get("/v2/models/shop").await.body["versions"], json!(["1", "2"]));
        for (version, takes, other) in [(1, 40, 41), (2, 41, 40)] {
            let path = format!("/v2/models/shop/versions/{version}");
            let input = ranker.get(&path).await.body["inputs"][0].clone();
            assert_eq!((&input["name"], &input["shape"]), (&json!("features"), &json!([-1, takes])));
            assert_eq!(ranker.post(&format!("{path}/infer"), rows(takes)).await.status, StatusCode::OK);
            let refused = ranker.post(&format!("{path}/infer"), rows(other)).await;
            let told = format!("inputs[0].shape: [1, {other}]; the model takes [documents, {takes}]");
            assert_eq!((refused.status, refused.error()), (StatusCode::BAD_REQUEST, told.as_str()));
        }
        // Who names none gets the newest.
        let refused = ranker.post("/rank", query.clone()).await;
        assert!(refused.status == StatusCode::BAD_REQUEST && refused.error().contains("41"), "{}", refused.body);
        ranker.restart(&arguments);
    }
    assert_eq!(ranker.post(load, versions(&[1])).await.status, StatusCode::OK);
    assert_eq!(ranker.post("/rank", query).await.body, before);
    assert_eq!(ranker.post(load, versions(&[2])).await.status, StatusCode::OK);
    // Whoever asks for the newest does not ask for another shape.
    let newest = ranker.post(load, "").await;
    assert_eq!(newest.status, StatusCode::BAD_REQUEST);
    assert!(newest.error().contains("version 3: it takes 40 features, and the model beside it 41"), "{}", newest.body);
    assert_eq!(ranker.get("/v2/models/shop").await.body["versions"], json!(["2"]));
    assert_eq!(ranker.post("/v2/repository/models/shop/unload", "").await.status, StatusCode::OK);
    assert_eq!(ranker.post(load, "").await.status, StatusCode::OK);
    assert_eq!(ranker.get("/v2/models/shop").await.body["versions"], json!(["3"]));
}

#[tokio::test]
async fn an_unloaded_model_is_not_ready_until_it_is_loaded_again_and_the_ranker_is() {
    let folder = repository(&["ranker_v1"]);
    let ranker = Ranker::start(&["--name", "shop", "--repository", &folder.path().display().to_string()]);
    assert_eq!(ranker.post("/v2/repository/models/shop/unload", "").await.status, StatusCode::OK);
    assert_eq!(ranker.get("/v2/models/shop/ready").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ranker.get("/v2/health/ready").await.status, StatusCode::OK);
    let refused = ranker.post("/rank", queries(1)[0].to_string()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.error(), "no version of the model `shop` is loaded");
    assert_eq!(ranker.post("/v2/repository/models/shop/load", "").await.status, StatusCode::OK);
    assert_eq!(ranker.post("/rank", queries(1)[0].to_string()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_termination_is_announced_before_connections_close() {
    let mut ranker = Ranker::start(&["--model", &model("ranker_v1")]);
    let query = queries(1)[0].to_string();
    let mut client = Client::connect(&ranker.address).await.unwrap();
    client.send("POST", "/rank", query.clone().into()).await.unwrap();
    ranker.terminate();
    let deadline = Instant::now() + Duration::from_secs(5);
    while ranker.get("/v2/health/ready").await.status == StatusCode::OK {
        assert!(Instant::now() < deadline, "still ready");
    }
    let last = client.send("POST", "/rank", query.into()).await.unwrap();
    assert_eq!(last.status, StatusCode::OK, "a query that comes after the announcement is still answered");
    assert!(ranker.ended().await.success());
}

/// A router's health checks alone hold nothing up, nor does a connection that idles. The fastest of three counts: the machine has other things to do.
#[tokio::test]
async fn a_ranker_that_nobody_asks_ends_at_once() {
    let mut took = Vec::new();
    for _ in 0..3 {
        let mut ranker = Ranker::start(&["--model", &model("ranker_v1")]);
        let mut checks = Client::connect(&ranker.address).await.unwrap();
        assert_eq!(checks.send("GET", "/v2/health/ready", String::new().into()).await.unwrap().status, StatusCode::OK);
        let _silent = tokio::net::TcpStream::connect(&ranker.address).await.unwrap();
        let began = Instant::now();
        ranker.terminate();
        assert!(ranker.ended().await.success());
        took.push(began.elapsed());
    }
    let fastest = took.iter().min().unwrap();
    assert!(*fastest < Duration::from_secs(1), "{took:?}");
}

/// ONNX Runtime's telemetry leaves a session file in the folder for temporary files and an id of the machine in the home folder, and
/// keeps quiet where it believes to run in CI: so the environment here is bare.
#[tokio::test]
async fn onnx_runtime_reports_to_nobody() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", folder.path()).env("TMPDIR", folder.path());
    command.envs(std::env::vars_os().filter(|(name, _)| name == "ORT_DYLIB_PATH" || name == "LD_LIBRARY_PATH"));
    let mut ranker = Ranker::start_as(command, &["--model", &model("ranker_v1")]);
    assert_eq!(ranker.post("/rank", queries(1)[0].to_string()).await.status, StatusCode::OK);
    ranker.terminate();
    assert!(ranker.ended().await.success());
    let traces: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(traces.is_empty(), "{traces:?}");
}

#[test]
fn a_missing_onnx_runtime_is_explained() {
    let not_a_library = demo("README.md").display().to_string();
    let named = Ranker::fails(&["--model", &model("ranker_v1"), "--onnxruntime", &not_a_library], &[]);
    let by_variable = Ranker::fails(&["--model", &model("ranker_v1")], &[("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so")]);
    for (output, named_by) in [(named, "--onnxruntime"), (by_variable, "ORT_DYLIB_PATH")] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        for hint in [named_by, "make onnxruntime", "scripts/fetch_onnxruntime.sh"] {
            assert!(said.contains(hint), "{said} lacks {hint}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_model_that_cannot_be_served_ends_the_start_clearly() {
    let not_a_model = demo("README.md").display().to_string();
    for (arguments, expected) in [
        (vec!["--model", not_a_model.as_str()], "README.md"),
        (vec!["--model", "nowhere.onnx"], "nowhere.onnx"),
        (vec!["--repository", "nowhere"], "the repository nowhere is no folder"),
        (vec![], "--model FILE.onnx"),
        (vec!["--model", "x.onnx", "--name", "../up"], "model name"),
        (vec!["--repository", ".", "--serve", "champion"], "--serve ALIAS: aliases are in a registry"),
        (vec!["--repository", ".", "--serve", "0"], "versions are numbered from 1 on"),
        (vec!["--repository", ".", "--cache", "."], "--cache and --trusted-key are for versions of a registry"),
    ] {
        let output = Ranker::fails(&arguments, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(expected), "{said} lacks {expected}");
    }
}
