//! A request's head out of the fields of a block: checked as RFC 9113, 8 has it, and put into lines as HTTP/1.1 has them. Pure.
//!
//! A `Cookie` in pieces becomes one (8.2.3), and `:authority` becomes `Host`.

use std::ops::Range;

use http::{Method, Uri, Version};

use super::super::super::head::Head;
use super::super::super::http1::{Draft, Drafted, number};
use super::super::super::seen::Seen;
use super::super::hpack::Field;
use super::super::trailers::EACH;
use crate::quality::Refusal;

/// What a head came to.
pub(super) enum Outcome {
    /// It can be answered.
    Whole(Box<Request>),
    /// It is answered with this refusal; to a HEAD, without a body.
    Refused { refusal: Refusal, is_head: bool },
    /// Nobody can say what it means: its stream is reset.
    Malformed,
}

/// A head that is sound.
pub(super) struct Request {
    pub(super) head: Box<Head>,
    pub(super) seen: Seen,
    /// What it says of its body's length.
    pub(super) length: Option<u64>,
    /// The client wants its stream to become a tunnel (RFC 8441); the head asks for that as HTTP/1.1 does.
    pub(super) wants_tunnel: bool,
}

/// A head whose fields come one after the other.
pub(super) struct Reading<'s> {
    pseudo: &'s mut Pseudo,
    /// `None` until the first field that is no pseudo field.
    draft: Option<Draft>,
    bytes_left: usize,
    fields_left: usize,
    is_malformed: bool,
    is_too_large: bool,
    has_odd_scheme: bool,
    has_host: bool,
    is_connect: bool,
}

/// Pseudo fields, and cookies: what has to be kept until it is known where it goes. Its room is used again.
#[derive(Default)]
pub(super) struct Pseudo {
    bytes: Vec<u8>,
    method: Option<Range<usize>>,
    scheme: bool,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
    protocol: Option<Range<usize>>,
    cookie: Vec<u8>,
}

impl Pseudo {
    fn clear(&mut self) {
        self.bytes.clear();
        self.cookie.clear();
        (self.method, self.scheme, self.authority, self.path, self.protocol) = (None, false, None, None, None);
    }

    fn part(&self, range: Option<&Range<usize>>) -> &[u8] {
        range.and_then(|range| self.bytes.get(range.clone())).unwrap_or_default()
    }
}

