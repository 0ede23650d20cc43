//! Events on the traffic listener: a worker reads the bounded body as it comes, and hands it to the desk, which answers.
//!
//! Invariant: a worker never reads what is in a body, and never waits for who does but with the client's own request.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use super::answer;
use super::body::ResponseBody;
use super::head::{Fields, Head};
use super::incoming::Incoming;
use super::query;
use crate::config;
use crate::quality::events::{Buffered, EventRefusal, EventsDesk, Report};

/// Where events come in on this worker.
pub(crate) struct EventsDoor {
    path: String,
    is_public: bool,
    max_body: usize,
    /// For the whole body.
    within: Duration,
    desk: EventsDesk,
}

impl EventsDoor {
    pub(crate) fn new(events: &config::Events, limits: &config::Limits, desk: EventsDesk) -> Rc<EventsDoor> {
        let within = limits.body_idle_timeout.min(limits.upload_timeout);
        Rc::new(EventsDoor { path: events.path.clone(), is_public: events.is_public, max_body: events.max_body, within, desk })
    }

    /// Whether a request is for here and not for a backend.
    #[inline]
    pub(crate) fn is_for(&self, head: &Head) -> bool {
        head.uri.path() == self.path
    }

    /// Takes a request with events from this address.
    pub(crate) async fn answer(&self, head: &Head, mut body: Incoming, from: IpAddr) -> Response<ResponseBody> {
        let report = match self.check(head) {
            Err(refusal) => self.desk.refuse(refusal),
            Ok(()) => match self.read(&mut body).await {
                Err(refusal) => self.desk.refuse(refusal),
                Ok((pieces, buffered)) => self.desk.deliver(from, pieces, buffered).await,
            },
        };
        let mut response = response(&report);
        if !body.is_end_stream() {
            answer::say_close(&mut response);
        }
        response
    }

    fn check(&self, head: &Head) -> Result<(), EventRefusal> {
        if !self.is_public {
            return Err(EventRefusal::Closed);
        }
        if head.method != Method::POST {
            return Err(EventRefusal::Method);
        }
        if is_encoded(&head.fields) {
            return Err(EventRefusal::Encoded);
        }
        if query::announces_more(head, u64::try_from(self.max_body).unwrap_or(u64::MAX)) {
            return Err(EventRefusal::TooLarge);
        }
        Ok(())
    }

    /// The whole body, as it came. Nothing is set aside for what it says of its length.
    async fn read(&self, body: &mut Incoming) -> Result<(Vec<Bytes>, Buffered), EventRefusal> {
        let (mut pieces, mut bytes, mut buffered) = (Vec::new(), 0, self.desk.buffered());
        let reading = async {
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                let Ok(piece) = frame.map_err(|_| EventRefusal::BrokenOff)?.into_data() else { continue };
                bytes += piece.len();
                if bytes > self.max_body {
                    return Err(EventRefusal::TooLarge);
                }
                // A piece costs some memory of its own, however small it is.
                if !buffered.grow(piece.len() + PIECE_BYTES) {
                    return Err(EventRefusal::QueueFull);
                }
                pieces.push(piece);
            }
            Ok(())
        };
        tokio::time::timeout(self.within, reading).await.map_err(|_| EventRefusal::BrokenOff)??;
        Ok((pieces, buffered))
    }
}

/// Of a piece of a body, beside what is in it.
const PIECE_BYTES: usize = 64;

/// Whether the body has a coding: what it would grow to is not to be found out.
fn is_encoded(fields: &Fields) -> bool {
    fields.all("content-encoding").any(|value| !value.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn response(report: &Report) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(Some(Bytes::from(report.body()))));
    *response.status_mut() = StatusCode::from_u16(report.status()).unwrap_or(StatusCode::ACCEPTED);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = report.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if report.status() == 405 {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
