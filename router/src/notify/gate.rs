//! A gate of a rollout: somebody who is asked by POST, and says yes with a status of 200 to 299. Everything else, silence too, is a no.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::post::Poster;
use crate::config::Gate;
use crate::tls::TlsError;

const ID: HeaderName = HeaderName::from_static("webhook-id");
/// Of a refusal, this much is shown.
const SHOWN_CHARS: usize = 200;

/// A gate that is ready to be asked: its authorities were read.
#[derive(Debug)]
pub struct OpenGate {
    /// As the config has it.
    pub gate: Gate,
    poster: Poster,
    login: Option<HeaderValue>,
}

impl OpenGate {
    /// `route` is whose it is.
    ///
    /// # Errors
    /// [`TlsError`], naming the key and the file.
    pub fn open(route: &str, gate: &Gate) -> Result<OpenGate, TlsError> {
        let key = format!("route.{route}.rollout.gate.{}.ca_file", gate.name);
        let poster = Poster::open(&key, gate.url.is_tls(), gate.ca_file.as_deref())?;
        let login = gate.url.login().and_then(|login| HeaderValue::try_from(format!("Basic {}", BASE64.encode(login))).ok());
        let login = login.map(|mut login| {
            login.set_sensitive(true);
            login
        });
        Ok(OpenGate { gate: gate.clone(), poster, login })
    }

    /// Asks once, with this id and body.
    ///
    /// # Errors
    /// Why it is a no, in a few words.
    pub async fn ask(&self, id: &str, body: &Value) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::try_from(id) {
            headers.insert(ID, id);
        }
        if let Some(login) = &self.login {
            headers.insert(AUTHORIZATION, login.clone());
        }
        let answer = self.poster.post(self.gate.url.uri(), headers, Bytes::from(body.to_string()), self.gate.timeout).await;
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => {
                let said: String =
                    String::from_utf8_lossy(&answer.body).chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect();
                Err(if said.is_empty() { answer.status.to_string() } else { format!("{}: {said}", answer.status) })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
