//! One router's own evidence on one candidate: errors and timeouts, as this router counted them, look by look. Pure.
//!
//! For each odds ratio `M <- (M + weight) * e` over the looks that say anything: failures on some side, and answers of both. The weights are a
//! prior on when the harm begins; they sum to 1 however long it goes on, so that a candidate that breaks after a day is found out as surely.
//! Under "it fails no more than control" each `M`, and their mean, ever comes to `1 / alpha` with a probability of `alpha` at most (Ville).

use rollback_guardrail::kernels::{THETAS, log_mean, restart};

use super::exact;
use crate::quality::Ended;
use crate::release::roles::Arms;

/// One over the sum of `1 / (n ln(n)^2)` for all `n` from 2.
const WEIGHT: f64 = 1.0 / 2.109_742_8;
/// Looks that are put together until both sides have answered.
const MOST_JOINED: u32 = 8;

/// What is known of a candidate here.
pub(super) struct Guard {
    pub(super) arms: Arms,
    /// Candidate and control, when last looked at.
    seen: [Ended; 2],
    /// What one side alone has counted since, and over how many looks and milliseconds.
    waiting: [Ended; 2],
    joined: u32,
    joined_ms: u64,
    /// Looks that said anything.
    looks: u64,
    /// `ln M` for each of [`THETAS`].
    grid: [f64; THETAS.len()],
    log_harm: f64,
    /// What was counted while the evidence grew: since it was last at 1 or below.
    run: [Ended; 2],
    run_ms: u64,
}

impl Guard {
    /// Begins with what was counted of candidate and control before.
    pub(super) fn begin(arms: Arms, seen: [Ended; 2]) -> Guard {
        let none = [Ended::default(); 2];
        Guard { arms, seen, waiting: none, joined: 0, joined_ms: 0, looks: 0, grid: [0.0; 6], log_harm: 0.0, run: none, run_ms: 0 }
    }

    /// Natural logarithm of the e-value that the candidate fails more than control.
    pub(super) fn log_harm(&self) -> f64 {
        self.log_harm
    }

    /// Judges what was counted since the last look, `elapsed_ms` ago, and answers why the candidate is to be held back. A good candidate comes
    /// to that with a probability of `alpha` at most, however often and however long one looks.
    pub(super) fn look(&mut self, now: [Ended; 2], elapsed_ms: u32, alpha: f64) -> Option<String> {
        let [candidate, control] = now;
        let [candidate_before, control_before] = std::mem::replace(&mut self.seen, now);
        self.waiting = both(self.waiting, [candidate.since(&candidate_before), control.since(&control_before)]);
        self.joined += 1;
        self.joined_ms += u64::from(elapsed_ms);
        // Whether both are there does not depend on who failed: a look may end there.
        let is_whole = self.waiting.iter().all(|ended| ended.requests > 0);
        if !is_whole && self.joined < MOST_JOINED {
            return None;
        }
        let counted = std::mem::take(&mut self.waiting);
        let ms = std::mem::take(&mut self.joined_ms);
        self.joined = 0;
        if !is_whole {
            return None;
        }
        if self.log_harm <= 0.0 {
            (self.run, self.run_ms) = ([Ended::default(); 2], 0);
        }
        (self.run, self.run_ms) = (both(self.run, counted), self.run_ms + ms);
        // The same: the number of failures says nothing of whose they are.
        if counted.iter().all(|ended| ended.failed() == 0) {
            return None;
        }
        self.weigh(&exact::log_e(&counted));
        (self.log_harm >= -alpha.ln()).then(|| self.why())
    }

    fn weigh(&mut self, log_e: &[f64; THETAS.len()]) {
        let known = self.looks > 0;
        self.looks = self.looks.saturating_add(1);
        let n = self.looks as f64 + 1.0;
        let log_weight = (WEIGHT / (n * n.ln() * n.ln())).ln();
        for (log_m, log_e) in self.grid.iter_mut().zip(log_e) {
            *log_m = restart(known.then_some(*log_m), Some(log_weight), *log_e, 1.0);
        }
        self.log_harm = log_mean(&self.grid);
    }

    fn why(&self) -> String {
        let [candidate, control] = self.run.map(|ended| {
            let percent = ended.failed() as f64 * 100.0 / ended.requests as f64;
            format!("{percent:.*} % of {}", if percent >= 10.0 { 1 } else { 2 }, ended.requests)
        });
        let (seconds, odds) = (self.run_ms as f64 / 1e3, self.log_harm.min(50.0).exp());
        let odds = if odds < 1e6 { format!("{odds:.0}") } else { format!("{odds:.0e}") };
        let sure = format!("a candidate that is no worse comes to this once in {odds} rollouts at most");
        format!("errors: candidate {candidate}, control {control}, over the last {seconds:.2} s; {sure}")
    }
}