impl Reading<'_> {
    /// Of at most so many bytes and fields.
    pub(super) fn begin(pseudo: &mut Pseudo, bytes: usize, fields: usize) -> Reading<'_> {
        pseudo.clear();
        Reading {
            pseudo,
            draft: None,
            bytes_left: bytes,
            fields_left: fields,
            is_malformed: false,
            is_too_large: false,
            has_odd_scheme: false,
            has_host: false,
            is_connect: false,
        }
    }

    /// The next field.
    pub(super) fn take(&mut self, field: Field<'_>) {
        let Field { name, value, is_sound } = field;
        let cost = name.len() + value.len() + EACH;
        self.is_malformed |= !is_sound;
        self.is_too_large |= cost > self.bytes_left;
        if self.is_malformed || self.is_too_large {
            return;
        }
        self.bytes_left -= cost;
        if name.first() == Some(&b':') {
            return self.take_pseudo(name, value);
        }
        self.is_too_large |= self.fields_left == 0;
        self.fields_left = self.fields_left.saturating_sub(1);
        if self.draft.is_none() {
            self.draft = Some(self.begin_lines());
        }
        if name == b"cookie" {
            let cookie = &mut self.pseudo.cookie;
            if !cookie.is_empty() {
                cookie.extend_from_slice(b"; ");
            }
            return cookie.extend_from_slice(value);
        }
        // The host is said already; another one, or a second time, is refused with it.
        let is_said = |value: &[u8]| value.eq_ignore_ascii_case(self.pseudo.part(self.pseudo.authority.as_ref()));
        if name == b"host" && !std::mem::replace(&mut self.has_host, true) && is_said(value) {
            return;
        }
        if let Some(draft) = &mut self.draft {
            draft.field(name, value);
        }
    }

    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) {
        let pseudo = &mut *self.pseudo;
        let place = match name {
            b":method" => &mut pseudo.method,
            b":authority" => &mut pseudo.authority,
            b":path" => &mut pseudo.path,
            b":protocol" => &mut pseudo.protocol,
            b":scheme" => {
                self.has_odd_scheme = !(value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https"));
                self.is_malformed |= std::mem::replace(&mut pseudo.scheme, true) || self.draft.is_some();
                return;
            }
            _ => {
                self.is_malformed = true;
                return;
            }
        };
        let from = pseudo.bytes.len();
        pseudo.bytes.extend_from_slice(value);
        // Said twice, empty, or behind another field.
        self.is_malformed |= place.replace(from..from + value.len()).is_some() || value.is_empty() || self.draft.is_some();
    }

    /// All pseudo fields are here.
    fn begin_lines(&mut self) -> Draft {
        let pseudo = &*self.pseudo;
        let (method, path) = (pseudo.part(pseudo.method.as_ref()), pseudo.part(pseudo.path.as_ref()));
        self.is_connect = method == b"CONNECT";
        let has_target = pseudo.scheme && pseudo.path.is_some();
        self.is_malformed |= match (self.is_connect, pseudo.protocol.is_some()) {
            (true, false) => pseudo.scheme || pseudo.path.is_some() || pseudo.authority.is_none(),
            (true, true) => !has_target || pseudo.authority.is_none(),
            (false, protocol) => method.is_empty() || protocol || !has_target,
        };
        let path = if self.is_connect && path.is_empty() { b"/" } else { path };
        self.is_malformed |= path.first() != Some(&b'/') && path != b"*";
        let mut draft = Draft::begin(method, path);
        if pseudo.authority.is_some() {
            draft.field(b"host", pseudo.part(pseudo.authority.as_ref()));
        }
        draft
    }

    /// All of it was told; `ends`: no body follows.
    pub(super) fn end(mut self, ends: bool) -> Outcome {
        let mut draft = match self.draft.take() {
            Some(draft) => draft,
            None => self.begin_lines(),
        };
        if !self.pseudo.cookie.is_empty() {
            draft.field(b"cookie", &self.pseudo.cookie);
        }
        let seen = draft.seen();
        // Fields of one connection have no place in HTTP/2 (RFC 9113, 8.2.2).
        self.is_malformed |= seen.has_connection || seen.has_hop_by_hop;
        let wants_tunnel = self.is_connect && self.pseudo.protocol.is_some() && seen.content_lengths == 0;
        if wants_tunnel {
            draft.field(b"connection", b"upgrade");
            draft.field(b"upgrade", self.pseudo.part(self.pseudo.protocol.as_ref()));
        }
        let Drafted { target, lines, seen } = draft.end();
        let method = self.pseudo.part(self.pseudo.method.as_ref());
        let is_head = method == b"HEAD";
        if self.is_too_large {
            return Outcome::Refused { refusal: Refusal::HeadSize, is_head };
        }
        let method = if wants_tunnel { Some(Method::GET) } else { Method::from_bytes(method).ok() };
        let (Some(method), Ok(uri), false) = (method, Uri::from_maybe_shared(target), self.is_malformed) else {
            return Outcome::Malformed;
        };
        if self.has_odd_scheme {
            return Outcome::Refused { refusal: Refusal::Host, is_head };
        }
        let head = Box::new(Head { method, uri, version: Version::HTTP_2, fields: lines.into() });
        match length(&head, seen, ends) {
            Ok(length) => Outcome::Whole(Box::new(Request { head, seen, length, wants_tunnel })),
            Err(()) => Outcome::Malformed,
        }
    }
}

