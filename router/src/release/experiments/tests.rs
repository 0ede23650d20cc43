//! An experiment judged window by window: counters, differences, shares, ends and gaps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use switchback_fuzz::{Target, trace};

use super::record::Record;
use super::step::{due, is_over, step};
use super::view::view;
use crate::flags::{Arm, Experiment, Experiments};
use crate::quality::pages::Written;
use crate::quality::{Counts, Number};
use crate::release::cursor::Sealed;
use crate::release::kept::Kept as _;
use crate::vocabulary::Ppm;

const BEGAN: u32 = 1_000;

fn experiment(weights: &[u32]) -> Experiment {
    let text = r#"{"experiments": [{"name": "big", "layer": "rollout", "salt": "salt-of-big", "percent": "20", "started_ms": 1000500,
        "arms": [{"name": "control", "pool": "live"}, {"name": "a", "pool": "exp"}]}]}"#;
    let mut experiment = Experiments::parse(text).unwrap().experiments[0].clone();
    let names = ["control", "a", "b", "c"];
    let arm =
        |(name, weight): (&&str, &u32)| Arm { name: (*name).to_owned(), pool: Some("live".to_owned()), version: None, weight: *weight };
    experiment.arms = names.iter().zip(weights).map(arm).collect();
    experiment
}

