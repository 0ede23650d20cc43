//! The promise: the benchmark's report says no more than was measured. Its own tests know rounds that were made up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::process::Command;

use switchback_tests::python;
use switchback_tests::registry::said;

#[test]
fn a_report_says_no_more_than_was_measured() {
    let mut command = Command::new(python());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench");
    command.args(["-m", "unittest", "test_report"]).current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, out, error) = said(&command.output().unwrap());
    assert!(code == 0 && error.contains("OK"), "{code}: {out}{error}");
}
