//! All streams of a connection, and what is to be written on it: shared by the connection, by whoever asks or answers on its streams, and by their bodies.
//!
//! Invariant: a stream is here as long as somebody reads from it or writes to it; what is told of another one changes nothing.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, StatusCode};

use super::client::Final;
use super::frame;
use super::hpack::Encoder;
use super::{FIRST_WINDOW, STREAM_WINDOW};
use crate::quality::Broken;

/// Streams wait with their bodies while so many bytes were not written.
const GATHERED: usize = 128 << 10;
/// Nothing more is read while so many were not: beyond what bodies wait for, these are answers to frames.
const FLOOD: usize = 2 * GATHERED;
/// Room of the buffer that is kept for what is written next.
const KEPT: usize = 32 << 10;

/// Why what comes on a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamBroke {
    /// The other side reset it, for this reason.
    #[error("the stream was reset: {0}")]
    Reset(Reason),
    /// It is not as it should be, and was reset.
    #[error("what came on the stream makes no sense")]
    Malformed,
    /// The connection ended.
    #[error("the connection was closed before the end")]
    Closed,
}

/// In what the two sides of a connection differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    /// What may come on all streams together before it is taken, in bytes.
    pub(super) window: u32,
    /// Of so many streams that we reset last, frames may still be on their way.
    pub(super) resets: usize,
    /// Why a stream is reset of which nobody wants the rest.
    pub(super) unwanted: Reason,
    /// What came of a stream is of use after it was reset.
    pub(super) keeps_unread: bool,
}

/// The streams.
pub(super) struct Streams {
    /// By number, which only grows. Boxed: one that goes away moves all behind it.
    pub(super) all: Vec<(u32, Box<Stream>)>,
    /// To be written, from `written` on.
    pub(super) out: Vec<u8>,
    written: usize,
    pub(super) needs_flush: bool,
    pub(super) encoder: Encoder,
    /// What may still be sent on all of them.
    pub(super) window: i64,
    /// With which a stream begins.
    pub(super) first_window: i64,
    /// What the other side may still send on all of them, and what was taken of it.
    pub(super) comes_window: u32,
    pub(super) taken: u32,
    /// Streams that wait for room, on the connection or in `out`.
    pub(super) starved: Vec<u32>,
    task: Option<Waker>,
    is_woken: bool,
    reset_last: VecDeque<u32>,
    pub(super) side: Side,
    /// Somebody waits for a stream to go away.
    pub(super) is_waited_for: bool,
    /// How many have not ended.
    pub(super) open: usize,
    /// Reset by the client before anybody began to answer them.
    pub(super) never_begun: usize,
    /// Reset for what the client did.
    pub(super) forced: usize,
    /// The connection is gone.
    pub(super) is_over: bool,
}

pub(super) struct Stream {
    pub(super) came: VecDeque<Bytes>,
    pub(super) is_head: bool,
    /// What data belongs to has come.
    pub(super) has_head: bool,
    /// The head of a response that nobody has taken yet, and interim ones before it.
    pub(super) head: Option<Result<Box<Final>, Broken>>,
    pub(super) interim: Vec<(StatusCode, HeaderMap)>,
    /// What interim ones have counted.
    pub(super) interim_bytes: usize,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) comes: Comes,
    /// What is still to come of what the head announces.
    pub(super) left: Option<u64>,
    pub(super) comes_window: u32,
    pub(super) taken: u32,
    pub(super) has_reader: bool,
    pub(super) reader: Option<Waker>,
    pub(super) window: i64,
    pub(super) has_writer: bool,
    pub(super) writer: Option<Waker>,
    /// It is among those that are starved.
    pub(super) is_starved: bool,
    /// Somebody began to answer it.
    pub(super) is_begun: bool,
    /// The client reset it before that, which is counted.
    pub(super) is_counted: bool,
    /// It ended before its time.
    pub(super) reset: Option<Reason>,
}