/// So many requests and impressions, of which the first ones are clicked, each of any group.
fn counts(seed: u64, n: u64, clicks: u64) -> Counts {
    let mut counts = Counts::default();
    for one in 0..n {
        let group = ((seed * 1_000 + one).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as u8;
        counts.add(Number::Requests, group, 1);
        counts.add(Number::Impressions, group, 1);
        counts.add(Number::Clicks, group, u64::from(one < clicks));
    }
    counts
}

/// The same in each window.
fn windows(experiment: &Experiment, seconds: std::ops::Range<u32>, each: &[(u64, u64)]) -> Written {
    let ids: Vec<u32> = experiment.arm_ids().collect();
    let window = |second: u32| ids.iter().zip(each).map(move |(id, (n, clicks))| (*id, counts(u64::from(second ^ id), *n, *clicks)));
    seconds.map(|second| (second, window(second).collect())).collect()
}

fn sealed(second: u32) -> Sealed {
    Sealed { traffic: second, engagement: second - 8 }
}

fn judged(experiment: &Experiment, windows: &Written, until: u32) -> Record {
    let mut record = Record::begin(experiment, BEGAN);
    loop {
        let due = due(&mut record, experiment, sealed(until));
        if due.is_empty() {
            return record;
        }
        step(&mut record, experiment, windows, &due);
        assert_eq!(Record::read(&record.write()), Ok(record.clone()));
    }
}

#[test]
fn counters_of_arms_are_the_truth_and_a_difference_is_found() {
    let experiment = experiment(&[1, 1, 2]);
    let windows = windows(&experiment, BEGAN..BEGAN + 300, &[(40, 12), (40, 8), (80, 24)]);
    let record = judged(&experiment, &windows, BEGAN + 300);
    let view = view(&experiment, &record);
    let seen: Vec<_> = view.arms.iter().map(|arm| (arm.arm.as_str(), arm.requests, arm.impressions, arm.clicks)).collect();
    assert_eq!(seen, [("control", 12_000, 11_680, 3_504), ("a", 12_000, 11_680, 2_336), ("b", 24_000, 23_360, 7_008)]);
    assert_eq!((view.traffic_until_unix_seconds, view.engagement_until_unix_seconds, view.left_out_seconds), (1_300, 1_292, 0));
    let [a, b] = view.comparisons.as_slice() else { panic!("{view:?}") };
    assert!(a.is_sound && a.is_harmful && a.summary.starts_with("harm: clicks"), "{a:?}");
    assert!(b.is_sound && !b.is_harmful, "{b:?}");
    assert_eq!(b.summary, "no difference is certain yet");
    let clicks = a.metrics.iter().find(|metric| metric.metric == "clicks").unwrap();
    let difference = clicks.difference.unwrap();
    assert!(difference.low < -0.1 && difference.high > -0.1 && difference.high < 0.0, "{difference:?}");
}

#[test]
fn shares_that_are_not_as_they_should_be_make_it_unsound() {
    let experiment = experiment(&[1, 1]);
    let windows = windows(&experiment, BEGAN..BEGAN + 300, &[(40, 12), (30, 9)]);
    let view = view(&experiment, &judged(&experiment, &windows, BEGAN + 300));
    assert!(!view.comparisons[0].is_sound && view.comparisons[0].summary.contains("do not have the shares"), "{view:?}");
}

#[test]
fn after_its_end_it_is_judged_to_the_end_and_no_further() {
    let stopped = Experiment { stopped_ms: Some(1_100_400), ..experiment(&[1, 1]) };
    let windows = windows(&stopped, BEGAN..BEGAN + 300, &[(10, 3), (10, 3)]);
    let record = judged(&stopped, &windows, BEGAN + 300);
    assert!(is_over(&record, &stopped) && (record.next_traffic, record.next_engagement) == (1_102, 1_102));
    assert_eq!(record.control[Number::Requests], 102 * 10);
}

#[test]
fn what_nobody_kept_is_left_out_and_told() {
    let experiment = experiment(&[1, 1]);
    let windows = windows(&experiment, 5_000..5_600, &[(10, 3), (10, 3)]);
    let mut record = judged(&experiment, &BTreeMap::new(), BEGAN + 20);
    assert_eq!(record.left_out, 0);
    while let now = due(&mut record, &experiment, sealed(5_600))
        && !now.is_empty()
    {
        step(&mut record, &experiment, &windows, &now);
    }
    assert_eq!((record.left_out, record.control[Number::Requests]), (3_988, 6_000), "of traffic 3,980, and of clicks 8 more");
}

#[test]
fn who_ended_while_nobody_judged_is_over_and_what_was_left_out_is_told() {
    let running = experiment(&[1, 1]);
    let windows = windows(&running, BEGAN..BEGAN + 100, &[(10, 3), (10, 3)]);
    let mut record = judged(&running, &windows, BEGAN + 50);
    let stopped = Experiment { stopped_ms: Some(1_098_000), ..running };
    assert!(due(&mut record, &stopped, sealed(9_000)).is_empty() && is_over(&record, &stopped));
    assert_eq!((record.left_out, record.next_traffic, record.control[Number::Requests]), (58, 1_100, 500));
}

#[test]
fn what_was_found_out_stays_found_out() {
    let experiment = experiment(&[1, 1]);
    let mut windows = windows(&experiment, BEGAN..BEGAN + 60, &[(40, 20), (40, 4)]);
    let ids: Vec<u32> = experiment.arm_ids().collect();
    for second in BEGAN + 60..BEGAN + 500 {
        windows.insert(second, [(ids[0], counts(second.into(), 40, 4)), (ids[1], counts(second.into(), 60, 59))].into());
    }
    let view = view(&experiment, &judged(&experiment, &windows, BEGAN + 508));
    let arm = &view.comparisons[0];
    assert!(arm.is_harmful && arm.summary.starts_with("harm: clicks"), "{arm:?}");
    assert!(!arm.is_sound, "40 to 60");
}

/// Whoever edits the flag by hand may change what arms are; more users are the same experiment.
#[test]
fn another_weight_pool_or_condition_is_another_experiment() {
    let before = experiment(&[1, 1]);
    let record = Record::begin(&before, BEGAN);
    let with = |change: fn(&mut Experiment)| {
        let mut after = before.clone();
        change(&mut after);
        (record.is_of(&after), record.is_of_former(&after))
    };
    assert_eq!(with(|_| {}), (true, false));
    assert_eq!(with(|after| (after.percent, after.stopped_ms) = (Ppm::ALL, Some(7))), (true, false));
    assert_eq!(with(|after| after.arms[1].weight = 2), (false, true));
    assert_eq!(with(|after| after.arms[1].pool = Some("exp".to_owned())), (false, true));
    assert_eq!(with(|after| after.layer = "other".to_owned()), (false, true));
    assert_eq!(with(|after| after.arms.push(Arm { name: "c".to_owned(), ..after.arms[0].clone() })), (false, true));
    assert_eq!(with(|after| after.salt = "salt-of-another".to_owned()), (false, false), "its arms have other numbers");
}

proptest! {
    /// However looks fall: each second once, and the same in the end.
    #[test]
    fn each_window_is_judged_once(looks in prop::collection::vec(1..50_u32, 1..12)) {
        let experiment = experiment(&[1, 1]);
        let windows = windows(&experiment, BEGAN..BEGAN + 700, &[(3, 1), (3, 1)]);
        let (mut record, mut now) = (Record::begin(&experiment, BEGAN), BEGAN + 8);
        for look in looks {
            now += look;
            let due = due(&mut record, &experiment, sealed(now));
            step(&mut record, &experiment, &windows, &due);
        }
        prop_assert_eq!(record.control[Number::Requests], u64::from(now - BEGAN) * 3);
        prop_assert_eq!(record.control[Number::Clicks], u64::from(now - 8 - BEGAN));
        let whole = judged(&experiment, &windows, now);
        prop_assert_eq!(&record.control, &whole.control);
    }
}

/// Whatever is in the store: it is read as a router could have kept it, or refused; and whoever goes on from it judges what is due, once.
#[test]
fn experiment_record() {
    let experiment = experiment(&[1, 1, 2]);
    let seen = windows(&experiment, BEGAN..BEGAN + 20, &[(9, 3), (9, 2), (18, 5)]);
    let seeds = vec![Record::default().write(), Record::begin(&experiment, BEGAN).write(), judged(&experiment, &seen, BEGAN + 20).write()];
    let words: [&[u8]; 4] = [b"SBG", &[1], &[0xff, 0xff, 0xff, 0xff, 0x0f], b"control"];
    Target { name: "experiment_record", words: &words, seeds, most_bytes: 65_536 }.run(|bytes| {
        let mut record = match Record::read(bytes) {
            Ok(record) => record,
            Err(fault) => return trace(fault.to_string()),
        };
        assert_eq!(Record::read(&record.write()).as_ref(), Ok(&record));
        if !record.is_of(&experiment) {
            return trace("another's");
        }
        let before = record.clone();
        let due = due(&mut record, &experiment, sealed(BEGAN + 30));
        step(&mut record, &experiment, &seen, &due);
        assert!(record.next_traffic >= before.next_traffic && record.next_engagement >= before.next_engagement);
        assert_eq!(view(&experiment, &record).arms.len(), 3);
        trace(record.others.iter().map(|comparison| comparison.failures).collect::<Vec<_>>())
    });
}
