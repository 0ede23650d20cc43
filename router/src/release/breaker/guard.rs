//! One router's own evidence on one candidate: errors and timeouts, as this router counted them, look by look. Pure.

use rollback_guardrail::{Config, State, judge, outcome};

use crate::policy::rollback::{Metric, Slice, Step, Tally, Verdict, Window};
use crate::quality::Ended;
use crate::release::roles::Arms;

/// What is known of a candidate here.
pub(super) struct Guard {
    pub(super) arms: Arms,
    alpha: f64,
    config: Config,
    state: State,
    /// Candidate and control, when last looked at.
    seen: [Ended; 2],
    looks: u64,
    log_harm: f64,
}

impl Guard {
    /// Begins with what was counted of candidate and control before.
    pub(super) fn begin(arms: Arms, seen: [Ended; 2]) -> Guard {
        let config = Config::default();
        Guard { arms, alpha: 0.0, state: State::new(&config), config, seen, looks: 0, log_harm: 0.0 }
    }

    /// Natural logarithm of the e-value that the candidate fails more than control.
    pub(super) fn log_harm(&self) -> f64 {
        self.log_harm
    }

    /// Judges what was counted since the last look, `elapsed_ms` ago, and answers why the candidate is to be held back. A good candidate comes
    /// to that with a probability of `alpha` at most, however often one looks.
    pub(super) fn look(&mut self, now: [Ended; 2], elapsed_ms: u32, alpha: f64) -> Option<String> {
        let before = std::mem::replace(&mut self.seen, now);
        let [candidate, control] =
            [0, 1].map(|role: usize| now.get(role).zip(before.get(role)).map(|(now, before)| now.since(before)).unwrap_or_default());
        if candidate.requests + control.requests == 0 {
            return None;
        }
        if self.alpha.to_bits() != alpha.to_bits() {
            (self.alpha, self.config) = (alpha, Config::with_alpha(alpha));
        }
        let window = window(self.looks, elapsed_ms, [candidate, control]);
        self.looks = self.looks.saturating_add(1);
        let judgement = match judge(&self.config, &mut self.state, &window) {
            Ok(judgement) => judgement,
            Err(why) => {
                // Only counts that no worker counts come here; what is known begins anew.
                tracing::error!(why, "the breaker cannot judge what was counted");
                self.state = State::new(&self.config);
                return None;
            }
        };
        self.log_harm = judgement.log_harm;
        (judgement.verdict == Verdict::RollBack).then(|| outcome(&self.config, &self.state, judgement).summary)
    }
}

fn window(index: u64, length_ms: u32, [candidate, control]: [Ended; 2]) -> Window {
    let metric = |id: &str, of: fn(&Ended) -> u64| {
        let tally = |ended: &Ended| {
            // A worker that was held up may have counted the error and not yet the request, or the other way round.
            let events = of(ended).min(ended.requests);
            Tally { n: ended.requests, sum: events as f64, sumsq: events as f64 }
        };
        let groups = Vec::new;
        Metric {
            id: id.to_owned(),
            candidate: tally(&candidate),
            control: tally(&control),
            candidate_groups: groups(),
            control_groups: groups(),
        }
    };
    Window {
        index,
        length_ms: length_ms.clamp(1, 60_000),
        slice: Slice::Traffic,
        step: Step { index: 0, share_ppm: 0, is_last: false },
        share_ppm: None,
        candidate_requests: candidate.requests,
        control_requests: control.requests,
        metrics: vec![metric("errors", |ended| ended.errors), metric("timeouts", |ended| ended.timeouts)],
        latency: Vec::new(),
    }
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
    fn a_sentence_says_why() {
        let mut guard = guard();
        let why = guard.look([ended(1_012, 912), ended(9_110, 0)], 250, 0.000_5).unwrap();
        assert!(why.starts_with("roll back: errors: candidate 100.0 % of 12, control 0.00 % of 110, over the last 0.25 s; "), "{why}");
    }

    /// The promise is 20 us, in an optimised build on one core.
    #[test]
    fn a_look_costs_little() {
        let mut guard = guard();
        let mut times: Vec<std::time::Duration> = (1..=2_000_u64)
            .map(|look| {
                let now = [ended(1_000 + look * 12, 900), ended(9_000 + look * 110, look / 10)];
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
