//! One attempt to have a query answered by one endpoint: its place in flight, its connection, and what became of it.
//!
//! Invariant: every attempt is counted once, whatever way it ends. One that is dropped before it ended was given up because
//! the client went away, and counts against nobody.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::pool::{Endpoint, Fault, Pool, Slot, unreadable};
use super::routes::RouteWorker;
use super::signals::Signals;
use super::split::Counted;
use super::upstream::{Connection, Failure, Purpose};
use crate::quality::{Broken, Outcome, PoolCounters, Refusal, SignalFault};
use crate::vocabulary::PoolIndex;

/// An attempt under way.
pub(crate) struct Attempt {
    route: Rc<RouteWorker>,
    pool: PoolIndex,
    endpoint: usize,
    /// Whom it counts for. Fallback answers count for nobody.
    counts: Option<Counted>,
    started: Instant,
    /// What is given back when it ends: `None` afterwards.
    held: RefCell<Option<Held>>,
}

struct Held {
    slot: Slot,
    answer: Option<Answered>,
}

/// What is known once the head of a response is here.
struct Answered {
    connection: Connection,
    status: StatusCode,
    at: Instant,
}

impl Attempt {
    /// Starts one on an endpoint of the pool, or says that the pool is full or empty. It goes through many hands, up to the end of the
    /// response's body, and moving it a dozen times costs three times the allocation.
    pub(crate) fn start(
        route: &Rc<RouteWorker>,
        pool: PoolIndex,
        avoid: Option<usize>,
        counts: Option<Counted>,
        now: Instant,
    ) -> Result<Box<Attempt>, Failure> {
        let side = route.pool(pool).ok_or(Failure::Full)?;
        let (index, slot) = side.start(avoid, now).ok_or(Failure::Full)?;
        let held = RefCell::new(Some(Held { slot, answer: None }));
        Ok(Box::new(Attempt { route: route.clone(), pool, endpoint: index, counts, started: now, held }))
    }

