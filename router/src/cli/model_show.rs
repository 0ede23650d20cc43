//! What people are shown of models, versions and aliases.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::explain::at;
use super::flag::plain;
use super::table::table;
use crate::registry::{AliasMove, Name};

/// `12.3 MiB`
pub(super) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn head(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One line for each model.
pub(super) fn models(all: &Value) -> String {
    let listed = all["models"].as_array().cloned().unwrap_or_default();
    if listed.is_empty() {
        return format!("{}: no models; push one with: switchback model push FILE --model NAME\n", plain(&all["registry"]));
    }
    let rows = listed.iter().map(|model| {
        let versions = model["versions"].as_array().cloned().unwrap_or_default();
        let newest = versions.last().cloned().unwrap_or_default();
        vec![plain(&model["model"]), versions.len().to_string(), plain(&newest["version"]), at(&newest["pushed_ms"]), aliases(model, None)]
    });
    let head = std::iter::once(head(&["model", "versions", "newest", "pushed", "aliases"]));
    format!("{}\n{}", plain(&all["registry"]), table(&head.chain(rows).collect::<Vec<_>>()))
}

/// `champion 12, candidate 13`; of one version, only names.
fn aliases(model: &Value, of: Option<&Value>) -> String {
    let all = model["aliases"].as_object().into_iter().flatten();
    let words = all.filter(|(_, version)| of.is_none_or(|of| of == *version)).map(|(alias, version)| match of {
        Some(_) => alias.clone(),
        None => format!("{alias} {}", plain(version)),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// One line for each version, the newest first.
pub(super) fn listed(model: &Value) -> String {
    let rows = model["versions"].as_array().into_iter().flatten().rev().map(|version| {
        let metrics = version["about"]["metrics"].as_object().into_iter().flatten().take(2);
        let metrics: Vec<String> = metrics.map(|(name, value)| format!("{name} {}", plain(value))).collect();
        let size = if version["removed"].is_null() { bytes(version["bytes"].as_u64().unwrap_or(0)) } else { "removed".to_owned() };
        vec![
            plain(&version["version"]),
            plain(&version["format"]),
            size,
            at(&version["pushed_ms"]),
            plain(&version["who"]),
            metrics.join(", "),
            aliases(model, Some(&version["version"])),
        ]
    });
    let head = std::iter::once(head(&["version", "format", "size", "pushed", "by", "metrics", "aliases"]));
    format!("{}\n{}", plain(&model["model"]), table(&head.chain(rows).collect::<Vec<_>>()))
}

/// Names and values of everything that is known of a version.
fn fields(version: &Value) -> Vec<(String, String)> {
    let about = &version["about"];
    let tensors = |key: &str| {
        let all = version[key].as_array().into_iter().flatten().map(|tensor| {
            let shape = tensor["shape"].as_array().into_iter().flatten();
            let shape: Vec<String> = shape.map(|size| if *size == json!(-1) { "?".to_owned() } else { plain(size) }).collect();
            format!("{} {}[{}]", plain(&tensor["name"]), plain(&tensor["type"]), shape.join(", "))
        });
        all.collect::<Vec<_>>().join(", ")
    };
    let mut fields = vec![
        ("format".to_owned(), plain(&version["format"])),
        ("file".to_owned(), plain(&version["file"])),
        ("size".to_owned(), format!("{} ({} bytes)", bytes(version["bytes"].as_u64().unwrap_or(0)), plain(&version["bytes"]))),
        ("sha256".to_owned(), plain(&version["sha256"])),
        ("inputs".to_owned(), tensors("inputs")),
        ("outputs".to_owned(), tensors("outputs")),
    ];
    for key in ["parent", "training_data", "code_revision"] {
        fields.push((key.replace('_', " "), if about[key].is_null() { String::new() } else { plain(&about[key]) }));
    }
    for key in ["metrics", "tags"] {
        let all = about[key].as_object().into_iter().flatten();
        fields.extend(all.map(|(name, value)| (format!("{} {name}", key.trim_end_matches('s')), plain(value))));
    }
    fields.push(("why".to_owned(), about["why"].as_str().unwrap_or_default().to_owned()));
    fields.push(("pushed".to_owned(), format!("{} by {}", at(&version["pushed_ms"]), plain(&version["who"]))));
    if let Some(key) = version["signature"]["key"].as_str() {
        fields.push(("signed with".to_owned(), key.to_owned()));
    }
    fields.push(("validated".to_owned(), validated(&version["report"])));
    if let Some(removed) = version["removed"].as_object() {
        let (who, when) = (removed.get("who").map_or_else(String::new, plain), removed.get("removed_ms").map_or_else(String::new, at));
        fields.push(("removed".to_owned(), format!("{when} by {who}")));
    }
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

/// `2026-08-01T02:14:31.02Z by ann: passed (report 1)`
fn validated(report: &Value) -> String {
    let number = plain(&report["number"]);
    match (report["passed"].as_bool(), report["unreadable"].as_str()) {
        (_, Some(why)) => format!("report {number} cannot be read: {why}"),
        (None, _) => String::new(),
        (Some(passed), _) => {
            let refused: Vec<String> = report["refused"].as_array().into_iter().flatten().map(plain).collect();
            let what = match (passed, report["of_this_artefact"] == json!(false)) {
                (true, _) => "passed".to_owned(),
                (_, true) => "of another artefact".to_owned(),
                _ => format!("refused: {}", refused.join(", ")),
            };
            format!("{} by {}: {what} (report {number})", at(&report["at_ms"]), plain(&report["who"]))
        }
    }
}

fn name(version: &Value) -> String {
    format!("{}:{}", plain(&version["model"]), plain(&version["version"]))
}

/// A line for each field.
pub(super) fn shown(version: &Value) -> String {
    let rows: Vec<Vec<String>> = fields(version).into_iter().map(|(name, value)| vec![name, value]).collect();
    format!("{}\n{}", name(version), table(&rows))
}

/// What is different, for machines and for people.
pub(super) fn compared(one: &Value, other: &Value) -> (Value, String) {
    let (left, right) = (fields(one), fields(other));
    let value = |of: &[(String, String)], name: &str| of.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut names: Vec<&String> = left.iter().map(|(name, _)| name).collect();
    names.extend(right.iter().map(|(name, _)| name).filter(|name| !left.iter().any(|(key, _)| key == *name)));
    let mut rows = vec![vec![String::new(), name(one), name(other)]];
    let mut differences = Vec::new();
    for name in names {
        let (is, other) = (value(&left, name), value(&right, name));
        if is != other {
            differences.push(json!({ "field": name, "one": is, "other": other }));
            let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            rows.push(vec![name.clone(), shown(is), shown(other)]);
        }
    }
    (json!({ "one": name(one), "other": name(other), "differences": differences }), table(&rows))
}

/// One line for each alias.
pub(super) fn alias_list(model: &str, all: &[(Name, AliasMove)]) -> String {
    if all.is_empty() {
        return format!("{model}: no aliases; make one with: switchback model alias {model} champion VERSION\n");
    }
    let rows = all.iter().map(|(alias, last)| {
        let version = last.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        vec![alias.to_string(), version, at(&json!(last.moved_ms)), last.who.clone(), last.why.clone()]
    });
    let head = std::iter::once(head(&["alias", "version", "since", "by", "why"]));
    format!("{model}\n{}", table(&head.chain(rows).collect::<Vec<_>>()))
}

/// One line for each move, the newest first.
pub(super) fn alias_history(model: &str, alias: &str, moves: &[AliasMove]) -> String {
    if moves.is_empty() {
        return format!("{model}@{alias}: it was never moved\n");
    }
    // By the chain that they make: clocks of those who moved it at once may say something else.
    let rows = moves.iter().enumerate().rev().map(|(index, moved)| {
        let shown = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), |version| version.to_string());
        vec![
            (index + 1).to_string(),
            at(&json!(moved.moved_ms)),
            shown(moved.version),
            shown(moved.before),
            moved.who.clone(),
            moved.why.clone(),
        ]
    });
    let head = std::iter::once(head(&["move", "when", "version", "before", "by", "why"]));
    format!("{model}@{alias}\n{}", table(&head.chain(rows).collect::<Vec<_>>()))
}
