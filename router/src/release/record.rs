//! What is known of a route's candidate: one record in the store, from which any router goes on. Pure.

use serde::{Deserialize, Serialize};

use super::fill::{Pair, of_slice};
use super::kept::Kept;
use super::roles::{Arm, Arms};
use super::timeline::Timeline;
use crate::policy::rollback::{Evidence, Outcome, Slice, Verdict, Window as Shown};
use crate::quality::{Counts, Number};

/// Names and texts are no longer.
const TEXT_BYTES: usize = 1_024;
/// What is left of a second's weight a second later, where the last ones are looked at.
const FADES: f64 = 0.8;
/// Of so few attempts nothing is said.
const LEAST_ATTEMPTS: f64 = 5.0;

/// A record's revision in the store; 0 for none.
pub(super) type Revision = u64;

/// A route's evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Who judges: a process, and not a router's id.
    pub(super) judge: String,
    /// The id of its router.
    pub(super) router: String,
    /// When it was last changed, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) timeline: Timeline,
    /// The next second whose traffic is judged.
    pub(super) next_second: u32,
    /// The last one, over or not.
    pub(super) comparison: Option<Comparison>,
}

/// A candidate, and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) arms: Arms,
    /// The second of window 0.
    pub(super) base: u32,
    /// The second in which the candidate began; windows before it are control's alone.
    pub(super) began: u32,
    /// The timeline's step then.
    pub(super) first_step: u32,
    /// Nobody is under test any more, or somebody else.
    pub(super) is_over: bool,
    /// The next window of each slice.
    pub(super) next_traffic: u64,
    pub(super) next_engagement: u64,
    /// The policy that judged the last slice.
    pub(super) policy: String,
    pub(super) digest: String,
    /// What it knows.
    pub(super) state: Vec<u8>,
    /// What it said last.
    pub(super) said: Option<Said>,
    /// Why it did not say anything, the last time that it did not.
    pub(super) failure: Option<String>,
    pub(super) failures: u64,
    /// Everything that was judged since the candidate began.
    pub(super) candidate: Counts,
    pub(super) control: Counts,
    /// The same of the last seconds, where it went wrong.
    pub(super) candidate_failing: Failing,
    pub(super) control_failing: Failing,
}

/// Attempts, and those that failed; a second counts a fifth less with each second after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Failing {
    attempts: f64,
    failed: f64,
}

impl Failing {
    fn add(&mut self, counts: &Counts) {
        let sum = |number| counts[number] as f64;
        self.attempts = self.attempts * FADES + sum(Number::Requests);
        self.failed = self.failed * FADES + sum(Number::Errors) + sum(Number::Timeouts);
    }

    /// The part that failed, 0 to 1; `None` without attempts.
    pub(super) fn share(self) -> Option<f64> {
        (self.attempts >= LEAST_ATTEMPTS).then(|| (self.failed / self.attempts).min(1.0))
    }

    fn is_sound(self) -> bool {
        [self.attempts, self.failed].iter().all(|number| (0.0..1e18).contains(number))
    }
}

/// A policy's last word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) verdict: Word,
    pub(super) summary: String,
    pub(super) evidence: Vec<Weighed>,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Advance,
    Hold,
    RollBack,
    NoData,
}

impl Word {
    pub(super) fn label(self) -> &'static str {
        match self {
            Word::Advance => "advance",
            Word::Hold => "hold",
            Word::RollBack => "roll_back",
            Word::NoData => "no_data",
        }
    }

    fn of(verdict: Verdict) -> Word {
        match verdict {
            Verdict::Advance => Word::Advance,
            Verdict::Hold => Word::Hold,
            Verdict::RollBack => Word::RollBack,
            Verdict::NoData => Word::NoData,
        }
    }
}

/// The evidence on one metric, as [`Evidence`] has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Weighed {
    pub(super) metric: String,
    pub(super) log_harm: f64,
    pub(super) log_safe: Option<f64>,
    pub(super) difference: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Weighed {
    fn of(evidence: Evidence) -> Weighed {
        let Evidence { metric, log_harm, log_safe, difference, low, high } = evidence;
        Weighed { metric, log_harm, log_safe, difference, low, high }
    }
}

impl Said {
    /// What an outcome says, and the state.
    pub(super) fn of(outcome: Outcome) -> (Said, Vec<u8>) {
        let Outcome { verdict, summary, evidence, state } = outcome;
        (Said { verdict: Word::of(verdict), summary, evidence: evidence.into_iter().map(Weighed::of).collect() }, state)
    }
}

impl Comparison {
    pub(super) fn begin(arms: Arms, base: u32, began: u32, first_step: u32) -> Comparison {
        Comparison {
            arms,
            base,
            began,
            first_step,
            is_over: false,
            next_traffic: 0,
            next_engagement: 0,
            policy: String::new(),
            digest: String::new(),
            state: Vec::new(),
            said: None,
            failure: None,
            failures: 0,
            candidate: Counts::default(),
            control: Counts::default(),
            candidate_failing: Failing::default(),
            control_failing: Failing::default(),
        }
    }

    /// The last one.
    pub(super) fn verdict(&self) -> Option<Word> {
        self.said.as_ref().map(|said| said.verdict)
    }

    /// Another policy begins with nothing, and what people are shown begins with it.
    pub(super) fn of_policy(self, policy: &str, route: &str) -> Comparison {
        if self.policy.is_empty() || self.policy == policy {
            return self;
        }
        tracing::warn!(route, before = self.policy, policy, "another rollback policy judges from now on: its evidence begins anew");
        let (next_traffic, next_engagement, is_over) = (self.next_traffic, self.next_engagement, self.is_over);
        let fresh = Comparison::begin(self.arms, self.base, self.began, self.first_step);
        Comparison { next_traffic, next_engagement, is_over, ..fresh }
    }

