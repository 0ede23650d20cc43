//! What is wrong with a config: file, line, key, value, and what is allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::locate::Locator;
use super::misfit::is_secret;

/// The longest value that an error repeats, in characters.
const SHOWN_CHARACTERS: usize = 120;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Dotted path of the key, for example `route.search.pools.blue.endpoints`.
    pub(super) key: String,
    /// The value as written; empty for a table, `None` when the key is missing.
    pub(super) value: Option<String>,
    /// What is allowed there.
    pub(super) allowed: String,
}

/// A config that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

/// The reader's words, but where they are about its own types.
fn rule_of(message: &str) -> String {
    if message.contains("i128") || message.contains("u128") {
        return format!("a whole number is at most {}", i64::MAX);
    }
    message.replace('\n', " ")
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, source: &std::io::Error) -> ConfigError {
        ConfigError { lines: vec![format!("{}: cannot be read: {source}", path.display())] }
    }

    /// Text that is no TOML, a line for each place where it is not. The reader's own messages say what it expected.
    pub(super) fn syntax(file: &str, text: &str, errors: &[toml::de::Error]) -> ConfigError {
        let locator = Locator::new(text);
        let (mut lines, mut told) = (Vec::new(), BTreeSet::new());
        let mut errors: Vec<_> = errors.iter().map(|error| (locator.line_at(error.span().map_or(0, |span| span.start)), error)).collect();
        errors.sort_by_key(|(number, _)| *number);
        for (number, error) in errors {
            // What follows a mistake on its line mostly follows from it.
            if told.insert(number) {
                let line = text.lines().nth(number - 1).unwrap_or("").trim();
                let line = if is_secret(line) {
                    line.split_once('=').map_or("***".to_owned(), |(key, _)| format!("{key}= ***"))
                } else {
                    cut(line)
                };
                lines.push(format!("{file}:{number}: `{line}`: {}", rule_of(error.message())));
            }
        }
        ConfigError { lines }
    }

    /// What does not fit, and what the checker refused.
    pub(super) fn new(file: &str, text: &str, problems: Vec<Problem>) -> ConfigError {
        let locator = Locator::new(text);
        let show = |Problem { key, value, allowed }| {
            let line = locator.line(&key).map_or_else(String::new, |line| format!(":{line}"));
            let shown = match value.as_deref() {
                None => " is missing".to_owned(),
                Some("") => String::new(),
                Some(value) => format!(" = {}", cut(value)),
            };
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
