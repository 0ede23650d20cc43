//! The end of a connection whose client still sends: what it sends is read and dropped, until it has seen the end or has had its time.
//!
//! A socket that is closed with bytes unread, or that gets some afterwards, is reset by the kernel, and an answer that the client
//! has not read by then is lost (RFC 9112, 9.6): it would see a reset where a 413 was sent.
//!
//! Invariant: it holds no memory for what comes, and ends within its time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::io::Io;

/// How long a client is waited for that has its answer.
pub(super) const LINGERS_FOR: Duration = Duration::from_secs(5);
/// So many bytes are dropped at most.
pub(super) const MOST: usize = 16 << 20;

/// Such an end.
pub(super) struct Linger {
    over: Pin<Box<Sleep>>,
    left: usize,
    /// The client was told that nothing more comes.
    is_shut: bool,
}

impl Linger {
    /// It takes so long at most.
    pub(super) fn new(time: Duration) -> Linger {
        Linger { over: Box::pin(tokio::time::sleep(time)), left: MOST, is_shut: false }
    }

    /// Ready when the client is through, or is not waited for any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<()> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.is_shut {
            if ready!(io.poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.is_shut = true;
        }
        while self.left > 0 {
            match ready!(io.poll_drop(cx)) {
                Ok(count @ 1..) => self.left = self.left.saturating_sub(count),
                Ok(0) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}
