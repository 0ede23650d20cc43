//! Bytes as they come out of a file or a decompressor, with a position, a limit, and pickle's frames. Invariant: what is read is counted,
//! and what is not kept is never held.

use std::io::{ErrorKind, Read};

use super::error::Fault;

/// What is read at a time, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// A stream of bytes that is read once.
pub(super) struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    has_ended: bool,
    position: u64,
    frame_end: Option<u64>,
    budget: Budget,
}

/// How many bytes may still come, over all streams of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Read so far.
    pub(super) spent: u64,
    /// The limit.
    pub(super) limit: u64,
    /// What the limit is called.
    pub(super) what: &'static str,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, budget: Budget) -> Input<R> {
        Input { reader, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, has_ended: false, position: 0, frame_end: None, budget }
    }

    /// Bytes that were taken so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What was read, and what is left of it.
    pub(super) fn into_parts(self) -> (R, Budget) {
        (self.reader, self.budget)
    }

    /// Whether nothing more comes.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.available()?.is_empty())
    }

    /// Whether the frame that was begun has bytes left.
    pub(super) fn is_in_frame(&self) -> bool {
        self.frame_end.is_some_and(|end| self.position < end)
    }

    /// Leaves the frame: a pickle is at its end.
    pub(super) fn end_frame(&mut self) -> Result<(), Fault> {
        if self.is_in_frame() {
            return Err(Fault::broken("bytes are left in the frame"));
        }
        self.frame_end = None;
        Ok(())
    }

    /// A frame of so many bytes begins here.
    pub(super) fn begin_frame(&mut self, length: u64) -> Result<(), Fault> {
        if self.is_in_frame() {
            return Err(Fault::broken("a frame begins in a frame"));
        }
        let end = self.position.checked_add(length).ok_or_else(|| Fault::broken("a frame is longer than any file"))?;
        self.frame_end = Some(end);
        Ok(())
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.available()?.first().ok_or_else(ended)?;
        self.take(1)?;
        Ok(byte)
    }

    /// The next eight bytes at most, as a little-endian number.
    pub(super) fn number(&mut self, width: usize) -> Result<u64, Fault> {
        let mut number = 0;
        for place in 0..width.min(8) {
            number |= u64::from(self.byte()?) << (8 * place);
        }
        Ok(number)
    }

    /// Takes `length` bytes; they are in `kept` if they are no more than `most`, and it is empty otherwise. Whether they are in it.
    pub(super) fn data(&mut self, length: u64, most: usize, kept: &mut Vec<u8>) -> Result<bool, Fault> {
        kept.clear();
        let keeps = usize::try_from(length).is_ok_and(|length| length <= most);
        let mut left = length;
        while left > 0 {
            let available = self.available()?;
            let count = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = available.get(..count).filter(|bytes| !bytes.is_empty()).ok_or_else(ended)?;
            if keeps {
                kept.extend_from_slice(bytes);
            }
            self.take(count)?;
            left = left.saturating_sub(count as u64);
        }
        Ok(keeps)
    }

    /// Takes a line without its end; it is in `kept` if it is no longer than `most`. Whether it is in it.
    pub(super) fn line(&mut self, most: usize, kept: &mut Vec<u8>) -> Result<bool, Fault> {
        kept.clear();
        let mut keeps = true;
        loop {
            let available = self.available()?;
            if available.is_empty() {
                return Err(ended());
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let count = newline.unwrap_or(available.len());
            if keeps && kept.len() + count <= most {
                kept.extend_from_slice(available.get(..count).unwrap_or_default());
            } else {
                keeps = false;
                kept.clear();
            }
            match newline {
                Some(_) => {
                    self.take(count + 1)?;
                    return Ok(keeps);
                }
                None => self.take(count)?,
            }
        }
    }

    /// Takes what was read ahead.
    pub(super) fn skip_buffer(&mut self) -> Result<(), Fault> {
        self.take(self.end.saturating_sub(self.start))
    }

    fn take(&mut self, count: usize) -> Result<(), Fault> {
        let before = self.position;
        self.position = before.saturating_add(count as u64);
        self.start = self.start.saturating_add(count);
        match self.frame_end {
            // Python's two unpicklers do not agree on what that means.
            Some(end) if before < end && self.position > end => Err(Fault::broken("the end of a frame is inside an opcode")),
            Some(end) if before >= end => {
                self.frame_end = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn available(&mut self) -> Result<&[u8], Fault> {
        while self.start >= self.end && !self.has_ended {
            match self.reader.read(&mut self.buffer) {
                // Some decompressors would go on with what is after their stream.
                Ok(0) => self.has_ended = true,
                Ok(count) => {
                    (self.start, self.end) = (0, count);
                    self.budget.spent = self.budget.spent.saturating_add(count as u64);
                    if self.budget.spent > self.budget.limit {
                        return Err(Fault::Limit { what: self.budget.what, limit: self.budget.limit });
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::broken(format!("it cannot be decompressed: {error}"))),
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }
}

fn ended() -> Fault {
    Fault::broken("it ends in the middle")
}
