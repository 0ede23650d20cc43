//! One tree.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::error::{Malformed, at_most};
use super::super::limits::Limits;
use super::super::walk::Walk;
use super::nan::Threshold;
use super::number::{Flag, Number, check_count, check_finite};
use super::parse;

/// A tree as it is written. What is not named here does not score.
#[derive(Deserialize)]
struct Tree {
    tree_param: Parameters,
    #[serde(default)]
    id: Option<Number>,
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    parents: Vec<i64>,
    split_indices: Vec<i64>,
    split_conditions: Vec<Threshold>,
    default_left: Vec<Flag>,
    base_weights: Vec<f32>,
    /// From version 1.3 on: 1 for a split by categories.
    #[serde(default)]
    split_type: Vec<Flagged>,
    #[serde(default)]
    categories: Vec<i32>,
    #[serde(default)]
    categories_nodes: Vec<i32>,
    #[serde(default)]
    categories_segments: Vec<i64>,
    #[serde(default)]
    categories_sizes: Vec<i64>,
}

#[derive(Deserialize)]
struct Parameters {
    num_nodes: Number,
    num_feature: Number,
    #[serde(default)]
    num_deleted: Option<Number>,
    #[serde(default)]
    size_leaf_vector: Option<Number>,
}

/// A split's type: 0 by number, 1 by categories.
#[derive(Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(transparent)]
struct Flagged(u8);

/// XGBoost's categories are numbers below 2^24, so that they are exact in 32 bits.
const CATEGORIES: i32 = 1 << 24;

/// What was counted.
pub(super) struct Found {
    pub(super) nodes: usize,
    pub(super) leaves: usize,
}

/// Reads and checks the tree at `place`.
pub(super) fn read(tree: &RawValue, place: usize, features: usize, limits: &Limits) -> Result<Found, Malformed> {
    let tree: Tree = parse::whole("the tree", tree.get())?;
    let nodes = tree.tree_param.num_nodes.within("num_nodes", 1..=i64::from(i32::MAX))?;
    at_most("num_nodes", nodes, limits.nodes)?;
    check_lengths(&tree, nodes)?;
    tree.tree_param.num_feature.within("num_feature", 0..=i64::try_from(features).unwrap_or(i64::MAX))?;
    if let Some(size) = tree.tree_param.size_leaf_vector {
        size.within("size_leaf_vector", 0..=1)?;
    }
    if let Some(id) = tree.id {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        id.within("id", place..=place)?;
    }
    let leaves = check_structure(&tree, nodes, limits)?;
    check_conditions(&tree)?;
    check_splits(&tree, features)?;
    check_categories(&tree, nodes)?;
    Ok(Found { nodes, leaves })
}

fn check_lengths(tree: &Tree, nodes: usize) -> Result<(), Malformed> {
    check_count("left_children", tree.left_children.len(), nodes)?;
    check_count("right_children", tree.right_children.len(), nodes)?;
    check_count("parents", tree.parents.len(), nodes)?;
    check_count("split_indices", tree.split_indices.len(), nodes)?;
    check_count("default_left", tree.default_left.len(), nodes)?;
    if !tree.split_type.is_empty() {
        check_count("split_type", tree.split_type.len(), nodes)?;
    }
    check_count("split_conditions", tree.split_conditions.len(), nodes)?;
    check_finite("base_weights", &tree.base_weights, nodes)
}

/// Thresholds; of leaves, what they give. A split by categories has none: in version 2 it is NaN.
fn check_conditions(tree: &Tree) -> Result<(), Malformed> {
    for (node, condition) in tree.split_conditions.iter().enumerate() {
        let is_by_category = || tree.split_type.get(node) == Some(&Flagged(1)) && tree.left_children.get(node) != Some(&-1);
        if !(condition.0.is_finite() || condition.0.is_nan() && is_by_category()) {
            return Err(Malformed::new(format!("split_conditions[{node}] = {}", condition.0), "must be a finite number of 32 bits"));
        }
    }
    Ok(())
}

/// Gives the number of leaves that are reached.
fn check_structure(tree: &Tree, nodes: usize, limits: &Limits) -> Result<usize, Malformed> {
    for (node, (left, right)) in tree.left_children.iter().zip(&tree.right_children).enumerate() {
        let most = i32::try_from(nodes - 1).unwrap_or(i32::MAX);
        for (name, child) in [("left_children", *left), ("right_children", *right)] {
            if !(-1..=most).contains(&child) {
                return Err(Malformed::new(format!("{name}[{node}] = {child}"), format!("must be -1, or below num_nodes = {nodes}")));
            }
        }
        if (*left == -1) != (*right == -1) {
            return Err(Malformed::new(format!("node {node}"), "has one child: must be two, or none"));
        }
    }
    let child = |children: &[i32], node: usize| children.get(node).and_then(|child| usize::try_from(*child).ok());
    let children = |node: usize| [child(&tree.left_children, node), child(&tree.right_children, node)];
    let mut walk = Walk::new(nodes, limits.depth);
    walk.tree(0, children).map_err(|astray| astray.fault(limits.depth, |node| format!("node {node}")))?;
    check_unreached(tree, nodes, &walk)?;
    check_parents(tree)?;
    // A tree of n nodes, each with two children or none, has (n + 1) / 2 leaves.
    Ok(walk.reached().div_ceil(2))
}

