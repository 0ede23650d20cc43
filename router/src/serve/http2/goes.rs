//! What goes out on streams: heads, data and trailers, as fast as the other side takes them.

use std::io;
use std::task::{Context, Poll, ready};

use h2::Reason;

use super::super::http1::Stream;
use super::frame::{self, Head, LARGEST_WINDOW, Settings, flag, kind};
use super::hpack::Encoder;
use super::streams::{StreamBroke, Streams};

/// A head takes about as much as this.
const ROOM: usize = 512;

impl Streams {
    /// Writes all that there is; `note` hears of each try whether it has to wait.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Stream, note: impl Fn(bool)) -> Poll<io::Result<()>> {
        while !self.unwritten().is_empty() {
            let wrote = stream.poll_send(cx, self.unwritten(), &[]);
            note(wrote.is_pending());
            match ready!(wrote)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.wrote(count),
            }
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(stream.poll_forward(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection for this reason, and with it all streams; `last`: of the other side's, those up to it were begun.
    pub(super) fn go_away(&mut self, last: u32, reason: Reason, broke: StreamBroke) {
        frame::write_go_away(&mut self.out, last, reason);
        let farewell = self.unwritten().to_vec();
        self.end_all(broke);
        self.out = farewell;
    }

    /// Somebody begins to answer it.
    pub(super) fn is_begun(&mut self, id: u32) {
        let Some(stream) = self.get(id) else { return };
        stream.is_begun = true;
        if std::mem::take(&mut stream.is_counted) {
            self.never_begun = self.never_begun.saturating_sub(1);
        }
    }

    /// Ready when it ended before its time.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Reason> {
        let Some(stream) = self.get(id) else { return Poll::Ready(Reason::CANCEL) };
        if let Some(reason) = stream.reset {
            return Poll::Ready(reason);
        }
        if !stream.writer.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            stream.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn takes(&self, id: u32) -> bool {
        self.look(id).is_some_and(|stream| stream.has_writer && stream.reset.is_none())
    }

    /// Writes a head, or trailers, with the fields that `fill` writes. Of a stream that is gone, nothing.
    pub(super) fn write_fields(&mut self, id: u32, ends: bool, fill: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        if !self.takes(id) {
            return;
        }
        let from = self.out.len();
        let room = Head { length: 0, kind: kind::HEADERS, flags: 0, stream: id };
        // Fields that are known need one byte each, if there is room.
        self.out.reserve(ROOM);
        room.write(&mut self.out);
        self.encoder.begin(&mut self.out);
        fill(&mut self.encoder, &mut self.out);
        let length = self.out.len() - from - frame::HEAD;
        let end = if ends { flag::END_STREAM } else { 0 };
        if length <= frame::MOST {
            let head = Head { length, flags: end | flag::END_HEADERS, ..room };
            head.put(self.out.get_mut(from..).unwrap_or_default());
        } else {
            self.continue_fields(from, Head { flags: end, ..room });
        }
        if ends {
            self.is_sent(id);
        }
        self.wake();
    }

    /// A block that is too long for a frame.
    #[cold]
    fn continue_fields(&mut self, from: usize, head: Head) {
        let block = self.out.split_off(from + frame::HEAD);
        self.out.truncate(from);
        let mut rest = block.as_slice();
        let mut head = head;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(frame::MOST));
            let end = if later.is_empty() { flag::END_HEADERS } else { 0 };
            Head { length: now.len(), flags: head.flags | end, ..head }.write(&mut self.out);
            self.out.extend_from_slice(now);
            (rest, head.kind, head.flags) = (later, kind::CONTINUATION, 0);
        }
    }