    pub(crate) fn endpoint_index(&self) -> usize {
        self.endpoint
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Whether it was sent to see if its endpoint works again.
    pub(crate) fn is_probe(&self) -> bool {
        self.held.borrow().as_ref().is_some_and(|held| held.slot.is_probe)
    }

    pub(crate) fn body_idle_timeout(&self) -> Duration {
        self.route.body_idle_timeout
    }

    /// A connection: an idle one unless a fresh one is asked for.
    pub(crate) async fn connect(&self, purpose: Purpose, wants_fresh: bool, deadline: Instant) -> Result<Connection, Failure> {
        let endpoint = self.endpoint().ok_or(Failure::Full)?;
        let idle = if wants_fresh { None } else { endpoint.take_idle(purpose, self.started) };
        match idle {
            Some(connection) => Ok(connection),
            // Boxed, as is every rare path: a query's future has the size of the largest one.
            None => Box::pin(self.open(endpoint, purpose, wants_fresh, deadline)).await,
        }
    }

    async fn open(&self, endpoint: &Endpoint, purpose: Purpose, wants_fresh: bool, deadline: Instant) -> Result<Connection, Failure> {
        // One that can be shared is waited for, unless it fails: a burst would open one for each query.
        while let Some(opening) = endpoint.opening() {
            tokio::time::timeout_at(deadline, opening.is_over()).await.map_err(|_| Failure::Timeout)?;
            if opening.has_failed() {
                break;
            }
            let other = || if wants_fresh { None } else { endpoint.take_idle(purpose, Instant::now()) };
            if let Some(connection) = opening.share().or_else(other) {
                return Ok(connection);
            }
        }
        let for_others = endpoint.opens();
        let opening = Connection::open(&endpoint.shared, purpose, self.route.config.timeouts.connect);
        let connection = tokio::time::timeout_at(deadline, opening).await.unwrap_or(Err(Failure::Timeout))?;
        endpoint.keep_share(&connection, Instant::now());
        for_others.has_come(&connection);
        Ok(connection)
    }

    /// The head is here: the latency is known, and the connection waits for the body to end.
    pub(crate) fn answered(&self, status: StatusCode, connection: Connection) {
        let now = Instant::now();
        let latency = now.duration_since(self.started);
        if let Some(endpoint) = self.endpoint() {
            endpoint.observe(latency, now);
        }
        if let (Some(counted), Some(counters)) = (&self.counts, self.counters()) {
            counters.durations.record(latency);
            counted.outcomes(counters).took(self.route.quarter(), latency);
        }
        if status.is_server_error() {
            self.met(Fault::Status(status), now);
        }
        if let Some(held) = self.held.borrow_mut().as_mut() {
            held.slot.head_came(!status.is_server_error());
            held.answer = Some(Answered { connection, status, at: now });
        }
    }

    /// The response says how good it is.
    #[cold]
    pub(crate) fn hear_signals(&self, headers: &HeaderMap) {
        let (Some(counted), Some(counters)) = (&self.counts, self.counters()) else { return };
        let (at, group, outcomes) = (self.route.quarter(), counted.group, counted.outcomes(counters));
        let fault = |fault: SignalFault| {
            if let Some(count) = counters.signal_faults.get(fault as usize) {
                count.increment();
            }
        };
        let Signals { found, score } = Signals::of(headers);
        match found {
            Some(Ok(found)) => outcomes.found(at, group, found),
            Some(Err(wrong)) => fault(wrong),
            None => {}
        }
        match score {
            Some(Ok(score)) => outcomes.was_worth(at, group, score),
            Some(Err(wrong)) => fault(wrong),
            None => {}
        }
    }

    /// The whole response has passed.
    pub(crate) fn completed(&self) {
        let Some(Answered { connection, status, at }) = self.take_answer() else { return };
        if let Some(counters) = self.counters() {
            self.count_status(counters, status);
        }
        // Idle since the head came, which is a little early and saves a look at the clock.
        if let Some(endpoint) = self.endpoint() {
            endpoint.put_idle(connection, at);
        }
    }

    /// The response was an error that another pool's answer replaces: counted by its status; the connection is closed, since
    /// draining an error to keep it would make the query wait.
    pub(crate) fn abandoned(&self) {
        if let (Some(answer), Some(counters)) = (self.take_answer(), self.counters()) {
            self.count_status(counters, answer.status);
        }
    }

    fn take_answer(&self) -> Option<Answered> {
        let Held { slot, answer } = self.held.borrow_mut().take()?;
        if let Some(answer) = &answer {
            slot.settle(!answer.status.is_server_error());
        }
        answer
    }

    /// The backend failed: no connection, no response, or one that broke off.
    pub(crate) fn failed(&self) {
        self.ended_badly(Fault::Closed, Outcome::Error, |counters| counters.failures.increment());
    }

    /// The backend took too long.
    pub(crate) fn timed_out(&self) {
        let now = Instant::now();
        // A failure that comes fast says nothing about latency; this one does.
        if let Some(endpoint) = self.endpoint() {
            endpoint.observe(now.duration_since(self.started), now);
        }
        let latency = now.duration_since(self.started);
        self.ended_badly(Fault::Timeout, Outcome::Timeout, |counters| {
            counters.timeouts.increment();
            if let Some(counted) = &self.counts {
                counted.outcomes(counters).took(self.route.quarter(), latency);
            }
        });
    }

    /// Counts an attempt by why it failed.
    pub(crate) fn ended(&self, failure: &Failure) {
        match failure {
            Failure::Timeout => self.timed_out(),
            Failure::Client => self.aborted(),
            Failure::Malformed => {
                self.route.refuse(Refusal::Framing);
                self.aborted();
            }
            Failure::Late => {
                self.route.refuse(Refusal::BodyTime);
                self.aborted();
            }
            Failure::TooLarge => {
                self.route.refuse(Refusal::BodySize);
                self.aborted();
            }
            Failure::Full | Failure::Unhealthy => drop(self.held.borrow_mut().take()),
            Failure::Connect { cause, .. } => {
                self.ended_badly(Fault::Connect(cause.clone()), Outcome::Error, |counters| counters.failures.increment())
            }
            Failure::Closed { .. } | Failure::Refused => self.failed(),
            Failure::Broken(reason) => {
                self.tell_whose(*reason);
                self.ended_badly(Fault::Broken(*reason), Outcome::Error, |counters| {
                    counters.failures.increment();
                    if let Some(count) = counters.broken.get(*reason as usize) {
                        count.increment();
                    }
                });
            }
        }
    }

    /// As [`Attempt::ended`], when the query is tried once more: a keep-alive connection that the backend happened to close, or on which it takes
    /// no more, is nobody's failure then.
    pub(crate) fn is_followed_by_another(&self, failure: &Failure) {
        match failure {
            Failure::Closed { was_reused: true } | Failure::Refused => drop(self.held.borrow_mut().take()),
            failure => self.ended(failure),
        }
    }

    /// The client went away, or did not send its whole request.
    pub(crate) fn aborted(&self) {
        if self.held.borrow_mut().take().is_some()
            && let Some(counters) = self.counters()
        {
            counters.client_aborts.increment();
        }
    }

    /// For people, who want to know why an endpoint went out.
    fn met(&self, fault: Fault, now: Instant) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.shared.met(fault, now);
        }
    }

    /// A client hears what is wrong with a response that is not passed on, or nothing where another pool answers; which backend gave it is for the log.
    fn tell_whose(&self, reason: Broken) {
        if let (Some(side), Some(endpoint)) = (self.side(), self.endpoint())
            && self.route.log_limit.allows(Instant::now())
        {
            let (route, pool, endpoint) = (&self.route.config.name, &side.shared.config.name, &endpoint.shared.authority);
            tracing::warn!(route, pool, %endpoint, "response not passed on: {}", unreadable(reason));
        }
    }

    fn ended_badly(&self, fault: Fault, end: Outcome, count: impl FnOnce(&PoolCounters)) {
        let Some(held) = self.held.borrow_mut().take() else { return };
        let now = Instant::now();
        // First: whoever is woken by the count below tells it.
        self.met(fault, now);
        held.slot.settle(false);
        if let Some(endpoint) = self.endpoint() {
            endpoint.leave_alone(now);
        }
        if let Some(counters) = self.counters() {
            count(counters);
            self.count_end(counters, end);
        }
    }

    fn count_status(&self, counters: &PoolCounters, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = counters.codes.get(class) {
            count.increment();
        }
        self.count_end(counters, if status.is_server_error() { Outcome::Error } else { Outcome::Answered });
    }

    fn count_end(&self, counters: &PoolCounters, end: Outcome) {
        if let Some(counted) = &self.counts {
            counted.outcomes(counters).ended(self.route.quarter(), counted.group, end);
        }
    }

    fn side(&self) -> Option<&Pool> {
        self.route.pool(self.pool)
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.side()?.endpoint(self.endpoint)
    }

    fn counters(&self) -> Option<&PoolCounters> {
        self.counts.as_ref()?;
        self.route.counters().pools.get(self.pool.get()).map(Arc::as_ref)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.aborted();
    }
}
