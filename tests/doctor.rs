//! The promise: `switchback doctor` finds nothing amiss in a good set-up, and in a bad one names what it is and says what to do; and it changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;
use switchback_tests::redis::RedisServer;
use switchback_tests::registry::Registry;
use switchback_tests::tls::Authority;
use switchback_tests::{Backend, Router, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);

/// What it found, and its exit code.
fn examined(command: &mut Command, config: &Path) -> (i32, Vec<Value>) {
    let output = command.args(["doctor", "--json", "--config"]).arg(config).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    let said: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (output.status.code().unwrap(), said["findings"].as_array().unwrap().clone())
}

/// Of the router that runs.
fn of(router: &Router) -> (i32, Vec<Value>) {
    examined(&mut router.cli(), &router.config())
}

/// Where none runs.
fn alone(config: &Path) -> (i32, Vec<Value>) {
    examined(Command::new(switchback_tests::binary()).env("SWITCHBACK_ADMIN", "http://127.0.0.1:1"), config)
}

/// That the line of this part which says this failed, and that it says what to do.
fn assert_failed((code, findings): &(i32, Vec<Value>), part: &str, says: &str) {
    let is_it = |finding: &&Value| {
        let line = format!("{}: {}", finding["name"].as_str().unwrap(), finding["found"].as_str().unwrap());
        finding["part"] == part && finding["status"] == "failed" && line.contains(says)
    };
    let found = findings.iter().find(is_it).unwrap_or_else(|| panic!("nothing of {part} failed with {says:?}: {findings:#?}"));
    assert!(!found["to_do"].as_str().unwrap().is_empty(), "{found:#}");
    assert_eq!(*code, 2);
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything in a folder, with its contents: what must be as it was.
fn contents(folder: &Path) -> Vec<(PathBuf, u32, u64)> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let about = std::fs::metadata(&path).unwrap();
            if about.is_dir() {
                open.push(path.clone());
            }
            found.push((path, about.permissions().mode(), if about.is_dir() { 0 } else { about.len() }));
        }
    }
    found.sort();
    found
}

/// A certificate that ended years ago.
fn expired(cert: &Path, key: &Path) {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    std::fs::write(cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(key, pair.serialize_pem()).unwrap();
}

#[test]
fn a_good_set_up_is_all_well_and_what_breaks_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut redis = runtime.block_on(RedisServer::start_with(&["--appendonly", "yes"])).unwrap();
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Authority::new().issue(&["localhost"]).write(folder.path(), "shown");
    mode(&key, 0o600);
    let tls = format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n[limits]\nconnections = 100");
    let setup = Setup::default().pool("blue", &[&blue]).pool("green", &[&green]).listen("traffic_tls = \"127.0.0.1:0\"").top(&tls);
    let router = setup.redis(&redis.url()).start();
    eventually("it is known", SOON, || (router.route()["routers"].as_array().unwrap().len() == 1).then_some(()));

    eventually("the router has written all that it writes", SOON, || {
        let late = ["EXISTS", "{switchback}:clock", "{switchback}:token-key"];
        (redis.cli(&late).unwrap() == "2").then_some(())
    });
    let before = redis.cli(&["DBSIZE"]).unwrap();
    let well = eventually("all is well", SOON, || Some(of(&router)).filter(|(code, _)| *code == 0));
    let amiss: Vec<&Value> = well.1.iter().filter(|finding| finding["status"] != "ok").collect();
    assert!(amiss.is_empty(), "{amiss:#?}");
    for part in ["config", "files", "system", "tls", "store", "registry", "pools", "policies", "router"] {
        assert!(well.1.iter().any(|finding| finding["part"] == part), "{part}: {:#?}", well.1);
    }
    assert_eq!(redis.cli(&["DBSIZE"]).unwrap(), before, "nothing was written");
    let (code, table, _) = router.run(&["doctor", "--config", router.config().to_str().unwrap()]);
    assert!(code == 0 && table.contains("\nstore\n  ok ") && table.contains("0 failed"), "{table}");

    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    assert_failed(&of(&router), "store", "maxmemory-policy allkeys-lru");
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    redis.cli(&["ACL", "SETUSER", "default", "-xadd", "-hset"]).unwrap();
    assert_failed(&of(&router), "store", "hset, xadd");
    redis.cli(&["ACL", "SETUSER", "default", "+@all"]).unwrap();

    let token = router.data_dir.join("admin.token");
    mode(&token, 0o644);
    assert_failed(&of(&router), "files", "everybody on this machine may read");
    mode(&token, 0o600);
    mode(&router.data_dir, 0o777);
    assert_failed(&of(&router), "files", "others may put files there");
    mode(&router.data_dir, 0o700);

    let plugin = router.policies_dir().join("split-weighted.wasm");
    std::fs::write(&plugin, "no component").unwrap();
    assert_failed(&of(&router), "policies", "refused: ");
    std::fs::remove_file(&plugin).unwrap();
    std::fs::create_dir(&plugin).unwrap();
    assert_failed(&of(&router), "policies", "cannot be read");
    std::fs::remove_dir(&plugin).unwrap();

    expired(&cert, &key);
    assert_failed(&of(&router), "tls", "ended");

    let port = green.address.port();
    drop(green);
    assert_failed(&of(&router), "pools", &format!("127.0.0.1:{port}: connect: refused"));

    redis.kill().unwrap();
    assert_failed(&of(&router), "store", "flag store");
}

