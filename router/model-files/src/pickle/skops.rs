//! What an archive of skops would make: it has no pickle, but a text that names types by module and class, and each part says how it is made. What each way of making does with
//! its part is what skops does from 0.3 to 0.16: it imports the type that stands in the part itself, and calls it with what is in the others.
//!
//! Invariant: a type is allowed by the same list as in a pickle, and for no more than there; nothing that finds a function by its name is allowed at all.

use std::collections::BTreeSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io::Read;

use serde_json::{Map, Value};

use super::allowed::{Allowed, Rule, Use};
use super::error::shown;
use super::generators;

/// The entry that says what is in it.
pub(super) const SCHEMA: &str = "schema.json";
/// The longest that is read, in bytes.
const SCHEMA_BYTES: u64 = 64 << 20;
/// The newest protocol whose parts are known.
const PROTOCOL: u64 = 2;

/// Ways of making that make the same whatever the part names, or may be of these types only: data that no pickle names so, from parts that are looked at.
const OF_ONE_TYPE: [(&str, &[&str]); 9] = [
    ("BytearrayNode", &["builtins.bytearray"]),
    ("BytesNode", &["builtins.bytes"]),
    ("DTypeNode", &["numpy.dtype"]),
    ("DefaultDictNode", &["collections.defaultdict"]),
    ("MaskedArrayNode", &["numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"]),
    (GENERATOR, &["numpy.random.Generator", "numpy.random._generator.Generator"]),
    (RANDOM_STATE, &["numpy.random.RandomState", "numpy.random.mtrand.RandomState"]),
    ("SliceNode", &["builtins.slice"]),
    ("TreeNode", &["sklearn.tree._tree.Tree"]),
];
const GENERATOR: &str = "RandomGeneratorNode";
const RANDOM_STATE: &str = "RandomStateNode";

/// Ways of making what the list allows: containers, arrays, types, and instances that get their attributes. Those of functions, methods, partials, operators and of whatever is called
/// with arguments are not here. `SparseMatrixNode` is not, since it is an archive in the archive, and `CachedNode` is not, since no skops writes one.
const BY_THE_LIST: [&str; 9] =
    ["DictNode", "ListNode", "LossNode", "NdArrayNode", "ObjectNode", "SGDNode", "SetNode", "TupleNode", "TypeNode"];

/// Where losses in Cython are.
const LOSSES: [&str; 2] = ["sklearn._loss._loss", "sklearn.linear_model._sgd_fast"];

/// What skops gives anew to a part that it writes twice.
const GIVEN: [&str; 4] = ["__id__", "_skops_version", "file", "protocol"];

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
    if let Some(protocol) = schema.get("protocol").filter(|protocol| protocol.as_u64().is_none_or(|protocol| protocol > PROTOCOL)) {
        return Err(broken(format!("skops's protocol {}: must be from 0 to {PROTOCOL}", shown(&protocol.to_string()))));
    }
    let (mut open, mut found, mut numbered) = (vec![&schema], BTreeSet::new(), HashMap::new());
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                if let Some(made) = fields.get("__loader__") {
                    check_number(value, &mut numbered).map_err(broken)?;
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
    let of_one_type = OF_ONE_TYPE.iter().find(|(known, _)| *known == how).map(|(_, names)| *names);
    if how == "JsonNode" {
        return Ok(None);
    }
    if of_one_type.is_none() && !BY_THE_LIST.contains(&how) {
        return Err(format!("a part is made by {}, which is not allowed", shown(how)));
    }
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let Some((module, class)) = text("__module__").zip(text("__class__")) else {
        return Err(format!("a part that is made by {how} says no type"));
    };
    let name = format!("{module}.{class}");
    // No value is called so, and no module has it: a key that is None.
    if (how, name.as_str()) == ("TypeNode", "builtins.NoneType") {
        return Ok(None);
    }
    let is_made = match (of_one_type, allowed.find(module, class)) {
        (Some(names), _) => names.contains(&name.as_str()),
        // What these hold is looked at in a pickle; here it is not.
        (None, Some(Use::Checked(Rule::NoFunctions | Rule::Texts))) => {
            return Err(format!("names {}, which may hold functions: keep it as a pickle", shown(&name)));
        }
        (None, Some(uses)) => is_made_so(how, module, uses),
        (None, None) => return Err(format!("names {}, which is not among the allowed globals", shown(&name))),
    };
    if !is_made {
        return Err(format!("a part is made by {how} of {}, which is not allowed", shown(&name)));
    }
    check_content(how, fields)?;
    Ok(Some(name))
}

