//! Search users: a steady stream of queries over keep-alive connections, each answer counted.
//!
//! Queries are due at a steady rate, spread over connections each of which has one at a time; one that is late because the answer before it
//! was counts from when it was due. There is no retry: what fails here would have failed a user.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Failed queries that are described; more would say the same.
const DESCRIBED: usize = 20;

/// How much, and to whom.
#[derive(Debug, Clone)]
pub struct Load {
    /// The router's traffic listener.
    pub target: SocketAddr,
    /// Queries a second.
    pub rate: u32,
    /// Keep-alive connections they are spread over.
    pub connections: u32,
    /// Different users, `user0`...
    pub users: u32,
    /// Body of each query; empty sends GET.
    pub body: Bytes,
    /// Further headers of each query.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Each query has a connection of its own.
    pub is_fresh: bool,
}

/// What became of the queries.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Sent.
    pub sent: u64,
    /// Not answered with a 2xx: why, and how often.
    pub failed: BTreeMap<String, u64>,
    /// The first of those: when (UTC, as in the router's log), whose, over which connection, why.
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
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Report>,
}

impl Load {
    /// Ordinary users at this rate.
    pub fn new(target: SocketAddr, rate: u32) -> Load {
        let body = Bytes::from_static(b"{\"query\":\"red shoes\"}");
        Load { target, rate, connections: 16, users: 1_000, body, headers: Vec::new(), is_fresh: false }
    }

    /// Clients that connect anew for each query.
    pub fn fresh(self) -> Load {
        Load { is_fresh: true, ..self }
    }

    /// Starts it on a thread of its own.
    pub fn start(self) -> Running {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop_flag, sent_count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(self, stop_flag, sent_count))
        });
        Running { stop, sent, thread }
    }
}

impl Running {
    /// Queries sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many queries were sent.
    pub fn wait_for(&self, queries: u64) {
        crate::eventually("the load sends its queries", Duration::from_secs(600), || (self.sent() >= queries).then_some(()));
    }

    /// Stops sending, waits for the answers that are due.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn run(load: Load, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Report {
    let report = Arc::new(Mutex::new(Report::default()));
    let each = Duration::from_secs_f64(f64::from(load.connections) / f64::from(load.rate));
    let clients = (0..load.connections).map(|number| {
        let client = Client { load: load.clone(), stop: stop.clone(), sent: sent.clone(), report: report.clone() };
        tokio::spawn(client.run(number, each))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    Arc::try_unwrap(report).unwrap().into_inner().unwrap()
}

/// A connection that may be used again.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The client's own port.
    port: u16,
    /// Queries that it had before.
    used: u32,
}

/// A query that failed.
struct Failure {
    over: String,
    why: String,
}

struct Client {
    load: Load,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    report: Arc<Mutex<Report>>,
}

impl Client {
    async fn run(self, number: u32, each: Duration) {
        let start = tokio::time::Instant::now() + each.mul_f64(f64::from(number) / f64::from(self.load.connections));
        let mut ticks = tokio::time::interval_at(start, each);
        let mut connection = None;
        let mut user = number;
        while !self.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            user = (user + self.load.connections) % self.load.users;
            self.sent.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let outcome = self.query(&mut connection, user).await;
            self.record(user, started.elapsed(), outcome);
        }
    }

    async fn query(&self, kept: &mut Option<Connection>, user: u32) -> Result<String, Failure> {
        let mut connection = match kept.take().filter(|kept| !kept.sender.is_closed()) {
            Some(connection) => connection,
            None => connect(self.load.target).await.map_err(|why| Failure { over: "from nowhere".to_owned(), why })?,
        };
        let answer = self.ask(&mut connection.sender, user).await;
        let over = format!("from port {}, which had {} before", connection.port, connection.used);
        let (status, pool, body) = answer.map_err(|why| Failure { over: over.clone(), why })?;
        connection.used += 1;
        *kept = (!self.load.is_fresh).then_some(connection);
        let refused = || Failure { over, why: format!("{status}: {}", String::from_utf8_lossy(&body)) };
        if status.is_success() { Ok(pool) } else { Err(refused()) }
    }

    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, user: u32) -> Result<(StatusCode, String, Bytes), String> {
        sender.ready().await.map_err(|error| format!("connection: {error}"))?;
        let method = if self.load.body.is_empty() { "GET" } else { "POST" };
        let mut request =
            Request::builder().method(method).uri("/rank").header("host", "search.test").header("x-user-id", format!("user{user}"));
        for (name, value) in &self.load.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(self.load.body.clone())).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), sender.send_request(request)).await;
        let response = answer.map_err(|_| "no answer in 30 s".to_owned())?.map_err(|error| format!("no answer: {error:?}"))?;
        let status = response.status();
        let pool = response.headers().get("x-switchback-pool").map_or("none", |pool| pool.to_str().unwrap()).to_owned();
        let body = response.into_body().collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        Ok((status, pool, body))
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
                    report.described.push(format!("{} user{user}, {over}, after {took:?}: {why}", time_of_day()));
                }
                *report.failed.entry(why).or_default() += 1;
            }
        }
    }
}

/// The time of the day in UTC, with milliseconds.
pub fn time_of_day() -> String {
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let (hours, minutes, seconds) = (millis / 3_600_000 % 24, millis / 60_000 % 60, millis / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}

async fn connect(target: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| format!("connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    let port = stream.local_addr().map_or(0, |address| address.port());
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("handshake: {error}"))?;
    tokio::spawn(connection);
    Ok(Connection { sender, port, used: 0 })
}
