//! A/B experiments, as the field `experiments` of a route's flags has them: JSON with a published schema (`docs/experiments.schema.json`).
//!
//! ```text
//! {"layers": [{"name": "ranking", "salt": "..."}],
//!  "experiments": [{"name": "big-model", "layer": "ranking", "salt": "...", "from_percent": "0", "percent": "20",
//!                   "arms": [{"name": "control", "pool": "live"}, {"name": "big", "pool": "exp"}]}]}
//! ```

mod check;
mod create;

use std::collections::BTreeMap;
use std::fmt;

pub use create::NewExperiment;
use serde::{Deserialize, Serialize};

use super::{EXPERIMENTS_BYTES, Flags, percent};
use crate::config::Route;
use crate::vocabulary::{PoolIndex, Ppm, arm_id, hash32};

/// The layer that shares its units' order with the rollout.
pub const ROLLOUT_LAYER: &str = "rollout";
/// Layers of a route, that of the rollout aside.
pub(super) const LAYERS: usize = 8;
/// Experiments of a route that are kept.
pub(super) const EXPERIMENTS: usize = 32;
/// Of them, those that run at a time.
pub(super) const RUNNING: usize = 8;
/// Arms of an experiment.
pub const ARMS: usize = 8;
/// What `confidence_percent` is where nobody says.
pub(super) const CONFIDENCE: Ppm = Ppm::ALL.less(50_000);
/// The highest weight of an arm.
pub(super) const WEIGHT: u32 = 1_000;

/// All experiments of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiments {
    /// Whoever is in an experiment of an earlier one is in none of a later one.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// Those that run, and those that ran.
    #[serde(default)]
    pub experiments: Vec<Experiment>,
}

/// Units in an order of their own. Experiments of one layer have no unit in common; those of different layers are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Hashes units to positions. Hidden from viewers.
    pub salt: String,
}

/// An experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// A layer's name, or [`ROLLOUT_LAYER`].
    pub layer: String,
    /// Hashes its units to arms. Hidden from viewers.
    pub salt: String,
    /// It has the layer's units from here on.
    #[serde(default, with = "percent")]
    pub from_percent: Ppm,
    /// So many of them.
    #[serde(with = "percent")]
    pub percent: Ppm,
    /// The first one is control.
    pub arms: Vec<Arm>,
    /// Only queries of which all of this holds are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// All intervals of its report hold together this often, whenever somebody looks.
    #[serde(default = "default_confidence", with = "percent")]
    pub confidence_percent: Ppm,
    /// An arm that does harm, beyond doubt, ends it.
    #[serde(default = "default_stop_on_harm")]
    pub stop_on_harm: bool,
    /// When it was created, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// When it was stopped; while it runs, not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_ms: Option<u64>,
    /// Who created or stopped it, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One way to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// The pool that answers: its name, or `live` for whichever is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Or: the model version that answers, on whichever pool runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its part of the experiment's units.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

/// Something that must hold of a query: one of the tests, on one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// `path`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    pub field: String,
    /// It is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// It is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<String>>,
    /// It begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// It is there, or is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

fn default_confidence() -> Ppm {
    CONFIDENCE
}

fn default_stop_on_harm() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// Why a text is no experiments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExperimentsFault(pub String);

