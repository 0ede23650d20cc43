//! What a client's frames do: one after the other, as RFC 9113 has it.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::super::super::body::ResponseBody;
use super::alive::{ALIVE, GOING};
use super::frame::{self, Head, Settings, flag, kind};
use super::request::{EACH, Outcome, Reading};
use super::{Asked, Connection, Going};
use crate::quality::Refusal;

/// A block that goes on in the next frame.
pub(super) struct Partial {
    stream: u32,
    ends: bool,
    block: Vec<u8>,
    frames: usize,
}

/// More frames of a block are a flood, whatever they hold.
const CONTINUATIONS: usize = 64;

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
        let Some(head) = Head::read(&self.read) else { return Ok(false) };
        if head.length > frame::MOST {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if self.read.len() < frame::HEAD + head.length {
            return Ok(false);
        }
        let mut read = std::mem::take(&mut self.read);
        let taken = self.take_whole(head, &mut read);
        self.read = read;
        taken?;
        let streams = self.streams.borrow();
        if streams.never_begun > self.limits.h2_pending_resets || streams.forced > self.limits.h2_forced_resets {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        Ok(true)
    }

    /// A frame that is all here.
    fn take_whole(&mut self, head: Head, read: &mut BytesMut) -> Result<(), Reason> {
        let whole = frame::HEAD + head.length;
        if self.partial.is_some() && head.kind != kind::CONTINUATION {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.kind == kind::DATA {
            // It is cut out, and not copied.
            let payload = read.split_to(whole).freeze().slice(frame::HEAD..);
            return self.take_data(head, payload);
        }
        let payload = read.get(frame::HEAD..whole).unwrap_or_default();
        match head.kind {
            kind::HEADERS => self.take_headers(head, payload)?,
            kind::CONTINUATION => self.take_continuation(head, payload)?,
            kind::PRIORITY => match (head.stream, payload.len()) {
                (0, _) => return Err(Reason::PROTOCOL_ERROR),
                (stream, 5) => frame::depends_on_another(stream, payload)?,
                _ => return Err(Reason::FRAME_SIZE_ERROR),
            },
            kind::RESET => self.take_reset(head, payload)?,
            kind::SETTINGS => self.take_settings(head, payload)?,
            kind::PUSH_PROMISE => return Err(Reason::PROTOCOL_ERROR),
            kind::PING => self.take_ping(head, payload)?,
            kind::GO_AWAY if head.stream != 0 => return Err(Reason::PROTOCOL_ERROR),
            kind::GO_AWAY if payload.len() < 8 => return Err(Reason::FRAME_SIZE_ERROR),
            kind::GO_AWAY => self.going = Going::Gone,
            kind::WINDOW_UPDATE => self.take_window(head, payload)?,
            // Nobody knows it, and it may mean something to somebody (5.5).
            _ => {}
        }
        read.advance(whole);
        Ok(())
    }

    /// A stream of the client's that there has been, or that it began although we were going.
    fn is_known(&self, id: u32) -> Result<(), Reason> {
        if id == 0 || id.is_multiple_of(2) || id > self.last.max(self.passed_over) { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) }
    }

    fn take_data(&mut self, head: Head, payload: Bytes) -> Result<(), Reason> {
        self.is_known(head.stream)?;
        let whole = u32::try_from(head.length).unwrap_or(u32::MAX);
        let data = payload.slice(frame::unpadded(head, &payload)?);
        let mut streams = self.streams.borrow_mut();
        if streams.look(head.stream).is_some() {
            return streams.data(head.stream, data, whole, head.has(flag::END_STREAM));
        }
        streams.passed_over(whole)?;
        streams.took(0);
        if head.stream <= self.last && !streams.was_reset(head.stream) {
            streams.faulty(head.stream, Reason::STREAM_CLOSED);
        }
        Ok(())
    }

    fn take_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream == 0 || head.stream.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let block = payload.get(frame::unpadded(head, payload)?).unwrap_or_default();
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.take_block(head.stream, block, ends);
        }
        self.partial = Some(Partial { stream: head.stream, ends, block: block.to_vec(), frames: 0 });
        Ok(())
    }

    fn take_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let mut partial = self.partial.take().filter(|partial| partial.stream == head.stream).ok_or(Reason::PROTOCOL_ERROR)?;
        partial.frames += 1;
        partial.block.extend_from_slice(payload);
        if partial.frames > CONTINUATIONS || partial.block.len() > self.limits.header_bytes + frame::MOST {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if head.has(flag::END_HEADERS) {
            return self.take_block(partial.stream, &partial.block, partial.ends);
        }
        self.partial = Some(partial);
        Ok(())
    }

    /// The fields of a request, or its trailers.
    fn take_block(&mut self, id: u32, block: &[u8], ends: bool) -> Result<(), Reason> {
        if id > self.last {
            return self.begin(id, block, ends);
        }
        let (is_here, was_reset) = {
            let streams = self.streams.borrow();
            (streams.look(id).is_some(), streams.was_reset(id))
        };
        let mut trailers = HeaderMap::new();
        let (mut is_malformed, mut left) = (!ends, self.limits.header_bytes);
        let most = self.limits.headers;
        self.decoder
            .decode(block, &mut |field| {
                // What nobody wants is read for the table alone.
                if !is_here || is_malformed {
                    return;
                }
                let cost = field.name.len() + field.value.len() + EACH;
                is_malformed = !field.is_sound || field.name.first() == Some(&b':') || is_of_connection(field.name);
                is_malformed |= cost > left || trailers.len() >= most;
                left = left.saturating_sub(cost);
                if !is_malformed
                    && let Ok(name) = HeaderName::from_bytes(field.name)
                    && let Ok(value) = HeaderValue::from_bytes(field.value.trim_ascii())
                {
                    trailers.append(name, value);
                }
            })
            .map_err(|_| Reason::COMPRESSION_ERROR)?;
        match (is_here, was_reset) {
            (true, _) => self.streams.borrow_mut().trailers(id, (!is_malformed).then_some(trailers)),
            (false, false) if id <= self.last => return Err(Reason::STREAM_CLOSED),
            (false, _) => {}
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
            streams.reset(id, Reason::REFUSED_STREAM, super::StreamBroke::Malformed);
            return Ok(());
        }
        match reading.end(ends) {
            Outcome::Whole(request) => self.answer(id, *request, ends),
            Outcome::Refused { refusal, is_head } => self.refuse(id, refusal, is_head, ends),
            Outcome::Malformed => self.streams.borrow_mut().faulty(id, Reason::PROTOCOL_ERROR),
        }
        Ok(())
    }

    fn take_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        self.is_known(head.stream)?;
        let reason = Reason::from(frame::number(payload)?);
        self.streams.borrow_mut().is_reset(head.stream, reason);
        Ok(())
    }

    fn take_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) };
        }
        self.has_settings = true;
        let mut streams = self.streams.borrow_mut();
        streams.obey(Settings::read(payload)?)?;
        frame::write(streams.out(), kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn take_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() != 8 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if !head.has(flag::ACK) {
            frame::write(self.streams.borrow_mut().out(), kind::PING, flag::ACK, 0, payload);
        } else if payload == ALIVE {
            self.alive.is_answered();
        } else if payload == GOING && self.going == Going::Told {
            // Whatever it sent before it knew is here.
            self.going = Going::Last;
            frame::write_go_away(self.streams.borrow_mut().out(), self.last, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn take_window(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let more = frame::number(payload)? & frame::LARGEST_WINDOW;
        if head.stream != 0 {
            self.is_known(head.stream)?;
        }
        self.streams.borrow_mut().window_grows(head.stream, more)
    }
}

/// Fields that have no place in HTTP/2, in trailers neither.
fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade")
}