    /// The second of a window.
    pub(super) fn second(&self, index: u64) -> u32 {
        u32::try_from(u64::from(self.base).saturating_add(index)).unwrap_or(u32::MAX)
    }

    /// What the policy said of a slice; where it said nothing, its state stays as it was.
    pub(super) fn take(&mut self, judged: Result<Outcome, String>) {
        match judged {
            Ok(outcome) => {
                let (said, state) = Said::of(outcome);
                (self.said, self.state) = (Some(said), state);
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(why.chars().take(TEXT_BYTES / 4).collect());
            }
        }
    }

    /// Adds a judged slice to what people are shown.
    pub(super) fn add(&mut self, pair: &Pair, shown: &Shown) {
        if self.second(shown.index) < self.began {
            return;
        }
        self.candidate.merge(&of_slice(shown.slice, &pair.candidate));
        self.control.merge(&of_slice(shown.slice, &pair.control));
        if shown.slice == Slice::Traffic {
            self.candidate_failing.add(&pair.candidate);
            self.control_failing.add(&pair.control);
        }
    }
}

impl Kept for Record {
    const FORM: u8 = 4;

    fn is_sound(&self) -> bool {
        let texts = [&self.judge, &self.router];
        texts.into_iter().all(|text| is_short(text))
            && self.timeline.is_sound()
            && self.comparison.as_ref().is_none_or(Comparison::is_sound)
    }
}

impl Comparison {
    pub(super) fn is_sound(&self) -> bool {
        let arm = |arm: &Arm| is_short(&arm.version) && arm.pool.as_deref().is_none_or(is_short);
        let texts = [Some(&self.policy), Some(&self.digest), self.failure.as_ref(), self.said.as_ref().map(|said| &said.summary)];
        let are_numbers = self.said.iter().flat_map(|said| &said.evidence).all(|weighed| {
            let Weighed { metric, log_harm, log_safe, difference, low, high } = weighed;
            is_short(metric) && [*log_harm, log_safe.unwrap_or(0.0), *difference, *low, *high].iter().all(|number| number.is_finite())
        });
        let windows = u64::from(u32::MAX);
        arm(&self.arms.candidate)
            && arm(&self.arms.control)
            && texts.into_iter().flatten().all(|text| is_short(text))
            && are_numbers
            && self.base <= self.began
            && self.next_traffic <= windows
            && self.next_engagement <= self.next_traffic
            && self.candidate.is_sound()
            && self.control.is_sound()
            && self.candidate_failing.is_sound()
            && self.control_failing.is_sound()
    }
}

fn is_short(text: &str) -> bool {
    text.len() <= TEXT_BYTES
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::release::kept::{RECORD_BYTES, RecordFault};
    use crate::release::roles::Setting;

    pub(crate) fn record() -> Record {
        let arm = |version: &str| Arm { version: version.to_owned(), pool: None };
        let arms = Arms { candidate: arm("v2"), control: arm("v1") };
        let mut record = Record { judge: "ab".to_owned(), router: "edge-1".to_owned(), next_second: 1_100, ..Record::default() };
        record.timeline.observe(
            1_000_000,
            7,
            Setting { arms: Some(arms.clone()), step_ppm: 10, share_ppm: Some(10), is_baking: false, is_last: false },
        );
        let mut comparison = Comparison::begin(arms, 940, 1_000, 0);
        comparison.next_traffic = 160;
        comparison.state = vec![1, 2, 3];
        let weighed = Weighed { metric: "errors".to_owned(), log_harm: 4.7, log_safe: Some(-1.0), difference: 0.1, low: 0.0, high: 0.2 };
        comparison.said = Some(Said { verdict: Word::RollBack, summary: "roll back".to_owned(), evidence: vec![weighed] });
        record.comparison = Some(comparison);
        record
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for record in [Record::default(), record()] {
            assert_eq!(Record::read(&record.write()), Ok(record));
        }
    }

    #[test]
    fn what_no_router_would_say_is_refused() {
        let with = |change: fn(&mut Record)| {
            let mut record = record();
            change(&mut record);
            Record::read(&record.write())
        };
        assert_eq!(with(|record| record.judge = "x".repeat(2_000)), Err(RecordFault::Unsound));
        assert_eq!(with(|record| record.comparison.as_mut().unwrap().base = 1_001), Err(RecordFault::Unsound));
        assert_eq!(with(|record| record.comparison.as_mut().unwrap().next_engagement = 161), Err(RecordFault::Unsound));
        let nan = with(|record| record.comparison.as_mut().unwrap().said.as_mut().unwrap().evidence[0].low = f64::NAN);
        assert_eq!(nan, Err(RecordFault::Unsound));
        let mut bytes = record().write();
        assert_eq!(Record::read(&bytes[..bytes.len() - 1]), Err(RecordFault::Unreadable));
        bytes.push(0);
        assert_eq!(Record::read(&bytes), Err(RecordFault::Unsound));
        bytes[0] = 9;
        assert_eq!(
            (Record::read(&bytes), Record::read(&[])),
            (Err(RecordFault::OtherForm { form: 9, known: Record::FORM }), Err(RecordFault::Unreadable))
        );
        assert_eq!(Record::read(&vec![Record::FORM; RECORD_BYTES + 1]), Err(RecordFault::TooLong));
    }
}
