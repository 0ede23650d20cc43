//! Strikes and quarantine, with time as a number.

use proptest::prelude::*;

use super::*;

const PATIENCE: Patience = Patience {
    strikes: 3,
    strike_window: Duration::from_secs(10),
    quarantine: Duration::from_secs(5),
    quarantine_max: Duration::from_secs(60),
};

fn health() -> (Health, impl Fn(u64) -> Instant) {
    let start = Instant::now();
    (Health::new(PATIENCE, start), move |ms| start + Duration::from_millis(ms))
}

#[test]
fn three_strikes_within_the_window_begin_a_quarantine_that_ends() {
    let (health, at) = health();
    assert!(!health.strike(at(0)) && !health.strike(at(5_000)));
    assert!(!health.is_quarantined(at(5_000)));
    assert!(health.strike(at(9_000)));
    assert!(health.is_quarantined(at(9_000)) && health.is_quarantined(at(13_999)));
    assert!(!health.is_quarantined(at(14_000)));
    assert_eq!(health.quarantine_left(at(10_000)), Some(Duration::from_secs(4)));
    assert_eq!(health.quarantine_left(at(14_000)), None);
}

#[test]
fn slow_strikes_never_add_up() {
    let (health, at) = health();
    for strike in 0..100 {
        assert!(!health.strike(at(strike * 5_001)), "strike {strike}");
    }
    assert_eq!(health.strikes(), 100);
}

#[test]
fn a_strike_on_probation_doubles_the_rest_up_to_the_maximum() {
    let (health, at) = health();
    let mut now = 0;
    assert!((0..3).any(|_| health.strike(at(now))));
    for rest in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
        assert_eq!(health.quarantine_left(at(now)), Some(Duration::from_millis(rest)));
        now += rest;
        assert!(!health.is_quarantined(at(now)));
        assert!(health.strike(at(now)), "one strike on probation is enough");
    }
}

#[test]
fn good_behaviour_resets_the_back_off() {
    let (health, at) = health();
    for _ in 0..3 {
        health.strike(at(0));
    }
    assert!(health.strike(at(5_000)));
    let end_of_second = 5_000 + 10_000;
    let forgiven = end_of_second + 10_000 + 10_000;
    assert!(!health.strike(at(forgiven)) && !health.strike(at(forgiven + 1)));
    assert!(health.strike(at(forgiven + 2)));
    assert_eq!(health.quarantine_left(at(forgiven + 2)), Some(Duration::from_secs(5)));
}

#[test]
fn strikes_that_come_late_do_not_lengthen_a_quarantine() {
    let (health, at) = health();
    for _ in 0..3 {
        health.strike(at(0));
    }
    (0..50).for_each(|_| assert!(!health.strike(at(1_000))));
    assert_eq!(health.quarantine_left(at(1_000)), Some(Duration::from_secs(4)));
}

#[test]
fn one_strike_can_be_enough() {
    let start = Instant::now();
    let health = Health::new(Patience { strikes: 1, ..PATIENCE }, start);
    assert!(health.strike(start));
}

#[test]
fn many_workers_begin_one_quarantine() {
    let start = Instant::now();
    let health = Health::new(Patience { strikes: 40, ..PATIENCE }, start);
    let begun: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..100).filter(|_| health.strike(start)).count())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
    });
    assert_eq!(begun, 1);
    assert_eq!(health.strikes(), 400);
}

proptest! {
    /// Whatever happens, a quarantine ends within the longest one.
    #[test]
    fn every_quarantine_ends(gaps in proptest::collection::vec(0u64..30_000, 1..200)) {
        let (health, at) = health();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            health.strike(at(now));
            prop_assert!(health.quarantine_left(at(now)).unwrap_or_default() <= PATIENCE.quarantine_max);
            prop_assert!(!health.is_quarantined(at(now + 60_000)));
        }
    }

    /// The ring agrees with counting the strikes of the last window, until the first quarantine.
    #[test]
    fn the_first_quarantine_begins_at_the_first_full_window(gaps in proptest::collection::vec(0u64..9_000, 1..60)) {
        let (health, at) = health();
        let (mut now, mut times) = (0, Vec::new());
        for gap in gaps {
            now += gap;
            times.push(now);
            let in_window = times.iter().filter(|time| now - **time <= 10_000).count();
            prop_assert_eq!(health.strike(at(now)), in_window >= 3);
            if in_window >= 3 { break }
        }
    }
}
