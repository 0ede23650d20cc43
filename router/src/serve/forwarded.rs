//! What proxies before this router say about a client: taken from those of `listen.trusted_proxies`, dropped from everybody else.
//! Pure, but for the names in the config.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::Version;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::head::Fields;
use super::headers::strip_prefix;
use super::interim::Hearer;
use super::seen::{FORWARDED_PREFIX, Seen};
use super::watched::Signals;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a connection knows about its client, as header values that are made once.
pub(crate) struct ClientFields {
    forwarded_for: HeaderValue,
    /// `http` or `https`.
    proto: HeaderValue,
    /// What nearly all requests are sent with behind the client's own fields, as lines. Made for the first one: a connection has requests of one version, or
    /// of HTTP/1.0, which has none.
    lines: OnceCell<Bytes>,
    /// The client is a proxy whose word is taken.
    is_trusted: bool,
    /// Where interim responses go, unless a stream has a place of its own for them.
    pub(crate) hearer: Hearer,
}

impl ClientFields {
    pub(crate) fn new(address: IpAddr, is_tls: bool, trusted: &[IpNet], signals: Arc<Signals>) -> ClientFields {
        let proto = if is_tls { "https" } else { "http" };
        ClientFields {
            // The text of an address is always a header value.
            forwarded_for: HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
            proto: HeaderValue::from_static(proto),
            lines: OnceCell::new(),
            is_trusted: is_in(trusted, address),
            hearer: Hearer::Connection(signals),
        }
    }

    /// What goes behind the client's own fields, where those need no change: whole lines. `None` of HTTP/1.0.
    pub(crate) fn lines(&self, version: Version) -> Option<&Bytes> {
        let version = match version {
            Version::HTTP_11 => "1.1",
            Version::HTTP_2 => "2",
            _ => return None,
        };
        Some(self.lines.get_or_init(|| self.lines_of(version)))
    }

    #[cold]
    fn lines_of(&self, version: &str) -> Bytes {
        let [address, proto] = [&self.forwarded_for, &self.proto].map(|value| value.to_str().unwrap_or_default());
        let parts = ["x-forwarded-for: ", address, "\r\nx-forwarded-proto: ", proto, "\r\nvia: ", version, " switchback\r\n"];
        // As long as it is, and not a byte more.
        Bytes::from(parts.concat().into_bytes().into_boxed_slice())
    }

    /// Says whom a backend is answering. What the client itself says stays where it is trusted, and is added to.
    pub(crate) fn say(&self, headers: &mut HeaderMap, seen: Seen) {
        let is_said_already = seen.has_forwarded || seen.has_x_forwarded;
        if is_said_already && self.is_trusted {
            return self.add_to(headers, seen);
        }
        if is_said_already {
            headers.remove(FORWARDED);
            strip_prefix(headers, FORWARDED_PREFIX);
        }
        headers.insert(X_FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, self.proto.clone());
    }

    /// One line, whatever came: the address of whom we are talking to is the last.
    fn add_to(&self, headers: &mut HeaderMap, seen: Seen) {
        if let Some(chain) = appended(headers, &X_FORWARDED_FOR, self.forwarded_for.as_bytes()) {
            headers.insert(X_FORWARDED_FOR, chain);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| self.proto.clone());
        // What comes after a quote that is not closed would be within it, and no element of its own.
        if seen.has_forwarded && headers.get_all(FORWARDED).iter().any(has_open_quote) {
            headers.remove(FORWARDED);
        } else if seen.has_forwarded
            && let Some(chain) = appended(headers, &FORWARDED, &self.element())
        {
            headers.insert(FORWARDED, chain);
        }
    }

    /// This hop's element of `Forwarded` (RFC 7239): an IPv6 address stands in brackets and quotes.
    fn element(&self) -> Vec<u8> {
        let address = self.forwarded_for.as_bytes();
        let (open, close) = if address.contains(&b':') { (&b"\"["[..], &b"]\""[..]) } else { (&b""[..], &b""[..]) };
        [b"for=", open, address, close, b";proto=", self.proto.as_bytes()].concat()
    }

    /// The client's address: the right-most one of `X-Forwarded-For` that is no trusted proxy, where the peer is one; else the peer's.
    pub(crate) fn client(&self, peer: IpAddr, fields: &Fields, seen: Seen, trusted: &[IpNet]) -> IpAddr {
        if seen.has_x_forwarded && self.is_trusted { rightmost_untrusted(peer, fields, trusted) } else { peer }
    }
}

