//! The files that the rules look at: the repository's, or a few made up to prove a rule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Text files by their path from the root, with `/` between folders.
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

/// A tree of one file.
pub(crate) fn file(path: &str, text: &str) -> Tree {
    let mut tree = Tree { files: BTreeMap::new() };
    tree.add(path, text);
    tree
}

impl Tree {
    /// Every text file of this repository, without what is built and what is hidden.
    pub(crate) fn of_repository() -> Tree {
        let root = root();
        let mut tree = Tree { files: BTreeMap::new() };
        tree.walk(&root, &root);
        assert!(tree.text("router/src/lib.rs").is_some(), "{} is not the repository", root.display());
        tree
    }

    pub(crate) fn add(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Path and text of every file.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Path and text of every file that ends like this.
    pub(crate) fn ending(&self, end: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(end))
    }

    /// Whether this file or folder is there, on disk too: links may point at files that are not text.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }

    fn walk(&mut self, root: &Path, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if is_skipped(&name, &path) {
                continue;
            }
            if path.is_dir() {
                self.walk(root, &path);
                continue;
            }
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            // A file that is not text is there (for links), but has nothing to read.
            self.files.insert(relative, std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn is_skipped(name: &str, path: &Path) -> bool {
    let hidden = name.starts_with('.') && ![".ci", ".config"].contains(&name);
    let built = ["target", "node_modules", "__pycache__", "Cargo.lock"].contains(&name) || path.join("CACHEDIR.TAG").exists();
    hidden || built
}
