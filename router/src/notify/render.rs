//! From a notice to what is sent: headers and a body. Pure.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Notice, cdevents, cloudevents, slack};
use crate::config::NotifyFormat;

/// What the CloudEvents HTTP binding (3.1.3.2) wants encoded in a header: blank, double quote, percent, and all that is not printable ASCII.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Without those of the signature and of HTTP itself.
    pub headers: HeaderMap,
    /// JSON.
    pub body: Bytes,
}

/// A notice as a target wants it. `environment` is what this fleet is called. `None` where the format has no word for the event.
#[must_use]
pub fn render(format: NotifyFormat, notice: &Notice, environment: &str) -> Option<Rendered> {
    match format {
        NotifyFormat::CloudEvents => Some(cloudevents::structured(notice, environment)),
        NotifyFormat::CloudEventsBinary => Some(cloudevents::binary(notice, environment)),
        NotifyFormat::CdEvents => cdevents::render(notice, environment),
        NotifyFormat::Slack => Some(slack::render(notice)),
    }
}

impl Rendered {
    pub(super) fn new(content_type: &'static str, body: &Value) -> Rendered {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Rendered { headers, body: Bytes::from(body.to_string()) }
    }

    /// A header whose value is any text.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Rendered {
        let encoded = utf8_percent_encode(value, IN_HEADER).to_string();
        // What is left after encoding is always fit for a header.
        if let Ok(value) = HeaderValue::try_from(encoded) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// RFC 3339, with milliseconds, in UTC.
pub(super) fn stamp(unix_ms: u64) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    // Nothing happens after the year 9999.
    time.and_then(|time| time.format(form).ok()).unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode;
    use proptest::prelude::*;

    use super::super::notice::tests::notice;
    use super::*;
    use crate::config::NoticeEvent;

    const FORMATS: [NotifyFormat; 4] =
        [NotifyFormat::CloudEvents, NotifyFormat::CloudEventsBinary, NotifyFormat::CdEvents, NotifyFormat::Slack];

    #[test]
    fn a_header_is_encoded_as_the_binding_has_it() {
        let value = |text: &str| Rendered::new("application/json", &Value::Null).with("ce-subject", text).headers["ce-subject"].clone();
        assert_eq!(value("Euro \u{20ac} \u{1f600}"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(value("100 % \"a\" ~\u{7f}\r\n"), "100%20%25%20%22a%22%20~%7F%0D%0A");
    }

    #[test]
    fn a_time_is_rfc_3339() {
        assert_eq!(stamp(1_790_000_000_250), "2026-09-21T14:13:20.250Z");
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        /// Whatever a version or a sentence holds, all formats make good JSON of it, and headers hold it all.
        #[test]
        fn any_text_is_carried(text in "\\PC{0,300}", version in "[\\x20-\\x7e\u{e9}]{1,40}", index in 0..12_usize) {
            let event = NoticeEvent::ALL[index];
            let notice = Notice { why: text.clone(), candidate: Some(version.clone()), ..notice(event) };
            for format in FORMATS {
                let Some(rendered) = render(format, &notice, "switchback") else { continue };
                prop_assert!(serde_json::from_slice::<Value>(&rendered.body).is_ok());
                if format == NotifyFormat::CloudEventsBinary {
                    let subject = percent_decode(rendered.headers["ce-subject"].as_bytes()).decode_utf8().unwrap().into_owned();
                    prop_assert_eq!(&subject, &version);
                    let body: Value = serde_json::from_slice(&rendered.body).unwrap();
                    prop_assert_eq!(&body["why"], &text);
                }
            }
        }
    }
}
