//! The promise: whatever is wrong with what somebody asks of the registry, or with what is in it, is said in a line that names it and says what is allowed;
//! nothing is left behind, and nothing spins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use switchback_tests::registry::{Registry, said};
use switchback_tests::{Act, Scripted, eventually};

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;
/// Where the AWS tools have credentials.
const CREDENTIALS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `model push FILE --format opaque --model search MORE`.
fn push(registry: &Registry, file: &Path, more: &[&str]) -> (i32, String, String) {
    registry.model(&[&["push", text(file), "--format", "opaque", "--model", "search"], more].concat())
}

/// A registry in a folder that has `search:1`.
fn with_one() -> (Registry, PathBuf) {
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    assert_eq!(push(&registry, &file, &[]).0, 0);
    (registry, file)
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_bucket_that_refuses_says_what_to_set() {
    let registry = Registry::in_bucket();
    let file = registry.file("model", b"a model");
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let endpoint = format!("http://{}", registry.relay().address);
    let ask = |arguments: &[&str], change: &dyn Fn(&mut Command)| {
        let mut command = registry.command(&[&["model"], arguments].concat());
        change(&mut command);
        said(&command.output().unwrap())
    };
    let refused = |arguments: &[&str], change: &dyn Fn(&mut Command), says: &str| {
        let (code, told, error) = ask(arguments, change);
        assert_eq!(code, 64, "{arguments:?}: {told}{error}");
        assert!(error.contains(says) && error.contains(&endpoint), "{error}");
        assert!(error.contains("; set AWS_") || error.contains("; make it"), "{error}");
        assert!(error.lines().count() == 1 && !error.contains('<') && !error.contains("not-the-secret"), "{error}");
    };
    let wrong_secret = |command: &mut Command| {
        command.env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    };
    for arguments in
        [&["list"][..], &["pull", "search:1", "--to", "out"], &["push", text(&file), "--format", "opaque", "--model", "search"]]
    {
        refused(arguments, &wrong_secret, "the key id tests is not let into the bucket models at ");
    }
    let nobody = |command: &mut Command| {
        command.env("AWS_ACCESS_KEY_ID", "nobody");
    };
    refused(&["list"], &nobody, "the key id nobody is not let into the bucket models at ");
    for arguments in [
        &["list", "--registry", "s3://nowhere/x"][..],
        &["show", "search:1", "--registry", "s3://nowhere/x"],
        &["push", text(&file), "--format", "opaque", "--model", "search", "--registry", "s3://nowhere/x"],
    ] {
        refused(arguments, &|_| {}, "there is no bucket nowhere at ");
    }
    let none = |command: &mut Command| {
        for name in CREDENTIALS {
            command.env_remove(name);
        }
        command.env("HOME", registry.path(".")).env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1");
    };
    refused(&["list"], &none, "there are no credentials for the bucket models at ");
}

/// A proxy's own page is no empty registry: nothing would be verified, and nothing found amiss.
#[test]
fn what_is_no_bucket_is_no_empty_one() {
    let page = Scripted::start(|_| Act::Say("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 18\r\n\r\n<html>hello</html>"));
    let registry = Registry::in_folder();
    for arguments in
        [&["list"][..], &["list", "search"], &["verify", "search", "--all"], &["gc", "--no-router", "--dry-run"], &["alias", "search"]]
    {
        let mut command = registry.command(&[&["model"], arguments, &["--registry", "s3://models"]].concat());
        command.env_remove("SWITCHBACK_CONFIG").env("AWS_REGION", "us-east-1").env("AWS_ENDPOINT_URL", page.url());
        command.env("AWS_ACCESS_KEY_ID", "ann").env("AWS_SECRET_ACCESS_KEY", "a secret");
        let (code, told, error) = said(&command.output().unwrap());
        assert!(
            code == 64 && error.contains("is no S3 service: it answers a listing with something else"),
            "{arguments:?}: {code}: {told}{error}"
        );
        assert!(error.contains(&page.url()) && error.lines().count() == 1, "{error}");
    }
}

/// Who writes http:// means it, wherever it is written.
#[test]
fn an_endpoint_of_the_environment_is_one() {
    let registry = Registry::in_bucket();
    let file = registry.file("model", b"a model");
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let endpoint = format!("http://{}", registry.relay().address);
    let list = |name: &str, endpoint: &str| {
        let mut command = registry.command(&["model", "list", "--registry", "s3://models/some/prefix"]);
        command.env_remove("SWITCHBACK_CONFIG").env("AWS_REGION", "us-east-1").env(name, endpoint);
        said(&command.output().unwrap())
    };
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let (code, told, error) = list(name, &endpoint);
        assert!(code == 0 && told.contains("search"), "{name}: {code}: {told}{error}");
    }
    let (code, _, error) = list("AWS_ENDPOINT_URL", "minio:9000");
    assert!(code == 64 && error.contains("AWS_ENDPOINT_URL = \"minio:9000\": must be a URL like https://"), "{code}: {error}");
    // The config goes before the environment.
    let mut command = registry.command(&["model", "list"]);
    let (code, told, error) = said(&command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1").output().unwrap());
    assert!(code == 0 && told.contains("search"), "{code}: {told}{error}");
}

#[test]
fn an_artefact_that_is_missing_was_not_changed() {
    let (registry, _) = with_one();
    let sha256 = registry.done(&["show", "search:1"])["sha256"].as_str().unwrap().to_owned();
    let artefact = files_in(&registry.path("registry/models/search/artefacts")).remove(0);
    let told = |says: &str| {
        for arguments in [&["pull", "search:1", "--to", "out"][..], &["verify", "search:1"]] {
            let (code, said, error) = registry.model(arguments);
            let told = format!("{said}{error}");
            assert!(code == 2 && told.contains(says) && !told.contains("SHA-256 is"), "{arguments:?}: {code}: {told}");
        }
        assert!(!registry.path("out").exists());
    };
    fs::write(&artefact, b"a mod").unwrap();
    told("it has 5 bytes and not 7: it was changed after it was pushed");
    fs::write(&artefact, b"").unwrap();
    told("it has 0 bytes and not 7: it was changed after it was pushed");
    fs::remove_file(&artefact).unwrap();
    told(&format!("it is missing in the store: somebody deleted it there; its SHA-256 was {sha256}, of 7 bytes"));
}

#[test]
fn what_is_said_of_a_version_is_refused_before_anything_is_sent() {
    let (registry, file) = with_one();
    let long = "x".repeat(5_000);
    for (more, says) in [
        (&["--parent", "99"][..], "parent 99: search has no such version; it has the version 1"),
        (&["--parent", "0"], "parent 0: search has no such version"),
        (&["--metric", "ndcg=0.7", "--metric", "ndcg=0.8"], "--metric ndcg: it is given twice"),
        (&["--tag", "night=1", "--tag", "night=2"], "--tag night: it is given twice"),
        (&["--why", "one\ntwo"], "--why: a line break after 3 characters"),
        (&["--training-data", "a\tb"], r"--training-data: the control character \t after 1 characters"),
        (&["--code-revision", "\u{1b}[2J"], "--code-revision: the control character"),
        (&["--tag", "night=\r"], "--tag: the control character"),
        (&["--tag", "\u{202e}ok=x"], r"--tag: the control character \u{202e} after 0 characters"),
        (&["--tag", "night="], "--tag night=: there is nothing after the =; must be NAME=VALUE"),
        (&["--metric", "ndcg="], "--metric ndcg=: there is nothing after the ="),
        (&["--tag", &long], "xxx...: must be NAME=VALUE"),
        (&["--metric", &format!("ndcg={long}")], "xxx...: must be a number"),
        (&["--tag", &format!("night={long}")], "4096 characters at most"),
        (&["--alias", "12"], "nobody takes for a version"),
        (&["--alias", "v12"], "nobody takes for a version"),
        (&["--alias", "latest"], "MODEL alone is the newest version"),
        (&["--alias", "none"], "nobody takes for a version"),
    ] {
        let (code, told, error) = push(&registry, &file, more);
        assert!(code == 64 && error.contains(says) && error.len() < 600, "{more:?}: {code}: {told}{error}");
    }
    for (name, says) in [("mo\ndel", "the file's name: a line break after 2 characters"), ("mo\u{1b}del", "the file's name: the control")] {
        let strange = registry.file(name, b"a model");
        let (code, told, error) = push(&registry, &strange, &[]);
        assert!(code == 64 && error.contains(says), "{name:?}: {code}: {told}{error}");
        let deploy = ["deploy", "--route", "search", "--model", "search", "--file", text(&strange)];
        let (code, told, error) = said(&registry.command(&deploy).output().unwrap());
        assert!(code == 64 && error.contains(says), "{name:?}: {code}: {told}{error}");
    }
    for arguments in [
        &["alias", "search", "12", "1"][..],
        &["alias", "search", "latest", "1"],
        &["alias", "search", "champion", "1", "--why", "one\ntwo"],
    ] {
        let (code, told, error) = registry.model(arguments);
        assert_eq!(code, 64, "{arguments:?}: {told}{error}");
    }
    assert_eq!(registry.done(&["list", "search"])["versions"].as_array().unwrap().len(), 1);
    assert_eq!(registry.done(&["alias", "search"])["aliases"].as_array().unwrap().len(), 0);
    assert_eq!(files_in(&registry.path("registry/models/search/artefacts")).len(), 1, "nothing was sent");
    assert_eq!(push(&registry, &file, &["--parent", "1"]).0, 0);
}

#[test]
fn a_push_says_where_its_alias_was() {
    let (registry, file) = with_one();
    let (code, told, error) = push(&registry, &file, &["--alias", "candidate"]);
    assert!(code == 0 && told.ends_with("\nsearch@candidate points to version 2; before to no version\n"), "{told}{error}");
    let pushed = registry.done(&["push", text(&file), "--format", "opaque", "--model", "search", "--alias", "candidate"]);
    let moved = &pushed["moves"][0];
    assert_eq!((&moved["alias"], &moved["moved"]["version"], &moved["moved"]["before"]), (&"candidate".into(), &3.into(), &2.into()));
}

#[test]
fn a_number_that_nobody_counted_up_to_is_an_error_and_not_a_search() {
    let (registry, file) = with_one();
    let put = |path: &str| {
        let path = registry.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}").unwrap();
    };
    // No number at all.
    put("registry/models/search/versions/99999999999999999999999/manifest.json");
    assert_eq!(push(&registry, &file, &[]).0, 0);
    put("registry/models/search/versions/18446744073709551615/manifest.json");
    let (code, _, error) = push(&registry, &file, &[]);
    let says = "models/search/versions/18446744073709551615 is there, and no push or move made it: numbers go up to 1000000000; remove it";
    assert!(code == 2 && error.contains(says), "{code}: {error}");
    fs::remove_dir_all(registry.path("registry/models/search/versions/18446744073709551615")).unwrap();
    registry.done(&["alias", "search", "champion", "1"]);
    let moves = registry.path("registry/models/search/aliases/champion");
    fs::copy(moves.join("1.json"), moves.join("9223372036854775808.json")).unwrap();
    let (code, _, error) = registry.model(&["alias", "search", "champion", "2"]);
    assert!(code == 2 && error.contains("aliases/champion/9223372036854775808.json is there"), "{code}: {error}");
}

