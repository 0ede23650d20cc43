//! A request's head as fields of HTTP/2 (RFC 9113, 8.2 and 8.3.1). Pure.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

use super::super::hpack::Encoder;
use crate::serve::head::Head;

/// Makes a capital letter a small one.
const LOWER_CASE: u8 = 0x20;

/// Where requests go.
pub(super) struct Address<'a> {
    pub(super) is_https: bool,
    /// For a request that names no host.
    pub(super) authority: &'a str,
}

/// Writes a head. `protocol`: of the tunnel that it asks for (RFC 8441, 4).
pub(super) fn write(encoder: &mut Encoder, out: &mut Vec<u8>, head: &Head, address: &Address<'_>, protocol: Option<&[u8]>) {
    encoder.method(if protocol.is_some() { Method::CONNECT.as_str() } else { head.method.as_str() }, out);
    encoder.scheme(address.is_https, out);
    let host = head.fields.get(&HOST).filter(|host| !host.is_empty());
    encoder.field(b":authority", host.unwrap_or(address.authority.as_bytes()), out);
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if path.starts_with(['/', '*']) {
        encoder.field(b":path", path.as_bytes(), out);
    } else {
        encoder.field(b":path", format!("/{path}").as_bytes(), out);
    }
    if let Some(protocol) = protocol {
        encoder.field(b":protocol", protocol, out);
    }
    let is_tunnel = protocol.is_some();
    match head.fields.lines() {
        Some(lines) => lines.each(|name, value| write_line(encoder, out, name, value, is_tunnel)),
        None => head
            .fields
            .as_map()
            .iter()
            .for_each(|(name, value)| write_line(encoder, out, name.as_str().as_bytes(), value.as_bytes(), is_tunnel)),
    }
}

/// A field, unless HTTP/2 has no place for it (8.2.2) or it is said already.
fn write_line(encoder: &mut Encoder, out: &mut Vec<u8>, name: &[u8], value: &[u8], is_tunnel: bool) {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    // Told apart by length and first letter: most names need no comparison of text at all.
    match (name.len(), name.first().map_or(0, |first| first | LOWER_CASE)) {
        (2, b't') if is(b"te") && !value.eq_ignore_ascii_case(b"trailers") => {}
        (4, b'h') if is(b"host") => {}
        (7, b'u') if is(b"upgrade") => {}
        (10, b'c') if is(b"connection") => {}
        (10, b'k') if is(b"keep-alive") => {}
        (16, b'p') if is(b"proxy-connection") => {}
        (17, b't') if is(b"transfer-encoding") => {}
        // A tunnel has no length, and the handshake of HTTP/1.1 has no part in it.
        (14, b'c') if is_tunnel && is(b"content-length") => {}
        (17, b's') if is_tunnel && is(b"sec-websocket-key") => {}
        // Secrets have no place in a table of fields (RFC 7541, 7.1.3).
        (6, b'c') if is(b"cookie") => encoder.field_once(name, value, out),
        (13, b'a') if is(b"authorization") => encoder.field_once(name, value, out),
        (19, b'p') if is(b"proxy-authorization") => encoder.field_once(name, value, out),
        _ => encoder.field(name, value, out),
    }
}

/// Trailers.
pub(super) fn write_map(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        write_line(encoder, out, name.as_str().as_bytes(), value.as_bytes(), false);
    }
}