/// What the head says of its body's length. One that is said twice is refused later on, unless it makes no sense at all.
fn length(head: &Head, seen: Seen, ends: bool) -> Result<Option<u64>, ()> {
    if seen.content_lengths == 0 {
        return Ok(None);
    }
    let mut said = head.fields.all("content-length").map(number);
    let first = said.next().flatten().ok_or(())?;
    let is_one = said.all(|another| another == Some(first));
    if is_one && (!ends || first == 0) { Ok(Some(first)) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)], ends: bool) -> Outcome {
        let mut pseudo = Pseudo::default();
        let mut reading = Reading::begin(&mut pseudo, 600, 8);
        for (name, value) in fields {
            reading.take(Field { name: name.as_bytes(), value: value.as_bytes(), is_sound: true });
        }
        reading.end(ends)
    }

    /// The head as lines; or what it came to.
    fn shown(fields: &[(&str, &str)]) -> String {
        match read(fields, true) {
            Outcome::Whole(request) => String::from_utf8(request.head.fields.raw().unwrap().to_vec()).unwrap().replace("\r\n", "|"),
            Outcome::Refused { refusal, .. } => format!("{refusal:?}"),
            Outcome::Malformed => "malformed".to_owned(),
        }
    }

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/rank?q=a")];

    fn with(more: &[(&str, &str)]) -> String {
        shown(&[&GET, more].concat())
    }

    #[test]
    fn a_head_becomes_lines() {
        assert_eq!(with(&[("x-user-id", "u1"), ("accept", "*/*")]), "GET /rank?q=a HTTP/1.1|host: a.test|x-user-id: u1|accept: */*||");
        assert_eq!(with(&[]), "GET /rank?q=a HTTP/1.1|host: a.test||");
        assert_eq!(
            with(&[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d")]),
            "GET /rank?q=a HTTP/1.1|host: a.test|x: 1|cookie: a=b; c=d||"
        );
        assert_eq!(with(&[("host", "A.test")]), "GET /rank?q=a HTTP/1.1|host: a.test||");
        assert_eq!(
            with(&[("host", "a.test"), ("host", "a.test")]),
            "GET /rank?q=a HTTP/1.1|host: a.test|host: a.test||",
            "refused later on"
        );
        assert_eq!(shown(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "b")]), "GET / HTTP/1.1|host: b||");
    }

    #[test]
    fn what_makes_no_sense_is_malformed() {
        for more in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "1"),
            ("te", "gzip"),
            (":path", "/other"),
            (":status", "200"),
            (":protocol", "websocket"),
            ("content-length", "x"),
            ("content-length", "5"),
        ] {
            assert_eq!(with(&[more]), "malformed", "{more:?}");
        }
        assert_eq!(with(&[("x", "1"), (":path", "/")]), "malformed", "behind another field");
        for gone in [0, 1, 3] {
            let mut fields = GET.to_vec();
            fields.remove(gone);
            assert_eq!(shown(&fields), "malformed", "without {}", GET[gone].0);
            fields.insert(gone, (GET[gone].0, ""));
            assert_ne!(shown(&fields), shown(&GET), "an empty {}", GET[gone].0);
        }
        for path in ["a", "http://b/a", "/a b", "/a\u{7f}"] {
            assert_eq!(shown(&[GET[0], GET[1], GET[2], (":path", path)]), "malformed", "{path:?}");
        }
        assert_eq!(with(&[("content-length", "0"), ("te", "trailers")]).matches('|').count(), 5);
    }

    #[test]
    fn limits_are_refusals_and_so_are_other_schemes() {
        let many: Vec<(String, String)> = (0..9).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(with(&many), "HeadSize");
        assert_ne!(with(&many[..8]), "HeadSize");
        assert_eq!(with(&[("x", &"1".repeat(600))]), "HeadSize");
        assert_eq!(shown(&[GET[0], (":scheme", "ftp"), GET[2], GET[3]]), "Host");
    }

    #[test]
    fn a_tunnel_is_an_upgrade() {
        let connect = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/ws")];
        let Outcome::Whole(request) = read(&connect, false) else { panic!("not whole") };
        assert!(request.wants_tunnel && request.seen.has_upgrade && request.seen.has_connection);
        assert_eq!(request.head.method, Method::GET);
        assert_eq!(shown(&connect), "CONNECT /ws HTTP/1.1|host: a|connection: upgrade|upgrade: websocket||");
        let Outcome::Whole(plain) = read(&[(":method", "CONNECT"), (":authority", "a:443")], false) else { panic!("not whole") };
        assert_eq!((plain.wants_tunnel, plain.head.method), (false, Method::CONNECT), "refused like any other");
        assert_eq!(shown(&[(":method", "CONNECT"), (":authority", "a"), (":path", "/"), (":scheme", "http")]), "malformed");
        assert_eq!(shown(&[(":method", "CONNECT")]), "malformed");
    }
}
