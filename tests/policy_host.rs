//! Promise: a bad plugin never takes over, or is taken out again, and says why; a good one is in force a moment after it appears.
//!
//! The policy host as a library, with real components built from `plugins/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "policy_host/host.rs"]
mod host;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host::{Host, digest, guest, misbehave, ramp, sleeper};
use switchback::flags::{Flags, PolicyRef, Share};
use switchback::policy::{
    Decision, Kind, Policies, PolicyFailure, PolicyState, PolicyStatus, Reason, SplitInForce, SplitPolicy, WeightedSplit, snapshot,
};
use switchback::vocabulary::{PoolIndex, Ppm};
use tokio::time::Instant;

#[tokio::test]
async fn the_shipped_policy_is_in_force_from_the_first_moment_and_decides_as_its_native_twin() {
    let host = Host::open("");
    let status = host.status();
    assert_eq!((status.name.as_str(), status.state, status.in_force.kind), ("split-weighted", PolicyState::InForce, Kind::Wasm));
    host.change(ramp(250_000));
    host.change(|flags| flags.holdback = Some(Share { pool: PoolIndex(1), share: Ppm::new(100_000).unwrap() }));
    let snapshot = snapshot(&host.config.routes[0], &host.flags.borrow());
    let (native, _) = WeightedSplit::configure(&snapshot).unwrap();
    let mut wasm = host.instance().unwrap();
    for position in (0..1_000_000).step_by(997).chain([249_999, 250_000, 899_999, 900_000, 999_999]) {
        assert_eq!(wasm.route(position).unwrap(), native.route(position), "position {position}");
    }
}

#[tokio::test]
async fn every_bad_plugin_is_refused_with_a_reason_and_the_old_one_goes_on() {
    let host = Host::open("");
    host.install("mine", &guest("hello-split"));
    host.want("mine", None);
    host.eventually_in_force(&guest("hello-split")).await;
    let cases: [(&str, Vec<u8>, &str); 18] = [
        ("trap", guest("hostile-trap"), "it trapped: wasm `unreachable` instruction executed"),
        ("spin", guest("hostile-spin"), "stopped at its deadline of 1000 ms"),
        ("memory bomb", guest("hostile-memory-bomb"), "more than its 16777216 bytes of memory"),
        ("deep recursion", guest("hostile-deep"), "used up its stack of 262144 bytes"),
        ("nonsense", guest("hostile-nonsense"), "pool 999, where the route has 3 pools"),
        ("moody", guest("hostile-moody"), "it is not deterministic"),
        ("slow", guest("hostile-slow"), "policies.decision_budget allows 50.0 us"),
        ("refuses all flags", guest("hostile-refuse"), "it said: this policy wants other flags"),
        ("calls WASI", guest("hostile-wasi"), "it called wasi:clocks/wall-clock@0.2.6#now, which no policy gets"),
        (
            "wrong version",
            guest("hostile-wrong-version"),
            "made for switchback:policy/split@0.9.0; this router speaks switchback:policy@0.1",
        ),
        ("wrong types", guest("hostile-wrong-types"), "do not have the types of switchback:policy@0.1"),
        ("foreign import", guest("hostile-foreign-import"), "it imports switchback:policy/secrets@0.1.0, which no policy gets"),
        ("no policy", guest("hostile-no-policy"), "exports neither switchback:policy/split nor switchback:policy/rollback"),
        ("rollback policy", guest("always-hold"), "it is a rollback policy"),
        ("core module", b"\0asm\x01\0\0\0".to_vec(), "a core WebAssembly module, not a component; build it with"),
        ("not WebAssembly", b"#!/bin/sh\n".to_vec(), "not a WebAssembly binary: the first bytes are 23212f62696e2f73"),
        ("empty", Vec::new(), "the first bytes are none"),
        ("cut in half", guest("hello-split")[..20_000].to_vec(), "not a valid component"),
    ];
    for (case, bytes, reason) in cases {
        host.install("mine", &bytes);
        let is_refused = |status: &PolicyStatus| status.state == PolicyState::Refused && status.why.contains(reason);
        let status = host.eventually(case, is_refused).await;
        assert!(status.refusals.len() <= 8);
        assert_eq!(status.digest, digest(&guest("hello-split")), "{case} took over");
        assert!(host.instance().is_ok(), "{case}: the old one must go on serving");
    }
    host.install("mine", &sleeper("hostile-trap"));
    host.eventually_in_force(&sleeper("hostile-trap")).await;
}

