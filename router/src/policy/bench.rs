//! What a decision costs.
//!
//! Decisions are timed in batches, so that the clock's own cost (some 25 ns a reading) is spread thin; nothing is
//! subtracted. A percentile is over the means of batches.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use switchback_policy::rollback::Window;
use switchback_policy::split::{POSITIONS, Share, Snapshot, Wanted};
use tokio::time::Instant;

use super::admission::Admitted;
use super::failure::PolicyFailure;
use super::golden::{self, Question};
use super::instance::SplitInstance;
use super::rollback::RollbackInstance;

/// Decisions in a batch.
const BATCH: u32 = 100;
/// Batches between two looks at the clock of the whole run.
const ROUND: usize = 500;
/// The longest batch that is told from longer ones, in nanoseconds: 100 decisions at the longest deadline.
const LONGEST_BATCH_NS: u64 = 100_000_000_000;

/// Nanoseconds of one decision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Half of the batches were faster.
    pub(crate) p50_ns: f64,
    /// All but one in a hundred were faster.
    pub(crate) p99_ns: f64,
    /// The fastest batch.
    pub(crate) min_ns: f64,
    /// Decisions that were timed.
    pub(crate) decisions: u64,
}

/// The policies that can be timed, side by side.
pub(crate) struct Contender {
    instance: SplitInstance,
    wanted: Wanted,
    /// Nanoseconds of whole batches, to three digits.
    batches: Histogram<u64>,
}

impl Contender {
    /// An admitted split policy; `None` when it is a rollback policy.
    ///
    /// # Errors
    /// When it fails, or refuses the benchmark's flags.
    pub(crate) fn wasm(admitted: &Admitted, split_config: &str) -> Option<Result<Contender, PolicyFailure>> {
        let program = admitted.split.as_ref()?;
        let configured =
            program.instantiate_for_trial().and_then(|running| SplitInstance::wasm(running, &Contender::snapshot(split_config)));
        Some(configured.map(Contender::new))
    }

    /// `split-weighted` as native code.
    ///
    /// # Errors
    /// Never in practice: the benchmark's flags are fine.
    pub(crate) fn native() -> Result<Contender, PolicyFailure> {
        SplitInstance::native(&Contender::snapshot("{}")).map(Contender::new)
    }

    fn new((instance, wanted): (SplitInstance, Wanted)) -> Contender {
        #[allow(clippy::expect_used, reason = "constant bounds, which hdrhistogram accepts: 1 <= 2 * low <= high, at most 5 digits")]
        let batches = Histogram::new_with_max(LONGEST_BATCH_NS, 3).expect("constant bounds");
        Contender { instance, wanted, batches }
    }

    /// A route in the middle of a ramp, with a holdback: every branch of the split is taken.
    fn snapshot(split_config: &str) -> Snapshot {
        Snapshot {
            route: "search".to_owned(),
            epoch: 1,
            pools: ["blue", "green", "canary"].map(str::to_owned).to_vec(),
            live: 0,
            candidate: Some(Share { pool: 2, ppm: POSITIONS / 4 }),
            holdback: Some(Share { pool: 1, ppm: POSITIONS / 10 }),
            features: Vec::new(),
            experiments: None,
            config: split_config.to_owned(),
        }
    }

    fn round(&mut self, questions: &[Question]) -> Result<(), PolicyFailure> {
        let mut questions = questions.iter().cycle();
        for _ in 0..ROUND {
            let began = Instant::now();
            for question in questions.by_ref().take(BATCH as usize) {
                std::hint::black_box(question.ask(&mut self.instance, &self.wanted)?);
            }
            self.batches.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn cost(&self) -> Cost {
        let each = |batch_ns: u64| batch_ns as f64 / f64::from(BATCH);
        Cost {
            p50_ns: each(self.batches.value_at_quantile(0.5)),
            p99_ns: each(self.batches.value_at_quantile(0.99)),
            min_ns: each(self.batches.min()),
            decisions: self.batches.len() * u64::from(BATCH),
        }
    }
}

/// Times one evaluation of a rollback policy at a time, over these windows again and again: 10 us and more are far above what a
/// reading of the clock costs. Returns its cost and the largest state, in bytes.
///
/// # Errors
/// When an evaluation fails.
pub(crate) fn run_rollback(
    instance: &mut RollbackInstance,
    config: &str,
    windows: &[Window],
    length: Duration,
    mut progress: impl FnMut(f64),
) -> Result<(Cost, usize), PolicyFailure> {
    #[allow(clippy::expect_used, reason = "constant bounds, which hdrhistogram accepts: 1 <= 2 * low <= high, at most 5 digits")]
    let mut times = Histogram::<u64>::new_with_max(LONGEST_BATCH_NS, 3).expect("constant bounds");
    let (began, mut largest) = (Instant::now(), 0);
    loop {
        let mut state = Vec::new();
        for window in windows {
            let asked = Instant::now();
            let outcome = instance.evaluate(config, &state, window)?;
            times.saturating_record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
            state = outcome.state;
            largest = largest.max(state.len());
        }
        let passed = began.elapsed();
        progress((passed.as_secs_f64() / length.as_secs_f64()).min(1.0));
        if passed >= length {
            let at = |quantile| times.value_at_quantile(quantile) as f64;
            return Ok((Cost { p50_ns: at(0.5), p99_ns: at(0.99), min_ns: times.min() as f64, decisions: times.len() }, largest));
        }
    }
}

/// Times the contenders in turns, round by round, so that what disturbs the machine disturbs all of them. `progress` is called
/// after each round with the share of the time that has passed, 0 to 1.
///
/// # Errors
/// When a contender fails.
pub(crate) fn run(mut contenders: Vec<Contender>, length: Duration, mut progress: impl FnMut(f64)) -> Result<Vec<Cost>, PolicyFailure> {
    let snapshot = Contender::snapshot("{}");
    let questions: Vec<Vec<Question>> = contenders.iter().map(|contender| golden::questions(&snapshot, &contender.wanted)).collect();
    for (contender, questions) in contenders.iter_mut().zip(&questions) {
        contender.round(questions)?;
        contender.batches.clear();
    }
    let began = Instant::now();
    loop {
        for (contender, questions) in contenders.iter_mut().zip(&questions) {
            contender.round(questions)?;
        }
        let passed = began.elapsed();
        progress((passed.as_secs_f64() / length.as_secs_f64()).min(1.0));
        if passed >= length {
            return Ok(contenders.iter().map(Contender::cost).collect());
        }
    }
}
