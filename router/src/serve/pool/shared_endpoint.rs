//! What all workers and the control thread share about an endpoint: relaxed atomics, written by workers only where they count.
//!
//! ```text
//! may have traffic = its health checks say so, its name stands for something, and it is not ejected
//! ```
//!
//! Invariant: whether it may have traffic is changed by the control thread alone, through [`super::SharedPool::change`].

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::outlier::{Look, Why};
use super::places::{Place, Places};
use super::reason::{Fault, Reasons};
use crate::config::{self, Protocol};
use crate::tls::ClientTls;

/// An endpoint as all workers see it.
#[derive(Debug)]
pub struct SharedEndpoint {
    /// Host and port.
    pub authority: Authority,
    pub(crate) protocol: Protocol,
    /// `None` for one that is spoken to in the clear.
    pub(crate) tls: Option<Arc<ClientTls>>,
    pub(super) places: Places,
    is_healthy: AtomicBool,
    admission: AtomicU8,
    /// How often it came back: what was learnt of its latency before is no longer true.
    recoveries: AtomicU32,
    in_flight: AtomicUsize,
    max_in_flight: usize,
    outcomes: Outcomes,
    ejections: [AtomicU64; Why::ALL.len()],
    slow_start: Duration,
    /// For people: no worker looks at it.
    times: Mutex<Times>,
    pub(super) reasons: Reasons,
}

/// What an outlier's detector says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    In = 0,
    Ejected = 1,
    HalfOpen = 2,
}

/// What became of attempts, over all workers.
#[derive(Debug, Default)]
struct Outcomes {
    consecutive: AtomicU32,
    good: AtomicU64,
    bad: AtomicU64,
    /// How often it became half-open: what a probe of an earlier time comes to says nothing of now.
    probe_round: AtomicU32,
    /// Queries that may still be sent as probes.
    probes_left: AtomicU32,
    good_probes: AtomicU32,
    bad_probes: AtomicU32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    ejected_until: Option<Instant>,
    came_back: Option<Instant>,
}

/// How an endpoint is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It gets its share.
    Healthy,
    /// It came back lately, and gets a growing share.
    SlowStart,
    /// Health checks fail.
    Unhealthy,
    /// Its name stands for no address.
    Unresolved,
    /// Its attempts failed: it gets none for a while.
    Ejected,
    /// Its ejection is over: it gets some queries as probes.
    HalfOpen,
}

impl EndpointState {
    /// As the API says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            EndpointState::Healthy => "healthy",
            EndpointState::SlowStart => "slow_start",
            EndpointState::Unhealthy => "unhealthy",
            EndpointState::Unresolved => "unresolved",
            EndpointState::Ejected => "ejected",
            EndpointState::HalfOpen => "half_open",
        }
    }
}

impl SharedEndpoint {
    pub(super) fn new(config: &config::Endpoint, pool: &config::Pool, tls: Option<&Arc<ClientTls>>) -> SharedEndpoint {
        SharedEndpoint {
            places: Places::new(&config.authority),
            authority: config.authority.clone(),
            protocol: pool.protocol,
            tls: tls.filter(|_| config.is_tls).cloned(),
            is_healthy: AtomicBool::new(true),
            admission: AtomicU8::new(Admission::In as u8),
            recoveries: AtomicU32::new(0),
            in_flight: AtomicUsize::new(0),
            max_in_flight: pool.max_in_flight_per_endpoint,
            outcomes: Outcomes::default(),
            ejections: Default::default(),
            slow_start: pool.slow_start,
            times: Mutex::default(),
            reasons: Reasons::default(),
        }
    }

