//! A rollout's record, as the field `rollout` of a route's flags has it: JSON, written by whoever moves the rollout.
//!
//! It is a field of the flags so that a transition and what it does to traffic are one write, on the epoch that it was decided on: no
//! transition happens twice, none overwrites what somebody else wrote, and what brings lost flags back brings the rollout back with them.

use serde::{Deserialize, Serialize};

use super::percent;
use crate::vocabulary::{Copies, Ppm};

/// The longest record, in bytes.
pub const ROLLOUT_BYTES: usize = 16 << 10;
/// Steps of a plan.
pub const STEPS: usize = 32;
/// Of this form; a router that knows another one leaves it alone.
const FORM: u8 = 1;
/// Names and sentences are no longer, in characters.
pub(crate) const TEXT_CHARS: usize = 1_024;

/// A rollout: what it is of, what is planned, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Of this form; see [`Rollout::parse`].
    pub form: u8,
    /// Random, 32 hex digits.
    pub id: String,
    /// The version under test.
    pub candidate: String,
    /// SHA-256 of the candidate's artefact, 64 hex digits in lower case, where whoever began it said so: no other one is loaded for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The version that it is to replace.
    pub control: String,
    /// The pool that was live at the start.
    pub from: String,
    /// The colour that is to become live.
    pub to: String,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    /// What is to be done.
    pub plan: Plan,
    /// What it does.
    pub phase: Phase,
    /// Of the plan, from 0: the last one that was begun.
    pub step: usize,
    /// When this phase, and step, began.
    pub since_ms: u64,
    /// Requests of the candidate that were judged before it.
    pub samples_before: u64,
    /// Transitions so far: each is told once.
    pub moves: u64,
    /// Who may move it: the lease's term when it was last moved.
    pub term: u64,
    /// Why nothing goes on, if it is paused.
    pub paused: Option<String>,
    /// An operator approved of this step's end.
    pub is_approved: bool,
    /// All but an approval is there, and operators were told.
    pub is_asked: bool,
    /// This step takes longer than it may, and operators were told.
    pub is_stalled: bool,
    /// A router's breaker holds the candidate back, and operators were told.
    pub is_tripped: bool,
    /// What an operator wants without waiting for evidence, as soon as the servers have the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hurry: Option<Hurry>,
    /// How long the last load of the version took, from the first request until every server of the pool had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
    /// The pool whose servers it last asked for the version: they have it, whatever became of them before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_on: Option<String>,
    /// Copies of queries from before the step began anew in which they are judged: they say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies_before: Option<Copies>,
    /// When this step first began, in milliseconds since 1970, where it began anew since: what takes too long takes so from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_began_ms: Option<u64>,
    /// Why it was last moved.
    pub why: String,
}

/// What a rollout is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The candidate's shares, in this order.
    pub steps: Vec<PlannedStep>,
    /// Steps up to this share are on the pool `canary`, where it has the version; further ones on the colour that is to become live.
    #[serde(with = "percent")]
    pub canary_max: Ppm,
    /// Share of queries that is copied to the candidate before anybody is answered by it.
    #[serde(with = "percent")]
    pub mirror: Ppm,
    /// For so long.
    pub mirror_ms: u64,
    /// What the copies have to be like, where some are sent and judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_gate: Option<MirrorGate>,
    /// Share that stays on the version before, once the candidate is live.
    #[serde(with = "percent")]
    pub holdback: Ppm,
    /// For so long.
    pub bake_ms: u64,
    /// Operators are told of a step that takes longer.
    pub max_step_ms: u64,
}

/// What copies of queries have to be like before anybody is answered by the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorGate {
    /// Fewer copies, or compared lists, do not decide.
    pub min_samples: u64,
    /// Share of the copies that may fail.
    #[serde(with = "percent")]
    pub max_failing: Ppm,
    /// Share of the compared lists whose first result may be another one.
    #[serde(with = "percent")]
    pub max_top1_change: Ppm,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// The candidate's share.
    #[serde(with = "percent")]
    pub percent: Ppm,
    /// It takes so long at least.
    pub dwell_ms: u64,
    /// And so many requests of the candidate.
    pub min_samples: u64,
    /// And somebody has to approve of its end.
    pub approval: bool,
}

/// How far an operator promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hurry {
    /// To what comes next.
    Next,
    /// Until it is live.
    Live,
}

