//! One stream until its response is sent: interim responses, the head, and the body as it comes.

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use h2::Reason;
use http::header::{CONTENT_LENGTH, DATE, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response, StatusCode, response};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::super::super::body::{PassError, ResponseBody};
use super::super::super::http1::{self, PassedLines, date_now};
use super::super::super::issue::TOKEN;
use super::super::hints::Hints;
use super::super::hpack::Encoder;
use super::super::reads::{Reads, Writes};
use super::super::sending::Sending;
use super::super::streams::Streams;
use super::super::strip_connection_fields;
use super::super::tunnel::StreamIo;

/// A stream that is being answered.
pub(super) struct Reply {
    pub(super) streams: Rc<RefCell<Streams>>,
    pub(super) id: u32,
    pub(super) hints: Arc<Hints>,
    pub(super) is_head: bool,
    /// What comes on the stream for the tunnel that is asked for, and who waits for it.
    pub(super) opening: Option<(Reads, oneshot::Sender<StreamIo>)>,
    /// Its stream is the tunnel's now.
    pub(super) is_tunnel: bool,
}

impl Reply {
    /// Until all of it is written, or nobody wants it any more.
    pub(super) async fn run(mut self, answering: Pin<Box<impl Future<Output = Response<ResponseBody>>>>) {
        if let Some(response) = self.wait_for(answering).await
            && let Some(mut sending) = self.begin(response)
        {
            std::future::poll_fn(|cx| sending.poll(cx, &self.streams, self.id)).await;
        }
    }

    /// The response, with the interim ones said before it; `None` when the client has lost interest.
    async fn wait_for(&mut self, mut answering: Pin<Box<impl Future<Output = Response<ResponseBody>>>>) -> Option<Response<ResponseBody>> {
        std::future::poll_fn(|cx| {
            let answer = answering.as_mut().poll(cx);
            let mut streams = self.streams.borrow_mut();
            streams.is_begun(self.id);
            for hint in self.hints.take(cx) {
                streams.write_fields(self.id, false, |encoder, out| {
                    encoder.status(hint.status().as_u16(), out);
                    write_map(encoder, out, hint.headers());
                });
            }
            match answer {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => streams.poll_reset(cx, self.id).map(|_: Reason| None),
            }
        })
        .await
    }

    /// Writes the head; `Some` with the body, if that is still to be sent.
    fn begin(&mut self, response: Response<ResponseBody>) -> Option<Sending<ResponseBody>> {
        let (mut head, mut body) = response.into_parts();
        if let Some((reads, open)) = self.opening.take().filter(|_| head.status.is_success()) {
            let held = body.in_progress().map(|in_progress| {
                in_progress.is_tunnel();
                Box::new(in_progress) as Box<dyn Any>
            });
            strip_connection_fields(&mut head.headers);
            self.write_head(&head, None, None, false);
            let writes = Writes::new(&reads);
            let tunnel = StreamIo::new(reads, writes, held);
            self.is_tunnel = true;
            // Who asked for it may be gone: then it is closed by being dropped.
            let _ = open.send(tunnel);
            return None;
        }
        strip_connection_fields(&mut head.headers);
        let lines = body.take_lines();
        let has_none = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = body.size_hint().exact().filter(|length| *length > 0 && !has_none);
        let is_empty = self.is_head || has_none || body.is_end_stream();
        self.write_head(&head, lines.as_deref(), length, is_empty);
        http1::give_back(head.headers);
        (!is_empty).then(|| Sending::new(body, PassError::reason, write_map))
    }

    /// `lines` are fields of a backend, before those of `head`.
    fn write_head(&self, head: &response::Parts, lines: Option<&PassedLines>, length: Option<u64>, ends: bool) {
        self.streams.borrow_mut().write_fields(self.id, ends, |encoder, out| {
            encoder.status(head.status.as_u16(), out);
            let (mut says_length, mut has_date) = (false, false);
            if let Some(passed) = lines {
                (says_length, has_date) = (passed.seen.content_lengths > 0, passed.seen.has_date);
                passed.lines.each(|name, value| write_line(encoder, out, name, value));
            }
            write_map(encoder, out, &head.headers);
            if let Some(length) = length
                && !says_length
                && !head.headers.contains_key(CONTENT_LENGTH)
            {
                encoder.field(b"content-length", HeaderValue::from(length).as_bytes(), out);
            }
            // RFC 9110, 6.6.1.
            if !has_date && !head.headers.contains_key(DATE) {
                date_now(|date| encoder.field(b"date", date, out));
            }
        });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_tunnel {
            self.streams.borrow_mut().stops_writing(self.id, Reason::INTERNAL_ERROR);
        }
    }
}

/// No other response has this token, and cookies are secrets: in a table of fields they would only be in the way of those that come again.
fn write_line(encoder: &mut Encoder, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let is_of_its_own = match name.len() {
        TOKEN_BYTES => name.eq_ignore_ascii_case(TOKEN.as_bytes()),
        SET_COOKIE_BYTES => name.eq_ignore_ascii_case(SET_COOKIE.as_str().as_bytes()),
        _ => false,
    };
    if is_of_its_own { encoder.field_once(name, value, out) } else { encoder.field(name, value, out) }
}

const TOKEN_BYTES: usize = TOKEN.len();
const SET_COOKIE_BYTES: usize = "set-cookie".len();

fn write_map(encoder: &mut Encoder, out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if value.is_sensitive() {
            encoder.field_once(name.as_str().as_bytes(), value.as_bytes(), out);
        } else {
            write_line(encoder, out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}
