//! HTTP/2, the router's own: of clients ([`server`]) and towards backends ([`client`]).
//!
//! hyper keeps to itself what a proxy has to pass on (`docs/decisions/http2-without-hyper.md`), and the h2 crate costs twice as much as all the rest of a query
//! (`docs/decisions/http2.md`).
//!
//! ```text
//! client -- Connection -> stream -> answer -> Sender -- backend
//!              (server)      (hints)       (client)
//! both: bytes -> frame(s) -> hpack -> streams (comes, goes) -> reads, sending, tunnel
//! ```

mod alive;
mod client;
mod comes;
mod frame;
mod frames;
mod goes;
mod hints;
mod hpack;
mod reads;
mod sending;
mod server;
mod streams;
mod trailers;
mod tunnel;

#[cfg(test)]
mod testing;

pub(crate) use client::{Http2Body, SendError, Sender};
pub(crate) use hints::Hints;
pub(crate) use server::{Asked, Connection, StreamBody, StreamSide};
pub(crate) use streams::StreamBroke;
pub(crate) use tunnel::StreamIo;

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};

/// What a stream may send us before we have taken it: a client's upload, or a backend's answer.
const STREAM_WINDOW: u32 = 1 << 20;
/// Who does not answer a ping within this is gone.
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// What a client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for what comes next, at least.
const ROOM: usize = 32 << 10;
/// Before anybody said anything, both may send so much on all streams, and on each.
const FIRST_WINDOW: u32 = 65_535;

/// Takes out what HTTP/2 has no place for (RFC 9113, 8.2.2). Of fields that passed, only the router's own are left to be taken.
fn strip_connection_fields(headers: &mut HeaderMap) {
    const NONE_OF_HTTP2: [HeaderName; 5] =
        [CONNECTION, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    // Mostly there is none: to see that costs less than to look each of them up.
    if !headers.keys().any(|name| *name == TE || NONE_OF_HTTP2.contains(name)) {
        return;
    }
    for name in NONE_OF_HTTP2 {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
}
