//! A request's head, kept so that it can be sent once more.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::forwarded::ClientFields;
use super::head::{Fields, Head, Outgoing};
use super::headers::{ask_of_server, prepare_request};
use super::replay::RequestBody;
use super::seen::Seen;

/// Next to no query needs it, so it is kept in the form that costs least.
pub(crate) enum Again {
    /// As a client sent it, in this version: it is parsed and prepared a second time.
    Raw(Bytes, Version),
    /// As it was prepared.
    Prepared { method: Method, uri: Uri, fields: Vec<(HeaderName, HeaderValue)> },
}

impl Again {
    /// Of a head that is as a backend shall have it.
    pub(crate) fn prepared(head: &Head) -> Again {
        let made;
        let headers = match head.fields.lines() {
            None => head.fields.as_map(),
            Some(lines) => {
                made = lines.to_map();
                &made
            }
        };
        let mut fields = Vec::with_capacity(headers.len());
        fields.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Again::Prepared { method: head.method.clone(), uri: head.uri.clone(), fields }
    }

    /// Whether it asks for a tunnel: an upgrade that is not allowed was taken out when the head was prepared.
    pub(crate) fn is_upgrade(&self) -> bool {
        matches!(self, Again::Prepared { fields, .. } if fields.iter().any(|(name, _)| *name == UPGRADE))
    }

    /// The request with this body; `None` if the head cannot be read, which it was before.
    pub(crate) fn request(&self, body: RequestBody, client: &ClientFields) -> Option<Outgoing> {
        match self {
            Again::Raw(bytes, version) => {
                let mut head = Box::new(parse(bytes)?);
                head.version = *version;
                let seen = Seen::of(head.fields.as_map());
                prepare_request(&mut head, seen, client);
                ask_of_server(&mut head, bytes);
                say_length(&mut head.fields, &body);
                Some(Outgoing { head, body })
            }
            Again::Prepared { method, uri, fields } => {
                let mut headers = HeaderMap::with_capacity(fields.len());
                for (name, value) in fields {
                    headers.append(name, value.clone());
                }
                let head = Head { method: method.clone(), uri: uri.clone(), version: Version::HTTP_11, fields: headers.into() };
                Some(Outgoing { head: Box::new(head), body })
            }
        }
    }
}

/// A body without a length is chunked: without this, hyper takes a GET for one that has no body.
pub(crate) fn say_length(fields: &mut Fields, body: &RequestBody) {
    if !matches!(body, RequestBody::Empty) && fields.get(&CONTENT_LENGTH).is_none() {
        fields.map().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Reads a kept head; `None` for what the first reader would not have taken.
pub(super) fn parse(bytes: &[u8]) -> Option<Head> {
    // No more lines than line ends.
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        headers.append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    let version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    Some(Head { method: parsed.method?.parse().ok()?, uri: parsed.path?.parse().ok()?, version, fields: headers.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "GET /rank?q=a%20b HTTP/1.1\r\nHost: a.test\r\nConnection: x-hop\r\nX-Hop: 1\r\nCookie: a=b\r\ncookie: c=d\r\n\
                       X-Forwarded-For: 6.6.6.6\r\nX-Bytes: \u{e9}\r\n\r\n";

    /// What a backend would be sent: method, target and fields.
    fn shown(request: &Outgoing) -> (String, Vec<(String, Vec<u8>)>) {
        let head = &request.head;
        let fields = head.fields.as_map().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        (format!("{} {} {:?}", head.method, head.uri, head.version), fields.collect())
    }

    #[test]
    fn both_forms_give_the_same_request() {
        let client = ClientFields::new([10, 0, 0, 7].into(), false, &[], Default::default());
        let raw = Again::Raw(Bytes::from_static(RAW.as_bytes()), Version::HTTP_11);
        let first = raw.request(RequestBody::Empty, &client).unwrap();
        let headers = first.head.fields.as_map();
        assert_eq!(headers["x-forwarded-for"], "10.0.0.7");
        assert!(!headers.contains_key("x-hop") && headers.get_all("cookie").iter().count() == 2);
        let prepared =
            Again::prepared(&raw.request(RequestBody::Empty, &client).unwrap().head).request(RequestBody::Empty, &client).unwrap();
        assert_eq!(shown(&first), shown(&prepared));
        assert_eq!(shown(&first).0, "GET /rank?q=a%20b HTTP/1.1");
    }

    #[test]
    fn what_is_asked_of_the_server_is_the_second_time_too() {
        let client = ClientFields::new([10, 0, 0, 7].into(), false, &[], Default::default());
        let raw = Again::Raw(Bytes::from_static(b"OPTIONS http://a.test HTTP/1.1\r\nHost: b.test\r\n\r\n"), Version::HTTP_11);
        let request = raw.request(RequestBody::Empty, &client).unwrap();
        assert_eq!(
            (shown(&request).0.as_str(), &request.head.fields.as_map()["host"]),
            ("OPTIONS * HTTP/1.1", &HeaderValue::from_static("a.test"))
        );
    }

    #[test]
    fn half_a_head_is_none() {
        let client = ClientFields::new([10, 0, 0, 7].into(), false, &[], Default::default());
        for end in 0..RAW.len() - 1 {
            let raw = Again::Raw(Bytes::from_static(&RAW.as_bytes()[..end]), Version::HTTP_11);
            assert!(raw.request(RequestBody::Empty, &client).is_none(), "{end}");
        }
    }
}
