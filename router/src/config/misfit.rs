//! Reads a file although some of it does not fit: an unknown key, a value of the wrong type. Each is noted and taken out of the way, so
//! that all of them are told, and what the checker has to say as well.
//!
//! A value of the wrong type is replaced by one of the right type that says the same, or that the checker surely refuses: the checker knows
//! what is allowed for this very key, and its words are better than "expected a string".

use serde_path_to_error::{Path, Segment};
use toml::Value;

use super::error::Problem;
use super::locate::Locator;
use super::written::Written;

/// More are not looked for: nobody reads them.
const MOST: usize = 100;
/// A known key is suggested for an unknown one when they are this much alike; 1 is the same.
const ALIKE: f64 = 0.8;

/// What of a file does not fit its form.
#[derive(Debug, Default)]
pub(super) struct Misfits {
    all: Vec<Misfit>,
}

#[derive(Debug)]
struct Misfit {
    steps: Vec<Step>,
    /// What stands in for the value, as the checker shows it; `None` when the key was taken out.
    stand_in: Option<String>,
    /// What is wrong, unless the checker knows better.
    allowed: String,
    is_text: bool,
    /// Or a list of tables: too much to repeat.
    is_table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

/// Reads a table; `None` with more than 100 misfits.
pub(super) fn read(table: toml::Table) -> (Option<Written>, Misfits) {
    let (mut root, mut misfits) = (Value::Table(table), Misfits::default());
    while misfits.all.len() < MOST {
        match serde_path_to_error::deserialize(root.clone()) {
            Ok(written) => return (Some(written), misfits),
            Err(error) => misfits.take_out(&mut root, steps_of(error.path()), error.inner().message()),
        }
    }
    (None, misfits)
}

impl Misfits {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn take_out(&mut self, root: &mut Value, steps: Vec<Step>, message: &str) {
        if let Some(again) = self.all.iter_mut().find(|misfit| misfit.stand_in.is_some() && steps.starts_with(&misfit.steps)) {
            // What stood in does not fit either.
            again.stand_in = None;
            remove(root, &again.steps.clone());
            return;
        }
        let value = at(root, &steps);
        let stand_in = value.as_ref().and_then(|value| stand_in(value, message));
        let is_text = matches!(value, Some(Value::String(_)));
        let is_table = match &value {
            Some(Value::Array(items)) => items.iter().any(Value::is_table),
            other => other.as_ref().is_some_and(|value| value.is_table()),
        };
        let allowed = allowed(message, &steps, value.as_deref());
        let shown = match (value, stand_in) {
            (Some(value), Some((new, shown))) => {
                *value = new;
                Some(shown)
            }
            _ => {
                remove(root, &steps);
                None
            }
        };
        self.all.push(Misfit { steps, stand_in: shown, allowed, is_text, is_table });
    }

    /// The problems of the form, and those of the checker that are left: what is allowed for a misfit is said with it, and a key that was
    /// taken out is not missing.
    pub(super) fn merge(self, locator: &Locator<'_>, mut checked: Vec<Problem>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for Misfit { steps, stand_in, allowed, is_text, is_table } in self.all {
            let path = path_of(&steps);
            let (key, table_key) = (locator.by_name(&path), locator.by_name(&path_of(without_items(&steps))));
            let is_about = |problem: &Problem| locator.by_name(&problem.key) == table_key;
            let allowed = match &stand_in {
                Some(shown) => {
                    let place = checked.iter().position(|problem| is_about(problem) && problem.value.as_ref() == Some(shown));
                    place.map(|place| checked.remove(place).allowed).map_or(allowed, |rule| match shown.parse::<i64>() {
                        Ok(_) if is_text => format!("{rule}, without quotes"),
                        _ => rule,
                    })
                }
                None => {
                    let is_within = |long: &str, short: &str| {
                        long == short || long.strip_prefix(short).is_some_and(|rest| rest.starts_with(['.', '[']))
                    };
                    checked.retain(|problem| {
                        let other = locator.by_name(&problem.key);
                        problem.value.is_some() || !(is_within(&other, &table_key) || is_within(&table_key, &other))
                    });
                    allowed
                }
            };
            let value = locator.value(&path).map(str::trim).filter(|_| !is_table).unwrap_or_default();
            let value = if is_secret(&key) && !value.is_empty() { "***" } else { value };
            problems.push(Problem { key, value: Some(value.to_owned()), allowed });
        }
        problems.append(&mut checked);
        problems.sort_by_key(|problem| locator.line(&problem.key).unwrap_or(usize::MAX));
        problems
    }
}