/// Whether a part may be made so of a global that is allowed.
fn is_made_so(how: &str, module: &str, uses: Use) -> bool {
    let known = match how {
        // It is called with nothing, and gets items.
        "DictNode" => matches!(uses, Use::Plain | Use::Mapping | Use::Items),
        // With a list.
        "ListNode" | "SetNode" => matches!(uses, Use::Plain | Use::Mapping | Use::Sequence),
        // With the items, where it is a tuple that names them; it is not called otherwise.
        "TupleNode" => matches!(uses, Use::Plain | Use::New),
        // With an array, unless it is the array's own type.
        "NdArrayNode" => module == "numpy" && matches!(uses, Use::Name | Use::Checked(Rule::Ndarray)),
        // With numbers.
        "LossNode" | "SGDNode" => LOSSES.contains(&module) && uses == Use::Plain,
        // It is made without a call, and gets its attributes.
        "ObjectNode" => matches!(uses, Use::New | Use::Own | Use::Items | Use::Mapping | Use::Sequence),
        // A value. As the type of a dict's key it is called with a text, as a default with nothing.
        "TypeNode" => matches!(uses, Use::Name | Use::Plain | Use::Mapping | Use::Sequence),
        _ => false,
    };
    known || uses == Use::Trusted
}

/// What matters besides types.
fn check_content(how: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let content = fields.get("content");
    let numbers = match how {
        "DictNode" => {
            let mut keys = content.and_then(Value::as_object).into_iter().flat_map(Map::keys);
            // It may be the attributes of an instance.
            return match keys.find(|key| key.len() > 4 && key.starts_with("__") && key.ends_with("__")) {
                Some(key) => Err(format!("a dict sets {}", shown(key))),
                None => Ok(()),
            };
        }
        RANDOM_STATE => content,
        GENERATOR => content.and_then(|content| content.get("bit_generator")),
        _ => return Ok(()),
    };
    if numbers.and_then(is_generator) == Some(true) {
        return Ok(());
    }
    Err(format!("a part is made by {how} with a state that is not what numpy writes for a generator of random numbers"))
}

/// Whether a dict is the state of a generator that is known, with a place that it has. (Skops up to 0.5 would read the name beside the items, and call it.)
fn is_generator(state: &Value) -> Option<bool> {
    let name = json(item(state, "bit_generator")?)?;
    let (keys, last) = generators::ahead(name.as_str()?)?;
    let place = keys.iter().try_fold(state, |inside, &key| item(inside, key))?;
    let is_inside = keys.is_empty() || (0..=last).contains(&json(place)?.as_i64()?);
    Some(is_inside && state.get("bit_generator").is_none())
}

/// What a part that is a dict has under a key.
fn item<'a>(part: &'a Value, key: &str) -> Option<&'a Value> {
    part.get("content").filter(|_| is_made_by(part, "DictNode"))?.get(key)
}

/// What a part that is JSON says.
fn json(part: &Value) -> Option<Value> {
    serde_json::from_str(part.get("content").filter(|_| is_made_by(part, "JsonNode"))?.as_str()?).ok()
}

fn is_made_by(part: &Value, how: &str) -> bool {
    part.get("__loader__").and_then(Value::as_str) == Some(how)
}

/// Skops makes one part for a number, and takes it wherever the number comes again, without a look at what is there: it has to be the same.
fn check_number<'a>(part: &'a Value, numbered: &mut HashMap<u64, &'a Value>) -> Result<(), String> {
    let Some(number) = part.get("__id__") else { return Ok(()) };
    // For Python true is 1, and so is 1.0.
    let number = number.as_u64().ok_or_else(|| "a part has a number that is none".to_owned())?;
    match numbered.entry(number) {
        Entry::Vacant(first) => {
            first.insert(part);
            Ok(())
        }
        Entry::Occupied(first) if are_same(first.get(), part) => Ok(()),
        Entry::Occupied(_) => Err(format!("two parts that differ have the number {number}: which of them is made depends on the reader")),
    }
}

/// Whether two parts say the same.
fn are_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let is_said = |key: &str| !GIVEN.contains(&key);
            let count = |fields: &Map<String, Value>| fields.keys().filter(|key| is_said(key)).count();
            let mut said = one.iter().filter(|(key, _)| is_said(key));
            count(one) == count(other) && said.all(|(key, value)| other.get(key).is_some_and(|other| are_same(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| are_same(one, other))
        }
        _ => one == other,
    }
}
