//! The promise: a version is there whole or not at all, never changes, and has a number that nobody else has; in a folder as in a bucket of a real S3 server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::Value;
use switchback_tests::eventually;
use switchback_tests::registry::{Place, Registry, said};

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that do not compress, the same for each seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut noise = vec![0; bytes];
    random.fill(&mut noise[..]);
    noise
}

fn numbers(registry: &Registry) -> Vec<u64> {
    let (code, said, error) = registry.model(&["list", "search", "--json"]);
    if code == 2 {
        assert!(error.contains("there is none in the registry"), "{error}");
        return Vec::new();
    }
    assert_eq!(code, 0, "{error}");
    let all: Value = serde_json::from_str(&said).unwrap();
    all["versions"].as_array().unwrap().iter().map(|version| version["version"].as_u64().unwrap()).collect()
}

#[test]
fn a_version_goes_in_and_comes_out_as_it_was() {
    for registry in Registry::both() {
        let one = registry.file("ranker.onnx", b"one model");
        let (code, said, error) = registry.model(&["list"]);
        match &registry.place {
            // Who only looks makes no folder.
            Place::Folder => assert!(code == 69 && error.contains("there is no such folder; the first push makes it"), "{code}: {error}"),
            Place::Bucket(..) => assert!(code == 0 && said.contains("no models; push one with"), "{said}"),
        }
        let said =
            registry.model(&["push", text(&one), "--model", "search", "--metric", "ndcg@10=0.743", "--tag", "night=1", "--why", "first"]).1;
        assert!(said.starts_with("search:1\n") && said.contains("metric ndcg@10  0.743") && said.contains("by ann"), "{said}");
        // A larger one, in several parts.
        let bytes = noise(1, 40 * MIB + 17);
        let large = registry.file("large.txt", &bytes);
        let pushed =
            registry.done(&["push", text(&large), "--model", "search", "--parent", "1", "--format", "opaque", "--alias", "candidate"]);
        assert_eq!((&pushed["version"], &pushed["bytes"], &pushed["format"]), (&2.into(), &bytes.len().into(), &"opaque".into()));
        assert_eq!(registry.done(&["show", "search@candidate"])["version"], 2);
        let (code, said, error) = registry.model(&["pull", "search:2", "--to", "out"]);
        assert!(code == 0 && said.contains("search:2 is in out"), "{said}{error}");
        assert!(fs::read(registry.path("out")).unwrap() == bytes);
        registry.done(&["pull", "search:1"]);
        assert_eq!(fs::read(registry.path("ranker.onnx")).unwrap(), b"one model");
        let said = registry.model(&["diff", "search:1", "search:2"]).1;
        assert!(said.contains("onnx") && said.contains("opaque") && !said.contains("pushed by"), "{said}");
        let listed = registry.model(&["list", "search"]).1;
        assert!(listed.lines().nth(2).unwrap().trim_end().ends_with("candidate") && listed.contains("ndcg@10 0.743"), "{listed}");
        assert!(registry.model(&["list"]).1.contains("candidate 2"));
        let (code, said, _) = registry.model(&["verify", "search", "--all"]);
        assert!(code == 0 && said.lines().count() == 2, "{said}");
        for (arguments, code, says) in [
            (&["show", "search:9"][..], 2, "search:9: there is none in the registry"),
            (&["show", "search@gone"], 2, "its aliases are candidate"),
            (&["show", "shop"], 2, "its models are search"),
            (&["show", "Search"], 64, "must be MODEL, MODEL:NUMBER or MODEL@ALIAS"),
            (&["push", "no such file", "--model", "search"], 64, "no such file: cannot read it"),
            (&["push", text(&one), "--model", "../x"], 64, "must be 1 to 64 lower-case letters"),
            (&["push", text(&one), "--model", "search", "--metric", "ndcg=high"], 64, "--metric ndcg=high: must be a number"),
        ] {
            let (is, said, error) = registry.model(arguments);
            assert!(is == code && error.contains(says), "{arguments:?}: {is} {said}{error}");
        }
    }
}

