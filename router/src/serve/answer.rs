//! The router's own answers: short plain text that says what is wrong and what would be right.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::upstream::Failure;
use crate::quality::Refusal;

/// To a request that does not become a query.
pub(crate) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let (status, text) = match refusal {
        Refusal::NoRoute => (StatusCode::NOT_FOUND, "switchback: no route matches this host and path\n"),
        Refusal::Framing => (
            StatusCode::BAD_REQUEST,
            "switchback: where the request ends can be read in two ways: send one Content-Length, or Transfer-Encoding: chunked alone, and end \
             each line with CR LF\n",
        ),
        Refusal::Host => (
            StatusCode::BAD_REQUEST,
            "switchback: a request needs exactly one Host (a name or an address, and perhaps a port), and a target that begins with / or http\n",
        ),
        Refusal::Path => (StatusCode::BAD_REQUEST, "switchback: the path has a . or .. segment: send it as it is without them\n"),
        Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "switchback: CONNECT and TRACE are not passed on\n"),
        Refusal::Head => (StatusCode::BAD_REQUEST, "switchback: the request's head cannot be read\n"),
        Refusal::Tls => (
            StatusCode::BAD_REQUEST,
            "switchback: TLS was spoken to a port for plain HTTP: ask with http://, or the port of listen.traffic_tls\n",
        ),
        Refusal::HeadSize => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "switchback: the request's head is too large, or has too many fields\n")
        }
        Refusal::BodySize => (StatusCode::PAYLOAD_TOO_LARGE, "switchback: the request's body is larger than this route allows\n"),
        Refusal::BodyTime => (StatusCode::REQUEST_TIMEOUT, "switchback: the request's body did not come in time\n"),
        // These end connections, and are no answers.
        Refusal::HeadTime
        | Refusal::QueryTime
        | Refusal::SlowReader
        | Refusal::Resets
        | Refusal::Http2
        | Refusal::Connections
        | Refusal::Address
        | Refusal::Handshake
        | Refusal::NoTls => (StatusCode::SERVICE_UNAVAILABLE, "switchback: no connection\n"),
    };
    let mut response = own(status, text.to_owned());
    if !matches!(refusal, Refusal::NoRoute | Refusal::Path) {
        // Whatever follows on this connection cannot be trusted to start where we think.
        say_close(&mut response);
    }
    response
}

/// Says that the connection closes after this: also where a part of the request's body is still to come, which nobody reads.
pub(crate) fn say_close(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// To a query that no backend answered.
pub(crate) fn unanswered(failure: &Failure) -> Response<ResponseBody> {
    let status = match failure {
        Failure::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Failure::Full | Failure::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Client | Failure::Late => StatusCode::REQUEST_TIMEOUT,
        Failure::Malformed => StatusCode::BAD_REQUEST,
        Failure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Connect { .. } | Failure::Closed { .. } | Failure::Refused | Failure::Broken(_) => StatusCode::BAD_GATEWAY,
    };
    // Addresses of backends are not for clients.
    let text = match failure {
        Failure::Connect { .. } => "no backend could be reached".to_owned(),
        other => other.to_string(),
    };
    own(status, format!("switchback: {text}\n"))
}

fn own(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
