//! All graphs of a model: the main one, those in attributes of nodes, and the bodies of functions. Without recursion: each is put on a
//! list.

use std::collections::BTreeMap;

use super::super::error::{Malformed, at_most, shown};
use super::super::limits::Limits;
use super::constants::{Constant, Constants};
use super::functions::{Body, Functions, check_calls};
use super::opsets::Opsets;
use super::proto::{Graph, Model, Node};
use super::tensors::{self, Numbers};
use super::widths::Widths;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) operators: BTreeMap<String, usize>,
    pub(super) parameters: u64,
    pub(super) loops: u32,
    pub(super) trees: usize,
    pub(super) tree_nodes: usize,
    pub(super) unknown_widths: usize,
    pub(super) made: u64,
    nodes: usize,
}

/// A graph, or the body of a function.
pub(super) struct Part<'a> {
    pub(super) nodes: &'a [Node],
    graph: Option<&'a Graph>,
    /// The part that it is in.
    parent: Option<usize>,
    /// Which of the bodies it belongs to.
    pub(super) body: usize,
    pub(super) imports: &'a BTreeMap<String, i64>,
    pub(super) place: String,
    constants: Constants<'a>,
    pub(super) widths: Widths<'a>,
}

impl<'a> Part<'a> {
    fn graph(graph: &'a Graph, place: String, body: usize, imports: &'a BTreeMap<String, i64>) -> Part<'a> {
        let constants = Constants::read(&graph.initializer, &graph.node);
        Part { nodes: &graph.node, graph: Some(graph), parent: None, body, imports, place, constants, widths: Widths::read(graph) }
    }
}

/// All of it, on the way through.
pub(super) struct Survey<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) bodies: Vec<Body>,
    pub(super) functions: Functions<'a>,
    pub(super) opsets: &'a Opsets,
    pub(super) limits: &'a Limits,
    pub(super) found: Found,
}

/// Looks at all graphs and functions.
pub(super) fn survey<'a>(
    model: &'a Model,
    graph: &'a Graph,
    imports: &'a BTreeMap<String, i64>,
    limits: &'a Limits,
    opsets: &'a Opsets,
) -> Result<Found, Malformed> {
    let functions = Functions::read(&model.functions, opsets)?;
    let mut of_functions = Vec::new();
    for (place, function) in model.functions.iter().enumerate() {
        of_functions.push(opsets.read(&function.opset_import).map_err(|fault| fault.within(format_args!("function {place}")))?);
    }
    let main = model.functions.len();
    let mut survey =
        Survey { parts: Vec::new(), bodies: vec![Body::default(); main + 1], functions, opsets, limits, found: Found::default() };
    survey.parts.push(Part::graph(graph, "graph".to_owned(), main, imports));
    for (place, training) in model.training_info.iter().enumerate() {
        for graph in training.initialization.iter().chain(&training.algorithm) {
            survey.parts.push(Part::graph(graph, format!("training_info {place}"), main, imports));
        }
    }
    for (body, (function, imports)) in model.functions.iter().zip(&of_functions).enumerate() {
        let place = format!("function {}", shown(function.name.as_deref().unwrap_or_default()));
        let constants = Constants::read(&[], &function.node);
        let (nodes, widths) = (function.node.as_slice(), Widths::default());
        survey.parts.push(Part { nodes, graph: None, parent: None, body, imports, place: place.clone(), constants, widths });
        // Values of attributes that a call leaves out.
        for attribute in &function.attribute_proto {
            survey.attribute(survey.parts.len() - 1, &Node::default(), attribute).map_err(|fault| fault.within(&place))?;
        }
    }
    survey.run()?;
    check_calls(&survey.bodies, limits.graph_nodes)?;
    Ok(survey.found)
}

impl<'a> Survey<'a> {
    fn run(&mut self) -> Result<(), Malformed> {
        let mut place = 0;
        while let Some(part) = self.parts.get(place) {
            let (nodes, graph, name) = (part.nodes, part.graph, part.place.clone());
            if let Some(graph) = graph {
                self.initializers(graph).map_err(|fault| fault.within(&name))?;
            }
            self.found.nodes += nodes.len();
            at_most("nodes of all graphs", self.found.nodes, self.limits.graph_nodes)?;
            for (number, node) in nodes.iter().enumerate() {
                self.node(place, node).map_err(|fault| fault.within(format_args!("{name}: node {number}, {}", shown(&node.operator()))))?;
            }
            place += 1;
        }
        Ok(())
    }

    fn initializers(&mut self, graph: &Graph) -> Result<(), Malformed> {
        for tensor in &graph.initializer {
            self.found.parameters = self.found.parameters.saturating_add(tensors::check(tensor, Numbers::Finite)?);
        }
        for sparse in &graph.sparse_initializer {
            let count = tensors::check_sparse(sparse, Numbers::Finite, self.limits.made_numbers)?;
            self.found.parameters = self.found.parameters.saturating_add(count);
        }
        Ok(())
    }

    /// Puts a graph within a part on the list.
    pub(super) fn push(&mut self, parent: usize, graph: &'a Graph, name: &str) {
        let Some(around) = self.parts.get(parent) else { return };
        let place = format!("{}: {}", around.place, shown(name));
        let mut part = Part::graph(graph, place, around.body, around.imports);
        part.parent = Some(parent);
        self.parts.push(part);
    }

    /// A value that is known, in a part or around it.
    pub(super) fn constant(&self, part: usize, name: &str) -> Option<Constant<'a>> {
        let mut at = Some(part);
        while let Some(part) = at.and_then(|part| self.parts.get(part)) {
            if let Some(value) = part.constants.find(name) {
                return Some(value);
            }
            at = part.parent;
        }
        None
    }
}
