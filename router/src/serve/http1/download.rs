//! The body of a backend's response: read as it is asked for. When it is through, so is the query.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::super::seen::Seen;
use super::chunks::{Chunks, Piece};
use super::client::Inner;
use super::lines::Lines;
use super::out::Unsendable;
use super::response::Length;
use super::stream::{LARGE, ROOM};

/// The body.
pub(crate) struct BackendBody {
    /// `None` when it is through.
    wire: Option<Rc<RefCell<Inner>>>,
    left: Left,
    /// The connection goes on behind it.
    keeps: bool,
    /// Who sends the rest of the request.
    sends: Option<AbortHandle>,
    /// The fields of its head, where they pass as they came.
    lines: Option<Box<PassedLines>>,
}

/// Fields of a backend's response that pass as they came.
#[derive(Debug)]
pub(crate) struct PassedLines {
    pub(crate) lines: Lines,
    pub(crate) seen: Seen,
}

enum Left {
    Known(u64),
    Chunks(Chunks),
    ToClose,
}

/// How it broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackendBroke {
    /// The backend closed the connection in the middle of it.
    #[error("the connection was closed before the end")]
    Closed,
    /// It is not chunked as it should be.
    #[error("it is not chunked as it should be")]
    Malformed,
    /// The request's own body broke off.
    #[error("the request's body broke off")]
    Request,
}

impl BackendBody {
    pub(super) fn begin(wire: &Rc<RefCell<Inner>>, length: Length, keeps: bool, lines: Option<Box<PassedLines>>) -> BackendBody {
        let left = match length {
            Length::Known(length) => Left::Known(length),
            Length::Chunked => Left::Chunks(Chunks::default()),
            Length::ToClose => Left::ToClose,
        };
        let is_sent = wire.borrow().out.is_through();
        let sends = (!is_sent).then(|| tokio::task::spawn_local(send_rest(wire.clone())).abort_handle());
        let mut body = BackendBody { wire: Some(wire.clone()), left, keeps, sends, lines };
        if matches!(body.left, Left::Known(0)) {
            body.is_through();
        }
        body
    }

    /// The fields of its head, where they pass as they came: the head has none then.
    pub(crate) fn take_lines(&mut self) -> Option<Box<PassedLines>> {
        self.lines.take()
    }

    /// All of it, where it came with its head: then the query is through.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let Left::Known(left) = self.left else { return None };
        let data = {
            let mut inner = self.wire.as_ref()?.borrow_mut();
            let left = usize::try_from(left).ok().filter(|left| inner.read.len() >= *left)?;
            inner.read.split_to(left).freeze()
        };
        self.is_through();
        Some(data)
    }

    /// All of it was read.
    fn is_through(&mut self) {
        if let Some(wire) = self.wire.take() {
            let mut inner = wire.borrow_mut();
            inner.is_over |= !self.keeps || !inner.out.is_through();
            if inner.read.is_empty() {
                // Memory that others share is not held by who waits.
                inner.read = BytesMut::new();
            }
        }
        self.stop_sending();
    }

    fn stop_sending(&mut self) {
        if let Some(sends) = self.sends.take() {
            sends.abort();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BackendBroke>>> {
        let Some(wire) = &self.wire else { return Poll::Ready(None) };
        let mut inner = wire.borrow_mut();
        loop {
            if inner.has_broken_body {
                return Poll::Ready(Some(Err(BackendBroke::Request)));
            }
            let (piece, room) = match &mut self.left {
                Left::Known(left) => {
                    let here = inner.read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= here as u64;
                    let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                    let piece = (here > 0).then(|| Piece::Data(inner.read.split_to(here).freeze()));
                    (piece, wanted.clamp(ROOM, LARGE))
                }
                Left::Chunks(chunks) => (chunks.take(&mut inner.read).map_err(|_| BackendBroke::Malformed)?, LARGE),
                Left::ToClose => {
                    let here = inner.read.split();
                    ((!here.is_empty()).then(|| Piece::Data(here.freeze())), LARGE)
                }
            };
            match piece {
                Some(Piece::Data(data)) => {
                    drop(inner);
                    if matches!(self.left, Left::Known(0)) {
                        self.is_through();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Piece::Trailers(trailers)) => {
                    drop(inner);
                    self.is_through();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Some(Piece::End) => {
                    drop(inner);
                    self.is_through();
                    return Poll::Ready(None);
                }
                None => {}
            }
            if self.sends.is_some() {
                inner.waits = Some(cx.waker().clone());
            }
            match ready!(inner.poll_fill(cx, room)) {
                Ok(1..) => {}
                Ok(0) if matches!(self.left, Left::ToClose) => {
                    drop(inner);
                    self.is_through();
                    return Poll::Ready(None);
                }
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BackendBroke::Closed))),
            }
        }
    }
}

/// The response has begun, and the request is not through: both go on.
async fn send_rest(wire: Rc<RefCell<Inner>>) {
    let sent = std::future::poll_fn(|cx| {
        let inner = &mut *wire.borrow_mut();
        inner.out.poll_send(cx, &mut inner.stream)
    });
    let sent = sent.await;
    let mut inner = wire.borrow_mut();
    if let Err(fault) = sent {
        inner.is_over = true;
        inner.out.forget();
        inner.has_broken_body = fault == Unsendable::Body;
    }
    if let Some(waits) = inner.waits.take() {
        waits.wake();
    }
}

impl Body for BackendBody {
    type Data = Bytes;
    type Error = BackendBroke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BackendBroke>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.wire.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.wire, &self.left) {
            (None, _) => SizeHint::with_exact(0),
            (_, Left::Known(left)) => SizeHint::with_exact(*left),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for BackendBody {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire {
            wire.borrow_mut().is_over = true;
        }
        self.stop_sending();
    }
}
