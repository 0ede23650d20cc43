//! Whether the other side of a connection is still there: it is asked now and then, and has a while to answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// The pings of one connection.
pub(super) struct Pings {
    pings: Option<PingPong>,
    every: Duration,
    /// Who does not answer within this is gone.
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
    answers: u64,
}

impl Pings {
    /// Asks every so often, and the first time after that.
    pub(super) fn new(pings: Option<PingPong>, every: Duration, patience: Duration) -> Pings {
        Pings { pings, every, patience, timer: Box::pin(tokio::time::sleep(every)), is_asked: false, answers: 0 }
    }

    /// Asks at once.
    pub(super) fn ask(&mut self) {
        let is_sent = self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
        if is_sent {
            self.is_asked = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
    }

    /// How often it has answered. Once it has, whatever it said before has been heard too, its settings first of all.
    pub(super) fn answers(&self) -> u64 {
        self.answers
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a client's pings are answered by a server that is looked after, or not.
    async fn is_gone(is_served: bool) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (client, server) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((_requests, mut connection), mut server) = (client.unwrap(), server.unwrap());
        let mut pings = Pings::new(connection.ping_pong(), Duration::from_millis(1), Duration::from_millis(50));
        pings.ask();
        let until = Instant::now() + Duration::from_millis(200);
        std::future::poll_fn(|cx| {
            if is_served {
                assert!(server.poll_accept(cx).is_pending());
            }
            assert!(Pin::new(&mut connection).poll(cx).is_pending());
            if pings.poll_gone(true, cx).is_ready() {
                return Poll::Ready(true);
            }
            if Instant::now() < until { Poll::Pending } else { Poll::Ready(false) }
        })
        .await
            || pings.answers() == 0
    }

    #[tokio::test]
    async fn who_does_not_answer_is_gone() {
        assert!(is_gone(false).await);
    }

    #[tokio::test]
    async fn who_answers_is_there() {
        assert!(!is_gone(true).await);
    }
}
