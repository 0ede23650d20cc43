//! The promise: a model that is registered with MLflow becomes a version here, whole and with what is known of it; and its webhook, when it is signed and
//! a route asks for the alias, makes a candidate of it. A real MLflow server, and one that says what a real one never would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use switchback_tests::deploy::not_a_number;
use switchback_tests::mlflow::{Answer, Mlflow, Pretender, signed};
use switchback_tests::model_pools::{ModelPools, QUICK};
use switchback_tests::ranker::demo;
use switchback_tests::registry::{Registry, said};
use switchback_tests::{Backend, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "the-secret-of-the-webhook-0123456789";
const CANDIDATES: &str = "switchback_mlflow_candidates_total";
const HOOK: &str = "/api/v1/mlflow/webhook";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Exit code and all that `model push --from-mlflow` says, with credentials and a short patience.
fn push(registry: &Registry, url: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = registry.command(&[&["model", "push", "--mlflow-url", url], arguments].concat());
    command.env("MLFLOW_TRACKING_TOKEN", "token-of-ann").env("MLFLOW_HTTP_REQUEST_TIMEOUT", "1");
    let (code, told, error) = said(&command.output().unwrap());
    (code, format!("{told}{error}"))
}

/// A router with a route that asks for `models:/search@champion`, and a registry in its data folder.
fn router(url: &str, folder: &Path, backend: &Backend) -> Setup {
    std::fs::write(folder.join("secret"), format!("{SECRET}\n")).unwrap();
    let top = format!("[mlflow]\nurl = \"{url}\"\nsecret_file = \"{}\"\n", folder.join("secret").display());
    Setup::default()
        .pool("blue", &[backend])
        .top(&top)
        .route("[route.mlflow]\nmodel = \"search\"\nalias = \"champion\"\nregistry_model = \"ranker\"")
        .data_dir(&folder.join("data"))
}

fn deliver(router: &Router, headers: &[(String, String)], body: &str) -> (u16, Value) {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (status, answer, _) = http::send(router.admin, "POST", HOOK, &headers, body.as_bytes()).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn set(model: &str, alias: &str) -> String {
    let data = json!({ "name": model, "alias": alias, "version": "3" });
    json!({ "entity": "model_version_alias", "action": "created", "timestamp": "2026-11-29T14:50:00+00:00", "data": data }).to_string()
}

/// The version that the registry of a router's data folder has.
fn pushed(router: &Router) -> Option<Value> {
    let shown = router.cli().args(["model", "show", "ranker", "--json", "--config"]).arg(router.config()).output().unwrap();
    serde_json::from_slice::<Value>(&shown.stdout).ok().filter(|shown| shown["version"].is_u64())
}

/// So many candidates ended in some way.
fn ended(router: &Router) -> f64 {
    router.metric(CANDIDATES, &["route=\"search\""])
}

#[test]
fn what_a_real_server_has_is_pushed_and_its_webhook_names_a_candidate() {
    let (mlflow, registry, backend, folder) =
        (Mlflow::start(), Registry::in_folder(), Backend::start("blue"), tempfile::tempdir().unwrap());
    let runs = mlflow.make(&["models"])["runs"].clone();
    let url = mlflow.url();

    // Files of a run, which the server does not resolve by itself.
    let (code, told) = push(&registry, &url, &["--from-mlflow", "models:/search@candidate", "--dry-run"]);
    assert!(code == 0 && told.contains("would push models:/search@candidate to search") && told.contains("model.onnx"), "{told}");
    assert_eq!(registry.model(&["list"]).0, 69, "a dry run makes nothing");
    let (code, told) =
        push(&registry, &url, &["--from-mlflow", "models:/search@candidate", "--alias", "candidate", "--tag", "night=another", "--json"]);
    assert_eq!(code, 0, "{told}");
    let one = registry.done(&["show", "search@candidate"]);
    assert_eq!((&one["version"], &one["format"], &one["file"]), (&json!(1), &json!("onnx"), &json!("model.onnx")));
    let about = &one["about"];
    assert_eq!((&about["code_revision"], &about["metrics"]), (&json!("9b2e1c4d"), &json!({ "ndcg_10": 0.743 })));
    assert!(about["training_data"].as_str().unwrap().starts_with("clicks-july@"), "{about}");
    assert_eq!(
        (&about["why"], &about["tags"]["night"], &about["tags"]["team"]),
        (&json!("the first model, tonight"), &json!("another"), &json!("ranking"))
    );
    assert_eq!((&about["tags"]["mlflow.run_id"], &about["tags"]["param.trees"]), (&runs[0], &json!("130")));
    assert_eq!(registry.model(&["pull", "search:1", "--to", "out"]).0, 0);
    assert_eq!(std::fs::read(registry.path("out")).unwrap(), b"the first model");

    // Artifacts of the server, by a number; the same file twice is one version.
    for _ in 0..2 {
        let (code, told) = push(&registry, &url, &["--from-mlflow", "models:/search/2"]);
        assert!(code == 0 && told.starts_with("search:2\n"), "{told}");
    }
    // A flavour of MLflow's own, under another name.
    let (code, told) = push(&registry, &url, &["--from-mlflow", "models:/shelf/1", "--model", "shelf2"]);
    assert!(code == 0 && told.contains("model.skops") && told.contains("opaque"), "{told}");
    for (uri, code, says) in [
        ("models:/search@gone", 2, "alias gone not found"),
        ("models:/nothing/1", 2, "(name=nothing, version=1) not found"),
        ("models:/search/Production", 64, "give the version an alias"),
    ] {
        let (is, told) = push(&registry, &url, &["--from-mlflow", uri]);
        assert!(is == code && told.contains(says), "{uri}: {is} {told}");
    }

    let router = router(&url, folder.path(), &backend).start();
    let hook = format!("http://{}{HOOK}", router.admin);
    let tried = mlflow.make(&["webhook", &hook, SECRET]);
    assert!(tried["status"] == 200 && tried["body"].as_str().unwrap().contains("no route asks for models:/example_model"), "{tried}");
    let version = eventually("the candidate is pushed", SOON, || pushed(&router));
    assert_eq!((&version["about"]["tags"]["mlflow.version"], &version["who"]), (&json!("2"), &json!("mlflow")));
    eventually("and it was tried to deploy it", SOON, || (ended(&router) == 1.0).then_some(()));
    assert!(router.log().contains("a candidate of MLflow's is deployed"), "{}", router.log());
    assert_eq!(router.metric("switchback_mlflow_deliveries_total", &["accepted"]), 1.0);
}

#[test]
fn whatever_a_server_says_is_refused_in_clear_words() {
    let registry = Registry::in_folder();
    let champion = ["--from-mlflow", "models:/search@champion"];
    let alias = "/api/2.0/mlflow/registered-models/alias";
    let place = "/api/2.0/mlflow/model-versions/get-download-uri";
    let with = |head: &str, status: &str| Answer { status: status.to_owned(), head: head.to_owned(), ..Answer::of("") };
    let found = |change: &dyn Fn(&mut Value)| {
        let mut version = json!({ "name": "search", "version": "3", "status": "READY" });
        change(&mut version);
        Answer::of(json!({ "model_version": version }).to_string())
    };
    let large = Answer { head: String::new(), ..Answer::of(vec![b' '; 17 << 20]) };
    let other = Pretender::start(b"of another server");
    let to_other = with(&format!("location: {}/\r\n", other.url()), "302 Found");
    for (path, answer, code, says) in [
        (alias, Answer::error("401 UNAUTHORIZED", "who?"), 64, "refuses these credentials"),
        (alias, Answer::error("400 BAD REQUEST", "Registered model\n alias \u{1b}[2J gone"), 2, "Registered model alias"),
        (alias, Answer::error("500 INTERNAL SERVER ERROR", "the database is gone"), 69, "the database is gone (500)"),
        (alias, Answer::error("503 SERVICE UNAVAILABLE", "busy"), 69, "busy (503)"),
        (alias, to_other.clone(), 69, "which is not followed"),
        (alias, Answer::of("<html>sign in</html>"), 69, "it is a page; is it an MLflow server?"),
        (alias, Answer::of("{\"model_version\": 7}"), 69, "is it an MLflow server?"),
        (alias, Answer::of(vec![b'['; 1 << 20]), 69, "is it an MLflow server?"),
        (alias, large, 2, "more than 16777216 bytes"),
        (alias, Answer { stalls_after: Some(1), ..Answer::of("{}") }, 69, "no answer within 1 s"),
        (alias, found(&|version| version["status"] = json!("PENDING_REGISTRATION")), 2, "version 3 is not ready: PENDING_REGISTRATION"),
        (alias, found(&|version| version["version"] = json!("../3")), 2, "its version is \"../3\""),
        (alias, found(&|version| version["name"] = json!("other")), 2, "answers with the model \"other\""),
        (place, Answer::of("{\"artifact_uri\": \"runs:/r1/../../x\"}"), 2, "must be runs:/RUN/FOLDER"),
        ("MLmodel", Answer::of("flavors:\n  onnx:\n    data: ../../etc/passwd\n"), 2, "must be a path inside the model"),
        ("MLmodel", Answer::of("flavors:\n  spark:\n    data: x\n"), 2, "name it with --mlflow-file"),
        ("MLmodel", Answer::of(vec![b'#'; 2 << 20]), 2, "more than 1048576 bytes"),
        ("MLmodel", Answer::of([b"flavors: ".as_slice(), &vec![b'['; 100_000]].concat()), 2, "MLmodel of models:/search@champion"),
        ("model.onnx", Answer::error("404 NOT FOUND", "no such artifact"), 2, "no such artifact"),
        ("model.onnx", Answer { stalls_after: Some(2), ..Answer::of("a model") }, 69, "broke off"),
        ("model.onnx", to_other, 69, "which is not followed"),
    ] {
        let server = Pretender::start(b"a model");
        server.answers(path, answer.clone());
        let (is, told) = push(&registry, &server.url(), &champion);
        let sent = String::from_utf8_lossy(&answer.body[..answer.body.len().min(80)]).into_owned();
        assert!(is == code && told.contains(says) && !told.contains('\u{1b}'), "{path} {} {sent}: {is} {told}", answer.status);
        assert!(!told.contains("token-of-ann") && told.lines().count() <= 3, "{told}");
    }
    assert_eq!(other.asked(), Vec::<String>::new(), "credentials go to nobody else");
    assert!(registry.model(&["list"]).1.contains("no models"), "nothing of all that was pushed");
}

#[test]
fn a_file_that_is_there_is_not_pushed_again_and_that_is_said() {
    let (registry, server) = (Registry::in_folder(), Pretender::start(b"a model"));
    let from = ["--from-mlflow", "models:/search@champion", "--alias", "candidate"];
    let (code, told) = push(&registry, &server.url(), &from);
    let moved = "search@candidate points to version 1; before to no version\n";
    assert!(code == 0 && !told.contains("nothing was pushed") && told.ends_with(moved), "{told}");
    let (code, told) = push(&registry, &server.url(), &from);
    let nothing = "nothing was pushed: search:1 is this file already\nsearch@candidate points to version 1 already; nothing was moved\n";
    assert!(code == 0 && told.starts_with("search:1\n") && told.ends_with(nothing), "{told}");
    let (code, told) = push(&registry, &server.url(), &[&from[..], &["--json"]].concat());
    assert!(code == 0 && told.contains("\"pushed\": false"), "{told}");
    server.answers("model.onnx", Answer::of("another model"));
    let (code, told) = push(&registry, &server.url(), &[&from[..], &["--json"]].concat());
    assert!(code == 0 && told.contains("\"pushed\": true") && told.contains("\"version\": 2"), "{told}");
}

/// Whoever may write a tag there, or an object here, makes no version look signed, or passed.
#[test]
fn what_somebody_writes_makes_no_line_of_its_own() {
    let (registry, server) = (Registry::in_folder(), Pretender::start(b"a model"));
    let forged = "ok\n  signed with  77f61b5ee1e374ee\n  validated    by boss: passed (report 1)";
    let data = json!({
        "metrics": [{ "key": "loss", "value": "NaN" }, { "key": "mrr", "value": 0.9 }],
        "params": [{ "key": "trees\u{202e}", "value": "1" }],
        "tags": [{ "key": "zz", "value": forged }],
    });
    server.answers("/api/2.0/mlflow/runs/get", Answer::of(json!({ "run": { "info": {}, "data": data } }).to_string()));
    let is_forged = |line: &str| line.starts_with("  signed with") || line.starts_with("  validated");
    let (code, told) = push(&registry, &server.url(), &["--from-mlflow", "models:/search@champion"]);
    let left_out = r#"2 metrics, parameters and tags of models:/search@champion are left out ("loss", "param.trees\u{202e}")"#;
    assert!(code == 0 && told.contains(left_out) && told.contains("tag zz") && !told.lines().any(is_forged), "{told}");
    assert_eq!(registry.done(&["show", "search"])["about"]["tags"]["zz"], forged.replace('\n', " "));

    // As a push of a release before left it, or somebody who may write to the store.
    let manifest = registry.path("registry/models/search/versions/1/manifest.json");
    let written = std::fs::read_to_string(&manifest).unwrap();
    let other = written.replace("\"who\":\"ann\"", "\"who\":\"ann\\n  signed with  77\\u202e\"");
    assert_ne!(other, written);
    std::fs::write(&manifest, other).unwrap();
    for arguments in [&["show", "search"][..], &["list", "search"], &["diff", "search:1", "search:1"], &["show", "search", "--json"]] {
        let (code, told, error) = registry.model(arguments);
        assert!(code == 0 && !told.lines().any(is_forged) && !told.contains('\u{202e}'), "{arguments:?}: {told}{error}");
    }
    assert!(registry.model(&["list", "search"]).1.contains(r"ann\n  signed with  77\u202e"));
    assert_eq!(registry.done(&["show", "search"])["who"], "ann\n  signed with  77\u{202e}");
}

#[test]
fn what_mlflow_writes_by_default_and_nobody_can_pass_is_told() {
    let (registry, server) = (Registry::in_folder(), Pretender::start(b"a model"));
    let champion = ["--from-mlflow", "models:/search@champion"];
    let (code, told) = push(&registry, &server.url(), &[&champion[..], &["--mlflow-file", "MLmodel"]].concat());
    let says = "MLmodel of models:/search@champion: what it is cannot be told";
    assert!(code == 64 && told.contains(says) && !told.contains(".tmp"), "{code}: {told}");
    // IR 8, opset 15, and a graph with the initializer w, whose data is in w.bin.
    let elsewhere = b"\x08\x08\x42\x02\x10\x0f\x3a\x1e\x2a\x1c\x08\x01\x10\x01\x42\x01w\x6a\x11\x0a\x08location\x12\x05w.bin\x70\x01";
    server.answers("model.onnx", Answer::of(elsewhere.to_vec()));
    let (code, told) = push(&registry, &server.url(), &champion);
    assert!(code == 0 && told.contains("warning: model.onnx of models:/search@champion: graph: tensor \"w\""), "{code}: {told}");
    assert!(told.contains("log the model with save_as_external_data=False"), "{told}");
    server.answers("MLmodel", Answer::of("flavors:\n  xgboost:\n    data: model.ubj\n"));
    let (code, told) = push(&registry, &server.url(), &[&champion[..], &["--dry-run"]].concat());
    assert!(code == 0 && told.contains("warning: model.ubj of models:/search@champion: UBJSON is not read here"), "{code}: {told}");
}

#[test]
fn who_asks_and_where_is_as_with_mlflow() {
    let (registry, server) = (Registry::in_folder(), Pretender::start(b"a model"));
    let pushes = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = registry.command(&[&["model", "push", "--from-mlflow", "models:/search@champion"], arguments].concat());
        let (code, told, error) = said(&command.env_remove("MLFLOW_TRACKING_URI").envs(variables.iter().copied()).output().unwrap());
        (code, format!("{told}{error}"))
    };
    let url = server.url();
    let at = ("MLFLOW_TRACKING_URI", url.as_str());
    assert_eq!(pushes(&[], &[at, ("MLFLOW_TRACKING_USERNAME", "ann"), ("MLFLOW_TRACKING_PASSWORD", "pass")]).0, 0);
    assert!(server.asked().iter().all(|head| head.contains("authorization: Basic YW5uOnBhc3M=")), "{:?}", server.asked());
    for (arguments, variables, says) in [
        (&[][..], &[][..], "--mlflow-url URL, or MLFLOW_TRACKING_URI"),
        (&[], &[("MLFLOW_TRACKING_URI", "databricks")], "must be a URL like http://mlflow.example.org:5000"),
        (&[], &[at, ("MLFLOW_TRACKING_INSECURE_TLS", "true")], "MLFLOW_TRACKING_INSECURE_TLS: is not obeyed"),
        (&[], &[at, ("MLFLOW_TRACKING_SERVER_CERT_PATH", "no-such-file")], "MLFLOW_TRACKING_SERVER_CERT_PATH no-such-file"),
        (&["--mlflow-file", "../x"], &[at], "must be a path inside the model"),
        (&["--model", "../x"], &[at], "must be 1 to 64 lower-case letters"),
        (&["a-file"], &[at], "cannot be used with"),
    ] {
        let (code, told) = pushes(arguments, variables);
        assert!(code == 64 && told.contains(says), "{arguments:?} {variables:?}: {code} {told}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, told) = pushes(&[], &[("MLFLOW_TRACKING_URI", &format!("http://{nobody}"))]);
    assert!(code == 69 && told.contains("cannot be used"), "{told}");
    // Artifacts that the server cannot read itself.
    server.answers("/api/2.0/mlflow/model-versions/get-download-uri", Answer::of("{\"artifact_uri\": \"s3://bucket/models\"}"));
    server.answers("MLmodel", Answer::error("500 INTERNAL SERVER ERROR", "Unable to locate credentials"));
    let (code, told) = pushes(&[], &[at]);
    assert!(code == 69 && told.contains("s3://bucket/models") && told.contains("--serve-artifacts"), "{told}");
}

#[test]
fn only_what_is_signed_lately_and_new_is_obeyed() {
    let (server, backend, folder) = (Pretender::start(b"a model"), Backend::start("blue"), tempfile::tempdir().unwrap());
    let router = router(&server.url(), folder.path(), &backend).start();
    let body = set("search", "champion");
    let good = |id: &str, body: &str| signed(SECRET, id, now(), body);
    for (headers, body, status, says) in [
        (Vec::new(), body.clone(), 403, "are each needed once"),
        (signed("another-secret-of-somebody", "a1", now(), &body).to_vec(), body.clone(), 403, "not by a secret"),
        (good("a2", &body).to_vec(), set("search", "other"), 403, "not by a secret"),
        (signed(SECRET, "a3", now() - 301, &body).to_vec(), body.clone(), 403, "too long ago"),
        (signed(SECRET, "a4", now() + 310, &body).to_vec(), body.clone(), 403, "too long ago"),
        (good("a5", "{").to_vec(), "{".to_owned(), 400, "must be JSON like"),
        (good("a6", &set("../x", "champion")).to_vec(), set("../x", "champion"), 400, "data.name"),
        (good("a7", &set("search", "other")).to_vec(), set("search", "other"), 200, "no route asks for models:/search@other"),
        (good("a8", &set("ads", "champion")).to_vec(), set("ads", "champion"), 200, "no route asks for"),
        (Vec::new(), "x".repeat(300 << 10), 413, "at most"),
    ] {
        let (is, answer) = deliver(&router, &headers, &body);
        let text = answer.to_string();
        assert!(is == status && text.contains(says) && !text.contains(SECRET), "{headers:?} {}: {is} {text}", &body[..body.len().min(80)]);
    }
    let removed = body.replace("created", "deleted");
    assert_eq!(
        deliver(&router, &good("a9", &removed), &removed).1["why"],
        "model_version_alias.deleted is of no interest: only model_version_alias.created is"
    );
    assert_eq!(server.asked(), Vec::<String>::new(), "nothing was done for any of these");

    let headers = good("b1", &body);
    let (status, answer) = deliver(&router, &headers, &body);
    assert_eq!((status, &answer["routes"]), (202, &json!([{ "route": "search", "state": "begun" }])));
    let again = deliver(&router, &headers, &body);
    assert_eq!((again.0, &again.1["why"]), (200, &json!("this delivery was taken before")));
    let version = eventually("the candidate is pushed", SOON, || pushed(&router));
    assert_eq!((&version["version"], &version["about"]["metrics"]["mrr"]), (&json!(1), &json!(0.9)));
    eventually("and it was tried to deploy it", SOON, || (ended(&router) == 1.0).then_some(()));
    // The same alias again: the same file, and no second version.
    assert_eq!(deliver(&router, &good("b2", &body), &body).0, 202);
    eventually("and again", SOON, || (ended(&router) == 2.0).then_some(()));
    assert_eq!(pushed(&router).unwrap()["version"], 1);
    let count = |result: &str| router.metric("switchback_mlflow_deliveries_total", &[&format!("result=\"{result}\"")]);
    let counted = ["accepted", "repeated", "ignored", "malformed", "unsigned", "signature", "stale"].map(count);
    assert_eq!(counted, [2.0, 1.0, 3.0, 3.0, 1.0, 2.0, 2.0]);
    assert!(!router.data_dir.join("mlflow-candidates.json").exists(), "all is done");
}

#[test]
fn a_candidate_outlives_the_router_that_was_told_of_it() {
    let (server, backend, folder) = (Pretender::start(b"a model"), Backend::start("blue"), tempfile::tempdir().unwrap());
    server.answers("model.onnx", Answer { stalls_after: Some(3), ..Answer::of("a model") });
    let mut one = router(&server.url(), folder.path(), &backend).start();
    let body = set("search", "champion");
    assert_eq!(deliver(&one, &signed(SECRET, "c1", now(), &body), &body).0, 202);
    eventually("it is being fetched", SOON, || server.asked().iter().any(|head| head.contains("model.onnx")).then_some(()));
    // While one is worked on, others wait, and they are one.
    for id in ["c2", "c3"] {
        assert_eq!(deliver(&one, &signed(SECRET, id, now(), &body), &body).1["routes"][0]["state"], "waits");
    }
    assert_eq!(one.metric(CANDIDATES, &["replaced"]), 1.0);
    one.signal("TERM");
    assert_eq!(one.child_status().code(), Some(0));
    assert!(folder.path().join("data/mlflow-candidates.json").exists());
    server.answers("model.onnx", Answer::of("a model"));
    let two = router(&server.url(), folder.path(), &backend).start();
    eventually("the next router pushes it", SOON, || pushed(&two));
    eventually("and is done with it", SOON, || (!two.data_dir.join("mlflow-candidates.json").exists()).then_some(()));
    assert!(two.log().contains("is taken up again"), "{}", two.log());
}

/// An outage takes no candidate away; and what failed for good is taken again when MLflow delivers it again.
#[test]
fn a_candidate_waits_for_a_server_that_is_away() {
    let (server, backend, folder) = (Pretender::start(b"a model"), Backend::start("blue"), tempfile::tempdir().unwrap());
    let alias = "/api/2.0/mlflow/registered-models/alias";
    server.answers(alias, Answer::error("503 SERVICE UNAVAILABLE", "starting"));
    let router = router(&server.url(), folder.path(), &backend).start();
    let body = set("search", "champion");
    assert_eq!(deliver(&router, &signed(SECRET, "f1", now(), &body), &body).0, 202);
    let waits = |router: &Router| router.route()["mlflow"]["waits"].as_str().map(str::to_owned);
    let said = eventually("it is to be tried again", SOON, || waits(&router));
    assert!(said.starts_with("tried again in ") && said.contains("not pushed: exit status: 69"), "{said}");
    assert!(router.run(&["status"]).1.contains("  mlflow: a candidate is tried again in "), "{}", router.run(&["status"]).1);
    assert!(router.data_dir.join("mlflow-candidates.json").exists(), "the next router would take it up");
    // A newer one takes its place, and waits as well.
    let headers = signed(SECRET, "f2", now(), &body);
    assert_eq!(deliver(&router, &headers, &body).1["routes"][0]["state"], "waits");
    eventually("it takes the place", SOON, || (router.metric(CANDIDATES, &["replaced"]) == 1.0).then_some(()));
    eventually("and waits", SOON, || waits(&router));
    let again = deliver(&router, &headers, &body);
    assert_eq!((again.0, &again.1["why"]), (200, &json!("this delivery was taken before")));
    let version = json!({ "name": "search", "version": "3", "status": "READY", "run_id": "r1" });
    server.answers(alias, Answer::of(json!({ "model_version": version }).to_string()));
    eventually("it is pushed once the server is back", SOON, || pushed(&router));
    // It is no model: it is refused for good.
    eventually("it ends", SOON, || (router.metric(CANDIDATES, &["not_deployed"]) == 1.0).then_some(()));
    assert_eq!(router.route()["mlflow"]["waits"], Value::Null);
    assert_eq!(deliver(&router, &headers, &body).0, 202, "it is taken again");
    eventually("it ends again", SOON, || (router.metric(CANDIDATES, &["not_deployed"]) == 2.0).then_some(()));
}

/// From the alias to users, with nobody's hand on it.
#[test]
fn a_candidate_of_its_goes_live() {
    let mut pools = ModelPools::start(&[]);
    let server = Pretender::start(&std::fs::read(demo("models/ranker_v2.onnx")).unwrap());
    let secret = pools.registry.file("secret", SECRET.as_bytes());
    pools.top = format!("[mlflow]\nurl = \"{}\"\nsecret_file = {secret:?}\n", server.url());
    let asked = "[route.mlflow]\nmodel = \"search\"\nalias = \"champion\"\n";
    let router = pools.router("one", QUICK, &format!("{}{asked}", pools.filled()));
    let load = pools.load(&router, 100).start();
    let body = set("search", "champion");
    let (status, told) = deliver(&router, &signed(SECRET, "e1", now(), &body), &body);
    assert_eq!(status, 202, "{told}");
    eventually("it is live", SOON, || (router.route()["rollout"]["phase"] == "done").then_some(()));
    assert_eq!((&router.route()["rollout"]["candidate"], &router.route()["live"]), (&"search:2".into(), &"green".into()));
    assert_eq!(pools.served(&pools.rankers[1][0]), [2]);
    eventually("and that is counted", SOON, || (router.metric(CANDIDATES, &["deployed"]) == 1.0).then_some(()));
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    // One that the validation refuses gets nobody, and is told of.
    server.answers("model.onnx", Answer::of(std::fs::read(not_a_number(&pools.registry)).unwrap()));
    assert_eq!(deliver(&router, &signed(SECRET, "e2", now(), &body), &body).0, 202);
    eventually("it is refused", SOON, || (router.metric(CANDIDATES, &["not_deployed"]) == 1.0).then_some(()));
    assert!(router.log().contains("search:3 is refused by its validation"), "{}", router.log());
    let last = router.route()["mlflow"]["last"].clone();
    assert_eq!((&last["candidate"], &last["version"]), (&"models:/search@champion".into(), &3.into()));
    let status = router.run(&["status"]).1;
    let line = status.lines().find(|line| line.starts_with("  mlflow: models:/search@champion (version 3), ")).expect(&status);
    assert!(line.contains("ago: not deployed: ") && line.contains("refused by its validation"), "{line}");
}

#[test]
fn a_router_without_mlflow_takes_no_webhook_and_one_without_its_secret_does_not_start() {
    let (backend, folder) = (Backend::start("blue"), tempfile::tempdir().unwrap());
    let plain = Setup::default().pool("blue", &[&backend]).start();
    let body = set("search", "champion");
    let (status, answer) = deliver(&plain, &signed(SECRET, "d1", now(), &body), &body);
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("no [mlflow] section"), "{answer}");
    let setup = router("http://127.0.0.1:1", folder.path(), &backend);
    std::fs::write(folder.path().join("secret"), "short").unwrap();
    let (code, said) = setup.fails();
    assert!(code == 64 && said.contains("mlflow.secret_file") && said.contains("16 to 1024 printable"), "{code} {said}");
}