#[tokio::test]
async fn a_policy_that_goes_bad_costs_no_query_is_struck_out_and_comes_back() {
    let kinds: [(&str, &str); 5] = [
        ("hostile-trap", "trapped"),
        ("hostile-spin", "deadline of 20 ms"),
        ("hostile-memory-bomb", "bytes of memory"),
        ("hostile-deep", "stack of 262144 bytes"),
        ("hostile-nonsense", "pool 999"),
    ];
    for (kind, reason) in kinds {
        let host = Host::open("strikes = 3\nquarantine = \"500ms\"\nquarantine_max = \"500ms\"\nstrike_window = \"2s\"");
        host.install("mine", &sleeper(kind));
        host.want("mine", None);
        host.eventually_in_force(&sleeper(kind)).await;
        let mut worker = None;
        assert_eq!(host.decide(&mut worker, 5).0.reason, Reason::Rule, "{kind} behaves at first");

        host.change(misbehave);
        host.change(ramp(500_000));
        worker = None;
        let native = Decision { pool: 2, reason: Reason::Candidate, arm: None };
        for query in 1..=3 {
            assert_eq!(host.decide(&mut worker, 5), (native, true), "{kind}, query {query}");
        }
        assert_eq!(host.decide(&mut worker, 5), (native, false), "{kind} is not even asked in quarantine");
        let status = host.status();
        assert_eq!((status.state, status.in_force.strikes), (PolicyState::Quarantined, 3), "{kind}");
        assert!(status.why.contains(reason), "{kind}: {}", status.why);
        assert!(status.in_force.quarantined_for_ms.is_some());

        host.eventually("the quarantine ends", |status| status.state != PolicyState::Quarantined).await;
        assert_eq!(host.decide(&mut worker, 5), (native, true), "{kind} is tried again, and one strike is enough on probation");
        assert_eq!(host.status().state, PolicyState::Quarantined);
        host.eventually("the second quarantine ends", |status| status.state != PolicyState::Quarantined).await;
        host.change(|flags| flags.features.clear());
        assert_eq!(host.decide(&mut worker, 5).0.reason, Reason::Rule, "{kind} is forgiven when it behaves");
    }
}

/// An edit that is obeyed and not adopted yet leaves the epoch as it is.
#[tokio::test]
async fn a_policy_that_refused_some_flags_is_asked_again_about_others_of_the_same_epoch() {
    let host = Host::open("");
    host.install("mine", &sleeper("hostile-refuse"));
    host.change(misbehave);
    host.want("mine", None);
    host.eventually("refused", |status| status.state == PolicyState::Refused && status.why.contains("with this route's flags")).await;
    host.flags.send_modify(|flags| {
        let mut edited = Flags::clone(flags);
        edited.features.clear();
        *flags = Arc::new(edited);
    });
    host.eventually_in_force(&sleeper("hostile-refuse")).await;
}

#[tokio::test]
async fn a_trial_that_takes_too_long_is_ended() {
    let host = Host::open("deadline = \"1s\"\ndecision_budget = \"20ms\"\ntrial_timeout = \"100ms\"");
    host.install("mine", &guest("hostile-slow"));
    host.want("mine", None);
    let reason = "its trial was not over after policies.trial_timeout (100ms)";
    host.eventually("refused", |status| status.state == PolicyState::Refused && status.why.contains(reason)).await;
}

