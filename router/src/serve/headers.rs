//! Which header fields pass: hop-by-hop fields end here, and a backend learns whom it is answering.

use http::header::{CONNECTION, Entry, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::forwarded::ClientFields;
use super::head::Head;
use super::seen::{FORWARDED_PREFIX, OWN_PREFIX, Seen, is_trailers};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Says to a backend that this is a copy, and that nobody sees its answer.
pub(crate) const X_SWITCHBACK_MIRROR: HeaderName = HeaderName::from_static("x-switchback-mirror");

/// Fields that `Connection` may not name away: a client could hide from a backend who it is, or how long its body is.
const END_TO_END: [&str; 9] =
    ["host", "content-length", "content-type", "authorization", "cookie", "set-cookie", "forwarded", "via", "cache-control"];

/// Makes a client's head into one for a backend: origin form, `Host`, no hop-by-hop fields, no `x-switchback-*` from
/// outside, `Via`, `X-Forwarded-For` and `X-Forwarded-Proto` set ([`ClientFields::say`]).
/// `Host` passes as it is, so there is nothing for an `X-Forwarded-Host` of ours to say.
///
/// Nearly all heads need no change but a few lines behind them, which are the same for all of a client's connection.
pub(crate) fn prepare_request(head: &mut Head, seen: Seen, client: &ClientFields) {
    if head.uri.authority().is_none()
        && seen.passes_as_it_is()
        && let Some(added) = client.lines(head.version)
        && let Some(lines) = head.fields.lines_mut()
    {
        head.version = Version::HTTP_11;
        return lines.add(added.clone());
    }
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.fields.map().insert(HOST, host);
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    } else if seen.hosts == 0 {
        // HTTP/1.0 alone may have none, and HTTP/1.1 needs one: empty where nobody said it (RFC 9112, 3.2).
        head.fields.map().insert(HOST, HeaderValue::from_static(""));
    }
    let via = match head.version {
        Version::HTTP_2 => HeaderValue::from_static("2 switchback"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 switchback"),
        _ => HeaderValue::from_static("1.1 switchback"),
    };
    head.version = Version::HTTP_11;
    let headers = head.fields.map();
    strip(headers, seen);
    client.say(headers, seen);
    headers.append(VIA, via);
}

/// `OPTIONS http://a` is about the server itself, and nothing on it (RFC 9112, 3.2.4): it becomes `OPTIONS *`. The parser takes it for
/// `http://a/`, so that only the head as it came, `raw`, can tell. `head` is as a backend shall have it.
#[inline]
pub(crate) fn ask_of_server(head: &mut Head, raw: &[u8]) {
    if head.method == Method::OPTIONS && names_server(raw) {
        head.uri = Uri::from(PathAndQuery::from_static("*"));
    }
}

/// Whether the target of this head is a host alone.
#[cold]
fn names_server(raw: &[u8]) -> bool {
    let target = raw.trim_ascii_start().split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let rest = std::str::from_utf8(target).ok().and_then(|target| target.split_once("://"));
    rest.is_some_and(|(_, rest)| !rest.contains(['/', '?']))
}

/// Makes a backend's response head into one for the client.
pub(crate) fn prepare_response(headers: &mut HeaderMap, seen: Seen) {
    strip(headers, seen);
}

/// Removes what ends here: hop-by-hop fields, and the router's own from elsewhere.
fn strip(headers: &mut HeaderMap, seen: Seen) {
    if seen.has_connection {
        strip_named(headers);
    }
    if seen.has_hop_by_hop {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
            headers.remove(name);
        }
        if !headers.get_all(TE).iter().all(|te| is_trailers(te.as_bytes())) {
            strip_codings(headers);
        }
    }
    if seen.has_own {
        strip_prefix(headers, OWN_PREFIX);
    }
}

