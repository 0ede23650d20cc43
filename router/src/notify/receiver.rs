//! What tests send to: a server on a free port that answers as it was told and keeps what it got; a clock that jumps; and a target.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Clock;
use crate::config::{self, Notify};

/// What came in.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    /// A header by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A server that gives its answers in order, one for each connection, and is then silent.
pub(super) struct Receiver {
    address: SocketAddr,
    seen: watch::Receiver<Vec<Seen>>,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    pub(super) async fn start(answers: Vec<String>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, watching) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut answers = answers.into_iter();
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(answer) = answers.next() else {
                    silent.push(stream);
                    continue;
                };
                let request = read(&mut stream).await;
                seen.send_modify(|seen| seen.push(request));
                // Whoever has read enough hangs up.
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Receiver { address, seen: watching, task: Some(task) }
    }

    /// Takes connections and never says anything.
    pub(super) async fn silent() -> Receiver {
        Receiver::start(Vec::new()).await
    }

    /// A port that nobody listens on.
    pub(super) async fn nobody() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Receiver { address: listener.local_addr().unwrap(), seen: watch::channel(Vec::new()).1, task: None }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn read(stream: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let seen = Seen { head: head.to_owned(), body: body.to_owned() };
            if seen.header("content-length").and_then(|length| length.parse().ok()) == Some(seen.body.len()) {
                return seen;
            }
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "a request broke off: {text}");
    }
}

/// An answer, with further header lines.
pub(super) fn answer(status: &str, lines: &str, body: &str) -> String {
    let length = if status.starts_with("204") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status}\r\n{length}{lines}connection: close\r\n\r\n{body}")
}

/// A target with all defaults.
pub(super) fn target(url: &str) -> Notify {
    let text = format!(
        r#"
        listen = {{ traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }}
        notify = [{{ name = "ops", url = "{url}" }}]
        route = [{{ name = "search", pools = {{ blue = {{ endpoints = ["http://127.0.0.1:9001"] }} }} }}]
        "#
    );
    config::parse("test", &text).unwrap_or_else(|error| panic!("{error}")).notify.remove(0)
}

/// A clock that stands still but for sleep, which takes no time and is written down. Its chance is always the worst.
#[derive(Debug, Clone)]
pub(super) struct TestClock {
    now_ms: Arc<AtomicU64>,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl TestClock {
    pub(super) fn at(unix_ms: u64) -> TestClock {
        TestClock { now_ms: Arc::new(AtomicU64::new(unix_ms)), waits: Arc::default() }
    }

    pub(super) fn waits(&self) -> Vec<Duration> {
        self.waits.lock().unwrap().clone()
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    fn fraction(&self) -> f64 {
        1.0
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send {
        self.waits.lock().unwrap().push(wait);
        self.now_ms.fetch_add(u64::try_from(wait.as_millis()).unwrap(), Relaxed);
        std::future::ready(())
    }
}
