//! One look over a head's fields: what is there of those that decide framing, or that end at a hop.
//!
//! Most heads have hardly any, so that asking the map for each of a dozen names costs more than reading the head did. Pure.

use http::header::HeaderMap;

use super::signals;

/// The prefix of the router's own fields, which nobody else may set.
pub(crate) const OWN_PREFIX: &str = "x-switchback-";

/// The prefix of what proxies say about a client, and a client could say about itself.
pub(crate) const FORWARDED_PREFIX: &str = "x-forwarded-";

/// No shorter name has one of the prefixes, and something behind it.
const SHORTEST_PREFIX: usize = signals::PREFIX.len();

/// Makes a capital letter a small one.
const LOWER_CASE: u8 = 0x20;

/// What one look over a head's fields found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many; 255 for more.
    pub(crate) hosts: u8,
    /// How many; 255 for more.
    pub(crate) content_lengths: u8,
    /// A `Content-Length` is a list.
    pub(crate) has_length_list: bool,
    pub(crate) has_transfer_encoding: bool,
    /// It says something else than `chunked`, once.
    pub(crate) has_odd_coding: bool,
    /// A `Host` has characters that no host and port have.
    pub(crate) has_odd_host: bool,
    /// A `Connection` that names more than what is for this hop; where lines are kept as they came, else any.
    pub(crate) has_connection: bool,
    pub(crate) has_date: bool,
    /// Of `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding` and `Upgrade`, and a `TE` that wants more than trailers.
    pub(crate) has_hop_by_hop: bool,
    pub(crate) has_upgrade: bool,
    /// A `TE` asks for trailers.
    pub(crate) takes_trailers: bool,
    pub(crate) has_forwarded: bool,
    pub(crate) has_x_forwarded: bool,
    pub(crate) has_own: bool,
    /// A backend says something of its response's quality.
    pub(crate) has_signals: bool,
}

impl Seen {
    pub(crate) fn of(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for (name, value) in headers {
            seen.add(name.as_str().as_bytes(), value.as_bytes());
        }
        seen
    }

    /// Of a request's head: nothing in it ends here, and it has one host.
    pub(crate) fn passes_as_it_is(&self) -> bool {
        let ends_here = self.has_connection || self.has_hop_by_hop || self.has_own;
        self.hosts == 1 && !(ends_here || self.has_forwarded || self.has_x_forwarded)
    }

    /// Whether the length of a body could be read in two ways: said twice, as a list, beside a transfer coding, or by a coding other than
    /// `chunked`.
    pub(crate) fn has_ambiguous_length(&self) -> bool {
        let is_said_twice = self.content_lengths > 1 || (self.has_transfer_encoding && self.content_lengths > 0);
        is_said_twice || self.has_length_list || self.has_odd_coding
    }

    /// Told apart by length and first letter: most names need no comparison of text at all. True of a `Connection`.
    #[inline]
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let Some(first) = name.first() else { return false };
        match (name.len(), first | LOWER_CASE) {
            (2, b't') if is("te") => {
                self.has_hop_by_hop |= !is_trailers(value);
                self.takes_trailers |= names_trailers(value);
            }
            (4, b'd') if is("date") => self.has_date = true,
            (4, b'h') if is("host") => {
                self.hosts = self.hosts.saturating_add(1);
                self.has_odd_host |= !is_host(value);
            }
            (7, b'u') if is("upgrade") => {
                self.has_upgrade = true;
                self.has_hop_by_hop = true;
            }
            (9, b'f') if is("forwarded") => self.has_forwarded = true,
            (10, b'c') if is("connection") => {
                self.has_connection = true;
                return true;
            }
            (10, b'k') if is("keep-alive") => self.has_hop_by_hop = true,
            (14, b'c') if is("content-length") => {
                self.content_lengths = self.content_lengths.saturating_add(1);
                self.has_length_list |= value.contains(&b',');
            }
            (16, b'p') if is("proxy-connection") => self.has_hop_by_hop = true,
            (17, b't') if is("transfer-encoding") => {
                self.has_odd_coding |= self.has_transfer_encoding || !is_chunked(value);
                self.has_transfer_encoding = true;
                self.has_hop_by_hop = true;
            }
            (length, b'x') if length > SHORTEST_PREFIX => self.add_prefixed(name),
            _ => {}
        }
        false
    }

    fn add_prefixed(&mut self, name: &[u8]) {
        let has = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
        self.has_x_forwarded |= name.len() > FORWARDED_PREFIX.len() && has(FORWARDED_PREFIX);
        self.has_signals |= has(signals::PREFIX);
        self.has_own |= name.len() > OWN_PREFIX.len() && has(OWN_PREFIX);
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Whether it is `host`, `host:port` or `[address]:port` (RFC 3986, 3.2). User information, blanks and paths are not.
pub(crate) fn is_host(text: &[u8]) -> bool {
    // Nearly every query has a name or an IPv4 address, with or without a port: one look at each byte.
    let end = text.iter().position(|byte| HOST_BYTES.get(usize::from(*byte)) != Some(&PLAIN));
    match end.map(|end| text.split_at(end)) {
        None => !text.is_empty(),
        Some(([_, ..], [b':', port @ ..])) => is_port(port),
        _ => is_host_in_parts(text),
    }
}

/// Nothing, or a number that is a port.
fn is_port(text: &[u8]) -> bool {
    // Of five digits, the order of the texts is that of the numbers.
    text.iter().all(u8::is_ascii_digit) && (text.len() < 5 || (text.len() == 5 && text <= b"65535".as_slice()))
}

/// Where there are brackets or percent signs in it.
#[cold]
fn is_host_in_parts(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| *byte == b':') {
        Some(colon) if text.last() != Some(&b']') => text.split_at(colon),
        _ => (text, &b""[..]),
    };
    !host.is_empty() && is_port(port.strip_prefix(b":").unwrap_or_default()) && is_odd_host(host)
}

