//! Which endpoint a worker chooses.

use std::time::Duration;

use super::*;

const DRAWS: usize = 4_000;

fn pool_with(endpoints: &[&str], keys: &str) -> Pool {
    let text = format!(
        r#"
        listen = {{ traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }}
        route = [{{ name = "search", pools = {{ blue = {{ endpoints = {endpoints:?}, {keys} }} }} }}]
        "#
    );
    let config = crate::config::parse("test", &text).unwrap();
    Pool::new(&SharedPool::new(&config.routes[0].pools[0], None), 7, Instant::now())
}

const THREE: [&str; 3] = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"];
const TWO: [&str; 2] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];

fn set_healthy(pool: &Pool, index: usize, healthy: bool) {
    pool.shared.change("search", &pool.endpoints[index].shared, |endpoint| endpoint.set_healthy(healthy));
}

/// How often each endpoint is chosen, when attempts end at once.
fn shares(pool: &Pool, avoid: Option<usize>, now: Instant) -> Vec<usize> {
    let mut counts = vec![0; pool.endpoints.len()];
    for _ in 0..DRAWS {
        counts[pool.start(avoid, now).unwrap().0] += 1;
    }
    counts
}

fn picked(pool: &Pool, avoid: Option<usize>) -> Vec<usize> {
    let counts = shares(pool, avoid, Instant::now());
    counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, _)| index).collect()
}

#[test]
fn a_second_attempt_goes_elsewhere_but_never_to_a_dead_endpoint_while_enough_healthy_ones_are_there() {
    let pool = pool_with(&THREE, "");
    assert_eq!(picked(&pool, None), [0, 1, 2]);
    assert_eq!(picked(&pool, Some(1)), [0, 2]);
    set_healthy(&pool, 2, false);
    assert_eq!(picked(&pool, Some(1)), [0]);
    assert_eq!(picked(&pool, None), [0, 1]);
    set_healthy(&pool, 0, false);
    assert_eq!(picked(&pool, Some(1)), [0, 2], "one of three is too few: all are used");
    let calm = pool_with(&THREE, "healthy_panic_threshold = 0");
    set_healthy(&calm, 2, false);
    set_healthy(&calm, 0, false);
    assert_eq!(picked(&calm, Some(1)), [1], "the only healthy one, although it was just tried");
    set_healthy(&calm, 1, false);
    assert_eq!(picked(&calm, Some(1)), [0, 2]);
}

#[test]
fn a_dead_one_of_two_gets_nothing() {
    let pool = pool_with(&TWO, "");
    set_healthy(&pool, 0, false);
    assert_eq!(picked(&pool, None), [1]);
    assert!(!pool.shared.is_panicking());
    set_healthy(&pool, 1, false);
    assert_eq!(picked(&pool, None), [0, 1]);
    assert!(pool.shared.is_panicking() && pool.shared.panics() == 1);
}

#[test]
fn in_a_panic_those_that_just_failed_are_left_alone_all_the_same() {
    let pool = pool_with(&THREE, "");
    set_healthy(&pool, 0, false);
    set_healthy(&pool, 1, false);
    let now = Instant::now();
    pool.endpoints[0].leave_alone(now);
    pool.endpoints[1].leave_alone(now);
    assert_eq!(shares(&pool, None, now), [0, 0, DRAWS]);
}

#[test]
fn in_a_panic_a_second_attempt_goes_to_an_endpoint_that_is_sound() {
    let pool = pool_with(&THREE, "");
    set_healthy(&pool, 0, false);
    set_healthy(&pool, 1, false);
    assert_eq!(picked(&pool, None), [0, 1, 2]);
    assert_eq!(picked(&pool, Some(0)), [2], "and not to the other one that is dead");
    assert_eq!(picked(&pool, Some(2)), [0, 1], "which is tried where there is no sound one left");
}

