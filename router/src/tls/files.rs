//! PEM files: what they hold, and whether they changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// A PEM file over this is refused: a list of every public authority is a fifth of it.
const FILE_BYTES: u64 = 1 << 20;

/// One state of the files, without reading them: length, inode and change time of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    /// Follows links, as a mounted secret is replaced by turning a link.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Stamp {
        let one = |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.len(), file.ino(), file.ctime(), file.ctime_nsec()));
        Stamp(paths.map(one).collect())
    }
}

/// The certificates of a chain, the leaf first.
pub(super) fn chain(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| TlsError::File { key: key.to_owned(), path: path.to_owned(), why };
    let bytes = read(key, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| wrong(format!("must be certificates in PEM form: {error}")))?;
    if chain.is_empty() {
        return Err(wrong("must hold a certificate in PEM form (BEGIN CERTIFICATE), the server's own first".to_owned()));
    }
    Ok(chain)
}

/// The first private key of a file.
pub(super) fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let why = format!("must hold a private key in PEM form (PKCS#8, PKCS#1 or SEC1, without a password): {error}");
        TlsError::File { key: key.to_owned(), path: path.to_owned(), why }
    })
}

/// The authorities of a file.
pub(super) fn authorities(key: &str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(key, path)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            key: key.to_owned(),
            path: path.to_owned(),
            why: format!("must hold certificates of authorities: {error}"),
        })?;
    }
    Ok(roots)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |why: String| TlsError::File { key: key.to_owned(), path: path.to_owned(), why };
    let length = fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if length > FILE_BYTES {
        return Err(wrong(format!("must be at most {FILE_BYTES} bytes, and has {length}")));
    }
    fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))
}
