//! What came of the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// An answer that takes longer than this is counted by itself.
pub(crate) const SLOW: Duration = Duration::from_millis(10);
/// Latencies are kept to three digits, up to this.
const LONGEST: Duration = Duration::from_secs(60);
const DIGITS: u8 = 3;

/// Which upstream answered: the first bytes of its name.
pub(crate) type Arm = [u8; 12];

/// What an answer says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Zeroes where the answer names nobody.
    pub(crate) arm: Arm,
}

/// Counters of one run.
pub(crate) struct Tally {
    pub(crate) statuses: BTreeMap<u16, u64>,
    arms: Vec<(Arm, u64)>,
    /// Requests that got no whole answer.
    pub(crate) lost: u64,
    /// Answers by another upstream than the one that answered this user before.
    pub(crate) moved: u64,
    /// Open loop: requests that were never sent, since too many waited, or for too long.
    pub(crate) unsent: u64,
    slow: u64,
    /// Answers within the measured time.
    in_time: u64,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    pub(crate) time: Duration,
}

/// The same, as it is written down.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// Within the measured time.
    pub(crate) answers: u64,
    /// Open loop: answers that came later to what was due in that time. Statuses, arms and latencies have them too.
    pub(crate) overdue: u64,
    pub(crate) seconds: f64,
    /// By status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// By the upstream that answered.
    pub(crate) arms: BTreeMap<String, u64>,
    pub(crate) lost: u64,
    pub(crate) moved: u64,
    pub(crate) unsent: u64,
    /// Answers that took longer than 10 ms.
    pub(crate) slow: u64,
    /// Nothing where the generator says none.
    pub(crate) latency: Option<Latency>,
    /// Open loop: how late the generator itself sent, where a connection was free. In microseconds.
    pub(crate) generator_late_p99_us: f64,
}

/// In microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Tally {
    pub(crate) fn new() -> Result<Tally> {
        let histogram = || Histogram::new_with_bounds(1, nanoseconds(LONGEST), DIGITS);
        Ok(Tally {
            statuses: BTreeMap::new(),
            arms: Vec::new(),
            lost: 0,
            moved: 0,
            unsent: 0,
            slow: 0,
            in_time: 0,
            latency: histogram()?,
            late: histogram()?,
            time: Duration::ZERO,
        })
    }

    /// One answer, and how long it took.
    pub(crate) fn add(&mut self, answer: Answer, took: Duration) {
        *self.statuses.entry(answer.status).or_default() += 1;
        match self.arms.iter_mut().find(|(arm, _)| *arm == answer.arm) {
            Some((_, count)) => *count += 1,
            None => self.arms.push((answer.arm, 1)),
        }
        self.slow += u64::from(took > SLOW);
        self.latency.saturating_record(nanoseconds(took));
    }

    /// The measured time is over: what comes from now on is overdue.
    pub(crate) fn end(&mut self, time: Duration) {
        self.time = time;
        self.in_time = self.latency.len();
    }

    /// How late a request was sent.
    pub(crate) fn sent_late_by(&mut self, late: Duration) {
        self.late.saturating_record(nanoseconds(late));
    }

    pub(crate) fn summary(&self) -> Summary {
        let microseconds = |histogram: &Histogram<u64>, part: f64| histogram.value_at_quantile(part) as f64 / 1e3;
        let at = |part| microseconds(&self.latency, part);
        Summary {
            answers: self.in_time,
            overdue: self.latency.len() - self.in_time,
            seconds: self.time.as_secs_f64(),
            statuses: self.statuses.clone(),
            arms: self.arms.iter().map(|(arm, count)| (name_of(arm), *count)).collect(),
            lost: self.lost,
            moved: self.moved,
            unsent: self.unsent,
            slow: self.slow,
            latency: Some(Latency { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999), max_us: at(1.0) }),
            generator_late_p99_us: microseconds(&self.late, 0.99),
        }
    }
}

impl Summary {
    /// Of a generator that counts, and says no more.
    pub(crate) fn counted(answers: u64, lost: u64, seconds: f64) -> Summary {
        let statuses = BTreeMap::from([(200, answers)]);
        let (arms, latency) = (BTreeMap::new(), None);
        Summary { answers, overdue: 0, seconds, statuses, arms, lost, moved: 0, unsent: 0, slow: 0, latency, generator_late_p99_us: 0.0 }
    }

    /// Answers that were not what was asked for, and requests without one.
    pub(crate) fn failures(&self) -> u64 {
        let bad: u64 = self.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum();
        bad + self.lost
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An upstream's name, cut to what is kept of it.
pub(crate) fn arm(name: &[u8]) -> Arm {
    let mut arm = Arm::default();
    for (place, byte) in arm.iter_mut().zip(name) {
        *place = *byte;
    }
    arm
}

fn name_of(arm: &Arm) -> String {
    let name = String::from_utf8_lossy(arm);
    let name = name.trim_end_matches('\0');
    if name.is_empty() { "nobody".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_arm() {
        let mut tally = Tally::new().unwrap();
        tally.add(Answer { status: 200, arm: arm(b"blue") }, Duration::from_micros(100));
        tally.add(Answer { status: 200, arm: arm(b"blue") }, Duration::from_micros(100));
        tally.add(Answer { status: 502, arm: arm(b"") }, Duration::from_millis(11));
        tally.end(Duration::from_secs(2));
        let summary = tally.summary();
        assert_eq!((summary.answers, summary.overdue, summary.slow), (3, 0, 1));
        assert!((summary.seconds - 2.0).abs() < 1e-9);
        assert_eq!((summary.arms["blue"], summary.arms["nobody"], summary.statuses[&200]), (2, 1, 2));
        assert!((summary.latency.unwrap().p50_us - 100.0).abs() < 0.2);
    }

    #[test]
    fn an_overdue_answer_is_in_the_tail_and_not_in_the_throughput() {
        let mut tally = Tally::new().unwrap();
        tally.add(Answer { status: 200, arm: arm(b"blue") }, Duration::from_micros(100));
        tally.end(Duration::from_secs(1));
        tally.add(Answer { status: 503, arm: arm(b"") }, Duration::from_millis(500));
        let summary = tally.summary();
        assert_eq!((summary.answers, summary.overdue, summary.slow, summary.failures()), (1, 1, 1, 1));
        assert!(summary.latency.unwrap().max_us >= 499_000.0);
    }
}
