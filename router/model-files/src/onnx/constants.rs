//! Values that are known without running anything.

use std::collections::HashMap;

use super::floats;
use super::proto::{Node, Tensor};

/// Numbers of a shape that are looked at.
const MOST_NUMBERS: usize = 64;

/// A value in the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Constant<'a> {
    Tensor(&'a Tensor),
    Ints(&'a [i64]),
    Int(i64),
    Float(f32),
}

/// The values of a graph that are known, by name.
#[derive(Debug, Default)]
pub(super) struct Constants<'a> {
    values: HashMap<&'a str, Constant<'a>>,
}

impl<'a> Constants<'a> {
    /// Initializers, and what nodes `Constant` give.
    pub(super) fn read(initializers: &'a [Tensor], nodes: &'a [Node]) -> Constants<'a> {
        let mut values = HashMap::new();
        for tensor in initializers {
            values.insert(tensor.name.as_deref().unwrap_or_default(), Constant::Tensor(tensor));
        }
        for node in nodes.iter().filter(|node| node.op_type.as_deref() == Some("Constant")) {
            if let Some((output, value)) = node.output.first().zip(read_constant(node)) {
                values.insert(output.as_str(), value);
            }
        }
        Constants { values }
    }

    /// The value of that name.
    pub(super) fn find(&self, name: &str) -> Option<Constant<'a>> {
        self.values.get(name).copied()
    }
}

fn read_constant(node: &Node) -> Option<Constant<'_>> {
    let attribute = node.attribute.first()?;
    match attribute.name.as_deref()? {
        "value" => attribute.t.as_deref().map(Constant::Tensor),
        "value_int" => attribute.i.map(Constant::Int),
        "value_float" => attribute.f.map(Constant::Float),
        "value_ints" => Some(Constant::Ints(&attribute.ints)),
        _ => None,
    }
}

impl Constant<'_> {
    /// As whole numbers, if it is not too many.
    pub(super) fn whole(self) -> Option<Vec<i64>> {
        match self {
            Constant::Tensor(tensor) => floats::whole(tensor, MOST_NUMBERS),
            Constant::Ints(numbers) => (numbers.len() <= MOST_NUMBERS).then(|| numbers.to_vec()),
            Constant::Int(number) => Some(vec![number]),
            Constant::Float(_) => None,
        }
    }

    /// As one number with a point.
    pub(super) fn decimal(self) -> Option<f64> {
        if let Some([number]) = self.whole().as_deref() {
            // What is lost beyond 53 bits does not matter for a size.
            #[allow(clippy::cast_precision_loss)]
            return Some(*number as f64);
        }
        match self {
            Constant::Tensor(tensor) if super::tensors::product(&tensor.dims) == Some(1) => floats::all(tensor)?.first().copied(),
            Constant::Float(number) => Some(f64::from(number)),
            _ => None,
        }
    }
}
