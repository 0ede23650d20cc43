//! How many second attempts a worker may make on a pool. Pure: `now` is a parameter.
//!
//! A bucket: each query puts in a fifth of a retry, each second three, and a retry takes one out. So a backend that goes on failing gets
//! at most a fifth more load than its queries are, while an endpoint that dies with many queries in flight costs none of them: what
//! was saved up is there for such a burst. A limit on retries *in flight* (as a share of queries in flight) was tried first, and
//! lost queries just then: when half of a small pool dies, half of what is in flight needs a second attempt at once.

use std::cell::Cell;

use tokio::time::Instant;

/// What one retry takes out of the bucket.
const RETRY: u32 = 1_000;
/// What each query puts in: a fifth of a retry.
const PER_QUERY: u32 = RETRY / 5;
/// What each second puts in, for pools with little traffic: three retries.
const PER_SECOND: u32 = 3 * RETRY;
/// What it holds at most: more queries than one worker usually has in flight on a dying endpoint.
const FULL: u32 = 500 * RETRY;

/// One worker's bucket for one pool.
pub(super) struct RetryBudget {
    saved: Cell<u32>,
    since: Cell<Instant>,
}

impl RetryBudget {
    /// Starts with what a second puts in.
    pub(super) fn new(now: Instant) -> RetryBudget {
        RetryBudget { saved: Cell::new(PER_SECOND), since: Cell::new(now) }
    }

    /// A query was sent.
    pub(super) fn deposit(&self) {
        self.saved.set((self.saved.get() + PER_QUERY).min(FULL));
    }

    /// Leave to try one query again; takes a retry out.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let seconds = now.duration_since(self.since.replace(now)).as_secs_f64();
        // At most FULL, so that it fits.
        let trickled = (seconds * f64::from(PER_SECOND)).min(f64::from(FULL)) as u32;
        let saved = (self.saved.get() + trickled).min(FULL);
        let left = saved.checked_sub(RETRY);
        self.saved.set(left.unwrap_or(saved));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn withdrawn(budget: &RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_queries_and_three_a_second() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        assert_eq!(withdrawn(&budget, now), 3);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, now), 200);
        assert_eq!(withdrawn(&budget, now + Duration::from_secs(2)), 6);
    }

    #[test]
    fn a_full_bucket_has_enough_for_a_dying_endpoint_and_no_more() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, now + Duration::from_secs(86_400)), 500);
        assert!(!budget.withdraw(now + Duration::from_secs(86_400)));
    }

    proptest::proptest! {
        #[test]
        fn retries_never_pass_a_fifth_of_the_queries_three_a_second_and_the_first_three(
            steps in proptest::collection::vec((0_u64..2_000, 0_usize..50, 0_usize..50), 1..50)
        ) {
            let start = Instant::now();
            let (budget, mut now, mut queries, mut retries) = (RetryBudget::new(start), start, 0, 0);
            for (millis, deposits, tries) in steps {
                now += Duration::from_millis(millis);
                (0..deposits).for_each(|_| budget.deposit());
                queries += deposits;
                retries += (0..tries).filter(|_| budget.withdraw(now)).count();
                let allowed = queries as f64 / 5.0 + 3.0 * now.duration_since(start).as_secs_f64() + 3.0;
                proptest::prop_assert!(retries as f64 <= allowed + 1e-6, "{retries} retries, {allowed} allowed");
            }
        }
    }
}
