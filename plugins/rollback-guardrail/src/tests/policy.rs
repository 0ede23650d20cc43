//! What an operator can rely on.

use switchback_policy::rollback::{Bucket, Outcome, RollbackPolicy as _, Slice, Tally, Verdict, Window};

use super::{Dice, engagement, metric, tally, traffic};
use crate::{Guardrail, SAMPLE_RATIO, check};

/// A rollout that is judged window by window.
struct Rollout {
    config: &'static str,
    state: Vec<u8>,
}

impl Rollout {
    fn new(config: &'static str) -> Rollout {
        Rollout { config, state: Vec::new() }
    }

    fn judge(&mut self, window: &Window) -> Outcome {
        let outcome = Guardrail::evaluate(self.config, &self.state, window).unwrap();
        self.state.clone_from(&outcome.state);
        outcome
    }
}

#[test]
fn rolls_back_when_the_candidate_fails_and_says_so_in_a_sentence() {
    let mut rollout = Rollout::new("{}");
    for index in 0..30 {
        assert_eq!(rollout.judge(&traffic(index, 0, u64::from(index % 4 == 0))).verdict, Verdict::Hold);
    }
    let outcome = (30..40).map(|index| rollout.judge(&traffic(index, 4, 1))).find(|outcome| outcome.verdict == Verdict::RollBack);
    let summary = outcome.expect("a candidate with 8 % errors").summary;
    assert!(summary.starts_with("roll back: errors: candidate 8.00 % of "), "{summary}");
    assert!(summary.contains("control 0.22 % of ") && summary.contains("once in "), "{summary}");
}

#[test]
fn where_a_candidate_is_slower_is_said() {
    let caught = |slow: fn(&mut Window)| {
        let mut rollout = Rollout::new("{}");
        (0..30).for_each(|index| drop(rollout.judge(&traffic(index, 0, 0))));
        let judged = (30..60).map(|index| {
            let mut window = traffic(index, 0, 0);
            slow(&mut window);
            rollout.judge(&window)
        });
        judged.into_iter().find(|outcome| outcome.verdict == Verdict::RollBack).expect("it is slower").summary
    };
    let common = caught(|window| (window.latency[0].candidate, window.latency[1].candidate) = (0, 50));
    let tail = "roll back: latency, most of all around control's earlier p90; slower than its p99: candidate 0.00 % of ";
    assert!(common.starts_with(tail), "{common}");
    let rare = caught(|window| window.latency.push(Bucket { upper_micros: 900_000, candidate: 50, control: 0 }));
    assert!(rare.starts_with("roll back: requests slower than control's earlier p99: candidate 50.0 % of "), "{rare}");
}

#[test]
fn an_outage_that_both_arms_share_is_not_the_candidates() {
    let mut rollout = Rollout::new("{}");
    let mut dice = Dice(3);
    for index in 0..400 {
        let p = if index < 100 { 0.001 } else { 0.4 };
        let outcome = rollout.judge(&traffic(index, dice.events(50, p), dice.events(450, p)));
        assert_ne!(outcome.verdict, Verdict::RollBack, "window {index}: {}", outcome.summary);
    }
}

#[test]
fn advances_when_every_gate_is_passed_and_not_before_clicks_are_mature() {
    let config = r#"{"min_dwell_seconds": 10}"#;
    let mut rollout = Rollout::new(config);
    let mut last = String::new();
    for index in 0..120 {
        last = rollout.judge(&traffic(index, 0, 0)).summary;
    }
    assert!(last.contains("are not mature"), "{last}");
    let mut verdicts = Vec::new();
    for index in 0..2_000 {
        let outcome = rollout.judge(&engagement(index, 15, 135));
        verdicts.push(outcome.verdict);
        if outcome.verdict == Verdict::Advance {
            break;
        }
    }
    assert_eq!(verdicts.last(), Some(&Verdict::Advance));
    assert!(verdicts.len() > 100, "after {} windows of clicks", verdicts.len());
    // The next step starts again, and a small one does not wait for clicks.
    let next = |index: u64| {
        let mut window = traffic(index, 0, 0);
        (window.step.index, window.step.share_ppm) = (1, 50_000);
        window
    };
    assert_eq!(rollout.judge(&next(120)).verdict, Verdict::Hold);
    let advanced = (121..200).map(|index| rollout.judge(&next(index))).position(|outcome| outcome.verdict == Verdict::Advance);
    assert!(advanced.is_some_and(|windows| windows >= 8), "{advanced:?}");
}

