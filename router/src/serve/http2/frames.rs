//! Frames as they come, one after the other; what a block of fields was cut into is one again.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::Reason;

use super::frame::{self, Head, flag, kind};

/// More frames of a block are a flood, whatever they hold.
const CONTINUATIONS: usize = 64;

/// What came.
pub(super) enum Came<'a> {
    /// What is in it is cut out, and not copied.
    Data(Head, Bytes),
    /// Fields of a stream, all of them; `ends`: nothing more comes on it.
    Block { stream: u32, ends: bool, block: &'a [u8] },
    /// Any other frame that means something.
    Other(Head, &'a [u8]),
}

/// A block that goes on in the next frame.
struct Partial {
    stream: u32,
    ends: bool,
    block: Vec<u8>,
    frames: usize,
}

/// The frames of one connection.
#[derive(Default)]
pub(super) struct Frames {
    /// What has come and was not taken.
    pub(super) read: BytesMut,
    partial: Option<Partial>,
    has_settings: bool,
}

impl Frames {
    /// Takes the next frame, where it is all here; true where it was. `list_bytes`: what all fields of a block may count.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn take(&mut self, list_bytes: usize, take: impl FnOnce(Came<'_>) -> Result<(), Reason>) -> Result<bool, Reason> {
        let Some(head) = Head::read(&self.read) else { return Ok(false) };
        if head.length > frame::MOST {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let whole = frame::HEAD + head.length;
        if self.read.len() < whole {
            return Ok(false);
        }
        if self.partial.is_some() && head.kind != kind::CONTINUATION {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.has_settings = true;
        if head.kind == kind::DATA {
            let payload = self.read.split_to(whole).freeze().slice(frame::HEAD..);
            let data = frame::unpadded(head, &payload)?;
            take(Came::Data(head, payload.slice(data)))?;
            return Ok(true);
        }
        let payload = self.read.get(frame::HEAD..whole).unwrap_or_default();
        match head.kind {
            kind::HEADERS if head.stream == 0 => return Err(Reason::PROTOCOL_ERROR),
            kind::HEADERS => {
                let block = payload.get(frame::unpadded(head, payload)?).unwrap_or_default();
                let (stream, ends) = (head.stream, head.has(flag::END_STREAM));
                if head.has(flag::END_HEADERS) {
                    take(Came::Block { stream, ends, block })?;
                } else {
                    self.partial = Some(Partial { stream, ends, block: block.to_vec(), frames: 0 });
                }
            }
            kind::CONTINUATION => {
                if let Some(Partial { stream, ends, block, .. }) = go_on(&mut self.partial, head, payload, list_bytes)? {
                    take(Came::Block { stream, ends, block: &block })?;
                }
            }
            kind::PRIORITY => match (head.stream, payload.len()) {
                (0, _) => return Err(Reason::PROTOCOL_ERROR),
                (stream, 5) => frame::depends_on_another(stream, payload)?,
                _ => return Err(Reason::FRAME_SIZE_ERROR),
            },
            // Nobody asked for one: a client must not, and we say that we do not take any.
            kind::PUSH_PROMISE => return Err(Reason::PROTOCOL_ERROR),
            kind::RESET | kind::SETTINGS | kind::PING | kind::GO_AWAY | kind::WINDOW_UPDATE => take(Came::Other(head, payload))?,
            // Nobody knows it, and it may mean something to somebody (5.5).
            _ => {}
        }
        self.read.advance(whole);
        Ok(true)
    }

    /// Memory that others share is not held by who waits.
    pub(super) fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }
}

/// Puts the next piece of a block behind those before it; the block, where that was the last.
#[cold]
fn go_on(partial: &mut Option<Partial>, head: Head, payload: &[u8], list_bytes: usize) -> Result<Option<Partial>, Reason> {
    let mut so_far = partial.take().filter(|partial| partial.stream == head.stream).ok_or(Reason::PROTOCOL_ERROR)?;
    so_far.frames += 1;
    so_far.block.extend_from_slice(payload);
    if so_far.frames > CONTINUATIONS || so_far.block.len() > list_bytes + frame::MOST {
        return Err(Reason::ENHANCE_YOUR_CALM);
    }
    if head.has(flag::END_HEADERS) {
        return Ok(Some(so_far));
    }
    *partial = Some(so_far);
    Ok(None)
}
