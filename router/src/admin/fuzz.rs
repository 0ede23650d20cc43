//! A fuzz target of the admin API: what the header lines of a request can do to the question who asks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use switchback_fuzz::{Target, trace};

use super::access::tests::{TOKENS, access};
use super::error::ApiError;
use crate::config::Role;

const WORDS: [&[u8]; 20] = [
    b"Authorization: ",
    b"authorization:",
    b"Host: ",
    b"Bearer ",
    b"bearer\t",
    b"Basic ",
    TOKENS[0].as_bytes(),
    TOKENS[1].as_bytes(),
    b"operator-token-of-an",
    b"\r\n",
    b" ",
    b",",
    b"127.0.0.1:9090",
    b"[::1]:9090",
    b"localhost",
    b"evil.example",
    b"127.0.0.1.evil.example",
    b":",
    b"\xe9",
    b"Proxy-Authorization: Bearer viewer-token-of-bob",
];

/// The head of a request with these lines, as the listener's parser reads it; `None` for what it does not take.
fn read(lines: &[u8]) -> Option<Parts> {
    let bytes = [b"GET /api/v1/routes HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut fields);
    head.parse(&bytes).ok().filter(httparse::Status::is_complete)?;
    let mut parts = Request::new(()).into_parts().0;
    for field in head.headers.iter() {
        parts.headers.append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(parts)
}

/// The values of a field, as bytes.
fn values<'p>(parts: &'p Parts, name: &str) -> Vec<&'p [u8]> {
    parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// Whom the one line names: by the bytes of the tokens, and by nothing that the code under test has.
fn named(line: &[u8]) -> Option<(&'static str, Role)> {
    let token = line.get(7..).filter(|_| line[..7].eq_ignore_ascii_case(b"bearer "))?.trim_ascii();
    match token {
        token if token == TOKENS[0].as_bytes() => Some(("ann", Role::Operator)),
        token if token == TOKENS[1].as_bytes() => Some(("bob", Role::Viewer)),
        _ => None,
    }
}

/// Whether a DNS server could make this host stand for this machine.
fn can_be_rebound(host: &[u8]) -> bool {
    let text = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = text.split(':').next().unwrap_or_default();
    let is_ipv6 = text.matches(':').count() > 1;
    !is_ipv6 && name != "localhost" && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// What a refusal is answered with, and that it gives no token away which the client did not put where it is repeated.
fn refused(error: &ApiError, hosts: &[&[u8]]) -> StatusCode {
    let said = error.to_string();
    for token in TOKENS {
        let is_hosts = hosts.iter().any(|host| String::from_utf8_lossy(host).contains(token));
        assert!(is_hosts || !said.contains(token), "{said}");
    }
    error.status()
}

#[test]
fn tokens() {
    Target { name: "tokens", words: &WORDS, seeds: Vec::new(), most_bytes: 512 }.run(|lines| {
        let Some(parts) = read(lines) else { return 0 };
        let (authorizations, hosts) = (values(&parts, "authorization"), values(&parts, "host"));
        let caller = match authorizations.as_slice() {
            [line] => named(line),
            _ => None,
        };
        let mut ways = Vec::new();
        for is_reading_open in [false, true] {
            let access = access(is_reading_open);
            let reads = access.caller(&parts).map(|caller| (caller.name, caller.role));
            let changes = access.operator(&parts).map(|caller| (caller.name, caller.role));
            let reads = reads.map_err(|error| refused(&error, &hosts));
            let changes = changes.map_err(|error| refused(&error, &hosts));
            match (caller, authorizations.is_empty()) {
                (Some((name, role)), _) => {
                    let whom = (name.to_owned(), role);
                    assert_eq!(reads.as_ref(), Ok(&whom));
                    assert_eq!(changes, if role == Role::Operator { Ok(whom) } else { Err(StatusCode::FORBIDDEN) });
                }
                (None, true) if is_reading_open => match &reads {
                    Ok(whom) => {
                        assert_eq!(*whom, ("anonymous".to_owned(), Role::Viewer));
                        assert!(hosts.len() == 1 && !can_be_rebound(hosts[0]), "{}", hosts.concat().escape_ascii());
                        assert_eq!(changes, Err(StatusCode::UNAUTHORIZED));
                    }
                    Err(status) => {
                        assert_eq!((*status, changes), (StatusCode::MISDIRECTED_REQUEST, Err(StatusCode::MISDIRECTED_REQUEST)));
                    }
                },
                (None, _) => {
                    assert_eq!((&reads, &changes), (&Err(StatusCode::UNAUTHORIZED), &Err(StatusCode::UNAUTHORIZED)));
                }
            }
            ways.push(format!("{reads:?}"));
        }
        trace((ways, authorizations.len().min(3), hosts.len().min(3)))
    });
}
