//! The tree keeps the shape that docs/ARCHITECTURE.md describes: sizes, module docs, who may import whom, names, words, links.
//!
//! Nothing here runs the router: the files are read and parsed. Each rule is a function from files to findings, so that every
//! rule is also shown to find what it is there to find.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tidy/edges.rs"]
mod edges;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;

use tree::{Tree, file};

/// Fails with every finding, one a line.
fn assert_tidy(findings: &[String]) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn files_and_functions_fit_on_their_screens() {
    assert_tidy(&rust::sizes(&Tree::of_repository()));
}

#[test]
fn every_module_says_what_it_is() {
    assert_tidy(&rust::module_docs(&Tree::of_repository()));
}

#[test]
fn names_say_what_a_thing_is() {
    assert_tidy(&rust::banned_names(&Tree::of_repository()));
}

#[test]
fn modules_import_only_whom_they_may() {
    assert_tidy(&edges::imports(&Tree::of_repository()));
}

#[test]
fn pure_modules_know_no_clock_and_no_io() {
    assert_tidy(&edges::purity(&Tree::of_repository()));
}

#[test]
fn the_architecture_page_has_the_same_edges() {
    assert_tidy(&edges::documented(&Tree::of_repository()));
}

#[test]
fn nothing_reads_like_unfinished_work_or_names_a_machine() {
    assert_tidy(&words::unwanted(&Tree::of_repository()));
}

#[test]
fn every_link_in_the_docs_resolves() {
    assert_tidy(&links::broken(&Tree::of_repository()));
}

#[test]
fn every_test_file_runs() {
    assert_tidy(&rust::unlisted_tests(&Tree::of_repository()));
}

#[test]
fn tests_are_never_skipped_and_never_wait_by_the_clock() {
    assert_tidy(&rust::weak_tests(&Tree::of_repository()));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    assert_tidy(&words::crates_without_lints(&Tree::of_repository()));
}

/// That `rule` finds something in `bad` and nothing in `good`; the first finding must contain `names`.
fn assert_finds(rule: fn(&Tree) -> Vec<String>, bad: Tree, good: Tree, names: &str) {
    let found = rule(&bad);
    assert!(found.first().is_some_and(|finding| finding.contains(names)), "expected a finding with {names:?}, got {found:?}");
    assert_tidy(&rule(&good));
}

#[test]
fn the_size_rule_finds_long_files_and_long_functions() {
    let long_file = "//! Doc.\n".repeat(501);
    assert_finds(rust::sizes, file("router/src/a.rs", &long_file), file("router/src/a.rs", "//! Doc.\n"), "501 lines");
    let function = |lines: usize| format!("//! Doc.\nimpl A {{ fn long() {{\n{}}} }}\n", "    f();\n".repeat(lines));
    assert_finds(rust::sizes, file("router/src/a.rs", &function(69)), file("router/src/a.rs", &function(68)), "fn long");
}

#[test]
fn the_module_docs_rule_finds_a_bare_file() {
    let good = file("router/src/a.rs", "//! What it is.\nfn a() {}\n");
    assert_finds(rust::module_docs, file("router/src/a.rs", "fn a() {}\n"), good, "router/src/a.rs");
}

#[test]
fn the_name_rule_finds_vague_names() {
    let good = file("router/src/pool.rs", "struct Pool;");
    assert_finds(rust::banned_names, file("router/src/pool.rs", "struct PoolManager;"), good, "PoolManager");
    let good = file("router/src/pool.rs", "fn unhelpful() {}");
    assert_finds(rust::banned_names, file("router/src/pool.rs", "fn pool_helper() {}"), good, "pool_helper");
    assert_finds(rust::banned_names, file("router/src/utils.rs", ""), file("router/src/pool.rs", ""), "utils");
}