#[test]
fn parts_of_killed_pushes_are_told_of_and_removed() {
    let (registry, _) = with_one();
    let part = |path: &str, age: Duration| {
        let path = registry.path("registry/models/search").join(path);
        fs::write(&path, b"half a mod").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let day = Duration::from_secs(86_400);
    let old = [part("artefacts/00ff#1", 2 * day), part("versions/1/manifest.json#12", 2 * day)];
    let young = part("artefacts/00ff#2", day / 2);
    let (code, told, error) = registry.model(&["gc", "search", "--no-router", "--dry-run"]);
    assert!(code == 0 && told.contains("2 files of pushes that were never done would be removed, 20 B"), "{told}{error}");
    assert!(old.iter().all(|part| part.exists()), "a dry run removes nothing");
    let done = registry.done(&["gc", "search", "--no-router"])["models"][0].clone();
    assert_eq!(
        done["unfinished_pushes"],
        serde_json::json!(["models/search/artefacts/00ff#1", "models/search/versions/1/manifest.json#12"])
    );
    assert!(old.iter().all(|part| !part.exists()) && young.exists());
    assert_eq!(registry.model(&["verify", "search:1"]).0, 0);
}

/// `model ARGUMENTS` on a disk that is full, which is here a limit on what one file may have, in blocks of 512 bytes: the signal of that is ignored, so
/// that it is an error.
fn limited(registry: &Registry, blocks: u32, arguments: &[&str]) -> (i32, String, String) {
    let asked = registry.command(&[&["model"], arguments].concat());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "sh", &blocks.to_string()]);
    limited.arg(asked.get_program()).args(asked.get_args()).current_dir(registry.path("."));
    limited.envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    said(&limited.output().unwrap())
}

