//! The detector by itself: examples, and what holds whatever happens.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> config::Outlier {
    config::Outlier {
        consecutive_failures: 5,
        failure_percentage_threshold: 50,
        failure_percentage_request_volume: 20,
        interval: SECOND * 10,
        base_ejection_time: SECOND * 5,
        max_ejection_time: SECOND * 30,
        max_ejection_percent: 50,
        probes: 3,
    }
}

/// A pool under test, each of whose endpoints answered once: its counts, and the clock.
struct Pool {
    detector: Detector,
    looks: Vec<Look>,
    now: Instant,
}

impl Pool {
    fn of(endpoints: usize) -> Pool {
        let now = Instant::now();
        Pool {
            detector: Detector::new(endpoints, &config(), now),
            looks: vec![Look { may_serve: true, good: 1, ..Look::default() }; endpoints],
            now,
        }
    }

    fn good(&mut self, index: usize, attempts: u64) {
        self.looks[index].good += attempts;
        self.looks[index].consecutive = 0;
    }

    fn bad(&mut self, index: usize, attempts: u32) {
        self.looks[index].bad += u64::from(attempts);
        self.looks[index].consecutive += attempts;
    }

    fn step(&mut self) -> Vec<Change> {
        let changes = self.detector.step(&self.looks, self.now);
        // As the shell does.
        for change in &changes {
            match *change {
                Change::HalfOpen { index } => (self.looks[index].good_probes, self.looks[index].bad_probes) = (0, 0),
                Change::Back { index, .. } => self.looks[index].consecutive = 0,
                Change::Eject { .. } => {}
            }
        }
        changes
    }

    fn after(&mut self, time: Duration) -> Vec<Change> {
        self.now += time;
        self.step()
    }

    /// Ejected from probe to probe; how long each time.
    fn fails_its_probes(&mut self, index: usize, times: usize) -> Vec<u64> {
        let mut lasted = Vec::new();
        for _ in 0..times {
            self.looks[index].bad_probes = 1;
            let changes = self.step();
            let [Change::Eject { lasts, why: Why::Probe, .. }] = changes.as_slice() else { panic!("{changes:?}") };
            lasted.push(lasts.as_secs());
            assert_eq!(self.after(*lasts), [Change::HalfOpen { index }]);
        }
        lasted
    }
}

fn ejected(index: usize, seconds: u64, why: Why) -> Vec<Change> {
    vec![Change::Eject { index, lasts: Duration::from_secs(seconds), why }]
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let mut pool = Pool::of(2);
    pool.bad(0, 4);
    assert_eq!(pool.step(), []);
    pool.good(0, 1);
    pool.bad(0, 4);
    assert_eq!(pool.step(), []);
    pool.bad(0, 1);
    assert_eq!(pool.step(), ejected(0, 5, Why::ConsecutiveFailures));
}

#[test]
fn half_of_the_attempts_eject_once_there_are_enough() {
    let mut pool = Pool::of(2);
    pool.good(1, 100);
    pool.bad(0, 9);
    pool.good(0, 9);
    assert_eq!(pool.step(), [], "19 attempts say nothing");
    pool.bad(0, 1);
    assert_eq!(pool.step(), ejected(0, 5, Why::FailurePercentage));
}

#[test]
fn failures_of_long_ago_do_not_count() {
    let mut pool = Pool::of(2);
    pool.good(1, 100);
    pool.bad(0, 4);
    pool.good(0, 14);
    assert_eq!(pool.after(SECOND * 10), []);
    assert_eq!(pool.after(SECOND * 10), []);
    pool.bad(0, 4);
    pool.good(0, 1);
    assert_eq!(pool.step(), [], "the last two intervals have five attempts");
}

#[test]
fn when_all_fail_nobody_stands_out() {
    let mut pool = Pool::of(4);
    (0..4).for_each(|index| pool.good(index, 1_000));
    for _ in 0..20 {
        (0..4).for_each(|index| pool.bad(index, 1));
        assert_eq!(pool.step(), []);
    }
    assert_eq!(pool.after(SECOND * 10), []);
    pool.good(3, 1);
    assert!(!pool.step().is_empty(), "one of them answers: the others stand out against it");
}

#[test]
fn at_most_half_are_out_and_never_the_last_that_may_serve() {
    let mut pool = Pool::of(5);
    (0..4).for_each(|index| pool.bad(index, 5));
    assert_eq!(pool.step().len(), 2);
    let mut pool = Pool::of(3);
    pool.looks[2].may_serve = false;
    pool.looks[1].may_serve = false;
    pool.bad(0, 50);
    assert_eq!(pool.step(), [], "the others are dead already");
    let mut alone = Pool::of(1);
    alone.bad(0, 50);
    assert_eq!(alone.step(), []);
}

#[test]
fn what_a_dead_endpoint_did_in_a_panic_is_forgotten_when_it_is_back() {
    let mut pool = Pool::of(2);
    pool.good(1, 100);
    pool.looks[0].may_serve = false;
    pool.bad(0, 60);
    assert_eq!(pool.step(), [], "its health checks have taken it out already");
    pool.bad(0, 60);
    (pool.looks[0].may_serve, pool.looks[0].consecutive) = (true, 0);
    assert_eq!(pool.step(), []);
    pool.bad(0, 5);
    assert_eq!(pool.step(), ejected(0, 5, Why::ConsecutiveFailures));
}

