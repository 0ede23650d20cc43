//! One worker's side of an endpoint: its idle connections, its view of the latency, and what it knows of failures.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::SharedEndpoint;
use super::ewma::PeakEwma;
use crate::config::{self, Protocol};
use crate::serve::upstream::{Connection, Purpose};

/// A worker leaves an endpoint alone this long after a failure, if it has another: long enough not to meet every restart with
/// a burst of retries, short enough to notice at once that it is back.
const LEFT_ALONE: Duration = Duration::from_millis(500);

/// The load of an endpoint that is left alone: above that of any other.
pub(super) const LEFT_ALONE_LOAD: f64 = 1e15;

/// The load of one that has as many queries in flight as it may.
pub(super) const FULL_LOAD: f64 = f64::INFINITY;

/// The share that an endpoint begins with when it came back.
const FIRST_SHARE: f64 = 0.1;

/// One worker's side of an endpoint: its idle connections and its view of the latency.
pub(crate) struct Endpoint {
    pub(crate) shared: Arc<SharedEndpoint>,
    latency: Cell<PeakEwma>,
    recoveries_seen: Cell<u32>,
    left_alone_until: Cell<Instant>,
    /// When it came back, until its share is whole again.
    came_back: Cell<Option<Instant>>,
    slow_start: Duration,
    idle: RefCell<Vec<IdleConnection>>,
    /// A connection on its way that others can share.
    opening: RefCell<Weak<Opening>>,
    idle_limit: usize,
    idle_timeout: Duration,
    /// The only one of its pool: nobody asks for its load.
    is_alone: bool,
}

/// A connection that is being opened, and is for others too.
#[derive(Default)]
pub(crate) struct Opening {
    connection: RefCell<Option<Connection>>,
    has_ended: Cell<bool>,
    over: Notify,
}

impl Opening {
    pub(crate) async fn is_over(&self) {
        self.over.notified().await;
    }

    /// Whether it came to nothing, once it is over.
    pub(crate) fn has_failed(&self) -> bool {
        self.connection.borrow().is_none()
    }

    /// A share in it, if it takes one more query.
    pub(crate) fn share(&self) -> Option<Connection> {
        let mut held = self.connection.borrow_mut();
        let connection = held.as_mut()?;
        if connection.is_usable() { connection.share() } else { None }
    }
}

/// Who opens it; dropped when it is there, or when it is given up.
pub(crate) struct Opener(Rc<Opening>);

impl Opener {
    /// It is there, and others can have their share.
    pub(crate) fn has_come(&self, connection: &Connection) {
        self.0.connection.replace(connection.share());
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.has_ended.set(true);
        self.0.over.notify_waiters();
    }
}

struct IdleConnection {
    connection: Connection,
    until: Instant,
}

impl Endpoint {
    /// One worker's side of an endpoint of this pool.
    pub(super) fn new(shared: Arc<SharedEndpoint>, pool: &config::Pool, now: Instant) -> Endpoint {
        Endpoint {
            latency: Cell::new(PeakEwma::new(now)),
            recoveries_seen: Cell::new(shared.recoveries()),
            left_alone_until: Cell::new(now),
            came_back: Cell::new(None),
            slow_start: pool.slow_start,
            shared,
            idle: RefCell::default(),
            opening: RefCell::default(),
            idle_limit: pool.idle_connections,
            idle_timeout: pool.idle_timeout,
            is_alone: pool.endpoints.len() == 1,
        }
    }

    /// Takes over what the same endpoint had before another config: its idle connections, and what was learnt of it.
    pub(super) fn take_over(&self, before: &Endpoint) {
        let mut idle = before.idle.take();
        idle.truncate(self.idle_limit);
        self.idle.replace(idle);
        self.latency.set(before.latency.get());
        self.recoveries_seen.set(before.recoveries_seen.get());
        self.left_alone_until.set(before.left_alone_until.get());
    }

    /// What one more query would cost here: expected latency times the queries that would then be in flight.
    pub(super) fn load(&self, now: Instant) -> f64 {
        let recoveries = self.shared.recoveries();
        if self.recoveries_seen.replace(recoveries) != recoveries {
            self.latency.set(PeakEwma::new(now));
            self.left_alone_until.set(now);
            self.came_back.set(Some(now));
        }
        if self.shared.is_full() {
            return FULL_LOAD;
        }
        if now < self.left_alone_until.get() {
            return LEFT_ALONE_LOAD;
        }
        let queue = u32::try_from(self.shared.in_flight()).unwrap_or(u32::MAX);
        self.latency.get().micros(now) * (f64::from(queue) + 1.0)
    }

    /// The share of its queries that it should get: less than 1 for a while after it came back.
    pub(super) fn share(&self, now: Instant) -> f64 {
        let Some(since) = self.came_back.get() else { return 1.0 };
        let passed = now.saturating_duration_since(since);
        if passed >= self.slow_start {
            self.came_back.set(None);
            return 1.0;
        }
        (passed.as_secs_f64() / self.slow_start.as_secs_f64()).max(FIRST_SHARE)
    }

    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        if self.is_alone {
            return;
        }
        self.latency.set(self.latency.get().observe(latency, now));
    }

    /// An attempt failed: others first, for a moment.
    pub(crate) fn leave_alone(&self, now: Instant) {
        self.left_alone_until.set(now + LEFT_ALONE);
    }

    /// Takes the connection that was used last, if there is one that is still good. Most recently used first, so that those
    /// that a burst opened grow old and are closed. Of connections that carry many queries, a share.
    pub(crate) fn take_idle(&self, purpose: Purpose, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        if self.shared.protocol == Protocol::Http2 {
            idle.retain(|idle| !idle.connection.is_closed() && !idle.connection.is_elsewhere());
            let usable = idle.iter_mut().find_map(|idle| idle.connection.is_usable().then_some(idle))?;
            usable.until = now + self.idle_timeout;
            return usable.connection.share();
        }
        if purpose == Purpose::Upgrade {
            // Of HTTP/1.1, a connection of its own: it may become another protocol's.
            return None;
        }
        while let Some(IdleConnection { mut connection, until }) = idle.pop() {
            if now < until && connection.is_usable() && !connection.is_elsewhere() {
                return Some(connection);
            }
        }
        None
    }

    /// The connection on its way that others can share, if there is one.
    pub(crate) fn opening(&self) -> Option<Rc<Opening>> {
        self.opening.borrow().upgrade().filter(|opening| !opening.has_ended.get())
    }

    /// Says that one is on its way, until the result is dropped.
    pub(crate) fn opens(&self) -> Opener {
        let opening = Rc::<Opening>::default();
        if self.shared.protocol == Protocol::Http2 {
            self.opening.replace(Rc::downgrade(&opening));
        }
        Opener(opening)
    }

    /// Keeps a new connection that can carry other queries beside the one that it was opened for.
    pub(crate) fn keep_share(&self, connection: &Connection, now: Instant) {
        if let Some(connection) = connection.share() {
            self.put(connection, now);
        }
    }

    /// Takes a connection back when its query has ended.
    pub(crate) fn put_idle(&self, connection: Connection, now: Instant) {
        if self.shared.protocol == Protocol::Http1 {
            self.put(connection, now);
        }
    }

    fn put(&self, connection: Connection, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_limit && !connection.is_over() {
            idle.push(IdleConnection { connection, until: now + self.idle_timeout });
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn close_expired(&self, now: Instant) {
        let keep = |idle: &IdleConnection| now < idle.until && !idle.connection.is_closed() && !idle.connection.is_elsewhere();
        self.idle.borrow_mut().retain(keep);
    }
}
