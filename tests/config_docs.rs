//! The pages that describe the config say what the program does: every key, its default, and an example that is good.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use switchback_tests::binary;

/// A config that says as little as it can, and has every section.
const GOOD: &str = r#"[listen]
traffic = "127.0.0.1:0"
admin = "127.0.0.1:0"

[state]
data_dir = "/var/lib/switchback"

[registry]

[[notify]]
name = "ops"
url = "https://hooks.example.com/switchback"

[mlflow]
url = "http://mlflow.example.com:5000"
secret_file = "mlflow.secret"

[[route]]
name = "search"

[route.loading]
model = "search"

[route.mlflow]
model = "search"
alias = "champion"

[route.signals]
results = "/total"

[[route.rollout.gate]]
name = "load"
type = "rollout"
url = "https://ci.example.com/gate"

[route.pools.blue]
endpoints = ["http://127.0.0.1:9001"]
"#;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

#[test]
fn the_example_in_the_docs_is_a_good_config() {
    let output = Command::new(binary()).args(["config", "check"]).arg(docs("switchback.example.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Keys with their defaults, as docs/CONFIG.md has them: rows `| `key` | default | ...` under `## `[section]``.
fn documented() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(docs("CONFIG.md")).unwrap();
    let mut section = String::new();
    let mut keys = BTreeMap::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.trim_end_matches('`').trim_matches(['[', ']']).to_owned();
        } else if let Some(row) = line.strip_prefix("| `")
            && let Some((key, rest)) = row.split_once("` | ")
        {
            keys.insert(format!("{section}.{key}"), rest.split(" | ").next().unwrap().trim_matches('`').to_owned());
        }
    }
    keys
}

/// The structs of `written.rs`, and the section that each is.
const SECTIONS: [(&str, &str); 30] = [
    ("Listen", "listen"),
    ("Tls", "tls"),
    ("Certificate", "tls.certificate"),
    ("Limits", "limits"),
    ("Override", "override"),
    ("Events", "events"),
    ("Token", "token"),
    ("Evidence", "evidence"),
    ("Lifecycle", "lifecycle"),
    ("State", "state"),
    ("Registry", "registry"),
    ("S3", "registry.s3"),
    ("Policies", "policies"),
    ("AdminToken", "admin.token"),
    ("Notify", "notify"),
    ("Mlflow", "mlflow"),
    ("Route", "route"),
    ("Breaker", "route.breaker"),
    ("Rollout", "route.rollout"),
    ("Validation", "route.validation"),
    ("Loading", "route.loading"),
    ("MlflowAlias", "route.mlflow"),
    ("Gate", "route.rollout.gate"),
    ("Signals", "route.signals"),
    ("Match", "route.match"),
    ("Timeouts", "route.timeouts"),
    ("Pool", "route.pools.NAME"),
    ("PoolTls", "route.pools.NAME.tls"),
    ("Health", "route.pools.NAME.health"),
    ("Outlier", "route.pools.NAME.outlier"),
];

/// Every key that the program knows, from the structs of `written.rs`.
fn known() -> BTreeSet<String> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../router/src/config/written.rs")).unwrap();
    let sections = BTreeMap::from(SECTIONS);
    let mut keys = BTreeSet::new();
    for item in syn::parse_file(&source).unwrap().items {
        let syn::Item::Struct(item) = item else { continue };
        let name = item.ident.to_string();
        // These hold only other sections.
        if matches!(name.as_str(), "Written" | "Admin") {
            continue;
        }
        let section = sections.get(name.as_str()).unwrap_or_else(|| panic!("{name} in written.rs is a section that nobody knows"));
        // A word of Rust has another name there.
        let written = |field: String| if name == "Gate" && field == "kind" { "type".to_owned() } else { field };
        let fields = item.fields.iter().map(|field| written(field.ident.as_ref().unwrap().to_string()));
        keys.extend(
            fields
                .filter(|field| !(name == "Pool" && field == "tls"))
                .filter(|field| {
                    !matches!(
                        field.as_str(),
                        "matches"
                            | "timeouts"
                            | "breaker"
                            | "rollout"
                            | "validation"
                            | "loading"
                            | "mlflow"
                            | "gate"
                            | "signals"
                            | "pools"
                            | "health"
                            | "outlier"
                            | "certificate"
                            | "s3"
                    )
                })
                .map(|field| format!("{section}.{field}")),
        );
    }
    keys
}

#[test]
fn every_key_is_in_the_docs_and_no_other() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(documented, known());
}

#[test]
fn the_defaults_in_the_docs_are_the_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchback.toml");
    std::fs::write(&file, GOOD).unwrap();
    let printed = Command::new(binary()).args(["config", "show", "--json"]).arg(file).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let general = |key: &str| {
        key.replace("route.search.", "route.")
            .replace(".blue.", ".NAME.")
            .replace("notify.ops.", "notify.")
            .replace(".gate.load.", ".gate.")
    };
    let defaults: BTreeMap<String, &str> =
        printed.as_object().unwrap().iter().map(|(key, value)| (general(key), value.as_str().unwrap())).collect();
    let set = [
        "listen.traffic",
        "listen.admin",
        "state.data_dir",
        "notify.name",
        "notify.url",
        "mlflow.url",
        "mlflow.secret_files",
        "route.name",
        "route.loading.model",
        "route.mlflow.model",
        "route.mlflow.alias",
        "route.signals.results",
        "route.rollout.gate.name",
        "route.rollout.gate.type",
        "route.rollout.gate.url",
        "route.pools.NAME.endpoints",
    ];
    let mut compared = 0;
    for (key, default) in documented() {
        if default == "none" || default.starts_with("**") || set.contains(&key.as_str()) {
            continue;
        }
        let shown = defaults.get(&key).unwrap_or_else(|| panic!("config show knows no {key}"));
        assert_eq!(shown, &default, "{key}: the program, then docs/CONFIG.md");
        compared += 1;
    }
    assert!(compared > 30, "only {compared} defaults were compared");
}

#[test]
fn a_router_that_was_given_no_name_shows_the_one_that_it_gives_itself() {
    let shown = Command::new(binary()).args(["config", "show", "--json"]).arg(docs("switchback.example.toml")).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let port = shown["listen.traffic"].as_str().unwrap().trim_matches('"').rsplit(':').next().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(shown["state.router_id"], format!("{:?}", format!("{}:{port}", host.trim())));
}
