//! What a weighted split promises to the units.

use proptest::prelude::*;

use super::*;

const LIVE: u32 = 0;
const OLD: u32 = 1;
const CANARY: u32 = 2;

fn flags(candidate_ppm: u32, holdback_ppm: u32) -> Snapshot {
    Snapshot {
        route: "search".to_owned(),
        epoch: 1,
        pools: ["blue", "green", "canary"].map(str::to_owned).to_vec(),
        live: LIVE,
        candidate: Some(Share { pool: CANARY, ppm: candidate_ppm }),
        holdback: Some(Share { pool: OLD, ppm: holdback_ppm }),
        features: Vec::new(),
        experiments: None,
        config: "{}".to_owned(),
    }
}

fn split(candidate_ppm: u32, holdback_ppm: u32) -> Result<WeightedSplit, String> {
    WeightedSplit::configure(&flags(candidate_ppm, holdback_ppm)).map(|(split, _)| split)
}

/// A share of nobody, of everybody, and everything between.
fn share() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(POSITIONS - 1), Just(POSITIONS), 0..=POSITIONS]
}

fn position() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(POSITIONS - 1), 0..POSITIONS]
}

proptest! {
    #[test]
    fn raising_the_share_only_adds_units(a in share(), b in share(), position in position()) {
        let (less, more) = (a.min(b), a.max(b));
        if split(less, 0).map_err(TestCaseError::fail)?.route(position).pool == CANARY {
            prop_assert_eq!(split(more, 0).map_err(TestCaseError::fail)?.route(position).pool, CANARY);
        }
    }

    #[test]
    fn candidate_and_holdback_never_trade_a_unit(candidate in (share(), share()), holdback in (share(), share()), position in position()) {
        // As long as both fit side by side, a unit of one is never one of the other, however either grows.
        prop_assume!(u64::from(candidate.0.max(candidate.1)) + u64::from(holdback.0.max(holdback.1)) <= u64::from(POSITIONS));
        let before = split(candidate.0, holdback.0).map_err(TestCaseError::fail)?.route(position).pool;
        let after = split(candidate.1, holdback.1).map_err(TestCaseError::fail)?.route(position).pool;
        prop_assert!((before, after) != (CANARY, OLD) && (before, after) != (OLD, CANARY));
    }

    #[test]
    fn the_candidate_does_not_feel_the_holdback(candidate in share(), holdback in share(), position in position()) {
        let with = split(candidate, holdback).map_err(TestCaseError::fail)?.route(position).pool == CANARY;
        let without = split(candidate, 0).map_err(TestCaseError::fail)?.route(position).pool == CANARY;
        prop_assert_eq!(with, without);
    }

    #[test]
    fn nothing_is_none_and_all_is_all(position in position()) {
        prop_assert_eq!(split(0, 0).map_err(TestCaseError::fail)?.route(position), Decision { pool: LIVE, reason: Reason::Live, arm: None });
        prop_assert_eq!(split(POSITIONS, 0).map_err(TestCaseError::fail)?.route(position).pool, CANARY);
        prop_assert_eq!(split(0, POSITIONS).map_err(TestCaseError::fail)?.route(position), Decision { pool: OLD, reason: Reason::Holdback, arm: None });
        prop_assert_eq!(split(POSITIONS, POSITIONS).map_err(TestCaseError::fail)?.route(position).reason, Reason::Candidate);
    }
}

#[test]
fn shares_are_exact() {
    let count = |candidate, holdback, pool| {
        let split = split(candidate, holdback)?;
        Ok::<_, String>((0..POSITIONS).filter(|position| split.route(*position).pool == pool).count())
    };
    for ppm in [0, 1, 10_000, 123_456, POSITIONS] {
        assert_eq!(count(ppm, 0, CANARY), Ok(ppm as usize));
        assert_eq!(count(0, ppm, OLD), Ok(ppm as usize));
    }
    assert_eq!(count(250_000, 100_000, LIVE), Ok(650_000));
}

#[test]
fn flags_that_make_no_sense_are_refused_in_words() {
    let refused = |change: fn(&mut Snapshot)| {
        let mut flags = flags(1, 1);
        change(&mut flags);
        WeightedSplit::configure(&flags).map(|_| ())
    };
    let over = refused(|flags| flags.candidate = Some(Share { pool: CANARY, ppm: POSITIONS + 1 }));
    assert_eq!(over, Err("candidate has a share of 1000001 ppm, but 1000000 ppm is all units".to_owned()));
    assert_eq!(refused(|flags| flags.live = 3), Err("live names pool 3, but the route has 3 pools".to_owned()));
    let holdback = refused(|flags| flags.holdback = Some(Share { pool: 9, ppm: 1 }));
    assert_eq!(holdback, Err("holdback names pool 9, but the route has 3 pools".to_owned()));
}