#[test]
fn a_pull_that_finds_no_room_says_so() {
    let registry = Registry::in_folder();
    let file = registry.file("large", &vec![7; 2 * MIB]);
    assert_eq!(push(&registry, &file, &[]).0, 0);
    let (code, told, error) = limited(&registry, 1 << 10, &["pull", "search:1", "--to", "out"]);
    assert!(code == 74 && error.contains("out: cannot write it: File too large"), "{code}: {told}{error}");
    assert!(!registry.path("out").exists());
}

#[test]
fn a_push_that_finds_no_room_leaves_nothing_behind() {
    let (registry, _) = with_one();
    for (blocks, bytes) in [(20 << 10, 24 * MIB), (1 << 10, 2 * MIB)] {
        let file = registry.file("large", &vec![7; bytes]);
        let (code, told, error) = limited(&registry, blocks, &["push", text(&file), "--format", "opaque", "--model", "search"]);
        assert!(code == 69 && error.contains("cannot be used") && error.contains("File too large"), "{code}: {told}{error}");
        let model = registry.path("registry/models/search");
        assert_eq!(files_in(&model.join("artefacts")).len(), 1, "{:?}", files_in(&model.join("artefacts")));
        assert_eq!(files_in(&model.join("versions")).len(), 1);
        assert_eq!(push(&registry, &file, &["--dry-run"]).0, 0);
    }
    assert!(
        registry.model(&["push", text(&registry.path("large")), "--format", "opaque", "--model", "search"]).1.starts_with("search:2\n")
    );
}

