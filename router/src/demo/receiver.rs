//! Who is told of the rollouts: a receiver of notifications, as anybody would have one.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// More than a demo has events.
const EVENTS: usize = 64;

/// It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    told: mpsc::Receiver<Value>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// On a port that the system gives out.
    pub(super) async fn start() -> std::io::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tell, told) = mpsc::channel(EVENTS);
        let app = Router::new().route("/", post(take)).with_state(tell);
        let task = tokio::spawn(async move {
            // It is over when the demo is.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Receiver { address, told, task })
    }

    /// What came since this was last asked: each event in a few words, but for the steps of a rollout, which are told anyway.
    pub(super) fn news(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        while let Ok(event) = self.told.try_recv() {
            let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
            if !text("/type").ends_with(".step_began") {
                news.push(format!("a webhook got {} {}", text("/type"), text("/subject")));
            }
        }
        news
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(tell): State<mpsc::Sender<Value>>, body: Bytes) -> StatusCode {
    let Ok(event) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    if tell.try_send(event).is_ok() { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}
