//! Trailers: what must not come behind a body is taken out. A head is where framing, hops and whose word counts are settled.

use bytes::Bytes;
use http::HeaderName;
use http_body::Frame;

use super::seen::{FORWARDED_PREFIX, OWN_PREFIX};

/// Fields of a hop, of framing and of whom a request is for, which mean nothing there or something that was not looked at.
const NEVER: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "te",
    "trailer",
    "host",
    "via",
    "forwarded",
];

/// The trailers that pass; `None` when nothing is left. Data passes as it is.
#[cold]
pub(super) fn cleaned(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    let mut fields = match frame.into_trailers() {
        Ok(fields) => fields,
        Err(data) => return Some(data),
    };
    let gone: Vec<HeaderName> = fields.keys().filter(|name| !passes(name.as_str())).cloned().collect();
    for name in gone {
        fields.remove(name);
    }
    (!fields.is_empty()).then(|| Frame::trailers(fields))
}

fn passes(name: &str) -> bool {
    !(NEVER.contains(&name) || name.starts_with(OWN_PREFIX) || name.starts_with(FORWARDED_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn left(names: &[&'static str]) -> Option<Vec<String>> {
        let fields: HeaderMap = names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let frame = cleaned(Frame::trailers(fields))?;
        Some(frame.into_trailers().unwrap().keys().map(ToString::to_string).collect())
    }

    #[test]
    fn what_belongs_into_a_head_does_not_pass() {
        for name in NEVER.into_iter().chain(["x-switchback-pool", "x-forwarded-for", "x-forwarded-proto"]) {
            assert_eq!(left(&[name]), None, "{name}");
            assert_eq!(left(&["x-checksum", name, "grpc-status"]).unwrap(), ["x-checksum", "grpc-status"], "{name}");
        }
    }

    #[test]
    fn data_passes() {
        let frame = cleaned(Frame::data(Bytes::from_static(b"ok"))).unwrap();
        assert_eq!(frame.into_data().unwrap(), "ok");
    }
}
