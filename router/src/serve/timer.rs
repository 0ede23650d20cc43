//! A deadline for each query, without a timer for each query.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A timer that is used again and again, one deadline after the other. Setting a timer and taking it back costs more than looking
/// up a route, and hardly any query meets its deadline; so the timer stays set to an early one's, and when it rings too soon for the
/// present one, it is set to that: once in a timeout instead of once in a query.
pub(crate) struct ReusedTimer {
    sleep: Pin<Box<Sleep>>,
}

impl ReusedTimer {
    pub(crate) fn new(deadline: Instant) -> ReusedTimer {
        ReusedTimer { sleep: Box::pin(tokio::time::sleep_until(deadline)) }
    }

    /// Ready when `deadline` has passed. To be polled with the same deadline until it is not needed any more.
    pub(crate) fn poll_passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.deadline() > deadline {
            self.sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// How long it took until `timer` rang for a deadline after `wait`.
    async fn rings_after(timer: &mut ReusedTimer, wait: Duration) -> Duration {
        let started = Instant::now();
        poll_fn(|cx| timer.poll_passed(started + wait, cx)).await;
        started.elapsed()
    }

    #[tokio::test]
    async fn each_deadline_is_kept_whether_it_is_earlier_or_later_than_the_one_before() {
        let mut timer = ReusedTimer::new(Instant::now() + Duration::from_secs(3_600));
        for millis in [40, 10, 60, 1, 1, 30] {
            let waited = rings_after(&mut timer, Duration::from_millis(millis)).await;
            assert!(waited >= Duration::from_millis(millis), "{waited:?} for {millis} ms");
            assert!(waited < Duration::from_secs(3), "{waited:?} for {millis} ms");
        }
    }

    #[tokio::test]
    async fn a_deadline_that_nobody_waited_for_does_not_end_a_later_one_early() {
        let mut timer = ReusedTimer::new(Instant::now());
        assert!(rings_after(&mut timer, Duration::from_millis(50)).await >= Duration::from_millis(50));
    }
}
