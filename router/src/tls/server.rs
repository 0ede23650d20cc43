//! The router's own certificates: chosen by the name that a client asks for, and swapped when their files change.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::files::{self, Stamp};
use super::{TlsError, provider};
use crate::config::{ClientAuth, Tls};

/// Offered to clients, the better first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS side of a listener.
#[derive(Debug)]
pub struct ServerTls {
    current: ArcSwap<Loaded>,
}

/// Certificates that were read and checked, and are not in use yet.
#[derive(Debug)]
pub struct PreparedTls(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    config: Tls,
    stamp: Stamp,
    server: Arc<ServerConfig>,
    certificates: Vec<CertificateSeen>,
}

/// A certificate in use, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSeen {
    /// Its file.
    pub file: PathBuf,
    /// The DNS names that it is for, lower case.
    pub names: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

impl ServerTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the key and the file.
    pub fn load(config: &Tls) -> Result<ServerTls, TlsError> {
        Ok(ServerTls { current: ArcSwap::from_pointee(load(config)?) })
    }

    /// Reads and checks the files of another config, all of them anew.
    ///
    /// # Errors
    /// As [`ServerTls::load`].
    pub fn prepare(config: &Tls) -> Result<PreparedTls, TlsError> {
        Ok(PreparedTls(Arc::new(load(config)?)))
    }

    /// Uses what was prepared for the next handshake. The same files as before change nothing, so that session tickets stay good.
    pub fn use_prepared(&self, prepared: PreparedTls) {
        let current = self.current.load();
        if current.stamp != prepared.0.stamp || current.config != prepared.0.config {
            self.current.store(prepared.0);
        }
    }

    /// For the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// The certificates in use.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateSeen> {
        self.current.load().certificates.clone()
    }

    /// Reads the files again if they changed. True when new ones are in use.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; what was in use stays so.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let current = self.current.load_full();
        if Stamp::of(paths(&current.config)) == current.stamp {
            return Ok(false);
        }
        self.current.store(Arc::new(load(&current.config)?));
        Ok(true)
    }

    /// Looks after the files for as long as the task lives.
    pub async fn follow(self: Arc<Self>) {
        let mut refused = Stamp::default();
        loop {
            let config = self.current.load().config.clone();
            tokio::time::sleep(config.reload_interval.max(Duration::from_millis(1))).await;
            let stamp = Stamp::of(paths(&config));
            if stamp == refused {
                continue;
            }
            match self.reload() {
                Ok(true) => tracing::info!(certificates = ?self.certificates(), "new certificates are in use"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "certificates are not taken; those in use stay");
                    refused = stamp;
                }
            }
        }
    }
}

fn paths(config: &Tls) -> impl Iterator<Item = &PathBuf> {
    config.certificates.iter().flat_map(|files| [&files.cert, &files.key]).chain(&config.client_ca)
}

fn load(config: &Tls) -> Result<Loaded, TlsError> {
    // The stamp first: a file that changes while it is read is read again at the next look.
    let stamp = Stamp::of(paths(config));
    let refused = |error: rustls::Error| TlsError::Refused { key: "tls".to_owned(), why: error.to_string() };
    let mut by_name = ByName::default();
    let mut certificates = Vec::new();
    for (index, pair) in config.certificates.iter().enumerate() {
        let (cert_key, key_key) = (format!("tls.certificate[{index}].cert"), format!("tls.certificate[{index}].key"));
        let chain = files::chain(&cert_key, &pair.cert)?;
        let seen = look_at(&cert_key, &pair.cert, chain.first())?;
        let private_key = files::private_key(&key_key, &pair.key)?;
        let certified = CertifiedKey::from_der(chain, private_key, &provider()).map_err(|error| TlsError::File {
            key: key_key,
            path: pair.key.clone(),
            why: format!("must be the key of {}: {error}", pair.cert.display()),
        })?;
        by_name.add(&seen.names, Arc::new(certified));
        certificates.push(seen);
    }
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(refused)?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(files::authorities("tls.client_ca", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if config.client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier =
                verifier.build().map_err(|error| TlsError::Refused { key: "tls.client_ca".to_owned(), why: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::new(by_name));
    server.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    // Tickets need no memory here and no lock between workers; a reload makes new ones, so that a client that is no longer trusted is
    // asked again.
    server.ticketer = Ticketer::new().map_err(refused)?;
    Ok(Loaded { config: config.clone(), stamp, server: Arc::new(server), certificates })
}

/// What a certificate says of itself.
fn look_at(key: &str, path: &std::path::Path, leaf: Option<&CertificateDer<'_>>) -> Result<CertificateSeen, TlsError> {
    let wrong = |why: String| TlsError::File { key: key.to_owned(), path: path.to_owned(), why };
    let der = leaf.map_or(&[][..], |leaf| leaf.as_ref());
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(format!("must be an X.509 certificate: {error}")))?;
    let names = parsed.subject_alternative_name().ok().flatten().map(|extension| {
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        extension.value.general_names.iter().filter_map(dns).collect::<Vec<_>>()
    });
    Ok(CertificateSeen { file: path.to_owned(), names: names.unwrap_or_default(), not_after: parsed.validity().not_after.timestamp() })
}

/// When a certificate ends, in seconds since 1970; `None` for what is none.
pub(crate) fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(leaf.as_ref()).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp())
}

/// The first certificate of a file.
///
/// # Errors
/// [`TlsError`], naming the key and the file.
pub fn certificate_in(key: &str, path: &std::path::Path) -> Result<CertificateSeen, TlsError> {
    look_at(key, path, files::chain(key, path)?.first())
}

/// Exact names before wildcards; the first certificate for whoever asks for no name, or for one that nobody has.
#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com` by `example.com`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn add(&mut self, names: &[String], key: Arc<CertifiedKey>) {
        for name in names {
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_insert_with(|| key.clone()),
                None => self.exact.entry(name.clone()).or_insert_with(|| key.clone()),
            };
        }
        self.first.get_or_insert(key);
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.exact.get(&name).or_else(|| self.wildcards.get(name.split_once('.')?.1)).or(self.first.as_ref())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().map_or(self.first.as_ref(), |name| self.find(name)).cloned()
    }
}
