//! Search users: a steady stream of queries, each answer counted.
//!
//! Queries are due at a steady rate, spread over users each of whom has one at a time; one that is late because the answer before it
//! was counts from when it was due. There is no retry: what fails here would have failed a user. The one exception is HTTP/2's own: what a
//! server says that it has not begun with is sent again, as every client does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::Request;
use rustls::ClientConfig;

use crate::exchange::Speaks;
use crate::wire::{Answer, Trouble, Wire};

/// Failed queries that are described; more would say the same.
const DESCRIBED: usize = 20;

/// How often a query is sent at most, where a server says again and again that it has not begun with it.
const TURNS: u32 = 3;

/// How much, how, and to whom.
#[derive(Debug, Clone)]
pub struct Load {
    /// What kind of client it is, in words.
    pub kind: &'static str,
    /// The router's traffic listener.
    pub target: SocketAddr,
    /// Queries a second.
    pub rate: u32,
    /// Keep-alive connections they are spread over.
    pub connections: u32,
    /// Queries at a time on each; HTTP/1.1 has one.
    pub streams: u32,
    /// Queries before a client opens another connection by itself.
    pub lasts: u32,
    /// How it encrypts; in the clear without.
    pub tls: Option<Arc<ClientConfig>>,
    /// What it speaks.
    pub speaks: Speaks,
    /// The method of each query.
    pub method: &'static str,
    /// Where it goes.
    pub path: &'static str,
    /// Different users, `user0`...
    pub users: u32,
    /// Body of each query.
    pub body: Bytes,
    /// Further headers of each query.
    pub headers: Vec<(&'static str, &'static str)>,
}

/// What became of the queries.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// What kind of clients they were.
    pub kind: &'static str,
    /// Queries a second that were due.
    pub rate: u32,
    /// Sent.
    pub sent: u64,
    /// Connections that were opened for them.
    pub connections: u64,
    /// Queries of HTTP/2 that were not sent before their connection ended, or that the server said it had not begun with: they were sent again.
    pub sent_again: u64,
    /// Not answered with a 2xx: why, and how often.
    pub failed: BTreeMap<String, u64>,
    /// The first of those: when (UTC, as in the router's log), what kind of client, whose, over which connection, why.
    pub described: Vec<String>,
    /// Answers by `x-switchback-pool`.
    pub by_pool: BTreeMap<String, u64>,
    /// Slowest answer.
    pub slowest: Duration,
    /// How long each answer took, in the order of the answers.
    pub times: Vec<Duration>,
}

impl Report {
    /// How many failed in all.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The time within which this share of the answers came.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// A load under way.
pub struct Running {
    state: Arc<State>,
    thread: JoinHandle<Report>,
}

/// What the thread that began a load shares with it.
#[derive(Default)]
struct State {
    is_stopped: AtomicBool,
    is_paused: AtomicBool,
    /// Queries that have no answer yet.
    in_flight: AtomicU64,
    sent: AtomicU64,
}

impl Load {
    /// Ordinary users at this rate.
    pub fn new(target: SocketAddr, rate: u32) -> Load {
        Load {
            kind: "HTTP/1.1, kept connections",
            target,
            rate,
            connections: 16,
            streams: 1,
            lasts: u32::MAX,
            tls: None,
            speaks: Speaks::Http1,
            method: "POST",
            path: "/rank",
            users: 1_000,
            body: Bytes::from_static(b"{\"query\":\"red shoes\"}"),
            headers: Vec::new(),
        }
    }

    /// Clients that connect anew for each query.
    pub fn fresh(self) -> Load {
        Load { kind: "HTTP/1.1, a connection for each query", lasts: 1, ..self }
    }

    /// Starts it on a thread of its own.
    pub fn start(self) -> Running {
        let state = Arc::<State>::default();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(self, shared))
        });
        Running { state, thread }
    }
}

impl Running {
    /// Queries sent so far.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many queries were sent.
    pub fn wait_for(&self, queries: u64) {
        crate::eventually("the load sends its queries", Duration::from_secs(600), || (self.sent() >= queries).then_some(()));
    }

    /// Sends no more until [`Running::go_on`], and waits until all that was sent is answered. Connections stay.
    pub fn pause(&self) {
        self.state.is_paused.store(true, Ordering::SeqCst);
        let in_flight = || self.state.in_flight.load(Ordering::SeqCst);
        crate::eventually("all queries are answered", Duration::from_secs(60), || (in_flight() == 0).then_some(()));
    }

    /// The end of a pause.
    pub fn go_on(&self) {
        self.state.is_paused.store(false, Ordering::SeqCst);
    }

