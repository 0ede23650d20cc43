//! The open connections of each worker, by what they speak: for the listener, which gives the next one to who has the least to carry,
//! and for metrics.
//!
//! An HTTP/2 connection stays for hours and carries what many HTTP/1.1 connections would, so it weighs more: else the workers that
//! happened to have the fewest connections when a balancer connected would carry most of its queries from then on.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection speaks, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// It has said nothing yet.
    New,
    /// It shakes hands over TLS, and will most likely agree on HTTP/2.
    Handshake,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whatever it was upgraded to.
    Upgraded,
}

/// What an HTTP/2 connection weighs beside the others. A balancer with a few of them and a few hundred users with one connection each
/// should both be spread.
const HTTP2_WEIGHT: usize = 16;

impl Spoken {
    /// All of them, in the order of the counts.
    pub const ALL: [Spoken; 5] = [Spoken::New, Spoken::Handshake, Spoken::Http1, Spoken::Http2, Spoken::Upgraded];

    /// The `protocol` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Spoken::New => "new",
            Spoken::Handshake => "handshake",
            Spoken::Http1 => "http1",
            Spoken::Http2 => "http2",
            Spoken::Upgraded => "upgraded",
        }
    }

    fn weight(self) -> usize {
        match self {
            Spoken::Handshake | Spoken::Http2 => HTTP2_WEIGHT,
            Spoken::New | Spoken::Http1 | Spoken::Upgraded => 1,
        }
    }
}

/// One worker's connections.
#[derive(Debug, Default)]
pub struct OpenConnections([AtomicUsize; Spoken::ALL.len()]);

impl OpenConnections {
    /// How many speak this.
    #[must_use]
    pub fn count(&self, spoken: Spoken) -> usize {
        self.0.get(spoken as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many there are.
    pub(crate) fn total(&self) -> usize {
        Spoken::ALL.into_iter().map(|spoken| self.count(spoken)).sum()
    }

    /// What they weigh together.
    pub(crate) fn load(&self) -> usize {
        Spoken::ALL.into_iter().map(|spoken| self.count(spoken) * spoken.weight()).sum()
    }

    pub(crate) fn enter(&self, spoken: Spoken) {
        if let Some(count) = self.0.get(spoken as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn leave(&self, spoken: Spoken) {
        if let Some(count) = self.0.get(spoken as usize) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http2_connection_weighs_as_much_as_several_others() {
        let open = OpenConnections::default();
        open.enter(Spoken::New);
        assert_eq!((open.total(), open.load()), (1, 1));
        open.enter(Spoken::Http2);
        open.leave(Spoken::New);
        assert_eq!((open.total(), open.load(), open.count(Spoken::Http2)), (1, HTTP2_WEIGHT, 1));
        open.leave(Spoken::Http2);
        assert_eq!((open.total(), open.load()), (0, 0));
    }
}
