//! How many features a node's input has, as far as the file says.

use std::collections::HashMap;

use super::proto::{Graph, Node};
use super::signature::dimension;

/// Nodes that a width is followed through.
const MOST_STEPS: usize = 32;

/// The last dimensions of a graph's values, and which node makes each value from a single one of the same width.
#[derive(Debug, Default)]
pub(super) struct Widths<'a> {
    known: HashMap<&'a str, i64>,
    same: HashMap<&'a str, &'a str>,
}

impl<'a> Widths<'a> {
    pub(super) fn read(graph: &'a Graph) -> Widths<'a> {
        let mut widths = Widths::default();
        for value in graph.value_info.iter().chain(&graph.input) {
            let shape = value.of.as_ref().and_then(|of| of.tensor.as_ref()?.shape.as_ref());
            let width = shape.and_then(|shape| shape.dim.last()).map(dimension).filter(|width| *width > 0);
            if let Some(width) = width {
                widths.known.insert(value.name.as_deref().unwrap_or_default(), width);
            }
        }
        for node in graph.node.iter().filter(|node| keeps_width(node)) {
            if let Some((input, output)) = node.input.first().zip(node.output.first()) {
                widths.same.insert(output, input);
            }
        }
        widths
    }

    /// Of the value of that name.
    pub(super) fn find(&self, name: &'a str) -> Option<i64> {
        let mut name = name;
        for _ in 0..MOST_STEPS {
            if let Some(width) = self.known.get(name) {
                return Some(*width);
            }
            name = self.same.get(name)?;
        }
        None
    }
}

fn keeps_width(node: &Node) -> bool {
    matches!(node.op_type.as_deref(), Some("Identity" | "Cast" | "Dropout" | "Scaler" | "Imputer" | "Normalizer" | "Binarizer"))
}
