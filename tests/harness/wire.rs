//! A user's connection: HTTP/1.1 or HTTP/2, in the clear or over TLS, and one query over it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::exchange::Speaks;

/// Why a query has no answer.
pub(crate) enum Trouble {
    /// It was never sent, or the server says that it has not begun with it (RFC 9113, 8.7). Any client sends it again, whatever its method.
    NotBegun(String),
    /// Anything else. A client cannot know how far the server came.
    Failed(String),
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection that is up.
pub(crate) struct Wire {
    sender: Sender,
    /// The client's own port.
    pub(crate) port: u16,
    /// Queries that it was used for.
    pub(crate) used: u32,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(h2::client::SendRequest<Bytes>),
}

impl Wire {
    /// Connects; over TLS under the name `search.test`, and what is spoken must be what ALPN agreed on.
    pub(crate) async fn connect(target: SocketAddr, tls: Option<&Arc<ClientConfig>>, speaks: Speaks) -> Result<Wire, String> {
        let socket = TcpStream::connect(target).await.map_err(|error| format!("connect: {error}"))?;
        let _ = socket.set_nodelay(true);
        let port = socket.local_addr().map_or(0, |address| address.port());
        let sender = match tls {
            None => shake_hands(socket, speaks).await?,
            Some(config) => {
                let name = "search.test".try_into().map_err(|error| format!("{error}"))?;
                let connected = TlsConnector::from(config.clone()).connect(name, socket).await;
                let stream = connected.map_err(|error| format!("TLS: {error}"))?;
                let agreed = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Speaks::Http2 } else { Speaks::Http1 };
                if agreed != speaks {
                    return Err(format!("ALPN: {agreed:?} instead of {speaks:?}"));
                }
                shake_hands(stream, speaks).await?
            }
        };
        Ok(Wire { sender, port, used: 0 })
    }

    /// Whether nobody has closed it, as far as can be seen without asking.
    pub(crate) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(_) => true,
        }
    }

    /// The same connection for one more query at the same time. HTTP/1.1 has one at a time.
    pub(crate) fn shared(&self) -> Option<Wire> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Wire { sender: Sender::Http2(sender.clone()), port: self.port, used: self.used }),
        }
    }

    /// One query, to the end of its answer.
    pub(crate) async fn ask(&mut self, head: http::request::Builder, body: Bytes) -> Result<Answer, Trouble> {
        match &mut self.sender {
            Sender::Http1(sender) => over_h1(sender, head.body(Full::new(body)).unwrap()).await.map_err(Trouble::Failed),
            Sender::Http2(sender) => over_h2(sender.clone(), head.version(Version::HTTP_2).body(()).unwrap(), body).await,
        }
    }
}

async fn shake_hands(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, speaks: Speaks) -> Result<Sender, String> {
    match speaks {
        Speaks::Http1 => {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("handshake: {error}"))?;
            tokio::spawn(connection);
            Ok(Sender::Http1(sender))
        }
        Speaks::Http2 => {
            let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| format!("handshake: {error}"))?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        }
    }
}

async fn over_h1(sender: &mut http1::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    sender.ready().await.map_err(|error| format!("connection: {error}"))?;
    let response = sender.send_request(request).await.map_err(|error| format!("no answer: {error:?}"))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

async fn over_h2(sender: h2::client::SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Result<Answer, Trouble> {
    let unsent = |error: h2::Error| Trouble::NotBegun(format!("not sent: {error:?}"));
    let mut sender = sender.ready().await.map_err(unsent)?;
    let (response, mut upload) = sender.send_request(request, body.is_empty()).map_err(unsent)?;
    if !body.is_empty() {
        // What ends it ends the response too, which tells more.
        let _ = upload.send_data(body, true);
    }
    let (head, mut incoming) = response.await.map_err(|error| trouble(&error))?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data.map_err(|error| Trouble::Failed(format!("body: {error:?}")))?;
        let _ = incoming.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.into() })
}

/// A GOAWAY ends the streams above the last one that it names, and no others; and a stream may be refused.
fn trouble(error: &h2::Error) -> Trouble {
    let is_left_out = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let why = format!("no answer: {error:?}");
    if error.is_remote() && (is_left_out || is_refused) { Trouble::NotBegun(why) } else { Trouble::Failed(why) }
}
