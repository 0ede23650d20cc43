//! `TreeEnsemble` 5: branches and leaves are in lists of their own, and a child is a place in one of them.

use super::super::error::Malformed;
use super::super::limits::Limits;
use super::super::walk::Walk;
use super::ensemble::{Found, check_length};
use super::floats;
use super::proto::Node;

/// `BRANCH_MEMBER`, the last of the modes: goes by a set of numbers.
const MEMBER: i64 = 6;

struct Lists<'a> {
    features: &'a [i64],
    on_true: &'a [i64],
    on_false: &'a [i64],
    true_is_leaf: &'a [i64],
    false_is_leaf: &'a [i64],
    leaves: &'a [i64],
}

pub(super) fn check(node: &Node, features: i64, limits: &Limits) -> Result<Found, Malformed> {
    let count = node.ints("nodes_featureids").len();
    let list = |name: &str| check_length(name, node.ints(name).len(), count).map(|()| node.ints(name));
    let lists = Lists {
        features: list("nodes_featureids")?,
        on_true: list("nodes_truenodeids")?,
        on_false: list("nodes_falsenodeids")?,
        true_is_leaf: list("nodes_trueleafs")?,
        false_is_leaf: list("nodes_falseleafs")?,
        leaves: node.ints("leaf_targetids"),
    };
    let tensor = |name: &str| {
        node.tensor(name)
            .and_then(|tensor| super::tensors::product(&tensor.dims))
            .map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
    };
    check_length("nodes_splits", tensor("nodes_splits"), count)?;
    check_length("leaf_weights", tensor("leaf_weights"), lists.leaves.len())?;
    let missing = node.ints("nodes_missing_value_tracks_true").len();
    check_length("nodes_missing_value_tracks_true", missing, if missing == 0 { 0 } else { count })?;
    check_modes(node, count)?;
    check_places(&lists, features, node.int("n_targets").unwrap_or(1))?;
    let trees = walk(&lists, node.ints("tree_roots"), limits)?;
    Ok(Found { trees, nodes: count.saturating_add(lists.leaves.len()) })
}

/// As many sets as branches that go by one; sets end with NaN.
fn check_modes(node: &Node, count: usize) -> Result<(), Malformed> {
    let modes = node.tensor("nodes_modes").and_then(|modes| floats::whole(modes, count)).unwrap_or_default();
    check_length("nodes_modes", modes.len(), count)?;
    if let Some(place) = modes.iter().position(|mode| !(0..=MEMBER).contains(mode)) {
        return Err(Malformed::new(format!("nodes_modes[{place}]"), "must be from 0 to 6"));
    }
    let by_set = modes.iter().filter(|mode| **mode == MEMBER).count();
    let members = node.tensor("membership_values").and_then(floats::all).unwrap_or_default();
    let sets = members.iter().filter(|member| member.is_nan()).count() + usize::from(members.last().is_some_and(|last| !last.is_nan()));
    if sets < by_set {
        return Err(Malformed::new("membership_values", format!("has {sets} sets: must be {by_set}, one for each BRANCH_MEMBER")));
    }
    Ok(())
}

fn check_places(lists: &Lists<'_>, features: i64, targets: i64) -> Result<(), Malformed> {
    let (branches, leaves) = (lists.features.len(), lists.leaves.len());
    if let Some((place, feature)) = lists.features.iter().enumerate().find(|(_, feature)| !(0..features).contains(*feature)) {
        return Err(Malformed::new(format!("nodes_featureids[{place}] = {feature}"), format!("must be from 0 to {}", features - 1)));
    }
    let sides = [
        ("nodes_trueleafs", lists.true_is_leaf, "nodes_truenodeids", lists.on_true),
        ("nodes_falseleafs", lists.false_is_leaf, "nodes_falsenodeids", lists.on_false),
    ];
    for (flags, is_leaf, name, children) in sides {
        for (place, (is_leaf, child)) in is_leaf.iter().zip(children).enumerate() {
            let most = match is_leaf {
                0 => branches,
                1 => leaves,
                _ => return Err(Malformed::new(format!("{flags}[{place}] = {is_leaf}"), "must be 0 or 1")),
            };
            if usize::try_from(*child).map_or(true, |child| child >= most) {
                return Err(Malformed::new(format!("{name}[{place}] = {child}"), format!("must be below {most}")));
            }
        }
    }
    match lists.leaves.iter().enumerate().find(|(_, target)| !(0..targets).contains(*target)) {
        Some((place, target)) => Err(Malformed::new(format!("leaf_targetids[{place}] = {target}"), format!("must be below {targets}"))),
        None => Ok(()),
    }
}

/// Branches are reached once each. A leaf may be reached by several: a tree that is one leaf is a branch whose sides are the same.
fn walk(lists: &Lists<'_>, roots: &[i64], limits: &Limits) -> Result<usize, Malformed> {
    let branches = lists.features.len();
    let side = |place: usize, is_leaf: &[i64], children: &[i64]| match is_leaf.get(place) {
        Some(0) => children.get(place).and_then(|child| usize::try_from(*child).ok()),
        _ => None,
    };
    let children = |place: usize| [side(place, lists.true_is_leaf, lists.on_true), side(place, lists.false_is_leaf, lists.on_false)];
    let mut walk = Walk::new(branches, limits.depth);
    for (tree, root) in roots.iter().enumerate() {
        let Some(start) = usize::try_from(*root).ok().filter(|root| *root < branches) else {
            return Err(Malformed::new(format!("tree_roots[{tree}] = {root}"), format!("must be below {branches}")));
        };
        walk.tree(start, children).map_err(|astray| astray.fault(limits.depth, |place| format!("branch {place}")))?;
    }
    match walk.unreached().next() {
        Some(place) => Err(Malformed::new(format!("branch {place}"), "is not reached from a root")),
        None if roots.is_empty() => Err(Malformed::new("tree_roots", "there must be one at least")),
        None => Ok(roots.len()),
    }
}
