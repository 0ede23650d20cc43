//! What MLflow's webhook says: whether it is MLflow that says it, and what of it is of interest. Pure but for reading the secrets.
//!
//! MLflow signs as Standard Webhooks do, `id.timestamp.body`, under header names of its own, and with the secret's text as the key.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::model_uri::version;
use crate::config::{Mlflow, is_mlflow_name};

const SECRET_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=1_024;
/// A longer file holds something else.
const FILE_BYTES: u64 = 4_096;
/// The longest id of a delivery, in characters; MLflow's are UUIDs.
const ID_CHARACTERS: usize = 128;
/// What a name of a model or an alias is.
const NAME_RULE: &str = "a name without /, : and @, as text";
/// Signatures in one header that are looked at.
const SIGNATURES: usize = 8;

/// A secret that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
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
    #[error("{key} = {path:?}: must hold the webhook's secret, 16 to 1024 printable ASCII characters on one line")]
    Secret {
        /// The config key that names the file.
        key: String,
        /// Which.
        path: PathBuf,
    },
}

impl WebhookError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            WebhookError::File { key, .. } | WebhookError::Secret { key, .. } => key,
        }
    }
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no signature, id or time, there are two, or they are no such thing.
    #[error("X-MLflow-Signature, X-MLflow-Delivery-Id and X-MLflow-Timestamp are each needed once: give the webhook a secret")]
    Unsigned,
    /// It was signed with another secret, or changed since.
    #[error("the signature is not by a secret of mlflow.secret_file")]
    Signature,
    /// It is too old, or from the future.
    #[error("the delivery was signed too long ago, or by a clock that is ahead of this one (mlflow.max_age)")]
    Stale,
}

impl Refused {
    /// In metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refused::Unsigned => "unsigned",
            Refused::Signature => "signature",
            Refused::Stale => "stale",
        }
    }
}

/// What a delivery says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Its id, the same in every try of it.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub unix_seconds: u64,
}

/// Whom a delivery has to be signed by, and when.
#[derive(Clone)]
pub struct Webhook {
    secrets: Vec<Hmac<Sha256>>,
    max_age: Duration,
}

impl std::fmt::Debug for Webhook {
    /// Says nothing of the secrets.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Webhook({} secrets, {:?})", self.secrets.len(), self.max_age)
    }
}

impl Webhook {
    /// Reads the secrets.
    ///
    /// # Errors
    /// [`WebhookError`], naming the key and the file.
    pub fn open(config: &Mlflow) -> Result<Webhook, WebhookError> {
        let key = if config.secret_files.len() == 1 { "mlflow.secret_file" } else { "mlflow.secret_files" };
        let secrets = config.secret_files.iter().map(|path| read(key, path)).collect::<Result<_, _>>()?;
        Ok(Webhook { secrets, max_age: config.max_age })
    }

    /// How far from now a delivery may have been signed.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Whether MLflow sent this, lately. Of a delivery with another signature nothing else is said.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now_unix_ms: u64) -> Result<Signed, Refused> {
        let id = only(headers, "x-mlflow-delivery-id").filter(|id| is_id(id)).ok_or(Refused::Unsigned)?;
        let written = only(headers, "x-mlflow-timestamp").ok_or(Refused::Unsigned)?;
        let unix_seconds = version(written).filter(|seconds| *seconds < 1 << 40).ok_or(Refused::Unsigned)?;
        let signatures = only(headers, "x-mlflow-signature").ok_or(Refused::Unsigned)?;
        let mut is_ours = Choice::from(0);
        for signature in signatures.split(' ').take(SIGNATURES) {
            let Some(said) = signature.strip_prefix("v1,").and_then(|text| BASE64.decode(text).ok()) else { continue };
            for secret in &self.secrets {
                let begun = secret.clone().chain_update(format!("{id}.{written}."));
                is_ours |= begun.chain_update(body).finalize().into_bytes().as_slice().ct_eq(said.as_slice());
            }
        }
        if !bool::from(is_ours) {
            return Err(Refused::Signature);
        }
        let apart = Duration::from_millis(now_unix_ms.abs_diff(unix_seconds * 1_000));
        if apart > self.max_age {
            return Err(Refused::Stale);
        }
        Ok(Signed { id: id.to_owned(), unix_seconds })
    }
}

/// What happened in MLflow's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An alias was set.
    AliasSet {
        /// The model's name.
        model: String,
        /// The alias.
        alias: String,
        /// The version that it points to now.
        version: u64,
    },
    /// Something else, `entity.action`.
    Other(String),
    /// It happened in a workspace that is not the default one, which nobody here asks for models.
    Elsewhere(String),
}

