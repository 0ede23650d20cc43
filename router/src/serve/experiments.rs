//! One worker's experiments of one route: which arm a query is in, worked out from flags as far as it can be when they change.
//!
//! ```text
//! layer 1: position under its salt -> the experiment that has it -> conditions -> position under the experiment's salt -> arm
//!    | in none
//! layer 2, ..., the rollout's layer
//!    | in none
//! the policy
//! ```
//!
//! Invariant: an experiment runs whole or not at all. One with an arm that no pool of the route can answer for sends nobody anywhere, and neither does one with an
//! arm that this router's breaker holds back.

use std::sync::Arc;

use http::HeaderName;
use switchback_policy::split::Field;

use super::head::Head;
use super::position::PositionKey;
use super::query;
use crate::config;
use crate::flags::{Arm, Condition, Experiment, Flags, ROLLOUT_LAYER};
use crate::quality::{NewArms, Series, route_id};
use crate::vocabulary::PoolIndex;

/// Those that run, by layer.
#[derive(Default)]
pub(super) struct Experiments {
    layers: Box<[Layer]>,
    /// The places of arms, in the order of the flags: as a policy names them. `None` for those of an experiment that sends nobody anywhere here.
    arms: Box<[Option<(usize, usize, usize)>]>,
}

struct Layer {
    key: PositionKey,
    experiments: Box<[Running]>,
}

struct Running {
    /// It has the layer's positions from here,
    from: u32,
    /// and up to here.
    below: u32,
    when: Box<[(Subject, Test)]>,
    key: PositionKey,
    arms: Box<[RunningArm]>,
}

/// An arm.
pub(super) struct RunningArm {
    /// Positions under the experiment's salt below this are the arm's, or those of one before it.
    below: u32,
    pub(super) pool: PoolIndex,
    /// Under which the experiment's units are in groups: the same for as long as it runs, whatever rollouts there are meanwhile.
    pub(super) groups: PositionKey,
    /// Where it is counted.
    pub(super) series: Arc<Series>,
}

/// What a condition looks at. The name of a header is read when flags change.
enum Subject {
    Header(HeaderName),
    Other(Field),
}

enum Test {
    OneOf(Box<[String]>),
    Prefix(String),
    Present(bool),
}

impl Experiments {
    /// Of these flags. Arms that were there `before` go on being counted in the same place.
    pub(super) fn of(route: &config::Route, flags: &Flags, before: &Experiments, new_arms: &NewArms) -> Experiments {
        let Some(all) = &flags.experiments else { return Experiments::default() };
        let maker = Maker { route, flags, before, new_arms };
        let names = all.layers.iter().map(|layer| (layer.name.as_str(), layer.salt.as_str()));
        let mut layers = Vec::new();
        for (name, salt) in names.chain([(ROLLOUT_LAYER, flags.salt.as_str())]) {
            let mine = all.running().filter(|experiment| experiment.layer == name);
            let experiments: Box<[Running]> = mine.filter_map(|experiment| maker.make(experiment)).collect();
            if !experiments.is_empty() {
                layers.push(Layer { key: PositionKey::new(salt.as_bytes()), experiments });
            }
        }
        let arms = all.running().flat_map(Experiment::arm_ids).map(|id| place_of(&layers, id)).collect();
        Experiments { layers: layers.into(), arms }
    }

    /// Whether there is none: most of the time.
    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The arm that a query of this unit is in.
    pub(super) fn arm(&self, unit: &[u8], head: &Head) -> Option<&RunningArm> {
        self.layers.iter().find_map(|layer| {
            let position = layer.key.position(unit);
            let running = layer.experiments.iter().find(|running| (running.from..running.below).contains(&position))?;
            running.arm(unit, head)
        })
    }

    /// The arm with this number: its place among the arms of those that run, in the order of the flags.
    pub(super) fn numbered(&self, number: u32) -> Option<&RunningArm> {
        let (layer, experiment, arm) = (*self.arms.get(usize::try_from(number).ok()?)?)?;
        self.layers.get(layer)?.experiments.get(experiment)?.arms.get(arm)
    }

