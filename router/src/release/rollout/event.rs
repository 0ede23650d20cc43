//! What transitions there are.

/// What a transition is, for the ledger and for whoever is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The rollout began.
    Started,
    /// The candidate has a larger share.
    StepBegan,
    /// The candidate is live.
    Switched,
    /// It is live, and nothing is held back.
    Done,
    /// It was taken back.
    RolledBack,
    /// It was ended.
    Aborted,
    /// Nothing goes on.
    Paused,
    /// It goes on.
    Resumed,
    /// An operator let a step end.
    Approved,
    /// An operator is asked to.
    ApprovalNeeded,
    /// A step takes longer than it may.
    Stalled,
    /// A router's breaker holds the candidate back.
    BreakerTripped,
    /// The servers of a pool have the version.
    Loaded,
    /// An operator wants it to go on as soon as the servers have the version.
    Promoted,
    /// The old colour lets go of the version before.
    Retired,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 15] = [
        Event::Started,
        Event::StepBegan,
        Event::Switched,
        Event::Done,
        Event::RolledBack,
        Event::Aborted,
        Event::Paused,
        Event::Resumed,
        Event::Approved,
        Event::ApprovalNeeded,
        Event::Stalled,
        Event::BreakerTripped,
        Event::Loaded,
        Event::Promoted,
        Event::Retired,
    ];

    /// For logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::StepBegan => "step_began",
            Event::Switched => "switched",
            Event::Done => "done",
            Event::RolledBack => "rolled_back",
            Event::Aborted => "aborted",
            Event::Paused => "paused",
            Event::Resumed => "resumed",
            Event::Approved => "approved",
            Event::ApprovalNeeded => "approval_needed",
            Event::Stalled => "stalled",
            Event::BreakerTripped => "breaker_tripped",
            Event::Loaded => "loaded",
            Event::Promoted => "promoted",
            Event::Retired => "retired",
        }
    }
}
