//! What comes after the trees. Nothing of it scores; its ends tell that the file is whole.

use std::collections::HashSet;

use serde::de::IgnoredAny;

use super::super::error::{Malformed, shown};
use super::text::Lines;

const CATEGORIES: &str = "pandas_categorical:";

/// Checks importances, parameters, and the categories that Python's package adds.
pub(super) fn check(lines: &mut Lines<'_>, features: &[&str]) -> Result<(), Malformed> {
    lines.skip_blank()?;
    match lines.next()? {
        Some(line) if matches!(line.text, "feature_importances:" | "feature importances:") => {}
        _ => return Err(Malformed::new("after the trees", "there is no `feature_importances:`: the file was cut off")),
    }
    check_importances(lines, features)?;
    for (start, end) in [("parameters:", "end of parameters"), ("parser:", "end of parser")] {
        lines.skip_blank()?;
        if lines.peek()?.is_some_and(|line| line.text == start) {
            while lines.next()?.ok_or_else(|| Malformed::new("the end", format!("there is no `{end}`: the file was cut off")))?.text != end
            {
            }
        }
    }
    lines.skip_blank()?;
    if let Some(categories) = lines.peek()?.and_then(|line| line.text.strip_prefix(CATEGORIES)) {
        serde_json::from_str::<Option<Vec<Vec<IgnoredAny>>>>(categories)
            .map_err(|error| Malformed::new("pandas_categorical", format!("must be JSON, null or lists of categories: {error}")))?;
        lines.next()?;
        lines.skip_blank()?;
    }
    match lines.peek()? {
        Some(line) => Err(Malformed::new(format!("line {} = {}", line.number, shown(line.text)), "is no part of a model")),
        None => Ok(()),
    }
}

/// `name=count` for features that are used.
fn check_importances(lines: &mut Lines<'_>, features: &[&str]) -> Result<(), Malformed> {
    let features: HashSet<&str> = features.iter().copied().collect();
    while let Some(line) = lines.peek()?.filter(|line| !line.text.is_empty()) {
        let is_right = line.text.rsplit_once('=').is_some_and(|(name, count)| features.contains(name) && count.parse::<u64>().is_ok());
        if !is_right {
            let what = "is no importance: must be name=count, with the name of a feature";
            return Err(Malformed::new(format!("line {} = {}", line.number, shown(line.text)), what));
        }
        lines.next()?;
    }
    Ok(())
}
