//! Connections: accepting, limits, reading bodies, and ending gracefully.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::protocol::{self, refuse};
use super::refusal::Refusal;
use super::{Limits, Ranker};

/// How long the end is announced (not ready, `Connection: close`) before connections are closed: routers check health each second, and
/// closing an idle connection at once would meet a query on its way.
const ANNOUNCEMENT: Duration = Duration::from_millis(1_500);
/// Nobody is on its way to a ranker that got no query for so long: its end needs no announcement, and comes at once.
const QUIET: Duration = Duration::from_secs(10);
/// How long queries in flight may take after that.
const LAST_QUERIES: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of descriptors): the accept queue does not run away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How much of a body that is too large is still read, in times of the limit.
const DISCARDED_AT_MOST: usize = 8;
/// Concurrent streams on one HTTP/2 connection.
const STREAMS: u32 = 128;

/// Whether the end was announced, and whether anybody has to hear of it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    announced: watch::Sender<bool>,
    /// When the last query came.
    asked: ArcSwapOption<Instant>,
}

impl Drain {
    pub(super) fn is_announced(&self) -> bool {
        *self.announced.borrow()
    }

    /// For those who wait for something else meanwhile.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.announced.subscribe()
    }

    fn announce(&self) {
        self.announced.send_replace(true);
    }

    /// Health checks do not count, nor does who asks what is loaded, or loads: there is another answer for them, or none that a user waits for.
    fn note(&self, method: &Method, path: &str, now: Instant) {
        if method == Method::POST && !path.starts_with("/v2/repository/") {
            self.asked.store(Some(Arc::new(now)));
        }
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.asked.load().as_deref().is_none_or(|asked| now.saturating_duration_since(*asked) >= QUIET)
    }
}

impl Ranker {
    /// Serves until `shutdown` ends; then announces the end to whoever sent a query lately, closes the listener and lets queries in flight finish. Where there
    /// are none it is over at once.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let ranker = Arc::new(self);
        let slots = Arc::new(Semaphore::new(ranker.limits.connections));
        let (close, closed) = watch::channel(false);
        ranker.accept_until(&listener, &slots, &closed, shutdown).await;
        ranker.drain.announce();
        if !ranker.drain.is_quiet(Instant::now()) {
            ranker.accept_until(&listener, &slots, &closed, sleep(ANNOUNCEMENT)).await;
        }
        drop(listener);
        let _ = close.send(true);
        let every_slot = u32::try_from(ranker.limits.connections).unwrap_or(u32::MAX);
        if timeout(LAST_QUERIES, slots.acquire_many(every_slot)).await.is_err() {
            tracing::warn!("queries were still in flight when the ranker ended");
        }
    }

    async fn accept_until(
        self: &Arc<Self>,
        listener: &TcpListener,
        slots: &Arc<Semaphore>,
        closed: &watch::Receiver<bool>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = pin!(end);
        loop {
            let (stream, slot) = tokio::select! {
                () = &mut end => return,
                accepted = accept(listener, slots) => accepted,
            };
            tokio::spawn(Arc::clone(self).serve_connection(stream, slot, closed.clone()));
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, slot: OwnedSemaphorePermit, mut closed: watch::Receiver<bool>) {
        let _slot = slot;
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let ranker = Arc::clone(&self);
            async move { Ok::<_, Infallible>(ranker.serve_request(request).await) }
        });
        let builder = connection_builder(&self.limits);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let asked_to_close = async { drop(closed.wait_for(|closed| *closed).await) };
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = asked_to_close => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn serve_request(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        self.drain.note(&head.method, head.uri.path(), Instant::now());
        let mut response = match read_body(body, head.headers.contains_key(EXPECT), &self.limits).await {
            Ok(body) => {
                let (method, path, headers) = (&head.method, head.uri.path(), &head.headers);
                self.answer(protocol::Request { method, path, headers, body }).await
            }
            Err(refusal) => refuse(&refusal),
        };
        if self.drain.is_announced() && head.version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A connection is taken only when there is a slot for it; the others wait in the backlog.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_headers(100);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(limits.header_timeout);
    builder
}

/// Reads the body, up to the limit. What is over it is still taken off the connection, within bounds: a client that is cut off in the
/// middle of its body never sees the answer that says why.
async fn read_body(body: Incoming, awaits_continue: bool, limits: &Limits) -> Result<Bytes, Refusal> {
    let most = limits.body_bytes;
    let over = || Refusal::too_large(format!("the body is over {most} bytes, which is the most allowed (--max-body)"));
    if awaits_continue && body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(over());
    }
    match timeout(limits.body_timeout, collect(body, most)).await {
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => Err(over()),
        Ok(Err(error)) => Err(Refusal::bad(format!("the body ended early: {error}"))),
        Err(_) => Err(Refusal::slow(format!("the body did not come within {} s", limits.body_timeout.as_secs_f64()))),
    }
}

/// The whole body, or `None` when it is over `most` bytes.
async fn collect(mut body: Incoming, most: usize) -> Result<Option<Bytes>, hyper::Error> {
    let (mut taken, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > most.saturating_mul(DISCARDED_AT_MOST) {
            break;
        }
        if length <= most {
            taken.extend_from_slice(&data);
        }
    }
    Ok((length <= most).then(|| taken.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sent_a_query_lately_hears_of_the_end() {
        let (drain, now) = (Drain::default(), Instant::now());
        drain.note(&Method::GET, "/v2/health/ready", now);
        drain.note(&Method::POST, "/v2/repository/index", now);
        assert!(drain.is_quiet(now), "those are no queries");
        drain.note(&Method::POST, "/v2/models/search/infer", now);
        assert!(!drain.is_quiet(now) && !drain.is_quiet(now + QUIET - Duration::from_secs(1)));
        assert!(drain.is_quiet(now + QUIET));
    }
}
