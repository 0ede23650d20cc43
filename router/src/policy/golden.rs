//! The questions that every split policy must answer before it takes over.
//!
//! Nothing is expected of the answers but what every worker relies on: they are within the route's pools, the same on every
//! instance whatever it was asked before, and come without a trap. Their mean time is measured over all questions, so that a
//! single slow one shows too.

use std::time::Duration;

use switchback_policy::split::{Decision, POSITIONS, Share, Snapshot, Wanted};
use tokio::time::Instant;

use super::admission::{Setting, Terms};
use super::failure::PolicyFailure;
use super::instance::SplitInstance;
use super::rejection::Rejection;

/// Positions between the borders, spread by a step that is coprime to their number.
const SPREAD: u32 = 64;
const SPREAD_STEP: u32 = 15_485_863;
/// Pools that a route can have.
const MOST_POOLS: usize = 64;
/// Decisions in one timed batch, and how many batches; the fastest one counts, so that a busy machine refuses nobody.
const BATCH: u32 = 256;
const BATCHES: usize = 4;

/// What the trial found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    /// Decisions that were checked.
    pub(super) decisions: usize,
    /// Trial configurations, and how many of them the policy refused.
    pub(super) snapshots: usize,
    /// See `snapshots`.
    pub(super) refused: usize,
    /// Mean time of one decision: the fastest batch of the slowest configuration.
    pub(super) decision_time: Duration,
}

/// Asks all questions, some 25,000: a policy within its budget takes a fraction of the time that there is.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn try_split(
    instantiate: impl Fn(&Snapshot) -> Result<(SplitInstance, Wanted), PolicyFailure>,
    terms: &Terms,
) -> Result<Trial, Rejection> {
    let snapshots: Vec<Snapshot> = terms.settings.iter().flat_map(snapshots).collect();
    let mut trial = Trial { decisions: 0, snapshots: snapshots.len(), refused: 0, decision_time: Duration::ZERO };
    let began = Instant::now();
    let mut last_refusal = String::new();
    // One instance goes through all snapshots; a fresh one for each must answer the same.
    let mut veteran: Option<SplitInstance> = None;
    let is_over = || began.elapsed() > terms.trial_timeout;
    for snapshot in &snapshots {
        let step = describe(snapshot);
        let failed = |failure| Rejection::Failed { step: step.clone(), failure };
        let (mut fresh, wanted) = match instantiate(snapshot) {
            Ok(configured) => configured,
            Err(PolicyFailure::Refused { reason }) => {
                trial.refused += 1;
                last_refusal = reason;
                continue;
            }
            Err(PolicyFailure::Types { reason }) => return Err(Rejection::Types { reason }),
            Err(failure) => return Err(failed(failure)),
        };
        let mut old = match veteran.take() {
            None => instantiate(snapshot).map_err(failed)?.0,
            Some(mut old) => {
                let wanted_again = old.configure(snapshot).map_err(failed)?;
                same(&format!("configure for {step}"), &wanted, &wanted_again)?;
                old
            }
        };
        let questions = questions(snapshot, &wanted);
        let first = answers(&mut fresh, questions.iter(), &wanted, is_over).map_err(failed)?;
        let mut second = answers(&mut old, questions.iter().rev(), &wanted, is_over).map_err(failed)?;
        if first.len() + second.len() < 2 * questions.len() {
            return Err(Rejection::Late { limit: terms.trial_timeout });
        }
        second.reverse();
        for ((question, first), second) in questions.iter().zip(&first).zip(&second) {
            same(&format!("position {} for {step}", question.positions.first().copied().unwrap_or(0)), first, second)?;
        }
        trial.decisions += first.len();
        trial.decision_time = trial.decision_time.max(fastest_batch(&mut fresh, &questions, &wanted, is_over).map_err(failed)?);
        veteran = Some(old);
        if trial.decision_time > terms.decision_budget {
            return Err(Rejection::Slow { found: trial.decision_time, limit: terms.decision_budget });
        }
        if is_over() {
            return Err(Rejection::Late { limit: terms.trial_timeout });
        }
    }
    if trial.refused == trial.snapshots {
        return Err(Rejection::RefusedAll { reason: last_refusal });
    }
    Ok(trial)
}

/// One query, as a policy sees it.
pub(crate) struct Question {
    positions: Vec<u32>,
    fields: Vec<Option<String>>,
}

impl Question {
    /// Asks it by the way that fits what the policy wanted.
    pub(crate) fn ask(&self, instance: &mut SplitInstance, wanted: &Wanted) -> Result<Decision, PolicyFailure> {
        if wanted.fields.is_empty()
            && let [position] = self.positions.as_slice()
        {
            return instance.route(*position);
        }
        let fields: Vec<Option<&str>> = self.fields.iter().map(Option::as_deref).collect();
        instance.route_fields(&self.positions, &fields)
    }
}

