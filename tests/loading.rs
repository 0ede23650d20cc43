//! The promise: a version that no pool runs yet is loaded, warmed up and tried before anybody sees it, on each pool that it comes to; what cannot be
//! loaded leaves everything as it was; and no query notices any of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use switchback_tests::model_pools::{ModelPools, QUICK};
use switchback_tests::ranker::{demo, with_one_more_feature};
use switchback_tests::registry;
use switchback_tests::{Backend, Router, eventually, http};

const SOON: Duration = Duration::from_secs(60);

fn rollout(router: &Router) -> Value {
    router.route()["rollout"].clone()
}

fn reaches(router: &Router, phase: &str) {
    let limit = SOON;
    eventually(phase, limit, || (rollout(router)["phase"] == phase).then_some(()));
}

fn waits_for(router: &Router, what: &str) {
    eventually(what, SOON, || rollout(router)["waits_for"].as_str().is_some_and(|waits| waits.contains(what)).then_some(()));
}

fn done(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

fn start(router: &Router, candidate: &str) {
    let said = done(router, &["rollout", "start", "search", "--candidate", candidate]);
    assert!(said.starts_with(&format!("search: rollout of {candidate} over search:1: loading\n")), "{said}");
}

#[test]
fn a_version_that_no_pool_runs_is_loaded_and_goes_live() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let routers = ["one", "other"].map(|id| pools.router(id, QUICK, &pools.filled()));
    let loads = routers.each_ref().map(|router| pools.load(router, 100).start());
    start(&routers[0], "search:2");
    routers.iter().for_each(|router| reaches(router, "done"));
    let rolled = "search:2 canary step 1 of 2 (10 %)";
    assert_eq!(
        routers[1].transitions(),
        ["search:2 loading", "search:2 loading", rolled, rolled, "search:2 canary step 2 of 2 (50 %)", "search:2 baking", "search:2 done"]
    );
    let versions = |router: &Router| ["blue", "green", "canary"].map(|pool| router.route()["pools"][pool]["version"].clone());
    assert_eq!(versions(&routers[0]), ["search:1", "search:2", "search:2"], "the old colour keeps the old version");
    let served: Vec<Vec<u64>> = pools.rankers.iter().flatten().map(|ranker| pools.served(ranker)).collect();
    assert_eq!(served, [vec![1], vec![2], vec![2], vec![2]]);
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures(), 0, "{report:?}");
    }
    // Back at once: the old colour still has it.
    done(&routers[1], &["rollback", "search"]);
    eventually("it is back", SOON, || (routers[0].route()["live"] == "blue").then_some(()));
}

#[test]
fn what_is_retired_comes_back_by_a_load() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &pools.filled());
    let load = pools.load(&router, 100).start();
    let (code, _, error) = router.run(&["rollout", "retire", "search"]);
    assert!(code == 2 && error.contains("has no rollout"), "{error}");
    start(&router, "search:2");
    done(&router, &["rollout", "promote", "search", "--full"]);
    reaches(&router, "done");
    let said = done(&router, &["status"]);
    assert!(said.contains("way back: search:1 becomes live on blue, which still has it (1 of 1 endpoints healthy): at once"), "{said}");
    done(&router, &["rollout", "retire", "search", "--why", "memory is short"]);
    assert_eq!(pools.served(&pools.rankers[0][0]), [] as [u64; 0]);
    assert!(!pools.folder("blue").join("search/1").exists(), "nor is it in the repository that the router fills");
    let (code, _, error) = router.run(&["rollback", "search"]);
    assert!(code == 2 && error.contains("to bring an earlier version back: switchback rollback search --to VERSION"), "{error}");
    let (code, _, error) = router.run(&["flag", "set", "search", "live=blue"]);
    assert!(code == 2 && error.contains("pool blue runs no version, since its servers let go of it"), "{code}: {error}");
    let said = done(&router, &["status"]);
    assert!(
        said.contains("way back: rollback --to search:1: search:1 is loaded on blue, which runs none, and becomes live then"),
        "{said}"
    );
    let said = done(&router, &["rollback", "search", "--to", "search:1", "--dry-run"]);
    assert!(
        said.starts_with("would be done: search:1 is loaded on blue, which runs none, and becomes live then; the last load took "),
        "{said}"
    );
    let said = done(&router, &["rollback", "search", "--to", "search:1"]);
    assert_eq!(said, "rolled back: search:1 is live on search\n");
    assert_eq!((pools.served(&pools.rankers[0][0]), router.route()["live"].clone()), (vec![1], "blue".into()));
    let (code, _, error) = router.run(&["rollback", "search"]);
    assert!(code == 2 && error.contains("search:1 was brought back over search:2; to make that live again"), "{code}: {error}");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// A plain rollback is not repeated into the version before: two who act at the same moment would take the good one away.
