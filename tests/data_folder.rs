//! The data folder has one owner, and a log that nobody reads holds nothing up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Setup, eventually, http};

#[test]
fn a_second_router_on_the_same_folder_is_told_who_has_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let (blue, folder) = (Backend::start("blue"), tempfile::tempdir().unwrap());
    let here = || Setup::default().pool("blue", &[&blue]).data_dir(folder.path());
    let mut first = here().redis(&redis.url()).start();
    for second in [here(), here().redis(&redis.url())] {
        let (code, said) = second.fails();
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(&format!("another router (pid {}) uses this data folder", first.pid())), "{said}");
    }
    assert_eq!(http::get(first.traffic, "/").unwrap(), (200, "blue".to_owned()));
    first.kill();
    assert_eq!(http::get(here().start().traffic, "/").unwrap().0, 200, "a router that was killed leaves no lock behind");
}

#[test]
fn a_folder_that_cannot_be_used_is_named_with_its_place_in_the_config() {
    let (blue, folder) = (Backend::start("blue"), tempfile::tempdir().unwrap());
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let (code, said) = Setup::default().pool("blue", &[&blue]).data_dir(&file.join("data")).fails();
    assert_eq!(code, 64, "{said}");
    let expected = format!("switchback.toml:6: state.data_dir = {:?}: ", file.join("data").display().to_string());
    assert!(said.contains(&expected), "{said} lacks {expected}");
    assert!(said.contains("must be one, or a path where one can be made"), "{said}");
}

/// The thread that writes is stuck in the full pipe, and lines wait up to a limit; no worker waits.
#[test]
fn log_lines_that_nobody_reads_are_dropped_and_counted_and_queries_go_on() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).deaf_log().env("RUST_LOG", "trace").start();
    let load = Load::new(router.traffic, 500).start();
    let dropped = || router.metric("switchback_log_lines_dropped_total", &[]);
    eventually("lines are dropped", Duration::from_secs(60), || (dropped() > 0.0).then_some(()));
    load.wait_for(load.sent() + 200);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    let quiet = Setup::default().pool("blue", &[&blue]).start();
    assert_eq!(quiet.metric("switchback_log_lines_dropped_total", &[]), 0.0);
    assert!(http::get(quiet.admin, "/metrics").unwrap().1.contains("switchback_log_lines_dropped_total 0\n"));
}

/// More than twice what a pipe holds.
#[test]
fn a_log_that_nobody_reads_holds_up_no_query_and_no_change() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).deaf_log().start();
    let why = "x".repeat(1_000);
    for number in 0..150 {
        router.set_flags(&[&format!("flag.number={number}"), "--why", &why]);
    }
    assert_eq!(http::get(router.traffic, "/").unwrap(), (200, "blue".to_owned()));
    assert_eq!(router.route()["flags"]["number"], "149");
}

/// As with a disk that is full: the file that a change is written to first cannot be.
#[test]
fn a_store_that_cannot_write_is_away_and_nothing_has_changed() {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = Setup::default().pool("blue", &[&blue]).pool("green", &[&green]).start();
    router.set_flags(&["flag.number=1"]);
    let ledger = router.data_dir.join("flags/search.ledger.jsonl");
    let aside = router.data_dir.join("flags/aside");
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let (code, _, error) = router.run(&["flag", "set", "search", "flag.number=2"]);
    assert!(code == 69 && error.contains("the flag store cannot write: the ledger cannot be written: "), "{code}: {error}");
    let (status, answer) = router.admin("PATCH", "/api/v1/routes/search/flags", br#"{"set": {"flag.number": "2"}}"#);
    assert_eq!(status, 503, "{answer}");
    assert_eq!(router.route()["flags"]["number"], "1");
    std::fs::remove_dir(&ledger).unwrap();
    std::fs::rename(&aside, &ledger).unwrap();
    router.set_flags(&["flag.number=2"]);
    assert_eq!(router.route()["flags"]["number"], "2");
}
