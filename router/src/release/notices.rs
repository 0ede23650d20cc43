//! What an entry of the ledger says to others. Pure.

use sha2::{Digest as _, Sha256};

use crate::config::NoticeEvent;
use crate::flags::{Grounds, LedgerEntry};
use crate::notify::Notice;

/// The notice of an entry; `None` where there is nothing to tell. Every router makes the same one, with the same id.
pub(super) fn notice_of(route: &str, entry: &LedgerEntry) -> Option<Notice> {
    let grounds = entry.grounds.clone().unwrap_or_default();
    let Grounds { event, rollout, experiment, candidate, control, step, policy, evidence, copies: _ } = grounds;
    let share = entry.serves.iter().find(|serves| Some(&serves.version) == candidate.as_ref());
    Some(Notice {
        id: id(route, entry),
        time_ms: entry.time_ms,
        event: if entry.grounds.is_some() { event_of(&event)? } else { NoticeEvent::FlagsChanged },
        route: route.to_owned(),
        rollout,
        experiment,
        percent: share.and_then(|serves| serves.percent.parse().ok()),
        candidate,
        control,
        step,
        epoch: entry.epoch,
        who: entry.who.clone(),
        why: entry.why.clone(),
        evidence,
        policy,
    })
}

fn event_of(transition: &str) -> Option<NoticeEvent> {
    Some(match transition {
        "started" => NoticeEvent::RolloutStarted,
        "step_began" => NoticeEvent::StepBegan,
        "switched" => NoticeEvent::Promoted,
        "done" => NoticeEvent::RolloutDone,
        "rolled_back" => NoticeEvent::RolledBack,
        "aborted" => NoticeEvent::Aborted,
        "paused" => NoticeEvent::Paused,
        "resumed" => NoticeEvent::Resumed,
        "approval_needed" => NoticeEvent::ApprovalNeeded,
        "stalled" => NoticeEvent::Stalled,
        "breaker_tripped" => NoticeEvent::BreakerTripped,
        "experiment_started" => NoticeEvent::ExperimentStarted,
        "experiment_stopped" => NoticeEvent::ExperimentStopped,
        // An approval is the answer to what was told.
        _ => return None,
    })
}

/// Of what nobody changes: the entry's place in the ledger.
fn id(route: &str, entry: &LedgerEntry) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{route}\n{}\n{}\n{}", entry.epoch, entry.time_ms, entry.prev));
    let hash = hex::encode(hash.finalize());
    format!("{route}-{}-{}", entry.epoch, hash.get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Kind, Serves};

    #[test]
    fn an_entry_of_a_rollout_is_told_with_its_numbers() {
        let grounds = Grounds {
            event: "step_began".to_owned(),
            rollout: Some("r".to_owned()),
            candidate: Some("v2".to_owned()),
            step: Some(2),
            ..Grounds::default()
        };
        let serves =
            |version: &str, percent: &str| Serves { pool: "p".to_owned(), version: version.to_owned(), percent: percent.to_owned() };
        let entry = LedgerEntry {
            epoch: 7,
            time_ms: 5,
            kind: Kind::Rollout,
            who: "router:one".to_owned(),
            serves: vec![serves("v1", "95"), serves("v2", "5")],
            grounds: Some(grounds),
            ..LedgerEntry::default()
        };
        let notice = notice_of("search", &entry).unwrap();
        assert_eq!((notice.event, notice.percent, notice.step, notice.epoch), (NoticeEvent::StepBegan, Some(5.0), Some(2), 7));
        assert_eq!(notice.id, notice_of("search", &entry).unwrap().id);
        assert_ne!(notice.id, notice_of("other", &entry).unwrap().id);
        let by_hand = LedgerEntry { grounds: None, ..entry.clone() };
        assert_eq!(notice_of("search", &by_hand).unwrap().event, NoticeEvent::FlagsChanged);
        let approved = Grounds { event: "approved".to_owned(), ..Grounds::default() };
        assert_eq!(notice_of("search", &LedgerEntry { grounds: Some(approved), ..entry }), None);
    }
}
