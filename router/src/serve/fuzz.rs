//! Fuzz targets of the data path: what a client's bytes can do to the reading of its requests.
//!
//! [`requests`] is differential: what our own reading of HTTP/1.1 takes, hyper's server reads in the same way, or it is refused. Where it did not, a request could be
//! one thing to us and another to somebody else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use switchback_fuzz::{Target, Trace, trace};
use switchback_policy::split::Field;

use super::again::parse;
use super::head::Head;
use super::http1::{RequestHead, RequestReader, read_body};
use super::overrides::{
    self,
    tests::{LONGEST, NOW},
};
use super::query::{self, Unit};
use super::seen::Seen;
use super::signals::Signals;
use crate::config::UnitSource;
use crate::quality::signals::{Likeness, Packing, Said, compare, ranked, said};
use crate::quality::{OverrideFault, Refusal};

/// Polls that a connection in memory may take: it never waits for anybody.
const POLLS: usize = 1_000;

const WORDS: [&[u8]; 26] = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"content-length:0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:",
    b"chunked",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b"5;a=b\r\n",
    b"Connection: close\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Cookie: sid=s1; a=b\r\n",
    b"x-user-id: u1\r\n",
    b"?q=a%20b&q=",
    b"/../",
    b"%2e",
    b"http://a.example/",
    b"x-switchback-pool: green\r\n",
];

/// Heads and bodies as hyper reads them, with the options of the listener.
fn read_by_hyper(bytes: &[u8]) -> Vec<(Parts, Option<Bytes>)> {
    let read = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let place = read.borrow().len();
        read.borrow_mut().push((head, None));
        let read = &read;
        async move {
            let body = body.collect().await?.to_bytes();
            read.borrow_mut()[place].1 = Some(body);
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.max_headers(100).max_header_size(64 << 10).header_read_timeout(None).writev(false);
    {
        let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let mut context = Context::from_waker(Waker::noop());
        let is_over = (0..POLLS).any(|_| connection.as_mut().poll(&mut context).is_ready());
        assert!(is_over, "the connection waits for something");
    }
    read.into_inner()
}

/// What our own makes of them.
struct Read {
    /// Heads with how they came, and bodies as far as they were read.
    requests: Vec<(RequestHead, Option<Bytes>)>,
    /// What the last one was refused for.
    refusal: Option<Refusal>,
    /// The bytes end in the middle of a head.
    has_half: bool,
}

/// The same as our own reads them, in pieces of this size.
fn read_by_us(bytes: &[u8], piece: usize) -> Read {
    let mut reader = RequestReader::new(64 << 10, 100);
    let (mut buffer, mut requests) = (BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece.max(1));
    loop {
        match reader.take(&mut buffer) {
            Err(refusal) => return Read { requests, refusal: Some(refusal), has_half: false },
            Ok(Some(head)) => {
                let body = read_body(&head, &mut buffer, &mut pieces);
                let is_last = body.is_none() || !head.keeps();
                requests.push((head, body));
                if is_last {
                    return Read { requests, refusal: None, has_half: false };
                }
            }
            Ok(None) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Read { requests, refusal: None, has_half: !buffer.is_empty() },
            },
        }
    }
}

/// How often a field with this name (lower case, with its colon) begins a line.
fn lines_with(head: &[u8], name: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n').filter(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))).count()
}

/// Where both read a request they read the same; and what hyper reads, we read or refuse.
fn look_at_request(bytes: &[u8]) -> Trace {
    let theirs = read_by_hyper(bytes);
    let Read { requests: ours, refusal, .. } = read_by_us(bytes, bytes.len());
    assert!(ours.len() <= theirs.len(), "{} requests, of which hyper reads {}", ours.len(), theirs.len());
    assert!(
        ours.len() == theirs.len() || refusal.is_some() || ours.last().is_some_and(|(_, body)| body.is_none()),
        "a request is passed over"
    );
    let mut ways = Vec::new();
    for (place, ((head, body), (parts, their_body))) in ours.iter().zip(&theirs).enumerate() {
        let raw = head.head.fields.raw().unwrap();
        let made = head.head.fields.lines().unwrap().to_map();
        let mut theirs = parts.headers.clone();
        if !head.seen.has_connection {
            theirs.remove("connection");
        }
        assert_eq!(
            (&head.head.method, &head.head.uri, head.head.version, &made),
            (&parts.method, &parts.uri, parts.version, &theirs),
            "request {place}"
        );
        // hyper does not poll a body that ends at once.
        if let (Some(body), Some(theirs)) = (body, their_body) {
            assert_eq!(body, theirs, "the body of request {place}");
        }
        let again = parse(&raw).unwrap_or_else(|| panic!("request {place} cannot be read a second time: {}", raw.escape_ascii()));
        assert_eq!((&again.method, &again.uri, again.version), (&parts.method, &parts.uri, parts.version), "request {place}");
        assert_eq!(again.fields.as_map(), &parts.headers, "request {place}");
        // A `Connection` that is for this hop alone is left out where lines pass as they came.
        let has_connection = Seen::of(&parts.headers).has_connection && head.seen.has_connection;
        assert_eq!(head.seen, Seen { has_connection, ..Seen::of(&parts.headers) }, "request {place}");
        ways.push((look_at_head(&head.head, head.seen, &raw), body.as_ref().map_or(0, |body| body.len().min(3) + 1)));
    }
    trace((ways, format!("{refusal:?}"), theirs.len() > ours.len()))
}

