//! Active health checks: each endpoint is asked over and over, on the control thread, never on a worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{SharedEndpoint, SharedPool};
use crate::config;

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
        if next.is_healthy != streak.is_healthy {
            let why = result.err().unwrap_or_else(|| "answers again".to_owned());
            let (name, authority) = (&pool.config.name, &endpoint.authority);
            tracing::warn!(route, pool = name, endpoint = %authority, healthy = next.is_healthy, why, "endpoint health changed");
            endpoint.set_healthy(next.is_healthy);
        }
        streak = next;
    }
}

async fn check_once(endpoint: &SharedEndpoint, health: &config::Health) -> Result<(), String> {
    let timed = tokio::time::timeout(health.timeout, ask(endpoint, &health.path)).await;
    let status = timed.map_err(|_| format!("no answer within {:?}", health.timeout))?.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
}

async fn ask(endpoint: &SharedEndpoint, path: &str) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(endpoint.authority.as_str()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(http::header::HOST, endpoint.authority.as_str())
        .header(http::header::USER_AGENT, "switchback-health")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    // The connection's future and the answer are polled together, so that nothing is left behind when the time is up.
    let answer = sender.send_request(request);
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
