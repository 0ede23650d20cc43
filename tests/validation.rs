//! The promise: no model that crashes, bombs, lies about its shape, runs code or ranks badly gets past validation; every good one does; and nothing that is in a file is ever run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use switchback_tests::registry::{Registry, said};
use switchback_tests::{binary, python};

/// One file of the corpus, as `tests/corpus/make.py` describes it.
#[derive(Debug, Deserialize)]
struct Item {
    file: String,
    verdict: String,
    class: String,
    /// A regular expression for what a refusal has to say; empty for a good one.
    expect: String,
    /// It has another signature than the live model, which is declared.
    declared: bool,
}

#[derive(Debug, Deserialize)]
struct Corpus {
    models: Vec<Item>,
}

/// The corpus, made once for each change of its recipe.
static CORPUS: LazyLock<PathBuf> = LazyLock::new(|| {
    let (recipe, place) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut scripts: Vec<_> = fs::read_dir(&recipe).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    scripts.sort();
    let digest = scripts.iter().fold(Sha256::new(), |digest, script| digest.chain_update(fs::read(script).unwrap()));
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = place.join(format!("corpus-{digest}"));
    if !folder.exists() {
        let made_in = tempfile::tempdir_in(place).unwrap();
        let made = Command::new(python()).arg(recipe.join("make.py")).arg(made_in.path()).output().unwrap();
        assert!(
            made.status.success(),
            "scripts/install_test_tools.sh models target/tools/models: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        // Another process of the tests may have been first.
        if fs::rename(made_in.path(), &folder).is_ok() {
            drop(made_in.keep());
        }
    }
    folder
});

/// Everything that looking at a file may cost in these tests.
const LIMITS: [&str; 6] = ["--memory", "1GiB", "--time", "8s", "--model-bytes", "16MiB"];
const SOON: Duration = Duration::from_secs(12);

fn corpus() -> Vec<Item> {
    let text = fs::read(CORPUS.join("corpus.json")).unwrap();
    serde_json::from_slice::<Corpus>(&text).unwrap().models
}

/// Validates a file of the corpus: exit code, report, and how long it took.
fn validate(item: &Item, canary: &Path) -> (i32, Value, Duration) {
    let (began, file) = (Instant::now(), CORPUS.join(&item.file));
    let mut command = Command::new(binary());
    command.args(["model", "validate", "--file"]).arg(&file);
    // Another format than the live model's is a refusal by itself.
    if item.file.ends_with(".onnx") {
        command.arg("--live-file").arg(CORPUS.join("live.onnx"));
    }
    if item.declared {
        command.arg("--signature-change");
    }
    command.arg("--judged").arg(CORPUS.join("judged.jsonl")).args(LIMITS).arg("--json").env("CORPUS_CANARY", canary);
    let (code, told, error) = said(&command.stdin(Stdio::null()).output().unwrap());
    let report = serde_json::from_str(&told).unwrap_or_else(|wrong| panic!("{}: {wrong}: {told}{error}", file.display()));
    (code, report, began.elapsed())
}

/// What became of one file.
struct Looked {
    item: Item,
    code: i32,
    said: String,
    took: Duration,
}

/// Looks at every file, two at a time.
fn all(canary: &Path) -> Vec<Looked> {
    let (items, next, done) = (corpus(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (code, told, took) = validate(item, canary);
                    let checks = told["report"]["checks"].as_array().cloned().unwrap_or_default();
                    let refused = checks.iter().filter(|check| check["outcome"] == "refused");
                    let said = refused.map(|check| format!("{}: {}", check["name"].as_str().unwrap(), check["said"].as_str().unwrap()));
                    let said = said.collect::<Vec<_>>().join("; ");
                    done.lock().unwrap().push((item.file.clone(), code, said, took));
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let found = |item: Item| {
        let (_, code, said, took) = done.iter().find(|(file, ..)| *file == item.file).unwrap().clone();
        Looked { item, code, said, took }
    };
    items.into_iter().map(found).collect()
}

#[test]
fn every_bad_model_is_refused_with_its_reason_and_every_good_one_is_not() {
    let canary = tempfile::tempdir().unwrap();
    let all = all(canary.path());
    let executed: Vec<_> = fs::read_dir(canary.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(executed.is_empty(), "code of a model was run: {executed:?}");
    let mut wrong = String::new();
    for Looked { item, code, said, took } in &all {
        let is_as_it_should_be = match item.verdict.as_str() {
            "good" => *code == 0,
            _ => *code == 2 && !said.is_empty(),
        };
        let is_expected = item.expect.is_empty() || regex::Regex::new(&item.expect).unwrap().is_match(said);
        if !is_as_it_should_be || !is_expected || *took > SOON {
            let _ = writeln!(
                wrong,
                "{} ({}, {}): exit {code} after {took:?}: {said:?}; expected {}",
                item.file, item.verdict, item.class, item.expect
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let count = |verdict: &str| all.iter().filter(|looked| looked.item.verdict == verdict).count();
    assert!(count("bad") >= 60 && count("good") >= 20, "{} bad and {} good", count("bad"), count("good"));
    let classes: BTreeSet<&str> = all.iter().map(|looked| looked.item.class.as_str()).collect();
    assert!(classes.len() >= 20, "{classes:?}");
}

/// With a registry: what is found is stored beside the version, is compared with the champion, and is what `--json` and the table say.
#[test]
fn a_report_stands_beside_its_version() {
    let registry = Registry::in_folder();
    let model = |name: &str| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../router/demo/models/")).join(name);
    for name in ["ranker_v1.onnx", "ranker_v2.onnx", "ranker_inverted.onnx"] {
        registry.done(&["push", model(name).to_str().unwrap(), "--model", "search"]);
    }
    registry.done(&["alias", "search", "champion", "1"]);
    let judged = registry.path("judged.jsonl");
    let queries =
        Command::new("gzip").args(["-dc", concat!(env!("CARGO_MANIFEST_DIR"), "/../router/demo/queries.jsonl.gz")]).output().unwrap();
    fs::write(&judged, plain(&queries.stdout)).unwrap();
    let judged = judged.to_str().unwrap();
    let passed = registry.done(&["validate", "search:2", "--judged", judged]);
    assert_eq!(
        (&passed["stored"], &passed["report"]["passed"], &passed["report"]["live"]["name"]),
        (&1.into(), &true.into(), &"search:1".into())
    );
    let check = |report: &Value, name: &str| {
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {report}"))
            .clone()
    };
    let ndcg = check(&passed["report"], "ndcg@10")["numbers"].clone();
    assert!(ndcg["value"].as_f64() > ndcg["live"].as_f64() && ndcg["low"].as_f64() < ndcg["high"].as_f64(), "{ndcg}");
    // As scikit-learn measured them when the models were made.
    let measured: Value = serde_json::from_slice(&fs::read(model("report.json")).unwrap()).unwrap();
    let near = |name: &str, expected: &Value, within: f64| {
        let (is, expected) = (ndcg[name].as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((is - expected).abs() < within, "{name}: {is}, and not {expected}");
    };
    near("value", &measured["models"]["ranker_v2"]["ndcg10"], 1e-4);
    near("live", &measured["models"]["ranker_v1"]["ndcg10"], 1e-4);
    // 1.645 standard errors to each side.
    near("low", &(0.01463 - 1.645 * 0.00334).into(), 1e-3);
    near("high", &(0.01463 + 1.645 * 0.00334).into(), 1e-3);
    let (code, said, _) = registry.model(&["validate", "search:3", "--judged", judged]);
    assert!(code == 2 && said.contains("ndcg@10        REFUSED") && said.contains("stored as report 1 of search:3"), "{code}: {said}");
    let (code, said, _) = registry.model(&["validate", "search:2", "--judged", judged, "--dry-run"]);
    assert!(code == 0 && !said.contains("stored"), "{said}");
    assert_eq!(registry.done(&["validate", "search:2"])["stored"], 2);
    let stored = registry.path("registry/models/search/versions/2");
    let golden: Vec<_> = fs::read_dir(stored.join("golden")).unwrap().collect();
    assert_eq!((fs::read_dir(stored.join("reports")).unwrap().count(), golden.len()), (2, 2), "of judged queries, and of made-up ones");
}

/// What is damaged may be the other one of the two.
#[test]
fn a_damaged_live_model_is_named_as_that() {
    let registry = Registry::in_folder();
    let model = |name: &str| format!("{}/../router/demo/models/{name}", env!("CARGO_MANIFEST_DIR"));
    for name in ["ranker_v1.onnx", "ranker_v2.onnx"] {
        registry.done(&["push", &model(name), "--model", "search"]);
    }
    registry.done(&["alias", "search", "champion", "1"]);
    let push = registry.done(&["show", "search:1"])["push"].as_str().unwrap().to_owned();
    let artefact = registry.path("registry/models/search/artefacts").join(push);
    let mut bytes = fs::read(&artefact).unwrap();
    bytes[100] ^= 1;
    fs::write(&artefact, bytes).unwrap();
    let (code, told, error) = registry.model(&["validate", "search:2"]);
    let says = "the live model search:1, which it is compared with: models/search/artefacts/";
    assert!(code == 2 && error.contains(says) && error.contains("it was changed after it was pushed"), "{code}: {told}{error}");
}

/// Queries without features by name: the demo's are objects in the model's order.
fn plain(queries: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for line in String::from_utf8_lossy(queries).lines() {
        let mut query: Value = serde_json::from_str(line).unwrap();
        for document in query["documents"].as_array_mut().unwrap() {
            if let Value::Object(named) = &document["features"] {
                document["features"] = named.values().cloned().collect();
            }
        }
        let _ = writeln!(text, "{query}");
    }
    text.into_bytes()
}

/// What users have now is what another model is held to: its format, its features, and proof where proof is asked for.
#[test]
fn another_kind_of_model_has_to_be_declared() {
    let validate = |file: &str, more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["model", "validate", "--file"]).arg(CORPUS.join(file)).arg("--live-file").arg(CORPUS.join("live.onnx")).args(more);
        said(&command.output().unwrap())
    };
    let judged = CORPUS.join("judged.jsonl");
    let judged = ["--judged", judged.to_str().unwrap()];
    let (code, told, _) = validate("good/pickle/linear.pkl", &judged);
    assert!(code == 2 && told.contains("pickle, and the live model is onnx: declare that with --signature-change"), "{code}: {told}");
    let declared = [&judged[..], &["--signature-change"]].concat();
    let (code, told, _) = validate("good/pickle/linear.pkl", &declared);
    assert!(!told.contains("declare that with"), "{told}");
    assert!(code == 0 && told.contains("declared") && told.contains("; how well it ranks was not looked at"), "{code}: {told}");
    // One row for the format, whatever there is to say of it.
    for file in ["good/lightgbm/plain.txt", "good/xgboost/indented.json", "good/pickle/linear.pkl"] {
        for (more, outcome) in [(&["--json"][..], "refused"), (&["--json", "--signature-change"], "declared")] {
            let (_, told, error) = validate(file, more);
            let report: Value = serde_json::from_str(&told).unwrap_or_else(|wrong| panic!("{file}: {wrong}: {told}{error}"));
            let checks = report["report"]["checks"].as_array().unwrap();
            let rows: Vec<&Value> = checks.iter().filter(|check| check["name"] == "format").collect();
            assert!(rows.len() == 1 && rows[0]["outcome"] == outcome, "{file}: {checks:?}");
            assert!(rows[0]["said"].as_str().unwrap().contains(", and the live model is onnx"), "{file}: {checks:?}");
        }
    }
    // Who wants proof is not content with nothing.
    for (file, more) in [
        ("good/pickle/linear.pkl", &[&declared[..], &["--proof", "no-worse"]].concat()[..]),
        ("good/onnx/lightgbm_opset15.onnx", &["--proof", "no-worse"]),
    ] {
        let (code, told, _) = validate(file, more);
        assert!(code == 2 && told.contains("so it is not shown to be no worse"), "{file}: {code}: {told}");
    }
    let (code, told, _) = validate("good/onnx/lightgbm_opset15.onnx", &[&judged[..], &["--proof", "no-worse"]].concat());
    assert!(code == 0 && !told.contains("was not looked at"), "{code}: {told}");
}

#[test]
fn what_is_no_pickle_is_told_what_it_looks_like() {
    let registry = Registry::in_folder();
    let file = registry.file("weights.pkl", b"{\"weights\": [1, 2]}\n");
    let (code, told, error) = registry.model(&["validate", "--file", file.to_str().unwrap()]);
    assert!(code == 2 && told.contains("it is no pickle, but looks like JSON; allowed here are pickles, joblib"), "{code}: {told}{error}");
}

/// What would be unpickled is walked, whatever somebody calls it; and it is told by what is in it where its name says nothing.
#[test]
fn a_label_or_a_name_turns_no_look_at_pickles_off() {
    let registry = Registry::in_folder();
    let validate = |name: &str, bytes: &[u8], more: &[&str]| {
        let file = registry.file(name, bytes);
        registry.model(&[&["validate", "--file", file.to_str().unwrap(), "--json"], more].concat())
    };
    let says = "names os.system, which is not among the allowed globals";
    let is_refused = |name: &str, bytes: &[u8], more: &[&str]| {
        let (code, told, error) = validate(name, bytes, more);
        assert!(code == 2 && told.contains(says), "{name}: {code}: {told}{error}");
    };
    for (how, name) in [
        ("plain", "model.bin"),
        ("zlib", "model.z"),
        ("gzip", "model.joblib.gz"),
        ("bz2", "model.joblib.bz2"),
        ("xz", "model.xz"),
        ("lz4", "model"),
    ] {
        let evil = fs::read(CORPUS.join(format!("bad/joblib/{how}.joblib"))).unwrap();
        is_refused(name, &evil, &[]);
        is_refused(name, &evil, &["--format", "opaque"]);
        let good = fs::read(CORPUS.join(format!("good/joblib/mlp_{how}.joblib"))).unwrap();
        let (code, told, error) = validate(name, &good, &[]);
        assert!(code == 0 && told.contains("\"format\": \"pickle\""), "{name}: {code}: {told}{error}");
        let (code, told, error) = validate(name, &good, &["--format", "opaque"]);
        assert!(code == 0 && told.contains("globals known") && told.contains("its backend has to tell"), "{name}: {code}: {told}{error}");
    }
    // Protocol 0 does not say what it is.
    let old = b"cos\nsystem\n(S'true'\ntR.";
    is_refused("old.bin", old, &[]);
    is_refused("old.cbm", old, &["--format", "opaque"]);
    let (code, told, error) = validate("model.cbm", b"CBM1 and what only its library can read", &["--format", "opaque"]);
    assert!(code == 0 && !told.contains("globals known") && told.contains("nothing in it is unpickled"), "{code}: {told}{error}");
    let (code, told, error) = validate("model.cbm", b"CBM1 and what only its library can read", &[]);
    assert!(code == 64 && format!("{told}{error}").contains("what it is cannot be told"), "{code}: {told}{error}");
}

#[test]
fn what_is_not_the_models_fault_is_not_its_refusal() {
    let registry = Registry::in_folder();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../router/demo/models/ranker_v1.onnx");
    let broken = registry.file("judged.jsonl", b"{\"query\": 1}\n");
    let missing = registry.path("missing");
    let (broken, missing) = (broken.to_str().unwrap(), missing.to_str().unwrap());
    let alone =
        |index: u8| format!("{{\"query\": \"q{index}\", \"documents\": [{{\"id\": \"d\", \"features\": [{index}], \"label\": 1}}]}}\n");
    let alone = registry.file("alone.jsonl", (0..30).map(alone).collect::<String>().as_bytes());
    let alone = alone.to_str().unwrap();
    for (arguments, code, says) in [
        (&["validate", "--file", model, "--judged", alone][..], 64, "no query has two documents"),
        (&["validate", "--file", model, "--judged", broken], 64, "(ids and queries are texts)"),
        (&["validate", "--file", model, "--judged", missing], 64, "missing: cannot read it"),
        (&["validate", "--file", missing], 64, "missing: cannot read it"),
        (&["validate", "search:1"], 69, "there is no such folder; the first push makes it"),
        (&["validate", "--file", model, "--margin", "2"], 64, "--margin 2: must be from 0 to 1"),
        (&["validate", "--file", model, "--margin", "-1"], 64, "--margin -1: must be from 0 to 1"),
        (&["validate", "--file", model, "--time", "-1s"], 64, "--time -1s: must be a duration from 1s to 1h"),
        (&["validate", "--file", model, "--time", "0s"], 64, "--time 0s: must be a duration from 1s to 1h"),
        (&["validate", "--file", model, "--memory", "1KiB"], 64, "--memory 1KiB: must be a size from 256MiB"),
        (&["validate"], 64, "required"),
    ] {
        let (is, said, error) = registry.model(arguments);
        assert!(is == code && error.contains(says), "{arguments:?}: {is} {said}{error}");
    }
    let mut command = registry.command(&["model", "validate", "--file", model]);
    let (code, _, error) = said(&command.env("ORT_DYLIB_PATH", missing).output().unwrap());
    assert!(code == 69 && error.contains("ONNX Runtime"), "{code}: {error}");
}
