//! What a notice can be about.

use serde::{Deserialize, Serialize};

/// What happened. The name is the same in the config, in what is sent, and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeEvent {
    /// A candidate runs beside the live model, and its rollout begins.
    RolloutStarted,
    /// The candidate's share was raised (or given for the first time).
    StepBegan,
    /// The switch: the candidate is the live model now.
    Promoted,
    /// The new live model has proved itself; nothing is compared any more.
    RolloutDone,
    /// The candidate was taken out of traffic because it does harm, or an operator said so.
    RolledBack,
    /// The rollout ended before its switch, for a reason that is none of the candidate's traffic.
    Aborted,
    /// The rollout stays where it is until somebody goes on with it.
    Paused,
    /// It goes on.
    Resumed,
    /// A step takes too long, or there is no data to judge it by.
    Stalled,
    /// The next step waits for a person.
    ApprovalNeeded,
    /// A router holds the candidate back on its own.
    BreakerTripped,
    /// An experiment was created.
    ExperimentStarted,
    /// An experiment was stopped, by somebody or because an arm does harm.
    ExperimentStopped,
    /// Somebody changed flags.
    FlagsChanged,
}

impl NoticeEvent {
    /// All of them, in the order in which they are listed.
    pub const ALL: [NoticeEvent; 14] = [
        NoticeEvent::RolloutStarted,
        NoticeEvent::StepBegan,
        NoticeEvent::Promoted,
        NoticeEvent::RolloutDone,
        NoticeEvent::RolledBack,
        NoticeEvent::Aborted,
        NoticeEvent::Paused,
        NoticeEvent::Resumed,
        NoticeEvent::Stalled,
        NoticeEvent::ApprovalNeeded,
        NoticeEvent::BreakerTripped,
        NoticeEvent::ExperimentStarted,
        NoticeEvent::ExperimentStopped,
        NoticeEvent::FlagsChanged,
    ];

    /// In the config, and wherever an event is named.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NoticeEvent::RolloutStarted => "rollout-started",
            NoticeEvent::StepBegan => "step-began",
            NoticeEvent::Promoted => "promoted",
            NoticeEvent::RolloutDone => "rollout-done",
            NoticeEvent::RolledBack => "rolled-back",
            NoticeEvent::Aborted => "aborted",
            NoticeEvent::Paused => "paused",
            NoticeEvent::Resumed => "resumed",
            NoticeEvent::Stalled => "stalled",
            NoticeEvent::ApprovalNeeded => "approval-needed",
            NoticeEvent::BreakerTripped => "breaker-tripped",
            NoticeEvent::ExperimentStarted => "experiment-started",
            NoticeEvent::ExperimentStopped => "experiment-stopped",
            NoticeEvent::FlagsChanged => "flags-changed",
        }
    }

    /// The event of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<NoticeEvent> {
        NoticeEvent::ALL.into_iter().find(|event| event.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_name_wherever_it_is_written() {
        for event in NoticeEvent::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.name());
            assert_eq!(NoticeEvent::of_name(event.name()), Some(event));
        }
        assert_eq!(NoticeEvent::of_name("Promoted"), None);
    }
}
