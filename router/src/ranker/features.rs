//! Features of a document as they come in, a list or an object by name, and how they become a row for the model.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::onnx::Signature;

/// Names listed in an error, before "and so many more".
const NAMES_SHOWN: usize = 5;

/// The features of one document: `[0.5, 1]` in the model's order, or `{"bm25_title": 0.5, ...}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Features {
    List(Vec<f32>),
    Named(Vec<(String, f32)>),
}

/// A finite 32-bit number: JSON knows no others, but 1e39 does not fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finite(pub(super) f32);

impl Features {
    /// Appends the document's row. `Err` says what is wrong, without saying which document.
    pub(super) fn append_to(&self, rows: &mut Vec<f32>, signature: &Signature) -> Result<(), String> {
        match self {
            Features::List(values) if values.len() == signature.features => {
                rows.extend_from_slice(values);
                Ok(())
            }
            Features::List(values) => Err(format!("{} features; the model takes {}", values.len(), signature.features)),
            Features::Named(_) if signature.feature_names.is_empty() => {
                Err(format!("features by name, but the model's file does not name them; send a list of {}", signature.features))
            }
            Features::Named(values) => append_named(values, rows, signature),
        }
    }
}

/// Every feature exactly once: one that is silently taken as 0 is how training and serving drift apart.
fn append_named(values: &[(String, f32)], rows: &mut Vec<f32>, signature: &Signature) -> Result<(), String> {
    let mut row = vec![f32::NAN; signature.features];
    for (name, value) in values {
        let place = signature.places.get(name).and_then(|place| row.get_mut(*place));
        let Some(place) = place else { return Err(format!("the model has no feature `{name}`")) };
        if !place.is_nan() {
            return Err(format!("the feature `{name}` is given twice"));
        }
        *place = *value;
    }
    let missing: Vec<&str> =
        row.iter().zip(&signature.feature_names).filter(|(value, _)| value.is_nan()).map(|(_, name)| name.as_str()).collect();
    if missing.is_empty() {
        rows.extend(row);
        return Ok(());
    }
    let shown = missing.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    let more = missing.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(format!("{} of {} features are missing: {shown}{more}", missing.len(), signature.features))
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Features, D::Error> {
        deserializer.deserialize_any(FeaturesVisitor)
    }
}

struct FeaturesVisitor;

impl<'de> Visitor<'de> for FeaturesVisitor {
    type Value = Features;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of numbers, or an object of numbers by feature name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Features, A::Error> {
        let mut values = Vec::new();
        while let Some(Finite(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Features::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Features, A::Error> {
        let mut values = Vec::new();
        while let Some((name, Finite(value))) = object.next_entry()? {
            values.push((name, value));
        }
        Ok(Features::Named(values))
    }
}

impl<'de> Deserialize<'de> for Finite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Finite, D::Error> {
        deserializer.deserialize_any(FiniteVisitor)
    }
}

pub(super) struct FiniteVisitor;

impl Visitor<'_> for FiniteVisitor {
    type Value = Finite;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a finite number")
    }

    #[expect(clippy::cast_possible_truncation, reason = "models take 32-bit numbers; too large becomes infinite, which is refused")]
    fn visit_f64<E: Error>(self, value: f64) -> Result<Finite, E> {
        let narrow = value as f32;
        if narrow.is_finite() { Ok(Finite(narrow)) } else { Err(E::custom(format!("{value:e} is no finite 32-bit number"))) }
    }

    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Finite, E> {
        Ok(Finite(value as f32))
    }

    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Finite, E> {
        Ok(Finite(value as f32))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(in super::super) fn signature(names: &[&str]) -> Signature {
        Signature {
            input: "features".into(),
            features: names.len(),
            feature_names: names.iter().map(|name| (*name).to_owned()).collect(),
            places: names.iter().enumerate().map(|(place, name)| ((*name).to_owned(), place)).collect(),
            output: "variable".into(),
            output_is_column: true,
        }
    }

    fn row(json: &str) -> Result<Vec<f32>, String> {
        let features: Features = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        features.append_to(&mut rows, &signature(&["bm25", "price"])).map(|()| rows)
    }

    #[test]
    fn a_list_and_an_object_in_any_order_give_the_same_row() {
        assert_eq!(row("[1, -2.5]"), Ok(vec![1.0, -2.5]));
        assert_eq!(row(r#"{"price": -2.5, "bm25": 1}"#), Ok(vec![1.0, -2.5]));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        let wrong = [
            ("[1]", "1 features; the model takes 2"),
            ("[1, 2, 3]", "3 features; the model takes 2"),
            ("[1, null]", "null"),
            ("[1, \"2\"]", "string \"2\""),
            ("[1, 1e39]", "1e39 is no finite 32-bit number"),
            ("[1, NaN]", "expected"),
            (r#"{"bm25": 1}"#, "1 of 2 features are missing: price"),
            (r#"{"bm25": 1, "price": 2, "colour": 3}"#, "no feature `colour`"),
            (r#"{"bm25": 1, "price": 2, "price": 3}"#, "`price` is given twice"),
            ("7", "expected a list of numbers"),
        ];
        for (json, expected) in wrong {
            let error = row(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn a_model_without_names_takes_no_names() {
        let mut nameless = signature(&["a", "b"]);
        nameless.feature_names.clear();
        let features = Features::Named(vec![("a".into(), 1.0)]);
        assert!(features.append_to(&mut Vec::new(), &nameless).unwrap_err().contains("does not name them"));
    }
}
