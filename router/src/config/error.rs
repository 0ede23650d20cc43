//! What is wrong with a config: file, line, key, value, and what is allowed.

use std::fmt;
use std::path::Path;

use super::locate::Locator;

/// The longest value that an error repeats, in characters.
const SHOWN_CHARACTERS: usize = 120;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Dotted path of the key, for example `route.search.pools.blue.endpoints`.
    pub(super) key: String,
    /// The value as written; empty when the key is missing.
    pub(super) value: String,
    /// What is allowed there.
    pub(super) allowed: String,
}

/// A config that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, source: &std::io::Error) -> ConfigError {
        ConfigError { lines: vec![format!("{}: cannot be read: {source}", path.display())] }
    }

    /// Text that is no TOML. The reader's own message says what it expected.
    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        let line_number = Locator::new(text).line_at(start);
        let source_line = cut(text.lines().nth(line_number - 1).unwrap_or("").trim());
        ConfigError { lines: vec![format!("{file}:{line_number}: `{source_line}`: {}", error.message().replace('\n', " "))] }
    }

    /// TOML with an unknown key, or a value of the wrong type.
    pub(super) fn shape(file: &str, text: &str, error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
        let locator = Locator::new(text);
        let path = error.path().to_string();
        let key = locator.by_name(&path);
        let span = error.inner().span();
        let line = span.map(|span| locator.line_at(span.start)).or_else(|| locator.line(&path));
        let value = locator.value(&path).map_or_else(String::new, |value| format!(" = {}", cut(value.trim())));
        let message = in_plain_words(error.inner().message());
        ConfigError { lines: vec![format!("{file}:{}: {key}{value}: {message}", line.unwrap_or(1))] }
    }

    /// What the checker refused.
    pub(super) fn new(file: &str, text: &str, problems: Vec<Problem>) -> ConfigError {
        let locator = Locator::new(text);
        let show = |Problem { key, value, allowed }| {
            let line = locator.line(&key).map_or_else(String::new, |line| format!(":{line}"));
            let shown = if value.is_empty() { " is missing".to_owned() } else { format!(" = {}", cut(&value)) };
            format!("{file}{line}: {key}{shown}: {allowed}")
        };
        ConfigError { lines: problems.into_iter().map(show).collect() }
    }

    /// One line for each problem.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// serde speaks of Rust's types; an operator thinks in TOML's.
fn in_plain_words(message: &str) -> String {
    let words = [
        ("unknown field", "unknown key"),
        ("expected u64", "expected a whole number from 0"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
        ("expected struct ", "expected a table: "),
        ("there are no fields", "nothing is allowed here"),
        ("\n", " "),
    ];
    words.iter().fold(message.to_owned(), |message, (from, to)| message.replace(from, to))
}

fn cut(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < value.len() {
        shown.push_str("...");
    }
    shown.replace('\n', " ")
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}
