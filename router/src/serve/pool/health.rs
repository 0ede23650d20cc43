//! Active health checks: each endpoint is asked over and over, on the control thread, never on a worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::reason::{PROTOCOL_HINT, no_connection, no_tls};
use super::{Place, SharedEndpoint, SharedPool};
use crate::config::{self, Protocol};

/// A run of equal results, and what it means.
#[derive(Debug, Clone, Copy)]
struct Streak {
    is_healthy: bool,
    against: u32,
}

impl Streak {
    /// Takes in one result; flips after `healthy_after` good or `unhealthy_after` bad ones in a row. Pure.
    fn observe(self, passed: bool, health: &config::Health) -> Streak {
        if passed == self.is_healthy {
            return Streak { against: 0, ..self };
        }
        let against = self.against + 1;
        let needed = if passed { health.healthy_after } else { health.unhealthy_after };
        if against >= needed { Streak { is_healthy: passed, against: 0 } } else { Streak { against, ..self } }
    }
}

/// Checks one endpoint until the task is dropped. Each flip is logged with its reason.
pub(crate) async fn check_forever(route: String, pool: Arc<SharedPool>, endpoint: Arc<SharedEndpoint>) {
    let health = &pool.config.health;
    if health.interval.is_zero() {
        return;
    }
    let mut streak = Streak { is_healthy: endpoint.is_healthy(), against: 0 };
    let mut ticks = tokio::time::interval(health.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = check_once(&endpoint, health).await;
        let next = streak.observe(result.is_ok(), health);
        endpoint.reasons.checked(result.as_ref().err().map(String::as_str));
        if next.is_healthy != streak.is_healthy {
            let why = result.err().unwrap_or_else(|| "answers again".to_owned());
            let (name, authority) = (&pool.config.name, &endpoint.authority);
            tracing::warn!(route, pool = name, endpoint = %authority, healthy = next.is_healthy, why, "endpoint health changed");
            pool.change(&route, &endpoint, |endpoint| endpoint.set_healthy(next.is_healthy));
        }
        streak = next;
    }
}

/// Asks every place of the endpoint: it is healthy when one of them is, and workers pass over those that are not.
async fn check_once(endpoint: &SharedEndpoint, health: &config::Health) -> Result<(), String> {
    let places = endpoint.places.all();
    let results = join_all(places.iter().map(|place| check_place(endpoint, place, health))).await;
    let mut why = "its name does not resolve".to_owned();
    let mut is_healthy = false;
    for result in results {
        match result {
            Ok(()) => is_healthy = true,
            Err(error) => why = error,
        }
    }
    if is_healthy { Ok(()) } else { Err(why) }
}

async fn check_place(endpoint: &SharedEndpoint, place: &Place, health: &config::Health) -> Result<(), String> {
    let timed = tokio::time::timeout(health.timeout, ask(endpoint, place, &health.path)).await;
    let result = match timed {
        Err(_) => Err(format!("health check: no answer within {:?}", health.timeout)),
        Ok(Err(error)) => Err(error),
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(format!("health check answered {}", status.as_u16())),
    };
    place.set_down(result.is_err());
    result
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error says how far it came.
async fn ask(endpoint: &SharedEndpoint, place: &Place, path: &str) -> Result<StatusCode, String> {
    let stream = TcpStream::connect(place.address).await.map_err(|error| format!("connect: {}", no_connection(&error)))?;
    let Some(tls) = &endpoint.tls else { return ask_on(stream, endpoint, path, "http").await };
    let name = tls.server_name(endpoint.authority.host()).ok_or("TLS: its host is no name that a certificate can be for")?;
    let stream = TlsConnector::from(tls.current()).connect(name, stream).await.map_err(|error| no_tls(&error))?;
    ask_on(stream, endpoint, path, "https").await
}

/// Whether what came was not in the protocol that was spoken. Over HTTP/2 that is all but what the other side said in HTTP/2: one that does not speak it
/// sends a page of its own, or hangs up.
fn is_no_http(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_parse = error.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_parse() && !error.is_parse_too_large());
    let in_h2 = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    is_parse || in_h2.is_some_and(|error| !error.is_remote())
}

/// One health check on a connection that is there. The error is for people.
pub(super) async fn ask_on<S>(stream: S, endpoint: &SharedEndpoint, path: &str, scheme: &str) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    send(stream, endpoint, path, scheme).await.map_err(|error| match is_no_http(error.as_ref()) {
        true => format!("health check: the answer cannot be read: {PROTOCOL_HINT}"),
        false => format!("health check: {error}"),
    })
}

async fn send<S>(stream: S, endpoint: &SharedEndpoint, path: &str, scheme: &str) -> Result<StatusCode, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, authority) = (TokioIo::new(stream), endpoint.authority.as_str());
    let request = Request::get(path).header(http::header::USER_AGENT, "switchback-health");
    match endpoint.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            let request = request.header(http::header::HOST, authority).header(http::header::CONNECTION, "close");
            either(sender.send_request(request.body(Empty::<Bytes>::new())?), connection).await
        }
        Protocol::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let request = request.uri(format!("{scheme}://{authority}{path}"));
            either(sender.send_request(request.body(Empty::<Bytes>::new())?), connection).await
        }
    }
}

/// The connection's future and the answer are polled together, so that nothing is left behind when the time is up.
async fn either(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<StatusCode, BoxError> {
    tokio::pin!(connection, answer);
    tokio::select! {
        response = &mut answer => Ok(response?.status()),
        ended = &mut connection => {
            ended?;
            Ok(answer.await?.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> config::Health {
        let second = Duration::from_secs(1);
        config::Health { path: "/".to_owned(), interval: second, timeout: second, healthy_after: 2, unhealthy_after: 3 }
    }

    fn after(streak: Streak, results: &[bool]) -> bool {
        results.iter().fold(streak, |streak, passed| streak.observe(*passed, &health())).is_healthy
    }

    #[test]
    fn one_failed_check_is_no_outage() {
        let healthy = Streak { is_healthy: true, against: 0 };
        assert!(after(healthy, &[false, false, true, false, false]));
        assert!(!after(healthy, &[false, false, false]));
    }

    #[test]
    fn one_good_check_is_no_recovery() {
        let unhealthy = Streak { is_healthy: false, against: 0 };
        assert!(!after(unhealthy, &[true, false, true]));
        assert!(after(unhealthy, &[true, true]));
    }
}