#[tokio::test]
async fn a_policy_that_refuses_new_flags_says_so_and_gets_no_strike() {
    let host = Host::open("");
    host.install("mine", &sleeper("hostile-refuse"));
    host.want("mine", None);
    host.eventually_in_force(&sleeper("hostile-refuse")).await;
    let mut instance = host.instance().unwrap();
    host.change(misbehave);
    let snapshot = snapshot(&host.config.routes[0], &host.flags.borrow());
    let failure = instance.configure(&snapshot).unwrap_err();
    assert_eq!(failure, PolicyFailure::Refused { reason: "this policy wants other flags".to_owned() });
    let in_force = host.in_force();
    assert!(!in_force.failed(&failure, Instant::now()));
    let status = host.status();
    assert_eq!((status.state, status.in_force.strikes), (PolicyState::Unconfigured, 0));
    assert_eq!(status.why, "it refused the flags: this policy wants other flags");
    host.change(|flags| flags.features.clear());
    assert_eq!(host.instance().unwrap().route(1).unwrap().reason, Reason::Rule);
    assert_eq!((host.status().state, host.status().why), (PolicyState::InForce, String::new()));
}

#[tokio::test]
async fn a_plugin_that_refuses_the_routes_own_flags_does_not_take_over() {
    let host = Host::open("");
    host.change(misbehave);
    host.install("mine", &sleeper("hostile-refuse"));
    host.want("mine", None);
    let status =
        host.eventually("refused", |status| status.state == PolicyState::Refused && status.why.contains("with this route's flags")).await;
    assert!(status.why.contains("this policy wants other flags"), "{}", status.why);
    assert_eq!(status.name, "split-weighted");
    host.change(|flags| flags.features.clear());
    host.eventually_in_force(&sleeper("hostile-refuse")).await;
}

#[tokio::test]
async fn a_file_written_in_place_bit_by_bit_is_taken_when_it_is_whole() {
    use std::io::Write;
    let host = Host::open("");
    host.want("mine", None);
    let bytes = guest("hello-split");
    let mut file = fs::File::create(host.file("mine")).unwrap();
    let mut writes = tokio::time::interval(Duration::from_millis(20));
    for part in bytes.chunks(bytes.len() / 5 + 1) {
        writes.tick().await;
        file.write_all(part).unwrap();
        file.flush().unwrap();
    }
    host.eventually_in_force(&bytes).await;
    fs::write(host.file("mine"), sleeper("hostile-trap")).unwrap();
    host.eventually_in_force(&sleeper("hostile-trap")).await;
}

#[tokio::test]
async fn a_file_beats_the_shipped_policy_of_its_name_until_it_is_removed() {
    let host = Host::open("");
    let shipped = host.status().digest;
    host.install("split-weighted", &sleeper("hostile-trap"));
    host.eventually_in_force(&sleeper("hostile-trap")).await;
    fs::remove_file(host.file("split-weighted")).unwrap();
    host.eventually("shipped again", |status| status.state == PolicyState::InForce && status.digest == shipped).await;
}

#[tokio::test]
async fn a_name_that_nobody_has_leaves_the_one_in_force_and_says_so() {
    let host = Host::open("");
    host.want("missing", None);
    let status = host.eventually("refused", |status| status.state == PolicyState::Refused).await;
    assert_eq!((status.name.as_str(), status.wanted.as_str()), ("split-weighted", "missing"));
    assert!(status.why.contains("no plugin \"missing\"") && status.why.contains("split-weighted"), "{}", status.why);
    host.install("missing", &guest("hello-split"));
    host.eventually_in_force(&guest("hello-split")).await;
}

#[tokio::test]
async fn a_digest_pins_one_version_even_after_its_file_was_replaced_and_the_router_restarted() {
    let (old, new) = (guest("hello-split"), sleeper("hostile-trap"));
    let host = Host::open("");
    host.install("mine", &old);
    host.want("mine", None);
    host.eventually_in_force(&old).await;
    host.install("mine", &new);
    host.eventually_in_force(&new).await;
    host.want("mine", Some(&digest(&old)));
    host.eventually_in_force(&old).await;
    assert_eq!(host.status().wanted, format!("mine@{}", digest(&old)));

    let Host { policies, dir, .. } = host;
    drop(policies);
    let pin = PolicyRef { name: "mine".to_owned(), digest: Some(digest(&old)) };
    let host = Host::open_in(dir, "", |flags| flags.split_policy = pin);
    let status = host.status();
    assert_eq!((status.state, status.digest, status.in_force.source), (PolicyState::InForce, digest(&old), "kept".to_owned()));

    host.want("mine", Some(&"0".repeat(64)));
    let status = host.eventually("refused", |status| status.state == PolicyState::Refused).await;
    assert!(status.why.contains("no plugin with this digest"), "{}", status.why);
    assert_eq!(status.digest, digest(&old));
}