/// An IPv6 address in brackets, or a name with escaped characters.
fn is_odd_host(host: &[u8]) -> bool {
    if let Some(address) = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
        return std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let mut parts = host.split(|byte| *byte == b'%');
    let is_plain = |part: &[u8]| part.iter().all(|byte| HOST_BYTES.get(usize::from(*byte)) == Some(&PLAIN));
    let is_escaped = |part: &[u8]| part.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    parts.next().is_some_and(is_plain) && parts.all(|part| is_plain(part) && is_escaped(part))
}

/// A letter, a digit, or what stands between them.
const PLAIN: u8 = 1;
/// What stands in certain places only, or nowhere.
const OTHER: u8 = 0;

/// Which bytes a host and port can have: looked up, since every query has one.
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler")]
static HOST_BYTES: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric() || matches!(character, b'.' | b'-' | b'_' | b'~') {
            table[byte] = PLAIN;
        }
        byte += 1;
    }
    table
};

/// Whether a `TE` asks for trailers alone, which pass.
pub(crate) fn is_trailers(te: &[u8]) -> bool {
    te.eq_ignore_ascii_case(b"trailers")
}

/// Whether a `TE` asks for trailers, perhaps among others.
fn names_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn seen(fields: &[(&'static str, &'static str)]) -> Seen {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Seen::of(&headers)
    }

    #[test]
    fn ordinary_fields_are_none_of_these() {
        assert_eq!(seen(&[("accept", "*/*"), ("x-user-id", "u1"), ("x-switchback", "1")]), Seen::default());
        assert_eq!(seen(&[("te", "trailers")]), Seen { takes_trailers: true, ..Seen::default() });
    }

    #[test]
    fn each_field_counts_as_often_as_it_stands_there() {
        let twice = seen(&[("host", "a"), ("content-length", "1"), ("host", "b"), ("content-length", "2, 2")]);
        assert_eq!((twice.hosts, twice.content_lengths, twice.has_length_list), (2, 2, true));
    }

    #[test]
    fn only_chunked_and_only_once_is_an_ordinary_coding() {
        assert!(!seen(&[("transfer-encoding", "Chunked")]).has_odd_coding);
        for odd in ["gzip, chunked", "chunked, chunked", "identity", ""] {
            assert!(seen(&[("transfer-encoding", odd)]).has_odd_coding, "{odd}");
        }
        assert!(seen(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).has_odd_coding);
    }

    #[test]
    fn hosts_are_hosts() {
        let ordinary = ["a.example", "a.example:8080", "[::1]:80", "[::1]", "127.0.0.1", "under_score", "127.0.0.1:65535"];
        for good in ordinary.into_iter().chain(["a:", "a%20b", "a%C3%A9:80", "xn--nxasmq6b"]) {
            assert!(!seen(&[("host", good)]).has_odd_host, "{good}");
        }
        let odd = ["", "user@b.example", "a b", "a/b", "a,b", ":80", ":", "a:8a", "a:99999", "a:65536", "a:000080", "a:80:80"];
        for odd in odd.into_iter().chain(["[::1", "::1", "::1]", "[zz]", "[]", "[::1]80", "[::1]:x", "a[::1]", "a%zz", "a%2", "%"]) {
            assert!(seen(&[("host", odd)]).has_odd_host, "{odd}");
        }
    }

    #[test]
    fn what_ends_at_a_hop_is_seen() {
        for name in ["keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"] {
            assert!(seen(&[(name, "x")]).has_hop_by_hop, "{name}");
        }
        assert!(seen(&[("te", "trailers"), ("te", "gzip")]).has_hop_by_hop, "the second of two");
        assert!(seen(&[("connection", "close")]).has_connection && seen(&[("forwarded", "for=a")]).has_forwarded);
        assert!(seen(&[("x-switchback-pool", "green")]).has_own);
    }
}
