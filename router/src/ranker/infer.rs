//! `POST /v2/models/{m}[/versions/{v}]/infer`: JSON tensors of the Open Inference Protocol.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::features::Finite;
use super::refusal::{Refusal, read_json};
use crate::onnx::{Model, Signature};

#[derive(Debug, Deserialize)]
struct Request {
    id: Option<String>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Flat,
}

#[derive(Debug, Deserialize)]
struct WantedOutput {
    name: String,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: [Output<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    name: &'a str,
    shape: Vec<usize>,
    datatype: &'a str,
    data: &'a [f32],
}

/// Reads, checks the shape, scores; blocks. `documents_at_most` limits the first dimension.
pub(super) fn infer(model: &Model, body: &[u8], documents_at_most: usize) -> Result<Vec<u8>, Refusal> {
    let request: Request = read_json(body)?;
    let rows = check(&request, &model.signature, documents_at_most)?;
    let scores = model.score(rows).map_err(Refusal::fault)?;
    let shape = if model.signature.output_is_column { vec![scores.len(), 1] } else { vec![scores.len()] };
    let answer = Answer {
        model_name: &model.name,
        model_version: model.version.to_string(),
        id: request.id.as_deref(),
        outputs: [Output { name: &model.signature.output, shape, datatype: "FP32", data: &scores }],
    };
    serde_json::to_vec(&answer).map_err(|error| Refusal::fault(error.to_string()))
}

/// The rows of the one input, once its name, type, shape and data agree with the model and with each other.
fn check<'a>(request: &'a Request, signature: &Signature, documents_at_most: usize) -> Result<&'a [f32], Refusal> {
    let [input] = request.inputs.as_slice() else {
        let (given, name) = (request.inputs.len(), &signature.input);
        return Err(Refusal::bad(format!("inputs: {given} tensors; the model takes one, `{name}`")));
    };
    if input.name != signature.input {
        return Err(Refusal::bad(format!("inputs[0].name: `{}`; the model takes `{}`", input.name, signature.input)));
    }
    if input.datatype != "FP32" {
        return Err(Refusal::bad(format!("inputs[0].datatype: `{}`; the model takes FP32", input.datatype)));
    }
    let features = i64::try_from(signature.features).unwrap_or(i64::MAX);
    let documents = match input.shape.as_slice() {
        [documents, width] if *width == features && *documents >= 0 => usize::try_from(*documents).unwrap_or(usize::MAX),
        other => return Err(Refusal::bad(format!("inputs[0].shape: {other:?}; the model takes [documents, {features}]"))),
    };
    if documents > documents_at_most {
        return Err(Refusal::bad(format!("inputs[0].shape: {documents} documents; one query may have {documents_at_most}")));
    }
    let wanted = documents.saturating_mul(signature.features);
    if input.data.0.len() != wanted {
        let (given, shape) = (input.data.0.len(), &input.shape);
        return Err(Refusal::bad(format!("inputs[0].data: {given} numbers; the shape {shape:?} wants {wanted}")));
    }
    match request.outputs.iter().find(|output| output.name != signature.output) {
        Some(output) => Err(Refusal::bad(format!("outputs: the model has no output `{}`; it has `{}`", output.name, signature.output))),
        None => Ok(&input.data.0),
    }
}

/// Tensor data: one list, or a list of rows. At most two levels, as a ranking model's input has two dimensions.
#[derive(Debug)]
struct Flat(Vec<f32>);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flat, D::Error> {
        deserializer.deserialize_seq(FlatVisitor)
    }
}

struct FlatVisitor;

impl<'de> Visitor<'de> for FlatVisitor {
    type Value = Flat;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of numbers, or a list of rows of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Flat, A::Error> {
        let mut values = Vec::new();
        while let Some(item) = list.next_element::<Item>()? {
            match item {
                Item::Number(value) => values.push(value),
                Item::Row(row) => values.extend(row),
            }
        }
        Ok(Flat(values))
    }
}

enum Item {
    Number(f32),
    Row(Vec<f32>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a finite number, or a row of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut row = Vec::new();
        while let Some(Finite(value)) = list.next_element()? {
            row.push(value);
        }
        Ok(Item::Row(row))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Item, E> {
        super::features::FiniteVisitor.visit_f64(value).map(|Finite(value)| Item::Number(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Item, E> {
        super::features::FiniteVisitor.visit_u64(value).map(|Finite(value)| Item::Number(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Item, E> {
        super::features::FiniteVisitor.visit_i64(value).map(|Finite(value)| Item::Number(value))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::features::tests::signature;
    use super::*;

    /// The rows that a body comes to.
    pub(in super::super) fn rows_of(body: &[u8], signature: &Signature, documents_at_most: usize) -> Result<Vec<f32>, Refusal> {
        let request: Request = read_json(body)?;
        check(&request, signature, documents_at_most).map(<[f32]>::to_vec)
    }

    fn checked(inputs: &str) -> Result<Vec<f32>, String> {
        let request: Request = read_json(format!(r#"{{"inputs": {inputs}}}"#).as_bytes()).map_err(|refusal| refusal.message)?;
        check(&request, &signature(&["x", "y"]), 3).map(<[f32]>::to_vec).map_err(|refusal| refusal.message)
    }

    #[test]
    fn data_may_be_flat_or_in_rows() {
        let flat = r#"[{"name": "features", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]}]"#;
        let rows = r#"[{"name": "features", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4.5]]}]"#;
        assert_eq!(checked(flat), Ok(vec![1.0, 2.0, 3.0, 4.5]));
        assert_eq!(checked(rows), checked(flat));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let input =
            |name, shape, datatype, data| format!(r#"[{{"name": "{name}", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}]"#);
        let wrong = [
            (input("x", "[1, 2]", "FP32", "[1, 2]"), "inputs[0].name: `x`; the model takes `features`"),
            (input("features", "[1, 2]", "FP64", "[1, 2]"), "the model takes FP32"),
            (input("features", "[1, 3]", "FP32", "[1, 2, 3]"), "inputs[0].shape: [1, 3]; the model takes [documents, 2]"),
            (input("features", "[-1, 2]", "FP32", "[1, 2]"), "inputs[0].shape: [-1, 2]"),
            (input("features", "[2]", "FP32", "[1, 2]"), "inputs[0].shape: [2]"),
            (input("features", "[2, 2]", "FP32", "[1, 2]"), "inputs[0].data: 2 numbers; the shape [2, 2] wants 4"),
            (input("features", "[4, 2]", "FP32", "[1, 2]"), "4 documents; one query may have 3"),
            (input("features", "[1, 2]", "FP32", "[1, 1e99]"), "1e99 is no finite 32-bit number"),
            (input("features", "[1, 2]", "FP32", "[1, null]"), "inputs[0].data[1]"),
            ("[]".to_owned(), "inputs: 0 tensors"),
        ];
        for (inputs, expected) in wrong {
            let error = checked(&inputs).unwrap_err();
            assert!(error.contains(expected), "{inputs}: {error}");
        }
    }
}
