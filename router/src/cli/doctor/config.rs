//! The config file: as `switchback config check` judges it.

use std::path::Path;

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::cli::config::{check_files, summary, warnings};

const PART: &str = "config";

/// A file that is no config: a line for each problem, and nothing else can be looked at.
pub(super) fn refused(file: &Path, problems: &[String]) -> Vec<Finding> {
    let to_do = format!("mend it; `switchback config check {}` says when it is good", file.display());
    problems.iter().map(|problem| Finding::failed(PART, "file", problem.clone(), to_do.clone())).collect()
}

pub(super) fn checks(config: &Shared, file: &Path) -> Vec<Check> {
    let (config, file) = (config.clone(), file.to_owned());
    vec![Check::blocking(PART, "file", move || match check_files(&file, &config) {
        Err(problem) => vec![Finding::failed(PART, "what it names", problem, "mend the file that it names, or the key")],
        Ok(()) => {
            let good = Finding::ok(PART, "file", format!("{}: {}", file.display(), summary(&config)));
            let warn = |warning: String| Finding::warning(PART, "policy", warning, "put the plugin there, or name another");
            std::iter::once(good).chain(warnings(&file, &config).into_iter().map(warn)).collect()
        }
    })]
}
