//! What is known of one experiment: a record in the store. Pure.

use serde::{Deserialize, Serialize};

use crate::flags::Experiment;
use crate::quality::Counts;
use crate::release::kept::Kept;
use crate::release::record::Comparison;
use crate::release::roles::{Arm, Arms};

/// Names are no longer, in bytes.
const TEXT_BYTES: usize = 1_024;

/// An experiment's evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::release) struct Record {
    /// Who judges: a process, and not a router's id.
    pub(in crate::release) judge: String,
    /// The id of its router.
    pub(in crate::release) router: String,
    /// When it was last changed, in milliseconds since 1970.
    pub(in crate::release) at_ms: u64,
    /// Of the arms, control first: another experiment of the same name has others.
    pub(in crate::release) arms: Vec<u32>,
    /// Of what users of an arm are, and get: where that is changed by hand, it is another experiment.
    pub(in crate::release) terms: u32,
    /// The second of its first window.
    pub(in crate::release) began: u32,
    /// The next second of each slice.
    pub(in crate::release) next_traffic: u32,
    pub(in crate::release) next_engagement: u32,
    /// Seconds that nobody kept until they could be judged.
    pub(in crate::release) left_out: u32,
    /// Everything that was judged of control.
    pub(in crate::release) control: Counts,
    /// Each of the other arms against control.
    pub(in crate::release) others: Vec<Comparison>,
    /// What was found out of each of them: it stays found out.
    pub(in crate::release) found: Vec<Found>,
}

/// What was once beyond doubt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::release) struct Found {
    /// The arm does harm: in a sentence.
    pub(in crate::release) harm: Option<String>,
    /// The shares were not as they should be.
    pub(in crate::release) is_skewed: bool,
}

impl Record {
    /// Nothing is known yet.
    pub(in crate::release) fn begin(experiment: &Experiment, began: u32) -> Record {
        let arm = |name: &str| Arm { version: name.to_owned(), pool: None };
        let names: Vec<&str> = experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
        let (control, others) = names.split_first().map_or(("", &[][..]), |(control, others)| (*control, others));
        let against = |name: &&str| Comparison::begin(Arms { candidate: arm(name), control: arm(control) }, began, began, 0);
        Record {
            arms: experiment.arm_ids().collect(),
            terms: experiment.terms(),
            began,
            next_traffic: began,
            next_engagement: began,
            others: others.iter().map(against).collect(),
            found: vec![Found::default(); others.len()],
            ..Record::default()
        }
    }

    /// Whether it is this experiment's, and no other's of the same name.
    pub(in crate::release) fn is_of(&self, experiment: &Experiment) -> bool {
        self.arms.iter().copied().eq(experiment.arm_ids())
            && self.terms == experiment.terms()
            && self.others.len() + 1 == self.arms.len()
            && self.found.len() == self.others.len()
    }

    /// Whether it is this experiment's as it was before somebody changed it: what was counted of an arm then is in the same place as what is counted now.
    pub(in crate::release) fn is_of_former(&self, experiment: &Experiment) -> bool {
        !self.is_of(experiment) && experiment.arm_ids().any(|id| self.arms.contains(&id))
    }
}

impl Kept for Record {
    const FORM: u8 = 3;

    fn is_sound(&self) -> bool {
        [&self.judge, &self.router].into_iter().all(|text| text.len() <= TEXT_BYTES)
            && self.began <= self.next_engagement
            && self.next_engagement <= self.next_traffic
            && self.control.is_sound()
            && self.others.iter().all(Comparison::is_sound)
            && self.found.iter().filter_map(|found| found.harm.as_ref()).all(|harm| harm.len() <= TEXT_BYTES)
    }
}
