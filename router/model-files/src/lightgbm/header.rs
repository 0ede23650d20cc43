//! What comes before the trees.

use std::collections::HashSet;

use super::super::error::{Malformed, at_most, shown};
use super::super::limits::Limits;
use super::text::{Fields, check_count};

/// Lines of a header; LightGBM writes 12.
pub(super) const MOST_LINES: usize = 64;

/// A header that was checked.
pub(super) struct Header<'a> {
    pub(super) feature_names: Vec<&'a str>,
    pub(super) objective: &'a str,
    /// Bytes of each tree, where the file says.
    tree_sizes: Option<Vec<usize>>,
}

impl<'a> Header<'a> {
    pub(super) fn read(fields: &mut Fields<'a>, limits: &Limits) -> Result<Header<'a>, Malformed> {
        let version = fields.get("version")?;
        if !matches!(version, "v3" | "v4") {
            return Err(Malformed::new(format!("version = {}", shown(version)), "must be v3 or v4"));
        }
        fields.number("num_class", 1..=1)?;
        fields.number("num_tree_per_iteration", 1..=1)?;
        fields.number("label_index", -1..=i64::from(i32::MAX))?;
        let last = fields.number("max_feature_idx", 0..=i64::from(i32::MAX))?;
        let features = usize::try_from(last + 1).unwrap_or(usize::MAX);
        at_most("features", features, limits.features)?;
        let feature_names = read_names(fields, features, limits)?;
        check_infos(fields, features)?;
        if fields.find("monotone_constraints").is_some() {
            fields.numbers::<i8>("monotone_constraints", features, -1..=1)?;
        }
        let objective = fields.find("objective").unwrap_or_default();
        at_most("bytes of objective", objective.len(), limits.name_bytes)?;
        Ok(Header { feature_names, objective, tree_sizes: read_sizes(fields, limits)? })
    }

    /// The names, as texts of their own.
    pub(super) fn names(&self) -> Vec<String> {
        self.feature_names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// LightGBM finds a tree by the sizes of those before it: a wrong one makes it read from the middle.
    pub(super) fn check_size(&self, tree: usize, bytes: usize) -> Result<(), Malformed> {
        match self.tree_sizes.as_ref().map(|sizes| sizes.get(tree)) {
            None => Ok(()),
            Some(Some(size)) if *size == bytes => Ok(()),
            Some(size) => {
                let size = size.map_or_else(|| "missing".to_owned(), usize::to_string);
                let what = format!("must be {bytes}, which it has; are its line ends as LightGBM wrote them?");
                Err(Malformed::new(format!("tree_sizes[{tree}] = {size}"), what))
            }
        }
    }

    /// As many trees as sizes, and one at least.
    pub(super) fn check_count(&self, trees: usize) -> Result<(), Malformed> {
        if trees == 0 {
            return Err(Malformed::new("trees", "there must be one at least"));
        }
        match &self.tree_sizes {
            Some(sizes) => check_count("tree_sizes", sizes.len(), trees),
            None => Ok(()),
        }
    }
}

fn read_names<'a>(fields: &Fields<'a>, features: usize, limits: &Limits) -> Result<Vec<&'a str>, Malformed> {
    let names: Vec<&str> = fields.get("feature_names")?.split(' ').filter(|name| !name.is_empty()).take(features + 1).collect();
    if names.len() != features {
        let count = if names.len() > features { "more".to_owned() } else { names.len().to_string() };
        return Err(Malformed::new("feature_names", format!("has {count} names: must be max_feature_idx + 1 = {features}")));
    }
    let mut seen = HashSet::new();
    for (place, name) in names.iter().enumerate() {
        at_most(format_args!("bytes of feature_names[{place}]"), name.len(), limits.name_bytes)?;
        if !seen.insert(*name) {
            return Err(Malformed::new(format!("feature_names[{place}] = {}", shown(name)), "is there twice"));
        }
    }
    Ok(names)
}

/// `none`, a range, or categories, of each feature.
fn check_infos(fields: &Fields<'_>, features: usize) -> Result<(), Malformed> {
    let mut count = 0;
    for (place, info) in fields.get("feature_infos")?.split_ascii_whitespace().enumerate() {
        let range = info.strip_prefix('[').and_then(|info| info.strip_suffix(']')).and_then(|range| range.split_once(':'));
        let is_range = range.is_some_and(|(low, high)| low.parse::<f64>().is_ok() && high.parse::<f64>().is_ok());
        if !is_range && info != "none" && !info.split(':').all(|category| category.parse::<i64>().is_ok()) {
            let what = "must be none, [lowest:highest], or categories as 0:1:2";
            return Err(Malformed::new(format!("feature_infos[{place}] = {}", shown(info)), what));
        }
        count += 1;
    }
    check_count("feature_infos", count, features)
}

fn read_sizes(fields: &Fields<'_>, limits: &Limits) -> Result<Option<Vec<usize>>, Malformed> {
    let Some(text) = fields.find("tree_sizes") else { return Ok(None) };
    let count = text.split_ascii_whitespace().count();
    at_most("trees", count, limits.trees)?;
    Ok(Some(fields.numbers("tree_sizes", count, 1..=i64::MAX)?))
}