/// What a rollout does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The servers of the candidate's first pool load the version, and are warmed up.
    Loading,
    /// Gates are asked before anybody is sent to the candidate.
    Pending,
    /// The candidate gets copies of queries, and answers nobody.
    Mirroring,
    /// The candidate has a share, and more with each step.
    Canary,
    /// The candidate is live, and a holdback stays on the version before.
    Baking,
    /// The candidate is live.
    Done,
    /// It did harm, or an operator took it back.
    RolledBack,
    /// An operator ended it, or somebody changed what it stands on.
    Aborted,
    /// It was done, and the old colour let go of the version before: the way back is a load.
    Retired,
}

impl Plan {
    /// What comes first, gates aside.
    #[must_use]
    pub fn first(&self) -> Phase {
        if self.mirror > Ppm::ZERO && self.mirror_ms > 0 { Phase::Mirroring } else { Phase::Canary }
    }
}

impl Phase {
    /// As the record has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Phase::Loading => "loading",
            Phase::Pending => "pending",
            Phase::Mirroring => "mirroring",
            Phase::Canary => "canary",
            Phase::Baking => "baking",
            Phase::Done => "done",
            Phase::RolledBack => "rolled_back",
            Phase::Aborted => "aborted",
            Phase::Retired => "retired",
        }
    }

    /// The version before can still get its traffic back.
    #[must_use]
    pub fn may_be_taken_back(self) -> bool {
        self.is_active() || self == Phase::Done
    }

    /// Something is to come.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Phase::Loading | Phase::Pending | Phase::Mirroring | Phase::Canary | Phase::Baking)
    }
}

/// Who takes part in a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// The version under test, and the colour that is to become live.
    pub candidate: (String, String),
    /// The version that is live, and its pool.
    pub control: (String, String),
}

impl Rollout {
    /// One that is about to begin; with its gates, where it has some that are asked before that.
    #[must_use]
    pub fn begin(id: String, sides: Sides, plan: Plan, now_ms: u64, is_gated: bool) -> Rollout {
        let first = plan.first();
        let Sides { candidate: (candidate, to), control: (control, from) } = sides;
        Rollout {
            form: FORM,
            id,
            candidate,
            sha256: None,
            control,
            from,
            to,
            started_ms: now_ms,
            plan,
            phase: if is_gated { Phase::Pending } else { first },
            step: 0,
            since_ms: now_ms,
            samples_before: 0,
            moves: 0,
            term: 0,
            paused: None,
            is_approved: false,
            is_asked: false,
            is_stalled: false,
            is_tripped: false,
            hurry: None,
            load_ms: None,
            loaded_on: None,
            copies_before: None,
            first_began_ms: None,
            why: String::new(),
        }
    }

    /// Reads a record; `None` for what is none, or of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Rollout> {
        let rollout: Rollout = serde_json::from_str(text).ok()?;
        let steps = &rollout.plan.steps;
        let texts = [&rollout.id, &rollout.candidate, &rollout.control, &rollout.from, &rollout.to, &rollout.why];
        let is_short = texts.into_iter().chain(&rollout.paused).chain(&rollout.loaded_on).all(|text| text.chars().count() <= TEXT_CHARS);
        let is_rising = steps.iter().map(|step| step.percent).is_sorted_by(|less, more| less < more);
        let is_good = rollout.form == FORM
            && (1..=STEPS).contains(&steps.len())
            && rollout.step < steps.len()
            && steps.iter().all(|step| step.percent > Ppm::ZERO)
            && is_rising
            && rollout.sha256.as_deref().is_none_or(is_sha256)
            && is_short;
        is_good.then_some(rollout)
    }

    /// As the field has it.
    #[must_use]
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The step that it is in, or was last.
    #[must_use]
    pub fn planned(&self) -> Option<&PlannedStep> {
        self.plan.steps.get(self.step)
    }

    /// Whether everybody follows after this step.
    #[must_use]
    pub fn is_last_step(&self) -> bool {
        self.step + 1 >= self.plan.steps.len()
    }

    /// It bakes for no time and with no holdback, as one that an operator wants at once does: nobody is compared with, and nothing is waited for.
    #[must_use]
    pub fn is_at_once(&self) -> bool {
        self.phase == Phase::Baking && self.plan.bake_ms == 0 && self.plan.holdback == Ppm::ZERO
    }

    /// It is to be live as soon as its servers have the version, and nothing comes after that.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        self.phase == Phase::Loading && self.hurry == Some(Hurry::Live) && self.plan.bake_ms == 0 && self.plan.holdback == Ppm::ZERO
    }

    /// For people: `v42 canary step 2 of 4 (5 %)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let what = match self.phase {
            Phase::Canary => {
                let percent = self.planned().map_or(Ppm::ZERO, |step| step.percent);
                format!("canary step {} of {} ({percent} %)", self.step + 1, self.plan.steps.len())
            }
            phase => phase.label().replace('_', " "),
        };
        let more = match (&self.paused, self.is_stalled, self.is_asked && !self.is_approved) {
            _ if !self.phase.is_active() => "",
            (Some(_), _, _) => ", paused",
            (None, true, _) => ", stalled",
            (None, false, true) => ", waits for approval",
            (None, false, false) if self.hurry == Some(Hurry::Live) => ", promoted to the end",
            (None, false, false) if self.hurry.is_some() => ", promoted",
            (None, false, false) => "",
        };
        format!("{} {what}{more}", self.candidate)
    }
}

