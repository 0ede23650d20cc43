//! How long a connection may wait: for a head to be complete, and between queries.
//!
//! Each worker looks over its connections a few times a second, instead of setting a timer for every query: hyper's own header
//! timer costs an allocation and a timer a query, and would also be the keep-alive limit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::watched::Signals;
use crate::config::Limits;
use crate::quality::Refusal;

/// How often connections are looked over: limits are kept to within twice this.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between queries.
    Idle,
    /// Some bytes of a head are here, not all.
    Head,
    /// So many queries are being answered.
    Busy(u32),
}

/// One connection's clock.
pub(crate) struct ConnectionClock {
    phase: Cell<Phase>,
    is_h2: Cell<bool>,
    /// When a sweep first saw the phase, so that no query looks at the clock for it.
    since: Cell<Option<Instant>>,
    /// Of HTTP/2 only: there can be many, and each can be stuck by itself.
    streams: RefCell<Vec<Weak<StreamClock>>>,
    /// What the connection's bytes tell.
    pub(crate) signals: Arc<Signals>,
    /// Since when the client has not read what we have for it.
    stuck_since: Cell<Option<Instant>>,
    /// When it must end, where connections have an age.
    born: Instant,
    /// Part of the age that is this connection's, in thousandths: not all that came together go together.
    age_permille: u32,
    /// It has that age: its next response says that it will close.
    is_old: Cell<bool>,
    /// What the worker asks of the connection, which its task has not taken yet.
    asked: Cell<Option<Ask>>,
    /// It was asked to end, which is counted once.
    is_ending: Cell<bool>,
    /// Bytes of a head have come. A connection that never sent any is not answered.
    has_bytes: Cell<bool>,
    /// Of HTTP/2 only: streams that the client reset before their responses, those of the last ten seconds.
    resets: Cell<u32>,
    task: RefCell<Option<Waker>>,
}

/// One HTTP/2 stream's response. A client that gives its stream no window stops us without stopping the connection: then nobody
/// polls the body any more, although it is not the backend that is waited for.
#[derive(Default)]
struct StreamClock {
    was_polled: Cell<bool>,
    waits_for_backend: Cell<bool>,
    stuck_since: Cell<Option<Instant>>,
    /// Its response is on its way.
    is_answered: Cell<bool>,
    /// It is a query no more.
    is_tunnel: Cell<bool>,
    /// When a sweep first saw it.
    since: Cell<Option<Instant>>,
}

impl StreamClock {
    /// Whether nobody has asked for more of the body for so long. To be asked at each sweep.
    fn is_stuck(&self, now: Instant, limit: Duration) -> bool {
        if self.was_polled.take() || self.waits_for_backend.get() {
            self.stuck_since.set(None);
            return false;
        }
        let since = self.stuck_since.get().unwrap_or(now);
        self.stuck_since.set(Some(since));
        now.saturating_duration_since(since) >= limit
    }
}

/// Which limit a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// Nothing was asked for: no fault of anybody's.
    Idle,
    Head,
    Reader,
    Query,
}

impl Late {
    fn refusal(self) -> Option<Refusal> {
        match self {
            Late::Idle => None,
            Late::Head => Some(Refusal::HeadTime),
            Late::Reader => Some(Refusal::SlowReader),
            Late::Query => Some(Refusal::QueryTime),
        }
    }
}

/// What a worker asks of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It took too long: end in order if nothing is being answered, else at once.
    End,
    /// A head took too long: say so (408), and end.
    TimeOut,
    /// End at once.
    Cut,
    /// The worker drains: end in order, after what is being answered.
    Close,
}

/// The sweeps in which the allowance of resets comes back: ten seconds.
const SWEEPS_OF_RESETS: u32 = 40;

