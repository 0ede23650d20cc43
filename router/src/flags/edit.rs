//! Changes that come through the admin API: checked strictly, then applied to the fields. Pure.
//!
//! A bare edit in Redis is judged leniently, field by field; here a mistake is refused whole, with every fault named.

use std::collections::BTreeMap;

use super::{FEATURES, Fault, Fields, Flags, Grounds, Kind, MAX_EPOCH, VERSION_OF};
use crate::config::Route;
use crate::vocabulary::Ppm;

/// Every field that a person or Switchback may write, beside `version.<pool>` and `flag.<name>`.
pub(crate) const WRITABLE: [&str; 12] = [
    "live",
    "candidate_pool",
    "canary_percent",
    "holdback_pool",
    "holdback_percent",
    "mirror_percent",
    "pin",
    "freeze",
    "salt",
    "split_policy",
    "rollback_policy",
    "experiments",
];

/// The most fields that a route's hash may have. A larger one is obeyed in the fields that are known, but cannot be adopted or changed.
pub(crate) const HASH_FIELDS: usize = 1_024;
/// The most bytes of names and values that a route's hash may have; see [`HASH_FIELDS`].
pub(crate) const HASH_BYTES: usize = 1 << 20;

const WHO_CHARS: usize = 128;
const WHY_CHARS: usize = 1_024;

/// A change of one route's flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Field by field; `None` deletes. Setting `live` without `canary_percent` or `holdback_percent` sets those to 0.
    pub fields: BTreeMap<String, Option<String>>,
    /// Refuse the change unless the flags are at this epoch.
    pub expected_epoch: Option<u64>,
    /// What kind of write it is, for the ledger.
    pub kind: Kind,
    /// Who asks, for the ledger: 1 to 128 characters.
    pub who: String,
    /// Why, for the ledger: up to 1024 characters.
    pub why: String,
    /// What it is and rests on, for the ledger.
    pub grounds: Option<Box<Grounds>>,
}

/// What the fields are after a change.
///
/// # Errors
/// Every field of the change that would not be obeyed. Faults in fields that the change does not touch do not refuse it.
pub(crate) fn apply(current: &Fields, change: &Change, known: &Flags, route: &Route) -> Result<Fields, Vec<Fault>> {
    let mut faults = check_form(change);
    let mut after = current.clone();
    for (field, value) in &change.fields {
        match value {
            Some(value) => after.insert(field.clone(), value.clone()),
            None => after.remove(field),
        };
    }
    if let Some(Some(live)) = change.fields.get("live")
        && current.get("live") != Some(live)
    {
        for field in ["canary_percent", "holdback_percent"] {
            if !change.fields.contains_key(field) {
                after.insert(field.to_owned(), "0".to_owned());
            }
        }
    }
    let bytes: usize = after.iter().map(|(field, value)| field.len() + value.len()).sum();
    if after.len() > HASH_FIELDS || bytes > HASH_BYTES {
        let value = format!("{} fields, {bytes} bytes", after.len());
        faults.push(Fault { field: "fields".to_owned(), value, allowed: format!("at most {HASH_FIELDS} fields and {HASH_BYTES} bytes") });
    }
    faults.extend(too_many_features(current, &after, change));
    let (flags, found) = Flags::read(&after, known, route);
    faults.extend(found.into_iter().filter(|fault| change.fields.contains_key(&fault.field)));
    faults.extend(more_than_everybody(&flags, change));
    faults.extend(live_as_candidate(&flags, change));
    if faults.is_empty() { Ok(after) } else { Err(faults) }
}

/// Shares that cannot both be given, where the change has one of them.
fn more_than_everybody(flags: &Flags, change: &Change) -> Option<Fault> {
    let most = flags.cut_holdback()?;
    let (field, value) = ["holdback_percent", "canary_percent"].iter().find_map(|field| change.fields.get_key_value(*field))?;
    let allowed =
        format!("such that candidate and holdback are at most 100 together: canary_percent {} leaves {most}", flags.candidate.share);
    Some(Fault { field: field.clone(), value: value.clone().unwrap_or_default(), allowed })
}

/// A share for a candidate that is the live pool, where the change has one of the two.
fn live_as_candidate(flags: &Flags, change: &Change) -> Option<Fault> {
    if flags.candidate.share == Ppm::ZERO || flags.candidate.pool != flags.live {
        return None;
    }
    let (field, value) = ["canary_percent", "candidate_pool"].iter().find_map(|field| change.fields.get_key_value(*field))?;
    let allowed = match field.as_str() {
        "canary_percent" => "0: the candidate's pool is the live one; name another with candidate_pool",
        _ => "another pool than the live one, while canary_percent is more than 0",
    };
    Some(Fault { field: field.clone(), value: value.clone().unwrap_or_default(), allowed: allowed.to_owned() })
}

/// One flag too many would push out another, which nobody asked for.
fn too_many_features(current: &Fields, after: &Fields, change: &Change) -> Option<Fault> {
    let is_feature = |field: &&String| field.starts_with("flag.");
    if after.keys().filter(is_feature).count() <= FEATURES {
        return None;
    }
    let (field, value) =
        change.fields.iter().find(|(field, value)| is_feature(field) && value.is_some() && !current.contains_key(*field))?;
    let allowed = format!("at most {FEATURES} flags flag.<name>; take one away first");
    Some(Fault { field: field.clone(), value: value.clone().unwrap_or_default(), allowed })
}

/// The epoch after this one.
pub(crate) fn next_epoch(epoch: u64) -> u64 {
    epoch.saturating_add(1).min(MAX_EPOCH)
}

fn check_form(change: &Change) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, value: &str, allowed: String| {
        faults.push(Fault { field: field.to_owned(), value: value.chars().take(64).collect(), allowed });
    };
    if change.fields.is_empty() {
        fault("fields", "", "at least one field".to_owned());
    }
    for (field, value) in &change.fields {
        let shown = value.as_deref().unwrap_or("(delete)");
        if matches!(field.as_str(), "epoch" | "seal") {
            fault(field, shown, "left alone: the store writes it".to_owned());
        } else if field == "rollout" && change.kind == Kind::Change {
            fault(field, shown, "left alone: it is moved with switchback rollout".to_owned());
        } else if field != "rollout" && !WRITABLE.contains(&field.as_str()) && !field.starts_with("flag.") && !field.starts_with(VERSION_OF)
        {
            fault(field, shown, format!("one of the fields {}, version.<pool> or flag.<name>", WRITABLE.join(", ")));
        }
        if matches!(field.as_str(), "live" | "salt") && value.as_ref().is_none_or(String::is_empty) {
            fault(field, shown, "set: it cannot be deleted".to_owned());
        }
    }
    if change.who.is_empty() || change.who.chars().count() > WHO_CHARS {
        fault("who", &change.who, format!("1 to {WHO_CHARS} characters"));
    }
    if change.why.chars().count() > WHY_CHARS {
        fault("why", &change.why, format!("at most {WHY_CHARS} characters"));
    }
    faults
}
