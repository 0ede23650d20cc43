//! What the ledger says of each change of flags: who, what, why, when.

use serde::{Deserialize, Serialize};

use super::{Fields, Flags, experiments, rollout};
use crate::config::Route;
use crate::vocabulary::{Copies, Ppm};

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
    /// An experiment was created, stopped or taken away.
    Experiment,
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

/// What a transition of a rollout, or a rollback, is and rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// The transition, by its name in docs/ROLLOUTS.md.
    pub event: String,
    /// The rollout's id; `None` for a candidate that was given its share by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// The experiment's name, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// The version under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Of the plan, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The policy that judged, `name@digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What it said, and the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<serde_json::Value>,
    /// Of a transition out of mirroring, or within it: what became of the copies, over all routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
}

impl Grounds {
    /// Of an experiment.
    #[must_use]
    pub fn of_experiment(event: &str, name: &str) -> Grounds {
        Grounds { event: event.to_owned(), experiment: Some(name.to_owned()), ..Grounds::default() }
    }
}

/// Who serves which part of the units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serves {
    /// The pool.
    pub pool: String,
    /// The model version on it, as the writer's config has it.
    pub version: String,
    /// Its share, in percent.
    pub percent: String,
}

/// Who serves whom under these flags, largest share first: what the plain split does, rules and experiments aside.
pub(crate) fn serves(flags: &Flags, route: &Route) -> Vec<Serves> {
    let held = flags.holdback.map_or(Ppm::ZERO, |holdback| holdback.share.min(flags.candidate.share.rest()));
    let live = Ppm::new(flags.candidate.share.rest().get().saturating_sub(held.get())).unwrap_or(Ppm::ZERO);
    let shares = match flags.pin {
        Some(pin) => vec![(pin, Ppm::ALL)],
        None => vec![
            (flags.live, live),
            (flags.candidate.pool, flags.candidate.share),
            (flags.holdback.map_or(flags.live, |holdback| holdback.pool), held),
        ],
    };
    let mut serves: Vec<(Ppm, Serves)> = Vec::new();
    for (index, share) in shares.into_iter().filter(|(_, share)| *share > Ppm::ZERO) {
        let Some(pool) = route.pools.get(index.get()) else { continue };
        serves.push((share, Serves { pool: pool.name.clone(), version: pool.version.clone(), percent: share.to_string() }));
    }
    serves.sort_by_key(|(share, _)| std::cmp::Reverse(*share));
    serves.into_iter().map(|(_, serves)| serves).collect()
}

/// One line of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Who serves whom since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<Serves>,
    /// Of a transition of a rollout, or a rollback.
    #[serde(default)]
    pub grounds: Option<Grounds>,
    /// The hash of the entry before this one; zeros for the first.
    #[serde(default)]
    pub prev: String,
}

/// What held at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldAt {
    /// The entry that made it so; `None` where the ledger does not go back so far.
    pub entry: Option<LedgerEntry>,
    /// The entry that ended it; `None` where it holds still.
    pub ended_by: Option<LedgerEntry>,
    /// When the oldest entry is of, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

impl HeldAt {
    /// Takes the next older entry; answers whether more are wanted.
    pub(crate) fn look(&mut self, entry: LedgerEntry, time_ms: u64) -> bool {
        self.oldest_ms = Some(entry.time_ms);
        if entry.time_ms <= time_ms {
            self.entry = Some(entry);
            return false;
        }
        self.ended_by = Some(entry);
        true
    }
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
            "experiments" => experiments::in_words(&value),
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