/// Every border of the snapshot's shares from both sides, both ends, and positions spread between.
pub(super) fn questions(snapshot: &Snapshot, wanted: &Wanted) -> Vec<Question> {
    let candidate = snapshot.candidate.as_ref().map_or(0, |share| share.ppm);
    let holdback = POSITIONS - snapshot.holdback.as_ref().map_or(0, |share| share.ppm);
    let borders = [0, candidate, holdback, POSITIONS].into_iter().flat_map(|border| [border.saturating_sub(1), border]);
    let spread = (0..SPREAD).map(|index| index.wrapping_mul(SPREAD_STEP) % POSITIONS);
    let positions = borders.filter(|position| *position < POSITIONS).chain(spread);
    let values = [None, Some(String::new()), Some("en-GB".to_owned()), Some("ü".repeat(512))];
    let question = |(index, position): (usize, u32)| {
        let salts = u32::try_from(wanted.salts.len()).unwrap_or(1);
        // Positions under different salts have nothing to do with each other.
        let positions = (0..salts).map(|salt| (position + salt * 271_829) % POSITIONS).collect();
        let value = |field: usize| values.get((index + field) % values.len()).cloned().flatten();
        Question { positions, fields: (0..wanted.fields.len()).map(value).collect() }
    };
    positions.enumerate().map(question).collect()
}

/// Fewer answers than questions when the time of the trial is over.
fn answers<'a>(
    instance: &mut SplitInstance,
    questions: impl Iterator<Item = &'a Question>,
    wanted: &Wanted,
    is_over: impl Fn() -> bool,
) -> Result<Vec<Decision>, PolicyFailure> {
    questions.take_while(|_| !is_over()).map(|question| question.ask(instance, wanted)).collect()
}

fn fastest_batch(
    instance: &mut SplitInstance,
    questions: &[Question],
    wanted: &Wanted,
    is_over: impl Fn() -> bool,
) -> Result<Duration, PolicyFailure> {
    let mut fastest = Duration::MAX;
    for _ in 0..BATCHES {
        let began = Instant::now();
        let mut asked = 0;
        for question in questions.iter().cycle().take(BATCH as usize) {
            question.ask(instance, wanted)?;
            asked += 1;
            // Looking at the clock costs a fraction of a decision, and less than nothing against one that is too slow.
            if asked % 16 == 0 && is_over() {
                break;
            }
        }
        fastest = fastest.min(began.elapsed() / asked.max(1));
        if is_over() {
            break;
        }
    }
    Ok(fastest)
}

fn same<T: PartialEq + std::fmt::Debug>(step: &str, first: &T, second: &T) -> Result<(), Rejection> {
    if first == second {
        return Ok(());
    }
    Err(Rejection::Unsteady { step: step.to_owned(), first: format!("{first:?}"), second: format!("{second:?}") })
}

fn describe(snapshot: &Snapshot) -> String {
    let share = |share: Option<&Share>| share.map_or(0, |share| share.ppm);
    let (candidate, holdback) = (share(snapshot.candidate.as_ref()), share(snapshot.holdback.as_ref()));
    format!("{} pools, live {}, candidate {candidate} ppm, holdback {holdback} ppm", snapshot.pools.len(), snapshot.live)
}

/// States of the flags that every split policy can be configured with.
pub(super) fn snapshots(setting: &Setting) -> Vec<Snapshot> {
    let colours = ["blue", "green", "canary"].map(str::to_owned);
    // The colours are where every snapshot has them; the route's further pools follow, so that its config can name them.
    let mut pools = colours.to_vec();
    let further = setting.pools.iter().filter(|pool| !colours.contains(pool));
    pools.extend(further.cloned());
    pools.truncate(MOST_POOLS);
    let plain = Snapshot {
        route: "search".to_owned(),
        epoch: 1,
        pools: pools.clone(),
        live: 0,
        candidate: None,
        holdback: None,
        features: Vec::new(),
        experiments: None,
        config: setting.split_config.clone(),
    };
    let ramp = |ppm| Snapshot { candidate: Some(Share { pool: 2, ppm }), ..plain.clone() };
    let baking = Snapshot { live: 1, holdback: Some(Share { pool: 0, ppm: 100_000 }), ..plain.clone() };
    let both = Snapshot { candidate: Some(Share { pool: 2, ppm: 50_000 }), ..baking.clone() };
    let overlapping = Snapshot {
        candidate: Some(Share { pool: 2, ppm: POSITIONS }),
        holdback: Some(Share { pool: 0, ppm: POSITIONS }),
        ..baking.clone()
    };
    let alone = Snapshot { pools: vec!["blue".to_owned()], ..plain.clone() };
    let crowded = Snapshot {
        epoch: u64::MAX,
        pools: pools.iter().cloned().chain((pools.len()..MOST_POOLS).map(|index| format!("pool-{index}"))).collect(),
        live: 1,
        candidate: Some(Share { pool: 63, ppm: 250_000 }),
        features: (0..256).map(|index| (format!("feature-{index:03}"), "x".repeat(64))).collect(),
        experiments: Some("{}".to_owned()),
        ..plain.clone()
    };
    vec![plain.clone(), ramp(1), ramp(10_000), ramp(250_000), ramp(POSITIONS), baking, both, overlapping, alone, crowded]
}
