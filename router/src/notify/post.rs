//! One POST to somebody else's server: http or https, with a time limit, and little read of the answer.
//!
//! The client is hyper's own (hyper-util, with hyper-rustls for TLS): one new crate, where reqwest brings that one, itself and two more.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout_at};

use crate::tls::{self, Authorities, TlsError};

/// The most that is read of an answer.
pub const ANSWER_BYTES: usize = 64 << 10;
/// The most that an answer's head may have.
const HEAD_BYTES: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("switchback/", env!("CARGO_PKG_VERSION")));

/// Whom it trusts is settled; clones share that. Follows no redirects and keeps no connections: there is one request in a while, and one on a
/// connection that was closed in the meantime would be a try without an answer.
#[derive(Debug, Clone)]
pub struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Any status, redirects and errors too.
    pub status: StatusCode,
    /// `Retry-After`, as it stands.
    pub retry_after: Option<String>,
    /// At most 64 KiB of the body.
    pub body: Bytes,
    /// Whether that is all of it: else it was longer, broke off, or did not end in time.
    pub is_whole: bool,
}

/// There was no answer. Says nothing of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// Not within the time limit.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// No connection, no TLS, or none to the end of the answer's head.
    #[error("{0}")]
    Broken(String),
}

impl Poster {
    /// For URLs of this scheme: over TLS, the authorities of the file, or else of the system, may vouch for the host. `key` is the config key of that file.
    ///
    /// # Errors
    /// [`TlsError`], naming the key and the file.
    pub fn open(key: &str, is_tls: bool, ca_file: Option<&Path>) -> Result<Poster, TlsError> {
        let authorities = match ca_file {
            _ if !is_tls => Authorities::Nobody,
            Some(path) => Authorities::File(path),
            None => Authorities::System,
        };
        let config = tls::outgoing(key, authorities)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0).http1_max_buf_size(HEAD_BYTES);
        Ok(Poster { client: builder.build(connector) })
    }

    /// Sends a body, with these headers beside those of HTTP itself.
    ///
    /// # Errors
    /// [`PostError`] when no head of an answer came within the time limit. What comes after it is no error.
    pub async fn post(&self, url: &Uri, headers: HeaderMap, body: Bytes, timeout: Duration) -> Result<Answer, PostError> {
        let deadline = Instant::now() + timeout;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, AGENT);
        let answered = timeout_at(deadline, self.client.request(request)).await.map_err(|_| PostError::Late(timeout))?;
        let answer = answered.map_err(|error| PostError::Broken(with_causes(&error)))?;
        Ok(read(answer, deadline).await)
    }
}

async fn read(answer: Response<Incoming>, deadline: Instant) -> Answer {
    let (head, mut incoming) = answer.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = BytesMut::new();
    let is_whole = loop {
        let frame = match timeout_at(deadline, incoming.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break true,
            Ok(Some(Err(_))) | Err(_) => break false,
        };
        // Trailers are of no interest.
        let Ok(mut data) = frame.into_data() else { continue };
        let is_too_long = data.len() > ANSWER_BYTES - body.len();
        data.truncate(ANSWER_BYTES - body.len());
        body.extend_from_slice(&data);
        if is_too_long {
            break false;
        }
    };
    Answer { status: head.status, retry_after, body: body.freeze(), is_whole }
}

/// hyper's own words are few; the cause says what happened.
fn with_causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::notify::receiver::{Receiver, answer};

    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn post(receiver: &Receiver, timeout: Duration) -> Result<Answer, PostError> {
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let url = receiver.url("/hook?a=b").parse().unwrap();
        Poster::open("ca_file", false, None).unwrap().post(&url, headers, Bytes::from_static(b"{}"), timeout).await
    }

    #[tokio::test]
    async fn a_request_has_its_headers_and_its_body_and_the_answer_comes_back() {
        let receiver = Receiver::start(vec![answer("200 OK", "", "taken")]).await;
        let got = post(&receiver, TIMEOUT).await.unwrap();
        let expected = Answer { status: StatusCode::OK, retry_after: None, body: Bytes::from_static(b"taken"), is_whole: true };
        assert_eq!(got, expected);
        let request = receiver.requests().remove(0);
        assert!(request.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", request.head);
        for line in ["content-type: application/json", "content-length: 2", "user-agent: switchback/"] {
            assert!(request.head.contains(&format!("\r\n{line}")), "{line}: {}", request.head);
        }
        assert_eq!(request.body, "{}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let receiver = Receiver::start(vec![answer("302 Found", "location: /other\r\nretry-after: 7\r\n", "")]).await;
        let got = post(&receiver, TIMEOUT).await.unwrap();
        assert_eq!((got.status.as_u16(), got.retry_after.as_deref()), (302, Some("7")));
        assert_eq!(receiver.requests().len(), 1);
    }

    #[tokio::test]
    async fn of_a_long_answer_64_kib_are_read() {
        let receiver = Receiver::start(vec![answer("200 OK", "", &"x".repeat(ANSWER_BYTES + 1))]).await;
        let got = post(&receiver, TIMEOUT).await.unwrap();
        assert_eq!((got.status.as_u16(), got.body.len(), got.is_whole), (200, ANSWER_BYTES, false));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_one_with_half_a_body() {
        let receiver = Receiver::start(vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()]).await;
        let got = post(&receiver, TIMEOUT).await.unwrap();
        assert_eq!((got.status.as_u16(), &got.body[..], got.is_whole), (200, &b"half"[..], false));
    }

    #[tokio::test]
    async fn silence_ends_with_the_time_limit_and_a_closed_port_at_once() {
        let receiver = Receiver::silent().await;
        let limit = Duration::from_millis(30);
        assert_eq!(post(&receiver, limit).await, Err(PostError::Late(limit)));
        let nobody = Receiver::nobody().await;
        let error = post(&nobody, TIMEOUT).await.unwrap_err();
        assert!(matches!(&error, PostError::Broken(why) if why.contains("refused")), "{error}");
        assert!(!error.to_string().contains("hook"), "{error}");
    }

    /// A server with a certificate of its own for 127.0.0.1, and the file that vouches for it.
    async fn tls_receiver(folder: &Path) -> (Uri, PathBuf) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"{}") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
                stream.shutdown().await.ok();
            }
        });
        (url, ca_file)
    }

    #[tokio::test]
    async fn over_tls_only_who_is_vouched_for_gets_anything() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (url, ca_file) = tls_receiver(folder.path()).await;
        let (_, other_file) = tls_receiver(other.path()).await;
        let post = async |ca_file: &Path| {
            let poster = Poster::open("ca_file", true, Some(ca_file)).unwrap();
            poster.post(&url, HeaderMap::new(), Bytes::from_static(b"{}"), TIMEOUT).await
        };
        assert!(matches!(post(&other_file).await, Err(PostError::Broken(why)) if why.contains("certificate")));
        assert_eq!(post(&ca_file).await.unwrap().status, StatusCode::NO_CONTENT);
    }
}
