//! One node.

use super::super::error::{Malformed, at_most, shown};
use super::opsets::canonical;
use super::proto::{Attribute, Node};
use super::survey::Survey;
use super::{attributes, ensemble, made};

/// Operators that run a part of the model again and again, the runtime's own searches among them.
const LOOPS: [&str; 7] = ["Loop", "Scan", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"];
/// Attributes of a node: no operator has as many.
const MOST_ATTRIBUTES: usize = 256;

impl<'a> Survey<'a> {
    pub(super) fn node(&mut self, part: usize, node: &'a Node) -> Result<(), Malformed> {
        self.operator(part, node)?;
        at_most("attributes", node.attribute.len(), MOST_ATTRIBUTES)?;
        for (place, attribute) in node.attribute.iter().enumerate() {
            if node.attribute.iter().take(place).any(|other| other.name == attribute.name) {
                let name = shown(attribute.name.as_deref().unwrap_or_default());
                return Err(Malformed::new(format!("attribute {name}"), "is there twice"));
            }
            self.attribute(part, node, attribute)?;
        }
        self.makes(part, node)?;
        self.ensemble(part, node)
    }

    /// The runtime has it, or the model defines it.
    fn operator(&mut self, part: usize, node: &Node) -> Result<(), Malformed> {
        let domain = canonical(node.domain.as_deref());
        let operator = node.op_type.as_deref().unwrap_or_default();
        at_most("bytes of the operator's name", operator.len().saturating_add(domain.len()), self.limits.name_bytes)?;
        let Some((body, imports)) = self.parts.get(part).map(|part| (part.body, part.imports)) else { return Ok(()) };
        let called = self.functions.called(node);
        if called.is_none() && !self.opsets.has(domain) {
            let what = "is a custom operator, which would have to be loaded as code: must be one of ai.onnx, ai.onnx.ml, com.microsoft, or a function of the model";
            return Err(Malformed::new(format!("operator {} of domain {}", shown(operator), shown(domain)), what));
        }
        if operator.is_empty() || !imports.contains_key(domain) {
            return Err(Malformed::new(format!("operator {}", shown(operator)), format!("its domain {} is not imported", shown(domain))));
        }
        if let Some(body) = self.bodies.get_mut(body) {
            body.nodes += 1;
            body.calls.extend(called);
        }
        if LOOPS.contains(&operator) {
            self.found.loops = self.found.loops.saturating_add(1);
        }
        *self.found.operators.entry(node.operator()).or_default() += 1;
        Ok(())
    }

    /// Its values are checked, its graphs put on the list.
    pub(super) fn attribute(&mut self, part: usize, node: &Node, attribute: &'a Attribute) -> Result<(), Malformed> {
        let count = attributes::check(node, attribute, self.limits.made_numbers)?;
        self.found.parameters = self.found.parameters.saturating_add(count);
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            self.push(part, graph, attribute.name.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    /// What all nodes make together is limited: any number of them may run.
    fn makes(&mut self, part: usize, node: &'a Node) -> Result<(), Malformed> {
        let numbers = made::numbers(node, |name| self.constant(part, name));
        self.found.made = self.found.made.saturating_add(numbers);
        let most = self.limits.made_numbers;
        if self.found.made > most {
            let what = format!("with those before it, makes {} numbers: must be at most {most}", self.found.made);
            return Err(Malformed::new("its output", what));
        }
        Ok(())
    }

    fn ensemble(&mut self, part: usize, node: &'a Node) -> Result<(), Malformed> {
        if !ensemble::is_one(node) {
            return Ok(());
        }
        let input = node.input.first().map(String::as_str).unwrap_or_default();
        let width = self.parts.get(part).and_then(|part| part.widths.find(input));
        if width.is_none() {
            self.found.unknown_widths += 1;
        }
        let found = ensemble::check(node, width, self.limits)?;
        (self.found.trees, self.found.tree_nodes) = (self.found.trees + found.trees, self.found.tree_nodes + found.nodes);
        at_most("trees of all ensembles", self.found.trees, self.limits.trees)?;
        at_most("nodes of all trees", self.found.tree_nodes, self.limits.nodes)
    }
}