    fn series(&self, id: u32) -> Option<&Arc<Series>> {
        let arms = self.layers.iter().flat_map(|layer| &layer.experiments).flat_map(|running| &running.arms);
        arms.map(|arm| &arm.series).find(|series| series.id() == id)
    }
}

fn place_of(layers: &[Layer], id: u32) -> Option<(usize, usize, usize)> {
    layers.iter().enumerate().find_map(|(layer, of)| {
        of.experiments.iter().enumerate().find_map(|(experiment, of)| {
            let arm = of.arms.iter().position(|arm| arm.series.id() == id)?;
            Some((layer, experiment, arm))
        })
    })
}

impl Running {
    fn arm(&self, unit: &[u8], head: &Head) -> Option<&RunningArm> {
        let holds = |(subject, test): &(Subject, Test)| match subject {
            Subject::Header(name) => test.holds(query::header(head, name)),
            Subject::Other(field) => test.holds(query::field(head, field).as_deref()),
        };
        if !self.when.iter().all(holds) {
            return None;
        }
        let position = self.key.position(unit);
        self.arms.iter().find(|arm| position < arm.below)
    }
}

impl Test {
    fn of(condition: &Condition) -> Option<(Subject, Test)> {
        let Condition { equals, one_of, prefix, present, .. } = condition;
        let one_of = one_of.clone().or_else(|| Some(vec![equals.clone()?]));
        let test = one_of.map(|values| Test::OneOf(values.into())).or_else(|| Some(Test::Prefix(prefix.clone()?)));
        let subject = match condition.subject()? {
            Field::Header(name) => Subject::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            other => Subject::Other(other),
        };
        Some((subject, test.or_else(|| Some(Test::Present((*present)?)))?))
    }

    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Test::OneOf(allowed), Some(value)) => allowed.iter().any(|allowed| allowed == value),
            (Test::Prefix(prefix), Some(value)) => value.starts_with(prefix.as_str()),
        }
    }
}

struct Maker<'a> {
    route: &'a config::Route,
    flags: &'a Flags,
    before: &'a Experiments,
    new_arms: &'a NewArms,
}

impl Maker<'_> {
    fn make(&self, experiment: &Experiment) -> Option<Running> {
        let pools: Vec<PoolIndex> = experiment.arms.iter().map(|arm| self.pool_of(arm)).collect::<Option<_>>()?;
        let when = experiment.when.iter().map(Test::of).collect::<Option<_>>()?;
        let arms = pools.into_iter().zip(experiment.bounds()).zip(experiment.arm_ids().zip(&experiment.arms));
        let name = |arm: &Arm| format!("{}/{}", experiment.name, arm.name);
        let groups = PositionKey::new(format!("groups:{}", experiment.salt).as_bytes());
        let arms = arms.map(|((pool, below), (id, arm))| RunningArm { below, pool, groups, series: self.series(id, name(arm)) }).collect();
        let from = experiment.from_percent.get();
        Some(Running {
            from,
            below: from.saturating_add(experiment.percent.get()),
            when,
            key: PositionKey::new(experiment.salt.as_bytes()),
            arms,
        })
    }

    /// The pool that answers; `None` where the route has none, or the breaker holds it back.
    fn pool_of(&self, arm: &Arm) -> Option<PoolIndex> {
        let pool = arm.pool_of(self.route, self.flags)?;
        let Some(shed) = &self.flags.shed else { return Some(pool) };
        let is_of_live = arm.pool.as_deref() == Some("live") && shed.pools.contains(&shed.live);
        (!is_of_live && !shed.pools.contains(&pool)).then_some(pool)
    }

    fn series(&self, id: u32, name: String) -> Arc<Series> {
        if let Some(known) = self.before.series(id) {
            return known.clone();
        }
        let series = Arc::new(Series::of_arm(route_id(&self.route.name), id, name));
        self.new_arms.put(series.clone());
        series
    }
}

#[cfg(test)]
#[path = "experiments_tests.rs"]
mod tests;
