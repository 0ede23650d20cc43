//! Moves an experiment's record on by the windows that are sealed, in order and each once. Pure.

use std::ops::Range;

use super::record::{Found, Record};
use crate::flags::Experiment;
use crate::policy::rollback::{Outcome, Slice, Step, Window as Shown, experiment_config};
use crate::policy::{NativeRollback, RollbackInstance};
use crate::quality::pages::Written;
use crate::release::cursor::Sealed;
use crate::release::fill::{Pair, Place, of_slice, shown};
use crate::release::record::{Comparison, Word};

/// Windows that are judged in one go; the rest waits for the next.
const MOST: u32 = 120;
/// Windows older than this are not looked for: nobody keeps them.
const KEPT: u32 = 600;
/// Evidence on whether the arms have the share that they should: an e-value beyond this says that they have not, and that the comparison is unsound.
const SAMPLE_RATIO_ODDS: f64 = 2_000.0;
const SAMPLE_RATIO: &str = "sample-ratio";

/// Seconds that are due, of each slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) traffic: Range<u32>,
    pub(super) engagement: Range<u32>,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.traffic.is_empty() && self.engagement.is_empty()
    }

    pub(super) fn seconds(&self) -> impl Iterator<Item = u32> {
        self.engagement.clone().chain(self.traffic.clone())
    }
}

/// The second in which an experiment ends: its first one that has nobody in it.
fn end(experiment: &Experiment) -> u32 {
    experiment.stopped_ms.map_or(u32::MAX, |stopped| u32::try_from(stopped / 1_000).unwrap_or(u32::MAX).saturating_add(2))
}

/// What may be judged now. Windows that nobody keeps any more are passed over.
pub(super) fn due(record: &mut Record, experiment: &Experiment, sealed: Sealed) -> Due {
    let end = end(experiment);
    let oldest = sealed.traffic.saturating_sub(KEPT).min(end);
    // Clicks come later than traffic, so that whatever is left out of traffic is left out of them.
    record.left_out = record.left_out.saturating_add(oldest.saturating_sub(record.next_engagement));
    record.next_traffic = record.next_traffic.max(oldest);
    record.next_engagement = record.next_engagement.max(oldest);
    let until = |from: u32, sealed: u32| from..sealed.min(end).min(from.saturating_add(MOST)).max(from);
    let traffic = until(record.next_traffic, sealed.traffic);
    let engagement = until(record.next_engagement, sealed.engagement.min(traffic.end));
    Due { traffic, engagement }
}

/// Whether nothing will be due any more.
pub(super) fn is_over(record: &Record, experiment: &Experiment) -> bool {
    record.next_engagement >= end(experiment)
}

/// Judges what is due.
pub(super) fn step(record: &mut Record, experiment: &Experiment, windows: &Written, due: &Due) {
    let config = experiment_config(experiment.arms.len().saturating_sub(1), experiment.alpha());
    let mut policy = RollbackInstance::native(NativeRollback::Guardrail);
    for (slice, seconds) in [(Slice::Traffic, &due.traffic), (Slice::Engagement, &due.engagement)] {
        for second in seconds.clone() {
            judge(record, experiment, (slice, second), windows, &mut |state, window| {
                policy.evaluate(&config, state, window).map_err(|failure| failure.to_string())
            });
        }
    }
    (record.next_traffic, record.next_engagement) = (due.traffic.end, due.engagement.end);
}

type Evaluate<'a> = dyn FnMut(&[u8], &Shown) -> Result<Outcome, String> + 'a;

fn judge(record: &mut Record, experiment: &Experiment, (slice, second): (Slice, u32), windows: &Written, evaluate: &mut Evaluate<'_>) {
    let Some(window) = windows.get(&second) else { return };
    let Some((control, others)) = record.arms.split_first() else { return };
    let weights: Vec<u32> = experiment.arms.iter().map(|arm| arm.weight).collect();
    let of_control = weights.first().copied().unwrap_or(1);
    let index = u64::from(second.saturating_sub(record.began));
    if let Some(counts) = window.get(control) {
        record.control.merge(&of_slice(slice, counts));
    }
    let compared = record.others.iter_mut().zip(&mut record.found);
    for ((id, (comparison, found)), weight) in others.iter().zip(compared).zip(weights.iter().skip(1)) {
        let pair = Pair::of(Some(window), std::slice::from_ref(id), std::slice::from_ref(control));
        if pair.candidate.is_empty() && pair.control.is_empty() {
            continue;
        }
        let share = u64::from(*weight) * 1_000_000 / u64::from(weight + of_control).max(1);
        let share_ppm = u32::try_from(share).unwrap_or(0);
        let place = Place { index, slice, step: Step { index: 0, share_ppm, is_last: false }, share_ppm: Some(share_ppm) };
        let shown = shown(&pair, &place);
        comparison.take(evaluate(&comparison.state, &shown));
        comparison.add(&pair, &shown);
        find_out(found, comparison);
        match slice {
            Slice::Traffic => comparison.next_traffic = index + 1,
            Slice::Engagement => {
                comparison.next_engagement = index + 1;
                comparison.next_traffic = comparison.next_traffic.max(index + 1);
            }
        }
    }
}

/// Notes what is beyond doubt by now.
fn find_out(found: &mut Found, comparison: &Comparison) {
    let Some(said) = &comparison.said else { return };
    found.is_skewed |= said.evidence.iter().any(|weighed| weighed.metric == SAMPLE_RATIO && weighed.log_harm >= SAMPLE_RATIO_ODDS.ln());
    if found.harm.is_none() && said.verdict == Word::RollBack {
        found.harm = Some(said.summary.replacen("roll back", "harm", 1));
    }
}
