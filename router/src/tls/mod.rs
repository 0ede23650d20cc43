//! TLS: certificates that are read again when their files change, towards clients and towards backends.
//!
//! ```text
//! files (PEM) --read, check--> rustls config --swap--> the next handshake
//! ```
//!
//! Invariant: files that make no sense never replace what is in use; they are logged, once, and tried again when they change.

mod client;
mod files;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::ClientTls;
pub(crate) use client::{Authorities, outgoing};
pub(crate) use server::not_after;
pub use server::{CertificateSeen, PreparedTls, ServerTls, certificate_in};

/// What is wrong with a certificate, a key or a list of authorities.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or holds no PEM of this kind.
    #[error("{key} = {path:?}: {why}")]
    File {
        /// The config key that names it.
        key: String,
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// rustls refused what the files hold together.
    #[error("{key}: {why}")]
    Refused {
        /// The config section.
        key: String,
        /// Its words.
        why: String,
    },
}

impl TlsError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            TlsError::File { key, .. } | TlsError::Refused { key, .. } => key,
        }
    }
}

/// The one crypto provider of this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