    /// Stops sending, waits for the answers that are due.
    pub fn stop(self) -> Report {
        self.state.is_stopped.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn run(load: Load, state: Arc<State>) -> Report {
    let report = Arc::new(Mutex::new(Report { kind: load.kind, rate: load.rate, ..Report::default() }));
    let users = load.connections * load.streams;
    let each = Duration::from_secs_f64(f64::from(users) / f64::from(load.rate));
    let load = Arc::new(load);
    let lines: Vec<Arc<Line>> = (0..load.connections).map(|_| Arc::default()).collect();
    let clients = (0..users).map(|number| {
        let line = lines[(number % load.connections) as usize].clone();
        let client = Client { load: load.clone(), line, state: state.clone(), report: report.clone() };
        tokio::spawn(client.run(number, each))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    Arc::try_unwrap(report).unwrap().into_inner().unwrap()
}

/// The connection that is in use now, of those that follow each other.
type Line = tokio::sync::Mutex<Option<Wire>>;

/// A query that failed.
struct Failure {
    over: String,
    why: String,
}

/// Users of one line, one query at a time.
struct Client {
    load: Arc<Load>,
    line: Arc<Line>,
    state: Arc<State>,
    report: Arc<Mutex<Report>>,
}

impl Client {
    async fn run(self, number: u32, each: Duration) {
        let step = self.load.connections * self.load.streams;
        let start = tokio::time::Instant::now() + each.mul_f64(f64::from(number) / f64::from(step));
        let mut ticks = tokio::time::interval_at(start, each);
        let mut user = number;
        while !self.state.is_stopped.load(Ordering::Relaxed) {
            ticks.tick().await;
            // In this order, so that whoever pauses sees either the query or that it is not sent.
            self.state.in_flight.fetch_add(1, Ordering::SeqCst);
            if !self.state.is_paused.load(Ordering::SeqCst) {
                user = (user + step) % self.load.users;
                self.state.sent.fetch_add(1, Ordering::Relaxed);
                let started = Instant::now();
                let outcome = self.query(user).await;
                self.record(user, started.elapsed(), outcome);
            }
            self.state.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn query(&self, user: u32) -> Result<String, Failure> {
        let mut turn = 1;
        loop {
            let mut wire = self.take().await?;
            let over = format!("from port {}, which had {} before", wire.port, wire.used - 1);
            let asked = tokio::time::timeout(Duration::from_secs(30), wire.ask(self.head(user), self.load.body.clone())).await;
            match asked.unwrap_or_else(|_| Err(Trouble::Failed("no answer in 30 s".to_owned()))) {
                Ok(answer) => {
                    self.give_back(wire).await;
                    return judged(&answer).map_err(|why| Failure { over, why });
                }
                Err(Trouble::NotBegun(_)) if turn < TURNS => {
                    turn += 1;
                    self.report.lock().unwrap().sent_again += 1;
                    let mut kept = self.line.lock().await;
                    if kept.as_ref().is_some_and(|kept| kept.port == wire.port) {
                        *kept = None;
                    }
                }
                Err(Trouble::NotBegun(why) | Trouble::Failed(why)) => return Err(Failure { over, why }),
            }
        }
    }

    /// The connection for the next query; a new one where there is none that may be used.
    async fn take(&self) -> Result<Wire, Failure> {
        let mut kept = self.line.lock().await;
        let mut wire = match kept.take().filter(Wire::is_open) {
            Some(wire) => wire,
            None => {
                self.report.lock().unwrap().connections += 1;
                let connected = Wire::connect(self.load.target, self.load.tls.as_ref(), self.load.speaks).await;
                connected.map_err(|why| Failure { over: "from nowhere".to_owned(), why })?
            }
        };
        wire.used += 1;
        *kept = wire.shared().filter(|wire| wire.used < self.load.lasts);
        Ok(wire)
    }

    async fn give_back(&self, wire: Wire) {
        if self.load.speaks == Speaks::Http1 && wire.used < self.load.lasts {
            *self.line.lock().await = Some(wire);
        }
    }

    fn head(&self, user: u32) -> http::request::Builder {
        let request = Request::builder().method(self.load.method).header("x-user-id", format!("user{user}"));
        let request = match (self.load.speaks, &self.load.tls) {
            (Speaks::Http1, _) => request.uri(self.load.path).header("host", "search.test"),
            (Speaks::Http2, None) => request.uri(format!("http://search.test{}", self.load.path)),
            (Speaks::Http2, Some(_)) => request.uri(format!("https://search.test{}", self.load.path)),
        };
        self.load.headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    fn record(&self, user: u32, took: Duration, outcome: Result<String, Failure>) {
        let mut report = self.report.lock().unwrap();
        report.sent += 1;
        report.slowest = report.slowest.max(took);
        report.times.push(took);
        match outcome {
            Ok(pool) => *report.by_pool.entry(pool).or_default() += 1,
            Err(Failure { over, why }) => {
                if report.described.len() < DESCRIBED {
                    report.described.push(format!("{} {}, user{user}, {over}, after {took:?}: {why}", time_of_day(), self.load.kind));
                }
                *report.failed.entry(why).or_default() += 1;
            }
        }
    }
}

/// The pool that answered, or what was answered instead of a 2xx.
fn judged(answer: &Answer) -> Result<String, String> {
    if !answer.status.is_success() {
        return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    Ok(answer.headers.get("x-switchback-pool").map_or("none", |pool| pool.to_str().unwrap()).to_owned())
}

/// The time of the day in UTC, with milliseconds.
pub fn time_of_day() -> String {
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let (hours, minutes, seconds) = (millis / 3_600_000 % 24, millis / 60_000 % 60, millis / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}
