//! Names of models and aliases, and how people refer to a version: `search`, `search@champion`, `search:12`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::vocabulary::{REGISTRY_NAME_RULE, is_registry_name, read_version};

/// What [`Name::check_as_alias`] allows, in words.
const ALIAS_RULE: &str =
    "an alias that nobody takes for a version: no number, like 12 or v12, and neither none nor latest; MODEL alone is the newest version";

/// Why a text is no name, or no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: must be {allowed}")]
pub struct NameError {
    /// What was said, cut to 80 characters.
    pub text: String,
    /// What may be.
    pub allowed: String,
}

impl NameError {
    fn new(text: &str, allowed: impl Into<String>) -> NameError {
        NameError { text: text.chars().take(80).collect(), allowed: allowed.into() }
    }
}

/// A model's, or an alias's, name: safe in paths, URLs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an alias may be called so: not as a version is called, or none (`ranker --serve`), or the newest one of MLflow's and Triton's.
    ///
    /// # Errors
    /// It would be taken for a version.
    pub fn check_as_alias(&self) -> Result<(), NameError> {
        let number = self.0.strip_prefix('v').unwrap_or(&self.0);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || matches!(self.as_str(), "latest" | "none") { Err(NameError::new(&self.0, ALIAS_RULE)) } else { Ok(()) }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        if is_registry_name(text) { Ok(Name(text.to_owned())) } else { Err(NameError::new(text, REGISTRY_NAME_RULE)) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Name, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Which version of a model is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest that was not removed.
    Newest,
    /// This one, from 1 on.
    Number(u64),
    /// Whichever the alias points to.
    Alias(Name),
}

/// A model, and one of its versions: `search`, `search:12`, `search@champion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The model.
    pub model: Name,
    /// The version.
    pub which: Which,
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Reference, NameError> {
        let wrong = || NameError::new(text, "MODEL, MODEL:NUMBER or MODEL@ALIAS, like search, search:12 or search@champion");
        let (model, which) = match text.split_once([':', '@']) {
            None => (text, Which::Newest),
            Some((model, number)) if text.as_bytes().get(model.len()) == Some(&b':') => {
                (model, Which::Number(read_version(number).ok_or_else(wrong)?))
            }
            Some((model, alias)) => (model, Which::Alias(alias.parse().map_err(|_| wrong())?)),
        };
        Ok(Reference { model: model.parse().map_err(|_| wrong())?, which })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Newest => write!(out, "{}", self.model),
            Which::Number(number) => write!(out, "{}:{number}", self.model),
            Which::Alias(alias) => write!(out, "{}@{alias}", self.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_read_as_people_write_them() {
        let which = |text: &str| text.parse::<Reference>().map(|reference| reference.which);
        assert_eq!(which("search"), Ok(Which::Newest));
        assert_eq!(which("search:12"), Ok(Which::Number(12)));
        assert_eq!(which("search@champion"), Ok(Which::Alias("champion".parse().unwrap())));
        for wrong in [
            "",
            ":1",
            "search:",
            "search:0",
            "search:007",
            "search:-1",
            "search:1:2",
            "search@",
            "search@a b",
            "a/b",
            "../x",
            "Search",
            ".x",
        ] {
            let error = which(wrong).unwrap_err();
            assert!(error.to_string().ends_with("like search, search:12 or search@champion"), "{error}");
        }
    }

    #[test]
    fn an_alias_is_not_taken_for_a_version() {
        let check = |text: &str| text.parse::<Name>().unwrap().check_as_alias();
        for good in ["champion", "v", "v12a", "12-better", "latest-good"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["12", "0", "v12", "latest", "none", "99999999999999999999"] {
            assert!(check(wrong).unwrap_err().to_string().contains("nobody takes for a version"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_name_stays_in_its_folder(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(!name.as_str().contains(['/', '\\']) && name.as_str() != "." && name.as_str() != "..");
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn references_read_back(model in "[a-z0-9][a-z0-9._-]{0,20}", number in 1_u64.., alias in "[a-z0-9][a-z0-9._-]{0,20}") {
            for which in [Which::Newest, Which::Number(number), Which::Alias(alias.parse().unwrap())] {
                let reference = Reference { model: model.parse().unwrap(), which };
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