#[test]
fn after_a_later_deployment_that_failed_the_version_before_has_to_be_named() {
    let pools = ModelPools::start(&["ranker_v2.onnx", "ranker_v1.onnx"]);
    let router = pools.router("one", QUICK, &pools.filled());
    let load = pools.load(&router, 100).start();
    start(&router, "search:2");
    done(&router, &["rollout", "promote", "search", "--full"]);
    reaches(&router, "done");
    let said = done(&router, &["rollout", "start", "search", "--candidate", "search:3"]);
    assert!(said.starts_with("search: rollout of search:3 over search:2: loading\n"), "{said}");
    done(&router, &["rollout", "abort", "search", "--why", "not tonight"]);
    for more in [&["--dry-run"][..], &[]] {
        let (code, _, error) = router.run(&[&["rollback", "search"], more].concat());
        let says = "so nothing to roll back; blue runs search:1: to make that live: switchback rollback search --to search:1";
        assert!(code == 2 && error.contains(says), "{code}: {error}");
    }
    assert_eq!(router.route()["live"], "green");
    let said = done(&router, &["status"]);
    let says = "way back: rollback --to search:1: search:1 becomes live on blue, which still has it (1 of 1 endpoints healthy): at once";
    assert!(said.contains(says), "{said}");
    assert_eq!(done(&router, &["rollback", "search", "--to", "search:1"]), "rolled back: search:1 is live on search\n");
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// The servers of the canary find their versions themselves, and what they find as the second one is another model.
#[test]
fn a_server_that_scores_otherwise_than_the_registry_says_gets_nobody() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, "");
    let put = |model: &str| {
        let folder = pools.folder("canary").join("search/2");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(demo(&format!("models/{model}")), folder.join("model.onnx")).unwrap();
    };
    let load = pools.load(&router, 100).start();
    // It is not there: everything stays as it was.
    start(&router, "search:2");
    reaches(&router, "aborted");
    let why = rollout(&router)["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("not loaded: ") && why.contains("there is no version 2 of it"), "{why}");
    put("ranker_inverted.onnx");
    start(&router, "search:2");
    reaches(&router, "aborted");
    let why = rollout(&router)["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("not loaded: ") && why.contains(&pools.rankers[2][0].address) && why.contains("score"), "{why}");
    assert_eq!(pools.served(&pools.rankers[2][0]), [1], "it has what it had");
    let route = router.route();
    assert_eq!((&route["pools"]["canary"]["version"], &route["live"]), (&"search:1".into(), &"blue".into()));
    let report = load.stop();
    assert_eq!((report.failures(), report.by_pool.keys().map(String::as_str).collect::<Vec<_>>()), (0, vec!["blue"]), "{report:?}");
    // What pools run is not removed, however old it is and whatever aliases say.
    let gc = ["model", "gc", "search", "--keep", "1", "--younger", "0s", "--json"];
    let (code, said, error) = registry::said(&pools.command(&router, &gc).output().unwrap());
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{code}: {said}{error}"));
    assert_eq!((&told["models"][0]["removed"], &told["models"][0]["kept"][0]["why"]), (&json!([]), &json!("in use")), "{told:#}");
    let mut alone = pools.command(&router, &gc);
    alone.env("SWITCHBACK_ADMIN", "http://127.0.0.1:1");
    let (code, said, error) = registry::said(&alone.output().unwrap());
    assert!(code == 69 && format!("{said}{error}").contains("nothing is removed while"), "{code}: {said}{error}");
    // What nobody validated, and what was refused, is not loaded at all.
    let file = demo("models/ranker_shuffled.onnx");
    pools.registry.done(&["push", file.to_str().unwrap(), "--model", "search"]);
    let begun = rollout(&router)["id"].clone();
    for (candidate, why) in
        [("search:3", "search:3 was never validated: switchback model validate search:3"), ("search:9", "there is none in the registry")]
    {
        let (code, _, error) = router.run(&["rollout", "start", "search", "--candidate", candidate]);
        assert!(code == 2 && error.contains(&format!("not loaded: {candidate}")) && error.contains(why), "{error}");
    }
    assert_eq!(rollout(&router)["id"], begun, "nothing began");
    let (code, _, error) = router.run(&["rollout", "start", "search", "--candidate", "ads:1"]);
    assert!(code == 2 && error.contains("it can be loaded as search:N"), "{error}");
}

#[test]
fn where_keys_are_trusted_nobody_gets_what_is_not_signed() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let (private, public) = pools.registry.keys("trainer");
    pools.top = format!("trusted_keys = [{public:?}]");
    let router = pools.router("one", QUICK, &pools.filled());
    let (code, _, error) = router.run(&["rollout", "start", "search", "--candidate", "search:2"]);
    assert!(code == 2 && error.contains("not loaded: search:2 is not trusted: nobody signed it"), "{error}");
    assert_eq!(pools.served(&pools.rankers[2][0]), [1]);
    let (file, key) = (demo("models/ranker_v2.onnx"), private.to_str().unwrap());
    pools.registry.done(&["push", file.to_str().unwrap(), "--model", "search", "--sign-key", key]);
    pools.registry.done(&["validate", "search:3"]);
    start(&router, "search:3");
    reaches(&router, "canary");
    assert_eq!(pools.served(&pools.rankers[2][0]), [3]);
}