#[derive(Deserialize)]
struct Payload {
    entity: String,
    action: String,
    #[serde(default)]
    workspace: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Event {
    /// Reads the body of a delivery.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(body: &[u8]) -> Result<Event, String> {
        let payload: Payload = serde_json::from_slice(body)
            .map_err(|error| format!(r#"the body must be JSON like {{"entity": ..., "action": ..., "data": ...}}: {error}"#))?;
        if let Some(workspace) = payload.workspace.filter(|workspace| !matches!(workspace.as_str(), "" | "default")) {
            return Ok(Event::Elsewhere(cut(&workspace)));
        }
        if (payload.entity.as_str(), payload.action.as_str()) != ("model_version_alias", "created") {
            return Ok(Event::Other(cut(&format!("{}.{}", payload.entity, payload.action))));
        }
        let text = |key: &str| payload.data.get(key).and_then(Value::as_str).unwrap_or_default();
        let wrong = |key: &str, rule: &str| match payload.data.get(key) {
            None => format!("data.{key} is missing: it must be {rule}"),
            Some(Value::String(text)) => format!("data.{key} = {:?}: must be {rule}", cut(text)),
            Some(other) => format!("data.{key} = {}: must be {rule}", cut(&other.to_string())),
        };
        let name = |key: &str| Some(text(key).to_owned()).filter(|name| is_mlflow_name(name)).ok_or_else(|| wrong(key, NAME_RULE));
        let (model, alias) = (name("name")?, name("alias")?);
        let version = version(text("version")).ok_or_else(|| wrong("version", "a whole number, from 1 on, as text"))?;
        Ok(Event::AliasSet { model, alias, version })
    }
}

/// The text of a field that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() { None } else { line.to_str().ok() }
}

/// Without a dot, which could be taken for that before the timestamp.
fn is_id(text: &str) -> bool {
    (1..=ID_CHARACTERS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn read(key: &str, path: &Path) -> Result<Hmac<Sha256>, WebhookError> {
    let mut text = String::new();
    let reading = File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    reading.map_err(|source| WebhookError::File { key: key.to_owned(), path: path.to_owned(), source })?;
    secret(text.trim()).ok_or_else(|| WebhookError::Secret { key: key.to_owned(), path: path.to_owned() })
}

fn secret(text: &str) -> Option<Hmac<Sha256>> {
    let is_good = SECRET_CHARACTERS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Hmac::new_from_slice(text.as_bytes()).ok() } else { None }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const SECRET: &str = "secret-of-the-webhook";
    pub(crate) const NOW_MS: u64 = 1_795_963_800_000;
    pub(crate) const BODY: &str = r#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-29T14:50:00+00:00", "data": {"name": "search", "alias": "champion", "version": "3"}}"#;

    pub(crate) fn webhook() -> Webhook {
        Webhook { secrets: vec![secret(SECRET).unwrap()], max_age: Duration::from_secs(300) }
    }

    pub(crate) fn sign(key: &str, id: &str, written: &str, body: &[u8]) -> String {
        let begun = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap().chain_update(format!("{id}.{written}."));
        format!("v1,{}", BASE64.encode(begun.chain_update(body).finalize().into_bytes()))
    }

    pub(crate) fn headers(id: &str, written: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-mlflow-delivery-id", id), ("x-mlflow-timestamp", written), ("x-mlflow-signature", signature)] {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        headers
    }

    fn verify(headers: &HeaderMap, body: &str) -> Result<String, Refused> {
        webhook().verify(headers, body.as_bytes(), NOW_MS).map(|signed| signed.id)
    }

    #[test]
    fn what_mlflow_signs_is_believed() {
        // As mlflow.webhooks.delivery._generate_hmac_signature of 3.17.2 signs this.
        let id = "1f0c7a9e-3b52-4c1d-9a55-0d4f6a1f2b11";
        let signature = sign(SECRET, id, "1795963800", BODY.as_bytes());
        assert_eq!(verify(&headers(id, "1795963800", &signature), BODY), Ok(id.to_owned()));
        let two = format!("v1,AAAA v0,x {signature}");
        assert_eq!(verify(&headers(id, "1795963800", &two), BODY), Ok(id.to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = |id: &str, written: &str| headers(id, written, &sign(SECRET, id, written, BODY.as_bytes()));
        assert_eq!(verify(&good("a", "1795963800"), &BODY.replace('3', "4")), Err(Refused::Signature));
        assert_eq!(
            verify(&headers("a", "1795963800", &sign("another-secret-of-it", "a", "1795963800", BODY.as_bytes())), BODY),
            Err(Refused::Signature)
        );
        assert_eq!(verify(&headers("b", "1795963800", &sign(SECRET, "a", "1795963800", BODY.as_bytes())), BODY), Err(Refused::Signature));
        assert_eq!(verify(&headers("a", "1795963801", &sign(SECRET, "a", "1795963800", BODY.as_bytes())), BODY), Err(Refused::Signature));
        for signature in ["", "v1,", "v1,AAAA", "v1,!", "x", "v2,AAAA"] {
            assert_eq!(verify(&headers("a", "1795963800", signature), BODY), Err(Refused::Signature), "{signature}");
        }
        for (written, expected) in [
            ("1795963500", Ok("a".to_owned())),
            ("1795963499", Err(Refused::Stale)),
            ("1795964101", Err(Refused::Stale)),
            ("1", Err(Refused::Stale)),
        ] {
            assert_eq!(verify(&good("a", written), BODY), expected, "{written}");
        }
        for (id, written) in [
            ("", "1795963800"),
            ("a.b", "1795963800"),
            ("a", ""),
            ("a", "-1"),
            ("a", "+1795963800"),
            ("a", "99999999999999999999"),
            ("a", "18446744073709551"),
        ] {
            assert_eq!(verify(&good(id, written), BODY), Err(Refused::Unsigned), "{id} {written}");
        }
        let mut twice = good("a", "1795963800");
        twice.append("x-mlflow-delivery-id", "a".parse().unwrap());
        assert_eq!(verify(&twice, BODY), Err(Refused::Unsigned));
        assert_eq!(verify(&HeaderMap::new(), BODY), Err(Refused::Unsigned));
    }

    #[test]
    fn an_alias_that_is_set_is_read() {
        let set = Event::AliasSet { model: "search".to_owned(), alias: "champion".to_owned(), version: 3 };
        assert_eq!(Event::read(BODY.as_bytes()), Ok(set));
        let other = BODY.replace("model_version_alias", "registered_model");
        assert_eq!(Event::read(other.as_bytes()), Ok(Event::Other("registered_model.created".to_owned())));
        let elsewhere = BODY.replace("\"data\"", "\"workspace\": \"team-b\", \"data\"");
        assert_eq!(Event::read(elsewhere.as_bytes()), Ok(Event::Elsewhere("team-b".to_owned())));
        assert!(matches!(Event::read(elsewhere.replace("team-b", "default").as_bytes()), Ok(Event::AliasSet { .. })));
        for (body, says) in [
            (String::new(), "must be JSON like"),
            ("{}".to_owned(), "missing field"),
            (BODY.replace("\"3\"", "3"), "data.version = 3: must be a whole number"),
            (BODY.replace(", \"version\": \"3\"", ""), "data.version is missing: it must be a whole number"),
            (
                BODY.replace(", \"version\": \"3\"", "").replace("\"search\"", "5"),
                "data.name = 5: must be a name without /, : and @, as text",
            ),
            (BODY.replace("\"alias\"", "\"other\""), "data.alias is missing: it must be a name"),
            (BODY.replace("\"3\"", "\"0\""), "data.version = \"0\""),
            (BODY.replace("search", "../x"), "data.name = \"../x\": must be a name"),
            (BODY.replace("champion", "a@b"), "data.alias = \"a@b\""),
        ] {
            assert!(Event::read(body.as_bytes()).is_err_and(|error| error.contains(says)), "{body}");
        }
    }

    #[test]
    fn a_secret_is_read_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let config = Mlflow {
            url: String::new(),
            secret_files: vec![path.clone()],
            max_age: Duration::from_secs(300),
            timeout: Duration::from_secs(300),
        };
        assert!(matches!(Webhook::open(&config), Err(WebhookError::File { .. })));
        std::fs::write(&path, "short").unwrap();
        let error = Webhook::open(&config).unwrap_err();
        assert!(error.key() == "mlflow.secret_file" && !error.to_string().contains("short"), "{error}");
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        let opened = Webhook::open(&config).unwrap();
        assert_eq!(format!("{opened:?}"), "Webhook(1 secrets, 300s)");
        assert!(opened.verify(&headers("a", "1795963800", &sign(SECRET, "a", "1795963800", b"x")), b"x", NOW_MS).is_ok());
    }
}