/// Whether a text is a SHA-256, as records and manifests have it: 64 hex digits, in lower case.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What the ledger and the log say of a field's value: a record in words.
pub(crate) fn in_words(text: &str) -> String {
    Rollout::parse(text).map_or_else(|| "(not readable)".to_owned(), |rollout| rollout.summary())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(percents: &[&str]) -> Plan {
        let step = |text: &&str| PlannedStep { percent: Ppm::from_percent(text).unwrap(), dwell_ms: 0, min_samples: 0, approval: false };
        let share = |text| Ppm::from_percent(text).unwrap();
        Plan {
            steps: percents.iter().map(step).collect(),
            canary_max: share("10"),
            mirror: Ppm::ZERO,
            mirror_ms: 0,
            mirror_gate: None,
            holdback: share("10"),
            bake_ms: 60_000,
            max_step_ms: 600_000,
        }
    }

    pub(crate) fn rollout(percents: &[&str]) -> Rollout {
        let sides = Sides { candidate: ("v2".to_owned(), "green".to_owned()), control: ("v1".to_owned(), "blue".to_owned()) };
        Rollout::begin("ab".repeat(16), sides, plan(percents), 1_000, false)
    }

    #[test]
    fn a_record_reads_back() {
        let mut rollout = rollout(&["1", "2.5", "50"]);
        rollout.paused = Some("canary_percent was changed by hand".to_owned());
        assert!(!rollout.render().contains("sha256"), "what nobody said is left out");
        rollout.sha256 = Some("0f".repeat(32));
        assert_eq!(Rollout::parse(&rollout.render()), Some(rollout.clone()));
        assert!(rollout.render().contains(r#""percent":"2.5""#));
        assert!(!rollout.render().contains("mirror_gate"), "a router of a version before reads what mirrors nothing");
        let (max_failing, max_top1_change) = (Ppm::from_percent("0.5").unwrap(), Ppm::ALL);
        let gated = MirrorGate { min_samples: 40, max_failing, max_top1_change };
        rollout.plan.mirror_gate = Some(gated);
        assert!(rollout.render().contains(r#""mirror_gate":{"min_samples":40,"max_failing":"0.5","max_top1_change":"100"}"#));
        assert_eq!(Rollout::parse(&rollout.render()), Some(rollout.clone()));
        assert_eq!(rollout.summary(), "v2 canary step 1 of 3 (1 %), paused");
        assert_eq!(in_words("{}"), "(not readable)");
    }

    #[test]
    fn what_makes_no_sense_is_none() {
        let good = rollout(&["1", "5"]);
        let bad = |change: fn(&mut Rollout)| {
            let mut rollout = good.clone();
            change(&mut rollout);
            Rollout::parse(&rollout.render())
        };
        assert_eq!(bad(|rollout| rollout.form = 2), None);
        assert_eq!(bad(|rollout| rollout.step = 2), None);
        assert_eq!(bad(|rollout| rollout.plan.steps.clear()), None);
        assert_eq!(bad(|rollout| rollout.plan.steps.swap(0, 1)), None);
        assert_eq!(bad(|rollout| rollout.why = "x".repeat(2_000)), None);
        assert_eq!(bad(|rollout| rollout.sha256 = Some("0F".repeat(32))), None);
        assert_eq!(bad(|rollout| rollout.sha256 = Some("0f".repeat(31))), None);
        assert_eq!(Rollout::parse(&good.render().replace("\"moves\"", "\"more\"")), None);
    }
}