/// Its manifest is what cannot be written: the artefact that nobody will ever see goes as well.
#[test]
fn an_artefact_whose_manifest_cannot_be_written_goes_with_its_push() {
    let (registry, file) = with_one();
    let versions = registry.path("registry/models/search/versions");
    // A file where the folder of the next version would be: no number, so that it is not seen before.
    fs::write(versions.join("2"), "in the way").unwrap();
    let (code, told, error) = push(&registry, &file, &[]);
    assert!(code == 69 && error.contains("cannot be used"), "{code}: {told}{error}");
    assert_eq!(files_in(&registry.path("registry/models/search/artefacts")).len(), 1);
    fs::remove_file(versions.join("2")).unwrap();
    assert!(push(&registry, &file, &[]).1.starts_with("search:2\n"));
}

/// Whatever names the registry: what is in use only a router says.
#[test]
fn nothing_is_removed_before_a_router_said_what_is_in_use() {
    let (registry, file) = with_one();
    (0..2).for_each(|_| assert_eq!(push(&registry, &file, &[]).0, 0));
    let url = format!("file://{}", registry.path("registry").display());
    let gc = |more: &[&str], admin: Option<&str>| {
        let mut command = registry.command(&[&["model", "gc", "search", "--keep", "1", "--younger", "0s"], more].concat());
        command.env_remove("SWITCHBACK_CONFIG").env("SWITCHBACK_REGISTRY", &url);
        if let Some(admin) = admin {
            command.env("SWITCHBACK_ADMIN", admin);
        }
        said(&command.output().unwrap())
    };
    for more in [&[] as &[&str], &["--dry-run"], &["--json"], &["--dry-run", "--json"]] {
        let (code, told, error) = gc(more, Some("http://127.0.0.1:1"));
        let says = "nothing is removed while it cannot be said what is in use: name the router with --admin URL; where no router uses this registry, say --no-router";
        assert!(
            code == 69 && error.contains("the router at http://127.0.0.1:1 cannot be reached") && error.contains(says),
            "{code}: {told}{error}"
        );
        assert!(!told.contains("would be removed"), "{told}");
    }
    // A config whose router takes a free port names none.
    let (code, _, error) = registry.model(&["gc", "search", "--keep", "1", "--younger", "0s"]);
    assert!(code == 64 && error.contains("listen.admin takes a free port") && error.contains("--no-router"), "{code}: {error}");
    assert_eq!(registry.done(&["pull", "search:1", "--to", "out"])["version"]["version"], 1, "it is there");
    for admin in [None, Some("http://127.0.0.1:1")] {
        let (code, told, error) = gc(&["--no-router", "--dry-run"], admin);
        assert!(code == 0 && told.contains("the artefacts of 1, 2 would be removed"), "{code}: {told}{error}");
    }
}

