//! Leaves that are linear functions (`linear_tree`): `leaf_const` plus coefficients times features.

use super::super::error::Malformed;
use super::text::Fields;

/// Checks them, where the tree has them.
pub(super) fn check(fields: &Fields<'_>, leaves: usize, features: usize) -> Result<(), Malformed> {
    if fields.find("is_linear").is_none() || fields.number("is_linear", 0..=1)? == 0 {
        return Ok(());
    }
    let last_feature = i64::try_from(features).unwrap_or(i64::MAX) - 1;
    fields.finite("leaf_const", leaves)?;
    let counts: Vec<usize> = fields.numbers("num_features", leaves, 0..=last_feature + 1)?;
    let count = counts.iter().sum();
    fields.numbers::<i32>("leaf_features", count, 0..=last_feature)?;
    fields.finite("leaf_coeff", count)
}
