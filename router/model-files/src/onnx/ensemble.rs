//! Tree ensembles of `ai.onnx.ml`, old and new. That a feature is not there, ONNX Runtime finds out only when it scores; here it is seen
//! before.
//!
//! This file has the old form, `TreeEnsembleRegressor` and `TreeEnsembleClassifier` 1 and 3: nodes are named by (tree, node).
//! [`super::trees`] has the new one.

use super::super::error::{Malformed, shown};
use super::super::limits::Limits;
use super::super::walk::Shared;
use super::proto::Node;
use super::trees;

/// What was counted.
pub(super) struct Found {
    pub(super) trees: usize,
    pub(super) nodes: usize,
}

/// Whether a node is a tree ensemble.
pub(super) fn is_one(node: &Node) -> bool {
    node.domain.as_deref() == Some("ai.onnx.ml") && node.op_type.as_deref().is_some_and(|operator| operator.starts_with("TreeEnsemble"))
}

/// Checks one; `width` is that of its input, where the file says.
pub(super) fn check(node: &Node, width: Option<i64>, limits: &Limits) -> Result<Found, Malformed> {
    let features = width.unwrap_or(i64::MAX).min(i64::try_from(limits.features).unwrap_or(i64::MAX));
    match node.op_type.as_deref().unwrap_or_default() {
        "TreeEnsemble" => trees::check(node, features, limits),
        "TreeEnsembleRegressor" => check_old(node, "target", node.int("n_targets").unwrap_or(1), features, limits),
        "TreeEnsembleClassifier" => {
            let labels = node.attribute("classlabels_strings").map_or(0, |labels| labels.strings.len());
            let labels = labels.max(node.ints("classlabels_int64s").len());
            check_old(node, "class", i64::try_from(labels).unwrap_or(i64::MAX), features, limits)
        }
        operator => Err(Malformed::new(format!("operator {}", shown(operator)), "is no tree ensemble that is known")),
    }
}

/// The lists that make up the nodes.
struct Nodes<'a> {
    trees: &'a [i64],
    ids: &'a [i64],
    features: &'a [i64],
    on_true: &'a [i64],
    on_false: &'a [i64],
    is_leaf: Vec<bool>,
    /// (tree, node, place in the lists), sorted.
    places: Vec<(i64, i64, usize)>,
}

fn check_old(node: &Node, votes: &str, outputs: i64, features: i64, limits: &Limits) -> Result<Found, Malformed> {
    let nodes = Nodes::read(node)?;
    let count = nodes.ids.len();
    check_length("nodes_values", length_of_floats(node, "nodes_values")?, count)?;
    let hitrates = length_of_floats(node, "nodes_hitrates")?;
    check_length("nodes_hitrates", hitrates, if hitrates == 0 { 0 } else { count })?;
    let missing = node.ints("nodes_missing_value_tracks_true").len();
    check_length("nodes_missing_value_tracks_true", missing, if missing == 0 { 0 } else { count })?;
    if let Some((place, feature)) = nodes.branches().find(|(_, feature)| !(0..features).contains(feature)) {
        return Err(Malformed::new(format!("nodes_featureids[{place}] = {feature}"), format!("must be from 0 to {}", features - 1)));
    }
    let trees = nodes.walk(limits)?;
    check_votes(node, votes, outputs, &nodes)?;
    Ok(Found { trees, nodes: count })
}

