//! Rules about words: leftovers of unfinished work, paths of somebody's machine, crates without the lints.

use super::tree::Tree;

/// Taken apart, so that this list does not find itself.
const WORDS: [&str; 5] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK"), concat!("st", "ub")];
const PHRASES: [&str; 8] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("not imple", "mented"),
    concat!("not yet imple", "mented"),
    concat!("place", "holder"),
    concat!("for ", "now,"),
    concat!("for ", "now."),
    concat!("in a real ", "system"),
];
const MACHINE_PATHS: [&str; 4] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ho", "me/")];

/// Lines with any of these words.
pub(crate) fn unwanted(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| *path != "LICENSE") {
        for (index, line) in text.lines().enumerate() {
            let word = WORDS.into_iter().find(|word| has_word(line, word));
            let phrase = PHRASES.into_iter().find(|phrase| line.contains(phrase));
            let machine = MACHINE_PATHS.into_iter().find(|start| has_path(line, start));
            findings.extend(word.or(phrase).or(machine).map(|found| format!("{path}:{}: {found:?}", index + 1)));
        }
    }
    findings
}

/// `Cargo.toml` files of crates without `[lints] workspace = true`.
pub(crate) fn crates_without_lints(tree: &Tree) -> Vec<String> {
    let has_lints = |text: &str| text.replace("\r\n", "\n").contains("[lints]\nworkspace = true");
    tree.ending("Cargo.toml")
        .filter(|(_, text)| text.contains("[package]") && !has_lints(text))
        .map(|(path, _)| format!("{path}: no [lints] workspace = true"))
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|found| found == word)
}

/// An absolute path: not a part of a longer one, nor of a URL.
fn has_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || ".}_-".contains(before)))
}