#[test]
fn each_ejection_lasts_twice_as_long_up_to_the_longest() {
    let mut pool = Pool::of(2);
    pool.bad(0, 5);
    assert_eq!(pool.step(), ejected(0, 5, Why::ConsecutiveFailures));
    assert_eq!(pool.after(SECOND * 4), []);
    assert_eq!(pool.after(SECOND), [Change::HalfOpen { index: 0 }]);
    assert_eq!(pool.fails_its_probes(0, 4), [10, 20, 30, 30]);
}

#[test]
fn all_probes_bring_it_back_and_good_behaviour_takes_ejections_back() {
    let mut pool = Pool::of(2);
    pool.bad(0, 5);
    pool.step();
    pool.after(SECOND * 5);
    assert_eq!(pool.fails_its_probes(0, 1), [10]);
    pool.looks[0].good_probes = 2;
    assert_eq!(pool.step(), []);
    pool.looks[0].good_probes = 3;
    assert_eq!(pool.step(), [Change::Back { index: 0, why: Return::Answered }]);
    assert_eq!(pool.step(), [], "what it did before counts no more");
    // Two whole intervals: two ejections forgiven. The first one is not whole.
    for _ in 0..3 {
        assert_eq!(pool.after(SECOND * 10), []);
    }
    pool.good(1, 1);
    pool.bad(0, 5);
    assert_eq!(pool.step(), ejected(0, 5, Why::ConsecutiveFailures));
}

#[test]
fn whoever_failed_first_is_back_when_all_others_fail_as_it_does() {
    let mut pool = Pool::of(2);
    pool.bad(0, 5);
    assert_eq!(pool.step(), ejected(0, 5, Why::ConsecutiveFailures));
    pool.bad(1, 100);
    assert_eq!(pool.step(), [], "at most half of the pool is out");
    assert_eq!(pool.after(SECOND * 5), [Change::HalfOpen { index: 0 }]);
    pool.looks[0].bad_probes = 1;
    assert_eq!(pool.step(), [Change::Back { index: 0, why: Return::NoneBetter }]);
    assert_eq!(pool.step(), [], "it has shown nothing yet that would be better");
    pool.bad(0, 100);
    assert_eq!(pool.step(), [], "nobody stands out");
    // The other one recovers: now this one does.
    pool.good(1, 200);
    assert_eq!(pool.step(), ejected(0, 10, Why::ConsecutiveFailures));
}

#[test]
fn it_says_when_it_is_to_be_asked_again() {
    let mut pool = Pool::of(2);
    assert_eq!(pool.detector.next_step(), pool.now + SECOND * 10);
    pool.bad(0, 5);
    pool.step();
    assert_eq!(pool.detector.next_step(), pool.now + SECOND * 5);
}

/// What may happen to an endpoint between two steps.
fn event() -> impl Strategy<Value = (usize, u64, u32, bool, u64)> {
    (0_usize..6, 0_u64..40, 0_u32..12, any::<bool>(), 0_u64..8_000)
}

proptest! {
    #[test]
    fn limits_hold_whatever_happens(endpoints in 1_usize..6, events in proptest::collection::vec(event(), 1..200)) {
        let mut pool = Pool::of(endpoints);
        let mut out = vec![None; endpoints];
        for (index, good, bad, may_serve, millis) in events {
            let index = index % endpoints;
            pool.good(index, good);
            pool.bad(index, bad);
            pool.looks[index].may_serve = may_serve;
            (pool.looks[index].good_probes, pool.looks[index].bad_probes) = (u32::try_from(good).unwrap(), u32::from(bad > 6));
            for change in pool.after(Duration::from_millis(millis)) {
                match change {
                    Change::Eject { index, lasts, .. } => {
                        prop_assert!(lasts >= config().base_ejection_time && lasts <= config().max_ejection_time);
                        out[index] = Some(pool.now + lasts);
                    }
                    Change::HalfOpen { index } => prop_assert!(out[index].is_some_and(|until: Instant| until <= pool.now)),
                    Change::Back { index, .. } => out[index] = None,
                }
            }
            let are_out = out.iter().filter(|until| until.is_some()).count();
            prop_assert!(are_out <= endpoints / 2, "{are_out} of {endpoints}");
        }
    }

    #[test]
    fn who_never_fails_is_never_ejected(events in proptest::collection::vec(event(), 1..200)) {
        let mut pool = Pool::of(4);
        for (index, good, bad, may_serve, millis) in events {
            pool.good(0, good);
            let other = 1 + index % 3;
            pool.bad(other, bad);
            pool.looks[other].may_serve = may_serve;
            let changes = pool.after(Duration::from_millis(millis));
            let is_about_zero = |change: &Change| matches!(change, Change::Eject { index: 0, .. });
            prop_assert!(!changes.iter().any(is_about_zero), "{changes:?}");
        }
    }

    #[test]
    fn whoever_recovers_is_in_use_again(bad in 5_u32..50, fails in 0_usize..6) {
        let mut pool = Pool::of(2);
        pool.bad(1, bad);
        prop_assert_eq!(pool.step().len(), 1);
        pool.after(config().base_ejection_time);
        pool.fails_its_probes(1, fails);
        pool.looks[1].good_probes = config().probes;
        prop_assert_eq!(pool.step(), [Change::Back { index: 1, why: Return::Answered }]);
    }
}