    /// Whether it gets queries as any other of its pool.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.may_serve() && self.admission() == Admission::In
    }

    /// Whether health checks and the resolver let it have traffic. Health checks do until they say otherwise.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.is_healthy() && self.places.is_resolved()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    pub(super) fn admission(&self) -> Admission {
        match self.admission.load(Ordering::Relaxed) {
            0 => Admission::In,
            1 => Admission::Ejected,
            _ => Admission::HalfOpen,
        }
    }

    /// How it is at this moment.
    #[must_use]
    pub fn state(&self, now: Instant) -> EndpointState {
        match self.admission() {
            _ if !self.places.is_resolved() => EndpointState::Unresolved,
            _ if !self.is_healthy() => EndpointState::Unhealthy,
            Admission::Ejected => EndpointState::Ejected,
            Admission::HalfOpen => EndpointState::HalfOpen,
            Admission::In => match self.times().came_back {
                Some(since) if now < since + self.slow_start => EndpointState::SlowStart,
                _ => EndpointState::Healthy,
            },
        }
    }

    /// How long it stays ejected.
    #[must_use]
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let until = self.times().ejected_until?;
        (self.admission() == Admission::Ejected).then(|| until.saturating_duration_since(now))
    }

    /// Why it does not get its whole share, in a few words; `None` where it does, or begins to.
    #[must_use]
    pub fn why(&self, now: Instant) -> Option<String> {
        match self.state(now) {
            EndpointState::Healthy | EndpointState::SlowStart => None,
            EndpointState::Unresolved => Some(self.places.unresolved()),
            EndpointState::Unhealthy => self.reasons.health(),
            EndpointState::Ejected | EndpointState::HalfOpen => self.reasons.ejection(),
        }
    }

    /// What the last attempt that failed met, and when; whether it went out for that or not.
    #[must_use]
    pub fn last_failure(&self) -> Option<(String, Instant)> {
        self.reasons.last_failure()
    }

    /// How often it was ejected for this reason.
    #[must_use]
    pub fn ejections(&self, why: Why) -> u64 {
        self.ejections.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The addresses that its name stands for; `None` for an endpoint that is given by address.
    #[must_use]
    pub fn addresses(&self) -> Option<Vec<std::net::SocketAddr>> {
        self.places.is_name().then(|| self.places.all().iter().map(|place| place.address).collect())
    }

    /// Look-ups of its name, and those of them that failed.
    #[must_use]
    pub fn lookups(&self) -> (u64, u64) {
        (self.places.lookups.load(Ordering::Relaxed), self.places.failed_lookups.load(Ordering::Relaxed))
    }

    /// Attempts that have not ended, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight() >= self.max_in_flight
    }

    /// Takes a place in flight; false, and none taken, where all are.
    pub(super) fn enter(&self) -> bool {
        let has_room = self.in_flight.fetch_add(1, Ordering::Relaxed) < self.max_in_flight;
        if !has_room {
            self.leave();
        }
        has_room
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn recoveries(&self) -> u32 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// A TCP connection, and to which of a name's places.
    pub(crate) async fn connect(&self, timeout: Duration) -> Result<(TcpStream, Option<Arc<Place>>), String> {
        self.places.connect(timeout).await
    }

    /// A worker gave up waiting for a connection.
    pub(crate) fn connecting_took_too_long(&self) {
        self.places.doubt();
    }
}

/// What workers count.
impl SharedEndpoint {
    pub(super) fn attempt_succeeded(&self) {
        // Nearly always zero already, and then there is nothing for other cores to hear of.
        if self.outcomes.consecutive.load(Ordering::Relaxed) != 0 {
            self.outcomes.consecutive.store(0, Ordering::Relaxed);
        }
        self.outcomes.good.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps for people what a failed attempt met.
    #[cold]
    pub(crate) fn met(&self, fault: Fault, now: Instant) {
        self.reasons.attempt_failed(fault, now);
    }

    /// Failures in a row, this one included.
    pub(super) fn attempt_failed(&self) -> u32 {
        self.outcomes.bad.fetch_add(1, Ordering::Relaxed);
        self.outcomes.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Leave to send one query as a probe.
    pub(super) fn take_probe(&self) -> bool {
        let less_one = |left: u32| left.checked_sub(1);
        let left = &self.outcomes.probes_left;
        self.may_serve() && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one).is_ok()
    }

    pub(super) fn probe_round(&self) -> u32 {
        self.outcomes.probe_round.load(Ordering::Relaxed)
    }

    /// The client of a probe went away: another query takes its place.
    pub(super) fn give_probe_back(&self, round: u32) {
        if round == self.probe_round() {
            self.outcomes.probes_left.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn probe_ended(&self, round: u32, is_good: bool) {
        if round != self.probe_round() {
            return;
        }
        let count = if is_good { &self.outcomes.good_probes } else { &self.outcomes.bad_probes };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the control thread does, inside of [`super::SharedPool::change`].
impl SharedEndpoint {
    pub(super) fn look(&self) -> Look {
        let outcomes = &self.outcomes;
        Look {
            consecutive: outcomes.consecutive.load(Ordering::Relaxed),
            good: outcomes.good.load(Ordering::Relaxed),
            bad: outcomes.bad.load(Ordering::Relaxed),
            good_probes: outcomes.good_probes.load(Ordering::Relaxed),
            bad_probes: outcomes.bad_probes.load(Ordering::Relaxed),
            may_serve: self.may_serve(),
        }
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.is_healthy.store(healthy, Ordering::Relaxed);
    }

    pub(super) fn eject(&self, until: Instant, why: Why) {
        self.outcomes.probes_left.store(0, Ordering::Relaxed);
        self.times().ejected_until = Some(until);
        if let Some(count) = self.ejections.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.admit(Admission::Ejected);
    }

    /// Lets so many queries through as probes.
    pub(super) fn half_open(&self, probes: u32) {
        self.outcomes.probe_round.fetch_add(1, Ordering::Relaxed);
        self.outcomes.good_probes.store(0, Ordering::Relaxed);
        self.outcomes.bad_probes.store(0, Ordering::Relaxed);
        self.outcomes.probes_left.store(probes, Ordering::Relaxed);
        self.admit(Admission::HalfOpen);
    }

    pub(super) fn readmit(&self) {
        self.outcomes.probes_left.store(0, Ordering::Relaxed);
        self.admit(Admission::In);
    }

    fn admit(&self, admission: Admission) {
        self.admission.store(admission as u8, Ordering::Relaxed);
    }

    pub(super) fn came_back(&self, now: Instant) {
        self.outcomes.consecutive.store(0, Ordering::Relaxed);
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        self.times().came_back = Some(now);
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
