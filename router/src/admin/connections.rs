//! Takes connections on the admin listener, each under limits: how many, how long for a head, how long for an answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::{AdminState, Live, health, paths};

/// Open connections. When there are so many, those that nothing was asked on for [`IDLE`] are closed, so that a health check and an operator always get in.
const CONNECTIONS: usize = 512;
/// Streams of events, which count among them and may stay for ever; further ones are refused.
pub(super) const STREAMS: usize = 256;
/// For so long a connection is not idle.
const IDLE: Duration = Duration::from_secs(1);
/// While there is no room, it is looked for so often.
const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// From a connection's or request's first byte to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the head to the answer's head, the request's body included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For requests in flight when the listener stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed accept (out of file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const EVENT_STREAM: &str = "text/event-stream";

/// Serves the admin API on `listener` until `stopping` says true; requests in flight then get two seconds. On the current runtime. Each
/// request is answered from the newest of `states`.
///
/// # Errors
/// When the listener cannot be used at all.
pub async fn run(
    listener: std::net::TcpListener,
    states: watch::Receiver<Arc<AdminState>>,
    stopping: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stopped = stopping.clone();
    let router = paths(Live { states: states.clone(), stopping: stopping.clone(), streams: Arc::new(Semaphore::new(STREAMS)) });
    let noticing = async {
        health::notice_ready(states).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accept(&listener, router, &slots, &stopping) => {}
        () = noticing => {}
        // A sender that is gone stops too.
        _ = stopped.wait_for(|is_stopping| *is_stopping) => {}
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, slots.acquire_many(all)).await;
    Ok(())
}

async fn accept(listener: &TcpListener, router: Router, slots: &Arc<Semaphore>, stopping: &watch::Receiver<bool>) {
    let room = Arc::new(Notify::new());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(slot) = make_room(slots, &room).await else { return };
                let (router, stopping, room) = (router.clone(), stopping.clone(), room.clone());
                tokio::spawn(async move {
                    serve_connection(stream, router, stopping, &room).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A slot for a connection; where there is none, idle ones are asked to go. `None` when there are none any more.
async fn make_room(slots: &Arc<Semaphore>, room: &Notify) -> Option<OwnedSemaphorePermit> {
    loop {
        if slots.available_permits() == 0 {
            room.notify_waiters();
        }
        if let Ok(slot) = tokio::time::timeout(ROOM_PAUSE, slots.clone().acquire_owned()).await {
            return slot.ok();
        }
    }
}

/// What a connection is busy with.
#[derive(Default)]
struct Use {
    /// Requests that are not answered yet, and streams.
    busy: AtomicUsize,
    /// When the last one was answered.
    last: Mutex<Option<Instant>>,
}

impl Use {
    fn is_idle(&self, since: Instant) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(since);
        self.busy.load(Ordering::Relaxed) == 0 && last.elapsed() > IDLE
    }
}

async fn serve_connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>, room: &Notify) {
    let (router, since, uses) = (TowerToHyperService::new(router), Instant::now(), Arc::<Use>::default());
    let used = uses.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        let (router, used) = (router.clone(), used.clone());
        async move {
            used.busy.fetch_add(1, Ordering::Relaxed);
            let answer = answer(router, request).await;
            // A stream of events is busy for as long as it lives.
            let is_stream = answer.as_ref().is_ok_and(|answer| answer.headers().get(CONTENT_TYPE).is_some_and(|what| what == EVENT_STREAM));
            if !is_stream {
                used.last.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
                used.busy.fetch_sub(1, Ordering::Relaxed);
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    loop {
        // A connection that breaks is its client's affair: nothing to say.
        tokio::select! {
            _ = &mut connection => return,
            () = room.notified() => if uses.is_idle(since) { return },
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(router: TowerToHyperService<Router>, request: Request<Incoming>) -> Result<Response, Infallible> {
    use hyper::service::Service as _;
    match tokio::time::timeout(ANSWER_TIMEOUT, router.call(request)).await {
        Ok(answered) => answered,
        Err(_) => Ok((StatusCode::REQUEST_TIMEOUT, "not answered within 30 s\n").into_response()),
    }
}
