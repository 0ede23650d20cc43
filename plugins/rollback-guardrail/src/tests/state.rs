//! The state: what is written is read the same, and what is broken is refused.

use proptest::prelude::*;
use switchback_policy::rollback::{RollbackPolicy as _, Tally, Window};

use super::{Dice, engagement, metric, tally, traffic};
use crate::{Config, Guardrail, State, judge};

/// Windows of every kind in an order that a router could show them in.
fn windows(seed: u64, count: u64) -> Vec<Window> {
    let mut dice = Dice(seed);
    let mut windows = Vec::new();
    for index in 0..count {
        let mut window = traffic(index, dice.events(50, 0.02), dice.events(450, 0.01));
        window.step.index = u32::try_from(index / 7).unwrap();
        if dice.next() < 0.1 {
            (window.candidate_requests, window.share_ppm) = (0, None);
            window.metrics.clear();
        }
        window.metrics.push(metric("zero-results", tally(50, dice.events(50, 0.1)), tally(450, dice.events(450, 0.1))));
        windows.push(window);
        let mut window = engagement(index, dice.events(50, 0.3), dice.events(450, 0.3));
        let halves = |dice: &mut Dice, n: u64| {
            let values: Vec<f64> = (0..n).map(|_| (dice.next() * 2.0).floor() / 2.0).collect();
            Tally { n, sum: values.iter().sum(), sumsq: values.iter().map(|value| value * value).sum() }
        };
        let mut quality = metric("quality", halves(&mut dice, 40), halves(&mut dice, 400));
        if dice.next() < 0.5 {
            quality.candidate_groups = (0..32).map(|_| halves(&mut dice, 3)).collect();
            quality.control_groups = (0..32).map(|_| halves(&mut dice, 12)).collect();
        }
        window.metrics.push(quality);
        windows.push(window);
    }
    windows
}

proptest! {
    #[test]
    fn a_state_in_bytes_goes_on_as_the_one_in_memory(seed: u64, count in 1_u64..40) {
        let config = Config::default();
        let mut in_memory = State::new(&config);
        let mut in_bytes = Vec::new();
        for window in windows(seed, count) {
            let judged = judge(&config, &mut in_memory, &window).map_err(TestCaseError::fail)?;
            let outcome = Guardrail::evaluate("{}", &in_bytes, &window).map_err(TestCaseError::fail)?;
            prop_assert_eq!(judged.verdict, outcome.verdict);
            in_bytes = outcome.state;
            prop_assert_eq!(&in_memory.to_bytes(), &in_bytes);
            prop_assert_eq!(&State::from_bytes(&config, &in_bytes).map_err(TestCaseError::fail)?, &in_memory);
            prop_assert!(outcome.evidence.iter().all(|e| [e.log_harm, e.difference, e.low, e.high].iter().all(|x| x.is_finite())));
        }
        prop_assert!(in_bytes.len() < 20_000, "{} bytes", in_bytes.len());
    }

    #[test]
    fn bytes_that_were_changed_are_refused_or_read_as_numbers_that_can_be(seed: u64, at: prop::sample::Index, byte: u8) {
        let config = Config::default();
        let mut state = State::new(&config);
        for window in windows(seed, 3) {
            judge(&config, &mut state, &window).map_err(TestCaseError::fail)?;
        }
        let mut bytes = state.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut later = traffic(1_000, 1, 1);
        later.index = u64::MAX - 1;
        if let Ok(outcome) = Guardrail::evaluate("{}", &bytes, &later) {
            prop_assert!(outcome.evidence.iter().all(|e| [e.log_harm, e.difference, e.low, e.high].iter().all(|x| x.is_finite())));
            // What is written can be read again.
            prop_assert!(State::from_bytes(&config, &outcome.state).is_ok());
        }
    }
}

fn one_window() -> Vec<u8> {
    Guardrail::evaluate("{}", &[], &traffic(0, 0, 0)).unwrap().state
}

#[test]
fn every_state_that_is_cut_off_is_refused() {
    let bytes = one_window();
    let config = Config::default();
    for length in 1..bytes.len() {
        assert!(State::from_bytes(&config, &bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert!(State::from_bytes(&config, &longer).unwrap_err().contains("behind its end"));
}

#[test]
fn a_state_of_another_version_or_policy_or_with_nan_is_refused_by_name() {
    let config = Config::default();
    let mut bytes = one_window();
    bytes[3] = 9;
    assert_eq!(State::from_bytes(&config, &bytes).unwrap_err(), "the state is of version 9, and this policy reads version 1");
    assert!(State::from_bytes(&config, b"SBT\x01").unwrap_err().contains("not one of rollback-guardrail"));
    let mut bytes = one_window();
    // The first weight of the latency history: mark, windows, step, number of buckets, edge.
    let at = 4 + 16 + 1 + 33 + 4 + 8;
    bytes[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    let refused = State::from_bytes(&config, &bytes).unwrap_err();
    assert!(refused.contains("a latency bucket's weight = NaN"), "{refused}");
}

#[test]
fn a_metric_that_the_config_adds_starts_anew_and_one_it_drops_is_dropped() {
    let with = r#"{"metrics": {"dwell": {"weight": 0.0}}}"#;
    let first = Guardrail::evaluate("{}", &one_window(), &traffic(1, 0, 0)).unwrap();
    let more = Guardrail::evaluate(with, &first.state, &traffic(2, 0, 0)).unwrap();
    assert!(more.state.len() > first.state.len());
    let fewer = Guardrail::evaluate("{}", &more.state, &traffic(3, 0, 0)).unwrap();
    assert_eq!(fewer.state.len(), first.state.len());
}
