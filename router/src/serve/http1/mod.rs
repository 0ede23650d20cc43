//! The router's own HTTP/1.1 towards backends: one query at a time on a connection, without a task of its own.
//!
//! ```text
//! Request -> head into a buffer that is used again -> one write, with the body's first slice -> backend
//! backend -> one buffer -> head and body are slices of it -> Response, whose body gives the connection back
//! ```
//!
//! hyper's client does the same for upgrades, where the connection is another protocol's in the end. What a response can be ambiguous in is refused
//! ([`response`], [`chunks`]).
//!
//! Invariant: a connection that is given back has written its whole request and read its whole response, and nothing more has come.

mod body;
mod chunks;
mod out;
mod response;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::request::Parts;
use http::{Method, Request, Response};

pub(crate) use body::{BackendBody, BackendBroke};
pub(crate) use stream::Stream;

use self::out::{Out, Unsendable};
use self::response::{Final, Head, Reader};
use super::replay::RequestBody;
use super::seen::Seen;
use super::upstream::Hearers;
use crate::quality::Broken;

/// Room for a response, where less than a quarter of it is left.
const ROOM: usize = 8 << 10;

/// A connection.
pub(crate) struct Wire(Rc<RefCell<Inner>>);

/// Why there was no response.
pub(crate) enum Unanswered {
    /// Nothing of it was sent: here it is.
    Unsent(Box<Request<RequestBody>>),
    /// The connection ended, or the request's body did.
    Closed,
    /// What came makes no sense.
    Broken(Broken),
}

struct Inner {
    stream: Stream,
    read: BytesMut,
    reader: Reader,
    out: Out,
    /// It ends with the query that it carries.
    is_over: bool,
    /// The request's body broke off while its response came.
    has_broken_body: bool,
    /// Who waits for the response, while somebody else sends.
    waits: Option<Waker>,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Wire {
        Wire(Rc::new(RefCell::new(Inner {
            stream,
            read: BytesMut::new(),
            reader: Reader::default(),
            out: Out::default(),
            is_over: false,
            has_broken_body: false,
            waits: None,
        })))
    }

    /// Another query may go over it.
    pub(crate) fn is_usable(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        !inner.is_over && inner.read.is_empty() && inner.out.is_through() && inner.stream.is_silent()
    }

    /// Sends a query, and waits for the head of its response.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        hearers: Hearers<'_>,
    ) -> Result<(Response<BackendBody>, Seen), Unanswered> {
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        self.0.borrow_mut().out.begin(&parts, body);
        // Until something of it was written.
        let mut unsent = Some(parts);
        let answer = std::future::poll_fn(|cx| self.0.borrow_mut().poll_answer(cx, &method, &mut unsent, hearers));
        let Final { response, seen, length, keeps } = *answer.await?;
        let body = BackendBody::begin(&self.0, length, keeps);
        Ok((response.map(|()| body), seen))
    }
}

impl Inner {
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        unsent: &mut Option<Parts>,
        hearers: Hearers<'_>,
    ) -> Poll<Result<Box<Final>, Unanswered>> {
        if !self.out.is_through() {
            let sent = self.out.poll_send(cx, &mut self.stream);
            if self.out.has_begun
                && let Some(parts) = unsent.take()
            {
                self.reader.reuse(parts.headers);
            }
            match sent {
                Poll::Pending | Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Unsendable::Body)) => return Poll::Ready(Err(self.closes())),
                Poll::Ready(Err(Unsendable::Connection)) => match unsent.take().zip(self.out.take_body()) {
                    Some((parts, body)) => return Poll::Ready(Err(Unanswered::Unsent(Box::new(Request::from_parts(parts, body))))),
                    // It may have answered all the same.
                    None => self.is_over = true,
                },
            }
        }
        loop {
            match self.reader.take(&mut self.read, method) {
                Ok(Some(Head::Final(head))) => return Poll::Ready(Ok(head)),
                Ok(Some(Head::Interim(status, headers))) => hearers.hear(status, headers),
                Ok(None) => match ready!(self.poll_fill(cx, ROOM)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(Err(self.closes())),
                },
                Err(broken) => {
                    self.is_over = true;
                    return Poll::Ready(Err(Unanswered::Broken(broken)));
                }
            }
        }
    }

    fn closes(&mut self) -> Unanswered {
        self.is_over = true;
        Unanswered::Closed
    }

    /// Appends what has come; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < room / 4 {
            self.read.reserve(room);
        }
        self.stream.poll_read(cx, &mut self.read)
    }
}