#[test]
fn the_import_rule_finds_every_way_to_write_an_import() {
    let serve = |text: &str| file("router/src/serve/upstream.rs", text);
    let good = "use crate::flags::Flags; use crate::quality::{Quality, Count}; use std::time::Duration;";
    for bad in [
        "use crate::release::Rollout;",
        "use crate::{flags::Flags, release};",
        "fn f() { crate::release::step(); }",
        "use super::super::release::step;",
        "use wasmtime::Engine;",
        "fn f(engine: &wasmtime::Engine) {}",
    ] {
        let names = if bad.contains("wasmtime") { "wasmtime" } else { "release" };
        assert_finds(edges::imports, serve(bad), serve(good), names);
    }
    let release = |text: &str| file("router/src/release/mod.rs", text);
    assert_finds(edges::imports, release("use crate::serve::PoolsView;"), release("use crate::flags::Flags;"), "serve");
    let unknown = file("router/src/newcomer/mod.rs", "");
    assert_finds(edges::imports, unknown, file("router/src/serve/mod.rs", ""), "newcomer");
}

#[test]
fn the_purity_rule_finds_clocks_and_io() {
    let pure = |text: &str| file("router/src/flags/snapshot.rs", text);
    let good = "use std::time::Duration; use std::collections::BTreeMap;";
    for bad in ["use std::time::Instant;", "use std::{fs, fmt};", "fn f() { std::env::var(\"A\"); }", "use tokio::sync::watch;"] {
        assert_finds(edges::purity_of, pure(bad), pure(good), "snapshot.rs");
    }
    assert!(edges::purity(&file("router/src/lib.rs", "")).iter().any(|finding| finding.contains("is gone")));
}

#[test]
fn the_architecture_rule_finds_a_table_that_differs() {
    let page = edges::table();
    let stale = page.replace("| `vocabulary` |", "| `words` |");
    assert_finds(edges::documented, file("docs/ARCHITECTURE.md", &stale), file("docs/ARCHITECTURE.md", &page), "vocabulary");
}

#[test]
fn the_word_rule_finds_leftovers_and_machine_paths() {
    let leftover = format!("// {}: later\n", concat!("TO", "DO"));
    assert_finds(words::unwanted, file("router/src/a.rs", &leftover), file("router/src/a.rs", "// Todos are people.\n"), "a.rs:1");
    let path = format!("see {}x/y\n", concat!("/ro", "ot/"));
    assert_finds(words::unwanted, file("docs/A.md", &path), file("docs/A.md", "see router/src\n"), "docs/A.md:1");
}

#[test]
fn the_link_rule_finds_missing_files_and_headings() {
    let page = |link: &str| file("docs/A.md", &format!("# A page, or two\n\nSee [it]({link}).\n"));
    for bad in ["B.md", "../router/b.rs", "#a-page", "A.md#nothing"] {
        assert_finds(links::broken, page(bad), page("A.md#a-page-or-two"), bad);
    }
}

#[test]
fn the_test_rules_find_forgotten_skipped_and_sleeping_tests() {
    let listed = |text: &str| {
        let mut tree = file("tests/flip.rs", text);
        tree.add("tests/Cargo.toml", "[[test]]\nname = \"flip\"\npath = \"flip.rs\"\n");
        tree
    };
    assert_finds(rust::unlisted_tests, file("tests/flip.rs", ""), listed(""), "tests/flip.rs");
    assert_finds(rust::weak_tests, listed("#[test]\n#[ignore]\nfn a() {}"), listed("#[test]\nfn a() {}"), "ignore");
    assert_finds(rust::weak_tests, listed("fn a() { std::thread::sleep(d); }"), listed("fn sleepless() {}"), "sleep");
}

#[test]
fn the_lints_rule_finds_a_crate_of_its_own_mind() {
    let good = file("plugins/a/Cargo.toml", "[package]\nname = \"a\"\n[lints]\nworkspace = true\n");
    assert_finds(words::crates_without_lints, file("plugins/a/Cargo.toml", "[package]\nname = \"a\"\n"), good, "plugins/a/Cargo.toml");
}