/// Whether a quoted string in it has no end.
fn has_open_quote(line: &HeaderValue) -> bool {
    let mut bytes = line.as_bytes().iter();
    let mut is_open = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_open = !is_open,
            b'\\' if is_open => drop(bytes.next()),
            _ => {}
        }
    }
    is_open
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// All lines of this field as one list, and `last` at its end.
fn appended(headers: &HeaderMap, name: &HeaderName, last: &[u8]) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for line in headers.get_all(name).iter().filter(|line| !line.as_bytes().trim_ascii().is_empty()) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last);
    HeaderValue::from_bytes(&list).ok()
}

/// From the peer outwards, as long as each hop is trusted. What is no address ends the walk: whoever wrote it is the last one known.
fn rightmost_untrusted(peer: IpAddr, fields: &Fields, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    let mut lines: Vec<&[u8]> = fields.all("x-forwarded-for").collect();
    lines.reverse();
    for element in lines.into_iter().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let Some(address) = address_of(element) else { break };
        client = address;
        if !is_in(trusted, address) {
            break;
        }
    }
    client
}

/// An address, perhaps with a port, perhaps in brackets.
fn address_of(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec()
    }

    fn fields(address: &str) -> ClientFields {
        ClientFields::new(address.parse().unwrap(), false, &networks(), Arc::default())
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn said(peer: &str, lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = headers(lines);
        let seen = Seen::of(&headers);
        fields(peer).say(&mut headers, seen);
        headers
    }

    const LINES: [(&str, &str); 5] = [
        ("x-forwarded-for", "203.0.113.9, 10.1.1.1"),
        ("x-forwarded-for", "10.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "search.example"),
        ("forwarded", "for=203.0.113.9;proto=https"),
    ];

    #[test]
    fn a_trusted_proxys_word_is_added_to() {
        let said = said("10.0.0.7", &LINES);
        assert_eq!(said["x-forwarded-for"], "203.0.113.9, 10.1.1.1, 10.2.2.2, 10.0.0.7");
        assert_eq!(said.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(
            (&said["x-forwarded-proto"], &said["x-forwarded-host"]),
            (&"https".parse().unwrap(), &"search.example".parse().unwrap())
        );
        assert_eq!(said["forwarded"], "for=203.0.113.9;proto=https, for=10.0.0.7;proto=http");
    }

    #[test]
    fn a_quote_without_an_end_does_not_swallow_what_comes_after_it() {
        for open in ["for=\"_bad", "for=a, for=\"b\\\"", "for=\""] {
            assert!(!said("10.0.0.7", &[("forwarded", open)]).contains_key("forwarded"), "{open}");
        }
        for closed in ["for=\"_good\"", "for=\"a\\\"b\"", "for=_x"] {
            assert_eq!(said("10.0.0.7", &[("forwarded", closed)])["forwarded"], format!("{closed}, for=10.0.0.7;proto=http"), "{closed}");
        }
    }

    #[test]
    fn an_ipv6_hop_is_quoted_in_forwarded() {
        let said = said("fd00::7", &[("forwarded", "for=_hidden")]);
        assert_eq!(said["forwarded"], "for=_hidden, for=\"[fd00::7]\";proto=http");
        assert_eq!((&said["x-forwarded-for"], &said["x-forwarded-proto"]), (&"fd00::7".parse().unwrap(), &"http".parse().unwrap()));
    }

    #[test]
    fn anybody_elses_word_is_dropped() {
        let said = said("192.0.2.1", &LINES);
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!((&said["x-forwarded-for"], &said["x-forwarded-proto"]), (&"192.0.2.1".parse().unwrap(), &"http".parse().unwrap()));
    }

    #[test]
    fn the_client_is_the_rightmost_one_that_is_not_trusted() {
        let client = |peer: &str, chain: &'static str| {
            let headers = headers(&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", chain)]);
            let seen = Seen::of(&headers);
            fields(peer).client(peer.parse().unwrap(), &headers.into(), seen, &networks()).to_string()
        };
        assert_eq!(client("10.0.0.7", "6.6.6.6, 203.0.113.9, 10.1.1.1"), "203.0.113.9");
        assert_eq!(client("10.0.0.7", "203.0.113.9:4711,10.1.1.1"), "203.0.113.9");
        assert_eq!(client("10.0.0.7", "[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(client("10.0.0.7", "::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(client("10.0.0.7", "10.1.1.1, fd00::1"), "198.51.100.1", "the other line goes on");
        assert_eq!(client("10.0.0.7", "203.0.113.9, unknown, 10.1.1.1"), "10.1.1.1", "what is no address ends the walk");
        assert_eq!(client("192.0.2.1", "203.0.113.9"), "192.0.2.1", "nobody believes a stranger");
    }
}
