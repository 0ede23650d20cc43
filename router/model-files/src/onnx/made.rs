//! Tensors that a node makes out of a few numbers: as far as these are in the file, so is the size of what it makes.
//!
//! What is out of reach: a shape that is computed, even from constants; a loop that appends; a product of tensors that are each small.

use super::constants::Constant;
use super::proto::Node;

/// Numbers in the tensor that a node makes, as far as the file says: 0 where it does not. Of a size that cannot be, `u64::MAX`.
pub(super) fn numbers<'a>(node: &'a Node, find: impl Fn(&str) -> Option<Constant<'a>>) -> u64 {
    let input = |place: usize| node.input.get(place).and_then(|name| find(name));
    let product = |place: usize| input(place).and_then(Constant::whole).map_or(0, |sizes| product(&sizes));
    let largest = |sizes: Vec<i64>| sizes.into_iter().map(i64::unsigned_abs).max().unwrap_or(0);
    match node.op_type.as_deref().unwrap_or_default() {
        "ConstantOfShape" => product(0),
        "Expand" | "Tile" | "Reshape" => product(1),
        "MaxUnpool" => product(2),
        "Resize" => product(3),
        "RandomNormal" | "RandomUniform" => self::product(node.ints("shape")),
        "Range" => range([input(0), input(1), input(2)]),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => product(0),
        // The depth, and the length, of one dimension of what is made.
        "OneHot" | "DFT" => product(1),
        "Pad" => largest(node.ints("pads").to_vec()).max(input(1).and_then(Constant::whole).map_or(0, largest)),
        _ => 0,
    }
}

/// Of sizes; one that is not known yet, which is -1 or 0, counts as 1.
fn product(sizes: &[i64]) -> u64 {
    sizes.iter().fold(1, |product, size| product.saturating_mul(u64::try_from(*size).unwrap_or(1).max(1)))
}

/// Of a `Range` from, to, by.
fn range(of: [Option<Constant<'_>>; 3]) -> u64 {
    let [Some(from), Some(to), Some(by)] = of.map(|value| value.and_then(Constant::decimal)) else { return 0 };
    let count = ((to - from) / by).ceil();
    // Division by 0 too: infinite, or NaN for a range that is empty as well.
    if !count.is_finite() {
        return u64::MAX;
    }
    // Saturates, which is what a size beyond all limits should do.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = count.max(0.0) as u64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(operator: &str, inputs: &[Constant<'static>]) -> u64 {
        let names: Vec<String> = (0..inputs.len()).map(|place| place.to_string()).collect();
        let node = Node { op_type: Some(operator.to_owned()), input: names, ..Node::default() };
        numbers(&node, |name| inputs.get(name.parse::<usize>().unwrap()).copied())
    }

    #[test]
    fn sizes_are_known_where_the_file_has_them() {
        assert_eq!(made("ConstantOfShape", &[Constant::Ints(&[1 << 20, 1 << 20])]), 1 << 40);
        assert_eq!(made("ConstantOfShape", &[Constant::Ints(&[i64::MAX, i64::MAX])]), u64::MAX);
        assert_eq!(made("Expand", &[Constant::Int(0), Constant::Ints(&[3, -1, 0])]), 3);
        assert_eq!(made("Tile", &[Constant::Int(0)]), 0, "it is not known");
        assert_eq!(made("Range", &[Constant::Int(0), Constant::Int(10), Constant::Int(3)]), 4);
        assert_eq!(made("Range", &[Constant::Int(10), Constant::Int(0), Constant::Int(3)]), 0);
        assert_eq!(made("Range", &[Constant::Int(0), Constant::Float(1.0), Constant::Float(0.0)]), u64::MAX);
        assert_eq!(made("Range", &[Constant::Int(0), Constant::Float(1.0), Constant::Float(1e-30)]), u64::MAX);
        assert_eq!(made("Pad", &[Constant::Int(0), Constant::Ints(&[0, -7, 5])]), 7);
    }
}
