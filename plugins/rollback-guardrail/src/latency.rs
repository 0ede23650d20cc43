//! Latency as rare events: requests slower than what control was at its median, p90 and p99 in earlier windows.

use switchback_policy::rollback::Bucket;

use crate::bytes::{Reader, Writer};
use crate::kernels::{Arm, Arms};

/// The quantiles of control that the candidate is held against.
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// How much of a window's weight is left one window later.
const DECAY: f64 = 0.999;
/// Control's requests, decayed, before there are thresholds.
const LEAST: f64 = 2_000.0;
/// How far apart two edges may be: buckets are at most 5 % wide.
const WIDTH: f64 = 1.05;
/// Buckets that are remembered: 5 % wide ones from 1 us to 18 h are 512.
const MOST_BUCKETS: usize = 1_024;
/// A bucket with less than this of a request, decayed, is forgotten.
const FORGOTTEN: f64 = 1e-3;

/// Control's latencies in earlier windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    /// Upper edge and decayed number of requests, by edge.
    buckets: Vec<(u64, f64)>,
}

/// What counts as slow, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Threshold {
    control: u64,
    /// The same with the tolerance, rounded up to an edge.
    candidate: u64,
}

/// Slow requests of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slow {
    /// At each of [`QUANTILES`], what is evidence of harm: the tolerance is the candidate's alone.
    pub(crate) quantiles: [Arms; 3],
    /// At the last of them, what is shown: both arms beyond the candidate's threshold. Two arms that are alike have no difference then.
    pub(crate) shown: Arms,
}

impl History {
    /// The numbers of slow requests in a window; `None` while too little is known of control.
    pub(crate) fn exceedances(&self, latency: &[Bucket], tolerance: f64, ignored: f64) -> Option<Slow> {
        let thresholds = self.thresholds(tolerance, ignored)?;
        let [_, _, tail] = thresholds;
        let mut arms = [Arms::default(); 3];
        let mut both = 0.0;
        let (mut candidate_n, mut control_n) = (0.0, 0.0);
        for bucket in latency {
            let (candidate, control) = (bucket.candidate as f64, bucket.control as f64);
            candidate_n += candidate;
            control_n += control;
            if bucket.upper_micros > tail.candidate {
                both += control;
            }
            for (arms, threshold) in arms.iter_mut().zip(&thresholds) {
                if bucket.upper_micros > threshold.candidate {
                    arms.candidate.sum += candidate;
                }
                if bucket.upper_micros > threshold.control {
                    arms.control.sum += control;
                }
            }
        }
        let quantiles = arms.map(|arms| Arms {
            candidate: Arm::events(candidate_n, arms.candidate.sum),
            control: Arm::events(control_n, arms.control.sum),
        });
        let [_, _, Arms { candidate, .. }] = quantiles;
        Some(Slow { quantiles, shown: Arms { candidate, control: Arm::events(control_n, both) } })
    }

    fn thresholds(&self, tolerance: f64, ignored: f64) -> Option<[Threshold; 3]> {
        let mut total = 0.0;
        for (_, weight) in &self.buckets {
            total += weight;
        }
        if total < LEAST {
            return None;
        }
        let mut thresholds = [Threshold { control: u64::MAX, candidate: u64::MAX }; 3];
        let mut below = 0.0;
        let mut wanted = thresholds.iter_mut().zip(QUANTILES).peekable();
        for (edge, weight) in &self.buckets {
            below += weight;
            while let Some((threshold, _)) = wanted.next_if(|(_, quantile)| below >= quantile * total) {
                *threshold = Threshold { control: *edge, candidate: self.tolerated(*edge, tolerance, ignored) };
            }
        }
        Some(thresholds)
    }

    /// The first known edge that is not below `edge` with the tolerance, nor below what is ignored. Where none is known, so far up that the bucket above it lies
    /// wholly beyond.
    fn tolerated(&self, edge: u64, tolerance: f64, ignored: f64) -> u64 {
        let wanted = (edge as f64 * (1.0 + tolerance)).max(ignored);
        if wanted <= edge as f64 {
            return edge;
        }
        let known = self.buckets.iter().map(|(edge, _)| *edge).find(|edge| *edge as f64 >= wanted);
        known.unwrap_or((wanted * WIDTH) as u64)
    }

