//! Attributes of nodes.

use super::super::error::{Malformed, shown};
use super::proto::{Attribute, Node, Tensor};
use super::tensors::{self, Numbers};

impl Node {
    /// Its attribute of that name.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// A list of whole numbers, empty where there is none.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map(|attribute| attribute.ints.as_slice()).unwrap_or_default()
    }

    /// A whole number.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    /// A tensor.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.attribute(name)?.t.as_deref()
    }

    /// What an operator is called: with its domain before it, unless that is `ai.onnx`.
    pub(super) fn operator(&self) -> String {
        let operator = self.op_type.as_deref().unwrap_or_default();
        match super::opsets::canonical(self.domain.as_deref()) {
            "ai.onnx" => operator.to_owned(),
            domain => format!("{domain}.{operator}"),
        }
    }
}

/// Which numbers a node's attribute may hold.
fn numbers_of(node: &Node, attribute: &str) -> Numbers {
    let operator = node.op_type.as_deref().unwrap_or_default();
    if node.domain.as_deref() != Some("ai.onnx.ml") {
        return Numbers::NotNan;
    }
    match (operator, attribute) {
        // NaN is what they look for, or what parts one set from the next.
        ("Imputer" | "LabelEncoder" | "CategoryMapper", _) | ("TreeEnsemble", "membership_values") => Numbers::Any,
        (_, "nodes_hitrates" | "nodes_hitrates_as_tensor") => Numbers::Any,
        // A threshold beyond what 32 bits hold: LightGBM's 1e300 for infinite, and scikit-learn's infinite for what is missing.
        (_, "nodes_values" | "nodes_values_as_tensor" | "nodes_splits") => Numbers::NotNan,
        _ => Numbers::Finite,
    }
}

/// Checks an attribute's values, but for its graphs. Gives how many numbers are in its lists and tensors.
pub(super) fn check(node: &Node, attribute: &Attribute, most: u64) -> Result<u64, Malformed> {
    let name = attribute.name.as_deref().unwrap_or_default();
    let place = || format!("attribute {}", shown(name));
    check_kind(attribute).map_err(|what| Malformed::new(place(), what))?;
    let take = numbers_of(node, name);
    if attribute.f.is_some_and(|number| !take.takes(f64::from(number))) {
        return Err(Malformed::new(place(), take.what()));
    }
    if let Some(index) = attribute.floats.iter().position(|number| !take.takes(f64::from(*number))) {
        return Err(Malformed::new(format!("{}[{index}]", place()), take.what()));
    }
    let mut count = u64::try_from(attribute.floats.len()).unwrap_or(u64::MAX);
    for tensor in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
        count = count.saturating_add(tensors::check(tensor, take).map_err(|fault| fault.within(place()))?);
    }
    for sparse in attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors) {
        count = count.saturating_add(tensors::check_sparse(sparse, take, most).map_err(|fault| fault.within(place()))?);
    }
    Ok(if name.starts_with("nodes_hitrates") { 0 } else { count })
}

/// One kind of value, and the one that its type says, by `AttributeProto.AttributeType`.
fn check_kind(attribute: &Attribute) -> Result<(), &'static str> {
    let values = [
        (1, attribute.f.is_some()),
        (2, attribute.i.is_some()),
        (3, attribute.s.is_some()),
        (4, attribute.t.is_some()),
        (5, attribute.g.is_some()),
        (6, !attribute.floats.is_empty()),
        (7, !attribute.ints.is_empty()),
        (8, !attribute.strings.is_empty()),
        (9, !attribute.tensors.is_empty()),
        (10, !attribute.graphs.is_empty()),
        (11, attribute.sparse_tensor.is_some()),
        (12, !attribute.sparse_tensors.is_empty()),
    ];
    let mut present = values.iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| *kind);
    match (attribute.kind.unwrap_or(0), present.next(), present.next()) {
        (_, _, Some(_)) => Err("has values of several types"),
        (0, _, _) | (_, None, _) => Ok(()),
        (kind, Some(present), None) if kind == present => Ok(()),
        _ => Err("has a value of another type than it says"),
    }
}
