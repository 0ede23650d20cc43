//! How MLflow names a version of a registered model: `models:/search@champion`, `models:/search/12`.

use std::fmt;
use std::str::FromStr;

use crate::config::is_mlflow_name;

const RULE: &str = "must be models:/NAME@ALIAS or models:/NAME/VERSION, like models:/search@champion or models:/search/12";

/// A text that names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {RULE}{hint}")]
pub struct ModelUriError {
    text: String,
    hint: &'static str,
}

/// Which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// Whichever has the alias.
    Alias(String),
    /// This one, from 1 on.
    Version(u64),
}

/// A version of a model that is registered with MLflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUri {
    /// The model's name, as MLflow has it.
    pub model: String,
    /// Its version.
    pub picked: Picked,
}

impl ModelUri {
    /// Of an alias; both are names that the config was checked for.
    pub(super) fn of_alias(model: &str, alias: &str) -> ModelUri {
        ModelUri { model: model.to_owned(), picked: Picked::Alias(alias.to_owned()) }
    }
}

impl FromStr for ModelUri {
    type Err = ModelUriError;

    fn from_str(text: &str) -> Result<ModelUri, ModelUriError> {
        let because = |hint| ModelUriError { text: text.chars().take(120).collect(), hint };
        let rest = text.strip_prefix("models:/").filter(|rest| !rest.starts_with('/')).ok_or_else(|| because(""))?;
        let (model, picked) = match (rest.rsplit_once('@'), rest.split_once('/')) {
            (Some((model, alias)), None) => (model, Picked::Alias(alias.to_owned())),
            (None, Some((_, stage))) if ["Production", "Staging", "latest"].iter().any(|name| name.eq_ignore_ascii_case(stage)) => {
                return Err(because("; stages and \"latest\" are not taken, since they move by themselves: give the version an alias"));
            }
            (None, Some((model, number))) => (model, Picked::Version(version(number).ok_or_else(|| because(""))?)),
            (None, None) if rest.starts_with("m-") => {
                return Err(because("; this is a logged model: register it, and give the version an alias"));
            }
            _ => return Err(because("")),
        };
        let is_alias = !matches!(&picked, Picked::Alias(alias) if !is_mlflow_name(alias));
        if is_mlflow_name(model) && is_alias { Ok(ModelUri { model: model.to_owned(), picked }) } else { Err(because("")) }
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.picked {
            Picked::Alias(alias) => write!(out, "models:/{}@{alias}", self.model),
            Picked::Version(number) => write!(out, "models:/{}/{number}", self.model),
        }
    }
}

/// A whole number from 1 on, in its one spelling.
pub(super) fn version(text: &str) -> Option<u64> {
    let number = text.parse().ok().filter(|number| *number > 0)?;
    (u64::to_string(&number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_mlflow_writes_them() {
        for text in ["models:/search@champion", "models:/search/12", "models:/Query Ranker v2@night-ly", "models:/a.b_c/1"] {
            assert_eq!(text.parse::<ModelUri>().map(|uri| uri.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("models:/search@champion".parse(), Ok(ModelUri::of_alias("search", "champion")));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "search",
            "models:/",
            "models:/search",
            "models://search@champion",
            "models:/search@",
            "models:/@champion",
            "models:/search/0",
            "models:/search/007",
            "models:/search/-1",
            "models:/search/1/2",
            "models:/a/b@c",
            "models:/../x@y",
            "models:/a\n@b",
            "runs:/abc/model",
        ] {
            assert!(text.parse::<ModelUri>().is_err_and(|error| error.to_string().contains("like models:/search@champion")), "{text}");
        }
        assert!(
            "models:/search/Production".parse::<ModelUri>().is_err_and(|error| error.to_string().contains("give the version an alias"))
        );
        assert!("models:/m-b932c8008aeb".parse::<ModelUri>().is_err_and(|error| error.to_string().contains("logged model")));
    }
}
