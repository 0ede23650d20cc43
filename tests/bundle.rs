//! The promise: what happened on a route can be taken away in one file, understood and judged anew where no router is; and the file holds no secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::{Behaviour, Load, Router, binary, eventually, http};

const SOON: Duration = Duration::from_secs(60);
/// Clicks are mature sooner, so that tests are.
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
/// The evidence has to find it out, and not the breakers.
const RAMP: &str = "initial = { live = \"blue\", canary_percent = \"40\", salt = \"s4lt-of-the-config\" }\nbreaker = { enabled = false }";
const VIEWER: &str = "viewer-token-0123456789";
const NOTIFIED: &str = "whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rLTAxMjM0NTY3ODk=";

/// The CLI where no router is: no address, no token, no config.
fn away(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).env("SWITCHBACK_ADMIN", "http://127.0.0.1:1").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn evidence(router: &Router) -> Value {
    let (status, body) = http::send(router.admin, "GET", "/api/v1/routes/search/evidence", &[("authorization", &router.bearer())], b"")
        .map(|(status, body, _)| (status, body))
        .unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["evidence"].clone()
}

/// Every member of a bundle, as `tar` would unpack it.
fn members(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(folder.path()).status().unwrap();
    assert!(done.success());
    let mut found = BTreeMap::new();
    let mut open = vec![folder.path().to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder.path()).unwrap().display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The archive with these bytes at the end of the member's data changed, as somebody would who packs it anew.
fn repacked(file: &Path, to: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_end(&mut archive).unwrap();
    change(&mut archive);
    let mut packing = flate2::write::GzEncoder::new(std::fs::File::create(to).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packing, &archive).unwrap();
    packing.finish().unwrap();
}

fn find(archive: &[u8], what: &[u8]) -> usize {
    archive.windows(what.len()).position(|part| part == what).unwrap()
}

struct Scene {
    folder: tempfile::TempDir,
    file: PathBuf,
    /// What must be in no bundle.
    secrets: Vec<String>,
    told: Value,
}

/// A candidate that fails is rolled back on evidence, and all of it goes into a file; then everything is gone.
fn rolled_back() -> Scene {
    let fleet = Fleet::start();
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    let viewer = secret("viewer.token", VIEWER);
    let notified = secret("notify.secret", NOTIFIED);
    let top = format!(
        "{QUICK}\n[[admin.token]]\nname = \"ann\"\nrole = \"viewer\"\nfile = {viewer:?}\n\
         [[notify]]\nname = \"hook\"\nurl = \"http://me:pa55word@127.0.0.1:9/hook?key=k3y-of-the-url\"\nsecret_files = [{notified:?}]\n"
    );
    let start = |id: &str| fleet.setup(RAMP).top(&top).redis(&fleet.redis.url()).state(&format!("router_id = {id:?}")).start();
    let routers = ["one", "other"].map(start);
    let arms = serde_json::json!([{ "name": "a", "pool": "live" }, { "name": "b", "pool": "green" }]);
    let mine = serde_json::json!({ "name": "mine", "percent": "5", "arms": arms }).to_string();
    let (status, body) = routers[0].admin("POST", "/api/v1/routes/search/experiments", mine.as_bytes());
    assert!(status < 300, "{body}");
    let flags = |field: &str| fleet.redis.cli(&["HGET", "{switchback:search}:flags", field]).unwrap();
    let salts: Vec<String> =
        serde_json::from_str::<Value>(&flags("experiments")).unwrap().to_string().split('"').map(str::to_owned).collect();
    let salts = salts.iter().zip(salts.iter().skip(2)).filter(|(key, _)| key.contains("salt")).map(|(_, salt)| salt.clone());
    let mut secrets: Vec<String> = salts.filter(|salt| salt.len() > 8).collect();
    assert!(!secrets.is_empty(), "the experiment has a salt: {}", flags("experiments"));
    secrets.push(flags("salt"));
    let loads = routers.each_ref().map(|router| Load::new(router.traffic, 150).start());
    eventually("it is judged", SOON, || (evidence(&routers[1])["candidate_requests"].as_u64() > Some(200)).then_some(()));
    fleet.pools[2].behave(Behaviour::Status(503));
    eventually("it is rolled back", SOON, || {
        let (_, history) = routers[0].admin("GET", "/api/v1/routes/search/history", b"");
        history["entries"].as_array().unwrap().iter().any(|entry| entry["kind"] == "rollback").then_some(())
    });
    eventually("it is over", SOON, || (evidence(&routers[0])["is_over"] == true).then_some(()));
    loads.into_iter().for_each(|load| drop(load.stop()));
    let file = folder.path().join("incident.tar.gz");
    let (code, said, error) = routers[0].run(&["explain", "search", "--bundle", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("the ledger,") && !said.contains("missing"), "{said}");
    let (_, told) = routers[0].admin("GET", "/api/v1/routes/search/explain", b"");
    let token = std::fs::read_to_string(routers[0].data_dir.join("admin.token")).unwrap().trim().to_owned();
    let key = fleet.redis.cli(&["GET", "{switchback}:token-key"]).unwrap();
    secrets.extend([
        token,
        key,
        VIEWER.to_owned(),
        NOTIFIED.to_owned(),
        "pa55word".to_owned(),
        "k3y-of-the-url".to_owned(),
        "s4lt-of-the-config".to_owned(),
    ]);
    // One that is there already stays.
    let (code, _, error) = routers[0].run(&["explain", "search", "--bundle", file.to_str().unwrap()]);
    assert!(code == 64 && error.contains("there is such a file already"), "{error}");
    Scene { folder, file, secrets, told }
}

#[test]
fn a_rollback_is_understood_and_judged_anew_where_no_router_is() {
    let Scene { folder, file, secrets, told } = rolled_back();
    let name = file.to_str().unwrap();
    let found = members(&file);
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        for (member, bytes) in &found {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in {member}");
        }
    }
    for needed in
        ["manifest.json", "README.txt", "ledger.jsonl", "config.json", "evidence.json", "flags.json", "routers/one.json", "metrics.txt"]
    {
        assert!(found.contains_key(needed), "{needed}: {:?}", found.keys());
    }

    let (code, said, error) = away(&["replay", name]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("rolled back: the same to the bit") && said.ends_with("the verdicts are the same to the bit\n"), "{said}");
    let (code, said, _) = away(&["replay", "--bundle", name, "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["is_same"]), (0, &Value::Bool(true)), "{said:#}");
    let compared = said["comparisons"].as_array().unwrap().last().unwrap()["compared"].as_array().unwrap().clone();
    assert!(compared.len() >= 2 && compared.iter().all(|one| one["is_same"] == true), "{compared:#?}");

    let (code, said, error) = away(&["explain", "--from-bundle", name, "--json"]);
    assert_eq!(code, 0, "{error}");
    let said: Value = serde_json::from_str(&said).unwrap();
    for field in ["epoch", "since_ms", "until_ms", "who", "why", "kind", "serves", "grounds", "prev", "route"] {
        assert_eq!(said[field], told[field], "{field}");
    }
    assert_eq!(away(&["explain", "--from-bundle", name, "--time", "2000-01-01T00:00:00Z"]).0, 2, "it does not go back so far");
    assert_eq!(away(&["explain", "--from-bundle", name, "--time", "2100-01-01T00:00:00Z"]).0, 64, "nobody knows yet");
    let (code, said, error) = away(&["ledger", "verify", "--from-bundle", name]);
    assert!(code == 0 && said.contains("are as they were written"), "{said}{error}");
    let head = said.rsplit(' ').next().unwrap().trim().to_owned();
    assert_eq!(away(&["ledger", "verify", "--from-bundle", name, "--head", &head]).0, 0);
    assert_eq!(away(&["ledger", "verify", "--from-bundle", name, "--head", &"0".repeat(64)]).0, 2);

    // A flipped byte: in the file as it lies there, and as somebody would who packs it anew.
    let bytes = std::fs::read(&file).unwrap();
    let flipped = folder.path().join("flipped.tar.gz");
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    std::fs::write(&flipped, &other).unwrap();
    let (code, _, error) = away(&["replay", flipped.to_str().unwrap()]);
    assert!(code == 2 && error.contains("no bundle that can be trusted"), "{error}");
    let windows = found.keys().find(|name| name.starts_with("windows/")).unwrap().clone();
    repacked(&file, &flipped, |archive| {
        let at = find(archive, &found[&windows][..200]) + 100;
        archive[at] ^= 1;
    });
    let (code, _, error) = away(&["replay", flipped.to_str().unwrap()]);
    assert!(code == 2 && error.contains(&windows) && error.contains("SHA-256"), "{error}");
    // A name that leads elsewhere.
    repacked(&file, &flipped, |archive| {
        let at = find(archive, b"README.txt\0");
        archive[at..at + 10].copy_from_slice(b"../evil.sh");
        let sum: u32 = (0..512).map(|byte| if (148..156).contains(&byte) { 32 } else { u32::from(archive[at + byte]) }).sum();
        archive[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    });
    let (code, _, error) = away(&["explain", "--from-bundle", flipped.to_str().unwrap()]);
    assert!(code == 2 && error.contains("../evil.sh") && error.contains("must stay inside"), "{error}");
}

/// Whoever asks for windows gets those of the route, from whoever may read, and no other file of the data folder.
#[test]
fn windows_and_plugins_are_given_to_whoever_may_read() {
    let fleet = Fleet::start();
    let router = fleet.setup(RAMP).top(QUICK).start();
    let load = Load::new(router.traffic, 100).start();
    let list = || {
        let (status, body) = http::get(router.admin, "/api/v1/routes/search/windows").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["comparisons"][0]["began_unix_seconds"].as_u64()
    };
    let began = eventually("windows are recorded", SOON, list);
    let (status, lines) = http::get(router.admin, &format!("/api/v1/routes/search/windows?began={began}")).unwrap();
    assert!(status == 200 && lines.starts_with("{\"v\":1,"), "{status} {lines}");
    for (path, wanted) in [("?began=1", 404), ("?began=../../admin.token", 400), ("?begin=1", 400)] {
        assert_eq!(http::get(router.admin, &format!("/api/v1/routes/search/windows{path}")).unwrap().0, wanted, "{path}");
    }
    assert_eq!(http::get(router.admin, "/api/v1/plugins/..%2F..%2Fadmin.token").unwrap().0, 404);
    load.stop();
}