#[test]
fn a_full_endpoint_is_passed_over_and_a_full_pool_has_none() {
    let pool = pool_with(&TWO, "max_in_flight_per_endpoint = 2, max_in_flight = 100");
    let now = Instant::now();
    let held: Vec<(usize, Slot)> = (0..4).map(|_| pool.start(None, now).unwrap()).collect();
    assert!(pool.start(None, now).is_none());
    assert_eq!(pool.shared.in_flight(), 4, "what did not get in holds no place");
    assert_eq!(held.iter().filter(|(index, _)| *index == 0).count(), 2);
    let on_second = held.into_iter().filter(|(index, _)| *index == 1);
    let kept: Vec<_> = on_second.collect();
    pool.endpoints[0].leave_alone(now);
    assert_eq!(pool.start(None, now).map(|(index, _)| index), Some(0), "better one that failed than a full one");
    drop(kept);
    assert_eq!(pool.shared.in_flight(), 0);
    let alone = pool_with(&TWO[..1], "max_in_flight_per_endpoint = 1");
    let first = alone.start(None, now);
    assert!(first.is_some() && alone.start(None, now).is_none());
    drop(first);
    assert!(alone.start(None, now).is_some());
}

#[test]
fn an_endpoint_that_came_back_gets_a_growing_share() {
    let pool = pool_with(&TWO, "slow_start = \"10s\"");
    set_healthy(&pool, 0, false);
    assert_eq!(picked(&pool, None), [1]);
    set_healthy(&pool, 0, true);
    let start = Instant::now();
    let share = |seconds: u64| {
        let now = start + Duration::from_secs(seconds);
        pool.endpoints.iter().for_each(|endpoint| endpoint.observe(Duration::from_millis(5), now));
        shares(&pool, None, now)[0] as f64 / DRAWS as f64
    };
    // It would win half of the draws; 10 %, 50 % and all of that.
    assert!((0.03..0.08).contains(&share(0)), "{}", share(0));
    assert!((0.2..0.3).contains(&share(5)), "{}", share(5));
    assert!((0.4..0.6).contains(&share(11)), "{}", share(11));
}

#[test]
fn a_half_open_endpoint_gets_its_probes_and_no_more() {
    let pool = pool_with(&TWO, "");
    let (now, half_open) = (Instant::now(), pool.endpoints[0].shared.clone());
    pool.shared.change("search", &half_open, |endpoint| endpoint.eject(now, Why::ConsecutiveFailures));
    assert_eq!(picked(&pool, None), [1]);
    pool.shared.change("search", &half_open, |endpoint| endpoint.half_open(2));
    assert_eq!(pool.start(Some(1), now).map(|(index, _)| index), Some(1), "no probe for a second attempt");
    let probes: Vec<Slot> = (0..2).map(|_| pool.start(None, now).unwrap()).filter(|(index, _)| *index == 0).map(|(_, slot)| slot).collect();
    assert_eq!(probes.len(), 2);
    assert_eq!(picked(&pool, None), [1]);
    probes[0].settle(true);
    drop(probes);
    assert_eq!(half_open.look().good_probes, 1);
    assert_eq!(shares(&pool, None, now)[0], DRAWS, "the client of the other one went away: its probe is there again and again");
    pool.start(None, now).unwrap().1.settle(false);
    assert_eq!(half_open.look().bad_probes, 1);
    assert_eq!(picked(&pool, None), [1]);
}

#[test]
fn what_a_probe_of_an_earlier_ejection_comes_to_says_nothing_of_this_one() {
    let pool = pool_with(&TWO, "");
    let (now, half_open) = (Instant::now(), pool.endpoints[0].shared.clone());
    let open = || pool.shared.change("search", &half_open, |endpoint| endpoint.half_open(2));
    open();
    let [answered, left] = [(), ()].map(|()| pool.start(None, now).unwrap().1);
    assert!(answered.is_probe && left.is_probe);
    pool.shared.change("search", &half_open, |endpoint| endpoint.eject(now, Why::Probe));
    open();
    let [one, other] = [(), ()].map(|()| pool.start(None, now).unwrap().1);
    assert!(one.is_probe && other.is_probe);
    answered.settle(true);
    drop((answered, left));
    assert_eq!(half_open.look().good_probes, 0);
    assert!(!pool.start(None, now).unwrap().1.is_probe, "nobody takes the place of the one whose client went away");
    one.settle(true);
    assert_eq!(half_open.look().good_probes, 1);
}