/// Of all that a `TE` may ask for, trailers alone pass.
#[cold]
fn strip_codings(headers: &mut HeaderMap) {
    let asked = headers.get_all(TE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let wants_trailers = asked.map(str::trim).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    headers.remove(TE);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes `Connection` and what it names.
fn strip_named(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(CONNECTION) else { return };
    if entry.iter().all(names_nothing) {
        entry.remove();
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    let names = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    for name in names.map(str::trim) {
        let is_kept = END_TO_END.iter().any(|kept| name.eq_ignore_ascii_case(kept)) || name.eq_ignore_ascii_case("te");
        // What a trusted proxy says of its client is dropped from others anyway ([`ClientFields::say`]), and not at a client's wish.
        let is_forwarded = name.get(..FORWARDED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORWARDED_PREFIX));
        if !is_kept && !is_forwarded && !name.is_empty() {
            headers.remove(name);
        }
    }
}

/// What nearly every `Connection` says.
fn names_nothing(connection: &HeaderValue) -> bool {
    let text = connection.as_bytes();
    text.eq_ignore_ascii_case(b"keep-alive") || text.eq_ignore_ascii_case(b"close")
}

pub(super) fn strip_prefix(headers: &mut HeaderMap, prefix: &str) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    /// What a head becomes; its fields are a map.
    struct Prepared {
        headers: HeaderMap,
        head: Head,
    }

    impl std::ops::Deref for Prepared {
        type Target = Head;
        fn deref(&self) -> &Head {
            &self.head
        }
    }

    fn prepared(request: http::request::Builder) -> Prepared {
        let mut head = Head::of(request.body(()).unwrap().into_parts().0);
        let seen = Seen::of(head.fields.as_map());
        prepare_request(&mut head, seen, &ClientFields::new([10, 0, 0, 7].into(), false, &[], Default::default()));
        Prepared { headers: head.fields.map().clone(), head }
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let request = Request::get("/").header("connection", "keep-alive, x-hop").header("x-hop", "1").header("keep-alive", "5");
        let head = prepared(request.header("upgrade", "h2c").header("te", "gzip").header("accept", "*/*"));
        for gone in ["connection", "x-hop", "keep-alive", "upgrade", "te"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert!(head.headers.contains_key("accept"));
    }

    #[test]
    fn of_te_trailers_alone_pass() {
        for (asked, passed) in
            [("trailers", Some("trailers")), ("gzip, Trailers", Some("trailers")), ("gzip;q=0.5, deflate", None), ("", None)]
        {
            let head = prepared(Request::get("/").header("te", asked));
            assert_eq!(head.headers.get("te").map(|te| te.to_str().unwrap()), passed, "{asked:?}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_is_not_named_away_by_its_client() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let request = Request::get("/").header("connection", "close, X-Forwarded-For, x-forwarded-proto, X-Forwarded-Port");
        let request =
            request.header("x-forwarded-for", "203.0.113.9").header("x-forwarded-proto", "https").header("x-forwarded-port", "443");
        let mut head = Head::of(request.body(()).unwrap().into_parts().0);
        let seen = Seen::of(head.fields.as_map());
        prepare_request(&mut head, seen, &ClientFields::new([10, 0, 0, 7].into(), false, &trusted, Default::default()));
        let said = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port"].map(|name| head.fields.as_map()[name].to_str().unwrap());
        assert_eq!(said, ["203.0.113.9, 10.0.0.7", "https", "443"]);
    }

    #[test]
    fn a_plain_connection_takes_keep_alive_with_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Keep-Alive"));
        headers.insert(KEEP_ALIVE, HeaderValue::from_static("timeout=5"));
        let seen = Seen::of(&headers);
        prepare_response(&mut headers, seen);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn connection_cannot_name_away_end_to_end_fields() {
        let head =
            prepared(Request::get("/").header("connection", "Cookie, host, Authorization").header("cookie", "a=b").header("host", "h"));
        assert_eq!(head.headers["cookie"], "a=b");
        assert_eq!(head.headers["host"], "h");
    }

    #[test]
    fn own_fields_from_outside_are_dropped() {
        let head = prepared(
            Request::get("/").header("x-switchback-pool", "green").header("x-forwarded-for", "1.2.3.4").header("x-forwarded-prefix", "/a"),
        );
        assert!(!head.headers.contains_key("x-forwarded-prefix"));
        assert!(!head.headers.contains_key("x-switchback-pool"));
        assert_eq!(head.headers["x-forwarded-for"], "10.0.0.7");
        assert_eq!(head.headers["via"], "1.1 switchback");
    }

    #[test]
    fn a_request_without_a_host_gets_an_empty_one() {
        assert_eq!(prepared(Request::get("/").version(Version::HTTP_10)).headers["host"], "");
        assert_eq!(prepared(Request::get("/").version(Version::HTTP_10).header("host", "h")).headers["host"], "h");
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        let head = prepared(Request::get("http://search.example/s?q=1").header("host", "other"));
        assert_eq!(head.uri.to_string(), "/s?q=1");
        assert_eq!(head.headers["host"], "search.example");
    }

    #[test]
    fn options_of_a_host_alone_are_those_of_the_server() {
        let target = |method: &str, uri: &str| {
            let mut head = prepared(Request::builder().method(method).uri(uri)).head;
            ask_of_server(&mut head, format!("\r\n{method} {uri} HTTP/1.1\r\nReferer: http://a\r\n\r\n").as_bytes());
            head.uri.to_string()
        };
        assert_eq!(target("OPTIONS", "http://search.example"), "*");
        assert_eq!(target("OPTIONS", "http://search.example:81"), "*");
        for (method, uri, path) in [
            ("OPTIONS", "http://search.example/", "/"),
            ("OPTIONS", "http://search.example/a", "/a"),
            ("OPTIONS", "http://search.example?a", "/?a"),
            ("GET", "http://search.example", "/"),
        ] {
            assert_eq!(target(method, uri), path, "{method} {uri}");
        }
    }
}