impl Experiments {
    /// Reads and checks the field.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn parse(text: &str) -> Result<Experiments, ExperimentsFault> {
        if !text.trim_start().starts_with('{') {
            return Err(ExperimentsFault("it must be a JSON object".to_owned()));
        }
        let experiments: Experiments = serde_json::from_str(text).map_err(|error| ExperimentsFault(error.to_string()))?;
        experiments.check()?;
        Ok(experiments)
    }

    /// As the field has it.
    #[must_use]
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Those that run, for whoever must not know salts: the arms in their order, and what is said of them.
    #[must_use]
    pub fn without_salts(&self) -> String {
        let running = self.running().map(|experiment| {
            let mut shown = serde_json::to_value(experiment).unwrap_or_default();
            if let Some(shown) = shown.as_object_mut() {
                shown.remove("salt");
            }
            shown
        });
        serde_json::json!({ "experiments": running.collect::<Vec<_>>() }).to_string()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Experiment> {
        self.experiments.iter().find(|experiment| experiment.name == name)
    }

    /// The same, with the one of this name stopped. The reason gives way where there is no room for it: the ledger has it, too.
    #[must_use]
    pub fn stopped(&self, name: &str, now_ms: u64, why: &str) -> Experiments {
        let with = |why: &str| {
            let mut after = self.clone();
            for experiment in after.experiments.iter_mut().filter(|experiment| experiment.name == name) {
                (experiment.stopped_ms, experiment.why) = (Some(now_ms), why.to_owned());
            }
            after
        };
        let after = with(why);
        if after.render().len() <= EXPERIMENTS_BYTES { after } else { with("") }
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &Experiment> {
        self.experiments.iter().filter(|experiment| experiment.is_running())
    }

    /// For the ledger and the log: `big-model (20 % of ranking)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let running = self.running().map(|Experiment { name, percent, layer, .. }| format!("{name} ({percent} % of layer {layer})"));
        let running: Vec<String> = running.collect();
        if running.is_empty() { "none runs".to_owned() } else { running.join(", ") }
    }

    /// How many of the units are in no running experiment, whatever their queries are: what a rollout has. Experiments with conditions are not counted.
    #[must_use]
    pub fn left_for_rollouts(&self) -> Ppm {
        let mut taken = BTreeMap::<&str, u32>::new();
        for experiment in self.running().filter(|experiment| experiment.when.is_empty()) {
            *taken.entry(&experiment.layer).or_default() += experiment.percent.get();
        }
        // Layers are independent of each other.
        taken.values().fold(Ppm::ALL, |left, taken| left.of(Ppm::ALL.less(*taken)))
    }

    /// Whether one runs that shares its units' order with the rollout.
    #[must_use]
    pub fn hold_the_rollouts_salt(&self) -> bool {
        self.running().any(|experiment| experiment.layer == ROLLOUT_LAYER)
    }
}

impl Experiment {
    /// Units are sent to its arms.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.stopped_ms.is_none()
    }

    /// Of each arm: as tokens and windows name it.
    pub fn arm_ids(&self) -> impl Iterator<Item = u32> {
        self.arms.iter().map(|arm| arm_id(&self.salt, &self.name, &arm.name))
    }

    /// Of what decides who is in which arm, and by whom each is answered; not of how many are in it.
    #[must_use]
    pub fn terms(&self) -> u32 {
        hash32(&serde_json::to_vec(&(&self.layer, &self.arms, &self.when)).unwrap_or_default())
    }

    /// How often all intervals of its report together may be wrong: 0 to 0.5.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        f64::from(self.confidence_percent.rest().get()) / 1e6
    }

    /// Positions below these, of 0..[`Ppm::ALL`], are of the arm; of each arm, in their order.
    pub fn bounds(&self) -> impl Iterator<Item = u32> {
        let all: u64 = self.arms.iter().map(|arm| u64::from(arm.weight)).sum();
        let mut so_far = 0;
        self.arms.iter().map(move |arm| {
            so_far += u64::from(arm.weight);
            u32::try_from(so_far * u64::from(Ppm::ALL.get()) / all.max(1)).unwrap_or(u32::MAX)
        })
    }
}

impl Arm {
    /// The pool that answers: of several that run its version the live one, or else the first. `None` where the route has none.
    #[must_use]
    pub fn pool_of(&self, route: &Route, flags: &Flags) -> Option<PoolIndex> {
        let runs = |index: PoolIndex, version: &str| route.pools.get(index.get()).is_some_and(|pool| pool.version == version);
        match (self.pool.as_deref(), self.version.as_deref()) {
            (Some("live"), _) => Some(flags.live),
            (Some(name), _) => route.pool_named(name),
            (None, Some(version)) if runs(flags.live, version) => Some(flags.live),
            (None, Some(version)) => (0..=u8::MAX).map(PoolIndex).take(route.pools.len()).find(|index| runs(*index, version)),
            (None, None) => None,
        }
    }
}

/// What the ledger and the log say of a field's value: no salts.
pub(crate) fn in_words(text: &str) -> String {
    Experiments::parse(text).map_or_else(|_| "(not readable)".to_owned(), |experiments| experiments.summary())
}

/// For people: `pool exp`, `version v7`.
impl fmt::Display for Arm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pool, &self.version) {
            (Some(pool), _) => write!(out, "pool {pool}"),
            (None, Some(version)) => write!(out, "version {version}"),
            (None, None) => out.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests;
