//! HTTP/1.1 towards backends: one query at a time on a connection.
//!
//! Invariant: a connection that is given back has written its whole request and read its whole response, and nothing more has come.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::{Method, Response};

use super::super::head::{Head, Outgoing};
use super::super::seen::Seen;
use super::super::upstream::Hearers;
use super::download::{BackendBody, PassedLines};
use super::fields;
use super::out::{Out, Unsendable};
use super::response::{Final, Head as ResponseHead, Reader};
use super::stream::{ROOM, Stream};
use crate::quality::Broken;

/// A connection.
pub(crate) struct Wire(pub(super) Rc<RefCell<Inner>>);

/// Why there was no response.
pub(crate) enum Unanswered {
    /// Nothing of it was sent: here it is.
    Unsent(Box<Outgoing>),
    /// The connection ended, or the request's body did.
    Closed,
    /// What came makes no sense.
    Broken(Broken),
}

pub(super) struct Inner {
    pub(super) stream: Stream,
    pub(super) read: BytesMut,
    reader: Reader,
    pub(super) out: Out,
    /// It ends with the query that it carries.
    pub(super) is_over: bool,
    /// The request's body broke off while its response came.
    pub(super) has_broken_body: bool,
    /// Who waits for the response, while somebody else sends.
    pub(super) waits: Option<Waker>,
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
        !self.is_over() && self.0.borrow_mut().stream.is_silent()
    }

    /// It ends with the query that it carried.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.0.borrow();
        inner.is_over || !inner.read.is_empty() || !inner.out.is_through()
    }

    /// Sends a query, and waits for the head of its response.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(&self, request: Outgoing, hearers: Hearers<'_>) -> Result<(Response<BackendBody>, Seen), Unanswered> {
        let Outgoing { head, body } = request;
        let method = head.method.clone();
        self.0.borrow_mut().out.begin(&head, body);
        // Until something of it was written.
        let mut unsent = Some(head);
        let answer = std::future::poll_fn(|cx| self.0.borrow_mut().poll_answer(cx, &method, &mut unsent, hearers));
        let Final { response, lines, seen, length, keeps } = *answer.await?;
        let body = BackendBody::begin(&self.0, length, keeps, lines.map(|lines| Box::new(PassedLines { lines, seen })));
        Ok((response.map(|()| body), seen))
    }
}

impl Inner {
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        unsent: &mut Option<Box<Head>>,
        hearers: Hearers<'_>,
    ) -> Poll<Result<Box<Final>, Unanswered>> {
        if !self.out.is_through() {
            let sent = self.out.poll_send(cx, &mut self.stream);
            if self.out.has_begun
                && let Some(mut head) = unsent.take()
                && head.fields.lines().is_none()
            {
                fields::give_back(std::mem::take(head.fields.map()));
            }
            match sent {
                Poll::Pending | Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Unsendable::Body)) => return Poll::Ready(Err(self.closes())),
                Poll::Ready(Err(Unsendable::Connection)) => match unsent.take().zip(self.out.take_body()) {
                    Some((head, body)) => return Poll::Ready(Err(Unanswered::Unsent(Box::new(Outgoing { head, body })))),
                    // It may have answered all the same.
                    None => self.is_over = true,
                },
            }
        }
        loop {
            match self.reader.take(&mut self.read, method) {
                Ok(Some(ResponseHead::Final(head))) => return Poll::Ready(Ok(head)),
                Ok(Some(ResponseHead::Interim(status, headers))) => hearers.hear(status, headers),
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
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.stream.poll_fill(cx, &mut self.read, room)
    }
}
