//! The promise: a policy is made with the tools of its language. One in C, with bindings from `wit/` and no C library, is admitted and decides
//! in a real router; one in Rust is a project of its own that plain cargo builds, as docs/POLICIES.md says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use switchback_tests::{Backend, Load, Setup, eventually, guests, http};

#[test]
fn a_policy_in_c_decides_under_load() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let initial = "initial = { live = \"blue\", canary_percent = \"0.0001\" }";
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(initial).start();
    let bytes = guests::c_split();
    assert!(bytes.len() < 40_000, "no C library is in it: {} bytes", bytes.len());
    guests::install(&router.policies_dir(), "c-split", &bytes);
    router.set_flags(&["split_policy=c-split", "canary_percent=0.0001"]);
    eventually("in force", Duration::from_secs(20), || {
        (router.route()["policies"][0]["digest"] == guests::digest(&bytes).as_str()).then_some(())
    });
    let pool = |headers: &[(&str, &str)]| http::send(router.traffic, "GET", "/rank", headers, b"").unwrap().2;
    assert_eq!(pool(&[("accept-language", "en-GB,en;q=0.9")]), "canary");
    assert_eq!(pool(&[("accept-language", "de")]), "blue");
    assert_eq!(pool(&[]), "blue");
    let british = Load { headers: vec![("accept-language", "en-GB")], ..Load::new(router.traffic, 1_000) }.start();
    british.wait_for(5_000);
    let report = british.stop();
    assert_eq!((report.failures(), report.by_pool.get("canary")), (0, Some(&report.sent)), "{:?} {:?}", report.failed, report.by_pool);
    assert_eq!(router.route()["policies"][0]["in_force"]["strikes"], 0);
}

/// What docs/POLICIES.md has in its blocks of this language, in their order, from the chapter on.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let chapter = page.split_once("## Write a policy in 20 lines").unwrap().1;
    let fence = format!("```{language}\n");
    chapter.split(&fence).skip(1).map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

#[test]
fn the_policy_in_the_docs_is_built_by_plain_cargo_and_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/POLICIES.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sdk = root.join("plugins/sdk").display().to_string();
    let keys = blocks(&page, "toml")[0].replace("../switchback/plugins/sdk", &sdk);
    assert!(keys.contains(&sdk), "{keys}");
    std::fs::create_dir(folder.path().join("src")).unwrap();
    let package = "[package]\nname = \"hello-split\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
    std::fs::write(folder.path().join("Cargo.toml"), format!("{package}{keys}")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), &blocks(&page, "rust")[0]).unwrap();
    // The same versions as here, which are on this machine already.
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let target = folder.path().join("target");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--offline", "--target", "wasm32-wasip2"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", &target);
    // Those of the cargo that runs this test are not for another project.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plugin = target.join("wasm32-wasip2/release/hello_split.wasm");
    let judged = Command::new(switchback_tests::binary()).args(["policy", "check"]).arg(&plugin).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}