fn steps_of(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(step).collect()
}

/// `route[0].pools.blue`, as serde says it.
fn path_of(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.push_str(&format!(".{key}")),
            Step::Item(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Up to the last key: an item of a list has no key of its own.
fn without_items(steps: &[Step]) -> &[Step] {
    let end = steps.iter().rposition(|step| matches!(step, Step::Key(_))).map_or(0, |last| last + 1);
    steps.get(..end).unwrap_or_default()
}

fn at<'v>(root: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.as_table_mut()?.get_mut(key),
        Step::Item(index) => value.as_array_mut()?.get_mut(*index),
    })
}

/// Takes a key out, with all of a list when the misfit is one of its items: the places of the others must not change.
fn remove(root: &mut Value, steps: &[Step]) {
    let Some((Step::Key(key), above)) = without_items(steps).split_last() else {
        // Nothing that can be named: nothing is left.
        *root = Value::Table(toml::Table::new());
        return;
    };
    if let Some(table) = at(root, above).and_then(Value::as_table_mut) {
        table.remove(key);
    }
}

/// A value of the type that was expected, and how the checker would show it.
fn stand_in(value: &Value, message: &str) -> Option<(Value, String)> {
    let text = match value {
        Value::Array(_) | Value::Table(_) => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if message.contains("expected u64") {
        // More than any key allows.
        return Some((Value::Integer(i64::MAX), i64::MAX.to_string()));
    }
    let shown = format!("{text:?}");
    match () {
        () if message.contains("expected a string") => Some((Value::String(text), shown)),
        () if message.contains("expected a sequence") => Some((Value::Array(vec![Value::String(text)]), shown)),
        () => None,
    }
}

/// What may be a password where it does not belong is not repeated.
pub(super) fn is_secret(text: &str) -> bool {
    ["password", "secret", "token", "://"].iter().any(|word| text.contains(word))
}

/// serde speaks of Rust's types; an operator thinks in TOML's.
fn allowed(message: &str, steps: &[Step], value: Option<&Value>) -> String {
    if let Some(known) = message.strip_prefix("unknown field ") {
        let names: Vec<&str> = known.split('`').skip(3).step_by(2).collect();
        let wrong = match steps.last() {
            Some(Step::Key(key)) => key.as_str(),
            _ => "",
        };
        let likeness = |name: &&str| strsim::jaro_winkler(wrong, name);
        let best =
            names.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other))).filter(|name| likeness(name) >= ALIKE);
        let hint = best.map_or_else(|| ";".to_owned(), |name| format!(", did you mean {name}?"));
        let there_are = if names.is_empty() { "nothing is allowed here".to_owned() } else { format!("allowed here: {}", names.join(", ")) };
        return format!("unknown key{hint} {there_are}");
    }
    let name = path_of(steps);
    let text = match value {
        Some(_) if is_secret(&name) => "...".to_owned(),
        Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        None => String::new(),
    };
    // Without the places in lists: `[route.pools.blue]` is what a file says.
    let header =
        steps.iter().filter_map(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None }).collect::<Vec<_>>().join(".");
    match () {
        () if message.contains("expected a string") && !value.is_some_and(Value::is_table) && !value.is_some_and(Value::is_array) => {
            format!("must be text, in quotes: {text:?}")
        }
        () if message.contains("expected a string") => "must be one text, in quotes".to_owned(),
        () if message.contains("expected u64") => "must be a whole number, without quotes".to_owned(),
        () if message.contains("expected a boolean") => "must be true or false, without quotes".to_owned(),
        () if message.contains("expected a sequence") && value.is_some_and(Value::is_table) => {
            format!("may be there several times: write [[{header}]]")
        }
        () if message.contains("expected a sequence") => format!("must be a list: [{text:?}]"),
        () if message.contains("expected a map") || message.contains("expected struct") => format!("must be a table: [{header}]"),
        () => message.replace('\n', " "),
    }
}
