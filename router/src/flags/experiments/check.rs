//! What experiments must be before they are obeyed.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;
use switchback_policy::split::Field;

use super::{ARMS, Condition, EXPERIMENTS, Experiment, Experiments, ExperimentsFault, LAYERS, ROLLOUT_LAYER, RUNNING, WEIGHT};
use crate::vocabulary::Ppm;

/// The longest name, in characters.
const NAME_CHARS: usize = 64;
/// Conditions of an experiment.
const CONDITIONS: usize = 8;
/// Values of a `one_of`.
const VALUES: usize = 64;
/// The longest value of a condition, and the longest version, in bytes.
const TEXT_BYTES: usize = 256;
/// The longest reason, in characters.
const WHY_CHARS: usize = 1_024;
/// The least that `confidence_percent` may be, and the most.
const CONFIDENCE: [Ppm; 2] = [Ppm::ALL.less(500_000), Ppm::ALL.less(1)];

type Checked = Result<(), ExperimentsFault>;

fn fault(at: impl std::fmt::Display, allowed: impl std::fmt::Display) -> ExperimentsFault {
    ExperimentsFault(format!("{at}: {allowed}"))
}

impl Experiments {
    pub(super) fn check(&self) -> Checked {
        at_most("layers", self.layers.len(), LAYERS)?;
        at_most("experiments", self.experiments.len(), EXPERIMENTS)?;
        at_most("experiments that run", self.running().count(), RUNNING)?;
        let layers = names("layer", self.layers.iter().map(|layer| layer.name.as_str()))?;
        for layer in &self.layers {
            let at = format!("layer {}", layer.name);
            if layer.name == ROLLOUT_LAYER {
                return Err(fault(at, "that is the rollout's own, with the salt of the flags: leave it out"));
            }
            salt(&at, &layer.salt)?;
        }
        names("experiment", self.experiments.iter().map(|experiment| experiment.name.as_str()))?;
        for experiment in &self.experiments {
            experiment.check()?;
            if experiment.layer != ROLLOUT_LAYER && !layers.contains(experiment.layer.as_str()) {
                let allowed = format!("layer {} must be in layers, or {ROLLOUT_LAYER}", experiment.layer);
                return Err(fault(format_args!("experiment {}", experiment.name), allowed));
            }
        }
        self.check_ranges()?;
        let mut salts = BTreeSet::new();
        for (at, salt) in self.salts() {
            if !salts.insert(salt) {
                return Err(fault(at, "its salt is another one's too: who is in one of them would be in a certain arm of the other"));
            }
        }
        let ids: Vec<u32> = self.experiments.iter().flat_map(Experiment::arm_ids).collect();
        if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
            return Err(fault("arms", "two of them would have the same number in tokens: give one of the experiments another salt"));
        }
        Ok(())
    }

    /// Whose, and which.
    fn salts(&self) -> impl Iterator<Item = (String, &str)> {
        let of_layers = self.layers.iter().map(|layer| (format!("layer {}", layer.name), layer.salt.as_str()));
        of_layers.chain(self.experiments.iter().map(|experiment| (format!("experiment {}", experiment.name), experiment.salt.as_str())))
    }

    /// Whether one of the salts is this one: the rollout's.
    pub(in crate::flags) fn has_salt(&self, salt: &str) -> bool {
        self.salts().any(|(_, other)| other == salt)
    }

    /// Experiments that run in one layer have no unit in common.
    fn check_ranges(&self) -> Checked {
        let mut ranges = BTreeMap::<&str, Vec<(u32, u32, &str)>>::new();
        for experiment in self.running() {
            let (from, many) = (experiment.from_percent.get(), experiment.percent.get());
            ranges.entry(&experiment.layer).or_default().push((from, from.saturating_add(many), &experiment.name));
        }
        for (layer, ranges) in &mut ranges {
            ranges.sort_unstable();
            for pair in ranges.windows(2) {
                if let [(_, end, one), (start, _, other)] = pair
                    && start < end
                {
                    let at = format!("experiments {one} and {other}");
                    return Err(fault(at, format_args!("both have units of layer {layer}; take another from_percent, or another layer")));
                }
            }
        }
        Ok(())
    }
}

