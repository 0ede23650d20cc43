//! XGBoost's JSON, as `save_model("x.json")` writes it: XGBoost 1 to 3, boosters gbtree, dart and gblinear.
//!
//! Invariant: what is accepted scores by finite numbers and by trees in the strict sense. Trees are read one after the other, each
//! forgotten
//! before the next one; what comes before and after them is only borrowed from the file.
//!
//! Source of the format: XGBoost, `doc/model.schema`, `src/learner.cc`, `src/gbm/` and `src/tree/tree_model.cc`.

mod linear;
mod nan;
mod number;
mod parse;
mod tree;
mod trees;

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{Malformed, at_most, shown};
use super::limits::Limits;
use super::trees::Trees;
use number::Number;

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    learner: Learner<'a>,
    version: Vec<u32>,
}

#[derive(Deserialize)]
struct Learner<'a> {
    #[serde(borrow, default)]
    feature_names: Option<&'a RawValue>,
    #[serde(borrow, default)]
    feature_types: Option<&'a RawValue>,
    #[serde(borrow)]
    gradient_booster: &'a RawValue,
    learner_model_param: Parameters,
    objective: Objective,
}

#[derive(Deserialize)]
struct Parameters {
    base_score: String,
    num_class: Number,
    num_feature: Number,
    #[serde(default)]
    num_target: Option<Number>,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

#[derive(Deserialize)]
struct Booster<'a> {
    name: String,
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    /// Of dart.
    #[serde(borrow, default)]
    gbtree: Option<&'a RawValue>,
    #[serde(borrow, default)]
    weight_drop: Option<&'a RawValue>,
}

/// Reads a model.
///
/// # Errors
/// What is not as XGBoost writes it; binary forms; a model of several classes or targets, or without a tree; one over the limits.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Trees, Malformed> {
    let text = parse::text(bytes)?;
    let text = nan::readable(text);
    let model: Model<'_> = parse::whole("the model", &text)?;
    if !matches!(*model.version.as_slice(), [1..=3, _, _]) {
        return Err(Malformed::new(
            format!("version = {:?}", model.version.iter().take(4).collect::<Vec<_>>()),
            "must be from [1, 0, 0] to [3, x, x]",
        ));
    }
    let learner = model.learner;
    let features = check_parameters(&learner.learner_model_param, limits)?;
    let feature_names = read_names(&learner, features, limits)?;
    at_most("bytes of objective.name", learner.objective.name.len(), limits.name_bytes)?;
    let (trees, leaves) = read_booster(parse::whole("gradient_booster", learner.gradient_booster.get())?, features, limits)?;
    Ok(Trees { features, feature_names, trees, leaves, objective: learner.objective.name })
}

/// Gives the number of features.
fn check_parameters(parameters: &Parameters, limits: &Limits) -> Result<usize, Malformed> {
    parameters.num_class.within("num_class", 0..=1)?;
    if let Some(targets) = parameters.num_target {
        targets.within("num_target", 0..=1)?;
    }
    // XGBoost 3 writes a list, for models of several targets.
    let score = parameters.base_score.trim();
    let score = score.strip_prefix('[').and_then(|score| score.strip_suffix(']')).unwrap_or(score);
    if !score.parse().is_ok_and(f32::is_finite) {
        return Err(Malformed::new(format!("base_score = {}", shown(&parameters.base_score)), "must be one finite number"));
    }
    let features = parameters.num_feature.within("num_feature", 1..=i64::from(i32::MAX))?;
    at_most("num_feature", features, limits.features)?;
    Ok(features)
}

fn read_names(learner: &Learner<'_>, features: usize, limits: &Limits) -> Result<Vec<String>, Malformed> {
    let names: Vec<String> = match learner.feature_names {
        Some(names) => parse::list("feature_names", names, features)?,
        None => Vec::new(),
    };
    let types: Vec<String> = match learner.feature_types {
        Some(types) => parse::list("feature_types", types, features)?,
        None => Vec::new(),
    };
    for (what, count) in [("feature_names", names.len()), ("feature_types", types.len())] {
        if count != 0 && count != features {
            return Err(Malformed::new(what, format!("has {count} values: must be none, or num_feature = {features}")));
        }
    }
    let mut seen = HashSet::new();
    for (place, name) in names.iter().enumerate() {
        at_most(format_args!("bytes of feature_names[{place}]"), name.len(), limits.name_bytes)?;
        if !seen.insert(name) {
            return Err(Malformed::new(format!("feature_names[{place}] = {}", shown(name)), "is there twice"));
        }
    }
    Ok(names)
}

/// Gives the numbers of trees and of leaves.
fn read_booster(booster: Booster<'_>, features: usize, limits: &Limits) -> Result<(usize, usize), Malformed> {
    let missing = |what: &str| Malformed::new(format!("gradient_booster.{what}"), "is missing");
    match booster.name.as_str() {
        "gbtree" => trees::read(booster.model.ok_or_else(|| missing("model"))?, features, limits),
        "gblinear" => linear::check(booster.model.ok_or_else(|| missing("model"))?, features).map(|()| (0, 0)),
        "dart" => {
            let inner: Booster<'_> = parse::whole("gradient_booster.gbtree", booster.gbtree.ok_or_else(|| missing("gbtree"))?.get())?;
            let (trees, leaves) = trees::read(inner.model.ok_or_else(|| missing("gbtree.model"))?, features, limits)?;
            let weights: Vec<f32> = parse::list("weight_drop", booster.weight_drop.ok_or_else(|| missing("weight_drop"))?, trees)?;
            number::check_finite("weight_drop", &weights, trees)?;
            Ok((trees, leaves))
        }
        name => Err(Malformed::new(format!("gradient_booster.name = {}", shown(name)), "must be gbtree, dart or gblinear")),
    }
}

#[cfg(test)]
mod tests;
