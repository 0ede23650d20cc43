//! Upgrades: a request that asks for another protocol, and the bytes both ways once the backend has agreed (101).
//!
//! Bytes that a client sends after its request wait until then: they are never part of what a backend reads as HTTP.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::attempt::Attempt;
use super::listener::Place;
use super::open::Spoken;
use super::watched::Signals;

/// What a client asks for, and its end of the tunnel.
pub(crate) struct Tunnel {
    protocol: HeaderValue,
    client: OnUpgrade,
    place: Rc<Place>,
    signals: Arc<Signals>,
}

impl Tunnel {
    /// What the request asks for, if that is one protocol of `allowed` (lower case); anything else passes as if it had not asked.
    pub(crate) fn wanted(head: &mut Parts, allowed: &[String], place: &Rc<Place>, signals: &Arc<Signals>) -> Option<Tunnel> {
        let mut protocols = head.headers.get_all(UPGRADE).iter();
        let protocol = protocols.next().filter(|_| protocols.next().is_none())?.clone();
        let is_allowed = allowed.iter().any(|allowed| protocol.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()));
        if !is_allowed || !names_upgrade(&head.headers) {
            return None;
        }
        Some(Tunnel { protocol, client: head.extensions.remove::<OnUpgrade>()?, place: place.clone(), signals: signals.clone() })
    }

    /// Puts the wish back, which ends at a hop as a rule.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        agree(headers, self.protocol.clone());
    }

    /// Carries bytes both ways until both sides are done, or neither has sent anything for `idle`.
    pub(crate) async fn run(self, backend: OnUpgrade, attempt: Box<Attempt>, idle: Duration) {
        self.signals.becomes_tunnel();
        self.place.becomes(Spoken::Upgraded);
        let (Ok(client), Ok(backend)) = tokio::join!(self.client, backend) else {
            return attempt.aborted();
        };
        let moved = Rc::new(Cell::new(0));
        let mut client = Counted { io: TokioIo::new(client), reads: moved.clone() };
        let mut backend = Counted { io: TokioIo::new(backend), reads: moved.clone() };
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
        drop(self.place);
    }
}

/// Says that the connection becomes another protocol's.
pub(crate) fn agree(headers: &mut HeaderMap, protocol: HeaderValue) {
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
