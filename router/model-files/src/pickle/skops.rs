//! What an archive of skops would make: it has no pickle, but a text that names types by module and class, and each part says how it is made.
//! Invariant: a type is allowed by the same list as in a pickle, and nothing that finds a function by its name is allowed at all.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::{Map, Value};

use super::allowed::{Allowed, Rule, Use};
use super::error::shown;

/// The entry that says what is in it.
pub(super) const SCHEMA: &str = "schema.json";
/// The longest that is read, in bytes.
const SCHEMA_BYTES: u64 = 64 << 20;

/// Ways of making a part: data, containers, and instances that get their attributes. Those of functions, methods, partials and operators are not here. `SparseMatrixNode` is
/// not, since it is an archive in the archive, and `RandomGeneratorNode` is not: skops calls whatever of `numpy.random` a text in it names.
const MAKES: [&str; 19] = [
    "BytearrayNode",
    "BytesNode",
    "CachedNode",
    "DTypeNode",
    "DefaultDictNode",
    "DictNode",
    "JsonNode",
    "ListNode",
    "MaskedArrayNode",
    "NdArrayNode",
    "ObjectNode",
    "OrderedDictNode",
    "RandomStateNode",
    "SGDNode",
    "SetNode",
    "SliceNode",
    "TreeNode",
    "TupleNode",
    "TypeNode",
];

/// Types of data that no pickle names so: each is made by its own way alone, from parts that are looked at.
const MADE_BY: [(&str, &str, &str); 4] = [
    ("MaskedArrayNode", "numpy.ma", "MaskedArray"),
    ("MaskedArrayNode", "numpy.ma.core", "MaskedArray"),
    ("RandomStateNode", "numpy.random", "RandomState"),
    ("RandomStateNode", "numpy.random.mtrand", "RandomState"),
];

/// The types that it names, all of them allowed.
///
/// # Errors
/// What it is that is not, or why the text cannot be read.
pub(super) fn types(schema: impl Read, allowed: &Allowed) -> Result<Vec<String>, String> {
    let mut text = Vec::new();
    let broken = |why: String| format!("{SCHEMA}: {why}");
    schema.take(SCHEMA_BYTES + 1).read_to_end(&mut text).map_err(|error| broken(error.to_string()))?;
    if text.len() as u64 > SCHEMA_BYTES {
        return Err(broken(format!("more than {SCHEMA_BYTES} bytes")));
    }
    let schema: Value = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    let (mut open, mut found) = (vec![&schema], BTreeSet::new());
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                if let Some(made) = fields.get("__loader__") {
                    found.extend(made_type(fields, made, allowed).map_err(broken)?);
                }
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    Ok(found.into_iter().collect())
}

/// The type of one part, where it has one; JSON makes none.
fn made_type(fields: &Map<String, Value>, made: &Value, allowed: &Allowed) -> Result<Option<String>, String> {
    let how = made.as_str().unwrap_or_default();
    if !MAKES.contains(&how) {
        return Err(format!("a part is made by {}, which is not allowed", shown(how)));
    }
    // A type as a value: its own name is in its content.
    let names = if how == "TypeNode" { fields.get("content").and_then(Value::as_object) } else { Some(fields) };
    let text = |key: &str| names.and_then(|names| names.get(key)).and_then(Value::as_str).unwrap_or_default();
    let (module, class) = (text("__module__"), text("__class__"));
    if how == "JsonNode" || (module, class) == ("builtins", "NoneType") {
        return Ok(None);
    }
    if MADE_BY.contains(&(how, module, class)) {
        return Ok(Some(format!("{module}.{class}")));
    }
    // Whatever it names is called.
    if how == "RandomStateNode" {
        return Err(format!("a part is made by {how} of {}, which is not allowed", shown(&format!("{module}.{class}"))));
    }
    match allowed.find(module, class) {
        // What these hold is looked at in a pickle; here it is not.
        Some(Use::Checked(Rule::NoFunctions | Rule::Texts)) => {
            Err(format!("names {}, which may hold functions: keep it as a pickle", shown(&format!("{module}.{class}"))))
        }
        Some(_) => Ok(Some(format!("{module}.{class}"))),
        None => Err(format!("names {}, which is not among the allowed globals", shown(&format!("{module}.{class}")))),
    }
}