impl Experiment {
    fn check(&self) -> Checked {
        let at = format!("experiment {}", self.name);
        salt(&at, &self.salt)?;
        if u64::from(self.from_percent.get()) + u64::from(self.percent.get()) > u64::from(Ppm::ALL.get()) {
            return Err(fault(&at, "from_percent and percent must be at most 100 together"));
        }
        let [least, most] = CONFIDENCE;
        if !(least..=most).contains(&self.confidence_percent) {
            return Err(fault(&at, format_args!("confidence_percent must be from {least} to {most}")));
        }
        if self.why.chars().count() > WHY_CHARS {
            return Err(fault(&at, format_args!("why must be at most {WHY_CHARS} characters")));
        }
        if !(2..=ARMS).contains(&self.arms.len()) {
            return Err(fault(&at, format_args!("arms must be 2 to {ARMS}, the first of them control")));
        }
        names(&format!("{at}: arm"), self.arms.iter().map(|arm| arm.name.as_str()))?;
        for arm in &self.arms {
            let at = format!("{at}, arm {}", arm.name);
            match (&arm.pool, &arm.version) {
                (Some(pool), None) => name(&format!("{at}: pool"), pool)?,
                (None, Some(version)) => text(&format!("{at}: version"), version)?,
                _ => return Err(fault(at, "must have exactly one of pool and version")),
            }
            if !(1..=WEIGHT).contains(&arm.weight) {
                return Err(fault(at, format_args!("weight must be a whole number from 1 to {WEIGHT}")));
            }
        }
        at_most(&format!("{at}: when"), self.when.len(), CONDITIONS)?;
        self.when.iter().try_for_each(|condition| condition.check(&format!("{at}, when {}", condition.field)))
    }
}

impl Condition {
    /// What it looks at; `None` for what is no field.
    #[must_use]
    pub fn subject(&self) -> Option<Field> {
        if self.field == "path" {
            return Some(Field::Path);
        }
        let (kind, name) = self.field.split_once(':')?;
        let is_good = !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_graphic());
        match kind {
            "header" => Some(Field::Header(HeaderName::from_bytes(name.as_bytes()).ok()?.as_str().to_owned())),
            "cookie" if is_good => Some(Field::Cookie(name.to_owned())),
            "query" if is_good => Some(Field::Query(name.to_owned())),
            _ => None,
        }
    }

    fn check(&self, at: &str) -> Checked {
        if self.subject().is_none() {
            return Err(fault(at, "field must be path, header:NAME, cookie:NAME or query:NAME"));
        }
        if self.field == "path" && self.present.is_some() {
            return Err(fault(at, "every query has a path: take equals, one_of or prefix"));
        }
        let tests = [self.equals.is_some(), self.one_of.is_some(), self.prefix.is_some(), self.present.is_some()];
        if tests.into_iter().filter(|is_there| *is_there).count() != 1 {
            return Err(fault(at, "must have exactly one of equals, one_of, prefix and present"));
        }
        let values = self.one_of.as_deref().unwrap_or_default();
        at_most(&format!("{at}: one_of"), values.len(), VALUES)?;
        values.iter().chain(&self.equals).chain(&self.prefix).try_for_each(|value| text(at, value))
    }
}

fn at_most(what: &str, count: usize, most: usize) -> Checked {
    if count <= most { Ok(()) } else { Err(fault(what, format_args!("{most} at most, and these are {count}"))) }
}

/// Each a good name, and no two the same.
fn names<'a>(what: &str, all: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, ExperimentsFault> {
    let mut seen = BTreeSet::new();
    for one in all {
        name(what, one)?;
        if !seen.insert(one) {
            return Err(fault(format_args!("{what} {one}"), "there are two of this name"));
        }
    }
    Ok(seen)
}

fn name(what: &str, name: &str) -> Checked {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=NAME_CHARS).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_CHARS).collect();
    Err(fault(format_args!("{what} {shown:?}"), format_args!("a name is 1 to {NAME_CHARS} letters, digits, - and _")))
}

fn salt(at: &str, salt: &str) -> Checked {
    let is_good = (8..=128).contains(&salt.len()) && salt.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(()) } else { Err(fault(at, "salt must be 8 to 128 printable ASCII characters")) }
}

fn text(at: &str, text: &str) -> Checked {
    let is_good = (1..=TEXT_BYTES).contains(&text.len()) && !text.contains(char::is_control);
    if is_good { Ok(()) } else { Err(fault(at, format_args!("a text must be 1 to {TEXT_BYTES} bytes, none of them a control character"))) }
}
