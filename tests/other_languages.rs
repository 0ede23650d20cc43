//! The promise: the interface is not for Rust only. A policy in C, with bindings from `wit/` and no C library, is admitted and decides
//! in a real router.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

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
