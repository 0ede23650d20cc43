//! Who may import whom inside the router, which crates only one module may touch, and which modules are pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use syn::visit::Visit;

use super::rust::parse;
use super::tree::Tree;

/// Each module of the router, what it may import of the others, and why it stands there. docs/ARCHITECTURE.md has this table.
const MODULES: [(&str, &[&str], &str); 24] = [
    ("vocabulary", &["config"], "the nouns of both paths (`config` in links only)"),
    ("config", &["vocabulary"], "written form to checked form"),
    ("tls", &["config"], "certificates, read again when their files change"),
    ("flags", &["config", "vocabulary"], "what the data path obeys; one writer path, many readers"),
    ("quality", &["config", "vocabulary"], "what became of the queries"),
    ("policy", &["allocator", "config", "flags", "vocabulary"], "the WebAssembly host"),
    ("serve", &["allocator", "config", "flags", "policy", "quality", "tls", "vocabulary"], "the data path"),
    (
        "release",
        &["config", "flags", "loading", "notify", "policy", "quality", "vocabulary"],
        "the control path: what is known of a candidate, what moves it on, and what takes it out of traffic",
    ),
    ("registry", &["config", "vocabulary"], "versions of models, in a folder or a bucket"),
    ("loading", &["config", "registry", "tls", "validation"], "brings a version of a model onto the servers of a pool"),
    ("mlflow", &["config", "registry", "vocabulary"], "models from MLflow's registry, and its webhooks"),
    ("notify", &["config", "tls"], "tells others what happens to rollouts; a POST to somebody else's server"),
    ("simulate", &["policy"], "rollback policies against rollouts that never happened"),
    ("ranker", &["config", "onnx", "registry", "vocabulary"], "the ONNX ranking server"),
    ("onnx", &[], "ONNX Runtime, and models that it runs"),
    ("validation", &["config", "onnx", "registry", "vocabulary"], "whether a model may be shown to users"),
    ("admin", &["config", "flags", "loading", "mlflow", "policy", "quality", "release", "serve", "tls", "vocabulary"], "API and metrics"),
    (
        "lifecycle",
        &["admin", "config", "flags", "footprint", "mlflow", "notify", "policy", "quality", "release", "serve", "tls", "vocabulary"],
        "start, reload, hand-over, drain: who owns the router's parts",
    ),
    ("demo", &["admin", "cli", "config", "flags", "policy", "quality", "ranker", "serve", "vocabulary"], "the whole system on one machine"),
    (
        "cli",
        &[
            "admin",
            "allocator",
            "config",
            "demo",
            "flags",
            "lifecycle",
            "mlflow",
            "notify",
            "onnx",
            "policy",
            "quality",
            "ranker",
            "registry",
            "serve",
            "simulate",
            "tls",
            "validation",
            "vocabulary",
        ],
        "one file per command",
    ),
    ("lib", &[], "the chart"),
    ("main", &["allocator", "cli"], "parse the command line, call the library"),
    ("allocator", &[], "mimalloc, by its short way; gives memory back after large work"),
    ("footprint", &["allocator"], "memory that only the start needed"),
];

/// Crates that are the business of one module, and of whoever else is named.
const CRATES: [(&str, &[&str]); 5] = [
    ("wasmtime", &["policy"]),
    ("ort", &["onnx"]),
    ("redis", &["flags", "config"]),
    ("object_store", &["registry"]),
    ("serde_saphyr", &["mlflow"]),
];

/// Modules where `now` is a parameter and nothing is read or sent.
const PURE: [&str; 4] =
    ["router/src/vocabulary.rs", "router/src/config/units.rs", "router/src/flags/snapshot.rs", "plugins/sdk/src/split.rs"];
const IMPURE: [&str; 17] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "hyper",
    "redis",
    "rand",
    "getrandom",
    "tracing",
    "notify",
    "socket2",
    "reqwest",
];

