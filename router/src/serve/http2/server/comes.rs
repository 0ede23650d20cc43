//! What comes on streams: data and trailers, as fast as somebody takes them.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use http_body::Frame;

use super::super::STREAM_WINDOW;
use super::frame;
use super::streams::{Comes, Stream, StreamBroke, Streams};

/// A window is opened again when so much of it was taken.
const TAKEN: u32 = STREAM_WINDOW / 2;

/// Each time that so many more wait, small ones are put together.
const PIECES: usize = 256;
/// Smaller ones are small.
const SMALL: usize = 1 << 10;

fn length(data: &Bytes) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

impl Stream {
    /// The client has said that nothing more comes.
    fn was_ended_by_client(&self) -> bool {
        matches!(self.comes, Comes::Ended | Comes::Broken(StreamBroke::Reset(_)))
    }

    /// Pieces of a few bytes take more room than bytes: many of them become one.
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
    /// Data came on a stream that is known; `whole`: with its padding.
    ///
    /// # Errors
    /// The client sent more than it may, which ends the connection.
    pub(super) fn data(&mut self, id: u32, data: Bytes, whole: u32, ends: bool) -> Result<(), Reason> {
        self.passed_over(whole)?;
        let Some(stream) = self.get(id) else { return Ok(()) };
        if stream.comes != Comes::More {
            if stream.was_ended_by_client() {
                self.faulty(id, Reason::STREAM_CLOSED);
            }
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
    ///
    /// # Errors
    /// The client sent more than it may.
    pub(super) fn passed_over(&mut self, whole: u32) -> Result<(), Reason> {
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
            _ if stream.was_ended_by_client() => self.faulty(id, Reason::STREAM_CLOSED),
            _ => {}
        }
    }

    /// So much was taken of what came on all streams together.
    pub(super) fn took(&mut self, bytes: u32) {
        self.taken += bytes;
        self.open_window();
    }

    fn open_window(&mut self) {
        if self.taken >= TAKEN && !self.is_over {
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
    use super::*;
    use std::task::Waker;

    #[test]
    fn many_small_pieces_become_few() {
        let mut streams = Streams::new(1);
        streams.begin(1, None, false);
        streams.is_read(1);
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
