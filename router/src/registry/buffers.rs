//! Buffers of an upload, used again and again: memory that one thread asked for and others give back comes back late, and then a large file would be held whole.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Those that nobody uses at the moment: at most as many as were ever in use at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// An empty one; with the room that it had before, if it was used before.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// What is in a buffer, for whoever sends it. When the last one has let go of it, the buffer is free.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }
}

/// A buffer that goes home.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_buffer_is_free_when_the_last_one_has_let_go_of_it() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"a part");
        let room = buffer.capacity();
        let sent = buffers.lend(buffer);
        let again = sent.clone();
        assert_eq!(sent, again);
        drop(sent);
        assert_eq!(again.as_ref(), b"a part");
        assert!(buffers.free.lock().unwrap().is_empty(), "it is in use");
        drop(again);
        let buffer = buffers.take();
        assert!(buffer.is_empty() && buffer.capacity() == room, "the same one, and empty");
        assert!(buffers.free.lock().unwrap().is_empty());
    }
}
