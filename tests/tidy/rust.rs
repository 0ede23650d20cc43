//! Rules about Rust files: size, docs, names, and the tests' own files.

use syn::spanned::Spanned;
use syn::visit::Visit;

use super::tree::Tree;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
/// Each says that nobody knew what the thing was.
const BANNED: [&str; 7] = ["manager", "service", "helper", "helpers", "util", "utils", "common"];

pub(crate) fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}:{}: {error}", error.span().start().line))
}

/// Files over 500 lines, functions over 70.
pub(crate) fn sizes(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            findings.push(format!("{path}: {lines} lines; at most {FILE_LINES}: it is two ideas"));
        }
        for (name, start, end) in functions(&parse(path, text)) {
            let lines = end - start + 1;
            if lines > FUNCTION_LINES {
                findings.push(format!("{path}:{start}: fn {name} has {lines} lines; at most {FUNCTION_LINES}"));
            }
        }
    }
    findings
}

/// Files that do not begin with `//!`.
pub(crate) fn module_docs(tree: &Tree) -> Vec<String> {
    let has_docs = |file: &syn::File| {
        file.attrs.iter().any(|attribute| matches!(attribute.style, syn::AttrStyle::Inner(_)) && attribute.path().is_ident("doc"))
    };
    tree.ending(".rs")
        .filter(|(path, text)| !has_docs(&parse(path, text)))
        .map(|(path, _)| format!("{path}: no //! that says what the module does"))
        .collect()
}

/// Things and files with a name that says nothing.
pub(crate) fn banned_names(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        for part in path.trim_end_matches(".rs").split('/') {
            findings.extend(banned_word(part).map(|word| format!("{path}: a file or folder called {part}: {word} says nothing")));
        }
        for (name, line) in defined_names(&parse(path, text)) {
            findings.extend(banned_word(&name).map(|word| format!("{path}:{line}: {name}: {word} says nothing")));
        }
    }
    findings
}

/// Files beside `tests/Cargo.toml` that are not among its `[[test]]` sections, and so would never run.
pub(crate) fn unlisted_tests(tree: &Tree) -> Vec<String> {
    let manifest = tree.text("tests/Cargo.toml").unwrap_or_default();
    let is_listed = |file: &str| manifest.lines().any(|line| line.trim() == format!("path = \"{file}\""));
    test_files(tree)
        .filter(|(path, _)| *path != "tests/build.rs" && !is_listed(path.trim_start_matches("tests/")))
        .map(|(path, _)| format!("{path}: no [[test]] with this path in tests/Cargo.toml, so it never runs"))
        .collect()
}

/// Tests that are skipped, and tests that wait by the clock instead of for the effect.
pub(crate) fn weak_tests(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in test_files(tree).filter(|(path, _)| *path != "tests/tidy.rs") {
        for (index, line) in text.lines().enumerate() {
            let weak = ["#[ignore", "thread::sleep", "time::sleep("].into_iter().find(|word| line.contains(word));
            findings.extend(weak.map(|word| format!("{path}:{}: {word}", index + 1)));
        }
    }
    findings
}

fn test_files(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.ending(".rs").filter(|(path, _)| path.strip_prefix("tests/").is_some_and(|rest| !rest.contains('/')))
}

fn banned_word(name: &str) -> Option<&'static str> {
    let words = words_of(name);
    BANNED.into_iter().find(|banned| words.iter().any(|word| word == banned))
}

/// `PoolManager`, `pool_manager` and `pool-manager` are the words pool and manager.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter.is_uppercase() || matches!(letter, '_' | '-' | '.') {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

#[derive(Default)]
struct Functions {
    found: Vec<(String, usize, usize)>,
}

fn functions(file: &syn::File) -> Vec<(String, usize, usize)> {
    let mut functions = Functions::default();
    functions.visit_file(file);
    functions.found
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (start, end) = (signature.span().start().line, block.span().end().line);
        self.found.push((signature.ident.to_string(), start, end));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

#[derive(Default)]
struct Names {
    found: Vec<(String, usize)>,
}

fn defined_names(file: &syn::File) -> Vec<(String, usize)> {
    let mut names = Names::default();
    names.visit_file(file);
    names.found
}

impl Names {
    fn add(&mut self, ident: &syn::Ident) {
        self.found.push((ident.to_string(), ident.span().start().line));
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Struct(item) => self.add(&item.ident),
            syn::Item::Enum(item) => self.add(&item.ident),
            syn::Item::Trait(item) => self.add(&item.ident),
            syn::Item::Type(item) => self.add(&item.ident),
            syn::Item::Mod(item) => self.add(&item.ident),
            syn::Item::Const(item) => self.add(&item.ident),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.add(&signature.ident);
        syn::visit::visit_signature(self, signature);
    }
}
