//! Takes connections on the admin listener, each under limits: how many, how long for a head, how long for an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::{AdminState, Live, health, paths};

/// Open connections; further ones wait in the listener's queue. Streams of events count.
const CONNECTIONS: usize = 512;
/// From a connection's or request's first byte to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the head to the answer's head, the request's body included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For requests in flight when the listener stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed accept (out of file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let router = paths(Live { states: states.clone(), stopping: stopping.clone() });
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
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                tokio::spawn(async move {
                    serve_connection(stream, router, stopping).await;
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

async fn serve_connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is its client's affair: nothing to say.
    tokio::select! {
        _ = &mut connection => return,
        _ = stopping.wait_for(|is_stopping| *is_stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(router: TowerToHyperService<Router>, request: Request<Incoming>) -> Result<Response, Infallible> {
    use hyper::service::Service as _;
    match tokio::time::timeout(ANSWER_TIMEOUT, router.call(request)).await {
        Ok(answered) => answered,
        Err(_) => Ok((StatusCode::REQUEST_TIMEOUT, "not answered within 30 s\n").into_response()),
    }
}