#[tokio::test]
async fn a_damaged_kept_plugin_is_noticed_and_written_again_when_it_comes_back() {
    let (old, new) = (guest("hello-split"), sleeper("hostile-trap"));
    let host = Host::open("");
    host.install("mine", &old);
    host.want("mine", None);
    host.eventually_in_force(&old).await;
    host.install("mine", &new);
    host.eventually_in_force(&new).await;
    let mut kept = Vec::new();
    find(host.dir.path(), &format!("{}.wasm", digest(&old)), &mut kept);
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    let mut damaged = old.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(kept, &damaged).unwrap();

    host.want("mine", Some(&digest(&old)));
    let status = host.eventually("refused", |status| status.state == PolicyState::Refused).await;
    assert!(status.why.contains("the kept copy is broken"), "{}", status.why);
    assert_eq!(status.digest, digest(&new), "the one in force stays");
    host.install("again", &old);
    host.eventually_in_force(&old).await;
    assert_eq!(fs::read(kept).unwrap(), old);

    // What it was refused for is not remembered: it can be had from the kept ones again.
    host.want("mine", None);
    host.eventually_in_force(&new).await;
    fs::remove_file(host.file("again")).unwrap();
    let is_gone = || !host.policies.plugins().iter().any(|plugin| plugin.name == "again");
    host.eventually("its file is gone", |_| is_gone()).await;
    host.want("mine", Some(&digest(&old)));
    host.eventually_in_force(&old).await;
    assert_eq!(host.status().in_force.source, "kept");
}

/// Files of this name, in any folder.
fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => find(&path, name, found),
            false if path.file_name().is_some_and(|file| file == name) => found.push(path),
            false => {}
        }
    }
}

#[tokio::test]
async fn plugins_beyond_the_64th_are_refused_by_name_and_those_that_were_seen_stay() {
    let host = Host::open("");
    host.install("mine", &guest("hello-split"));
    host.want("mine", None);
    host.eventually_in_force(&guest("hello-split")).await;
    // Their names come before its own.
    for number in 0..64 {
        host.install(&format!("a{number:02}"), b"no plugin");
    }
    host.want("a63", None);
    let refusal = |status: &PolicyStatus| status.refusals.iter().any(|refusal| refusal.reason.contains("more than the 64 files"));
    let status = host.eventually("one is refused by its name", refusal).await;
    assert_eq!(status.digest, digest(&guest("hello-split")), "the one in force stays");
    host.want("mine", None);
    host.eventually_in_force(&guest("hello-split")).await;
    fs::remove_file(host.file("a00")).unwrap();
    host.want("a63", None);
    host.eventually("there is room for it", |status| status.why.contains("not a WebAssembly binary")).await;
}

#[tokio::test]
async fn a_router_that_starts_with_a_bad_file_serves_with_the_last_good_one() {
    let host = Host::open("");
    host.install("mine", &guest("hello-split"));
    host.want("mine", None);
    host.eventually_in_force(&guest("hello-split")).await;
    let Host { policies, dir, config, .. } = host;
    drop(policies);
    fs::write(config.policies.dir.join("mine.wasm"), "no plugin").unwrap();
    let host = Host::open_in(dir, "", |flags| flags.split_policy = PolicyRef { name: "mine".to_owned(), digest: None });
    let status = host.status();
    assert_eq!((status.state, status.digest), (PolicyState::Refused, digest(&guest("hello-split"))));
    assert_eq!(status.in_force.source, "kept");
    assert!(status.why.contains("not a WebAssembly binary"), "{}", status.why);
}

