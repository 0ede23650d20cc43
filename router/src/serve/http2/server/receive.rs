//! What a client's frames do: one after the other, as RFC 9113 has it.

use h2::Reason;
use http::Response;

use super::super::super::body::ResponseBody;
use super::super::alive::{ALIVE, GOING};
use super::super::frame::{self, Head, flag, kind};
use super::super::frames::Came;
use super::super::streams::StreamBroke;
use super::super::trailers::Trailers;
use super::request::{Outcome, Reading};
use super::{Asked, Connection, Going};
use crate::quality::Refusal;

impl<A, R, F> Connection<A, R>
where
    A: Fn(Asked) -> F,
    R: Fn(Refusal) -> Response<ResponseBody>,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    /// The next frame, where it is all here.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn take_frame(&mut self) -> Result<bool, Reason> {
        let mut frames = std::mem::take(&mut self.frames);
        let taken = frames.take(self.limits.header_bytes, |came| self.take_came(came));
        self.frames = frames;
        if taken? {
            let streams = self.streams.borrow();
            if streams.never_begun > self.limits.h2_pending_resets || streams.forced > self.limits.h2_forced_resets {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn take_came(&mut self, came: Came<'_>) -> Result<(), Reason> {
        match came {
            Came::Data(head, data) => {
                self.is_known(head.stream)?;
                self.streams.borrow_mut().take_data(head, data, self.last)
            }
            Came::Block { stream, .. } if stream.is_multiple_of(2) => Err(Reason::PROTOCOL_ERROR),
            Came::Block { stream, ends, block } if stream > self.last => self.begin(stream, block, ends),
            Came::Block { stream, ends, block } => self.take_trailers(stream, block, ends),
            Came::Other(head, payload) => self.take_other(head, payload),
        }
    }

    fn take_other(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        match head.kind {
            kind::RESET => {
                self.is_known(head.stream)?;
                let reason = Reason::from(frame::number(payload)?);
                self.streams.borrow_mut().is_reset(head.stream, reason);
                Ok(())
            }
            kind::SETTINGS => {
                let Some(settings) = frame::settings(head, payload)? else { return Ok(()) };
                self.streams.borrow_mut().obey(settings)
            }
            kind::PING => self.take_ping(head, payload),
            kind::GO_AWAY => {
                frame::go_away(head, payload)?;
                self.going = Going::Gone;
                Ok(())
            }
            _ => {
                if head.stream != 0 {
                    self.is_known(head.stream)?;
                }
                let more = frame::number(payload)? & frame::LARGEST_WINDOW;
                self.streams.borrow_mut().window_grows(head.stream, more)
            }
        }
    }

    /// A stream of the client's that there has been, or that it began although we were going.
    fn is_known(&self, id: u32) -> Result<(), Reason> {
        frame::is_of_client(id, self.last.max(self.passed_over))
    }

    fn take_trailers(&mut self, id: u32, block: &[u8], ends: bool) -> Result<(), Reason> {
        let (is_here, was_reset) = {
            let streams = self.streams.borrow();
            (streams.look(id).is_some(), streams.was_reset(id))
        };
        let mut trailers = Trailers::begin(ends && is_here, self.limits.header_bytes, self.limits.headers);
        self.decoder.decode(block, &mut |field| trailers.take(&field)).map_err(|_| Reason::COMPRESSION_ERROR)?;
        match (is_here, was_reset) {
            (true, _) => self.streams.borrow_mut().trailers(id, trailers.end()),
            (false, false) => return Err(Reason::STREAM_CLOSED),
            (false, true) => {}
        }
        Ok(())
    }

    fn begin(&mut self, id: u32, block: &[u8], ends: bool) -> Result<(), Reason> {
        let is_wanted = !matches!(self.going, Going::Last | Going::Gone);
        let mut reading = Reading::begin(&mut self.pseudo, self.limits.header_bytes, self.limits.headers);
        self.decoder.decode(block, &mut |field| reading.take(field)).map_err(|_| Reason::COMPRESSION_ERROR)?;
        if !is_wanted {
            // They were told, and may send it elsewhere.
            self.passed_over = id;
            return Ok(());
        }
        self.last = id;
        if self.streams.borrow().open >= self.limits.h2_streams as usize {
            let mut streams = self.streams.borrow_mut();
            streams.reset(id, Reason::REFUSED_STREAM, StreamBroke::Malformed);
            return Ok(());
        }
        match reading.end(ends) {
            Outcome::Whole(request) => self.answer(id, *request, ends),
            Outcome::Refused { refusal, is_head } => self.refuse(id, refusal, is_head, ends),
            Outcome::Malformed => self.streams.borrow_mut().faulty(id, Reason::PROTOCOL_ERROR),
        }
        Ok(())
    }

    fn take_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let said = frame::ping(head, payload)?;
        if !head.has(flag::ACK) {
            frame::write(self.streams.borrow_mut().out(), kind::PING, flag::ACK, 0, payload);
        } else if said == ALIVE {
            self.alive.is_answered();
        } else if said == GOING && self.going == Going::Told {
            // Whatever it sent before it knew is here.
            self.going = Going::Last;
            frame::write_go_away(self.streams.borrow_mut().out(), self.last, Reason::NO_ERROR);
        }
        Ok(())
    }
}