fn both([candidate, control]: [Ended; 2], [more_candidate, more_control]: [Ended; 2]) -> [Ended; 2] {
    [candidate.and(more_candidate), control.and(more_control)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::roles::Arm;

    fn guard() -> Guard {
        let arm = |version: &str| Arm { version: version.to_owned(), pool: None };
        Guard::begin(Arms { candidate: arm("v2"), control: arm("v1") }, [ended(1_000, 900), ended(9_000, 0)])
    }

    fn ended(requests: u64, errors: u64) -> Ended {
        Ended { requests, errors, timeouts: 0 }
    }

    /// After how many looks it trips, where `per_look` says what is counted of candidate and control in each.
    fn looks(per_look: [Ended; 2], most: usize) -> Option<usize> {
        let (mut guard, mut now) = (guard(), [ended(1_000, 900), ended(9_000, 0)]);
        (1..=most).find(|_| {
            for (now, more) in now.iter_mut().zip(per_look) {
                *now = Ended {
                    requests: now.requests + more.requests,
                    errors: now.errors + more.errors,
                    timeouts: now.timeouts + more.timeouts,
                };
            }
            guard.look(now, 250, 0.000_5).is_some()
        })
    }

    #[test]
    fn what_fails_always_is_found_at_the_first_look() {
        assert_eq!(looks([ended(12, 12), ended(110, 0)], 4), Some(1));
        assert!(looks([ended(12, 12), ended(12, 0)], 4).unwrap() <= 2, "with as little of control");
        assert_eq!(looks([ended(45, 45), ended(5, 0)], 4), Some(1), "a new live colour, and a holdback of a tenth");
        assert!(looks([ended(200, 10), ended(1_800, 2)], 4).unwrap() <= 2, "one in twenty");
        let timeouts = Ended { requests: 12, errors: 0, timeouts: 12 };
        assert_eq!(looks([timeouts, ended(110, 0)], 4), Some(1));
    }

    #[test]
    fn what_fails_for_everybody_is_nobodys() {
        assert_eq!(looks([ended(12, 12), ended(110, 110)], 400), None);
        assert_eq!(looks([ended(12, 0), ended(110, 1)], 4_000), None);
    }

    #[test]
    fn nothing_that_was_counted_before_it_began_and_no_idle_look_counts() {
        let mut guard = guard();
        for _ in 0..100 {
            assert_eq!(guard.look([ended(1_000, 900), ended(9_000, 0)], 250, 0.000_5), None);
        }
        assert_eq!((guard.looks, guard.log_harm()), (0, 0.0));
        // Counters of a config that is gone: smaller than before.
        assert_eq!(guard.look([ended(0, 0), ended(0, 0)], 250, 0.000_5), None);
    }

    #[test]
    fn a_side_that_answers_seldom_is_waited_for() {
        let mut guard = guard();
        // Two failures a look, and one answer of control in five looks.
        let tripped = (1..=40_u64).find(|look| {
            let now = [ended(1_000 + 2 * look, 900 + 2 * look), ended(9_000 + look / 5, 0)];
            guard.look(now, 250, 0.000_5).is_some()
        });
        assert!(tripped.is_some_and(|look| look <= 25), "{tripped:?}");
        // Without control it never says anything.
        assert_eq!(looks([ended(50, 50), ended(0, 0)], 400), None);
    }

    #[test]
    fn what_breaks_after_a_day_is_found_out_as_soon() {
        let (mut guard, mut now) = (guard(), [ended(1_000, 900), ended(9_000, 0)]);
        let mut look = |more: [Ended; 2]| {
            now = both(now, more);
            guard.look(now, 250, 0.000_5)
        };
        // Both sides fail now and then, all day long.
        for turn in 0..345_600_u32 {
            let (candidate, control) = (u64::from(turn % 80 == 0), u64::from(turn % 9 == 0));
            assert_eq!(look([ended(12, candidate), ended(110, control)]), None, "look {turn}");
        }
        let found = (1..=8).find(|_| look([ended(12, 12), ended(110, 0)]).is_some());
        assert!(found.is_some_and(|looks| looks <= 2), "{found:?}");
    }

    /// Both sides fail alike, with outages that come and go within looks: of 4,000 candidates one in a hundred is held back at most.
    #[test]
    fn good_candidates_are_left_alone() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(5);
        let (alpha, rollouts) = (0.01, 4_000);
        let mut tripped = 0;
        for rollout in 0..rollouts {
            let mut guard = Guard::begin(guard().arms, [Ended::default(); 2]);
            let (mut now, share) = ([Ended::default(); 2], [0.05, 0.5, 0.9][rollout % 3]);
            for _ in 0..300 {
                // An outage of half of the look, now and then: all that come then fail.
                let outage = random.random_bool(0.05);
                for request in 0..40 {
                    let fails = (outage && request < 20) || random.random_bool(0.01);
                    let side = usize::from(!random.random_bool(share));
                    now[side] = now[side].and(ended(1, u64::from(fails)));
                }
                if guard.look(now, 250, alpha).is_some() {
                    tripped += 1;
                    break;
                }
            }
        }
        println!("{tripped} of {rollouts} good candidates at alpha {alpha}");
        assert!(f64::from(tripped) <= alpha * rollouts as f64, "{tripped} of {rollouts}");
    }

    #[test]
    fn a_sentence_says_why() {
        let mut guard = guard();
        let why = guard.look([ended(1_012, 912), ended(9_110, 0)], 250, 0.000_5).unwrap();
        assert!(why.starts_with("errors: candidate 100.0 % of 12, control 0.00 % of 110, over the last 0.25 s; "), "{why}");
    }

    /// The promise is 20 us, in an optimised build on one core.
    #[test]
    fn a_look_costs_little() {
        let mut guard = guard();
        let mut times: Vec<std::time::Duration> = (1..=2_000_u64)
            .map(|look| {
                // The longest sum that is reckoned with.
                let now = [ended(1_000 + look * 300, 900), ended(9_000 + look * 3_000, look * 127)];
                let began = tokio::time::Instant::now();
                assert_eq!(guard.look(now, 250, 0.000_5), None);
                began.elapsed()
            })
            .collect();
        times.sort();
        let median = times[times.len() / 2];
        println!("a look of the breaker: {median:?} at the median");
        assert!(median < std::time::Duration::from_micros(20), "{median:?}");
    }
}