impl<'a> Nodes<'a> {
    fn read(node: &'a Node) -> Result<Nodes<'a>, Malformed> {
        let ids = node.ints("nodes_nodeids");
        let list = |name: &str| check_length(name, node.ints(name).len(), ids.len()).map(|()| node.ints(name));
        let modes = node.attribute("nodes_modes").map(|modes| modes.strings.as_slice()).unwrap_or_default();
        check_length("nodes_modes", modes.len(), ids.len())?;
        let mut is_leaf = Vec::with_capacity(ids.len());
        for (place, mode) in modes.iter().enumerate() {
            match mode.as_ref() {
                b"LEAF" => is_leaf.push(true),
                b"BRANCH_LEQ" | b"BRANCH_LT" | b"BRANCH_GTE" | b"BRANCH_GT" | b"BRANCH_EQ" | b"BRANCH_NEQ" => is_leaf.push(false),
                other => {
                    let place = format!(
                        "nodes_modes[{place}] = {}",
                        shown(&String::from_utf8_lossy(other.get(..other.len().min(99)).unwrap_or_default()))
                    );
                    return Err(Malformed::new(place, "must be LEAF, or BRANCH_LEQ, _LT, _GTE, _GT, _EQ or _NEQ"));
                }
            }
        }
        let trees = list("nodes_treeids")?;
        let mut places: Vec<(i64, i64, usize)> = trees.iter().zip(ids).enumerate().map(|(place, (tree, id))| (*tree, *id, place)).collect();
        places.sort_unstable();
        let twice =
            places.iter().zip(places.iter().skip(1)).find(|((tree, id, _), (next_tree, next_id, _))| (tree, id) == (next_tree, next_id));
        if let Some((_, (tree, id, place))) = twice {
            return Err(Malformed::new(format!("nodes_nodeids[{place}] = {id}"), format!("is there twice in tree {tree}")));
        }
        let (features, on_true, on_false) = (list("nodes_featureids")?, list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
        Ok(Nodes { trees, ids, features, on_true, on_false, is_leaf, places })
    }

    /// Features of the nodes that are no leaves.
    fn branches(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.features
            .iter()
            .zip(&self.is_leaf)
            .enumerate()
            .filter(|(_, (_, is_leaf))| !**is_leaf)
            .map(|(place, (feature, _))| (place, *feature))
    }

    /// Where the node of a tree is in the lists.
    fn find(&self, tree: i64, id: i64) -> Option<usize> {
        let at = self.places.binary_search_by(|(other, node, _)| (other, node).cmp(&(&tree, &id))).ok()?;
        self.places.get(at).map(|(_, _, place)| *place)
    }

    /// Walks all trees. Nodes may share a child: exporters of LightGBM write a split by categories as a row of BRANCH_EQ that all lead to
    /// one. The root of one is its first node, which the runtime takes for it; a tree's nodes follow one another, or it takes them for
    /// two.
    fn walk(&self, limits: &Limits) -> Result<usize, Malformed> {
        let count = self.ids.len();
        let name = |place: usize| match self.trees.get(place).zip(self.ids.get(place)) {
            Some((tree, id)) => format!("tree {tree}: node {id}"),
            None => "a node that a branch names".to_owned(),
        };
        let child = |place: usize, children: &[i64]| self.find(*self.trees.get(place)?, *children.get(place)?);
        // One that is not found becomes a place beyond all, which the walk refuses.
        let children = |place: usize| match self.is_leaf.get(place) {
            Some(false) => [self.on_true, self.on_false].map(|side| Some(child(place, side).unwrap_or(count))),
            _ => [None; 2],
        };
        let (mut walk, mut trees, mut before) = (Shared::new(count, limits.depth), 0, None);
        for (place, tree) in self.trees.iter().enumerate() {
            if before.replace(*tree) != Some(*tree) {
                walk.below(place, children).map_err(|astray| astray.fault(limits.depth, name))?;
                trees += 1;
            }
        }
        match walk.unreached().next() {
            Some(place) => Err(Malformed::new(name(place), "is not reached from its tree's first node")),
            None if trees == 0 => Err(Malformed::new("trees", "there must be one at least")),
            None => Ok(trees),
        }
    }
}

/// What leaves give: node, output and weight.
fn check_votes(node: &Node, votes: &str, outputs: i64, nodes: &Nodes<'_>) -> Result<(), Malformed> {
    let [ids, of_trees, of_nodes] = ["ids", "treeids", "nodeids"].map(|list| format!("{votes}_{list}"));
    let targets = node.ints(&ids);
    let (trees, leaves) = (node.ints(&of_trees), node.ints(&of_nodes));
    check_length(&of_trees, trees.len(), targets.len())?;
    check_length(&of_nodes, leaves.len(), targets.len())?;
    let weights = format!("{votes}_weights");
    check_length(&weights, length_of_floats(node, &weights)?, targets.len())?;
    for (place, (target, (tree, leaf))) in targets.iter().zip(trees.iter().zip(leaves)).enumerate() {
        if !(0..outputs).contains(target) {
            return Err(Malformed::new(format!("{ids}[{place}] = {target}"), format!("must be below {outputs}")));
        }
        if nodes.find(*tree, *leaf).is_none() {
            return Err(Malformed::new(format!("{of_nodes}[{place}] = {leaf}"), format!("there is no such node in tree {tree}")));
        }
    }
    Ok(())
}

/// Numbers of a list, or of the tensor that may be there in its place.
fn length_of_floats(node: &Node, name: &str) -> Result<usize, Malformed> {
    let list = node.attribute(name).map_or(0, |list| list.floats.len());
    let tensor = node.tensor(&format!("{name}_as_tensor"));
    let tensor =
        tensor.and_then(|tensor| super::tensors::product(&tensor.dims)).map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX));
    if list > 0 && tensor > 0 { Err(Malformed::new(name, "is there twice: as a list and as a tensor")) } else { Ok(list.max(tensor)) }
}

/// Fails unless a list is as long as it must be.
pub(super) fn check_length(name: &str, found: usize, wanted: usize) -> Result<(), Malformed> {
    if found == wanted { Ok(()) } else { Err(Malformed::new(name, format!("has {found} values: must be {wanted}"))) }
}
