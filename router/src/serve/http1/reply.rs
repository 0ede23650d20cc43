//! A response on its way to a client: its head, and its body as it comes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Response, StatusCode, Version, response};
use http_body::{Body as _, Frame};
use hyper::ext::ReasonPhrase;

use super::super::body::{PassError, ResponseBody};
use super::super::seen::Seen;
use super::download::PassedLines;
use super::fields::{self, number};
use super::io::Io;
use super::out::write_fields;

/// What is shorter is copied behind what is before it, so that both are written at once.
const SHORT: usize = 16 << 10;
/// So much is gathered before it is written.
const GATHERED: usize = 32 << 10;

/// What a response has to know of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// Another request may follow.
    pub(super) keeps: bool,
    pub(super) takes_trailers: bool,
}

/// How the client knows where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Known(u64),
    Chunked,
    /// When the connection closes.
    ToClose,
}

/// A response that is being written.
pub(super) struct Reply {
    body: ResponseBody,
    framing: Framing,
    /// The trailers that the head announces, which are those that pass.
    trailers: Vec<HeaderName>,
    is_over: bool,
}

/// It cannot be written to its end.
#[derive(Debug)]
pub(super) struct BrokenOff;

impl From<io::Error> for BrokenOff {
    fn from(_: io::Error) -> BrokenOff {
        BrokenOff
    }
}

thread_local! {
    /// What is being put together for one write.
    static GATHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Reply {
    /// Begins with a response, as far as it goes at once. `facts.keeps` is false afterwards where the connection ends with it.
    ///
    /// # Errors
    /// [`BrokenOff`].
    pub(super) fn begin(
        cx: &mut Context<'_>,
        response: Response<ResponseBody>,
        facts: &mut Facts,
        io: &RefCell<Io>,
    ) -> Result<Reply, BrokenOff> {
        let (head, mut body) = response.into_parts();
        let lines = body.take_lines();
        let framing = framing(&head, &body, *facts);
        let trailers = if facts.takes_trailers && framing == Framing::Chunked {
            announced_trailers(&head.headers, lines.as_deref())
        } else {
            Vec::new()
        };
        let mut reply = Reply { body, framing, trailers, is_over: false };
        GATHER.with_borrow_mut(|out| {
            out.clear();
            write_head(out, &head, lines.as_deref(), &reply, facts);
            fields::give_back(head.headers);
            if reply.framing == Framing::None {
                reply.end(out)?;
            }
            reply.pass(cx, out, io).map(drop)
        })?;
        Ok(reply)
    }

    /// Ready when all of it was written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &RefCell<Io>) -> Poll<Result<(), BrokenOff>> {
        loop {
            ready!(io.borrow_mut().poll_flush(cx))?;
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            let has_more = GATHER.with_borrow_mut(|out| {
                out.clear();
                self.pass(cx, out, io)
            })?;
            if !has_more && !self.is_over && io.borrow().is_empty() {
                // A flush may be due all the same.
                ready!(io.borrow_mut().poll_flush(cx))?;
                return Poll::Pending;
            }
        }
    }

    /// It goes no further. A client that takes its connection's end for the body's must not see one in order; any other can tell by the length or the
    /// chunks, and gets what there was.
    #[cold]
    pub(super) fn break_off(&self, io: &RefCell<Io>) {
        if self.framing == Framing::ToClose {
            io.borrow().hang_up();
        }
    }

    /// Writes `out`, and what the body has at once behind it; whether it had any.
    fn pass(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, io: &RefCell<Io>) -> Result<bool, BrokenOff> {
        let mut slice = Bytes::new();
        let mut has_more = false;
        let mut broken = Ok(());
        while !self.is_over && slice.is_empty() && out.len() < GATHERED {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(frame) => match self.frame(frame, out) {
                    Ok(long) => slice = long,
                    // The client gets what there was of it.
                    Err(fault) => {
                        broken = Err(fault);
                        break;
                    }
                },
            }
            has_more = true;
        }
        if !(out.is_empty() && slice.is_empty()) {
            let mut io = io.borrow_mut();
            if slice.is_empty() { io.send(cx, out) } else { io.send_with(cx, out, slice) }?;
        }
        broken.map(|()| has_more)
    }

    /// Takes what the body has; a slice that is too long to be copied is given back, to go behind `out`.
    fn frame(&mut self, frame: Option<Result<Frame<Bytes>, PassError>>, out: &mut Vec<u8>) -> Result<Bytes, BrokenOff> {
        let mut long = Bytes::new();
        let Some(frame) = frame else {
            self.end(out)?;
            return Ok(long);
        };
        match frame.map_err(|_| BrokenOff)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                match &mut self.framing {
                    Framing::Known(left) => *left = left.checked_sub(data.len() as u64).ok_or(BrokenOff)?,
                    Framing::Chunked => out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes()),
                    Framing::ToClose | Framing::None => {}
                }
                if self.framing == Framing::Chunked {
                    out.extend_from_slice(&data);
                    out.extend_from_slice(b"\r\n");
                } else if data.len() <= SHORT {
                    out.extend_from_slice(&data);
                } else {
                    long = data;
                }
                if self.body.is_end_stream() {
                    self.end(out)?;
                }
            }
            Err(frame) => {
                if self.framing == Framing::Chunked
                    && let Ok(mut trailers) = frame.into_trailers()
                {
                    self.end_with(&mut trailers, out);
                } else {
                    self.end(out)?;
                }
            }
        }
        Ok(long)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        match self.framing {
            Framing::Known(1..) => return Err(BrokenOff),
            Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            Framing::Known(0) | Framing::ToClose | Framing::None => {}
        }
        self.is_through();
        Ok(())
    }

    #[cold]
    fn end_with(&mut self, trailers: &mut HeaderMap, out: &mut Vec<u8>) {
        let gone: Vec<HeaderName> = trailers.keys().filter(|name| !self.trailers.contains(name)).cloned().collect();
        for name in gone {
            trailers.remove(name);
        }
        out.extend_from_slice(b"0\r\n");
        write_fields(out, trailers);
        out.extend_from_slice(b"\r\n");
        self.is_through();
    }

    /// Whatever the body held is free.
    fn is_through(&mut self) {
        self.is_over = true;
        self.body = ResponseBody::own(None);
    }
}