/// Imports that the tables above do not allow.
pub(crate) fn imports(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let Some(module) = module_of(path) else { continue };
        let Some((_, allowed, _)) = MODULES.iter().find(|(name, ..)| *name == module) else {
            findings.push(format!("{path}: the module {module} is not in the table of tests/tidy/edges.rs and docs/ARCHITECTURE.md"));
            continue;
        };
        for import in imported(path, text) {
            let (first, rest) = import.split_once("::").unwrap_or((&import, ""));
            let second = rest.split("::").next().unwrap_or("");
            let is_module = MODULES.iter().any(|(name, ..)| *name == second);
            if matches!(first, "crate" | "switchback") && is_module && second != module && !allowed.contains(&second) {
                findings.push(format!("{path}: {module} must not import {second} ({import})"));
            }
            let owners = CRATES.iter().find(|(name, _)| *name == first).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&module)) {
                findings.push(format!("{path}: only {} may import {first} ({import})", owners.unwrap_or_default().join(", ")));
            }
        }
    }
    findings
}

/// Clocks and I/O in the pure modules, and pure modules that were moved without telling this list.
pub(crate) fn purity(tree: &Tree) -> Vec<String> {
    let gone = PURE.iter().filter(|path| tree.text(path).is_none()).map(|path| format!("{path} is gone: say here where it went"));
    gone.chain(purity_of(tree)).collect()
}

/// As [`purity`], for the files that are there.
pub(crate) fn purity_of(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| PURE.contains(path)) {
        for import in imported(path, text) {
            let is_impure = |banned: &str| import == banned || import.starts_with(&format!("{banned}::"));
            if let Some(banned) = IMPURE.into_iter().find(|banned| is_impure(banned)) {
                findings.push(format!("{path}: a pure module must not use {banned} ({import})"));
            }
        }
    }
    findings
}

/// The table as docs/ARCHITECTURE.md has it.
pub(crate) fn table() -> String {
    let mut table = "| module | may import | what it is |\n|---|---|---|\n".to_owned();
    for (name, allowed, what) in MODULES {
        let allowed: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        writeln!(table, "| `{name}` | {} | {what} |", allowed.join(", ")).unwrap();
    }
    table
}

/// Rows of the table that the page lacks.
pub(crate) fn documented(tree: &Tree) -> Vec<String> {
    let page = tree.text("docs/ARCHITECTURE.md").unwrap_or_default();
    let lines: BTreeSet<&str> = page.lines().collect();
    let table = table();
    table.lines().filter(|line| !lines.contains(line)).map(|line| format!("docs/ARCHITECTURE.md lacks: {line}")).collect()
}

/// `router/src/serve/upstream.rs` belongs to `serve`.
fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("router/src/")?;
    Some(rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs"))
}

/// Every path that a file names, written out from the crate: `use` trees, expressions, types; `super` resolved.
fn imported(path: &str, text: &str) -> BTreeSet<String> {
    let mut paths = Paths::default();
    paths.visit_file(&parse(path, text));
    paths.found.into_iter().map(|found| from_crate(path, &found)).collect()
}

fn from_crate(path: &str, import: &str) -> String {
    let supers = import.split("::").take_while(|part| *part == "super").count();
    if supers == 0 {
        return import.to_owned();
    }
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let mut module: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    // `super` inside an inline `mod tests` may go one further up than the file; too far up is the crate itself.
    module.truncate(module.len().saturating_sub(supers));
    let rest = import.split("::").skip(supers);
    std::iter::once("crate").chain(module).chain(rest).collect::<Vec<_>>().join("::")
}

#[derive(Default)]
struct Paths {
    found: BTreeSet<String>,
}

impl Paths {
    fn add_tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: String| if prefix.is_empty() { name } else { format!("{prefix}::{name}") };
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&join(path.ident.to_string()), &path.tree),
            syn::UseTree::Name(name) => drop(self.found.insert(join(name.ident.to_string()))),
            syn::UseTree::Rename(name) => drop(self.found.insert(join(name.ident.to_string()))),
            syn::UseTree::Glob(_) => drop(self.found.insert(prefix.to_owned())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.insert(parts.join("::"));
        syn::visit::visit_path(self, path);
    }
}
