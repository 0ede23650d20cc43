//! One look at an endpoint, all the way a query would go: its name, each address, TLS, a health check. For whoever checks a set-up; nothing is remembered.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::health::ask_on;
use super::reason::{no_connection, no_tls};
use super::{SharedEndpoint, SharedPool};
use crate::tls::not_after;

/// What was found at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Where.
    pub address: SocketAddr,
    /// When the certificate that it showed ends, in seconds since 1970.
    pub not_after: Option<i64>,
    /// What its health check answered; `None` where the config asks for none. Else how far it came.
    pub answer: Result<Option<u16>, String>,
}

impl SharedPool {
    /// Looks at one endpoint of the pool, at every address that its name stands for.
    ///
    /// # Errors
    /// Its name stands for nothing.
    pub async fn probe(&self, endpoint: &SharedEndpoint) -> Result<Vec<Probed>, String> {
        if endpoint.places.is_name() {
            endpoint.places.look_up().await?;
        }
        let places = endpoint.places.all();
        let probes = places.iter().map(|place| self.probe_at(endpoint, place.address));
        Ok(futures_util::future::join_all(probes).await)
    }

    async fn probe_at(&self, endpoint: &SharedEndpoint, address: SocketAddr) -> Probed {
        let mut probed = Probed { address, not_after: None, answer: Ok(None) };
        let asked = tokio::time::timeout(self.config.health.timeout, self.ask(endpoint, &mut probed)).await;
        let late = || format!("no answer within {:?}", self.config.health.timeout);
        let answer = asked.unwrap_or_else(|_| Err(late()));
        Probed { answer, ..probed }
    }

    async fn ask(&self, endpoint: &SharedEndpoint, probed: &mut Probed) -> Result<Option<u16>, String> {
        let (health, connected) = (&self.config.health, TcpStream::connect(probed.address).await);
        let stream = connected.map_err(|error| format!("connect: {}", no_connection(&error)))?;
        let is_asked = !health.interval.is_zero();
        let answered = match &endpoint.tls {
            None if !is_asked => return Ok(None),
            None => ask_on(stream, endpoint, &health.path, "http").await,
            Some(tls) => {
                let name = tls.server_name(endpoint.authority.host()).ok_or("TLS: its host is no name that a certificate can be for")?;
                let stream = TlsConnector::from(tls.current()).connect(name, stream).await.map_err(|error| no_tls(&error))?;
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                probed.not_after = shown.and_then(|leaf| not_after(leaf));
                if !is_asked {
                    return Ok(None);
                }
                ask_on(stream, endpoint, &health.path, "https").await
            }
        };
        answered.map(|status| Some(status.as_u16()))
    }
}
