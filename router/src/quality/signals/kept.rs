//! The copy of a body as it passes: no longer than it may be, and all copies together hold no more than they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::said::BodyFault;

/// What all copies together may hold.
const HELD_BYTES: usize = 32 << 20;

/// A copy of a body, as far as it has passed.
#[derive(Debug)]
pub struct Kept {
    body: Vec<u8>,
    /// Longer ones are left alone, in bytes.
    most: usize,
    /// Why it is left alone.
    fault: Option<BodyFault>,
    /// Bytes of all copies.
    held: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.held.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

impl Kept {
    /// Of a body that is about to pass; `held` counts what all copies hold.
    pub(super) fn new(most: usize, held: &Arc<AtomicUsize>) -> Kept {
        Kept { body: Vec::new(), most, fault: None, held: held.clone() }
    }

    /// A piece of it has passed.
    pub fn pass(&mut self, piece: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let is_much = self.held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > HELD_BYTES;
        let is_long = self.body.len() + piece.len() > self.most;
        if is_long || is_much {
            self.fault = Some(if is_long { BodyFault::TooLong } else { BodyFault::Busy });
            self.held.fetch_sub(piece.len() + self.body.len(), Ordering::Relaxed);
            self.body = Vec::new();
            return;
        }
        self.body.extend_from_slice(piece);
    }

    /// All of it.
    ///
    /// # Errors
    /// [`BodyFault::TooLong`], or [`BodyFault::Busy`] where there was no room.
    pub fn whole(&self) -> Result<&[u8], BodyFault> {
        self.fault.map_or(Ok(self.body.as_slice()), Err)
    }
}
