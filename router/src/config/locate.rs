//! Where a key stands in the file: for the line number and the value in an error.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Finds keys in the text of a config.
pub(super) struct Locator<'a> {
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Locator<'a> {
    pub(super) fn new(text: &'a str) -> Locator<'a> {
        // What does not parse is left out of the table; its error has a position of its own.
        Locator { text, table: DeTable::parse_recoverable(text).0 }
    }

    /// The line (from 1) of a dotted key such as `route.search.pools.blue.version` or `admin.token[0].role`, or of the
    /// deepest section on the way to it; `None` when not even its first part is there.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        Some(self.line_at(self.walk(key).0?.start))
    }

    /// The value of a key as it is written, when all of the key is there.
    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        let (span, is_whole) = self.walk(key);
        self.text.get(span?).filter(|_| is_whole)
    }

    /// `route[0].pools` becomes `route.search.pools`, as the checker names it; `[[notify]]` likewise.
    pub(super) fn by_name(&self, key: &str) -> String {
        let Some((section, rest)) = key.split_once('[').filter(|(section, _)| ["route", "notify"].contains(section)) else {
            return key.to_owned();
        };
        let Some((index, rest)) = rest.split_once("].") else { return key.to_owned() };
        let tables = self.table.get_ref().get(section).and_then(|tables| tables.get_ref().as_array());
        let table = index.parse().ok().and_then(|index: usize| tables?.get(index));
        match table.and_then(|table| table.get_ref().get("name")).and_then(|name| name.get_ref().as_str()) {
            Some(name) => format!("{section}.{name}.{rest}"),
            None => key.to_owned(),
        }
    }

    /// The line of a byte.
    pub(super) fn line_at(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(self.text).matches('\n').count() + 1
    }

    /// The span of the deepest value found, and whether that is the key itself.
    fn walk(&self, key: &str) -> (Option<Range<usize>>, bool) {
        let (first, mut rest) = split_part(key);
        let Some(mut value) = self.table.get_ref().get(first) else { return (None, false) };
        while let Some((part, after)) = rest.map(split_part) {
            let Some(inner) = step(value.get_ref(), part) else { return (Some(value.span()), false) };
            (value, rest) = (inner, after);
        }
        (Some(value.span()), true)
    }
}

/// The first part of a dotted key: up to a dot or a bracket. A bracket stays with the part that follows it.
fn split_part(key: &str) -> (&str, Option<&str>) {
    match key.char_indices().skip(1).find(|(_, letter)| matches!(letter, '.' | '[')) {
        Some((at, '.')) => (key.get(..at).unwrap_or(key), key.get(at + 1..)),
        Some((at, _)) => (key.get(..at).unwrap_or(key), key.get(at..)),
        None => (key, None),
    }
}

/// Into a table by key, into an array by `[index]` or by the `name` of its tables.
fn step<'v, 'a>(value: &'v DeValue<'a>, part: &str) -> Option<&'v Spanned<DeValue<'a>>> {
    let Some(array) = value.as_array() else { return value.as_table()?.get(part) };
    if let Some(index) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
        return array.get(index.parse::<usize>().ok()?);
    }
    let is_named = |value: &&Spanned<DeValue<'a>>| value.get_ref().get("name").is_some_and(|name| name.get_ref().as_str() == Some(part));
    array.iter().find(is_named)
}