#[test]
fn in_a_panic_probes_go_on_one_at_a_time_and_end_it() {
    let pool = pool_with(&THREE, "outlier = { probes = 1 }");
    let (now, half_open) = (Instant::now(), pool.endpoints[0].shared.clone());
    set_healthy(&pool, 1, false);
    pool.shared.change("search", &half_open, |endpoint| endpoint.eject(now, Why::ConsecutiveFailures));
    assert!(pool.shared.is_panicking());
    assert_eq!(picked(&pool, None), [0, 1, 2], "all are used, the ejected one too");
    assert_eq!(half_open.look().good_probes, 0, "but nothing that it does is a probe");
    pool.shared.change("search", &half_open, |endpoint| endpoint.half_open(1));
    assert!(pool.shared.is_panicking(), "it is not back yet");
    let (index, probe) = pool.start(None, now).unwrap();
    assert_eq!((index, probe.is_probe), (0, true), "the first query is the probe");
    let others: Vec<(usize, Slot)> = (0..100).map(|_| pool.start(None, now).unwrap()).collect();
    assert!(others.iter().all(|(_, slot)| !slot.is_probe) && others.iter().any(|(index, _)| *index == 0), "its share goes on beside it");
    others.iter().for_each(|(_, slot)| slot.settle(true));
    assert_eq!(half_open.look().good_probes, 0, "which is not held for it");
    drop(others);
    probe.head_came(true);
    drop(probe);
    assert_eq!(half_open.look().good_probes, 1);
    assert!(!pool.start(None, now).unwrap().1.is_probe, "one was asked for");
    pool.shared.change("search", &half_open, SharedEndpoint::readmit);
    assert!(!pool.shared.is_panicking());
    assert_eq!(picked(&pool, None), [0, 2], "and the dead one gets nothing again");
}

#[test]
fn in_a_panic_a_dead_one_gets_no_probes() {
    let pool = pool_with(&THREE, "");
    let (now, half_open) = (Instant::now(), pool.endpoints[0].shared.clone());
    set_healthy(&pool, 0, false);
    set_healthy(&pool, 1, false);
    pool.shared.change("search", &half_open, |endpoint| endpoint.half_open(3));
    assert!((0..100).all(|_| !pool.start(None, now).unwrap().1.is_probe), "health checks find out before it is probed");
    set_healthy(&pool, 0, true);
    assert!(pool.start(None, now).unwrap().1.is_probe);
}

#[test]
fn what_stays_of_a_pool_keeps_its_health_and_its_connections() {
    let before = Rc::new(pool_with(&TWO, ""));
    before.shared.endpoints[1].set_healthy(false);
    let same = before.shared.succeed(&before.shared.config, None);
    assert!(Arc::ptr_eq(&same, &before.shared));
    assert!(Rc::ptr_eq(&Pool::succeed(Some(&before), &same, 7, Instant::now()), &before));
    let other = pool_with(&["http://127.0.0.1:2", "http://127.0.0.1:3"], "").shared.config.clone();
    let after = Pool::succeed(Some(&before), &before.shared.succeed(&other, None), 7, Instant::now());
    assert!(Arc::ptr_eq(&after.endpoints[0].shared, &before.endpoints[1].shared));
    let health: Vec<bool> = after.shared.endpoints.iter().map(|endpoint| endpoint.is_available()).collect();
    assert_eq!(health, [false, true]);
}
