//! Upgrades: a request that asks for another protocol, and the bytes both ways once the backend has agreed (101).
//!
//! Bytes that a client sends after its request wait until then: they are never part of what a backend reads as HTTP.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Response, StatusCode, response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::attempt::Attempt;
use super::headers::prepare_response;
use super::http1::Upgraded;
use super::http2::StreamIo;
use super::incoming::Incoming;
use super::listener::Place;
use super::open::Spoken;
use super::seen::Seen;

/// What a client asks for, and its end of the tunnel.
pub(crate) struct Tunnel {
    protocol: HeaderValue,
    client: ClientEnd,
    /// What a backend of HTTP/1.1 has to answer: the client's, or one that was made for it.
    key: Option<HeaderValue>,
}

/// A client's end of a tunnel.
pub(crate) enum ClientEnd {
    /// Its connection of HTTP/1.1, which becomes one.
    Connection {
        /// When the response is sent.
        upgrade: oneshot::Receiver<Upgraded>,
        /// Held as long as the tunnel is.
        place: Rc<Place>,
    },
    /// A stream of HTTP/2 (RFC 8441), when the response is sent.
    Stream(oneshot::Receiver<StreamIo>),
}

/// A backend's end of a tunnel.
pub(crate) enum End {
    /// A connection of HTTP/1.1.
    Connection(OnUpgrade),
    /// A stream of HTTP/2.
    Stream(Box<StreamIo>),
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl Tunnel {
    /// What the request asks for, if that is one protocol of `allowed` (lower case).
    pub(crate) fn wanted(headers: &HeaderMap, allowed: &[String], client: impl FnOnce() -> Option<ClientEnd>) -> Option<Tunnel> {
        let mut protocols = headers.get_all(UPGRADE).iter();
        let protocol = protocols.next().filter(|_| protocols.next().is_none())?.clone();
        let is_allowed = allowed.iter().any(|allowed| protocol.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()));
        if !is_allowed || !names_upgrade(headers) {
            return None;
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
        Some(Tunnel { protocol, client: client()?, key })
    }

    /// Puts the wish back, which ends at a hop as a rule. A stream has no key, which a backend of HTTP/1.1 needs to see.
    pub(crate) fn ask(&mut self, headers: &mut HeaderMap) {
        agree_on(headers, self.protocol.clone());
        let is_stream = matches!(self.client, ClientEnd::Stream(_));
        if is_stream
            && self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
            && let Ok(key) = HeaderValue::from_str(&BASE64.encode(rand::random::<[u8; 16]>()))
        {
            headers.insert(SEC_WEBSOCKET_KEY, key.clone());
            self.key = Some(key);
        }
    }

    /// Whether the client would take this for something else than it is: a success that is no tunnel, or one that nobody agreed to, or
    /// that is for something else.
    pub(crate) fn is_not_answered_by(&self, response: &Response<Incoming>) -> bool {
        let is_stream = matches!(self.client, ClientEnd::Stream(_));
        match (response.status(), response.body()) {
            (StatusCode::SWITCHING_PROTOCOLS, _) if !self.is_named_by(response.headers()) => true,
            (StatusCode::SWITCHING_PROTOCOLS, Incoming::Tunnel(_)) => false,
            // A client of HTTP/1.1 looks at the key's answer for itself.
            (StatusCode::SWITCHING_PROTOCOLS, _) => {
                let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
                is_stream && self.key.as_ref().is_some_and(|key| accepted.map(HeaderValue::as_bytes) != Some(accept(key).as_bytes()))
            }
            (status, _) => is_stream && status.is_success(),
        }
    }

    /// Whether a 101 with these fields switches to what was asked for, and to nothing else (RFC 9110, 15.2.2). It has no body that it could say a length of.
    fn is_named_by(&self, headers: &HeaderMap) -> bool {
        let mut named = headers.get_all(UPGRADE).iter();
        let is_named = named.next().is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()));
        is_named && named.next().is_none() && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING)
    }

    /// Makes the backend's answer what the client is to have: in HTTP/1.1 a 101, and a 200 on a stream (RFC 8441, 5).
    pub(crate) fn agree(&self, head: &mut response::Parts, seen: Seen, backend: &End) {
        let protocol = head.headers.get(UPGRADE).cloned();
        prepare_response(&mut head.headers, seen);
        if matches!(self.client, ClientEnd::Stream(_)) {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            return;
        }
        if let Some(protocol) = protocol {
            agree_on(&mut head.headers, protocol);
        }
        if let (End::Stream(_), Some(key)) = (backend, &self.key)
            && let Ok(accept) = HeaderValue::from_str(&accept(key))
        {
            head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }

    /// Carries bytes both ways until both sides are done, or neither has sent anything for `idle`.
    pub(crate) async fn run(self, backend: End, attempt: Box<Attempt>, idle: Duration) {
        let _place = self.client.becomes_tunnel();
        let (Some(client), Some(backend)) = tokio::join!(self.client.opened(), backend.opened()) else {
            return attempt.aborted();
        };
        let moved = Rc::new(Cell::new(0));
        let mut client = Counted { io: client, reads: moved.clone() };
        let mut backend = Counted { io: backend, reads: moved.clone() };
        let mut copying = std::pin::pin!(tokio::io::copy_bidirectional(&mut client, &mut backend));
        loop {
            let before = moved.get();
            tokio::select! {
                _ = &mut copying => break,
                () = tokio::time::sleep(idle) => {
                    if moved.get() == before {
                        break;
                    }
                }
            }
        }
        attempt.completed();
    }
}

impl ClientEnd {
    /// A whole connection is HTTP no more; a stream's goes on.
    fn becomes_tunnel(&self) -> Option<Rc<Place>> {
        let ClientEnd::Connection { place, .. } = self else { return None };
        place.becomes(Spoken::Upgraded);
        Some(place.clone())
    }

    async fn opened(self) -> Option<Box<dyn Io>> {
        match self {
            ClientEnd::Connection { upgrade, .. } => Some(Box::new(upgrade.await.ok()?)),
            ClientEnd::Stream(stream) => Some(Box::new(stream.await.ok()?)),
        }
    }
}

impl End {
    async fn opened(self) -> Option<Box<dyn Io>> {
        match self {
            End::Connection(upgrade) => Some(Box::new(TokioIo::new(upgrade.await.ok()?))),
            End::Stream(stream) => Some(stream),
        }
    }
}

/// What a WebSocket's key is to be answered with (RFC 6455, 4.2.2).
fn accept(key: &HeaderValue) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    BASE64.encode(Sha1::new_with_prefix(key.as_bytes()).chain_update(GUID).finalize())
}

/// Says that the connection becomes another protocol's.
fn agree_on(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

/// Counts the reads that brought something.
struct Counted<I> {
    io: I,
    reads: Rc<Cell<u64>>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if result.is_ready() {
            self.reads.set(self.reads.get() + 1);
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_in_the_rfc() {
        // RFC 6455, 1.3.
        assert_eq!(accept(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_upgrade_counts_where_connection_names_it() {
        let headers = |connection: &'static str| HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static(connection))]);
        for named in ["upgrade", "keep-alive, Upgrade", " UPGRADE ,x"] {
            assert!(names_upgrade(&headers(named)), "{named}");
        }
        for unnamed in ["keep-alive", "upgraded", ""] {
            assert!(!names_upgrade(&headers(unnamed)), "{unnamed}");
        }
    }
}