#[tokio::test]
async fn compiled_code_is_cached_and_a_forged_cache_is_not_trusted() {
    let host = Host::open("");
    host.install("mine", &guest("hello-split"));
    host.want("mine", None);
    host.eventually_in_force(&guest("hello-split")).await;
    let cache = host.dir.path().join("cache");
    let artefact = |dir: &Path| {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let is_ours = |path: &PathBuf| path.to_string_lossy().contains(&digest(&guest("hello-split")));
        files.filter(is_ours).collect::<Vec<_>>()
    };
    let [path] = artefact(&cache).try_into().unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&cache).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);

    let Host { policies, dir, .. } = host;
    drop(policies);
    let mine = |flags: &mut Flags| flags.split_policy = PolicyRef { name: "mine".to_owned(), digest: None };
    let host = Host::open_in(dir, "", mine);
    assert_eq!(host.status().digest, digest(&guest("hello-split")), "in force before the first query");
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "not compiled again");

    let Host { policies, dir, .. } = host;
    drop(policies);
    let mut forged = fs::read(&path).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(&path, &forged).unwrap();
    let host = Host::open_in(dir, "", mine);
    assert!(host.instance().unwrap().route_fields(&[1], &[None]).is_ok());
    assert_ne!(fs::read(&path).unwrap(), forged, "compiled and written anew");
}

#[tokio::test]
async fn two_hundred_swaps_leave_no_memory_behind() {
    let host = Host::open("");
    host.install("one", &guest("hello-split"));
    host.install("two", &sleeper("hostile-trap"));
    // The least of ten readings: other tests of this process come and go meanwhile.
    let least_after_swaps = async |times: usize| {
        let mut readings = Vec::new();
        for _ in 0..times / 2 {
            for (name, bytes) in [("one", guest("hello-split")), ("two", sleeper("hostile-trap"))] {
                host.want(name, None);
                host.eventually_in_force(&bytes).await;
                host.instance().unwrap().route_fields(&[1], &[None]).unwrap();
            }
            readings.push(resident_bytes());
        }
        readings.into_iter().rev().take(10).min().unwrap()
    };
    let before = least_after_swaps(20).await;
    let grown = least_after_swaps(200).await.saturating_sub(before);
    assert!(grown < 8 << 20, "200 swaps left {grown} bytes behind");
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// A later patch of the interface is the same interface; a later minor of 0.x is another one. The versions have the same length, so that a
/// component can be renamed byte by byte.
#[tokio::test]
async fn plugins_for_a_later_patch_are_taken_and_for_a_later_minor_are_not() {
    let made_for = |version: &str| {
        let mut bytes = guest("hello-split");
        let from = b"@0.1.0";
        let mut renamed = 0;
        for start in 0..bytes.len() - from.len() {
            let is_ours =
                bytes[..start].ends_with(b"switchback:policy/split") || bytes[..start].ends_with(b"switchback:policy/split-types");
            let is_log = bytes[..start].ends_with(b"switchback:policy/log");
            if (is_ours || is_log) && bytes[start..].starts_with(from) {
                bytes[start..start + from.len()].copy_from_slice(version.as_bytes());
                renamed += 1;
            }
        }
        assert!(renamed > 0);
        bytes
    };
    let host = Host::open("");
    host.want("mine", None);
    host.install("mine", &made_for("@0.1.7"));
    host.eventually_in_force(&made_for("@0.1.7")).await;
    host.install("mine", &made_for("@0.2.0"));
    let status = host.eventually("refused", |status| status.state == PolicyState::Refused).await;
    assert!(status.why.contains("made for switchback:policy/split@0.2.0"), "{}", status.why);
}

#[test]
fn a_policy_in_force_is_shared_by_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<SplitInForce>();
    is_shared::<Policies>();
}

/// The documentation shows the example as it is built and tested.
#[test]
fn the_documented_policy_is_the_one_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = fs::read_to_string(root.join("plugins/examples/hello-split/src/lib.rs")).unwrap();
    let page = fs::read_to_string(root.join("docs/POLICIES.md")).unwrap();
    let code = source.split_once("\n\n").unwrap().1;
    assert!(page.contains(code), "docs/POLICIES.md does not show plugins/examples/hello-split/src/lib.rs");
}