#[test]
fn pushes_at_the_same_time_have_numbers_of_their_own() {
    for registry in Registry::both() {
        let files: Vec<PathBuf> = (0..32).map(|index| registry.file(&format!("model-{index}"), &noise(index, 4_000))).collect();
        let pushes: Vec<_> =
            files.iter().map(|file| registry.start(&["push", text(file), "--format", "opaque", "--model", "search", "--json"])).collect();
        let numbers: BTreeSet<u64> = pushes
            .into_iter()
            .map(|push| {
                let (code, said, error) = said(&push.wait_with_output().unwrap());
                assert_eq!(code, 0, "{error}");
                serde_json::from_str::<Value>(&said).unwrap()["version"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(numbers, (1..=32).collect());
        let (code, said, error) = registry.model(&["verify", "search", "--all"]);
        assert!(code == 0 && said.lines().count() == 32, "{said}{error}");
    }
}

#[test]
fn of_those_who_move_an_alias_from_one_place_one_does() {
    for registry in Registry::both() {
        let file = registry.file("model", b"a model");
        (0..4).for_each(|_| drop(registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"])));
        for race in 0..100 {
            let race_to = |to| registry.start(&["alias", "search", "champion", to, "--expect", "0", "--json"]);
            let ends: Vec<_> =
                ["1", "2", "3", "4"].map(race_to).into_iter().map(|racer| said(&racer.wait_with_output().unwrap())).collect();
            let winners: Vec<u64> = (1..).zip(&ends).filter(|(_, (code, _, _))| *code == 0).map(|(to, _)| to).collect();
            assert_eq!(winners.len(), 1, "race {race}: {ends:#?}");
            assert!(
                ends.iter().all(|(code, _, error)| *code == 0 || (*code == 2 && error.contains("somebody moved it meanwhile"))),
                "{ends:#?}"
            );
            assert_eq!(registry.done(&["show", "search@champion"])["version"], winners[0]);
            registry.done(&["alias", "search", "champion", "--remove", "--expect", &winners[0].to_string()]);
        }
        let moves = registry.done(&["alias", "search", "champion"])["moves"].as_array().unwrap().len();
        assert_eq!(moves, 200, "each of them, and each way back");
    }
}

/// Killed at whatever moment, there is a whole version or none; the next push goes on as if nothing had been.
#[test]
fn a_push_that_is_killed_leaves_nothing_half_visible() {
    for registry in Registry::both() {
        let file = registry.file("model", &noise(7, 36 * MIB));
        let began = Instant::now();
        registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
        let mut took = began.elapsed();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(50);
        let mut killed = 0;
        for _ in 0..50 {
            let before = numbers(&registry).len();
            let mut push = registry.start(&["push", text(&file), "--format", "opaque", "--model", "search", "--json"]);
            let began = Instant::now();
            let moment = began + took.mul_f64(random.random_range(0.0..1.1));
            eventually("the moment", SOON, || (Instant::now() >= moment || push.try_wait().unwrap().is_some()).then_some(()));
            push.kill().unwrap();
            let is_done = push.wait().unwrap().success();
            if is_done {
                // The first one may have been slower, as the machine was.
                took = took.min(began.elapsed());
            }
            killed += u32::from(!is_done);
            let after = numbers(&registry);
            assert_eq!(after, (1..=after.len() as u64).collect::<Vec<_>>());
            assert!(after.len() == before + 1 || (after.len() == before && !is_done), "{before} versions before, {} after", after.len());
        }
        assert!(killed >= 25, "{killed} of 50 were killed before they were done");
        let (code, said, error) = registry.model(&["verify", "search", "--all"]);
        assert!(code == 0, "{said}{error}");
        registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    }
}

#[test]
fn an_upload_that_was_broken_off_goes_on() {
    let registry = Registry::in_bucket();
    let bytes = noise(3, 160 * MIB);
    let file = registry.file("model", &bytes);
    let mut push = registry.start(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    eventually("half of it is there", SOON, || {
        (registry.relay().up() > 100 * MIB as u64 || push.try_wait().unwrap().is_some()).then_some(())
    });
    push.kill().unwrap();
    assert!(!push.wait().unwrap().success());
    let before = registry.relay().up();
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let sent = registry.relay().up() - before;
    assert!(sent < 120 * MIB as u64, "{} MiB of 160 were sent again", sent / MIB as u64);
    registry.done(&["pull", "search", "--to", "out"]);
    assert!(fs::read(registry.path("out")).unwrap() == bytes);
}

/// The most memory that a process had so far, in bytes; `None` when it has ended.
fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[test]
fn a_large_file_is_never_held_whole() {
    for registry in Registry::both() {
        // With holes: it takes no room on this disk.
        let file = registry.file("model", b"");
        fs::File::options().write(true).open(&file).unwrap().set_len(300 * MIB as u64).unwrap();
        let mut push = registry.start(&["push", text(&file), "--format", "opaque", "--model", "search", "--json"]);
        let mut peak = 0;
        eventually("the end of the push", 4 * SOON, || {
            peak = peak_memory(push.id()).unwrap_or(0).max(peak);
            push.try_wait().unwrap()
        });
        let (code, pushed, error) = said(&push.wait_with_output().unwrap());
        assert_eq!(code, 0, "{error}");
        let pushed: Value = serde_json::from_str(&pushed).unwrap();
        assert_eq!(pushed["bytes"], 300 * MIB);
        assert!(peak > 0 && peak < 160 * MIB as u64, "{} MiB of memory for a file of 300", peak / MIB as u64);
        registry.done(&["verify", "search:1"]);
    }
}

#[test]
fn a_flipped_bit_is_refused_with_both_digests() {
    let registry = Registry::in_folder();
    let file = registry.file("model", &noise(5, MIB));
    let pushed = registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let artefacts = registry.path("registry/models/search/artefacts");
    let artefact = fs::read_dir(artefacts).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&artefact).unwrap();
    bytes[4_711] ^= 4;
    fs::write(&artefact, bytes).unwrap();
    for arguments in [&["pull", "search:1", "--to", "out"][..], &["verify", "search:1"]] {
        let (code, said, error) = registry.model(arguments);
        let told = format!("{said}{error}");
        assert!(
            code == 2 && told.contains(pushed["sha256"].as_str().unwrap()) && told.contains("it was changed after it was pushed"),
            "{code} {told}"
        );
    }
    assert!(!registry.path("out").exists());
}

#[test]
fn a_server_that_goes_away_is_tried_again_and_then_told() {
    let mut registry = Registry::in_bucket();
    let file = registry.file("model", &noise(9, 64 * MIB));
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    // It comes back: the download goes on where it was.
    registry.relay().cut_after(30 * MIB as u64);
    let before = registry.relay().down();
    let pull = registry.start(&["pull", "search", "--to", "out"]);
    eventually("it is cut", SOON, || registry.relay().is_cut().then_some(()));
    registry.relay().mend();
    let (code, _, error) = said(&pull.wait_with_output().unwrap());
    assert_eq!(code, 0, "{error}");
    assert!(registry.relay().down() - before < 80 * MIB as u64, "what was there was not read again");
    // It does not.
    fs::remove_file(registry.path("out")).unwrap();
    registry.relay().cut_after(30 * MIB as u64);
    let (code, _, error) = registry.model(&["pull", "search", "--to", "out"]);
    assert!(code == 69 && error.contains("the registry at s3://models/some/prefix cannot be used"), "{code}: {error}");
    assert!(
        !registry.path("out").exists()
            && fs::read_dir(registry.path(".")).unwrap().all(|file| !text(&file.unwrap().path()).contains(".part"))
    );
    let (code, _, error) = registry.model(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    assert_eq!(code, 69, "{error}");
    let Place::Bucket(server, relay) = &mut registry.place else { unreachable!() };
    server.kill();
    relay.mend();
    let (code, _, error) = registry.model(&["list"]);
    assert_eq!(code, 69, "{error}");
}

#[test]
fn a_server_that_hangs_is_not_waited_for_beyond_the_patience_for_it() {
    let registry = Registry::in_bucket();
    let file = registry.file("model", b"a model");
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let Place::Bucket(server, _) = &registry.place else { unreachable!() };
    server.pause();
    for arguments in [&["list"][..], &["push", text(&file), "--format", "opaque", "--model", "search"]] {
        let began = Instant::now();
        let (code, _, error) = registry.model(arguments);
        assert!(code == 69 && error.contains("the registry at s3://models/some/prefix cannot be used"), "{code}: {error}");
        // `retry_for` is 2 s, and a try that began within it may take as long again.
        assert!(began.elapsed() < Duration::from_secs(12), "{arguments:?}: {:?}", began.elapsed());
    }
}

#[test]
fn retention_keeps_what_is_new_aliased_or_in_use() {
    for registry in Registry::both() {
        let file = registry.file("model", b"a model");
        (0..6).for_each(|_| drop(registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"])));
        registry.done(&["alias", "search", "champion", "2"]);
        let gc = |more: &[&str]| {
            registry.done(&[&["gc", "search", "--no-router", "--keep", "2", "--younger", "0s", "--in-use", "3"], more].concat())["models"]
                [0]
            .clone()
        };
        // With a slip in the number, what is in use would go.
        let (code, _, error) = registry.model(&["gc", "search", "--no-router", "--keep", "1", "--younger", "0s", "--in-use", "22"]);
        assert!(code == 64 && error.contains("--in-use 22: there is no such version; nothing was removed"), "{code}: {error}");
        let would = gc(&["--dry-run"]);
        assert_eq!(would["removed"], serde_json::json!([1, 4]));
        assert_eq!(registry.done(&["pull", "search:4", "--to", "out"])["version"]["version"], 4, "a dry run removes nothing");
        assert_eq!(gc(&[])["removed"], serde_json::json!([1, 4]));
        let (code, _, error) = registry.model(&["pull", "search:4", "--to", "out"]);
        assert!(code == 2 && error.contains("its artefact was removed from the registry by ann; the manifest is kept"), "{error}");
        assert_eq!(registry.done(&["show", "search:4"])["removed"]["who"], "ann");
        assert_eq!(numbers(&registry), [1, 2, 3, 4, 5, 6]);
        assert_eq!(registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"])["version"], 7);
        assert!(registry.model(&["alias", "search", "champion", "4"]).2.contains("its artefact was removed"));
        assert!(registry.model(&["gc", "search", "--no-router", "--dry-run"]).1.contains("nothing would be removed"));
    }
}

#[test]
fn a_signature_is_believed_of_who_is_trusted() {
    let registry = Registry::in_folder();
    let ((private, public), (_, other)) = (registry.keys("ours"), registry.keys("theirs"));
    let file = registry.file("model", b"a model");
    let signed = registry.done(&["push", text(&file), "--format", "opaque", "--model", "search", "--sign-key", text(&private)]);
    assert!(registry.model(&["show", "search:1"]).1.contains(signed["signature"]["key"].as_str().unwrap()));
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let verify = |version: &str, key: &Path| registry.model(&["verify", version, "--trusted-key", text(key)]);
    assert_eq!(verify("search:1", &public).0, 0);
    assert!(verify("search:1", &other).1.contains("is not trusted: it is signed with the key"));
    let (code, said, _) = verify("search:2", &public);
    assert!(code == 2 && said.contains("search:2 is not trusted: nobody signed it"), "{said}");
    // Nor is it pulled; and the keys of a config count as those that are named.
    let out = registry.path("out");
    let pull = |version: &str| registry.model(&["pull", version, "--to", text(&out), "--config", text(&registry.path("switchback.toml"))]);
    registry.trust(&public);
    let (code, said, error) = pull("search:2");
    assert!(code == 2 && error.contains("search:2 is not trusted: nobody signed it") && !out.exists(), "{said}{error}");
    assert_eq!((pull("search:1").0, fs::read(&out).unwrap()), (0, b"a model".to_vec()));
    // A manifest that somebody changed in the store.
    let manifest = registry.path("registry/models/search/versions/1/manifest.json");
    let changed = fs::read_to_string(&manifest).unwrap().replace("\"who\":\"ann\"", "\"who\":\"bob\"");
    fs::write(&manifest, changed).unwrap();
    assert!(verify("search:1", &public).1.contains("it was changed after it was signed"));
    let (code, _, error) = registry.model(&["push", text(&file), "--format", "opaque", "--model", "search", "--sign-key", text(&public)]);
    assert!(code == 64 && error.contains("must be a private key of Ed25519 in PEM"), "{error}");
}

#[test]
fn what_never_ends_is_no_file_and_what_changes_nothing_is_no_push_and_no_move() {
    let registry = Registry::in_folder();
    let pipe = registry.path("pipe.onnx");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (file, empty) = (registry.file("model", b"a model"), registry.file("empty.onnx", b""));
    let push =
        |file: &Path, more: &[&str]| registry.model(&[&["push", text(file), "--model", "search", "--format", "opaque"], more].concat());
    for (arguments, says) in [
        (&["push", text(&pipe), "--model", "search"][..], "pipe.onnx: must be a regular file"),
        (&["push", text(&file), "--format", "opaque", "--model", "search", "--sign-key", text(&pipe)], "pipe.onnx: must be a regular file"),
        (&["validate", "--file", text(&pipe)], "pipe.onnx: must be a regular file"),
        (&["validate", "--file", "/dev/zero", "--format", "onnx"], "/dev/zero: must be a regular file"),
        (&["push", text(&empty), "--model", "search"], "empty.onnx: it is empty"),
    ] {
        let (code, _, error) = registry.model(arguments);
        assert!(code == 64 && error.contains(says), "{arguments:?}: {code} {error}");
    }
    let (code, said, error) = push(&file, &["--dry-run"]);
    assert!(code == 0 && said.starts_with("would push ") && said.contains("opaque"), "{said}{error}");
    assert_eq!(registry.model(&["list"]).0, 69, "a dry run makes nothing");
    (0..2).for_each(|_| assert_eq!(push(&file, &[]).0, 0));
    for version in ["1", "2", "2"] {
        registry.done(&["alias", "search", "champion", version]);
    }
    let moves = registry.done(&["alias", "search", "champion"])["moves"].as_array().unwrap().clone();
    assert_eq!(moves.len(), 2, "where it is already is no move: what was before stays known");
    let alias = |more: &[&str]| registry.model(&[&["alias", "search", "champion"], more].concat());
    // Each has its time, in UTC.
    let (_, said, _) = alias(&[]);
    for moved in &moves {
        let time = moved["moved_at"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && said.contains(time), "{time} of {said}");
    }
    let last = registry.done(&["alias", "search"])["aliases"][0]["last"].clone();
    assert_eq!((&last["moved_at"], &last["version"]), (&moves[1]["moved_at"], &2.into()));
    let (code, said, error) = alias(&["2"]);
    assert_eq!((code, said.as_str()), (0, "search@champion points to version 2 already; nothing was moved\n"), "{error}");
    let (code, said, error) = alias(&["--remove"]);
    assert_eq!((code, said.as_str()), (0, "search@champion points to no version; before to version 2\n"), "{error}");
    let (code, said, error) = alias(&["--remove"]);
    assert_eq!((code, said.as_str()), (0, "search@champion points to no version already; nothing was moved\n"), "{error}");
    // The newest first, as they followed one another, whatever the clocks of those who moved it said.
    let first = registry.path("registry/models/search/aliases/champion/1.json");
    let mut moved: Value = serde_json::from_slice(&fs::read(&first).unwrap()).unwrap();
    moved["moved_ms"] = 4_102_444_800_000_u64.into();
    fs::write(&first, moved.to_string()).unwrap();
    let (_, said, _) = alias(&[]);
    let numbers: Vec<&str> = said.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(numbers == ["3", "2", "1"] && said.lines().last().unwrap().contains("2100-01-01"), "{said}");
    let (code, _, error) = registry.model(&["alias", "search", "nobody", "--remove"]);
    assert!(code == 2 && error.contains("there is no such alias"), "{error}");
}

#[test]
fn what_is_broken_or_unfinished_breaks_nothing_else() {
    for registry in Registry::both() {
        let file = registry.file("model", b"a model");
        let push =
            |model: &str, more: &[&str]| registry.model(&[&["push", text(&file), "--format", "opaque", "--model", model], more].concat());
        (0..3).for_each(|_| assert_eq!(push("search", &[]).0, 0));
        // Texts that are no manifest any more are refused before anything is there.
        let long = "x".repeat(4_000);
        let tags: Vec<String> = (0..70).map(|index| format!("t{index}={long}")).collect();
        let tags: Vec<&str> = tags.iter().flat_map(|tag| ["--tag", tag.as_str()]).collect();
        let (code, _, error) = push("other", &tags);
        assert!(code == 64 && error.contains("262144 at most are allowed"), "{code}: {error}");
        let (code, said, error) = registry.model(&["list"]);
        assert!(code == 0 && said.contains("search") && !said.contains("other"), "{code}: {said}{error}");
        registry.done(&["gc", "--no-router", "--dry-run"]);
        assert_eq!(registry.model(&["gc", "nobody", "--no-router"]).0, 2);
    }
    // Somebody broke a manifest: the others are told, and nothing of that model is removed.
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    for model in ["search", "search", "search", "shop"] {
        registry.done(&["push", text(&file), "--format", "opaque", "--model", model]);
    }
    fs::write(registry.path("registry/models/search/versions/2/manifest.json"), "{").unwrap();
    let (code, said, error) = registry.model(&["list"]);
    assert!(
        code == 2 && said.contains("search") && said.contains("shop") && error.contains("versions/2/manifest.json is not readable"),
        "{code}: {said}{error}"
    );
    let (code, said, _) = registry.model(&["verify", "search", "--all"]);
    assert!(code == 2 && said.lines().count() == 3, "{said}");
    let (code, said, error) = registry.model(&["gc", "--no-router", "--keep", "1", "--younger", "0s"]);
    assert!(code == 2 && error.contains("nothing of search is removed") && said.contains("shop"), "{code}: {said}{error}");
    assert_eq!(registry.model(&["verify", "search:1"]).0, 0);
}

#[test]
fn retention_keeps_what_an_alias_was_moved_from() {
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    for version in ["1", "2", "3", "4"] {
        registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
        registry.done(&["alias", "search", "champion", version]);
    }
    let gone = registry.done(&["gc", "search", "--no-router", "--keep", "1", "--younger", "0s"]);
    assert_eq!(gone["models"][0]["removed"], serde_json::json!([1, 2]));
    registry.done(&["alias", "search", "champion", "3"]);
}

#[test]
fn a_file_is_written_where_one_may_be_and_nowhere_else() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let registry = Registry::in_folder();
    let file = registry.file("model", b"a model");
    registry.done(&["push", text(&file), "--format", "opaque", "--model", "search"]);
    let (code, said, error) = registry.model(&["pull", "search", "--to", "-"]);
    assert_eq!((code, said.as_str()), (0, "a model"), "{error}");
    fs::create_dir(registry.path("folder")).unwrap();
    let (code, _, error) = registry.model(&["pull", "search", "--to", "folder"]);
    assert!(code == 64 && error.contains("folder: cannot replace what is no file"), "{code}: {error}");
    let real = registry.file("real", b"before");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&real, registry.path("link")).unwrap();
    registry.done(&["pull", "search", "--to", "link"]);
    assert!(fs::symlink_metadata(registry.path("link")).unwrap().is_symlink());
    assert_eq!((fs::read(&real).unwrap(), fs::metadata(&real).unwrap().permissions().mode() & 0o777), (b"a model".to_vec(), 0o600));
}
