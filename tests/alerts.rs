//! The promise: the alert rules in docs/ fire when they should, and are about metrics that there are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use switchback_tests::{Backend, Setup, http};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs")
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool").args(arguments).current_dir(docs()).output().expect("promtool: make test installs it");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn each_rule_fires_when_it_should() {
    assert!(promtool(&["check", "rules", "alerts.yml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "alerts_test.yml"]).contains("SUCCESS"));
    let [rules, tests] = ["alerts.yml", "alerts_test.yml"].map(|file| std::fs::read_to_string(docs().join(file)).unwrap());
    let named = |text: &str, key: &str| -> BTreeSet<String> {
        let after =
            |line: &str| line.split(key).skip(1).map(|rest| rest.split([',', '\n', ' ']).next().unwrap().to_owned()).collect::<Vec<_>>();
        text.lines().flat_map(after).collect()
    };
    assert_eq!(named(&rules, "alert: "), named(&tests, "alertname: "), "each rule has an example");
}

#[test]
fn each_rule_is_about_a_metric_that_there_is() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    let (_, page) = http::get(router.admin, "/metrics").unwrap();
    let families: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rules = std::fs::read_to_string(docs().join("alerts.yml")).unwrap();
    let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("switchback_")).collect();
    assert!(metrics.len() > 5 && metrics.is_subset(&families), "{:?}", metrics.difference(&families));
}