#[test]
fn all_versions_are_verified_in_their_order() {
    let (registry, file) = with_one();
    (0..2).for_each(|_| assert_eq!(push(&registry, &file, &[]).0, 0));
    fs::write(registry.path("registry/models/search/versions/2/manifest.json"), "{").unwrap();
    let (code, told, _) = registry.model(&["verify", "search", "--all"]);
    let begin: Vec<&str> = told.lines().filter_map(|line| line.split(": ").next()).collect();
    assert!(code == 2 && begin == ["search:1", "search:2", "search:3"], "{told}");
    // Nor is the next push silent about it.
    let (code, told, error) = push(&registry, &file, &[]);
    assert!(code == 0 && told.contains("search:4"), "{code}: {told}{error}");
    assert!(error.starts_with("switchback: warning: models/search/versions/2/manifest.json is not readable: "), "{error}");
    let says = "nothing to verify: the registry has no version of other whose artefact is there\n";
    assert_eq!(registry.model(&["verify", "other", "--all"]), (0, says.to_owned(), String::new()));
    assert_eq!(registry.done(&["verify", "other", "--all"]), serde_json::json!({ "model": "other", "versions": [] }));
}

#[test]
fn names_of_parts_are_nobodys_business() {
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    fs::create_dir_all(registry.path("registry/models/search")).unwrap();
    fs::write(registry.path("registry/models/search/artefacts"), "a file in the way").unwrap();
    let (code, _, error) = push(&registry, &file, &[]);
    assert!(code == 69 && error.contains("models/search/artefacts/") && !error.contains('#'), "{code}: {error}");
    // Nor is that of the file that a pull writes first.
    let (registry, _) = with_one();
    let (code, _, error) = registry.model(&["pull", "search:1", "--to", "no/such/folder/out"]);
    assert!(code == 64 && error.contains("no/such/folder/out: cannot write it") && !error.contains(".part"), "{code}: {error}");
}

/// The registry of the tests is in a variable of the environment, and so no part of what somebody wrote.
#[test]
fn the_usage_is_about_what_was_asked() {
    let registry = Registry::in_folder();
    let mut command = registry.command(&["model", "push", "--model", "search"]);
    let (code, _, error) = said(&command.env("SWITCHBACK_REGISTRY", "file:///models").output().unwrap());
    let usage = error.lines().find(|line| line.starts_with("Usage: ")).unwrap();
    assert!(code == 64 && usage.starts_with("Usage: switchback model push [OPTIONS]") && !usage.contains("--registry"), "{error}");
}

#[test]
fn a_validation_that_is_ended_leaves_nothing_behind() {
    let registry = Registry::in_bucket();
    let file = registry.file("model", &vec![7; 8 * MIB]);
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    // It waits for the store, with a part of the file in its folder.
    let config = registry.path("switchback.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("retry_for = \"2s\"", "retry_for = \"60s\"")).unwrap();
    for signal in ["-TERM", "-INT"] {
        let folder = registry.path("tmp");
        fs::create_dir_all(&folder).unwrap();
        registry.relay().cut_after(MIB as u64);
        let mut command = registry.command(&["model", "validate", "search:1"]);
        let validate = command.env("TMPDIR", &folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it is cut", SOON, || registry.relay().is_cut().then_some(()));
        assert_eq!(files_in(&folder).len(), 1);
        assert!(Command::new("kill").args([signal, &validate.id().to_string()]).status().unwrap().success());
        let (code, _, error) = said(&validate.wait_with_output().unwrap());
        assert!(code == 130 && error.contains("interrupted"), "{signal}: {code}: {error}");
        assert_eq!(files_in(&folder), Vec::<PathBuf>::new());
        registry.relay().mend();
    }
}
