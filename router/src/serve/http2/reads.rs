//! Both ways of a stream, for whoever reads what comes and for whoever writes.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http_body::Frame;

use super::streams::{StreamBroke, Streams};

/// Reads what comes on a stream, and says when nobody wants more of it.
pub(super) struct Reads {
    pub(super) streams: Rc<RefCell<Streams>>,
    pub(super) id: u32,
}

impl Reads {
    /// Of a stream that somebody is to read.
    pub(super) fn new(streams: &Rc<RefCell<Streams>>, id: u32) -> Reads {
        streams.borrow_mut().is_read(id);
        Reads { streams: streams.clone(), id }
    }

    /// The next piece.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamBroke>>> {
        self.streams.borrow_mut().poll_comes(cx, self.id)
    }

    /// Nothing more is to be read.
    pub(super) fn has_ended(&self) -> bool {
        self.streams.borrow().has_ended(self.id)
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.streams.borrow_mut().stops_reading(self.id);
    }
}

/// Writes on a stream, to its end or until it is dropped: then the other side is told that no more comes.
pub(super) struct Writes {
    pub(super) streams: Rc<RefCell<Streams>>,
    pub(super) id: u32,
}

impl Writes {
    /// On the stream that somebody reads.
    pub(super) fn new(reads: &Reads) -> Writes {
        Writes { streams: reads.streams.clone(), id: reads.id }
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.streams.borrow_mut().stops_writing(self.id, Reason::CANCEL);
    }
}
