//! One tree.

use super::super::error::Malformed;
use super::super::limits::Limits;
use super::super::walk::Walk;
use super::text::{Fields, Lines};
use super::{categories, linear};

/// LightGBM reads so many lines of a tree, and none beyond them.
const MOST_LINES: usize = 22;
/// Bit 0: by categories. Bit 1: what is missing goes left. Bits 2 and 3: what counts as missing: nothing, zero, NaN.
const MOST_DECISION: i64 = 11;

/// Reads what comes after a line `Tree=N`. Gives the number of leaves, at least 1.
pub(super) fn read(lines: &mut Lines<'_>, features: usize, limits: &Limits) -> Result<usize, Malformed> {
    let fields = Fields::read(lines, MOST_LINES, |line| line.starts_with("Tree=") || line == super::text::END_OF_TREES)?;
    let most = i64::try_from(limits.nodes.div_ceil(2)).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX));
    let leaves = usize::try_from(fields.number("num_leaves", 1..=most)?).unwrap_or(1);
    fields.finite("leaf_value", leaves)?;
    if fields.find("shrinkage").is_some() {
        fields.finite("shrinkage", 1)?;
    }
    check_statistics(&fields, leaves)?;
    check_splits(&fields, leaves, features, limits)?;
    linear::check(&fields, leaves, features)?;
    Ok(leaves)
}

/// What scoring does not read.
fn check_statistics(fields: &Fields<'_>, leaves: usize) -> Result<(), Malformed> {
    for key in ["leaf_weight", "leaf_count"] {
        fields.statistics(key, leaves)?;
    }
    for key in ["split_gain", "internal_value", "internal_weight", "internal_count"] {
        fields.statistics(key, leaves - 1)?;
    }
    Ok(())
}

fn check_splits(fields: &Fields<'_>, leaves: usize, features: usize, limits: &Limits) -> Result<(), Malformed> {
    let splits = leaves - 1;
    let tables = categories::read(fields)?;
    if splits == 0 {
        // LightGBM reads nothing more of such a tree.
        return Ok(());
    }
    let last_feature = i64::try_from(features).unwrap_or(i64::MAX) - 1;
    fields.numbers::<i32>("split_feature", splits, 0..=last_feature)?;
    // An infinite one parts what is missing from what is not, and LightGBM writes such.
    fields.thresholds("threshold", splits)?;
    let decisions = match fields.find("decision_type") {
        Some(_) => fields.numbers::<u8>("decision_type", splits, 0..=MOST_DECISION)?,
        None => vec![0; splits],
    };
    tables.check_splits(fields.get("threshold")?, &decisions)?;
    let (last_split, last_leaf) = (i64::try_from(splits).unwrap_or(i64::MAX) - 1, i64::try_from(leaves).unwrap_or(i64::MAX));
    let left = fields.numbers::<i32>("left_child", splits, -last_leaf..=last_split)?;
    let right = fields.numbers::<i32>("right_child", splits, -last_leaf..=last_split)?;
    // A child of -1 is leaf 0. In the walk, leaves are numbered after the splits.
    let slot = |child: i32| usize::try_from(child).unwrap_or_else(|_| splits + usize::try_from(!child).unwrap_or(usize::MAX - splits));
    let children = |node: usize| [&left, &right].map(|side| side.get(node).map(|child| slot(*child)));
    let name = |node: usize| if node < splits { format!("split {node}") } else { format!("leaf {}", node - splits) };
    let mut walk = Walk::new(splits + leaves, limits.depth);
    walk.tree(0, children).map_err(|astray| astray.fault(limits.depth, name))?;
    match walk.unreached().next() {
        Some(node) => Err(Malformed::new(name(node), "is not reached from the root")),
        None => Ok(()),
    }
}
