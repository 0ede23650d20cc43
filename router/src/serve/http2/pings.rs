//! Whether the other side of a connection is still there: it is asked now and then, and has a while to answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// Who does not answer within this is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pings of one connection.
pub(super) struct Pings {
    pings: Option<PingPong>,
    every: Duration,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
    answers: u64,
}

impl Pings {
    /// Asks every so often, and the first time after that.
    pub(super) fn new(pings: Option<PingPong>, every: Duration) -> Pings {
        Pings { pings, every, timer: Box::pin(tokio::time::sleep(every)), is_asked: false, answers: 0 }
    }

    /// Asks at once.
    pub(super) fn ask(&mut self) {
        let is_sent = self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
        if is_sent {
            self.is_asked = true;
            self.timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }

    /// It has answered once: then whatever it said before has been heard too, its settings first of all.
    pub(super) fn has_answered(&self) -> bool {
        self.answers > 0
    }

    /// Ready when the other side is gone. `is_wanted`: whether it matters now.
    pub(super) fn poll_gone(&mut self, is_wanted: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_asked
                && let Some(pings) = &mut self.pings
                && let Poll::Ready(Ok(_)) = pings.poll_pong(cx)
            {
                self.is_asked = false;
                self.answers += 1;
                self.timer.as_mut().reset(Instant::now() + self.every);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.is_asked {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + self.every);
            if is_wanted {
                self.ask();
            }
        }
    }
}
