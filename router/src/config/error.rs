//! What is wrong with a config: file, line, key, value, and what is allowed.

use std::fmt;
use std::path::Path;

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

    /// What the TOML reader refused. Its own message names the key or the type; the line comes from its span.
    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line_number = before.matches('\n').count() + 1;
        let source_line = text.lines().nth(line_number - 1).unwrap_or("").trim();
        let message = error.message().replace('\n', " ");
        ConfigError { lines: vec![format!("{file}:{line_number}: `{source_line}`: {message}")] }
    }

    pub(super) fn new(file: &str, text: &str, problems: Vec<Problem>) -> ConfigError {
        let _ = text;
        let lines = problems
            .into_iter()
            .map(|Problem { key, value, allowed }| {
                if value.is_empty() {
                    format!("{file}: {key} is missing: {allowed}")
                } else {
                    format!("{file}: {key} = {value}: {allowed}")
                }
            })
            .collect();
        ConfigError { lines }
    }

    /// One line for each problem.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}
