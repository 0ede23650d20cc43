//! `[route.rollout]`: how a candidate becomes live, unless who starts the rollout says otherwise.

use std::time::Duration;

use super::check::Checker;
use super::check_gate::Gate;
use super::{check_gate, written};
use crate::vocabulary::Ppm;

/// Steps of a plan.
pub const ROLLOUT_STEPS: usize = 32;
/// Copies that may be waited for.
const COPIES: u64 = 1_000_000_000;
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
    /// With fewer copies nothing is judged, and nothing goes on; 0..=1_000_000_000, and with 0 copies are not judged.
    pub mirror_min_samples: u64,
    /// Of the copies, so many may fail.
    pub mirror_max_failing: Ppm,
    /// Of the lists that are compared, so many may have another first result.
    pub mirror_max_top1_change: Ppm,
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
    let mirror_max_failing = share("mirror_max_failing", &written.mirror_max_failing, "1");
    let mirror_max_top1_change = share("mirror_max_top1_change", &written.mirror_max_top1_change, "70");
    let holdback = share("holdback_percent", &written.holdback_percent, "10");
    let mirror_min_samples = checker.count(&key("mirror_min_samples"), written.mirror_min_samples, 100, 0, COPIES);
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let mut duration = |name: &str, text: &Option<String>, default| {
        checker.duration(&key(name), text.as_deref(), default, Duration::from_millis(1), 30 * DAY)
    };
    RolloutPlan {
        steps,
        canary_max,
        mirror,
        mirror_for: duration("mirror", &written.mirror, minutes(1)),
        mirror_min_samples,
        mirror_max_failing,
        mirror_max_top1_change,
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
    for (index, text) in shares.iter().enumerate().filter(|(_, text)| step_of(text).is_none()) {
        checker.refuse(&format!("{}[{index}]", key("steps")), text, STEP_RULE);
    }
    let percents: Vec<Ppm> = shares.iter().filter_map(|text| Ppm::from_percent(text)).collect();
    if !are_steps(&percents, shares.len()) {
        checker.refuse(&key("steps"), format!("[{}]", shares.join(", ")), steps_rule());
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

fn step_of(text: &str) -> Option<Ppm> {
    Ppm::from_percent(text).filter(|percent| *percent > Ppm::ZERO && *percent < Ppm::ALL)
}

fn are_steps(percents: &[Ppm], count: usize) -> bool {
    percents.is_sorted_by(|less, more| less < more) && (1..=ROLLOUT_STEPS).contains(&count)
}

fn steps_rule() -> String {
    format!("must be 1 to {ROLLOUT_STEPS} shares, each larger than the one before")
}

/// Steps of a single rollout, as `steps` of a route has them: 1..=32 percentages, rising, each more than 0 and less than 100.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn rollout_steps(shares: &[String]) -> Result<Vec<Ppm>, String> {
    let cut = |text: &str| text.chars().take(40).collect::<String>();
    let step = |(index, text): (usize, &String)| step_of(text).ok_or_else(|| format!("steps[{index}] = {:?}: {STEP_RULE}", cut(text)));
    let percents: Vec<Ppm> = shares.iter().take(ROLLOUT_STEPS + 1).enumerate().map(step).collect::<Result<_, _>>()?;
    let told: Vec<String> = percents.iter().map(ToString::to_string).collect();
    if are_steps(&percents, shares.len()) { Ok(percents) } else { Err(format!("steps = [{}]: {}", told.join(", "), steps_rule())) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copies_have_to_be_like_has_defaults_and_limits() {
        let mut checker = Checker::default();
        let plan = check_rollout(&mut checker, "route", &written::Rollout::default());
        let told = [plan.mirror_max_failing, plan.mirror_max_top1_change].map(|share| share.to_string());
        assert_eq!((plan.mirror_min_samples, told, checker.said()), (100, ["1", "70"].map(str::to_owned), String::new()));
        let written = written::Rollout {
            mirror_min_samples: Some(1_000_000_001),
            mirror_max_failing: Some("101".to_owned()),
            mirror_max_top1_change: Some("0,7".to_owned()),
            ..written::Rollout::default()
        };
        check_rollout(&mut checker, "route", &written);
        let said = checker.said();
        for key in [
            "mirror_min_samples = 1000000001: must be a whole number from 0 to 1000000000",
            "mirror_max_failing = \"101\": must be a percentage from 0 to 100",
            "mirror_max_top1_change = \"0,7\": must be a percentage from 0 to 100",
        ] {
            assert!(said.contains(&format!("route.rollout.{key}")), "{key}: {said}");
        }
    }

    #[test]
    fn steps_of_one_rollout_are_as_a_routes() {
        let steps = |text: &str| rollout_steps(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let told = |percents: Vec<Ppm>| percents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(steps("1,2.5,50").map(told).as_deref(), Ok("1,2.5,50"));
        for (text, said) in [
            ("0", "steps[0] = \"0\": must be more than 0 and less than 100"),
            ("1,100", "steps[1] = \"100\": must be more than 0"),
            ("1,five", "steps[1] = \"five\": must be more than 0"),
            ("", "steps[0] = \"\": must be more than 0"),
            ("5,1", "steps = [5, 1]: must be 1 to 32 shares, each larger than the one before"),
            ("5,5", "steps = [5, 5]: must be 1 to 32 shares"),
        ] {
            assert!(steps(text).is_err_and(|error| error.starts_with(said)), "{text}: {:?}", steps(text));
        }
        assert!(rollout_steps(&[]).is_err());
        let many: Vec<String> = (1..=33).map(|percent| percent.to_string()).collect();
        assert!(rollout_steps(&many).is_err_and(|error| error.contains("1 to 32 shares")));
    }
}