    /// How much of a body may be written now: 1 byte at least. `None` when nobody takes any.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Option<usize>> {
        let is_short = self.is_full() || self.window <= 0;
        let of_all = self.window.min(i64::try_from(frame::MOST).unwrap_or(i64::MAX));
        let Some(stream) = self.get(id).filter(|stream| stream.has_writer && stream.reset.is_none()) else { return Poll::Ready(None) };
        if !is_short && stream.window > 0 {
            return Poll::Ready(usize::try_from(of_all.min(stream.window)).ok());
        }
        stream.writer = Some(cx.waker().clone());
        if is_short && !std::mem::replace(&mut stream.is_starved, true) {
            self.starved.push(id);
        }
        Poll::Pending
    }

    /// Writes data for which there is room, or that is empty.
    pub(super) fn write_data(&mut self, id: u32, data: &[u8], ends: bool) {
        let count = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let Some(stream) = self.get(id).filter(|stream| stream.has_writer && stream.reset.is_none()) else { return };
        stream.window -= count;
        self.window -= count;
        let flags = if ends { flag::END_STREAM } else { 0 };
        self.out.reserve(frame::HEAD + data.len());
        frame::write(&mut self.out, kind::DATA, flags, id, data);
        if ends {
            self.is_sent(id);
        }
        self.wake();
    }

    /// What goes is whole.
    fn is_sent(&mut self, id: u32) {
        if let Some(stream) = self.get(id) {
            stream.has_writer = false;
            stream.writer = None;
            self.settle(id);
        }
    }

    /// Nobody writes on it any more: where that was in the middle, the other side is told for what reason.
    pub(super) fn stops_writing(&mut self, id: u32, reason: Reason) {
        let Some(stream) = self.get(id) else { return };
        if stream.has_writer && stream.reset.is_none() {
            self.reset(id, reason, StreamBroke::Closed);
        }
        self.is_sent(id);
    }

    /// Those that waited for room look for it again.
    pub(super) fn feed(&mut self) {
        if self.window <= 0 || self.is_full() || self.starved.is_empty() {
            return;
        }
        let mut starved = std::mem::take(&mut self.starved);
        // Whoever was the first takes all there is: next time it is another one.
        starved.rotate_left(1);
        for id in starved {
            if let Some(stream) = self.get(id) {
                stream.is_starved = false;
                if let Some(writer) = stream.writer.take() {
                    writer.wake();
                }
            }
        }
    }

    /// The other side takes so much more, on all streams (0) or on one.
    ///
    /// # Errors
    /// What ends the connection: a window beyond all windows, or one that grows by nothing.
    pub(super) fn window_grows(&mut self, id: u32, more: u32) -> Result<(), Reason> {
        let grown = |window: i64| Some(window + i64::from(more)).filter(|window| *window <= i64::from(LARGEST_WINDOW));
        if id == 0 {
            if more == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.window = grown(self.window).ok_or(Reason::FLOW_CONTROL_ERROR)?;
            self.feed();
            return Ok(());
        }
        let Some(stream) = self.get(id) else { return Ok(()) };
        match grown(stream.window) {
            Some(window) if more > 0 => {
                stream.window = window;
                if let Some(writer) = stream.writer.take() {
                    writer.wake();
                }
            }
            Some(_) => self.faulty(id, Reason::PROTOCOL_ERROR),
            None => self.faulty(id, Reason::FLOW_CONTROL_ERROR),
        }
        Ok(())
    }

    /// The other side has said how it will have things.
    ///
    /// # Errors
    /// A window beyond all windows, which ends the connection.
    pub(super) fn obey(&mut self, settings: Settings) -> Result<(), Reason> {
        if let Some(bytes) = settings.table_bytes {
            self.encoder.limit(bytes);
        }
        frame::write(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        if let Some(window) = settings.window {
            let window = i64::from(window);
            let more = window - std::mem::replace(&mut self.first_window, window);
            for (_, stream) in &mut self.all {
                stream.window += more;
                if stream.window > i64::from(LARGEST_WINDOW) {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                if let Some(writer) = stream.writer.take() {
                    writer.wake();
                }
            }
        }
        Ok(())
    }
}
