//! What the ledger says of each change of flags: who, what, why, when.

use serde::{Deserialize, Serialize};

use super::{Fields, rollout};

/// The longest value that the ledger keeps of a field, in characters.
const VALUE_CHARS: usize = 256;

/// What kind of write made an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Through the admin API.
    #[default]
    Change,
    /// A transition of a rollout, by itself or by an operator.
    Rollout,
    /// A candidate was taken out of traffic, by an operator or by itself.
    Rollback,
    /// By hand in Redis, adopted by the first router that saw it.
    ExternalEdit,
    /// The store had lost its flags, or had older ones: a router wrote back what it applied.
    Reseed,
}

/// One field's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// Its value before; `None` when it was absent.
    pub old: Option<String>,
    /// Its value after; `None` when it was deleted.
    pub new: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_in_the_id(time_ms: &u64) -> bool {
    *time_ms == 0
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The epoch that this change made.
    pub epoch: u64,
    /// When, in milliseconds since 1970, by the store's clock.
    ///
    /// Redis keeps it as the entry's id, so it is not written there a second time.
    #[serde(default, skip_serializing_if = "is_in_the_id")]
    pub time_ms: u64,
    /// What kind of write.
    pub kind: Kind,
    /// The bearer's name, `external`, or a router's id.
    pub who: String,
    /// As the writer said.
    pub why: String,
    /// Field by field. A salt's value is never shown.
    pub what: Vec<FieldChange>,
}

/// The difference between two hashes, but for `epoch` and `seal`.
pub(crate) fn difference(old: &Fields, new: &Fields) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    for (field, value) in new {
        if old.get(field) != Some(value) {
            changes.push(FieldChange { field: field.clone(), old: old.get(field).cloned(), new: Some(value.clone()) });
        }
    }
    for (field, value) in old.iter().filter(|(field, _)| !new.contains_key(*field)) {
        changes.push(FieldChange { field: field.clone(), old: Some(value.clone()), new: None });
    }
    changes.retain(|change| !matches!(change.field.as_str(), "epoch" | "seal"));
    changes.sort_by(|left, right| left.field.cmp(&right.field));
    changes
}

/// The same changes, fit for eyes: salts hidden, long values cut.
pub(crate) fn presentable(changes: Vec<FieldChange>) -> Vec<FieldChange> {
    let show = |field: &str, value: Option<String>| {
        let value = value?;
        Some(match field {
            "salt" => "(hidden)".to_owned(),
            "rollout" => rollout::in_words(&value),
            _ => value.chars().take(VALUE_CHARS).collect(),
        })
    };
    let show_change = |change: FieldChange| FieldChange {
        old: show(&change.field, change.old),
        new: show(&change.field, change.new),
        field: change.field,
    };
    changes.into_iter().map(show_change).collect()
}

/// One line for logs: `live blue -> green, pin green -> (absent)`.
pub(crate) fn one_line(changes: &[FieldChange]) -> String {
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".to_owned());
    let words: Vec<String> =
        changes.iter().map(|change| format!("{} {} -> {}", change.field, show(&change.old), show(&change.new))).collect();
    words.join(", ")
}
