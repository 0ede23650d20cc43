//! A body that comes in: of a client's request or of a backend's response, in HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http1::{BackendBody, BackendBroke, ClientBody, ClientBroke, PassedLines};
use super::http2::{Http2Body, StreamBody, StreamBroke, StreamIo};

/// The body.
pub(crate) enum Incoming {
    /// A client's, in HTTP/1.
    Client(ClientBody),
    /// hyper's: of a backend that was asked to upgrade.
    Http1(hyper::body::Incoming),
    /// A backend's.
    Backend(BackendBody),
    /// A client's, on a stream of HTTP/2.
    Stream(StreamBody),
    /// A backend's, on a stream of HTTP/2.
    Http2(Http2Body),
    /// There is none.
    None,
    /// There is none, and the stream has become a tunnel.
    Tunnel(Box<StreamIo>),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenOff {
    /// As our own HTTP/1.1 has it, of a client.
    #[error(transparent)]
    Client(#[from] ClientBroke),
    /// As hyper has it.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// As our own HTTP/1.1 has it, of a backend.
    #[error(transparent)]
    Backend(#[from] BackendBroke),
    /// As our own HTTP/2 has it, of a client.
    #[error(transparent)]
    Stream(#[from] StreamBroke),
    /// As our own HTTP/2 has it, of a backend.
    #[error(transparent)]
    Http2(StreamBroke),
}

impl BrokenOff {
    /// Whether the bytes were there and made no sense, rather than missing.
    pub(crate) fn is_malformed(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput};
        match self {
            BrokenOff::Http1(error) => {
                let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
                cause.is_some_and(|cause| matches!(cause.kind(), InvalidInput | InvalidData))
            }
            BrokenOff::Client(error) => *error == ClientBroke::Malformed,
            BrokenOff::Backend(error) => *error == BackendBroke::Malformed,
            BrokenOff::Stream(error) | BrokenOff::Http2(error) => *error == StreamBroke::Malformed,
        }
    }

    /// The reason that the other side gave for it.
    pub(crate) fn reason(&self) -> Option<h2::Reason> {
        match self {
            BrokenOff::Http2(StreamBroke::Reset(reason)) => Some(*reason),
            _ => None,
        }
    }
}

impl Incoming {
    /// The fields of its head, where they pass as they came.
    pub(crate) fn take_lines(&mut self) -> Option<Box<PassedLines>> {
        match self {
            Incoming::Backend(body) => body.take_lines(),
            Incoming::Http2(body) => body.take_lines(),
            _ => None,
        }
    }

    /// All of it, where it came with its head.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match self {
            Incoming::Backend(body) => body.take_whole(),
            Incoming::Http2(body) => body.take_whole(),
            _ => None,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Incoming::Client(body) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::Client),
            Incoming::Http1(body) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::Http1),
            Incoming::Backend(body) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::Backend),
            Incoming::Stream(body) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::Stream),
            Incoming::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::Http2),
            Incoming::None | Incoming::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::Client(body) => body.is_end_stream(),
            Incoming::Http1(body) => body.is_end_stream(),
            Incoming::Backend(body) => body.is_end_stream(),
            Incoming::Stream(body) => body.is_end_stream(),
            Incoming::Http2(body) => body.is_end_stream(),
            Incoming::None | Incoming::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::Client(body) => body.size_hint(),
            Incoming::Http1(body) => body.size_hint(),
            Incoming::Backend(body) => body.size_hint(),
            Incoming::Stream(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
            Incoming::None | Incoming::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