impl ConnectionClock {
    fn new(born: Instant, number: u64) -> ConnectionClock {
        // 900 to 1,100, spread by the golden ratio; exact in 32 bits.
        let age_permille = 900 + u32::try_from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).unwrap_or(0) % 201;
        // A client that connects and says nothing is held to the time for a head.
        ConnectionClock {
            phase: Cell::new(Phase::Head),
            is_h2: Cell::new(false),
            streams: RefCell::default(),
            since: Cell::new(None),
            signals: Arc::default(),
            stuck_since: Cell::new(None),
            born,
            age_permille,
            is_old: Cell::new(false),
            asked: Cell::new(None),
            is_ending: Cell::new(false),
            has_bytes: Cell::new(false),
            resets: Cell::new(0),
            task: RefCell::new(None),
        }
    }

    /// Asks the connection's task something, and wakes it.
    fn ask(&self, ask: Ask) {
        self.asked.set(Some(ask));
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    /// Ready with what the worker asks. Costs two comparisons while it asks nothing: this is polled with every query, which is why
    /// it is no channel and no `Notify` (both lock).
    pub(crate) fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Ask> {
        if let Some(ask) = self.asked.take() {
            return Poll::Ready(ask);
        }
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The connection speaks HTTP/2: there, bytes between queries may be control frames, and are no head.
    pub(crate) fn is_h2(&self) {
        self.is_h2.set(true);
        self.phase.set(Phase::Idle);
    }

    /// A head is complete. The query lasts until the result is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> QueryInProgress {
        let queries = if let Phase::Busy(queries) = self.phase.get() { queries } else { 0 };
        self.phase.set(Phase::Busy(queries + 1));
        if queries == 0 {
            self.since.set(None);
        }
        let stream = self.is_h2.get().then(|| {
            // Until the head of the response is here, it is the backend that is waited for.
            let stream = Rc::new(StreamClock { waits_for_backend: Cell::new(true), ..StreamClock::default() });
            self.streams.borrow_mut().push(Rc::downgrade(&stream));
            stream
        });
        QueryInProgress { clock: self.clone(), stream }
    }

    /// Whether nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        !matches!(self.phase.get(), Phase::Busy(_))
    }

    /// Whether it should end with its next response, so that its client connects anew.
    pub(crate) fn is_old(&self) -> bool {
        self.is_old.get()
    }

    /// Whether it has just come of age. HTTP/2 can be told at once (GOAWAY); HTTP/1.1 with its next response.
    fn comes_of_age(&self, now: Instant, limits: &Limits) -> bool {
        let limit = limits.connection_max_age * self.age_permille / 1_000;
        !limit.is_zero() && !self.is_old.get() && now.saturating_duration_since(self.born) >= limit
    }

    fn grow_old(&self, now: Instant, limits: &Limits) {
        if !self.comes_of_age(now, limits) {
            return;
        }
        self.is_old.set(true);
        if self.is_h2.get() {
            self.ask(Ask::Close);
        }
    }

    /// Which limit it breaks, if any. To be asked at each sweep.
    fn broken_limit(&self, now: Instant, limits: &Limits) -> Option<Late> {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.signals.is_lingering() {
            // It keeps a time of its own.
            return None;
        }
        self.hear_signals(now);
        self.resets.set(self.resets.get().saturating_sub(limits.h2_resets.div_ceil(SWEEPS_OF_RESETS)));
        if self.stuck_since.get().is_some_and(|since| past(since, limits.body_idle_timeout)) {
            return Some(Late::Reader);
        }
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        match self.phase.get() {
            Phase::Idle => past(since, limits.keepalive_timeout).then_some(Late::Idle),
            Phase::Head => past(since, limits.header_timeout).then_some(Late::Head),
            Phase::Busy(_) if self.is_h2.get() => self.late_stream(now, limits),
            Phase::Busy(_) => past(since, limits.query_timeout).then_some(Late::Query),
        }
    }

    fn late_stream(&self, now: Instant, limits: &Limits) -> Option<Late> {
        let mut late = None;
        self.streams.borrow_mut().retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            if stream.is_tunnel.get() {
                return true;
            }
            if stream.is_stuck(now, limits.body_idle_timeout) {
                late = Some(Late::Reader);
            }
            let since = stream.since.get().unwrap_or(now);
            stream.since.set(Some(since));
            if now.saturating_duration_since(since) >= limits.query_timeout {
                late = late.or(Some(Late::Query));
            }
            true
        });
        late
    }

    /// A client of HTTP/2 reset a stream before its response was there: each costs a query, and nothing but this limits how many.
    fn count_reset(&self) {
        self.resets.set(self.resets.get().saturating_add(1));
    }

    /// The client has used up its allowance of resets.
    pub(crate) fn has_too_many_resets(&self, limits: &Limits) -> bool {
        self.resets.get() > limits.h2_resets
    }

    /// Ends at once. True the first time.
    pub(crate) fn cut(&self) -> bool {
        let is_first = !self.is_ending.replace(true);
        self.ask(Ask::Cut);
        is_first
    }

    /// What became of the connection's bytes since the last sweep.
    fn hear_signals(&self, now: Instant) {
        if self.signals.take_received() && !self.is_h2.get() {
            self.has_bytes.set(true);
            if self.phase.get() == Phase::Idle {
                self.phase.set(Phase::Head);
                self.since.set(None);
            }
        }
        self.stuck_since.set(match self.signals.look_at_writing() {
            None => None,
            Some(false) => Some(now),
            Some(true) => self.stuck_since.get().or(Some(now)),
        });
    }
}

