//! TLS for a benchmark: one certificate, made for the run, and a client that trusts it alone.
//!
//! The client offers TLS 1.3 with one cipher, AES-128-GCM, so that every peer does the same work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

/// The name that the certificate is for.
const NAME: &str = "search.example.com";

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Makes one in a folder. `pair.pem` there has both, as some peers want them.
    pub(crate) fn make(folder: &Path) -> Result<Identity> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity = Identity { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&identity.cert, &cert)?;
        fs::write(&identity.key, &key)?;
        fs::write(folder.join("pair.pem"), cert + &key)?;
        Ok(identity)
    }
}

/// A client's side of TLS: this certificate, and the name that it is for.
pub(crate) fn trust(cert: &Path) -> Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(cert).with_context(|| format!("reading {}", cert.display()))?;
    roots.add(cert)?;
    let provider = CryptoProvider { cipher_suites: vec![TLS13_AES_128_GCM_SHA256], ..ring::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), ServerName::try_from(NAME)?))
}
