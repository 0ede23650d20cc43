//! TLS towards the endpoints of one pool: whom it trusts, and what it shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::files::{self, Stamp};
use super::{TlsError, provider};
use crate::config::{Pool, PoolTls, Protocol};

/// One pool's side.
#[derive(Debug)]
pub struct ClientTls {
    /// `route.NAME.pools.NAME.tls`, for errors.
    key: String,
    config: PoolTls,
    protocol: Protocol,
    server_name: Option<ServerName<'static>>,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    client: Arc<ClientConfig>,
}

impl ClientTls {
    /// Reads and checks the files of a pool; `None` for one without `https` endpoints.
    ///
    /// # Errors
    /// [`TlsError`], naming the key and the file.
    pub fn load(route: &str, pool: &Pool) -> Result<Option<ClientTls>, TlsError> {
        if !pool.endpoints.iter().any(|endpoint| endpoint.is_tls) {
            return Ok(None);
        }
        let key = format!("route.{route}.pools.{}.tls", pool.name);
        let current = ArcSwap::from_pointee(load(&key, &pool.tls, pool.protocol)?);
        Ok(Some(ClientTls { key, config: pool.tls.clone(), protocol: pool.protocol, server_name: pool.tls.server_name.clone(), current }))
    }

    /// For the next handshake.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }

    /// The name that an endpoint must prove: the configured one, else its host.
    pub(crate) fn server_name(&self, host: &str) -> Option<ServerName<'static>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.server_name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }

    /// Reads the files again if they changed. True when new ones are in use.
    ///
    /// # Errors
    /// As [`ClientTls::load`]; what was in use stays so.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if Stamp::of(paths(&self.config)) == self.current.load().stamp {
            return Ok(false);
        }
        self.current.store(Arc::new(load(&self.key, &self.config, self.protocol)?));
        Ok(true)
    }

    /// Looks after the files for as long as the task lives.
    pub async fn follow(self: Arc<Self>, every: Duration) {
        let mut refused = Stamp::default();
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stamp = Stamp::of(paths(&self.config));
            if stamp == refused || stamp == self.current.load().stamp {
                continue;
            }
            match load(&self.key, &self.config, self.protocol) {
                Ok(loaded) => {
                    self.current.store(Arc::new(loaded));
                    tracing::info!(pool = self.key, "new certificates are in use");
                }
                Err(error) => {
                    tracing::error!(%error, "certificates are not taken; those in use stay");
                    refused = stamp;
                }
            }
        }
    }
}

fn paths(config: &PoolTls) -> impl Iterator<Item = &PathBuf> {
    config.ca.iter().chain(config.certificate.iter().flat_map(|files| [&files.cert, &files.key]))
}

fn load(key: &str, config: &PoolTls, protocol: Protocol) -> Result<Loaded, TlsError> {
    let stamp = Stamp::of(paths(config));
    let refused = |error: rustls::Error| TlsError::Refused { key: key.to_owned(), why: error.to_string() };
    let roots = match &config.ca {
        Some(path) => files::authorities(&format!("{key}.ca"), path)?,
        None => system_roots(&format!("{key}.ca"))?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(refused)?;
    let builder = builder.with_root_certificates(roots);
    let mut client = match &config.certificate {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = files::chain(&format!("{key}.cert"), &pair.cert)?;
            let private_key = files::private_key(&format!("{key}.key"), &pair.key)?;
            builder.with_client_auth_cert(chain, private_key).map_err(refused)?
        }
    };
    client.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Loaded { stamp, client: Arc::new(client) })
}

/// Who may vouch for a host that this program sends something to of its own accord.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Authorities<'a> {
    /// Those of the system.
    System,
    /// Those of a file, and no others.
    File(&'a Path),
    /// Nobody: for what is never sent over TLS.
    Nobody,
}

/// TLS towards such a host; the name in the URL is what it must prove. `key` is the config key that may name a file.
///
/// # Errors
/// [`TlsError`], naming the key and the file.
pub(crate) fn outgoing(key: &str, authorities: Authorities<'_>) -> Result<ClientConfig, TlsError> {
    let roots = match authorities {
        Authorities::System => system_roots(key)?,
        Authorities::File(path) => files::authorities(key, path)?,
        Authorities::Nobody => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsError::Refused { key: key.to_owned(), why: error.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `key` is the one under which a file could be named instead.
fn system_roots(key: &str) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = match found.errors.first() {
            Some(error) => format!("the system has no authorities that can be read ({error}); name a file"),
            None => "the system has no authorities; name a file".to_owned(),
        };
        return Err(TlsError::Refused { key: key.to_owned(), why });
    }
    Ok(roots)
}