/// Whoever deploys from another registry means other bytes by the same name: the router loads none but those that are meant.
#[test]
fn another_registrys_version_of_the_same_name_is_refused() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &pools.filled());
    let other = registry::Registry::in_folder();
    for model in ["ranker_v1.onnx", "ranker_shuffled.onnx"] {
        other.done(&["push", demo(&format!("models/{model}")).to_str().unwrap(), "--model", "search"]);
    }
    let [has, meant] =
        [&pools.registry, &other].map(|registry| registry.done(&["show", "search:2"])["sha256"].as_str().unwrap().to_owned());
    let deploy = |more: &[&str]| {
        let mut command = other.command(&[&["deploy", "--route", "search", "--model", "search", "--version", "2"], more].concat());
        command.env("SWITCHBACK_ADMIN", format!("http://{}", router.admin)).env("SWITCHBACK_TOKEN_FILE", router.token_file());
        registry::said(&command.output().unwrap())
    };
    let place = pools.registry.path("registry");
    let refused = format!("search:2 in the router's registry (file://{}) is artefact {has}, and not {meant}", place.display());
    for more in [&["--dry-run"][..], &[]] {
        let (code, told, error) = deploy(more);
        assert!(code == 2 && error.contains(&refused) && error.contains("the registry of the command is another one"), "{told}{error}");
    }
    assert_eq!((rollout(&router), pools.served(&pools.rankers[2][0])), (Value::Null, vec![1]), "nothing began");
    // What the record says holds for whoever comes later.
    let begin = |sha256: &str| {
        let body = json!({ "candidate": "search:2", "sha256": sha256 }).to_string();
        router.admin("POST", "/api/v1/routes/search/rollout", body.as_bytes())
    };
    let (status, answer) = begin("search");
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("must be 64 hex digits"), "{status}: {answer}");
    assert_eq!(begin(&meant).0, 409);
    let (status, answer) = begin(&has);
    assert_eq!((status, &answer["sha256"]), (200, &json!(has)), "{answer}");
    let another = format!("is artefact {has}, and not {meant}, which is meant here");
    reaches(&router, "canary");
    let (code, told, error) = deploy(&[]);
    assert!(code == 2 && error.contains(&another), "{code}: {told}{error}");
    let load = pools.load(&router, 100).start();
    done(&router, &["rollout", "promote", "search", "--full"]);
    reaches(&router, "done");
    eventually("it is live", SOON, || (router.route()["live"] == "green").then_some(()));
    let (code, told, error) = deploy(&[]);
    assert!(code == 2 && error.contains(&another), "{code}: {told}{error}");
    // Also where no record tells: what is live by that name is what the router's registry has.
    done(&router, &["rollback", "search", "--to", "search:1"]);
    done(&router, &["rollback", "search", "--to", "search:2"]);
    let (code, told, error) = deploy(&[]);
    assert!(code == 2 && error.contains(&refused), "{code}: {told}{error}");
    assert_eq!(load.stop().failures(), 0);
}

