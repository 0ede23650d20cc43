//! The promise: a plugin that is uploaded is judged first, then in the folder as a whole file, and stays there across a restart; a bad one
//! changes nothing; what is shipped cannot be lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Backend, Load, Router, Setup, eventually, guests, http};

const SOON: Duration = Duration::from_secs(20);

fn router(backend: &Backend) -> Setup {
    Setup::default().pool("blue", &[backend])
}

fn put(router: &Router, name: &str, bytes: &[u8]) -> (u16, Value) {
    router.admin("PUT", &format!("/api/v1/policies/{name}"), bytes)
}

/// The plugin of this name as the API lists it; a shipped one only when no file has its name.
fn plugin(router: &Router, name: &str) -> Option<Value> {
    let (_, answer) = router.admin("GET", "/api/v1/policies", b"");
    let mut named = answer["plugins"].as_array().unwrap().clone();
    named.retain(|plugin| plugin["name"] == name);
    named.first().cloned()
}

fn eventually_in_force(router: &Router, bytes: &[u8]) {
    let digest = guests::digest(bytes);
    eventually("in force", SOON, || {
        let policy = router.route()["policies"][0].clone();
        (policy["digest"] == digest.as_str() && policy["state"] == "in_force").then_some(())
    });
}

#[test]
fn an_upload_is_judged_listed_put_in_force_and_there_after_a_restart() {
    let backend = Backend::start("blue");
    let folder = tempfile::tempdir().unwrap();
    let bytes = guests::variant_of_split_weighted(1);
    let digest = guests::digest(&bytes);
    {
        let router = router(&backend).data_dir(folder.path()).start();
        let (status, answer) = put(&router, "mine", &bytes);
        assert_eq!((status, &answer["digest"], &answer["changed"]), (201, &Value::from(digest.as_str()), &Value::from(true)), "{answer}");
        assert_eq!(answer["report"]["world"], "split-policy");
        let (status, answer) = put(&router, "mine", &bytes);
        assert_eq!((status, &answer["changed"]), (200, &Value::from(false)), "the same again changes nothing: {answer}");
        let listed = plugin(&router, "mine").expect("listed as soon as the upload is answered");
        assert_eq!((&listed["state"], &listed["digest"]), (&Value::from("admitted"), &Value::from(digest.as_str())), "{listed}");
        let (code, _, warned) = router.run(&["flag", "set", "search", "split_policy=mine"]);
        assert_eq!((code, warned.as_str()), (0, ""), "flags can name it at once");
        eventually_in_force(&router, &bytes);
        let mine = plugin(&router, "mine").unwrap();
        assert_eq!((&mine["routes"][0], &mine["bytes"]), (&Value::from("search"), &Value::from(bytes.len())), "{mine}");
        assert!(
            mine["source"].as_str().unwrap().ends_with("policies/mine.wasm") && mine["report"]["decisions"].as_u64() > Some(100),
            "{mine}"
        );
    }
    let router = router(&backend).data_dir(folder.path()).start();
    eventually_in_force(&router, &bytes);
}

#[test]
fn a_bad_upload_is_refused_with_the_reason_and_changes_nothing() {
    let backend = Backend::start("blue");
    let limit = "[policies]\nfile_bytes = \"256KiB\"\n[[admin.token]]\nname = \"bob\"\nrole = \"viewer\"\n";
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "viewer-token-of-bob").unwrap();
    let router = router(&backend).top(&format!("{limit}file = {:?}\n", token.path().display().to_string())).start();
    let good = guests::variant_of_split_weighted(1);
    assert_eq!(put(&router, "mine", &good).0, 201);
    for (bytes, reason) in [
        (guests::hostile("hostile-trap"), "it trapped"),
        (guests::hostile("hostile-slow-configure"), "stopped at its deadline"),
        (guests::hostile("hostile-huge"), "it refused every trial configuration"),
        (b"no plugin".to_vec(), "it is not a WebAssembly binary"),
        (Vec::new(), "the first bytes are none"),
    ] {
        let (status, answer) = put(&router, "mine", &bytes);
        assert_eq!(status, 422, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
    }
    let (status, answer) = put(&router, "mine", &vec![0; (256 << 10) + 1]);
    assert_eq!((status, answer["error"].as_str().unwrap().contains("policies.file_bytes allows 262144 bytes")), (413, true), "{answer}");
    assert_eq!(put(&router, "Mine", &good).0, 400);
    let viewer = [("authorization", "Bearer viewer-token-of-bob")];
    for (method, path) in [("PUT", "/api/v1/policies/mine"), ("DELETE", "/api/v1/policies/mine"), ("POST", "/api/v1/routes/search/shadow")]
    {
        assert_eq!(http::send(router.admin, method, path, &viewer, b"{}").unwrap().0, 403, "{method} {path}");
    }
    assert_eq!(std::fs::read(router.policies_dir().join("mine.wasm")).unwrap(), good, "the file is as it was");
    let files: Vec<_> = std::fs::read_dir(router.policies_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
}

#[test]
fn what_is_shipped_can_be_hidden_and_comes_back_and_what_is_needed_is_not_removed() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    let load = Load::new(router.traffic, 200).start();
    let shipped = router.route()["policies"][0]["digest"].clone();
    assert_eq!(router.admin("DELETE", "/api/v1/policies/split-weighted", b"").0, 409, "it is part of the program");
    let mine = guests::variant_of_split_weighted(2);
    assert_eq!(put(&router, "split-weighted", &mine).0, 201);
    assert_eq!(router.route()["policies"][0]["digest"], guests::digest(&mine), "flags name it already: in force with the answer");
    let (status, removed) = router.admin("DELETE", "/api/v1/policies/split-weighted", b"");
    assert_eq!((status, &removed["digest"]), (200, &Value::from(guests::digest(&mine))));
    assert_eq!(router.route()["policies"][0]["digest"], shipped, "the shipped one is back");

    assert_eq!(put(&router, "mine", &mine).0, 201);
    router.set_flags(&["split_policy=mine"]);
    eventually_in_force(&router, &mine);
    let (status, answer) = router.admin("DELETE", "/api/v1/policies/mine", b"");
    assert_eq!((status, answer["error"].as_str().unwrap().contains("the flags of search name mine")), (409, true), "{answer}");
    assert_eq!(router.admin("DELETE", "/api/v1/policies/mine?force=true", b"").0, 200);
    assert_eq!(router.route()["policies"][0]["state"], "refused", "the name means nothing any more");
    assert_eq!(router.route()["policies"][0]["digest"], guests::digest(&mine), "what is in force stays");
    assert_eq!(router.admin("DELETE", "/api/v1/policies/mine", b"").0, 404);
    assert_eq!(load.stop().failures(), 0);
}

