//! The buckets of the latency histogram: 32 to each doubling, so that none is wider than 1/32 of its lower edge. Pure.
//!
//! Both roles share the edges, and routers too: histograms are merged by adding.

use std::time::Duration;

/// Buckets of one doubling, as a power of two.
const STEPS_LOG2: u32 = 5;
/// Below this many microseconds each has a bucket of its own.
const EXACT: u32 = 1 << (STEPS_LOG2 + 1);
/// The longest that is told apart, in microseconds: 2^27 - 1, some 134 s. What takes longer is in the last bucket.
const LONGEST: u32 = (1 << 27) - 1;
/// How many there are.
pub(super) const BUCKETS: usize = bucket_of(LONGEST) as usize + 1;

/// The bucket of a latency.
#[must_use]
pub(super) fn bucket(latency: Duration) -> usize {
    let micros = u32::try_from(latency.as_micros()).unwrap_or(LONGEST).min(LONGEST);
    bucket_of(micros) as usize
}

const fn bucket_of(micros: u32) -> u32 {
    if micros < EXACT {
        return micros;
    }
    let shift = micros.ilog2() - STEPS_LOG2;
    // The leading bit and five more: 32..64, and 32 buckets for each shift before it.
    (shift << STEPS_LOG2) + (micros >> shift)
}

/// The longest latency of a bucket, in microseconds; `None` where there is no such bucket.
#[must_use]
pub fn upper_micros(bucket: usize) -> Option<u32> {
    let bucket = u32::try_from(bucket).ok().filter(|bucket| (*bucket as usize) < BUCKETS)?;
    if bucket < EXACT {
        return Some(bucket);
    }
    let shift = (bucket >> STEPS_LOG2) - 1;
    let lead = bucket - (shift << STEPS_LOG2);
    Some(((lead + 1) << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_bucket_takes_whatever_is_longer() {
        assert_eq!(BUCKETS, 736);
        assert_eq!(bucket(Duration::from_secs(3_600)), BUCKETS - 1);
        assert_eq!(upper_micros(BUCKETS - 1), Some(LONGEST));
        assert_eq!(upper_micros(BUCKETS), None);
    }

    #[test]
    fn edges_grow_by_no_more_than_a_thirty_second() {
        let edges: Vec<u32> = (0..BUCKETS).map(|bucket| upper_micros(bucket).unwrap()).collect();
        assert!(edges.windows(2).all(|pair| pair[0] < pair[1] && (pair[0] < 63 || pair[1] - pair[0] <= pair[0] / 31)));
    }

    proptest! {
        #[test]
        fn a_latency_is_in_the_bucket_whose_edges_are_around_it(micros in 0..=LONGEST) {
            let bucket = bucket(Duration::from_micros(micros.into()));
            prop_assert!(micros <= upper_micros(bucket).unwrap());
            prop_assert!(bucket == 0 || micros > upper_micros(bucket - 1).unwrap());
        }
    }
}