/// A stream at its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// What comes is so long, where that is known.
    pub(super) length: Option<u64>,
    /// It was asked for with HEAD.
    pub(super) is_head: bool,
    /// Its head has come.
    pub(super) has_head: bool,
    /// Nothing more comes.
    pub(super) has_ended: bool,
    /// Somebody reads what comes.
    pub(super) is_read: bool,
    /// Somebody writes on it.
    pub(super) is_written: bool,
}

/// What still comes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comes {
    More,
    Ended,
    Broken(StreamBroke),
}

impl Streams {
    /// Before the other side has said anything.
    pub(super) fn new(side: Side) -> Streams {
        Streams {
            all: Vec::new(),
            out: Vec::new(),
            written: 0,
            needs_flush: false,
            encoder: Encoder::new(),
            window: FIRST_WINDOW.into(),
            first_window: FIRST_WINDOW.into(),
            comes_window: side.window,
            taken: 0,
            starved: Vec::new(),
            task: None,
            is_woken: false,
            reset_last: VecDeque::new(),
            side,
            is_waited_for: false,
            open: 0,
            never_begun: 0,
            forced: 0,
            is_over: false,
        }
    }

    /// The connection's task, which writes. It looks at everything now.
    pub(super) fn is_driven_by(&mut self, task: &Waker) {
        self.is_woken = false;
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.task = Some(task.clone());
        }
    }

    /// There is something to write.
    pub(super) fn wake(&mut self) {
        if !self.is_woken
            && let Some(task) = &self.task
        {
            self.is_woken = true;
            task.wake_by_ref();
        }
    }

    /// For frames of the connection's own.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// What is to be written.
    pub(super) fn unwritten(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// So much of it was.
    pub(super) fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.out.len() {
            self.written = 0;
            if self.all.is_empty() || self.out.capacity() > 2 * GATHERED {
                self.out = Vec::new();
            } else {
                self.out.clear();
            }
        } else if self.written > GATHERED {
            self.out.drain(..self.written);
            self.written = 0;
        }
        if self.unwritten().len() < KEPT {
            self.feed();
        }
    }

    /// The client does not take what there is for it: bodies wait.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten().len() >= GATHERED
    }

    /// The same, and what it sends wants answers all the time: nothing more of it is read.
    pub(super) fn is_flooded(&self) -> bool {
        self.unwritten().len() >= FLOOD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn place(&self, id: u32) -> Option<usize> {
        // Mostly it is one of few.
        self.all.binary_search_by_key(&id, |(known, _)| *known).ok()
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id)?;
        self.all.get_mut(place).map(|(_, stream)| &mut **stream)
    }

    pub(super) fn look(&self, id: u32) -> Option<&Stream> {
        self.all.get(self.place(id)?).map(|(_, stream)| &**stream)
    }

    /// Frames of a stream that we reset may still be on their way.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset_last.contains(&id)
    }

    /// A stream, with a number larger than all before.
    pub(super) fn begin(&mut self, id: u32, begun: Begun) {
        self.open += 1;
        let stream = Box::new(Stream {
            came: VecDeque::new(),
            is_head: begun.is_head,
            has_head: begun.has_head,
            head: None,
            interim: Vec::new(),
            interim_bytes: 0,
            trailers: None,
            comes: if begun.has_ended { Comes::Ended } else { Comes::More },
            left: begun.length,
            comes_window: STREAM_WINDOW,
            taken: 0,
            has_reader: begun.is_read,
            reader: None,
            window: self.first_window,
            has_writer: begun.is_written,
            writer: None,
            is_starved: false,
            is_begun: false,
            is_counted: false,
            reset: None,
        });
        self.all.push((id, stream));
    }

    /// A stream goes away when nobody reads from it or writes to it any more.
    pub(super) fn settle(&mut self, id: u32) {
        let Some(place) = self.place(id) else { return };
        let Some((_, stream)) = self.all.get(place).filter(|(_, stream)| !(stream.has_reader || stream.has_writer)) else { return };
        // Nobody wants the rest of what comes. A server that has answered says so without an error (RFC 9113, 8.1).
        if stream.comes == Comes::More && stream.reset.is_none() {
            self.say_reset(id, self.side.unwanted);
        }
        let (_, stream) = self.all.remove(place);
        if stream.is_starved {
            self.starved.retain(|starved| *starved != id);
        }
        self.open -= usize::from(stream.reset.is_none());
        if self.is_waited_for {
            self.wake();
        }
    }

    fn say_reset(&mut self, id: u32, reason: Reason) {
        frame::write_reset(&mut self.out, id, reason);
        if !self.was_reset(id) {
            if self.reset_last.len() >= self.side.resets {
                self.reset_last.pop_front();
            }
            self.reset_last.push_back(id);
        }
        self.wake();
    }

    /// Ends a stream before its time, and says so; `broke`: what its reader hears.
    pub(super) fn reset(&mut self, id: u32, reason: Reason, broke: StreamBroke) {
        self.say_reset(id, reason);
        self.breaks(id, reason, broke);
    }

    /// The same for something that the other side did.
    pub(super) fn faulty(&mut self, id: u32, reason: Reason) {
        self.forced += 1;
        self.reset(id, reason, StreamBroke::Malformed);
    }

    /// It ended before its time.
    pub(super) fn breaks(&mut self, id: u32, reason: Reason, broke: StreamBroke) {
        let keeps_unread = self.side.keeps_unread;
        let Some(stream) = self.get(id) else { return };
        let is_first = stream.reset.is_none();
        stream.reset.get_or_insert(reason);
        let unread = if keeps_unread { 0 } else { stream.drop_unread() };
        if stream.comes != Comes::Ended || unread > 0 {
            stream.comes = Comes::Broken(broke);
        }
        stream.wake_both();
        self.open -= usize::from(is_first);
        self.took(unread);
    }

    /// The other side reset it.
    pub(super) fn is_reset(&mut self, id: u32, reason: Reason) {
        let Some(stream) = self.get(id).filter(|stream| stream.reset.is_none()) else { return };
        let is_begun = stream.is_begun;
        stream.is_counted = !is_begun;
        self.never_begun += usize::from(!is_begun);
        self.breaks(id, reason, StreamBroke::Reset(reason));
    }

    /// A server reset it. One that has answered may lose interest in the rest of a request, and says so without an error (RFC 9113, 8.1).
    pub(super) fn is_reset_by_server(&mut self, id: u32, reason: Reason) {
        let is_whole = |stream: &&mut Stream| reason == Reason::NO_ERROR && stream.has_head && stream.left == Some(0);
        if let Some(stream) = self.get(id).filter(is_whole)
            && stream.comes == Comes::More
        {
            stream.comes = Comes::Ended;
        }
        self.is_reset(id, reason);
    }

    /// A server has not begun with streams beyond this one, and will not.
    pub(super) fn are_refused_beyond(&mut self, last: u32) {
        let beyond: Vec<u32> = self.all.iter().map(|(id, _)| *id).filter(|id| *id > last).collect();
        for id in beyond {
            self.is_reset(id, Reason::REFUSED_STREAM);
        }
    }

    /// What was to be written finds nobody.
    pub(super) fn forget_unwritten(&mut self) {
        (self.out, self.written) = (Vec::new(), 0);
    }

    /// The connection is gone, and all of its streams with it; `broke`: what their readers hear.
    pub(super) fn end_all(&mut self, broke: StreamBroke) {
        self.is_over = true;
        self.forget_unwritten();
        for (_, stream) in &mut self.all {
            self.open -= usize::from(stream.reset.is_none());
            stream.reset.get_or_insert(Reason::CANCEL);
            if stream.comes == Comes::More {
                stream.comes = Comes::Broken(broke);
            }
            stream.wake_both();
        }
    }
}

impl Stream {
    /// The head of a response is still to come.
    pub(super) fn waits_for_head(&self) -> bool {
        self.comes == Comes::More && !self.has_head
    }

    fn wake_both(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
