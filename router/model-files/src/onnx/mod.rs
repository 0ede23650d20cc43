//! A look at an ONNX file before ONNX Runtime sees it.
//!
//! Invariant: of what passes, every tensor is in the file and as large as it says, every operator is one that the runtime has or a
//! function made of such, and every tree
//! ensemble is a set of trees. What a graph computes is not known from a look: time and memory of a run are for the limits of whoever
//! runs it.

mod attributes;
mod constants;
mod ensemble;
mod floats;
mod functions;
mod made;
mod nodes;
mod opsets;
mod proto;
#[cfg(test)]
pub(super) mod samples;
mod schema;
mod signature;
mod survey;
mod tensors;
mod trees;
mod widths;
mod wire;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::error::{Malformed, at_most};
use super::limits::Limits;
pub use opsets::Opsets;
pub use tensors::OTHER_FILE;

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name.
    pub name: String,
    /// Its elements' type, as numpy names it: `float32`, `int64`, `string`; or `sequence`, `map`, `optional`, `sparse`.
    pub element: String,
    /// Its dimensions, -1 for a free one; none where the file does not say how many there are.
    pub shape: Option<Vec<i64>>,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxShape {
    /// The version of the format.
    pub ir_version: i64,
    /// The domains it uses and their versions; `ai.onnx` by that name.
    pub opsets: BTreeMap<String, i64>,
    /// What wrote it, and its version: `skl2onnx 1.20.0`. Empty where the file does not say.
    pub producer: String,
    /// What it takes; initializers that are listed as inputs are none.
    pub inputs: Vec<TensorShape>,
    /// What it gives.
    pub outputs: Vec<TensorShape>,
    /// How often each operator is in it, subgraphs and functions included; with its domain before it, unless that is `ai.onnx`.
    pub operators: BTreeMap<String, usize>,
    /// Numbers in initializers, and in the lists and tensors of nodes, tree ensembles' thresholds and weights among them.
    pub parameters: u64,
    /// Operators that run a part of the model again and again.
    pub loops: u32,
    /// Names of the features, in order, from the metadata `feature_names`, a JSON list; empty where there is none.
    pub feature_names: Vec<String>,
    /// Trees of all ensembles.
    pub trees: usize,
    /// Tree ensembles whose input's width the file does not say, so that a feature beyond it would not have been seen.
    pub ensembles_of_unknown_width: usize,
}

/// Reads a model, of which it makes a copy.
///
/// # Errors
/// What is no ONNX, or none that the runtime of `opsets` takes; data in other files; custom operators; what does not agree with itself;
/// one over the limits.
pub fn read(bytes: &[u8], limits: &Limits, opsets: &Opsets) -> Result<OnnxShape, Malformed> {
    // Before there is a copy of what is no ONNX at all.
    wire::check(bytes, limits)?;
    decode(Bytes::copy_from_slice(bytes), limits, opsets)
}

/// Reads a model without copying its tensors.
///
/// # Errors
/// As [`read`].
pub fn read_shared(bytes: Bytes, limits: &Limits, opsets: &Opsets) -> Result<OnnxShape, Malformed> {
    wire::check(&bytes, limits)?;
    decode(bytes, limits, opsets)
}

fn decode(bytes: Bytes, limits: &Limits, opsets: &Opsets) -> Result<OnnxShape, Malformed> {
    let model = proto::Model::decode(bytes).map_err(|error| Malformed::new("the file", format!("is not ONNX: {error}")))?;
    let ir_version = model.ir_version.unwrap_or(0);
    if !opsets.ir.contains(&ir_version) {
        let what = format!("must be from {} to {}", opsets.ir.start(), opsets.ir.end());
        return Err(Malformed::new(format!("ir_version = {ir_version}"), what));
    }
    let imports = opsets.read(&model.opset_import)?;
    let Some(graph) = &model.graph else { return Err(Malformed::new("graph", "is missing")) };
    let found = survey::survey(&model, graph, &imports, limits, opsets)?;
    let inputs = signature::inputs(graph, limits)?;
    let outputs = signature::outputs(graph, limits)?;
    let feature_names = signature::feature_names(&model.metadata_props, &inputs, limits)?;
    let producer =
        [model.producer_name.as_deref(), model.producer_version.as_deref()].map(Option::unwrap_or_default).join(" ").trim().to_owned();
    at_most("bytes of the producer's name", producer.len(), limits.name_bytes)?;
    Ok(OnnxShape {
        ir_version,
        opsets: imports,
        producer,
        inputs,
        outputs,
        operators: found.operators,
        parameters: found.parameters,
        loops: found.loops,
        feature_names,
        trees: found.trees,
        ensembles_of_unknown_width: found.unknown_widths,
    })
}

#[cfg(test)]
mod tests;
