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

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_whether_it_is_earlier_or_later_than_the_one_before() {
        let mut timer = ReusedTimer::new(Instant::now() + Duration::from_secs(10));
        for seconds in [10, 3, 20, 1, 1, 60] {
            let started = Instant::now();
            poll_fn(|cx| timer.poll_passed(started + Duration::from_secs(seconds), cx)).await;
            let waited = started.elapsed();
            assert!((seconds * 1_000..=seconds * 1_000 + 2).contains(&(waited.as_millis() as u64)), "{waited:?} for {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_nobody_waited_for_does_not_end_a_later_one_early() {
        let mut timer = ReusedTimer::new(Instant::now() + Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = Instant::now();
        poll_fn(|cx| timer.poll_passed(started + Duration::from_secs(5), cx)).await;
        assert!(started.elapsed() >= Duration::from_secs(5));
    }
}
