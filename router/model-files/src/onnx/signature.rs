//! What a model takes and gives.

use std::collections::HashSet;

use super::super::error::{Malformed, at_most, shown};
use super::super::limits::Limits;
use super::TensorShape;
use super::proto::{Dimension, Entry, Graph, Type, ValueInfo};
use super::tensors;

/// A graph's inputs. Initializers that are also listed there, as old versions wanted it, are none.
pub(super) fn inputs(graph: &Graph, limits: &Limits) -> Result<Vec<TensorShape>, Malformed> {
    let dense = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref()?.name.as_deref());
    let initializers: HashSet<&str> = dense.chain(sparse).collect();
    let inputs = graph.input.iter().filter(|input| !initializers.contains(input.name.as_deref().unwrap_or_default()));
    values("input", inputs, limits)
}

/// A graph's outputs.
pub(super) fn outputs(graph: &Graph, limits: &Limits) -> Result<Vec<TensorShape>, Malformed> {
    let outputs = values("output", graph.output.iter(), limits)?;
    if outputs.is_empty() { Err(Malformed::new("outputs", "there must be one at least")) } else { Ok(outputs) }
}

fn values<'a>(kind: &str, values: impl Iterator<Item = &'a ValueInfo>, limits: &Limits) -> Result<Vec<TensorShape>, Malformed> {
    let mut shapes: Vec<TensorShape> = Vec::new();
    let mut seen = HashSet::new();
    for (place, value) in values.enumerate() {
        at_most(format_args!("{kind}s"), place + 1, limits.features)?;
        let name = value.name.as_deref().unwrap_or_default();
        at_most(format_args!("bytes of the name of {kind} {place}"), name.len(), limits.name_bytes)?;
        let place = format!("{kind} {place}, {}", shown(name));
        if name.is_empty() || !seen.insert(name) {
            return Err(Malformed::new(place, "must have a name of its own"));
        }
        let Some((element, shape)) = value.of.as_ref().and_then(read_type) else {
            return Err(Malformed::new(place, "has no type, or none that ONNX has"));
        };
        shapes.push(TensorShape { name: name.to_owned(), element: element.to_owned(), shape });
    }
    Ok(shapes)
}

fn read_type(of: &Type) -> Option<(&'static str, Option<Vec<i64>>)> {
    if let Some(tensor) = &of.tensor {
        let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect());
        return Some((tensors::element(tensor.elem_type)?.name, shape));
    }
    let others = [(&of.sequence, "sequence"), (&of.map, "map"), (&of.optional, "optional"), (&of.sparse_tensor, "sparse")];
    others.iter().find(|(other, _)| other.is_some()).map(|(_, name)| (*name, None))
}

/// A dimension's size, or -1.
pub(super) fn dimension(dimension: &Dimension) -> i64 {
    // A size of 0 is what some exporters write for a free one.
    dimension.dim_value.filter(|size| *size > 0 && dimension.dim_param.is_none()).unwrap_or(-1)
}

/// The metadata `feature_names`, which must fit the one input.
pub(super) fn feature_names(metadata: &[Entry], inputs: &[TensorShape], limits: &Limits) -> Result<Vec<String>, Malformed> {
    let mut texts = metadata.iter().filter(|entry| entry.key.as_deref() == Some("feature_names"));
    let Some(text) = texts.next() else { return Ok(Vec::new()) };
    let place = "metadata feature_names";
    if texts.next().is_some() {
        return Err(Malformed::new(place, "is there twice"));
    }
    let names: Vec<String> = serde_json::from_str(text.value.as_deref().unwrap_or_default())
        .map_err(|error| Malformed::new(place, format!("must be a JSON list of texts: {error}")))?;
    at_most(place, names.len(), limits.features)?;
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        at_most(format_args!("bytes of {place}[{index}]"), name.len(), limits.name_bytes)?;
        if !seen.insert(name) {
            return Err(Malformed::new(format!("{place}[{index}] = {}", shown(name)), "is there twice"));
        }
    }
    if let [TensorShape { shape: Some(shape), .. }] = inputs {
        let width = shape.last().copied().filter(|width| *width > 0);
        if let Some(width) = width.filter(|width| usize::try_from(*width) != Ok(names.len())) {
            return Err(Malformed::new(place, format!("has {} names: must be {width}, as the input is wide", names.len())));
        }
    }
    Ok(names)
}