/// What is decided by a head that was read.
fn look_at_head(head: &Head, seen: Seen, raw: &[u8]) -> Trace {
    let verdict = query::check(head, seen);
    if verdict.is_ok() {
        let (lengths, codings) = (lines_with(raw, b"content-length:"), lines_with(raw, b"transfer-encoding:"));
        assert!(lengths + codings <= 1, "{lengths} lengths and {codings} codings passed: {}", raw.escape_ascii());
        assert!(lines_with(raw, b"host:") <= 1, "two hosts passed: {}", raw.escape_ascii());
    }
    let sources = [UnitSource::Header("x-user-id".parse().unwrap()), UnitSource::Cookie("sid".to_owned()), UnitSource::ClientAddress];
    let unit = Unit::of(head, &sources, std::net::Ipv4Addr::LOCALHOST.into());
    assert!(!unit.bytes().is_empty(), "everybody is somebody");
    let is_named = matches!(unit, Unit::Named(_));
    let fields = [Field::Path, Field::Query("q".to_owned()), Field::Header("x-user-id".to_owned()), Field::Cookie("sid".to_owned())];
    let found = fields.map(|wanted| {
        let value = query::field(head, &wanted);
        assert!(value.as_ref().is_none_or(|value| value.len() <= 1_024), "{wanted:?} is longer than policies are given");
        value.is_some()
    });
    let has_host = query::host(head).is_some();
    trace((format!("{verdict:?}"), format!("{seen:?}"), is_named, found, has_host, query::has_dot_segment(head.uri.path())))
}

#[test]
fn requests() {
    let target = Target { name: "requests", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 };
    target.run(|bytes| {
        let piece = bytes.len() % 7 + 1;
        let shown = |read: Read| {
            let heads = read.requests.into_iter().map(|(head, body)| (head.head.fields.raw(), body));
            // What breaks two rules may be refused for either, and half a head that makes no sense at once or when it is whole.
            (heads.collect::<Vec<_>>(), read.refusal.is_some() || read.has_half)
        };
        assert_eq!(shown(read_by_us(bytes, bytes.len())), shown(read_by_us(bytes, piece)), "in pieces of {piece}");
        look_at_request(bytes)
    });
}

#[test]
fn paths() {
    let words: [&[u8]; 14] = [b"/", b".", b"..", b"%2e", b"%2E", b"%2f", b"%", b"/./", b";", b"/..;a=b/", b"%3B", b"%5c", b"\\", b"%00"];
    Target { name: "paths", words: &words, seeds: Vec::new(), most_bytes: 256 }.run(|bytes| {
        let path = String::from_utf8_lossy(bytes);
        let mut decoded = path.to_string();
        for (written, meant) in [("%2e", "."), ("%2E", "."), ("%3b", ";"), ("%3B", ";"), ("%00", ";"), ("\0", ";")] {
            decoded = decoded.replace(written, meant);
        }
        for slash in ["%2f", "%2F", "%5c", "%5C", "\\"] {
            decoded = decoded.replace(slash, "/");
        }
        let has_dot = decoded.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
        assert_eq!(query::has_dot_segment(&path), has_dot, "{path:?}");
        trace((has_dot, path.len().min(9), path.matches('/').count().min(4), path.contains('%')))
    });
}

