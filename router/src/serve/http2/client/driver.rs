//! The task of a connection: reads what the backend says, and writes what queries have to say.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::Reason;
use tokio::io::AsyncWrite as _;

use super::super::super::http1::Stream;
use super::super::alive::{ALIVE, Alive, DOUBT, Due};
use super::super::frame::{self, kind};
use super::super::frames::Frames;
use super::super::hpack::Decoder;
use super::super::streams::{StreamBroke, Streams};
use super::super::{PING_PATIENCE, ROOM};
use super::{Life, PING_EVERY};

/// The connection, as a future that ends with it.
pub(super) struct Driver {
    stream: Stream,
    pub(super) frames: Frames,
    pub(super) streams: Rc<RefCell<Streams>>,
    pub(super) decoder: Decoder,
    pub(super) life: Rc<Life>,
    pub(super) alive: Alive,
    /// Whether it is there was asked because of a doubt.
    pub(super) is_asked: bool,
    /// Nothing more is read.
    is_closing: bool,
    /// The backend has ended the connection.
    has_ended: bool,
    /// The backend takes nothing more; what it says may still come.
    is_deaf: bool,
}

impl Driver {
    pub(super) fn new(stream: Stream, streams: Rc<RefCell<Streams>>, life: Rc<Life>) -> Driver {
        Driver {
            stream,
            frames: Frames::default(),
            streams,
            decoder: Decoder::new(),
            life,
            alive: Alive::new(PING_EVERY, PING_PATIENCE),
            is_asked: false,
            is_closing: false,
            has_ended: false,
            is_deaf: false,
        }
    }

    /// Ready at its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.streams.borrow_mut().is_driven_by(cx.waker());
        loop {
            if !self.is_closing && self.poll_gone(cx).is_ready() {
                return Poll::Ready(());
            }
            let is_all_read = self.is_closing || self.poll_frames(cx).is_pending();
            if self.has_ended {
                return Poll::Ready(());
            }
            let is_written = self.poll_write(cx).is_ready();
            if self.is_closing {
                // Whoever does not take it now is not waited for.
                let _ = is_written && Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
                return Poll::Ready(());
            }
            if !is_written {
                return Poll::Pending;
            }
            if self.is_done() {
                self.ends(Reason::NO_ERROR);
            } else if is_all_read {
                return Poll::Pending;
            }
        }
    }

    /// Tells whoever waits how things are; whether nobody needs the connection any more.
    fn is_done(&self) -> bool {
        let mut streams = self.streams.borrow_mut();
        if std::mem::take(&mut streams.is_waited_for) {
            self.life.changed.notify_waiters();
        }
        let is_last = self.life.shares.get() == 0 || !self.life.is_open();
        streams.is_waited_for |= is_last;
        is_last && streams.is_empty()
    }

    /// Asks now and then whether the backend is there, and when somebody doubts it; ready when it is not.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut streams = self.streams.borrow_mut();
        if self.life.is_doubted.get() && !std::mem::replace(&mut self.is_asked, true) {
            self.alive.asks();
            frame::write(streams.out(), kind::PING, 0, 0, DOUBT);
        }
        match ready!(self.alive.poll(!streams.is_empty(), cx)) {
            Due::Gone => Poll::Ready(()),
            Due::Ask => {
                frame::write(streams.out(), kind::PING, 0, 0, ALIVE);
                self.alive.poll(true, cx).map(|_: Due| ())
            }
        }
    }

    /// Reads what has come. Pending when all of it is done; ready when something has to be written first, or it ends.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.is_deaf && self.streams.borrow().is_flooded() {
                return Poll::Ready(());
            }
            match self.take_frame() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(reason) => {
                    self.ends(reason);
                    return Poll::Ready(());
                }
            }
            self.frames.rest();
            let count = ready!(self.stream.poll_fill(cx, &mut self.frames.read, ROOM));
            if !matches!(count, Ok(1..)) {
                self.has_ended = true;
                return Poll::Ready(());
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut streams = self.streams.borrow_mut();
        if !self.is_deaf {
            self.is_deaf = ready!(streams.poll_write(cx, &mut self.stream, |_| ())).is_err();
        }
        if self.is_deaf {
            self.life.is_going.set(true);
            streams.forget_unwritten();
        }
        Poll::Ready(())
    }

    /// Nobody needs it any more; or, for any other reason, the backend broke the protocol or a limit.
    #[cold]
    fn ends(&mut self, reason: Reason) {
        self.is_closing = true;
        self.life.is_closed.set(true);
        // Whoever asked beside those that it answered badly is not told that its own answer was.
        let broke = if reason == Reason::ENHANCE_YOUR_CALM { StreamBroke::Closed } else { StreamBroke::Malformed };
        // Of its streams none was ever begun.
        self.streams.borrow_mut().go_away(0, reason, broke);
        self.life.changed.notify_waiters();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.life.is_closed.set(true);
        self.streams.borrow_mut().end_all(StreamBroke::Closed);
        self.life.changed.notify_waiters();
    }
}
