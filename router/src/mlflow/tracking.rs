//! An MLflow server, asked over HTTP: small answers whole, files into files, all of it within limits. No redirect is followed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Response};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answers::Error as Said;
use super::error::MlflowError;
use crate::config::mlflow_url;
use crate::registry::{Progress, chain};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one answer, and for a pause in a file; as MLflow's own clients have it.
const TIMEOUT: Duration = Duration::from_secs(120);
/// For a whole file.
const FILE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The largest answer that is no file, in bytes: a run with a thousand parameters of 6,000 characters each.
const ANSWER_BYTES: usize = 16 << 20;
/// Of what a server says about an error.
const ERROR_BYTES: usize = 16 << 10;
/// So often is a server asked that is busy or cannot be reached.
const TRIES: u32 = 3;
/// Before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(250);
const URL_RULE: &str = "must be a URL like http://mlflow.example.org:5000: http or https, a host, perhaps a path, and no user, ? or #";
const AGENT: &str = concat!("switchback/", env!("CARGO_PKG_VERSION"));

/// Who we are to an MLflow server, and whom we believe to be it.
#[derive(Clone, Default)]
pub struct Credentials {
    /// A name and a password, which go before a token.
    pub login: Option<(String, String)>,
    /// A bearer token.
    pub token: Option<String>,
    /// Authorities that may vouch for the server beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// A certificate and its key that are shown to the server, in one PEM.
    pub client_cert: Option<PathBuf>,
    /// For one answer, and for a pause in a file. `None`: two minutes.
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for Credentials {
    /// Says nothing of the secrets.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials(login: {}, token: {})", self.login.is_some(), self.token.is_some())
    }
}

