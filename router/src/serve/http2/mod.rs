//! HTTP/2: the router's own of clients ([`server`]), and on the `h2` crate itself towards backends.
//!
//! hyper speaks it too, but keeps to itself what a proxy has to pass on: interim responses, why a stream was reset, whether a peer takes
//! WebSockets (RFC 8441), and whether a body that ends has all come or was cancelled. `docs/decisions/http2-without-hyper.md` has the whole story, and
//! `docs/decisions/http2.md` that of clients.
//!
//! ```text
//! client -- Connection -> stream -> answer -> Sender -- backend
//!              (server)      (hints)       (client)
//! ```

mod body;
mod client;
mod hints;
mod hpack;
mod pings;
mod send;
mod server;
mod tunnel;

pub(crate) use body::Http2Body;
pub(crate) use client::{SendError, Sender, was_refused};
pub(crate) use hints::Hints;
pub(crate) use server::{Asked, ClientTunnel, Connection, StreamBody, StreamBroke, StreamSide};
pub(crate) use tunnel::StreamIo;

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};

/// What a stream may send us before we have taken it: a client's upload, or a backend's answer.
const STREAM_WINDOW: u32 = 1 << 20;
/// Who does not answer a ping within this is gone.
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// DATA frames are no larger.
const FRAME_BYTES: u32 = 16 << 10;

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