#[test]
fn uploads_and_people_who_write_to_the_folder_do_not_tear_each_others_files() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    let all: Vec<Vec<u8>> = (0..30).map(guests::variant_of_split_weighted).collect();
    std::thread::scope(|scope| {
        for start in 0..2 {
            let (router, all) = (&router, &all);
            scope.spawn(move || {
                all.iter().skip(start).step_by(3).for_each(|bytes| assert!(matches!(put(router, "mine", bytes).0, 200 | 201)))
            });
        }
        all.iter().skip(2).step_by(3).for_each(|bytes| guests::install(&router.policies_dir(), "mine", bytes));
    });
    let file = std::fs::read(router.policies_dir().join("mine.wasm")).unwrap();
    assert!(all.contains(&file), "the file is one of those that were written");
    router.set_flags(&["split_policy=mine"]);
    eventually_in_force(&router, &file);
}

#[test]
fn the_command_line_pushes_lists_and_removes() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my-split.wasm");
    std::fs::write(&file, guests::variant_of_split_weighted(3)).unwrap();
    let path = file.display().to_string();
    let (code, said, why) = router.run(&["policy", "push", &path]);
    assert_eq!((code, said.contains(": admitted\n")), (0, true), "{said}{why}");
    assert!(router.run(&["policy", "push", &path]).1.contains(": it was there already"));
    let (_, listed, _) = router.run(&["policy", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "my-split");
    std::fs::write(&file, guests::hostile("hostile-trap")).unwrap();
    let (code, _, why) = router.run(&["policy", "push", &path]);
    assert_eq!((code, why.contains("it trapped")), (2, true), "{why}");
    let digest = guests::digest(&guests::variant_of_split_weighted(3));
    assert!(router.run(&["policy", "remove", "my-split"]).1.contains(&format!("(it was {digest})")));
    let (code, _, why) = router.run(&["policy", "remove", "my-split"]);
    assert_eq!((code, why.contains("there are: none")), (64, true), "{why}");
    assert_eq!(router.run(&["policy", "remove", "split-rules"]).0, 2);
}

/// What a name meant before its file was refused is not what the file holds.
#[test]
fn what_is_removed_is_named_by_what_the_file_held() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    let bad = guests::hostile("hostile-trap");
    guests::install(&router.policies_dir(), "split-weighted", &bad);
    eventually("refused", SOON, || plugin(&router, "split-weighted").filter(|plugin| plugin["state"] == "refused"));
    let (status, removed) = router.admin("DELETE", "/api/v1/policies/split-weighted", b"");
    assert_eq!((status, &removed["digest"]), (200, &Value::from(guests::digest(&bad))));
    assert_eq!(plugin(&router, "split-weighted").unwrap()["source"], "shipped", "with the answer the file is forgotten");
}

#[test]
fn a_folder_or_a_dead_link_that_is_called_like_a_plugin_is_refused_by_name() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    std::fs::create_dir(router.policies_dir().join("box.wasm")).unwrap();
    std::os::unix::fs::symlink("nowhere.bin", router.policies_dir().join("link.wasm")).unwrap();
    for (name, why) in [("box", "it is a folder"), ("link", "it is a link that leads nowhere")] {
        eventually("said in the log", SOON, || {
            let log = router.log();
            log.lines()
                .any(|line| line.contains("plugin refused") && line.contains(&format!("{name}.wasm")) && line.contains(why))
                .then_some(())
        });
    }
    assert_eq!(router.admin("DELETE", "/api/v1/policies/link", b"").0, 200, "a dead link can be taken away");
}

#[test]
fn a_flag_that_names_a_digest_brings_that_version_back_under_load() {
    let backend = Backend::start("blue");
    let router = router(&backend).start();
    let [old, new] = [1, 2].map(guests::variant_of_split_weighted);
    assert_eq!(put(&router, "mine", &old).0, 201);
    router.set_flags(&["split_policy=mine"]);
    eventually_in_force(&router, &old);
    let load = Load::new(router.traffic, 300).start();
    load.wait_for(50);
    assert_eq!(put(&router, "mine", &new).0, 201);
    eventually_in_force(&router, &new);
    router.set_flags(&[&format!("split_policy=mine@{}", guests::digest(&old))]);
    eventually_in_force(&router, &old);
    router.set_flags(&["split_policy=mine"]);
    eventually_in_force(&router, &new);
    load.wait_for(load.sent() + 50);
    assert_eq!(load.stop().failures(), 0);
}
