//! The rules of a `split_config`: what they look like, and whether a query meets them.

use std::fmt;

use switchback_policy::split::Field;

use super::locale;

/// One thing that is wrong with a `split_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, from `split_config` on: `rules.beta.pool`; a rule without a usable name is `rules[3]`.
    pub key: String,
    /// The value, as JSON; empty when it is missing.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { key, value, allowed } = self;
        let dot = if key.is_empty() { "" } else { "." };
        if value.is_empty() {
            return write!(out, "split_config{dot}{key} is missing: {allowed}");
        }
        write!(out, "split_config{dot}{key} = {value}: {allowed}")
    }
}

/// A checked `split_config`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
    /// Where a locale is looked for.
    pub(crate) locale: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) when: Vec<Condition>,
    pub(crate) pool: u32,
    pub(crate) flag: Option<Flag>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Subject {
    Field(Field),
    Locale,
}

/// What must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    OneOf(Vec<String>),
    Prefix(String),
    Present(bool),
}

impl Rule {
    /// Whether its flag, if it has one, is what it must be.
    pub(crate) fn is_on(&self, features: &[(String, String)]) -> bool {
        let Some(flag) = &self.flag else { return true };
        features.iter().any(|(name, value)| *name == flag.name && flag.values.contains(value))
    }
}

impl Test {
    /// Whether a field's value passes.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Test::OneOf(allowed), Some(value)) => allowed.iter().any(|allowed| allowed == value),
            (Test::Prefix(prefix), Some(value)) => value.starts_with(prefix.as_str()),
        }
    }

    /// The same for a language tag, which is within `de` when it is `de-AT`.
    pub(crate) fn holds_for_locale(&self, tag: Option<&str>) -> bool {
        match (self, tag) {
            (Test::OneOf(ranges), Some(tag)) => ranges.iter().any(|range| locale::is_within(tag, range)),
            _ => self.holds(tag),
        }
    }
}