    /// Adds control's latencies of a window, and lets the older ones fade.
    pub(crate) fn add(&mut self, latency: &[Bucket]) {
        for (_, weight) in &mut self.buckets {
            *weight *= DECAY;
        }
        let mut at = 0;
        for bucket in latency.iter().filter(|bucket| bucket.control > 0) {
            while self.buckets.get(at).is_some_and(|(edge, _)| *edge < bucket.upper_micros) {
                at += 1;
            }
            match self.buckets.get_mut(at) {
                Some((edge, weight)) if *edge == bucket.upper_micros => *weight += bucket.control as f64,
                _ => self.buckets.insert(at, (bucket.upper_micros, bucket.control as f64)),
            }
        }
        if self.buckets.len() > MOST_BUCKETS / 2 {
            self.buckets.retain(|(_, weight)| *weight >= FORGOTTEN);
            self.buckets.truncate(MOST_BUCKETS);
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(u32::try_from(self.buckets.len()).unwrap_or(u32::MAX));
        for (edge, weight) in &self.buckets {
            writer.u64(*edge);
            writer.f64(*weight);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<History, String> {
        let length = reader.u32("the number of latency buckets")? as usize;
        if length > MOST_BUCKETS {
            return Err(reader.refuse("the number of latency buckets", &length.to_string(), "1024 at most"));
        }
        let mut buckets: Vec<(u64, f64)> = Vec::with_capacity(length);
        for _ in 0..length {
            let edge = reader.u64("a latency edge")?;
            if buckets.last().is_some_and(|(last, _)| *last >= edge) {
                return Err(reader.refuse("a latency edge", &edge.to_string(), "above the one before it"));
            }
            buckets.push((edge, reader.f64("a latency bucket's weight", 0.0, 1e18)?));
        }
        Ok(History { buckets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(upper_micros: u64, candidate: u64, control: u64) -> Bucket {
        Bucket { upper_micros, candidate, control }
    }

    /// Slow requests of both roles at the three quantiles, where control answers in `fast` and the candidate in `slow` microseconds.
    fn slow(fast: u64, slow: u64, tolerance: f64, ignored: f64) -> [(f64, f64); 3] {
        let mut history = History::default();
        history.add(&[bucket(fast, 0, 5_000)]);
        let mut window = vec![bucket(fast, 0, 100), bucket(slow, 100, 0)];
        window.sort_by_key(|bucket| bucket.upper_micros);
        history.exceedances(&window, tolerance, ignored).unwrap().quantiles.map(|arms| (arms.candidate.sum, arms.control.sum))
    }

    #[test]
    fn what_is_slower_than_control_was_is_slow() {
        assert_eq!(slow(100_000, 110_000, 0.0, 2_000.0), [(100.0, 0.0); 3]);
        assert_eq!(slow(100_000, 110_000, 0.2, 2_000.0), [(0.0, 0.0); 3]);
        assert_eq!(slow(100_000, 90_000, 0.0, 2_000.0), [(0.0, 0.0); 3]);
    }

    #[test]
    fn what_nobody_notices_is_not() {
        assert_eq!(slow(300, 500, 0.0, 2_000.0), [(0.0, 0.0); 3], "a cold candidate of a fast ranker");
        assert_eq!(slow(300, 2_500, 0.0, 2_000.0), [(100.0, 0.0); 3]);
        assert_eq!(slow(300, 500, 0.0, 0.0), [(100.0, 0.0); 3]);
    }

    /// One that answers as control does is not shown to be faster, however fast both are.
    #[test]
    fn who_is_alike_is_shown_to_be() {
        for (tolerance, ignored) in [(0.0, 0.0), (0.2, 0.0), (0.0, 2_000.0), (0.5, 2_000.0)] {
            let mut history = History::default();
            history.add(&[bucket(300, 0, 4_900), bucket(900, 0, 100)]);
            let window = [bucket(300, 980, 980), bucket(900, 10, 10), bucket(1_500, 5, 5), bucket(5_000, 5, 5)];
            let Slow { shown, .. } = history.exceedances(&window, tolerance, ignored).unwrap();
            assert_eq!(shown.candidate, shown.control, "{tolerance} {ignored}");
            assert_eq!(shown.candidate.sum, if ignored > 0.0 { 5.0 } else { 10.0 }, "{tolerance} {ignored}");
        }
    }
}