/// Nothing is ended for a version that cannot come back; and one that was live once can, whatever anybody has looked at.
#[test]
fn a_way_back_that_is_none_ends_nothing() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &pools.filled());
    start(&router, "search:2");
    reaches(&router, "canary");
    for more in [&["--dry-run"][..], &[]] {
        let (code, _, error) = router.run(&[&["rollback", "search", "--to", "search:99"], more].concat());
        assert!(code == 2 && error.contains("search:99: there is none in the registry"), "{code}: {error}");
    }
    assert_eq!((&rollout(&router)["phase"], &router.route()["live"]), (&"canary".into(), &"blue".into()));
    let (file, model) = (demo("models/ranker_v1.onnx"), "search");
    pools.registry.done(&["push", file.to_str().unwrap(), "--model", model]);
    pools.registry.done(&["alias", model, "champion", "1"]);
    // The router's config names the registry: what is live again is the champion again.
    let back = pools.command(&router, &["rollback", model, "--to", "search:3"]).env("SWITCHBACK_CONFIG", router.config()).output().unwrap();
    let (code, said, error) = registry::said(&back);
    assert!(code == 0 && said == "rolled back: search:3 is live on search\n", "{said}{error}");
    assert_eq!(pools.registry.done(&["alias", model])["aliases"][0]["last"]["version"], 3, "{error}");
    let route = router.route();
    assert_eq!(route["pools"][route["live"].as_str().unwrap()]["version"], "search:3");
    // An alias stands for its version, where it is known in which registry.
    let alias = ["rollback", model, "--to", "search@champion", "--dry-run"];
    let (code, said, error) = registry::said(&pools.command(&router, &alias).env("SWITCHBACK_CONFIG", router.config()).output().unwrap());
    assert!(code == 0 && said.starts_with("would be done: nothing: search:3 is live already on "), "{code}: {said}{error}");
    let (code, _, error) = router.run(&alias);
    assert!(code == 64 && error.contains("--to search@champion: an alias is one of the registry of --config"), "{code}: {error}");
}

/// Nobody could load it there, nor answer with it: nothing begins, a dry run says so, and a load that is under way says for what it waits.
#[test]
fn a_pool_whose_servers_are_dead_is_told_before_anything_begins() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &pools.filled());
    let address = pools.rankers[2][0].address.clone();
    let says = format!("pool canary has no healthy server (http://{address})");
    pools.rankers[2].clear();
    eventually("the canary is known to be dead", SOON, || (router.route()["pools"]["canary"]["healthy"] == 0).then_some(()));
    let (code, _, error) = router.run(&["rollout", "start", "search", "--candidate", "search:2"]);
    assert!(code == 2 && error.contains(&says), "{code}: {error}");
    let deploy = |more: &[&str]| {
        let arguments = [&["deploy", "--route", "search", "--model", "search"], more].concat();
        registry::said(&pools.command(&router, &arguments).output().unwrap())
    };
    let file = demo("models/ranker_shuffled.onnx");
    for more in [&["--version", "2", "--dry-run"][..], &["--version", "2"], &["--file", file.to_str().unwrap(), "--dry-run"]] {
        let (code, told, error) = deploy(more);
        assert!(code == 2 && error.contains(&says), "{more:?}: {code}: {told}{error}");
    }
    let (status, answer) = router.admin("GET", "/api/v1/routes/search/rollout/check?candidate=search:2", b"");
    assert!(status == 409 && answer["error"].as_str().unwrap().contains(&says), "{status}: {answer}");
    assert_eq!(rollout(&router), Value::Null, "nothing began");
}

#[test]
fn a_load_that_nobody_can_do_says_which_servers_it_waits_for() {
    let mut pools = ModelPools::start(&["ranker_v2.onnx"]);
    let router = pools.router("one", QUICK, &format!("{}request_timeout = \"2s\"\n", pools.filled()));
    let canary = &pools.rankers[2][0];
    let says = format!("pool canary has no healthy server (http://{}), so search:2 is not loaded there yet", canary.address);
    assert!(Command::new("kill").args(["-STOP", &canary.pid().to_string()]).status().unwrap().success());
    start(&router, "search:2");
    waits_for(&router, &says);
    pools.rankers[2].clear();
    done(&router, &["rollout", "abort", "search"]);
}

