//! What comes on streams: data and trailers, as fast as somebody takes them.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::STREAM_WINDOW;
use super::client::{Final, ResponseHead};
use super::frame::{self, Head, flag};
use super::streams::{Comes, Stream, StreamBroke, Streams};
use crate::quality::Broken;

/// A stream's window is opened again when so much of it was taken.
const TAKEN: u32 = STREAM_WINDOW / 2;

/// Each time that so many more wait, small ones are put together: each is a slice of memory that many share, and holds all of it.
const PIECES: usize = 32;
/// What all interim heads of a response may count, in bytes.
const INTERIM_BYTES: usize = 64 << 10;
/// Smaller ones are small: all but those of the largest frames.
const SMALL: usize = frame::MOST;

fn length(data: &Bytes) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

impl Stream {
    /// The other side has said that nothing more comes.
    fn was_ended_there(&self) -> bool {
        matches!(self.comes, Comes::Ended | Comes::Broken(StreamBroke::Reset(_)))
    }

    /// Pieces hold more memory than they have bytes: many of them become one.
    fn gather(&mut self) {
        if !self.came.len().is_multiple_of(PIECES) {
            return;
        }
        let small = self.came.iter().rev().take_while(|piece| piece.len() < SMALL).count();
        if small > 1 {
            let whole: Vec<u8> = self.came.drain(self.came.len() - small..).flatten().collect();
            self.came.push_back(whole.into());
        }
    }

    /// Nobody wants what came: how much it was.
    pub(super) fn drop_unread(&mut self) -> u32 {
        self.came.drain(..).map(|data| length(&data)).sum()
    }
}

impl Streams {
    /// Data came on a stream that there has been; none beyond `last` was begun.
    ///
    /// # Errors
    /// The other side sent more than it may, which ends the connection.
    pub(super) fn take_data(&mut self, head: Head, data: Bytes, last: u32) -> Result<(), Reason> {
        let whole = u32::try_from(head.length).unwrap_or(u32::MAX);
        if self.look(head.stream).is_some() {
            return self.data(head.stream, data, whole, head.has(flag::END_STREAM));
        }
        self.passed_over(whole)?;
        self.took(0);
        if head.stream <= last && !self.was_reset(head.stream) {
            self.faulty(head.stream, Reason::STREAM_CLOSED);
        }
        Ok(())
    }

    /// Data came on a stream that is here; `whole`: with its padding.
    fn data(&mut self, id: u32, data: Bytes, whole: u32, ends: bool) -> Result<(), Reason> {
        self.passed_over(whole)?;
        let Some(stream) = self.get(id) else { return Ok(()) };
        if stream.comes != Comes::More {
            if stream.was_ended_there() {
                self.faulty(id, Reason::STREAM_CLOSED);
            }
            self.open_window();
            return Ok(());
        }
        if !stream.has_head {
            self.faulty(id, Reason::PROTOCOL_ERROR);
            return Ok(());
        }
        let Some(window) = stream.comes_window.checked_sub(whole) else {
            self.faulty(id, Reason::FLOW_CONTROL_ERROR);
            return Ok(());
        };
        stream.comes_window = window;
        let left = stream.left.map_or(Some(None), |left| left.checked_sub(u64::from(length(&data))).map(Some));
        let Some(left) = left.filter(|left| !ends || left.is_none_or(|left| left == 0)) else {
            self.faulty(id, Reason::PROTOCOL_ERROR);
            return Ok(());
        };
        stream.left = left;
        if ends {
            stream.comes = Comes::Ended;
        }
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        let here = if stream.has_reader { length(&data) } else { 0 };
        // Padding is taken at once.
        stream.taken += whole - here;
        if here > 0 {
            // It is taken when somebody reads it.
            stream.came.push_back(data);
            stream.gather();
            self.taken = self.taken.saturating_sub(here);
        }
        self.open_window_of(id);
        self.settle(id);
        self.open_window();
        Ok(())
    }

    /// What was taken of a stream may be sent again.
    fn open_window_of(&mut self, id: u32) {
        let Some(stream) = self.get(id).filter(|stream| stream.taken >= TAKEN && stream.comes == Comes::More && stream.has_reader) else {
            return;
        };
        let taken = std::mem::take(&mut stream.taken);
        stream.comes_window += taken;
        frame::write_window(&mut self.out, id, taken);
        self.wake();
    }

    /// Data that nobody reads: its room is there again.
    fn passed_over(&mut self, whole: u32) -> Result<(), Reason> {
        self.comes_window = self.comes_window.checked_sub(whole).ok_or(Reason::FLOW_CONTROL_ERROR)?;
        self.taken += whole;
        Ok(())
    }

    /// Trailers came on a stream that is known; `None`: they make no sense.
    pub(super) fn trailers(&mut self, id: u32, trailers: Option<HeaderMap>) {
        let Some(stream) = self.get(id) else { return };
        match (stream.comes, trailers) {
            (Comes::More, Some(trailers)) if stream.left.unwrap_or(0) == 0 => {
                stream.comes = Comes::Ended;
                stream.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                if let Some(reader) = stream.reader.take() {
                    reader.wake();
                }
                self.settle(id);
            }
            (Comes::More, _) => self.faulty(id, Reason::PROTOCOL_ERROR),
            _ if stream.was_ended_there() => self.faulty(id, Reason::STREAM_CLOSED),
            _ => {}
        }
    }

