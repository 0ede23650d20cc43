//! `[route.rollout]`: how a candidate becomes live, unless who starts the rollout says otherwise.

use std::time::Duration;

use super::check::Checker;
use super::check_gate::Gate;
use super::{check_gate, written};
use crate::vocabulary::Ppm;

/// Steps of a plan.
pub const ROLLOUT_STEPS: usize = 32;
const SHARE_RULE: &str = "must be a percentage from 0 to 100 with up to 4 decimals, like \"2.5\"";
const STEP_RULE: &str = "must be more than 0 and less than 100, with up to 4 decimals, like \"2.5\": everybody follows after the last step";
const DAY: Duration = Duration::from_secs(86_400);

/// The plan of a route's rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutPlan {
    /// 1..=32, rising.
    pub steps: Vec<RolloutStep>,
    /// Steps up to this share are on the pool `canary`.
    pub canary_max: Ppm,
    /// Share of queries that is copied to the candidate first.
    pub mirror: Ppm,
    /// For so long.
    pub mirror_for: Duration,
    /// Share that stays on the version before.
    pub holdback: Ppm,
    /// For so long.
    pub bake: Duration,
    /// Operators are told of a step that takes longer.
    pub max_step: Duration,
    /// Who else is asked.
    pub gates: Vec<Gate>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutStep {
    /// The candidate's share.
    pub percent: Ppm,
    /// At least.
    pub dwell: Duration,
    /// Requests of the candidate, at least.
    pub min_samples: u64,
    /// Somebody has to approve of its end.
    pub approval: bool,
}

pub(super) fn check_rollout(checker: &mut Checker, route_key: &str, written: &written::Rollout) -> RolloutPlan {
    let key = |name: &str| format!("{route_key}.rollout.{name}");
    let steps = steps(checker, &key, written);
    let gates = check_gate::check_gates(checker, &format!("{route_key}.rollout"), &written.gate);
    let mut share = |name: &str, text: &Option<String>, default: &str| {
        let text = text.as_deref().unwrap_or(default);
        Ppm::from_percent(text).unwrap_or_else(|| {
            checker.refuse(&key(name), text, SHARE_RULE);
            Ppm::ZERO
        })
    };
    let canary_max = share("canary_max_percent", &written.canary_max_percent, "10");
    let mirror = share("mirror_percent", &written.mirror_percent, "0");
    let holdback = share("holdback_percent", &written.holdback_percent, "10");
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let mut duration = |name: &str, text: &Option<String>, default| {
        checker.duration(&key(name), text.as_deref(), default, Duration::from_millis(1), 30 * DAY)
    };
    RolloutPlan {
        steps,
        canary_max,
        mirror,
        mirror_for: duration("mirror", &written.mirror, minutes(1)),
        holdback,
        bake: duration("bake", &written.bake, minutes(60)),
        max_step: duration("max_step", &written.max_step, minutes(30)),
        gates,
    }
}

fn steps(checker: &mut Checker, key: &impl Fn(&str) -> String, written: &written::Rollout) -> Vec<RolloutStep> {
    let shares = match (&written.steps, &written.step_weight, &written.max_weight) {
        (Some(steps), None, None) => steps.clone(),
        (Some(_), _, _) => {
            let rule = "must not stand beside step_weight and max_weight: name the steps, or how they grow";
            checker.refuse(&key("steps"), "[...]", rule);
            return Vec::new();
        }
        (None, None, None) => ["1", "5", "25", "50"].map(str::to_owned).to_vec(),
        (None, weight, most) => growing(checker, key, weight.as_deref().unwrap_or("10"), most.as_deref().unwrap_or("50")),
    };
    let percents: Vec<Option<Ppm>> = shares.iter().map(|text| Ppm::from_percent(text)).collect();
    for (index, (text, percent)) in shares.iter().zip(&percents).enumerate() {
        if percent.is_none_or(|percent| percent == Ppm::ZERO || percent == Ppm::ALL) {
            checker.refuse(&format!("{}[{index}]", key("steps")), text, STEP_RULE);
        }
    }
    let percents: Vec<Ppm> = percents.into_iter().flatten().collect();
    if !percents.is_sorted_by(|less, more| less < more) || !(1..=ROLLOUT_STEPS).contains(&shares.len()) {
        let rule = format!("must be 1 to {ROLLOUT_STEPS} shares, each larger than the one before");
        checker.refuse(&key("steps"), format!("[{}]", shares.join(", ")), &rule);
    }
    let dwell = checker.duration(&key("dwell"), written.dwell.as_deref(), Duration::ZERO, Duration::ZERO, 30 * DAY);
    for (index, wanted) in written.approval.iter().flatten().enumerate() {
        if !shares.contains(wanted) {
            let rule = format!("must be one of the steps: {}", shares.join(", "));
            checker.refuse(&format!("{}[{index}]", key("approval")), wanted, &rule);
        }
    }
    let step = |percent: Ppm| RolloutStep {
        percent,
        dwell,
        min_samples: written.min_samples.unwrap_or(0),
        approval: written.approval.iter().flatten().any(|wanted| Ppm::from_percent(wanted) == Some(percent)),
    };
    percents.into_iter().map(step).collect()
}

/// `step_weight` and its multiples, up to `max_weight`.
fn growing(checker: &mut Checker, key: &impl Fn(&str) -> String, weight: &str, most: &str) -> Vec<String> {
    let mut read = |name: &str, text: &str| {
        let percent = Ppm::from_percent(text).filter(|percent| *percent > Ppm::ZERO && *percent < Ppm::ALL);
        if percent.is_none() {
            checker.refuse(&key(name), text, STEP_RULE);
        }
        percent
    };
    let (Some(weight), Some(most)) = (read("step_weight", weight), read("max_weight", most)) else { return vec!["1".to_owned()] };
    let count = most.get() / weight.get();
    if count == 0 || count as usize > ROLLOUT_STEPS {
        let rule = format!("must go 1 to {ROLLOUT_STEPS} times into max_weight ({most})");
        checker.refuse(&key("step_weight"), weight, &rule);
        return vec!["1".to_owned()];
    }
    (1..=count).filter_map(|times| Ppm::new(times * weight.get())).map(|percent| percent.to_string()).collect()
}
