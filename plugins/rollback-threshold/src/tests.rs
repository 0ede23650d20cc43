//! What the thresholds promise, and what they do not.

use switchback_policy::rollback::{Bucket, Metric, Step, Tally};

use super::*;

const CONFIG: &str = r#"{"interval_seconds": 2, "failed_checks": 2, "passed_checks": 3, "max_p99_ms": 200}"#;

fn window(index: u64, failed: u64, latency_ms: u64) -> Window {
    let tally = |n, sum: u64| Tally { n, sum: sum as f64, sumsq: sum as f64 };
    let errors = Metric {
        id: "errors".to_owned(),
        candidate: tally(100, failed),
        control: tally(900, 0),
        candidate_groups: Vec::new(),
        control_groups: Vec::new(),
    };
    Window {
        index,
        length_ms: 1_000,
        slice: Slice::Traffic,
        step: Step { index: 0, share_ppm: 100_000, is_last: false },
        share_ppm: Some(100_000),
        candidate_requests: 100,
        control_requests: 900,
        metrics: vec![errors],
        latency: vec![Bucket { upper_micros: latency_ms * 1_000, candidate: 100, control: 900 }],
    }
}

fn verdicts(windows: impl Iterator<Item = Window>) -> Result<Vec<Verdict>, String> {
    let mut state = Vec::new();
    let mut verdicts = Vec::new();
    for window in windows {
        let outcome = Threshold::evaluate(CONFIG, &state, &window)?;
        state = outcome.state;
        verdicts.push(outcome.verdict);
    }
    Ok(verdicts)
}

#[test]
fn rolls_back_after_failed_checks_in_a_row_and_advances_after_passed_ones() {
    use Verdict::{Advance, Hold, RollBack};
    let bad = verdicts((0..4).map(|index| window(index, 5, 100)));
    assert_eq!(bad, Ok(vec![Hold, Hold, Hold, RollBack]));
    let slow = verdicts((0..4).map(|index| window(index, 0, 250)));
    assert_eq!(slow, Ok(vec![Hold, Hold, Hold, RollBack]));
    let good = verdicts((0..6).map(|index| window(index, 0, 100)));
    assert_eq!(good, Ok(vec![Hold, Hold, Hold, Hold, Hold, Advance]));
    // Every second check fails: never two in a row.
    let mixed = verdicts((0..40).map(|index| window(index, if index / 2 % 2 == 0 { 9 } else { 0 }, 100)));
    assert!(mixed.is_ok_and(|verdicts| !verdicts.contains(&RollBack)));
}

#[test]
fn a_window_is_judged_once_and_broken_bytes_are_refused() {
    let first = Threshold::evaluate(CONFIG, &[], &window(0, 0, 100)).unwrap();
    assert!(Threshold::evaluate(CONFIG, &first.state, &window(0, 0, 100)).unwrap_err().contains("judged before"));
    for length in 1..first.state.len() {
        let cut = Threshold::evaluate(CONFIG, &first.state[..length], &window(1, 0, 100));
        assert!(cut.is_err() || (length - 4 - 8 * FIELDS).is_multiple_of(16), "{length} bytes of {}", first.state.len());
    }
    assert!(Threshold::evaluate(CONFIG, b"SBG\x01 and more", &window(1, 0, 100)).unwrap_err().contains("not one of rollback-threshold"));
}

#[test]
fn what_is_wrong_with_a_config_is_said_with_key_value_and_what_is_allowed() {
    let problems = check(r#"{"max_p99": 3, "min_success_percent": 101}"#).unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said[0],
        "rollback_config.max_p99 = 3: unknown key; allowed are min_success_percent, max_p99_ms, interval_seconds, failed_checks, passed_checks, min_samples"
    );
    assert_eq!(said[1], "rollback_config.min_success_percent = 101: must be a number from 0 to 100");
}