impl Credentials {
    /// What MLflow's own clients take from the environment; `variable` looks one up.
    ///
    /// # Errors
    /// [`MlflowError::Usage`] for what makes no sense, and for ways to get in that are not known here.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Credentials, MlflowError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let usage = |what: &str, why: &str| Err(MlflowError::Usage { what: what.to_owned(), why: why.to_owned() });
        if get("MLFLOW_TRACKING_INSECURE_TLS").is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1")) {
            let why =
                "is not obeyed: whoever answers could hand out any model; name the server's authority in MLFLOW_TRACKING_SERVER_CERT_PATH";
            return usage("MLFLOW_TRACKING_INSECURE_TLS", why);
        }
        for name in ["MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4"] {
            if get(name).is_some_and(|value| !value.eq_ignore_ascii_case("false")) {
                return usage(
                    name,
                    "is not known here: use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
                );
            }
        }
        let seconds =
            get("MLFLOW_HTTP_REQUEST_TIMEOUT").map(|text| text.parse::<u64>().ok().filter(|seconds| (1..=3_600).contains(seconds)));
        if seconds == Some(None) {
            return usage("MLFLOW_HTTP_REQUEST_TIMEOUT", "must be a whole number of seconds, from 1 to 3600");
        }
        let login = match (get("MLFLOW_TRACKING_USERNAME"), get("MLFLOW_TRACKING_PASSWORD")) {
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) => None,
            (Some(_), None) => return usage("MLFLOW_TRACKING_USERNAME", "needs MLFLOW_TRACKING_PASSWORD beside it"),
            (None, Some(_)) => return usage("MLFLOW_TRACKING_PASSWORD", "needs MLFLOW_TRACKING_USERNAME beside it"),
        };
        Ok(Credentials {
            login,
            token: get("MLFLOW_TRACKING_TOKEN"),
            ca_file: get("MLFLOW_TRACKING_SERVER_CERT_PATH").map(PathBuf::from),
            client_cert: get("MLFLOW_TRACKING_CLIENT_CERT_PATH").map(PathBuf::from),
            timeout: seconds.flatten().map(Duration::from_secs),
        })
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, MlflowError> {
        let (what, text) = match (&self.login, &self.token) {
            (Some((name, password)), _) => ("MLFLOW_TRACKING_PASSWORD", format!("Basic {}", BASE64.encode(format!("{name}:{password}")))),
            (None, Some(token)) => ("MLFLOW_TRACKING_TOKEN", format!("Bearer {token}")),
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| MlflowError::Usage { what: what.to_owned(), why: "must be printable ASCII on one line".to_owned() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// An MLflow server.
#[derive(Debug, Clone)]
pub struct Tracking {
    client: Client,
    /// Without a slash at its end.
    url: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

impl Tracking {
    /// Gets ready to ask one; nothing is asked yet.
    ///
    /// # Errors
    /// [`MlflowError::Usage`].
    pub fn open(url: &str, credentials: &Credentials) -> Result<Tracking, MlflowError> {
        let usage = |what: &str, why: String| MlflowError::Usage { what: what.to_owned(), why };
        // Whoever wrote a password into it does not want to read it here.
        let shown = if url.contains('@') { "the MLflow URL".to_owned() } else { format!("the MLflow URL {url:?}") };
        let url = mlflow_url(url).ok_or_else(|| usage(&shown, URL_RULE.to_owned()))?;
        // Nobody else may have said which one TLS takes.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = credentials.timeout.unwrap_or(TIMEOUT);
        let mut builder =
            Client::builder().user_agent(AGENT).redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT).read_timeout(timeout);
        if let Some(path) = &credentials.ca_file {
            let wrong = |why: String| usage(&format!("MLFLOW_TRACKING_SERVER_CERT_PATH {}", path.display()), why);
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let found = Certificate::from_pem_bundle(&text).map_err(|error| wrong(error.to_string()))?;
            if found.is_empty() {
                return Err(wrong("it has no certificate".to_owned()));
            }
            builder = builder.tls_certs_merge(found);
        }
        if let Some(path) = &credentials.client_cert {
            let wrong = |why: String| usage(&format!("MLFLOW_TRACKING_CLIENT_CERT_PATH {}", path.display()), why);
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            builder = builder.identity(Identity::from_pem(&text).map_err(|error| wrong(error.to_string()))?);
        }
        let client = builder.build().map_err(|error| usage("TLS", chain(&error)))?;
        Ok(Tracking { client, url, authorization: credentials.authorization()?, timeout })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An answer in JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, MlflowError> {
        let body = self.bytes(path, what, ANSWER_BYTES).await?;
        let is_page = body.trim_ascii_start().first() == Some(&b'<');
        serde_json::from_slice(&body).map_err(|error| {
            let why = if is_page { "it is a page".to_owned() } else { error.to_string() };
            self.away(format!("it answers for {what} with what makes no sense: {why}; is it an MLflow server?"))
        })
    }

    /// An answer of so many bytes at most, whole.
    pub(super) async fn bytes(&self, path: &str, what: &str, most: usize) -> Result<Bytes, MlflowError> {
        let read = async {
            let mut response = self.ask(path, what).await?;
            let mut body = BytesMut::new();
            while let Some(piece) =
                response.chunk().await.map_err(|error| if error.is_timeout() { self.late() } else { self.away(chain(&error)) })?
            {
                if piece.len() > most - body.len() {
                    return Err(MlflowError::Unusable { what: what.to_owned(), why: format!("more than {most} bytes") });
                }
                body.extend_from_slice(&piece);
            }
            Ok(body.freeze())
        };
        timeout(self.timeout, read).await.map_err(|_| self.late())?
    }

    /// A file of so many bytes at most, into a new file.
    pub(super) async fn download(
        &self,
        path: &str,
        what: &str,
        (to, most): (&Path, u64),
        progress: &dyn Fn(Progress),
    ) -> Result<(), MlflowError> {
        let file_error = |source| MlflowError::File { path: to.to_owned(), source };
        let copy = async {
            let mut response = self.ask(path, what).await?;
            let of = response.content_length();
            let large = |bytes: u64| MlflowError::Unusable {
                what: what.to_owned(),
                why: format!("{bytes} bytes or more; {most} at most are allowed (registry.artefact_bytes)"),
            };
            if let Some(bytes) = of.filter(|bytes| *bytes > most) {
                return Err(large(bytes));
            }
            let mut file = std::fs::File::create_new(to).map_err(file_error)?;
            let mut done = 0_u64;
            while let Some(piece) = response.chunk().await.map_err(|error| self.away(format!("{what} broke off: {}", chain(&error))))? {
                done = done.saturating_add(piece.len() as u64);
                if done > most {
                    return Err(large(done));
                }
                file.write_all(&piece).map_err(file_error)?;
                progress(Progress { done, of: of.unwrap_or(done) });
            }
            file.flush().map_err(file_error)?;
            if of.is_some_and(|of| of != done) {
                return Err(self.away(format!("{what} broke off after {done} bytes")));
            }
            Ok(())
        };
        timeout(FILE_TIMEOUT, copy).await.map_err(|_| self.away(format!("{what} took more than an hour")))?
    }

    /// The head of a good answer.
    async fn ask(&self, path: &str, what: &str) -> Result<Response, MlflowError> {
        let mut tries = 1;
        loop {
            let error = match self.ask_once(path, what).await {
                Ok(response) => return Ok(response),
                Err((error, may_help)) if !may_help || tries == TRIES => return Err(error),
                Err((error, _)) => error,
            };
            tracing::debug!(%error, tries, "the MLflow server is asked again");
            tokio::time::sleep(PAUSE * tries).await;
            tries += 1;
        }
    }

    /// Beside the error, whether asking again may help.
    async fn ask_once(&self, path: &str, what: &str) -> Result<Response, (MlflowError, bool)> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = match timeout(self.timeout, request.send()).await {
            Ok(Ok(response)) => response,
            // What was asked is in the path, and the name of the server is told anyway.
            Ok(Err(error)) if !error.is_timeout() => return Err((self.away(chain(&error.without_url())), true)),
            Ok(Err(_)) | Err(_) => return Err((self.late(), false)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let to: String = to.chars().take(200).collect();
            return Err((self.away(format!("it redirects to {to}, which is not followed: name the server itself")), false));
        }
        let why = self.said(response).await;
        let (what, server) = (what.to_owned(), self.url.clone());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (MlflowError::Denied { server, why }, false),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                (self.away(format!("{what}: {why}")), true)
            }
            status if status.is_client_error() => (MlflowError::Refused { what, server, why }, false),
            _ => (self.away(format!("{what}: {why}")), false),
        })
    }

    /// Why not, in the server's words.
    async fn said(&self, mut response: Response) -> String {
        let status = response.status();
        let mut body = Vec::new();
        while let Ok(Ok(Some(piece))) = timeout(self.timeout, response.chunk()).await {
            body.extend_from_slice(&piece);
            if body.len() > ERROR_BYTES {
                break;
            }
        }
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        let words: String = said.message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        if words.is_empty() { status.to_string() } else { format!("{words} ({})", status.as_u16()) }
    }

    fn away(&self, why: String) -> MlflowError {
        MlflowError::Away { server: self.url.clone(), why }
    }

    fn late(&self) -> MlflowError {
        self.away(format!("no answer within {} s (MLFLOW_HTTP_REQUEST_TIMEOUT)", self.timeout.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(variables: &[(&str, &str)]) -> Result<Credentials, String> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Credentials::from_environment(found).map_err(|error| error.to_string())
    }

    #[test]
    fn credentials_are_those_that_mlflow_takes() {
        let authorization = |variables: &[(&str, &str)]| {
            let value = credentials(variables).unwrap().authorization().unwrap();
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(authorization(&[]), None);
        assert_eq!(authorization(&[("MLFLOW_TRACKING_TOKEN", "abc")]).as_deref(), Some("Bearer abc"));
        let both = [("MLFLOW_TRACKING_TOKEN", "abc"), ("MLFLOW_TRACKING_USERNAME", "ann"), ("MLFLOW_TRACKING_PASSWORD", "pass")];
        assert_eq!(authorization(&both).as_deref(), Some("Basic YW5uOnBhc3M="));
        assert_eq!(format!("{:?}", credentials(&both).unwrap()), "Credentials(login: true, token: true)");
        for (variables, says) in [
            ([("MLFLOW_TRACKING_INSECURE_TLS", "true")], "is not obeyed"),
            ([("MLFLOW_TRACKING_AWS_SIGV4", "true")], "is not known here"),
            ([("MLFLOW_TRACKING_USERNAME", "ann")], "needs MLFLOW_TRACKING_PASSWORD"),
            ([("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")], "whole number of seconds"),
        ] {
            assert!(credentials(&variables).is_err_and(|error| error.contains(says)), "{variables:?}");
        }
        let wrong = Credentials { token: Some("a\nb".to_owned()), ..Credentials::default() };
        assert!(wrong.authorization().is_err_and(|error| !error.to_string().contains("a\nb")));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let said = Tracking::open("http://ann:s3cret@h", &Credentials::default()).unwrap_err().to_string();
        assert!(said.contains("no user") && !said.contains("s3cret"), "{said}");
    }
}
