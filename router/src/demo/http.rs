//! A small HTTP/1.1 client: kept-alive connections for the users, single requests for the admin API.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer is waited for longer: a user is gone by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What went wrong on the way to an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{address} cannot be connected to")]
    Connect {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} broke the connection off")]
    Broken {
        address: SocketAddr,
        #[source]
        source: hyper::Error,
    },
    #[error("{address} did not answer within {} s", PATIENCE.as_secs())]
    Late { address: SocketAddr },
}

/// A kept-alive connection, made again when it was closed.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Client {
        Client { address, sender: None }
    }

    /// Sends once; nothing is tried again. `headers` are names and values.
    ///
    /// # Errors
    /// [`HttpError`]; the next call connects anew.
    pub(super) async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, HttpError> {
        let address = self.address;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
        let host = address.to_string();
        for (name, value) in [("host", host.as_str())].iter().chain(headers) {
            if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(*name), http::HeaderValue::try_from(*value)) {
                request.headers_mut().insert(name, value);
            }
        }
        timeout(PATIENCE, self.exchange(request)).await.unwrap_or(Err(HttpError::Late { address }))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let address = self.address;
        let broken = |source| HttpError::Broken { address, source };
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => connect(address).await?,
        };
        sender.ready().await.map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let stream = TcpStream::connect(address).await.map_err(|source| HttpError::Connect { address, source })?;
    // Without it the measured latency is that of a delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|source| HttpError::Broken { address, source })?;
    tokio::spawn(connection);
    Ok(sender)
}
