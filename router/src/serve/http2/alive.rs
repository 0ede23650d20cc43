//! Whether the other side of a connection is still there: it is asked now and then, and has a while to answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What a ping says that asks whether it is there.
pub(super) const ALIVE: &[u8; 8] = b"is there";
/// What a ping says that asks because an answer is late.
pub(super) const DOUBT: &[u8; 8] = b"is late?";
/// What a ping says that comes with the word that we are going.
pub(super) const GOING: &[u8; 8] = b"is going";

/// The pings of one connection.
pub(super) struct Alive {
    every: Duration,
    /// Who does not answer within this is gone.
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A ping is to be sent.
    Ask,
    /// It did not answer in time.
    Gone,
}

impl Alive {
    /// Asks every so often, and the first time after that.
    pub(super) fn new(every: Duration, patience: Duration) -> Alive {
        Alive { every, patience, timer: Box::pin(tokio::time::sleep(every)), is_asked: false }
    }

    pub(super) fn is_answered(&mut self) {
        if std::mem::take(&mut self.is_asked) {
            self.timer.as_mut().reset(Instant::now() + self.every);
        }
    }

    /// It is asked now, out of turn.
    pub(super) fn asks(&mut self) {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
    }

    /// `is_wanted`: whether it matters now; nobody is asked otherwise.
    pub(super) fn poll(&mut self, is_wanted: bool, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.is_asked {
                return Poll::Ready(Due::Gone);
            }
            if is_wanted {
                self.asks();
                return Poll::Ready(Due::Ask);
            }
            self.timer.as_mut().reset(Instant::now() + self.every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_answer_is_gone_and_who_answers_is_asked_again() {
        let (every, patience) = (Duration::from_millis(2), Duration::from_millis(3));
        let mut alive = Alive::new(every, patience);
        let begun = Instant::now();
        assert_eq!(std::future::poll_fn(|cx| alive.poll(true, cx)).await, Due::Ask);
        assert!(begun.elapsed() >= every);
        alive.is_answered();
        assert_eq!(std::future::poll_fn(|cx| alive.poll(true, cx)).await, Due::Ask);
        assert!(begun.elapsed() >= 2 * every);
        let asked = Instant::now();
        assert_eq!(std::future::poll_fn(|cx| alive.poll(true, cx)).await, Due::Gone);
        assert!(asked.elapsed() + Duration::from_millis(1) >= patience);
    }
}
