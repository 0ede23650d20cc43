//! All trees of a model.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::error::{Malformed, at_most};
use super::super::limits::Limits;
use super::number::{Number, check_count};
use super::{parse, tree};

#[derive(Deserialize)]
struct Model<'a> {
    gbtree_model_param: Parameters,
    #[serde(borrow)]
    trees: &'a RawValue,
    #[serde(borrow)]
    tree_info: &'a RawValue,
    /// From version 2 on: where the trees of an iteration begin.
    #[serde(borrow, default)]
    iteration_indptr: Option<&'a RawValue>,
    /// From version 3 on, categories of a data frame; they say how to encode, and do not score.
    #[serde(default, rename = "cats")]
    _cats: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Parameters {
    num_trees: Number,
}

/// Gives the numbers of trees and of leaves.
pub(super) fn read(model: &RawValue, features: usize, limits: &Limits) -> Result<(usize, usize), Malformed> {
    let model: Model<'_> = parse::whole("gradient_booster.model", model.get())?;
    let count = model.gbtree_model_param.num_trees.within("num_trees", 1..=i64::from(i32::MAX))?;
    at_most("num_trees", count, limits.trees)?;
    let (mut trees, mut nodes, mut leaves) = (0, 0, 0);
    parse::each("trees", model.trees, |place, tree: &RawValue| {
        at_most("trees", place + 1, count)?;
        let found = tree::read(tree, place, features, limits).map_err(|fault| fault.within(format_args!("tree {place}")))?;
        (trees, nodes, leaves) = (trees + 1, nodes + found.nodes, leaves + found.leaves);
        at_most("nodes of all trees", nodes, limits.nodes)
    })?;
    check_count("trees", trees, count)?;
    check_info(&model, count)?;
    Ok((trees, leaves))
}

/// The output that a tree is for, which is the only one; and where iterations begin.
fn check_info(model: &Model<'_>, trees: usize) -> Result<(), Malformed> {
    let outputs: Vec<i32> = parse::list("tree_info", model.tree_info, trees)?;
    check_count("tree_info", outputs.len(), trees)?;
    if let Some((place, output)) = outputs.iter().enumerate().find(|(_, output)| **output != 0) {
        return Err(Malformed::new(format!("tree_info[{place}] = {output}"), "must be 0: the model has one output"));
    }
    let Some(starts) = model.iteration_indptr else { return Ok(()) };
    let starts: Vec<i32> = parse::list("iteration_indptr", starts, trees + 1)?;
    let ends = usize::try_from(starts.last().copied().unwrap_or(-1)) == Ok(trees);
    if starts.first() != Some(&0) || !ends || !starts.is_sorted() {
        return Err(Malformed::new("iteration_indptr", format!("must rise from 0 to num_trees = {trees}")));
    }
    Ok(())
}
