//! What a decision costs.
//!
//! Decisions are timed in batches, so that the clock's own cost (some 25 ns a reading) is spread thin; nothing is
//! subtracted. A percentile is over the means of batches.

use std::time::Duration;

use serde::Serialize;
use switchback_policy::split::{POSITIONS, Share, Snapshot, Wanted};
use tokio::time::Instant;

use super::admission::Admitted;
use super::failure::PolicyFailure;
use super::golden::{self, Question};
use super::instance::SplitInstance;

/// Decisions in a batch.
const BATCH: u32 = 100;
/// Batches between two looks at the clock of the whole run.
const ROUND: usize = 500;

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
    batches: Vec<f64>,
}

impl Contender {
    /// An admitted split policy; `None` when it is a rollback policy.
    ///
    /// # Errors
    /// When it fails, or refuses the benchmark's flags.
    pub(crate) fn wasm(admitted: &Admitted, split_config: &str) -> Option<Result<Contender, PolicyFailure>> {
        let program = admitted.split.as_ref()?;
        let configured =
            program.instantiate("bench".into()).and_then(|running| SplitInstance::wasm(running, &Contender::snapshot(split_config)));
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
        Contender { instance, wanted, batches: Vec::new() }
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
            self.batches.push(began.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
        Ok(())
    }

    fn cost(mut self) -> Cost {
        self.batches.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (self.batches.len().saturating_sub(1)) as f64 * share;
            self.batches.get(index.round() as usize).copied().unwrap_or_default()
        };
        Cost { p50_ns: at(0.5), p99_ns: at(0.99), min_ns: at(0.0), decisions: self.batches.len() as u64 * u64::from(BATCH) }
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
            return Ok(contenders.into_iter().map(Contender::cost).collect());
        }
    }
}
