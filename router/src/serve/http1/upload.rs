//! The body of a client's request: read as it is asked for.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::chunks::{Chunks, Piece};
use super::io::Io;
use super::response::Length;
use super::stream::{LARGE, ROOM};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much of a body that nobody wants is passed over, so that its connection can go on.
const UNWANTED: usize = 64 << 10;

/// What is still to come of a request.
#[derive(Debug)]
pub(super) struct Upload {
    left: Left,
    /// The client waits until it hears 100.
    expects_continue: bool,
}

#[derive(Debug)]
enum Left {
    Known(u64),
    Chunks(Chunks),
    /// Nothing more can be known of it.
    Broken(ClientBroke),
}

/// How a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientBroke {
    /// The client closed its connection in the middle of it.
    #[error("the client closed the connection before the end")]
    Closed,
    /// It is not chunked as it should be.
    #[error("it is not chunked as it should be")]
    Malformed,
}

impl Default for Upload {
    fn default() -> Upload {
        Upload { left: Left::Known(0), expects_continue: false }
    }
}

impl Upload {
    pub(super) fn new(length: Length, expects_continue: bool) -> Upload {
        let left = match length {
            Length::Known(length) => Left::Known(length),
            Length::Chunked => Left::Chunks(Chunks::default()),
            // No request has such a body.
            Length::ToClose => Left::Known(0),
        };
        Upload { left, expects_continue }
    }

    /// Nobody reads it, and where the next request would begin is not known.
    pub(super) fn given_up() -> Upload {
        Upload { left: Left::Broken(ClientBroke::Closed), expects_continue: false }
    }

    /// The next piece out of what has come; `None` while more has to come.
    fn take(&mut self, read: &mut BytesMut) -> Result<Option<Piece>, ClientBroke> {
        match &mut self.left {
            Left::Known(0) => Ok(Some(Piece::End)),
            Left::Known(left) => {
                let here = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= here as u64;
                Ok((here > 0).then(|| Piece::Data(read.split_to(here).freeze())))
            }
            Left::Chunks(chunks) => chunks.take(read).map_err(|_| ClientBroke::Malformed),
            Left::Broken(broke) => Err(*broke),
        }
    }

    /// For what comes next.
    fn room(&self) -> usize {
        match &self.left {
            Left::Known(left) => usize::try_from(*left).unwrap_or(usize::MAX).clamp(ROOM, LARGE),
            _ => LARGE,
        }
    }

    /// All of it was read.
    pub(super) fn is_over(&self) -> bool {
        match &self.left {
            Left::Known(left) => *left == 0,
            Left::Chunks(chunks) => chunks.are_over(),
            Left::Broken(_) => false,
        }
    }
}

impl Io {
    /// The next piece of the request's body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        loop {
            let piece = match self.upload.take(&mut self.read) {
                Ok(piece) => piece,
                Err(broke) => return self.breaks(broke),
            };
            match piece {
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Piece::End) => return Poll::Ready(None),
                None => {}
            }
            if std::mem::take(&mut self.upload.expects_continue) && self.read.is_empty() && self.send(cx, CONTINUE).is_err() {
                return self.breaks(ClientBroke::Closed);
            }
            let room = self.upload.room();
            match ready!(self.poll_fill(cx, room)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return self.breaks(ClientBroke::Closed),
            }
        }
    }

    fn breaks<T>(&mut self, broke: ClientBroke) -> Poll<Option<Result<T, ClientBroke>>> {
        self.upload.left = Left::Broken(broke);
        Poll::Ready(Some(Err(broke)))
    }

    /// Whether another request may follow a response that begins before all of the body was read. `is_whole`: all of the response is here, and nobody reads
    /// the rest of the body any more. Where somebody may, what can be too much to be passed over counts as that.
    #[cold]
    pub(super) fn may_go_on(&mut self, cx: &mut Context<'_>, is_whole: bool) -> bool {
        if is_whole {
            return self.passes_over_upload(cx);
        }
        matches!(self.upload.left, Left::Known(left) if left <= UNWANTED as u64) && !self.upload.expects_continue
    }

    /// Passes over what nobody wanted of a body, if all of it is here; whether another request can follow.
    pub(super) fn passes_over_upload(&mut self, cx: &mut Context<'_>) -> bool {
        // Whether a body that was not asked for comes nevertheless cannot be told from what comes next.
        if self.upload.expects_continue && !self.upload.is_over() {
            return false;
        }
        let mut passed = 0;
        while !self.upload.is_over() && passed < UNWANTED {
            match self.poll_upload(cx) {
                Poll::Ready(Some(Ok(frame))) => passed += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
        self.upload.is_over()
    }
}

/// The body.
pub(crate) struct ClientBody(pub(super) Rc<RefCell<Io>>);

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBroke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        self.0.borrow_mut().poll_upload(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().upload.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.borrow().upload.left {
            Left::Known(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

/// A body out of what is here and what comes in pieces; `None` where it breaks off.
#[cfg(test)]
pub(crate) fn read_body<'a>(
    head: &super::request::RequestHead,
    buffer: &mut bytes::BytesMut,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<Bytes> {
    let mut upload = Upload::new(head.length, false);
    let mut body = Vec::new();
    loop {
        let piece = upload.take(buffer).ok()?;
        match piece {
            Some(Piece::Data(data)) => body.extend_from_slice(&data),
            Some(Piece::Trailers(_) | Piece::End) => return Some(body.into()),
            None => buffer.extend_from_slice(pieces.next()?),
        }
    }
}