/// RFC 9112, 6.3, for one who sends.
fn framing(head: &response::Parts, body: &ResponseBody, facts: Facts) -> Framing {
    let has_none =
        facts.is_head || head.status.is_informational() || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none {
        return Framing::None;
    }
    let said = head.headers.get(CONTENT_LENGTH).and_then(|length| number(length.as_bytes()));
    match said.or_else(|| body.size_hint().exact()) {
        Some(length) => Framing::Known(length),
        None if facts.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::ToClose,
    }
}

/// Those that the head announces, in fields that pass as they came (`lines`) or others.
fn announced_trailers(headers: &HeaderMap, lines: Option<&PassedLines>) -> Vec<HeaderName> {
    let passed = lines.into_iter().flat_map(|passed| passed.lines.all(TRAILER.as_str()));
    let said = headers.get_all(TRAILER).iter().map(HeaderValue::as_bytes).chain(passed);
    let names = said.flat_map(|line| line.split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// `lines` are fields of a backend, before those of `head`.
fn write_head(out: &mut Vec<u8>, head: &response::Parts, lines: Option<&PassedLines>, reply: &Reply, facts: &mut Facts) {
    write_status(out, head, facts.version);
    let seen = lines.map_or(Seen::default(), |passed| passed.seen);
    if let Some(passed) = lines {
        passed.lines.write(out);
    }
    write_fields(out, &head.headers);
    facts.keeps &= reply.framing != Framing::ToClose;
    match head.headers.get(CONNECTION) {
        Some(said) => facts.keeps &= !said.as_bytes().eq_ignore_ascii_case(b"close"),
        None if !facts.keeps => out.extend_from_slice(b"connection: close\r\n"),
        None if facts.version == Version::HTTP_10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        None => {}
    }
    let says_length = seen.content_lengths > 0 || head.headers.contains_key(CONTENT_LENGTH);
    match (reply.framing, reply.body.size_hint().exact()) {
        (Framing::Known(length), _) if !says_length => write_length(out, length),
        // Of what a HEAD asks about, where it is known.
        (Framing::None, Some(length @ 1..)) if facts.is_head && !says_length => write_length(out, length),
        (Framing::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if !seen.has_date && !head.headers.contains_key(DATE) {
        write_date(out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status(out: &mut Vec<u8>, head: &response::Parts, version: Version) {
    let version = if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(HeaderValue::from(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_date(out: &mut Vec<u8>) {
    date_now(|date| {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    });
}

/// The time, as `Date` says it.
pub(crate) fn date_now(write: impl FnOnce(&[u8])) {
    thread_local! {
        /// The last one, and its second.
        static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(last, text)| {
        if *last != second {
            (*last, *text) = (second, httpdate::fmt_http_date(now));
        }
        write(text.as_bytes());
    });
}
