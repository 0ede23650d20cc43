//! `switchback policy check` says what the router would do with a file, to people and to machines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchback_tests::guests;

/// Exit code, standard output and standard error.
fn policy(arguments: &[&str], file: &Path) -> (i32, String, String) {
    let output = Command::new(switchback_tests::binary()).arg("policy").args(arguments).arg(file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_that_the_router_would_not_look_at_is_refused_for_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, is_good) in [("mine.wasm", true), ("Mine.wasm", false), ("my policy.wasm", false), ("mine.bin", false)] {
        let file = folder.path().join(name);
        std::fs::write(&file, guests::variant_of_split_weighted(1)).unwrap();
        let (code, said, why) = policy(&["check"], &file);
        assert_eq!(code, if is_good { 0 } else { 2 }, "{name}: {said}{why}");
        assert_eq!(why.contains("its name must be NAME.wasm"), !is_good, "{name}: {why}");
    }
}

#[test]
fn the_bare_name_of_a_shipped_policy_is_that_policy() {
    let (code, said, why) = policy(&["check"], Path::new("split-weighted"));
    assert!(code == 0 && said.starts_with("split-weighted: admitted\n"), "{said}{why}");
    let (code, said, why) = policy(&["bench", "--seconds", "0.1"], Path::new("split-weighted"));
    assert!(code == 0 && said.contains("ns per decision"), "{said}{why}");
    let (code, _, why) = policy(&["check"], Path::new("split-nothing"));
    assert!(code == 64 && why.contains("cannot be read"), "{why}");
    // A file of that name is meant first.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("split-weighted"), "no plugin").unwrap();
    let output =
        Command::new(switchback_tests::binary()).args(["policy", "check", "split-weighted"]).current_dir(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn machines_get_one_object_whatever_happens() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.wasm"), folder.path().join("bad.wasm"));
    std::fs::write(&good, guests::variant_of_split_weighted(1)).unwrap();
    std::fs::write(&bad, "no plugin").unwrap();
    let no_config = folder.path().join("none.toml").display().to_string();
    let json = |arguments: &[&str], file: &Path, expected: i32| {
        let (code, said, _) = policy(&[arguments, &["--json"]].concat(), file);
        assert_eq!(code, expected, "{arguments:?} {}: {said}", file.display());
        serde_json::from_str::<Value>(&said).unwrap_or_else(|error| panic!("{arguments:?} {}: {error}: {said:?}", file.display()))
    };
    assert_eq!(json(&["check"], &good, 0)["admitted"], true);
    for command in [&["check"][..], &["bench", "--seconds", "0.1"]] {
        assert_eq!(json(command, &bad, 2)["admitted"], false);
        let missing = json(command, &folder.path().join("missing.wasm"), 64);
        assert!(missing["admitted"] == false && missing["reason"].as_str().unwrap().contains("cannot be read"), "{missing}");
        let unconfigured = json(&[command, &["--config", &no_config]].concat(), &good, 64);
        assert!(unconfigured["reason"].as_str().unwrap().contains("none.toml"), "{unconfigured}");
    }
}
