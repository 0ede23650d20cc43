//! What a backend's frames do: one after the other, as RFC 9113 has it.

use h2::Reason;

use super::super::alive::{ALIVE, DOUBT};
use super::super::frame::{self, Head, Settings, flag, kind};
use super::super::frames::Came;
use super::super::trailers::Trailers;
use super::driver::Driver;
use super::response::Reading;
use super::{HEAD_BYTES, MOST_STREAMS};
use crate::serve::http1::FIELDS;

/// A connection takes no more streams once so many had to be reset for what the backend did, and ends when it is four times as many.
const FORCED: usize = 1_000;

impl Driver {
    /// The next frame, where it is all here.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn take_frame(&mut self) -> Result<bool, Reason> {
        let mut frames = std::mem::take(&mut self.frames);
        let taken = frames.take(HEAD_BYTES as usize, |came| self.take_came(came));
        self.frames = frames;
        let forced = self.streams.borrow().forced;
        if forced > FORCED {
            self.life.is_going.set(true);
        }
        if forced > 4 * FORCED { Err(Reason::ENHANCE_YOUR_CALM) } else { taken }
    }

    fn take_came(&mut self, came: Came<'_>) -> Result<(), Reason> {
        let last = self.life.last();
        match came {
            Came::Data(head, data) => {
                frame::is_of_client(head.stream, last)?;
                self.streams.borrow_mut().take_data(head, data, last)
            }
            Came::Block { stream, ends, block } => {
                frame::is_of_client(stream, last)?;
                self.take_block(stream, block, ends)
            }
            Came::Other(head, payload) => self.take_other(head, payload, last),
        }
    }

    /// The head of a response, or its trailers; of a stream that is gone, for the table alone.
    fn take_block(&mut self, id: u32, block: &[u8], ends: bool) -> Result<(), Reason> {
        let waits = self.streams.borrow().look(id).map(|stream| (stream.waits_for_head(), stream.is_head));
        let broken = |_| Reason::COMPRESSION_ERROR;
        if let Some((true, is_head)) = waits {
            let mut reading = Reading::begin(HEAD_BYTES as usize);
            let decoded = self.decoder.decode(block, &mut |field| reading.take(field));
            let head = reading.end(ends, is_head);
            decoded.map_err(broken)?;
            self.streams.borrow_mut().head(id, head, ends);
            return Ok(());
        }
        let mut trailers = Trailers::begin(ends && waits.is_some(), HEAD_BYTES as usize, FIELDS);
        self.decoder.decode(block, &mut |field| trailers.take(&field)).map_err(broken)?;
        self.streams.borrow_mut().trailers(id, trailers.end());
        Ok(())
    }

    fn take_other(&mut self, head: Head, payload: &[u8], last: u32) -> Result<(), Reason> {
        let mut streams = self.streams.borrow_mut();
        match head.kind {
            kind::RESET => {
                frame::is_of_client(head.stream, last)?;
                streams.is_reset_by_server(head.stream, Reason::from(frame::number(payload)?));
                Ok(())
            }
            kind::SETTINGS => match frame::settings(head, payload)? {
                None => Ok(()),
                Some(settings) => {
                    streams.obey(settings)?;
                    drop(streams);
                    self.obey(settings)
                }
            },
            kind::PING => {
                let said = frame::ping(head, payload)?;
                if !head.has(flag::ACK) {
                    frame::write(streams.out(), kind::PING, flag::ACK, 0, said);
                } else if said == ALIVE || said == DOUBT {
                    self.alive.is_answered();
                    if said == DOUBT {
                        self.is_asked = false;
                        self.life.is_doubted.set(false);
                    }
                }
                Ok(())
            }
            kind::GO_AWAY => {
                self.life.is_going.set(true);
                self.life.changed.notify_waiters();
                streams.are_refused_beyond(frame::go_away(head, payload)?);
                Ok(())
            }
            _ => {
                if head.stream != 0 {
                    frame::is_of_client(head.stream, last)?;
                }
                streams.window_grows(head.stream, frame::number(payload)? & frame::LARGEST_WINDOW)
            }
        }
    }

    /// The backend has said how it will have things.
    fn obey(&self, settings: Settings) -> Result<(), Reason> {
        // A server must not (RFC 9113, 6.5.2).
        if settings.pushes == Some(true) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let is_first = !self.life.has_settings.replace(true);
        // One that does not say how many takes as many as there are.
        let all = is_first.then_some(u32::MAX);
        if let Some(most) = settings.streams.or(all) {
            self.life.most.set(MOST_STREAMS.min(most as usize));
        }
        if let Some(takes_tunnels) = settings.takes_tunnels {
            self.life.takes_tunnels.set(takes_tunnels);
        }
        self.life.changed.notify_waiters();
        Ok(())
    }
}
