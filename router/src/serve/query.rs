//! What is read from a request: whether it may pass at all, whose it is, and the fields that a policy asks for. Pure.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, HeaderName};
use http::uri::Scheme;
use http::{Method, Uri, Version};
use switchback_policy::split::Field;

use super::head::Head;
use super::seen::{Seen, is_host};
use crate::config::UnitSource;
use crate::quality::Refusal;

/// The longest field value that a policy is given, in bytes.
const FIELD_BYTES: usize = 1_024;

/// Who is randomised, as the bytes that are hashed.
pub(crate) enum Unit<'a> {
    /// A user id or session from the request.
    Named(&'a [u8]),
    /// The client's address as text, for those who bring neither.
    Address(AddressText),
}

/// An IP address as text, without an allocation.
pub(crate) struct AddressText {
    bytes: [u8; 46],
    len: usize,
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl Unit<'_> {
    /// What is hashed.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Unit::Named(bytes) => bytes,
            Unit::Address(text) => text.bytes.get(..text.len).unwrap_or_default(),
        }
    }

    /// The first of `sources` that this request has and that is not empty; the client's address when it has none.
    pub(crate) fn of<'a>(head: &'a Head, sources: &[UnitSource], client: IpAddr) -> Unit<'a> {
        for source in sources {
            let found = match source {
                UnitSource::Header(name) => head.fields.get(name),
                UnitSource::Cookie(name) => cookie(head, name),
                UnitSource::ClientAddress => break,
            };
            if let Some(bytes) = found.filter(|bytes| !bytes.is_empty()) {
                return Unit::Named(bytes);
            }
        }
        let mut text = AddressText { bytes: [0; 46], len: 0 };
        // An address is at most 45 characters, so this always fits.
        let _ = write!(text, "{}", client.to_canonical());
        Unit::Address(text)
    }
}

/// Refuses what two parsers could read differently, or what is not for a proxy of queries.
///
/// # Errors
/// The reason, which is counted; [`super::answer`] says what the client gets.
pub(crate) fn check(head: &Head, seen: Seen) -> Result<(), Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let is_named = match head.uri.authority() {
        None => seen.hosts == 1 || head.version == Version::HTTP_10,
        Some(authority) => is_host(authority.as_str().as_bytes()) && is_of_the_web(&head.uri),
    };
    if seen.has_odd_host || seen.hosts > 1 || !is_named {
        return Err(Refusal::Host);
    }
    if seen.has_ambiguous_length() || (seen.has_transfer_encoding && head.version == Version::HTTP_10) {
        return Err(Refusal::Framing);
    }
    Ok(())
}

/// Whether a target with a host in it is one of HTTP. A host alone is CONNECT's, and other schemes are other proxies' business.
fn is_of_the_web(target: &Uri) -> bool {
    target.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
}

/// Whether the head says that its body is larger than this.
pub(crate) fn announces_more(head: &Head, most: u64) -> bool {
    let length = head.fields.get(&CONTENT_LENGTH).and_then(|value| std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok());
    length.is_some_and(|length| length > most)
}

/// Whether a segment of the path is `.` or `..`, also percent-encoded, and also with a parameter behind it (`..;x`), which Tomcat and its
/// like cut off first. A backend may take such a path for another than the one that the route was found by.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    // Next to no path has either character, and then nothing needs to be taken apart.
    path.bytes().any(|byte| matches!(byte, b'.' | b'%')) && has_dots_between_slashes(path.as_bytes())
}

/// As the most lenient backend would read it: slashes may be escaped or lean backwards, and a parameter or a NUL ends a segment's name.
fn has_dots_between_slashes(path: &[u8]) -> bool {
    let (mut rest, mut dots) = (path, Some(0));
    while let Some((byte, after)) = unescaped(rest) {
        rest = after;
        dots = match (byte, dots) {
            (b'/' | b'\\' | b';' | 0, Some(1 | 2)) => return true,
            (b'/' | b'\\', _) => Some(0),
            (b'.', Some(dots)) => Some(dots + 1),
            _ => None,
        };
    }
    matches!(dots, Some(1 | 2))
}

/// The next byte of a path, and the rest.
fn unescaped(path: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = path
        && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        && let Ok(byte) = u8::try_from(high * 16 + low)
    {
        return Some((byte, rest));
    }
    path.split_first().map(|(byte, rest)| (*byte, rest))
}

/// The host that the request is for: lower case is not yet made, the port is cut off.
pub(crate) fn host(head: &Head) -> Option<&str> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.host());
    }
    let text = std::str::from_utf8(head.fields.get(&HOST)?).ok()?;
    if text.starts_with('[') {
        let end = text.find(']')?;
        return text.get(..=end);
    }
    Some(text.split(':').next().unwrap_or(text))
}

/// A request field for a policy, cut at 1,024 bytes; `None` where the request has none, or none that is UTF-8.
pub(crate) fn field<'a>(head: &'a Head, field: &Field) -> Option<Cow<'a, str>> {
    let value = match field {
        Field::Path => Some(Cow::Borrowed(head.uri.path())),
        Field::Header(name) => return text(head.fields.named(name.as_str())).map(Cow::Borrowed),
        Field::Cookie(name) => cookie(head, name).and_then(|value| std::str::from_utf8(value).ok()).map(Cow::Borrowed),
        Field::Query(name) => query_parameter(head.uri.query()?, name),
    };
    value.map(|value| match value {
        Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
        Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
    })
}