    /// A response's head came on a stream that waits for it; `ends`: there is no body.
    pub(super) fn head(&mut self, id: u32, head: Result<ResponseHead, Broken>, ends: bool) {
        let Some(stream) = self.get(id) else { return };
        match head {
            Ok(ResponseHead::Interim { status, headers, bytes }) if !ends => {
                // A backend could send them without end. Beyond what is allowed one is dropped: it is a hint.
                stream.interim_bytes = stream.interim_bytes.saturating_add(bytes);
                if stream.interim_bytes <= INTERIM_BYTES {
                    stream.interim.push((status, headers));
                }
            }
            Ok(ResponseHead::Final(head)) => {
                (stream.has_head, stream.left) = (true, head.left());
                stream.head = Some(Ok(head));
                if ends {
                    stream.comes = Comes::Ended;
                }
            }
            Ok(ResponseHead::Interim { .. }) => return self.broken_head(id, Broken::Parse),
            Err(broken) => return self.broken_head(id, broken),
        }
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        self.settle(id);
    }

    #[cold]
    fn broken_head(&mut self, id: u32, broken: Broken) {
        if let Some(stream) = self.get(id) {
            stream.head = Some(Err(broken));
        }
        self.faulty(id, Reason::PROTOCOL_ERROR);
    }

    /// Interim heads that came since the last call.
    pub(super) fn take_interim(&mut self, id: u32) -> Vec<(StatusCode, HeaderMap)> {
        self.get(id).map(|stream| std::mem::take(&mut stream.interim)).unwrap_or_default()
    }

    /// The head of the response, or what is wrong with it.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Result<Result<Box<Final>, Broken>, StreamBroke>> {
        let Some(stream) = self.get(id) else { return Poll::Ready(Err(StreamBroke::Closed)) };
        match (stream.head.take(), stream.comes) {
            (Some(head), _) => Poll::Ready(Ok(head)),
            (None, Comes::Broken(broke)) => Poll::Ready(Err(broke)),
            (None, _) => {
                stream.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// How long what is to be read is, where all of it has come, and no trailers behind it.
    pub(super) fn whole_length(&self, id: u32) -> Option<u64> {
        let stream = self.look(id)?;
        let is_whole = stream.comes == Comes::Ended && stream.trailers.is_none();
        is_whole.then(|| stream.came.iter().map(|data| u64::from(length(data))).sum())
    }

    /// All of a body, where it has come.
    pub(super) fn take_whole(&mut self, id: u32) -> Option<Bytes> {
        let stream = self.get(id)?;
        if stream.comes != Comes::Ended || stream.came.len() != 1 || stream.trailers.is_some() {
            return None;
        }
        let data = stream.came.pop_front()?;
        self.took(length(&data));
        Some(data)
    }

    /// So much was taken of what came on all streams together.
    pub(super) fn took(&mut self, bytes: u32) {
        self.taken += bytes;
        self.open_window();
    }

    fn open_window(&mut self) {
        if self.taken >= self.side.window / 2 && !self.is_over {
            self.comes_window += self.taken;
            frame::write_window(&mut self.out, 0, std::mem::take(&mut self.taken));
            self.wake();
        }
    }

    /// Somebody reads what comes on it, to its end or until [`Streams::stops_reading`].
    pub(super) fn is_read(&mut self, id: u32) {
        if let Some(stream) = self.get(id) {
            stream.has_reader = true;
        }
    }

    /// Nobody wants more of it.
    pub(super) fn stops_reading(&mut self, id: u32) {
        let Some(stream) = self.get(id) else { return };
        stream.has_reader = false;
        stream.reader = None;
        let unread = stream.drop_unread();
        self.took(unread);
        self.settle(id);
    }

    /// The next piece.
    pub(super) fn poll_comes(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Option<Result<Frame<Bytes>, StreamBroke>>> {
        let Some(stream) = self.get(id) else { return Poll::Ready(Some(Err(StreamBroke::Closed))) };
        if let Some(data) = stream.came.pop_front() {
            let bytes = length(&data);
            stream.taken += bytes;
            self.open_window_of(id);
            self.took(bytes);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match stream.comes {
            Comes::Broken(broke) => Poll::Ready(Some(Err(broke))),
            Comes::Ended => Poll::Ready(stream.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Comes::More => {
                stream.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nothing more is to be read of it.
    pub(super) fn has_ended(&self, id: u32) -> bool {
        self.look(id).is_none_or(|stream| stream.comes == Comes::Ended && stream.came.is_empty() && stream.trailers.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::streams::{Begun, Side};
    use super::*;
    use std::task::Waker;

    #[test]
    fn many_small_pieces_become_few() {
        let mut streams = Streams::new(Side { window: STREAM_WINDOW, resets: 1, unwanted: Reason::CANCEL, keeps_unread: false });
        streams.begin(1, Begun { length: None, is_head: false, has_head: true, has_ended: false, is_read: true, is_written: false });
        let all: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for byte in &all {
            streams.data(1, Bytes::copy_from_slice(&[*byte]), 1, false).unwrap();
        }
        let pieces = streams.look(1).unwrap().came.len();
        assert!(pieces < 2 * PIECES, "{pieces}");
        let mut read = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = streams.poll_comes(&mut cx, 1) {
            read.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!(read, all);
    }
}
