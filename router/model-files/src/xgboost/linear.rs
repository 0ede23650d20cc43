//! The linear booster: a weight for each feature, and the bias.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::error::Malformed;
use super::{number, parse};

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    weights: &'a RawValue,
}

/// Checks its weights.
pub(super) fn check(model: &RawValue, features: usize) -> Result<(), Malformed> {
    let model: Model<'_> = parse::whole("gradient_booster.model", model.get())?;
    let weights: Vec<f32> = parse::list("weights", model.weights, features + 1)?;
    number::check_finite("weights", &weights, features + 1)
}