/// A model that takes one more feature, which its deployment declares, is loaded beside the live one; and the way back is one write, as ever.
#[test]
fn a_model_with_another_number_of_features_goes_live_where_that_is_declared() {
    let pools = ModelPools::start(&[]);
    let router = pools.router("one", QUICK, &pools.filled());
    let wider = with_one_more_feature(&fs::read(demo("models/ranker_v2.onnx")).unwrap());
    let file = pools.registry.file("wider.onnx", &wider);
    let deploy = |more: &[&str]| {
        let arguments = ["deploy", "--route", "search", "--model", "search", "--file", file.to_str().unwrap()];
        registry::said(&pools.command(&router, &[&arguments, more].concat()).output().unwrap())
    };
    let (code, said, error) = deploy(&[]);
    assert!(code == 2 && error.contains("search:2 is refused by its validation: signature"), "{code}: {said}{error}");
    let (code, said, error) = deploy(&["--signature-change"]);
    assert_eq!(code, 0, "{said}{error}");
    reaches(&router, "canary");
    assert_eq!(pools.served(&pools.rankers[2][0]), [2]);
    done(&router, &["rollout", "promote", "search", "--full"]);
    eventually("it is live", SOON, || (router.route()["live"] == "green").then_some(()));
    assert_eq!(pools.rankers[1].iter().map(|ranker| pools.served(ranker)).collect::<Vec<_>>(), [[2], [2]]);
    let rank = |user: &str, features: usize| {
        let query = json!({ "query": "x", "documents": [{ "id": "a", "features": vec![0.5; features] }] }).to_string();
        http::send(router.traffic, "POST", "/rank", &[("x-user-id", user)], query.as_bytes()).unwrap()
    };
    // Somebody who is not held back.
    let mut users = (0..).map(|user| format!("user{user}"));
    let user = eventually("rows of 41 are ranked", SOON, || users.next().filter(|user| rank(user, 41).0 == 200));
    let (status, answer, _) = rank(&user, 40);
    assert!(status == 400 && answer.contains("40 features; the model takes 41"), "{status}: {answer}");
    done(&router, &["rollback", "search", "--why", "callers send the old rows"]);
    eventually("rows of 40 are ranked", SOON, || (rank(&user, 40).0 == 200).then_some(()));
    // And the other way round, on the canary's server.
    pools.push("ranker_v2.onnx");
    start(&router, "search:3");
    reaches(&router, "canary");
    assert_eq!(pools.served(&pools.rankers[2][0]), [3]);
}

/// Queries go to a service that asks a model server beside it: what is loaded is the server's.
#[test]
fn a_model_server_may_be_somewhere_else_than_queries_go() {
    let (mut pools, service) = (ModelPools::start(&["ranker_v2.onnx"]), Backend::start("canary"));
    pools.canary = Some(service.address);
    let port = pools.rankers[2][0].address.rsplit_once(':').unwrap().1.to_owned();
    let router = pools.router("one", QUICK, &format!("{}server_url = \"http://{{hostname}}:{port}\"\n", pools.filled()));
    start(&router, "search:2");
    reaches(&router, "canary");
    assert_eq!(pools.served(&pools.rankers[2][0]), [2]);
    let load = pools.load(&router, 100).start();
    eventually("the service gets queries", SOON, || (service.arrivals() > 0).then_some(()));
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// A server that does not answer holds the rollout up and nothing else; whoever loads may die, and an operator may think better of it.
#[test]
fn a_load_is_taken_over_and_taken_back() {
    let pools = ModelPools::start(&["ranker_v2.onnx"]);
    let mut routers = ["one", "other"].map(|id| pools.router(id, QUICK, &format!("{}request_timeout = \"2s\"\n", pools.filled())));
    let signal = |name: &str, pid: u32| assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    let canary = &pools.rankers[2][0];
    signal("-STOP", canary.pid());
    start(&routers[0], "search:2");
    let mover = eventually("somebody loads", SOON, || rollout(&routers[1])["controller"].as_str().map(str::to_owned));
    let (dies, stays) = if mover == "one" { (0, 1) } else { (1, 0) };
    let load = pools.load(&routers[stays], 100).start();
    waits_for(&routers[stays], "search:2");
    routers[dies].kill();
    signal("-CONT", canary.pid());
    reaches(&routers[stays], "canary");
    assert_eq!(pools.served(canary), [2]);
    // An operator does not wait for evidence, but for the servers of the colour that becomes live.
    let green = &pools.rankers[1];
    signal("-STOP", green[0].pid());
    done(&routers[stays], &["rollout", "promote", "search", "--full"]);
    waits_for(&routers[stays], "green");
    assert_eq!(rollout(&routers[stays])["phase"], "canary");
    done(&routers[stays], &["rollout", "abort", "search", "--why", "not tonight"]);
    signal("-CONT", green[0].pid());
    for ranker in green {
        eventually("green gets back what it had", SOON, || (pools.served(ranker) == [1]).then_some(()));
    }
    // The canary has it already: it is asked, and loads nothing.
    start(&routers[stays], "search:2");
    reaches(&routers[stays], "canary");
    done(&routers[stays], &["rollout", "promote", "search", "--full"]);
    reaches(&routers[stays], "done");
    assert_eq!(green.iter().map(|ranker| pools.served(ranker)).collect::<Vec<_>>(), [[2], [2]]);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}
