//! Signatures of versions: Ed25519 over a manifest's exact bytes. Whoever can write to the store cannot make a version that the owner of a trusted key did not push.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::RegistryError;

/// What a public key of Ed25519 begins with, as SubjectPublicKeyInfo (RFC 8410, section 4); 32 bytes follow.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Before the signed bytes, so that nothing that was signed for something else is a version.
const PURPOSE: &[u8] = b"switchback model version 1\n";
/// The largest key file.
const KEY_BYTES: u64 = 64 << 10;

/// Who signed a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The public key's SHA-256, the first 16 hex digits.
    pub key: String,
    /// The signature, in base64.
    pub ed25519: String,
}

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

/// A key whose signatures are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// As [`Signature::key`].
    pub id: String,
    bytes: [u8; 32],
}

impl SigningKey {
    /// Reads a private key in PEM, as `openssl genpkey -algorithm ed25519` makes one.
    ///
    /// # Errors
    /// [`RegistryError::Key`].
    pub fn read(path: &Path) -> Result<SigningKey, RegistryError> {
        let text = read(path)?;
        let wrong = || key_error(path, "it must be a private key of Ed25519 in PEM, as `openssl genpkey -algorithm ed25519` makes one");
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| wrong())?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der()).map(SigningKey).map_err(|_| wrong())
    }

    /// Signs a manifest's bytes.
    #[must_use]
    pub fn sign(&self, manifest: &[u8]) -> Signature {
        let signature = self.0.sign(&[PURPOSE, manifest].concat());
        Signature { key: id(self.0.public_key().as_ref()), ed25519: BASE64.encode(signature) }
    }
}

impl TrustedKey {
    /// Reads a public key in PEM, as `openssl pkey -pubout` makes one.
    ///
    /// # Errors
    /// [`RegistryError::Key`].
    pub fn read(path: &Path) -> Result<TrustedKey, RegistryError> {
        let text = read(path)?;
        let wrong = || key_error(path, "it must be a public key of Ed25519 in PEM, as `openssl pkey -pubout` makes one");
        let key = SubjectPublicKeyInfoDer::from_pem_slice(&text).map_err(|_| wrong())?;
        let bytes = key.as_ref().strip_prefix(&SPKI).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(wrong)?;
        Ok(TrustedKey { id: id(&bytes), bytes })
    }

    /// Whether the signature is this key's, over these bytes.
    #[must_use]
    pub fn vouches(&self, signature: &Signature, manifest: &[u8]) -> bool {
        let Ok(bytes) = BASE64.decode(&signature.ed25519) else { return false };
        UnparsedPublicKey::new(&ED25519, self.bytes).verify(&[PURPOSE, manifest].concat(), &bytes).is_ok()
    }
}

fn id(public: &[u8]) -> String {
    hex::encode(Sha256::digest(public)).chars().take(16).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let failed = |source| RegistryError::File { path: path.to_owned(), what: "read the key", source };
    if fs::metadata(path).map_err(failed)?.len() > KEY_BYTES {
        return Err(key_error(path, "it is too large for a key"));
    }
    fs::read(path).map_err(failed)
}

fn key_error(path: &Path, why: &str) -> RegistryError {
    RegistryError::Key { path: PathBuf::from(path), why: why.to_owned() }
}