#[test]
fn nothing_in_an_arm_is_no_data_and_decides_nothing() {
    let mut rollout = Rollout::new(r#"{"min_dwell_seconds": 0}"#);
    for index in 0..100 {
        let mut window = traffic(index, 0, 0);
        window.candidate_requests = 0;
        window.metrics = vec![metric("errors", tally(0, 0), tally(450, 3))];
        assert_eq!(rollout.judge(&window).verdict, Verdict::NoData);
    }
}

#[test]
fn a_metric_that_control_has_and_the_candidate_lacks_is_not_let_on() {
    let mut rollout = Rollout::new(r#"{"min_dwell_seconds": 1, "quality_from_percent": 1}"#);
    for index in 0..300 {
        rollout.judge(&traffic(index, 0, 0));
        let mut window = engagement(index, 0, 135);
        window.metrics[0].candidate = tally(0, 0);
        let outcome = rollout.judge(&window);
        assert_eq!(outcome.verdict, Verdict::Hold, "{}", outcome.summary);
    }
}

/// Every query is an impression, also where nobody tells of clicks.
#[test]
fn clicks_that_nobody_tells_of_gate_nothing_and_a_feed_that_stops_holds() {
    let config = r#"{"min_dwell_seconds": 1, "quality_from_percent": 1}"#;
    let mut silent = Rollout::new(config);
    let verdicts: Vec<Verdict> = (0..300)
        .map(|index| {
            silent.judge(&traffic(index, 0, 0));
            silent.judge(&engagement(index, 0, 0)).verdict
        })
        .collect();
    assert!(verdicts.contains(&Verdict::Advance), "{:?}", verdicts.last());
    let mut stops = Rollout::new(config);
    stops.judge(&traffic(0, 0, 0));
    stops.judge(&engagement(0, 15, 135));
    for index in 1..300 {
        stops.judge(&traffic(index, 0, 0));
        let outcome = stops.judge(&engagement(index, 0, 0));
        assert_eq!(outcome.verdict, Verdict::Hold, "{}", outcome.summary);
    }
}

#[test]
fn a_wrong_share_holds_and_alerts_and_never_rolls_back() {
    let mut rollout = Rollout::new(r#"{"min_dwell_seconds": 1, "quality_from_percent": 100}"#);
    let mut outcome = rollout.judge(&traffic(0, 0, 0));
    for index in 1..600 {
        let mut window = traffic(index, 0, 0);
        window.share_ppm = Some(80_000);
        outcome = rollout.judge(&window);
        assert_ne!(outcome.verdict, Verdict::RollBack);
    }
    assert_eq!(outcome.verdict, Verdict::Hold);
    assert!(outcome.summary.contains("sample ratio mismatch: the candidate gets 10.0 % where 8.00 %"), "{}", outcome.summary);
    assert!(outcome.evidence.iter().any(|evidence| evidence.metric == SAMPLE_RATIO && evidence.log_harm > 7.6));
}

/// One user of each arm asks a lot, and one of them more than the other: that is chance, as the groups' sizes tell, and not the split.
#[test]
fn busy_users_are_no_wrong_share_whichever_metric_tells_of_them() {
    let holds = |id: &str, has_groups: bool| {
        let mut rollout = Rollout::new("{}");
        let mut last = String::new();
        for index in 0..200 {
            let sizes = |busy: u64| (0..32).map(|group| tally(if group == 0 { busy } else { 4 }, 0)).collect::<Vec<_>>();
            let (candidate, control) = (sizes(60), sizes(25));
            let total = |groups: &[Tally]| groups.iter().map(|group| group.n).sum::<u64>();
            let (candidates, controls) = (total(&candidate), total(&control));
            let traffic = traffic(index, 0, 0);
            let errors = metric("errors", tally(candidates, 0), tally(controls, 0));
            let traffic = Window {
                share_ppm: Some(500_000),
                candidate_requests: candidates,
                control_requests: controls,
                metrics: vec![errors],
                latency: Vec::new(),
                ..traffic
            };
            let mut seen = metric(id, tally(candidates, 0), tally(controls, 0));
            if has_groups {
                (seen.candidate_groups, seen.control_groups) = (candidate, control);
            }
            let engagement = Window { slice: Slice::Engagement, metrics: vec![seen], ..traffic.clone() };
            rollout.judge(&traffic);
            last = rollout.judge(&engagement).summary;
        }
        last.starts_with("hold: sample ratio mismatch")
    };
    assert!(holds("clicks", false), "184 to 149, of independent users, is none");
    assert!(!holds("clicks", true) && !holds("quality", true) && !holds("conversions", true));
}

#[test]
fn without_control_the_promise_is_held_against_the_candidate() {
    let everybody = |index, errors| {
        let mut window = traffic(index, errors, 0);
        (window.share_ppm, window.control_requests) = (Some(1_000_000), 0);
        window.metrics[0].control = tally(0, 0);
        window
    };
    let mut promised = Rollout::new(r#"{"slo_error_rate": 0.02}"#);
    assert_eq!((0..200).map(|index| promised.judge(&everybody(index, index % 2))).find(|o| o.verdict == Verdict::RollBack), None);
    let caught = (200..230).map(|index| promised.judge(&everybody(index, 10))).find(|o| o.verdict == Verdict::RollBack);
    assert!(caught.is_some_and(|outcome| outcome.summary.contains("no control, and 2.00 % was promised")));
    let mut silent = Rollout::new("{}");
    assert!((0..50).all(|index| silent.judge(&everybody(index, 25)).verdict == Verdict::NoData));
}

#[test]
fn a_window_is_judged_once_and_nonsense_in_one_is_refused_with_its_place() {
    let mut rollout = Rollout::new("{}");
    rollout.judge(&traffic(5, 0, 0));
    let refused = |change: fn(&mut Window)| {
        let mut window = traffic(6, 0, 0);
        change(&mut window);
        Guardrail::evaluate("{}", &rollout.state, &window).unwrap_err()
    };
    assert_eq!(refused(|window| window.index = 5), "window 5 (traffic) was judged before: the next one is 6");
    // What could be taken in and never read back from the state.
    let many = refused(|window| window.metrics[0].candidate.n = u64::MAX);
    assert!(many.ends_with("n = 18446744073709551615: must be 1000000000000 at most"), "{many}");
    assert!(refused(|window| window.latency[0].control = u64::MAX).ends_with("1000000000000 at most are allowed"));
    assert!(refused(|window| window.candidate_requests = u64::MAX).ends_with("1000000000000 at most are allowed"));
    let error = refused(|window| window.metrics[0].candidate.sum = f64::NAN);
    assert_eq!(error, "window 6 (traffic) has errors of the candidate with sum = NaN: must be a number from 0 to n = 50");
    assert!(refused(|window| window.metrics[0].control.sum = 451.0).contains("errors of the control with sum = 451"));
    assert!(refused(|window| window.latency.reverse()).contains("not sorted"));
    assert!(refused(|window| window.share_ppm = Some(1_000_001)).contains("share-ppm = 1000001"));
    assert!(refused(|window| window.metrics[0].candidate_groups = vec![tally(1, 1); 31]).contains("31 groups: none or 32"));
}

#[test]
fn what_is_wrong_with_a_config_is_said_with_key_value_and_what_is_allowed() {
    let said = |config: &str| check(config).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    for (config, wanted) in [
        (r#"{"alpha": 2}"#, "rollback_config.alpha = 2: must be a number from 0.000000001 to 0.2"),
        (r#"{"alhpa": 0.01}"#, "rollback_config.alhpa = 0.01: unknown key; allowed are alpha, advance_odds"),
        (r#"{"errors": {"weight": 0.5}}"#, "the weights of errors, latency and metrics = 1.25: must be weights that sum to 1 at most"),
        (r#"{"errors": 3}"#, "rollback_config.errors = 3: must be an object"),
        (r#"{"errors": {"relative_margin": 0.1}}"#, "rollback_config.errors.relative_margin"),
        (r#"{"metrics": {"clicks": {"kernel": "sign"}}}"#, "rollback_config.metrics.clicks.kernel = \"sign\": must be \"tilt\""),
        (r#"{"metrics": {"timeouts": {"weight": 0.1}}}"#, "must be under the id of a metric"),
        (r#"{"design_effect": {"prior": 0.5}}"#, "rollback_config.design_effect.prior = 0.5: must be a number from 1 to 1000"),
        (r#"[1]"#, "rollback_config must be a JSON object"),
        (r#"{"#, "rollback_config must be a JSON object: EOF"),
    ] {
        assert!(said(config).contains(wanted), "{config}: {}", said(config));
    }
}
