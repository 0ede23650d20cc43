//! How long connections may wait, stay and be silent.

use super::*;

const HEAD: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(75);
const BODY: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    let config = r#"
        listen = { traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }
        limits = { header_timeout = "10s", keepalive_timeout = "75s", body_idle_timeout = "30s", query_timeout = "2h", h2_resets = 80 }
        route = [{ name = "search", pools = { blue = { endpoints = ["http://127.0.0.1:9001"] } } }]
    "#;
    crate::config::parse("test", config).unwrap().limits
}

fn late_after(clock: &ConnectionClock, waited: Duration) -> bool {
    let limits = limits();
    let seen = clock.since.get().unwrap_or_else(Instant::now);
    clock.broken_limit(seen, &limits).is_some() || clock.broken_limit(seen + waited, &limits).is_some()
}

#[test]
fn a_client_that_does_not_read_is_not_waited_for_forever() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    let _query = clock.begin();
    clock.signals.wrote(true);
    assert!(!late_after(&clock, BODY / 2));
    assert!(late_after(&clock, BODY * 2));
    clock.signals.wrote(false);
    assert!(!late_after(&clock, BODY * 2));
}

#[test]
fn a_silent_client_has_the_time_of_a_head() {
    let clock = ConnectionClock::new(Instant::now(), 1);
    assert!(!late_after(&clock, HEAD / 2));
    assert!(late_after(&clock, HEAD));
}

#[test]
fn between_queries_the_keep_alive_limit_holds() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    drop(clock.begin());
    assert!(!late_after(&clock, HEAD * 2));
    assert!(late_after(&clock, KEEPALIVE));
    clock.signals.received();
    assert!(late_after(&clock, HEAD));
}

#[test]
fn control_frames_of_http2_are_no_head() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    clock.is_h2();
    drop(clock.begin());
    clock.signals.received();
    assert!(!late_after(&clock, HEAD * 2));
    assert!(late_after(&clock, KEEPALIVE));
}

#[test]
fn a_stream_that_its_client_stopped_is_not_waited_for_forever() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    clock.is_h2();
    let (stuck, slow) = (clock.begin(), clock.begin());
    assert!(!late_after(&clock, BODY * 100), "a backend may take its time");
    stuck.polled_body(false);
    slow.polled_body(true);
    assert!(!late_after(&clock, BODY / 2));
    stuck.polled_body(false);
    assert!(!late_after(&clock, BODY / 2), "somebody asked for more");
    assert!(late_after(&clock, BODY * 3), "nobody did since");
    drop(stuck);
    assert!(!late_after(&clock, BODY * 100));
}

#[test]
fn connections_that_came_together_do_not_all_go_together() {
    let born = Instant::now();
    let config = r#"
        listen = { traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }
        limits = { connection_max_age = "100s" }
        route = [{ name = "search", pools = { blue = { endpoints = ["http://127.0.0.1:9001"] } } }]
    "#;
    let mut limits = crate::config::parse("test", config).unwrap().limits;
    let clocks: Vec<ConnectionClock> = (0..1_000).map(|number| ConnectionClock::new(born, number)).collect();
    let old_after = |seconds, limits: &Limits| {
        let now = born + Duration::from_secs(seconds);
        clocks.iter().filter(|clock| clock.comes_of_age(now, limits)).count()
    };
    assert_eq!((old_after(89, &limits), old_after(111, &limits)), (0, 1_000));
    assert!((400..600).contains(&old_after(100, &limits)));
    limits.connection_max_age = Duration::ZERO;
    assert_eq!(old_after(1_000_000, &limits), 0, "without a limit they may stay");
}

#[test]
fn a_query_may_take_as_long_as_a_query_may() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    let (first, second) = (clock.begin(), clock.begin());
    drop(first);
    assert!(!late_after(&clock, KEEPALIVE * 10));
    assert!(late_after(&clock, KEEPALIVE * 100), "two hours");
    drop(second);
    assert!(late_after(&clock, KEEPALIVE));
}

#[test]
fn streams_that_are_reset_before_their_responses_are_counted_and_forgotten_again() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    clock.is_h2();
    let limits = limits();
    for _ in 0..limits.h2_resets {
        let answered = clock.begin();
        answered.is_answered();
        drop((answered, clock.begin()));
    }
    assert!(!clock.has_too_many_resets(&limits));
    drop(clock.begin());
    assert!(clock.has_too_many_resets(&limits));
    let now = Instant::now();
    for sweep in 0..SWEEPS_OF_RESETS {
        clock.broken_limit(now + SWEEP_EVERY * sweep, &limits);
    }
    assert_eq!(clock.resets.get(), 1);
}

#[test]
fn who_only_has_to_see_the_end_is_left_to_it() {
    let clock = Rc::new(ConnectionClock::new(Instant::now(), 1));
    clock.signals.received();
    clock.signals.wrote(true);
    clock.signals.lingers();
    assert!(!late_after(&clock, BODY * 100));
}