#[test]
fn override_field() {
    let words: [&[u8]; 12] = [
        b"canary",
        b"blue",
        b"green",
        b";",
        b";;",
        b"\n",
        b" ",
        b"+",
        b"1700000000",
        b"1700003600",
        b"1700086401",
        b"18446744073709551616",
    ];
    let (keys, route) = (overrides::tests::overrides(&["new", "old"]), overrides::tests::route());
    let sign = |pool: &str, expiry: u64| keys.sign(&route.name, pool, expiry).unwrap();
    let seeds = vec![sign("canary", NOW + 1).into_bytes(), sign("blue", NOW + LONGEST).into_bytes()];
    let look = |lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
            headers.append(overrides::FIELD, line);
        }
        keys.look(&headers, &route, NOW)
    };
    Target { name: "override_field", words: &words, seeds, most_bytes: 1_024 }.run(|bytes| {
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let as_it_is = look(&lines);
        // The same once more with a signature that fits, or nothing would get past it.
        let text = String::from_utf8_lossy(lines[0]);
        let mut parts = text.split(';').map(str::trim);
        let (pool, expiry) = (parts.next().unwrap_or_default(), parts.next().and_then(|expiry| expiry.parse::<u64>().ok()));
        let signed = expiry.map(|expiry| sign(pool, expiry));
        let resigned = signed.as_ref().and_then(|signed| look(&[signed.as_bytes()]));
        if let (Some(expiry), Some(resigned)) = (expiry, &resigned) {
            let expected = match (expiry.checked_sub(NOW), route.pool_named(pool)) {
                _ if !pool.is_ascii() => Err(OverrideFault::Malformed),
                (None | Some(0), _) => Err(OverrideFault::Expired),
                (Some(left), _) if left > LONGEST => Err(OverrideFault::TooLong),
                (_, None) => Err(OverrideFault::Pool),
                (_, Some(index)) => Ok(index),
            };
            assert_eq!(resigned, &expected, "{text}");
        }
        if let Some(Ok(_)) = as_it_is {
            let signature = parts.next().unwrap_or_default().to_ascii_lowercase();
            let is_signed = signed.is_some_and(|signed| signed.rsplit(';').next() == Some(&signature));
            assert!(is_signed && resigned == as_it_is, "nobody signed {text}");
        }
        trace((format!("{as_it_is:?}"), format!("{resigned:?}"), lines.len().min(3)))
    });
}

/// What a backend says of its response, in fields and in its body: numbers in range, or faults with a name, and no more memory than it may have. And its
/// ranked list: each result once, and it is like itself.
#[test]
fn response_signals() {
    let pointer = |text: &str| Some(crate::config::Pointer::parse(text).unwrap());
    let rules = crate::config::Signals {
        sample: crate::vocabulary::Ppm::ALL,
        max_body: 1_024,
        results: pointer("/hits/total"),
        ids: pointer("/hits/hits/*/_id"),
        scores: pointer("/hits/hits/*/_score"),
        quality: pointer("/quality"),
    };
    let body = br#"{"hits": {"total": 2, "hits": [{"_id": "a", "_score": 0.5}, {"_id": 7, "_score": 1}]}, "quality": 0.25}"#;
    let packed = {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packing, body).unwrap();
        packing.finish().unwrap()
    };
    let by_score = crate::config::Signals { ids: None, ..rules.clone() };
    let seeds = vec![body.to_vec(), packed, b"0.5".to_vec(), b"12".to_vec()];
    let words: [&[u8]; 8] = [b"\"hits\"", b"\"_score\": ", b"1e999", b"-0.0", b"null", b"[[[[", b"0.999999", b"18446744073709551616"];
    Target { name: "response_signals", words: &words, seeds, most_bytes: 2_048 }.run(|bytes| {
        let mut heard = Vec::new();
        for packing in [Packing::None, Packing::Gzip] {
            let (Said { found, quality }, faults) = said(bytes, packing, &rules);
            assert!(quality.is_none_or(|quality| (0.0..=1.0).contains(&quality)), "{quality:?}");
            assert!(faults.len() <= 4 && (!faults.is_empty() || found.is_some()), "{faults:?}");
            let lists = [&rules, &by_score].map(|rules| ranked(bytes, packing, rules));
            for list in lists.iter().flatten() {
                assert!(list.len() <= 1_000 && list.iter().collect::<HashSet<_>>().len() == list.len(), "{list:?}");
                assert_eq!(compare(list, list), Likeness { is_top1_changed: false, jaccard_micros: 1_000_000 });
            }
            heard.push((found, quality.is_some(), faults, lists.map(|list| list.map(|list| list.len().min(3)))));
        }
        let mut fields = None;
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            let headers = ["x-quality-results", "x-quality-score"].map(|name| (http::HeaderName::from_static(name), value.clone()));
            let Signals { found, score } = Signals::of(&HeaderMap::from_iter(headers));
            assert!(score.unwrap().is_err() || (0.0..=1.0).contains(&score.unwrap().unwrap()));
            fields = Some((found.unwrap().is_ok(), score.unwrap().is_ok()));
        }
        trace((heard, fields))
    });
}
