//! Signatures by Standard Webhooks 1.0: HMAC-SHA-256 of `id.timestamp.body`, by each secret of a target.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::Sha256;

/// What says that a text is such a secret.
const PREFIX: &str = "whsec_";
/// What Standard Webhooks has for a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A longer file holds something else.
const FILE_BYTES: u64 = 1_024;
/// An id is signed as it is sent, and has no dot: it could be taken for that before the timestamp.
const IN_ID: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'.');

/// A secret that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("{key} = {path:?}: cannot be read")]
    File {
        /// The config key that names it.
        key: String,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{key} = {path:?}: must hold whsec_ and 24 to 64 bytes in base64, on one line")]
    Secret {
        /// The config key that names the file.
        key: String,
        /// Which.
        path: PathBuf,
    },
}

impl SecretError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            SecretError::File { key, .. } | SecretError::Secret { key, .. } => key,
        }
    }
}

/// Signs with some secrets, or with none.
#[derive(Clone, Default)]
pub struct Signer {
    secrets: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    /// Says nothing of the secrets.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Signer({} secrets)", self.secrets.len())
    }
}

impl Signer {
    /// Reads the secrets; `key` is the config key that names the files.
    ///
    /// # Errors
    /// [`SecretError`], naming the key and the file.
    pub fn open(key: &str, files: &[PathBuf]) -> Result<Signer, SecretError> {
        let secrets: Result<_, _> = files.iter().map(|path| read(key, path)).collect();
        Ok(Signer { secrets: secrets? })
    }

    /// The value of `webhook-signature`: a signature for each secret. `None` without one.
    #[must_use]
    pub fn signature(&self, id: &str, unix_seconds: u64, body: &[u8]) -> Option<String> {
        let sign = |secret: &Hmac<Sha256>| {
            let begun = secret.clone().chain_update(format!("{id}.{unix_seconds}."));
            format!("v1,{}", BASE64.encode(begun.chain_update(body).finalize().into_bytes()))
        };
        let signatures: Vec<String> = self.secrets.iter().map(sign).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

/// The value of `webhook-id`: the id of the notice, fit for a header, and without what could be taken for the end of it.
pub(super) fn webhook_id(id: &str) -> String {
    utf8_percent_encode(id, IN_ID).to_string()
}

fn read(key: &str, path: &Path) -> Result<Hmac<Sha256>, SecretError> {
    let mut text = String::new();
    let reading = File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    reading.map_err(|source| SecretError::File { key: key.to_owned(), path: path.to_owned(), source })?;
    secret(text.trim()).ok_or_else(|| SecretError::Secret { key: key.to_owned(), path: path.to_owned() })
}

fn secret(text: &str) -> Option<Hmac<Sha256>> {
    let bytes = BASE64.decode(text.strip_prefix(PREFIX)?).ok()?;
    Hmac::new_from_slice(&bytes).ok().filter(|_| SECRET_BYTES.contains(&bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own library.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn signer(secrets: &[&str]) -> Signer {
        Signer { secrets: secrets.iter().map(|text| secret(text).unwrap()).collect() }
    }

    #[test]
    fn it_signs_as_the_published_example_has_it() {
        assert_eq!(signer(&[SECRET]).signature(ID, 1_649_367_553, BODY).as_deref(), Some(SIGNATURE));
    }

    #[test]
    fn each_secret_signs_and_none_signs_nothing() {
        let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let alone = signer(&[other]).signature(ID, 1_649_367_553, BODY).unwrap();
        let both = signer(&[other, SECRET]).signature(ID, 1_649_367_553, BODY).unwrap();
        assert_eq!(both, format!("{alone} {SIGNATURE}"));
        assert_eq!(signer(&[]).signature(ID, 1, BODY), None);
    }

    #[test]
    fn a_secret_has_its_prefix_and_24_to_64_bytes() {
        let of = |length: usize| format!("whsec_{}", BASE64.encode(vec![7; length]));
        for length in [24, 32, 64] {
            assert!(secret(&of(length)).is_some(), "{length}");
        }
        for bad in [of(23), of(65), of(32).replace("whsec_", ""), "whsec_".to_owned(), format!("{}!", of(24))] {
            assert!(secret(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_named_with_its_key_and_its_secret_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let key = "notify.ops.secret_file";
        assert!(matches!(Signer::open(key, std::slice::from_ref(&path)), Err(SecretError::File { .. })));
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        let signer = Signer::open(key, std::slice::from_ref(&path)).unwrap();
        assert_eq!(signer.signature(ID, 1_649_367_553, BODY).as_deref(), Some(SIGNATURE));
        assert_eq!(format!("{signer:?}"), "Signer(1 secrets)");
        std::fs::write(&path, "s3cret").unwrap();
        let error = Signer::open(key, &[path]).unwrap_err();
        assert_eq!(error.key(), key);
        assert!(error.to_string().contains(key) && !error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn an_id_has_no_dot_when_it_is_signed() {
        assert_eq!(webhook_id("search-r7-rolled-back"), "search-r7-rolled-back");
        assert_eq!(webhook_id("1.5 %\n\u{e9}"), "1%2E5%20%25%0A%C3%A9");
    }
}