/// The same of a header.
pub(crate) fn header<'a>(head: &'a Head, name: &HeaderName) -> Option<&'a str> {
    text(head.fields.get(name))
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    value.and_then(|value| std::str::from_utf8(value).ok()).map(cut)
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(FIELD_BYTES)).unwrap_or_default()
}

fn cookie<'a>(head: &'a Head, name: &str) -> Option<&'a [u8]> {
    let cookies = head.fields.all("cookie");
    let mut pairs = cookies.flat_map(|value| value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn query_parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(request: http::request::Builder) -> Head {
        Head::of(request.body(()).unwrap().into_parts().0)
    }

    fn unit_text(head: &Head, sources: &[UnitSource]) -> String {
        String::from_utf8_lossy(Unit::of(head, sources, "10.0.0.7".parse().unwrap()).bytes()).into_owned()
    }

    #[test]
    fn the_unit_is_the_first_source_that_is_there() {
        let sources = [UnitSource::Header("x-user-id".parse().unwrap()), UnitSource::Cookie("sid".to_owned()), UnitSource::ClientAddress];
        let both = head(Request::get("/").header("x-user-id", "u1").header("cookie", "a=b; sid=s1"));
        assert_eq!(unit_text(&both, &sources), "u1");
        let cookie_only = head(Request::get("/").header("x-user-id", "").header("cookie", "asid=x; sid=s1; sid=s2"));
        assert_eq!(unit_text(&cookie_only, &sources), "s1");
        assert_eq!(unit_text(&head(Request::get("/")), &sources), "10.0.0.7");
    }

    #[test]
    fn a_mapped_address_is_the_same_unit() {
        let parts = head(Request::get("/"));
        let mapped = Unit::of(&parts, &[], "::ffff:10.0.0.7".parse().unwrap());
        assert_eq!(mapped.bytes(), b"10.0.0.7");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let refused = |request: http::request::Builder| {
            let head = head(request);
            check(&head, Seen::of(head.fields.as_map())).err()
        };
        assert_eq!(refused(Request::get("/").header("host", "a")), None);
        assert_eq!(refused(Request::get("/").header("host", "a").header("host", "a")), Some(Refusal::Host));
        assert_eq!(refused(Request::get("/")), Some(Refusal::Host));
        let both = Request::post("/").header("host", "a").header("content-length", "3").header("transfer-encoding", "chunked");
        assert_eq!(refused(both), Some(Refusal::Framing));
        let list = Request::post("/").header("host", "a").header("content-length", "3, 3");
        assert_eq!(refused(list), Some(Refusal::Framing));
        let coded = Request::post("/").header("host", "a").header("transfer-encoding", "gzip, chunked");
        assert_eq!(refused(coded), Some(Refusal::Framing));
        assert_eq!(refused(Request::get("http://a.example:80@b.example/").header("host", "b.example")), Some(Refusal::Host));
        for target in ["a.example", "a.example:80", "ftp://a.example/x", "ws://a.example/x"] {
            assert_eq!(refused(Request::get(target).header("host", "a.example")), Some(Refusal::Host), "{target}");
        }
        for target in ["http://a.example/x", "https://a.example", "HTTP://a.example:80/?q", "*"] {
            assert_eq!(refused(Request::get(target).header("host", "a.example")), None, "{target}");
        }
        assert_eq!(refused(Request::trace("/").header("host", "a")), Some(Refusal::Method));
    }

    #[test]
    fn dot_segments_are_seen_also_in_disguise() {
        for dotted in
            ["/a/../b", "/..", "/a/.", "/./a", "/a/%2e%2E/b", "/a/.%2e", "/%2e", "/s/..;/x", "/s/..;a=b/x", "/%2e%2E;", "/.;", "/..%3b/x"]
                .into_iter()
                .chain(["/a/..%2fb", "/a%2F..", "/a/..\\b", "/a\\../b", "/a/%2e%2e%5Cb", "/a/..%00/b", "/..%2Fx"])
        {
            assert!(has_dot_segment(dotted), "{dotted}");
        }
        for plain in
            ["/", "/a.b/c", "/...", "/.well-known/x", "/a/..b", "/%2f", "/a%2eb", "/.%2e.", "/...;", "/a;..", "/;", "/a..;b", "/.a;"]
        {
            assert!(!has_dot_segment(plain), "{plain}");
        }
    }

    #[test]
    fn policies_get_the_fields_they_ask_for() {
        let parts = head(Request::get("/search?q=a%20b&q=c").header("x-tenant", "t1").header("cookie", "sid=s1"));
        assert_eq!(field(&parts, &Field::Path).as_deref(), Some("/search"));
        assert_eq!(field(&parts, &Field::Query("q".to_owned())).as_deref(), Some("a b"));
        assert_eq!(field(&parts, &Field::Header("x-tenant".to_owned())).as_deref(), Some("t1"));
        assert_eq!(field(&parts, &Field::Cookie("sid".to_owned())).as_deref(), Some("s1"));
        assert_eq!(field(&parts, &Field::Header("x-none".to_owned())), None);
    }

    #[test]
    fn a_long_field_is_cut_at_a_character() {
        let long = format!("x{}", "é".repeat(600));
        let parts = head(Request::get("/").header("x-long", http::HeaderValue::from_bytes(long.as_bytes()).unwrap()));
        let value = field(&parts, &Field::Header("x-long".to_owned())).unwrap();
        assert_eq!(value.len(), 1_023);
    }
}