/// A query that has not been answered to the end.
pub(crate) struct QueryInProgress {
    clock: Rc<ConnectionClock>,
    stream: Option<Rc<StreamClock>>,
}

impl QueryInProgress {
    /// The head of the response is here.
    pub(crate) fn is_answered(&self) {
        if let Some(stream) = &self.stream {
            stream.is_answered.set(true);
        }
    }

    /// Its stream has become a tunnel, which keeps a time of its own.
    pub(crate) fn is_tunnel(&self) {
        if let Some(stream) = &self.stream {
            stream.is_tunnel.set(true);
        }
    }

    /// The response's body was asked for more; `is_pending` when the backend has none yet.
    pub(crate) fn polled_body(&self, is_pending: bool) {
        if let Some(stream) = &self.stream {
            stream.was_polled.set(true);
            stream.waits_for_backend.set(is_pending);
        }
    }
}

impl Drop for QueryInProgress {
    fn drop(&mut self) {
        let clock = &self.clock;
        if self.stream.as_ref().is_some_and(|stream| !stream.is_answered.get()) {
            clock.count_reset();
        }
        match clock.phase.get() {
            Phase::Busy(queries) if queries > 1 => clock.phase.set(Phase::Busy(queries - 1)),
            _ => {
                clock.phase.set(Phase::Idle);
                clock.since.set(None);
                clock.signals.forget_received();
            }
        }
    }
}

/// The clocks of one worker's connections.
#[derive(Default)]
pub(crate) struct Clocks {
    all: RefCell<HashMap<u64, Rc<ConnectionClock>>>,
    next: Cell<u64>,
    are_closing: Cell<bool>,
}

impl Clocks {
    /// A clock for a new connection, and the number under which [`Clocks::forget`] finds it.
    pub(crate) fn start(&self) -> (u64, Rc<ConnectionClock>) {
        let number = self.next.get();
        self.next.set(number + 1);
        let clock = Rc::new(ConnectionClock::new(Instant::now(), number));
        if self.are_closing.get() {
            clock.ask(Ask::Close);
        }
        self.all.borrow_mut().insert(number, clock.clone());
        (number, clock)
    }

    pub(crate) fn forget(&self, number: u64) {
        self.all.borrow_mut().remove(&number);
    }

    /// Ends the connections that took too long, and tells of each limit that was broken, once for a connection. Tells those that have
    /// come of age.
    pub(crate) fn sweep(&self, now: Instant, limits: &Limits, mut tell: impl FnMut(Refusal)) {
        for clock in self.all.borrow().values() {
            let Some(late) = clock.broken_limit(now, limits) else {
                clock.grow_old(now, limits);
                continue;
            };
            let says_so = late == Late::Head && clock.has_bytes.get();
            clock.ask(if says_so { Ask::TimeOut } else { Ask::End });
            let is_first = !clock.is_ending.replace(true);
            if let Some(refusal) = late.refusal().filter(|_| is_first) {
                tell(refusal);
            }
        }
    }

    /// Queries that are being answered.
    pub(crate) fn queries(&self) -> usize {
        let busy = |clock: &Rc<ConnectionClock>| if let Phase::Busy(queries) = clock.phase.get() { queries as usize } else { 0 };
        self.all.borrow().values().map(busy).sum()
    }

    /// Streams among them that have become tunnels, and are queries no more.
    pub(crate) fn tunnels(&self) -> usize {
        let streams = |clock: &Rc<ConnectionClock>| {
            let all = clock.streams.borrow();
            all.iter().filter_map(Weak::upgrade).filter(|stream| stream.is_tunnel.get()).count()
        };
        self.all.borrow().values().map(streams).sum()
    }

    /// Ends all connections in order, those that still come included.
    pub(crate) fn close(&self) {
        self.are_closing.set(true);
        for clock in self.all.borrow().values() {
            clock.ask(Ask::Close);
        }
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
