//! What follows a try: done, refused, or again and when. Pure.
//!
//! Waits grow by exponential back-off with full jitter: anywhere from nothing to a ceiling that doubles with each try. A fixed wait, or one
//! with little jitter, sends all that failed together together again, to a receiver that has just come back.

use std::time::{Duration, SystemTime};

use crate::config::Notify;

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// There was an answer.
    Answered {
        /// Its status.
        status: u16,
        /// How long it says to wait.
        retry_after: Option<Duration>,
    },
    /// There was none, or not in time.
    Unanswered,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It was taken.
    Done,
    /// It was refused, and will be again.
    Refused,
    /// Nobody is there to take anything, for good.
    Gone,
    /// Again, after this.
    Again(Duration),
    /// It was tried for long enough.
    GiveUp,
}

/// After so many tries (the first is 1) of a notice of this age. `fraction` is a random number from 0 to 1.
pub(super) fn next(target: &Notify, tries: u32, age: Duration, tried: Tried, fraction: f64) -> Next {
    let asked = match tried {
        Tried::Answered { status: 200..=299, .. } => return Next::Done,
        Tried::Answered { status: 410, .. } => return Next::Gone,
        Tried::Answered { status: 408 | 429 | 500..=599, retry_after } => retry_after.unwrap_or_default(),
        Tried::Answered { .. } => return Next::Refused,
        Tried::Unanswered => Duration::ZERO,
    };
    let ceiling = target.retry_base.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(target.retry_cap);
    let wait = ceiling.mul_f64(fraction.clamp(0.0, 1.0)).max(asked.min(target.retry_cap));
    let is_over = tries >= target.max_tries || age.saturating_add(wait) > target.retry_for;
    if is_over { Next::GiveUp } else { Next::Again(wait) }
}

/// What `Retry-After` says: seconds, or a date.
pub(super) fn retry_after(value: &str, now_unix_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let since_1970 = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since_1970.saturating_sub(Duration::from_millis(now_unix_ms)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::receiver::target;

    const SECOND: Duration = Duration::from_secs(1);

    fn answered(status: u16) -> Tried {
        Tried::Answered { status, retry_after: None }
    }

    fn after(tries: u32, tried: Tried, fraction: f64) -> Next {
        next(&target("http://h"), tries, Duration::ZERO, tried, fraction)
    }

    #[test]
    fn only_what_was_not_answered_or_was_put_off_is_sent_again() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(after(1, answered(status), 1.0), Next::Done, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert_eq!(after(1, answered(status), 1.0), Next::Again(SECOND), "{status}");
        }
        for status in [301, 302, 307, 400, 401, 403, 404, 409, 422] {
            assert_eq!(after(1, answered(status), 1.0), Next::Refused, "{status}");
        }
        assert_eq!(after(1, Tried::Unanswered, 1.0), Next::Again(SECOND));
        assert_eq!(after(1, answered(410), 1.0), Next::Gone);
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let ceiling = |tries| match after(tries, Tried::Unanswered, 1.0) {
            Next::Again(wait) => wait.as_secs(),
            _ => 0,
        };
        let ceilings: Vec<u64> = (1..=13).map(ceiling).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        assert_eq!(after(400, Tried::Unanswered, 1.0), Next::Again(Duration::from_secs(600)));
    }

    #[test]
    fn a_receiver_that_says_when_is_not_asked_before() {
        let put_off = |seconds: u64| Tried::Answered { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(after(1, put_off(30), 0.0), Next::Again(Duration::from_secs(30)));
        assert_eq!(after(6, put_off(30), 1.0), Next::Again(Duration::from_secs(32)));
        assert_eq!(after(1, put_off(86_400), 0.0), Next::Again(Duration::from_secs(600)), "it is capped");
    }

    #[test]
    fn it_ends_by_number_and_by_age() {
        let target = target("http://h");
        assert_eq!(next(&target, 500, Duration::ZERO, Tried::Unanswered, 0.0), Next::GiveUp);
        let day = Duration::from_secs(86_400);
        assert_eq!(next(&target, 1, day - SECOND, Tried::Unanswered, 1.0), Next::Again(SECOND));
        assert_eq!(next(&target, 1, day, Tried::Unanswered, 1.0), Next::GiveUp);
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = 784_111_777_000;
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO), "it is past");
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::from_secs(u64::from(u32::MAX))));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }

    proptest! {
        /// However it goes, a wait is within the cap, and tries end.
        #[test]
        fn every_wait_is_within_the_cap(tries in 1..u32::MAX, age in 0..200_000_u64, asked in 0..u64::MAX, status in 100..600_u16, fraction in -1.0..2.0_f64) {
            let target = target("http://h");
            let tried = Tried::Answered { status, retry_after: Some(Duration::from_secs(asked)) };
            if let Next::Again(wait) = next(&target, tries, Duration::from_secs(age), tried, fraction) {
                prop_assert!(wait <= target.retry_cap && tries < target.max_tries);
                prop_assert!(Duration::from_secs(age) + wait <= target.retry_for);
            }
        }
    }
}
