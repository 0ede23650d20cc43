//! What the ledger keeps of why a rollout moved: who was compared, which policy judged, and the numbers.

use super::board::RouteBoard;
use super::rollback::Rollback;
use super::view::EvidenceView;
use crate::flags::{Flags, Grounds, Phase, Rollout};
use crate::vocabulary::Copies;

/// Larger evidence is left out, but for its sums: a ledger keeps thousands of entries.
const EVIDENCE_BYTES: usize = 16 << 10;

/// Of a transition; `copies` are what became of those that were sent until then.
#[must_use]
pub fn grounds(event: &str, rollout: &Rollout, board: &RouteBoard, copies: Option<Copies>) -> Grounds {
    Grounds {
        event: event.to_owned(),
        rollout: Some(rollout.id.clone()),
        candidate: Some(rollout.candidate.clone()),
        control: Some(rollout.control.clone()),
        step: (rollout.phase == Phase::Canary).then(|| u32::try_from(rollout.step + 1).unwrap_or(u32::MAX)),
        copies,
        ..judged(&rollout.candidate, board, rollout.started_ms)
    }
}

/// Of a rollback, also of a candidate that no rollout brought.
#[must_use]
pub fn grounds_of_rollback(back: &Rollback, flags: &Flags, board: &RouteBoard) -> Grounds {
    let rollout = flags.rollout.as_ref().filter(|rollout| back.fields.contains_key("rollout") && rollout.candidate == back.candidate);
    Grounds {
        event: "rolled_back".to_owned(),
        rollout: rollout.map(|rollout| rollout.id.clone()),
        candidate: Some(back.candidate.clone()),
        control: Some(back.control.clone()),
        ..judged(&back.candidate, board, rollout.map_or(0, |rollout| rollout.started_ms))
    }
}

/// What is known of this candidate, since then: of what was over before, nothing is.
fn judged(candidate: &str, board: &RouteBoard, since_ms: u64) -> Grounds {
    let is_of_then =
        |evidence: &EvidenceView| evidence.candidate.version == candidate && (!evidence.is_over || evidence.judged_unix_ms > since_ms);
    let Some(evidence) = board.evidence.as_ref().filter(|evidence| is_of_then(evidence)) else {
        return Grounds::default();
    };
    let judge = &board.judge;
    let policy = if judge.digest.is_empty() { judge.name.clone() } else { format!("{}@{}", judge.name, judge.digest) };
    let mut shown = serde_json::to_value(evidence).unwrap_or_default();
    if shown.to_string().len() > EVIDENCE_BYTES
        && let Some(shown) = shown.as_object_mut()
    {
        shown.remove("metrics");
    }
    Grounds { policy: Some(policy), evidence: Some(shown), ..Grounds::default() }
}
