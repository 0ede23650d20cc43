//! A limit on how long a body may pause, and on how long it may take.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Runs only while a body makes us wait: a body that is there already never starts a timer.
pub(crate) struct IdleTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(crate) fn new(limit: Duration) -> IdleTimer {
        IdleTimer { limit, sleep: None }
    }

    /// Something arrived: the next pause starts anew.
    pub(crate) fn progressed(&mut self) {
        self.sleep = None;
    }

    /// Ready when the pause has lasted too long.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(cx)
    }

    /// The same for a body that must be through by `end`, however busy it is.
    pub(crate) fn poll_expired_by(&mut self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.min(Instant::now() + limit))));
        sleep.as_mut().poll(cx)
    }
}
