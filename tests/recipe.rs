//! The promise: what the documents tell a trainer to do works, for each library, and what it pushes passes validation with the scores that were measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};
use switchback_tests::ranker::queries;
use switchback_tests::registry::{Registry, said};
use switchback_tests::{binary, python};

fn recipe() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recipe"))
}

/// As others write them: features by name, numbers as ids, and no query. What comes out is read by `model validate` all the same.
fn by_name(mut query: Value) -> Value {
    query.as_object_mut().unwrap().remove("query");
    for (place, document) in query["documents"].as_array_mut().unwrap().iter_mut().enumerate() {
        let features = document["features"].as_array().unwrap().clone();
        let named: Map<String, Value> = features.into_iter().enumerate().map(|(index, value)| (format!("f{index}"), value)).collect();
        document["features"] = named.into();
        document["id"] = place.into();
    }
    query
}

#[test]
fn its_own_tests_pass() {
    let mut command = Command::new(python());
    command.args(["-m", "unittest", "test_recipe"]).current_dir(recipe()).env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, out, error) = said(&command.output().unwrap());
    assert!(code == 0 && error.contains("OK"), "{code}: {out}{error}");
}

#[test]
fn what_it_trains_is_pushed_and_passes() {
    let registry = Registry::in_folder();
    let judged: String = queries(300).into_iter().map(|query| format!("{}\n", by_name(query))).collect();
    let judged = registry.file("judged.jsonl", judged.as_bytes());
    let mut command = Command::new(python());
    command.arg(recipe().join("train_and_push.py")).arg(&judged).args(["--model", "search", "--library", "lightgbm", "--switchback"]);
    command.arg(binary()).arg("--out").arg(registry.path(".")).args(["--why", "tonight's model", "--alias", "candidate"]);
    command.env("SWITCHBACK_CONFIG", registry.path("switchback.toml")).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(registry.path("."));
    let (code, out, error) = said(&command.output().unwrap());
    assert_eq!(code, 0, "{out}{error}");
    let shown = registry.done(&["show", "search@candidate"]);
    assert!(shown["about"]["metrics"]["ndcg@10"].as_f64().is_some_and(|ndcg| ndcg > 0.5), "{shown:#}");
    assert_eq!(shown["inputs"][0], serde_json::json!({ "name": "features", "type": "float32", "shape": [-1, 40] }), "{shown:#}");
    let golden = registry.path("golden.jsonl");
    assert!(fs::metadata(&golden).unwrap().len() > 0);
    let validated = registry.done(&["validate", "search@candidate", "--judged", golden.to_str().unwrap()]);
    let expected = |check: &&Value| check["name"] == "expected";
    let check = validated["report"]["checks"].as_array().unwrap().iter().find(expected).unwrap();
    assert_eq!(check["outcome"], "passed", "{check}");
}