/// A registry with so many versions of `search`, of which the second is `champion`, two backends, and a router with these keys of its route.
fn with_versions(versions: usize, route: &str) -> (Registry, [Backend; 2], Router) {
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    for _ in 0..versions {
        registry.done(&["push", file.to_str().unwrap(), "--format", "opaque", "--model", "search"]);
    }
    registry.done(&["alias", "search", "champion", "2"]);
    let backends = ["blue", "green"].map(Backend::start);
    let top = format!("[registry]\nurl = \"file://{}\"\n[limits]\nconnections = 100", registry.path("registry").display());
    let setup = Setup::default().pool("blue", &[&backends[0]]).pool("green", &[&backends[1]]).top(&top);
    let router = setup.route(route).start();
    (registry, backends, router)
}

#[test]
fn what_routes_use_of_the_registry_is_there_or_named() {
    let (registry, _backends, router) = with_versions(3, "");
    router.set_flags(&["version.blue=search:1"]);
    let in_use = eventually("the pool runs it", SOON, || {
        let is_it = |finding: &&Value| finding["name"] == "in use" && finding["found"].as_str().unwrap().contains("search:1");
        of(&router).1.iter().find(is_it).cloned()
    });
    assert_eq!((&in_use["status"], &in_use["found"]), (&"ok".into(), &"search:1, search:2: there, each of its size".into()));
    let artefact = |version: &str| {
        let push = registry.done(&["show", version])["push"].as_str().unwrap().to_owned();
        registry.path("registry/models/search/artefacts").join(push)
    };
    std::fs::write(artefact("search:2"), b"a mod").unwrap();
    std::fs::remove_file(artefact("search:1")).unwrap();
    std::fs::write(registry.path("registry/models/search/versions/3/manifest.json"), "{").unwrap();
    let found = of(&router);
    assert_failed(&found, "registry", "search:1: used by pool blue of search: models/search/artefacts/");
    assert_failed(&found, "registry", "search:2: used by @champion: models/search/artefacts/");
    assert_failed(&found, "registry", "it has 5 bytes and not 7");
    assert_failed(&found, "registry", "search:3: models/search/versions/3/manifest.json is not readable");
    std::fs::remove_dir_all(registry.path("registry/models/search")).unwrap();
    assert_failed(&of(&router), "registry", "search:1: used by pool blue of search: the registry has no version of search at all");
}

#[test]
fn a_champion_that_is_not_live_is_named_with_the_command_that_moves_it() {
    let (registry, _backends, router) = with_versions(2, "[route.loading]\nmodel = \"search\"\n");
    let told = || of(&router).1.into_iter().find(|finding| finding["name"] == "search@champion");
    assert_eq!(told(), None, "what is live is no version of a model");
    router.set_flags(&["version.blue=search:1"]);
    let finding = eventually("it is told", SOON, told);
    assert_eq!(
        (&finding["status"], &finding["found"]),
        (&"warning".into(), &"it points to version 2, and live is search:1 on search".into())
    );
    assert!(finding["to_do"].as_str().unwrap().starts_with("switchback model alias search champion 1"), "{finding:#}");
    registry.done(&["alias", "search", "champion", "1"]);
    assert_eq!(told(), None);
}

#[test]
fn what_is_wrong_before_a_start_is_named_and_nothing_is_made() {
    let blue = Backend::start("blue");
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let config = folder.path().join("switchback.toml");
    let write = |listen: &str, more: &str| {
        let text = format!(
            "[listen]\ntraffic = {listen:?}\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[state]\ndata_dir = {data_dir:?}\n[limits]\nconnections = 100\n{more}\n\
             [[route]]\nname = \"search\"\nmatch = {{ path_prefix = \"/\" }}\n[route.pools.blue]\nendpoints = [{:?}]\n",
            blue.url()
        );
        std::fs::write(&config, text).unwrap();
    };
    write("127.0.0.1:0", "");
    let before = contents(folder.path());
    let (code, findings) = alone(&config);
    assert!(code == 0 && findings.iter().all(|finding| finding["status"] == "ok"), "{findings:#?}");
    assert_eq!(contents(folder.path()), before, "nothing is made");

    write("127.0.0.1:0", "[registry]\nurl = \"file:///nowhere/models\"");
    assert_failed(&alone(&config), "registry", "there is no such folder");
    write("127.0.0.1:0", "[limits2]\nx = 1");
    let found = alone(&config);
    assert_failed(&found, "config", "limits2");
    assert_eq!(found.1.len(), 1, "{found:#?}");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    write(&held.local_addr().unwrap().to_string(), "");
    assert_failed(&alone(&config), "system", "listen.traffic");
    write("127.0.0.1:0", "[[notify]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/x\"");
    assert_failed(&alone(&config), "notify", "notify.hook");
    assert_eq!(alone(&folder.path().join("none.toml")).0, 2, "a config that is not there is what failed");
    let usage = Command::new(switchback_tests::binary()).args(["doctor", "--colour"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}