/// Pruning leaves nodes that nothing points to. They are leaves, and counted.
fn check_unreached(tree: &Tree, nodes: usize, walk: &Walk) -> Result<(), Malformed> {
    let deleted = match tree.tree_param.num_deleted {
        Some(deleted) => deleted.within("num_deleted", 0..=i64::from(i32::MAX))?,
        None => 0,
    };
    if nodes - walk.reached() > deleted {
        let node = walk.unreached().next().unwrap_or(0);
        return Err(Malformed::new(format!("node {node}"), format!("is not reached from the root, and num_deleted = {deleted}")));
    }
    match walk.unreached().find(|node| tree.left_children.get(*node) != Some(&-1)) {
        Some(node) => Err(Malformed::new(format!("node {node}"), "is deleted, and has children")),
        None => Ok(()),
    }
}

/// Children and parents say the same.
fn check_parents(tree: &Tree) -> Result<(), Malformed> {
    // The root has none: -1, or the largest number of 31 bits, by version.
    if !matches!(tree.parents.first(), Some(-1 | 0x7fff_ffff)) {
        return Err(Malformed::new("parents[0]", "must be -1 or 2147483647: the root has none"));
    }
    for (node, (left, right)) in tree.left_children.iter().zip(&tree.right_children).enumerate() {
        for child in [*left, *right] {
            let Some(parent) = usize::try_from(child).ok().and_then(|child| tree.parents.get(child)) else { continue };
            if usize::try_from(*parent) != Ok(node) {
                return Err(Malformed::new(format!("parents[{child}] = {parent}"), format!("must be {node}, whose child it is")));
            }
        }
    }
    Ok(())
}

/// Features of inner nodes; those of leaves mean nothing.
fn check_splits(tree: &Tree, features: usize) -> Result<(), Malformed> {
    for (node, (feature, left)) in tree.split_indices.iter().zip(&tree.left_children).enumerate() {
        let is_right = usize::try_from(*feature).is_ok_and(|feature| feature < features);
        if *left != -1 && !is_right {
            return Err(Malformed::new(format!("split_indices[{node}] = {feature}"), format!("must be below num_feature = {features}")));
        }
    }
    match tree.split_type.iter().position(|kind| kind.0 > 1) {
        Some(node) => Err(Malformed::new(format!("split_type[{node}]"), "must be 0 or 1")),
        None => Ok(()),
    }
}

/// The sets of splits by categories: for each such node, in order, `categories[segment..segment + size]`.
fn check_categories(tree: &Tree, nodes: usize) -> Result<(), Malformed> {
    let count = tree.categories_nodes.len();
    check_count("categories_segments", tree.categories_segments.len(), count)?;
    check_count("categories_sizes", tree.categories_sizes.len(), count)?;
    if let Some(place) = tree.categories.iter().position(|category| !(0..CATEGORIES).contains(category)) {
        return Err(Malformed::new(format!("categories[{place}]"), "must be from 0 to 16777215"));
    }
    let by_category = tree.split_type.iter().enumerate().filter(|(_, kind)| kind.0 == 1).map(|(node, _)| node);
    // A leaf or deleted node may have kept its type.
    let by_category: Vec<usize> = by_category.filter(|node| tree.left_children.get(*node) != Some(&-1)).collect();
    let mut nodes_left = by_category.iter();
    let mut before = -1;
    let sets = tree.categories_nodes.iter().zip(&tree.categories_segments).zip(&tree.categories_sizes);
    for (place, ((node, start), size)) in sets.enumerate() {
        let is_node = *node > before && usize::try_from(*node).is_ok_and(|node| node < nodes);
        if !is_node {
            let what = format!("must rise, and stay below num_nodes = {nodes}");
            return Err(Malformed::new(format!("categories_nodes[{place}] = {node}"), what));
        }
        before = *node;
        let range = usize::try_from(*start).ok().zip(usize::try_from(*size).ok());
        let end = range.and_then(|(start, size)| start.checked_add(size));
        if end.is_none_or(|end| end > tree.categories.len()) {
            let what = format!("there are {} categories", tree.categories.len());
            return Err(Malformed::new(format!("categories_segments[{place}] = {start}, and {size} from there"), what));
        }
        if tree.left_children.get(usize::try_from(*node).unwrap_or(0)) != Some(&-1)
            && nodes_left.next().copied() != usize::try_from(*node).ok()
        {
            return Err(Malformed::new(format!("categories_nodes[{place}] = {node}"), "is not the next split by categories"));
        }
    }
    match nodes_left.next() {
        Some(node) => Err(Malformed::new(format!("node {node}"), "is a split by categories, and has none")),
        None => Ok(()),
    }
}
