//! `switchback ranker --registry`: it serves what was pushed and nothing else, comes back with what it served, and goes on while the registry is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

use hyper::StatusCode;
use serde_json::{Value, json};
use switchback_tests::ranker::{Ranker, demo, queries};
use switchback_tests::registry::{Place, Registry};

const LOAD: &str = "/v2/repository/models/shop/load";
const UNLOAD: &str = "/v2/repository/models/shop/unload";

fn versions(wanted: &[u64]) -> String {
    let config = json!({ "version_policy": { "specific": { "versions": wanted } } }).to_string();
    json!({ "parameters": { "config": config } }).to_string()
}

fn push(registry: &Registry, model: &str, more: &[&str]) {
    let file = demo(&format!("models/{model}.onnx")).display().to_string();
    registry.done(&[&["push", &file, "--model", "shop"], more].concat());
}

/// A registry in a folder with two versions of `shop`.
fn two_versions() -> Registry {
    let registry = Registry::in_folder();
    push(&registry, "ranker_v1", &["--alias", "champion"]);
    push(&registry, "ranker_v2", &[]);
    registry
}

fn start(registry: &Registry, arguments: &[&str]) -> Ranker {
    Ranker::start_as(registry.command(&[]), &[&["--name", "shop"], arguments].concat())
}

