//! The promise: the benchmark's report says no more than was measured, and the gate lets nothing through. Their own tests know figures that were made up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::process::Command;

use switchback_tests::python;
use switchback_tests::registry::said;

/// Runs the tests of a script of the benchmark.
fn passes(tests: &str) {
    let mut command = Command::new(python());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench");
    command.args(["-m", "unittest", tests]).current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, out, error) = said(&command.output().unwrap());
    assert!(code == 0 && error.contains("OK"), "{code}: {out}{error}");
}

#[test]
fn a_report_says_no_more_than_was_measured() {
    passes("test_report");
}

#[test]
fn the_gate_lets_nothing_through() {
    passes("test_instructions");
}
