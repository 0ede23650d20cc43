//! LightGBM's text format, as `Booster.save_model` writes it: versions 3 and 4.
//!
//! Invariant: what is accepted scores by finite numbers and by trees in the strict sense: every node has one parent, every leaf is
//! reached from the root.
//!
//! Source of the format: LightGBM, `src/boosting/gbdt_model_text.cpp` and `src/io/tree.cpp`.

mod categories;
mod header;
mod linear;
mod tail;
mod text;
mod tree;

use super::error::{Malformed, at_most};
use super::limits::Limits;
use super::trees::Trees;
use header::Header;
use text::{Fields, Lines};

/// Reads a model.
///
/// # Errors
/// What is not as LightGBM writes it; a model of several classes or without a tree; one over the limits.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Trees, Malformed> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Malformed::new(format_args!("byte {}", error.valid_up_to()), "is not UTF-8: a LightGBM model is text"))?;
    let mut lines = Lines::new(text);
    if lines.next()?.map(|line| line.text) != Some("tree") {
        return Err(Malformed::new("line 1", "must be `tree`, as in every LightGBM model"));
    }
    let mut fields = Fields::read(&mut lines, header::MOST_LINES, |line| line.starts_with("Tree=") || line == text::END_OF_TREES)?;
    let header = Header::read(&mut fields, limits)?;
    let (trees, leaves) = read_trees(&mut lines, &header, limits)?;
    tail::check(&mut lines, &header.feature_names)?;
    Ok(Trees { features: header.feature_names.len(), feature_names: header.names(), trees, leaves, objective: header.objective.to_owned() })
}

/// All trees, and the line that ends them.
fn read_trees(lines: &mut Lines<'_>, header: &Header<'_>, limits: &Limits) -> Result<(usize, usize), Malformed> {
    let (mut trees, mut nodes, mut leaves) = (0, 0, 0);
    loop {
        let Some(line) = lines.next()? else {
            return Err(Malformed::new("the end", format!("there is no `{}`: the file was cut off", text::END_OF_TREES)));
        };
        if line.text == text::END_OF_TREES {
            break;
        }
        if line.text != format!("Tree={trees}") {
            let what = format!("must be `Tree={trees}` or `{}`", text::END_OF_TREES);
            return Err(Malformed::new(format_args!("line {}", line.number), what));
        }
        let place = format!("tree {trees}");
        let found = tree::read(lines, header.feature_names.len(), limits).map_err(|fault| fault.within(&place))?;
        lines.skip_blank()?;
        header.check_size(trees, lines.offset() - line.start)?;
        trees += 1;
        leaves += found;
        nodes += 2 * found - 1;
        at_most("trees", trees, limits.trees)?;
        at_most("nodes of all trees", nodes, limits.nodes)?;
    }
    header.check_count(trees)?;
    Ok((trees, leaves))
}

#[cfg(test)]
mod tests;