/// Exit code, and what it says.
fn fails(registry: &Registry, arguments: &[&str]) -> (i32, String) {
    let mut command = registry.command(&["ranker", "--listen", "127.0.0.1:0", "--name", "shop"]);
    let output = command.args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn served(ranker: &Ranker) -> Value {
    ranker.get("/v2/models/shop").await.body["versions"].clone()
}

async fn rank(ranker: &Ranker) -> Value {
    ranker.post("/rank", queries(1)[0].to_string()).await.body["ranking"].clone()
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The file of the only artefact in the registry.
fn artefact(registry: &Registry) -> std::path::PathBuf {
    let mut files = fs::read_dir(registry.path("registry/models/shop/artefacts")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

#[tokio::test]
async fn what_was_pushed_is_served_under_its_number() {
    let registry = two_versions();
    let from_file =
        |model: &str| Ranker::start(&["--name", "shop", "--model", &demo(&format!("models/{model}.onnx")).display().to_string()]);
    let expected = [rank(&from_file("ranker_v1")).await, rank(&from_file("ranker_v2")).await];
    let url = format!("file://{}", registry.path("registry").display());
    let ranker = start(&registry, &["--registry", &url]);
    assert_eq!((&ranker.announced["version"], &ranker.announced["features"]), (&json!("1"), &json!(40)), "the champion");
    assert_eq!(rank(&ranker).await, expected[0]);
    assert_eq!(ranker.post(LOAD, versions(&[1, 2])).await.status, StatusCode::OK);
    assert_eq!(served(&ranker).await, json!(["1", "2"]));
    assert_eq!(rank(&ranker).await, expected[1]);

    // A version that is pushed later is there, too; one that is no ONNX model cannot be served.
    push(&registry, "ranker_v1", &["--format", "pickle"]);
    let pickle = ranker.post(LOAD, versions(&[2, 3])).await;
    assert_eq!(pickle.status, StatusCode::NOT_FOUND);
    assert!(pickle.error().contains("version 3: its format is pickle, and the ranker serves onnx alone"), "{}", pickle.body);
    let missing = ranker.post(LOAD, versions(&[9])).await;
    assert!(missing.error().contains("there is no version 9 of it; found: 1, 2 (looked in the registry at file://"), "{}", missing.body);
    assert_eq!(ranker.post(LOAD, "").await.status, StatusCode::OK, "the newest that can be served");
    assert_eq!(served(&ranker).await, json!(["2"]));
    let index = ranker.post("/v2/repository/index", "").await.body;
    assert_eq!(index[0], json!({ "name": "shop", "version": "1", "state": "UNAVAILABLE", "reason": "not loaded" }));
    assert_eq!((index.as_array().unwrap().len(), &index[1]["state"]), (2, &json!("READY")));

    assert_eq!(start(&registry, &["--serve", "2"]).announced["version"], "2", "the registry of the config");
    registry.done(&["alias", "shop", "trial", "2"]);
    assert_eq!(start(&registry, &["--serve", "trial"]).announced["version"], "2");
    for (serve, why) in [("nobody", "it has no alias nobody"), ("7", "there is no version 7 of it; found: 1, 2")] {
        let (code, said) = fails(&registry, &["--serve", serve]);
        assert!(code == 64 && said.contains(why), "{code}: {said}");
    }
}

#[tokio::test]
async fn a_folder_stands_beside_the_registry_and_goes_before_it() {
    let registry = two_versions();
    for version in [2, 5] {
        let folder = registry.path(&format!("folder/shop/{version}"));
        fs::create_dir_all(&folder).unwrap();
        fs::copy(demo("models/ranker_shuffled.onnx"), folder.join("model.onnx")).unwrap();
    }
    let url = format!("file://{}", registry.path("registry").display());
    let ranker = start(&registry, &["--repository", "folder", "--registry", &url]);
    assert_eq!(ranker.announced["version"], "1");
    assert_eq!(ranker.post(LOAD, versions(&[1, 2, 5])).await.status, StatusCode::OK);
    let of = async |version: u64| {
        let rows: Vec<Value> = queries(1)[0]["documents"].as_array().unwrap().iter().map(|document| document["features"].clone()).collect();
        let tensor = json!({ "name": "features", "datatype": "FP32", "shape": [rows.len(), 40], "data": rows });
        let request = json!({ "inputs": [tensor] }).to_string();
        ranker.post(&format!("/v2/models/shop/versions/{version}/infer"), request).await.body["outputs"][0]["data"].clone()
    };
    assert!(of(2).await == of(5).await && of(1).await != of(2).await, "the folder's version 2");
    let alone = start(&registry, &["--repository", "folder"]);
    assert_eq!(alone.announced["version"], "5", "a folder alone is what it was");
}

#[tokio::test]
async fn a_ranker_starts_with_nothing_and_comes_back_with_what_it_served() {
    let registry = two_versions();
    let state = ["--serve", "none", "--state", "served.json"];
    let ranker = start(&registry, &state);
    assert_eq!(ranker.announced["version"], Value::Null);
    assert_eq!(ranker.get("/v2/health/live").await.status, StatusCode::OK);
    assert_eq!(ranker.get("/v2/health/ready").await.status, StatusCode::OK);
    assert_eq!(ranker.get("/v2/models/shop/ready").await.status, StatusCode::NOT_FOUND);
    let nothing = ranker.post("/rank", queries(1)[0].to_string()).await;
    assert_eq!((nothing.status, nothing.error()), (StatusCode::SERVICE_UNAVAILABLE, "no version of the model `shop` is loaded"));
    assert_eq!(ranker.post(LOAD, versions(&[1])).await.status, StatusCode::OK);
    // Dropped: killed.
    drop(ranker);
    registry.done(&["alias", "shop", "champion", "2"]);
    let ranker = start(&registry, &["--state", "served.json"]);
    assert_eq!(served(&ranker).await, json!(["1"]), "neither the champion nor the newest");
    assert_eq!(ranker.post(LOAD, versions(&[1, 2])).await.status, StatusCode::OK);
    drop(ranker);
    let ranker = start(&registry, &state);
    assert_eq!(served(&ranker).await, json!(["1", "2"]));
    assert_eq!(ranker.post(UNLOAD, "").await.status, StatusCode::OK);
    drop(ranker);
    let ranker = start(&registry, &["--state", "served.json"]);
    assert_eq!(ranker.announced["version"], Value::Null, "it was unloaded");
    assert_eq!(ranker.post(LOAD, versions(&[2])).await.status, StatusCode::OK);
    drop(ranker);

    // A version that is gone is left out; a file that is no ranker's is refused.
    let text = fs::read_to_string(registry.path("served.json")).unwrap();
    registry.file("served.json", text.replace("\"2\":", "\"7\": \"00\", \"2\":").as_bytes());
    let mut ranker = start(&registry, &["--state", "served.json"]);
    assert_eq!(served(&ranker).await, json!(["2"]));
    ranker.terminate();
    assert!(ranker.ended().await.success());
    let said = ranker.said();
    assert!(said.contains("a version that was served before is left out") && said.contains("version=7"), "{said}");
    registry.file("served.json", b"{}");
    let (code, said) = fails(&registry, &["--state", "served.json"]);
    assert!(code == 64 && said.contains("remove it to start as --serve says"), "{code}: {said}");
    let (code, said) = fails(&registry, &["--state", "no/such/folder/served.json"]);
    assert!(code == 64 && said.contains("cannot be written"), "{code}: {said}");
}

#[tokio::test]
async fn a_flipped_bit_is_refused_with_both_digests() {
    let registry = Registry::in_folder();
    push(&registry, "ranker_v1", &[]);
    let expected = registry.done(&["show", "shop:1"])["sha256"].as_str().unwrap().to_owned();
    let ranker = start(&registry, &["--serve", "none", "--cache", "cache"]);
    let artefact = artefact(&registry);
    flip_a_bit(&artefact);
    let refused = ranker.post(LOAD, versions(&[1])).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    let digest = Command::new("sha256sum").arg(&artefact).output().unwrap().stdout;
    let found = String::from_utf8(digest).unwrap().split(' ').next().unwrap().to_owned();
    assert!(refused.error().contains(&format!("its SHA-256 is {found} and not {expected}")), "{}", refused.body);
    assert_eq!(served(&ranker).await, Value::Null);
    flip_a_bit(&artefact);
    assert_eq!(ranker.post(LOAD, versions(&[1])).await.status, StatusCode::OK);

    // What the cache has is looked at as well.
    let cached = registry.path("cache").join(&expected);
    flip_a_bit(&cached);
    let again = start(&registry, &["--cache", "cache"]);
    assert_eq!(rank(&again).await, rank(&ranker).await);
    assert_eq!(fs::read(&cached).unwrap(), fs::read(&artefact).unwrap());
}

#[tokio::test]
async fn only_what_a_trusted_key_vouches_for_is_served() {
    let registry = Registry::in_folder();
    registry.keys("trainer");
    push(&registry, "ranker_v1", &["--sign-key", "trainer.pem"]);
    push(&registry, "ranker_v2", &[]);
    let ranker = start(&registry, &["--trusted-key", "trainer.pub"]);
    assert_eq!(ranker.announced["version"], "1", "the newest that is signed");
    let refused = ranker.post(LOAD, versions(&[2])).await;
    assert!(refused.error().contains("shop:2 is not trusted: nobody signed it"), "{}", refused.body);
}

#[tokio::test]
async fn while_the_registry_is_away_what_is_served_goes_on() {
    let registry = two_versions();
    let (here, gone) = (registry.path("registry"), registry.path("gone"));
    let arguments = ["--state", "served.json", "--cache", "cache"];
    let ranker = start(&registry, &arguments);
    assert_eq!(ranker.post(LOAD, versions(&[1, 2])).await.status, StatusCode::OK);
    fs::rename(&here, &gone).unwrap();
    for body in [versions(&[2, 3]), String::new()] {
        let refused = ranker.post(LOAD, body).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
        assert!(refused.error().contains("its folder is gone; what is served stays"), "{}", refused.body);
    }
    assert_eq!(served(&ranker).await, json!(["1", "2"]));
    assert_eq!(ranker.post(LOAD, versions(&[1])).await.status, StatusCode::OK, "it is served already");
    assert_eq!(served(&ranker).await, json!(["1"]));
    let index = ranker.post("/v2/repository/index", "").await.body;
    assert_eq!((index.as_array().unwrap().len(), &index[0]["state"]), (1, &json!("READY")));
    drop(ranker);
    // A bucket may be away at the start; a folder may not.
    let (code, said) = fails(&registry, &arguments);
    assert!(code == 69 && said.contains("there is no such folder"), "{code}: {said}");
}

#[tokio::test]
async fn a_bucket_is_served_and_a_restart_needs_it_only_for_what_is_not_cached() {
    let mut registry = Registry::in_bucket();
    push(&registry, "ranker_v1", &["--alias", "champion"]);
    push(&registry, "ranker_v2", &[]);
    let arguments = ["--state", "served.json", "--cache", "cache"];
    let ranker = start(&registry, &arguments);
    assert_eq!(ranker.announced["version"], "1");
    assert_eq!(ranker.post(LOAD, versions(&[1, 2])).await.status, StatusCode::OK);
    let before = rank(&ranker).await;
    let Place::Bucket(server, _) = &mut registry.place else { panic!("it is no bucket") };
    server.kill();
    let refused = ranker.post(LOAD, versions(&[3])).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert!(refused.error().contains("the registry at s3://models/some/prefix cannot be used"), "{}", refused.body);
    drop(ranker);
    let again = start(&registry, &arguments);
    assert_eq!((served(&again).await, rank(&again).await), (json!(["1", "2"]), before));
    drop(again);
    let (code, said) = fails(&registry, &["--state", "served.json"]);
    assert!(code == 69 && said.contains("version 1, which was served before: the registry at s3://"), "{code}: {said}");
}
