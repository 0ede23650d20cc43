//! What operators are told about a route's policy.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::admission::Report;
use super::in_force::Kind;

/// A route's split policy as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// The name in force.
    pub name: String,
    /// Its digest, 64 hex digits; empty when native.
    pub digest: String,
    /// In one word how things are.
    pub state: PolicyState,
    /// What the flags name: `name` or `name@digest`.
    pub wanted: String,
    /// Why the one in force is not what the flags name, or why native decisions stand in for it; empty when all is well.
    pub why: String,
    /// Who decides at this moment.
    pub answered_by: AnsweredBy,
    /// Who decides what the one in force cannot, where the route wants that and there is one.
    pub last_good: Option<LastGoodStatus>,
    /// More about the one in force.
    pub in_force: InForceStatus,
    /// The last refusals of plugins with the wanted name, newest first, 8 at most.
    pub refusals: Vec<Refusal>,
}

/// In one word how a route's policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyState {
    /// What the flags name is in force.
    InForce,
    /// What the flags name is being checked and compiled; the previous one serves.
    Admitting,
    /// What the flags name is not there or was refused; the previous one serves.
    Refused,
    /// It failed too often: native decisions until the quarantine ends.
    Quarantined,
    /// It refuses the flags in force: native decisions until they change.
    Unconfigured,
    /// There is no component to run: native decisions.
    Native,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// The policy in force.
    Policy,
    /// The last good policy, in its place.
    LastGood,
    /// Live, candidate and holdback by position.
    Native,
}

/// The policy that stands in for the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastGoodStatus {
    /// Its name.
    pub name: String,
    /// Its digest, 64 hex digits.
    pub digest: String,
    /// Its own failures since it stands in.
    pub strikes: u64,
}

/// A plugin that the router knows by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginStatus {
    /// Its name, as flags say it.
    pub name: String,
    /// What the name means: 64 hex digits; empty when nothing of this name was admitted.
    pub digest: String,
    /// Its size in bytes; 0 when nothing of this name was admitted.
    pub bytes: u64,
    /// `shipped`, or the file's path.
    pub source: String,
    /// In one word how it is.
    pub state: PluginState,
    /// Why it is so, where that needs words.
    pub why: String,
    /// Routes where it is in force.
    pub routes: Vec<String>,
    /// What was found out about it at its admission.
    pub report: Option<Report>,
}

impl PluginStatus {
    pub(super) fn of(digest: Option<&String>, report: Option<Report>) -> PluginStatus {
        PluginStatus {
            name: String::new(),
            digest: digest.cloned().unwrap_or_default(),
            bytes: report.as_ref().map_or(0, |report| report.bytes),
            source: String::new(),
            state: PluginState::Admitting,
            why: String::new(),
            routes: Vec::new(),
            report,
        }
    }
}

/// In one word how a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// Flags can name it.
    Admitted,
    /// Its file is being checked and compiled; what was admitted before, if anything, goes on.
    Admitting,
    /// Its file was refused; what was admitted before, if anything, goes on.
    Refused,
    /// Shipped, and a file of its name is meant instead.
    Hidden,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InForceStatus {
    /// How it runs.
    pub kind: Kind,
    /// Where it came from: `shipped`, `kept`, or the file's path.
    pub source: String,
    /// When it came into force, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Failures since then, over all workers.
    pub strikes: u64,
    /// How long the present quarantine still lasts.
    pub quarantined_for_ms: Option<u64>,
    /// Its last failure, in words.
    pub last_failure: Option<String>,
}

/// A plugin that was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The plugin's name.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Its digest, where the file could be read.
    pub digest: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Milliseconds since 1970, for people.
pub(super) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
