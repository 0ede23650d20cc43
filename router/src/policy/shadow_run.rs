//! A shadow run: a candidate policy beside the one in force, on a sample of real queries, and how often the two disagree.
//!
//! Workers ask the candidate after a query was decided; what it says goes nowhere but into these counts. A run ends when its time is
//! over, when an operator stops it, when the policy in force is another, or when the candidate fails too often.
//!
//! Invariant: nobody on the query path waits for anything here, and everything in it is bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use switchback_policy::split::{Decision, Field, Reason, Snapshot, Wanted};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failure::PolicyFailure;
use super::in_force::SplitInForce;
use super::instance::SplitInstance;
use super::status::now_unix_ms;
use crate::config::UnitSource;
use crate::vocabulary::Ppm;

/// Examples that are kept: the newest.
const EXAMPLES: usize = 20;
/// The longest value that an example repeats, in characters.
const VALUE_CHARACTERS: usize = 64;

/// A policy by name and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
}

/// How a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadowState {
    /// It goes on.
    Running,
    /// Its time is over.
    Finished,
    /// An operator stopped it, or the policy in force is another.
    Stopped,
    /// The candidate failed too often, or refused the flags.
    Failed,
}

/// A query on which the two disagreed, as the candidate saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The pool of the policy in force, and why.
    pub live: Side,
    /// The candidate's.
    pub candidate: Side,
    /// The unit's positions under the candidate's salts.
    pub positions: Vec<u32>,
    /// The fields that it asked for. The unit itself is not among them.
    pub fields: Vec<SeenField>,
}

/// One decision of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The pool's name.
    pub pool: String,
    /// Why.
    pub reason: &'static str,
}

/// A field of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenField {
    /// `path`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    pub field: String,
    /// Its value, cut at 64 characters; null when the query had none.
    pub value: Option<String>,
}

/// Queries by where the two sent them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolPair {
    /// The pool of the policy in force.
    pub live: String,
    /// The candidate's.
    pub candidate: String,
    /// How many.
    pub decisions: u64,
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowReport {
    /// How it is.
    pub state: ShadowState,
    /// Why it ended; empty while it runs, and when its time was over.
    pub why: String,
    /// The policy in force.
    pub live: Named,
    /// The one beside it.
    pub candidate: Named,
    /// Share of the queries that are asked of both.
    pub sample_percent: f64,
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// How long it takes, in seconds.
    pub seconds: f64,
    /// How long it has taken.
    pub elapsed_seconds: f64,
    /// Queries that both decided.
    pub decisions: u64,
    /// Of these, where the pools differ.
    pub disagreements: u64,
    /// Disagreements by decisions, 0 to 1; null before the first decision.
    pub disagreement_rate: Option<f64>,
    /// Queries of the sample that the candidate was not asked about, because the worker was busy.
    pub skipped: u64,
    /// Failures of the candidate.
    pub failures: u64,
    /// By pools, most first.
    pub by_pool: Vec<PoolPair>,
    /// The newest disagreements, newest first, 20 at most.
    pub examples: Vec<Example>,
}

struct End {
    state: ShadowState,
    why: String,
    at: Instant,
}

/// A run, shared by all workers and the control side.
pub struct ShadowRun {
    /// Share of the queries that are asked of both.
    pub share: Ppm,
    candidate: SplitInForce,
    live: Named,
    pools: Vec<String>,
    /// Fields that say who the unit is: never in an example.
    hidden: Vec<Field>,
    length: Duration,
    began: Instant,
    began_unix_ms: u64,
    most_failures: u32,
    failures: AtomicU32,
    skipped: AtomicU64,
    /// By the live pool, then the candidate's.
    counts: Box<[AtomicU64]>,
    examples: Mutex<VecDeque<Example>>,
    is_over: AtomicBool,
    end: Mutex<Option<End>>,
    pub(super) ended: Notify,
}

/// What a run is made of.
pub(super) struct ShadowPlan<'a> {
    pub(super) candidate: SplitInForce,
    pub(super) live: &'a SplitInForce,
    pub(super) route: &'a crate::config::Route,
    pub(super) share: Ppm,
    pub(super) length: Duration,
    pub(super) most_failures: u32,
}

impl ShadowRun {
    pub(super) fn new(plan: ShadowPlan<'_>) -> ShadowRun {
        let pools: Vec<String> = plan.route.pools.iter().map(|pool| pool.name.clone()).collect();
        ShadowRun {
            share: plan.share,
            live: Named { name: plan.live.name.clone(), digest: plan.live.digest.clone() },
            hidden: plan.route.unit.iter().filter_map(unit_field).collect(),
            counts: (0..pools.len() * pools.len()).map(|_| AtomicU64::new(0)).collect(),
            pools,
            candidate: plan.candidate,
            length: plan.length,
            began: Instant::now(),
            began_unix_ms: now_unix_ms(),
            most_failures: plan.most_failures,
            failures: AtomicU32::new(0),
            skipped: AtomicU64::new(0),
            examples: Mutex::new(VecDeque::with_capacity(EXAMPLES)),
            is_over: AtomicBool::new(false),
            end: Mutex::new(None),
            ended: Notify::new(),
        }
    }

    /// A configured instance of the candidate for the calling worker.
    ///
    /// # Errors
    /// When it fails, or refuses the flags. The caller reports it with [`ShadowRun::failed`].
    pub fn instantiate(&self, snapshot: &Snapshot) -> Result<(SplitInstance, Wanted), PolicyFailure> {
        self.candidate.instantiate(snapshot)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Counts a query that both decided; true when they agree about the pool.
    pub fn count(&self, live: Decision, candidate: Decision) -> bool {
        let place = |pool: u32| usize::try_from(pool).ok().filter(|place| *place < self.pools.len());
        if let (Some(row), Some(column)) = (place(live.pool), place(candidate.pool))
            && let Some(count) = self.counts.get(row * self.pools.len() + column)
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        live.pool == candidate.pool
    }

    /// Counts a query that was sampled and not asked about.
    pub fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a query on which they disagreed. When somebody reads the examples at this moment, it is let go.
    pub fn keep_example(&self, decisions: [Decision; 2], positions: &[u32], fields: &[Field], values: &[Option<String>]) {
        let Ok(mut examples) = self.examples.try_lock() else { return };
        let [live, candidate] = decisions.map(|decision| self.side(decision));
        let seen = |(field, value): (&Field, &Option<String>)| {
            let is_hidden = self.hidden.contains(field);
            let value =
                value.as_ref().map(|text| if is_hidden { "(unit)".to_owned() } else { text.chars().take(VALUE_CHARACTERS).collect() });
            SeenField { field: field_name(field), value }
        };
        let fields = fields.iter().zip(values).map(seen).collect();
        examples.truncate(EXAMPLES - 1);
        examples.push_front(Example { unix_ms: now_unix_ms(), live, candidate, positions: positions.to_vec(), fields });
    }

    /// Counts a failure of the candidate; too many, or a refusal of the flags, end the run.
    pub fn failed(&self, failure: &PolicyFailure) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failure.is_refusal() || failures >= self.most_failures {
            self.end(ShadowState::Failed, &failure.to_string());
        }
    }

    /// Ends the run, unless it has ended.
    pub(super) fn end(&self, state: ShadowState, why: &str) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_some() {
            return;
        }
        *end = Some(End { state, why: why.to_owned(), at: Instant::now() });
        self.is_over.store(true, Ordering::Relaxed);
        self.ended.notify_one();
    }

    /// What it has come to.
    #[must_use]
    pub fn report(&self) -> ShadowReport {
        let (state, why, until) = match &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(end) => (end.state, end.why.clone(), end.at),
            None => (ShadowState::Running, String::new(), Instant::now()),
        };
        let by_pool = self.by_pool();
        let sum = |pairs: &mut dyn Iterator<Item = &PoolPair>| pairs.map(|pair| pair.decisions).sum::<u64>();
        let decisions = sum(&mut by_pool.iter());
        let disagreements = sum(&mut by_pool.iter().filter(|pair| pair.live != pair.candidate));
        ShadowReport {
            state,
            why,
            live: self.live.clone(),
            candidate: Named { name: self.candidate.name.clone(), digest: self.candidate.digest.clone() },
            sample_percent: self.share.percent(),
            began_unix_ms: self.began_unix_ms,
            seconds: self.length.as_secs_f64(),
            elapsed_seconds: until.saturating_duration_since(self.began).as_secs_f64(),
            decisions,
            disagreements,
            disagreement_rate: (decisions > 0).then(|| disagreements as f64 / decisions as f64),
            skipped: self.skipped.load(Ordering::Relaxed),
            failures: u64::from(self.failures.load(Ordering::Relaxed)),
            by_pool,
            examples: self.examples.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
        }
    }

    fn by_pool(&self) -> Vec<PoolPair> {
        let pairs = self.pools.iter().flat_map(|live| self.pools.iter().map(move |candidate| (live, candidate)));
        let counted = pairs.zip(&self.counts).map(|((live, candidate), count)| PoolPair {
            live: live.clone(),
            candidate: candidate.clone(),
            decisions: count.load(Ordering::Relaxed),
        });
        let mut by_pool: Vec<PoolPair> = counted.filter(|pair| pair.decisions > 0).collect();
        by_pool.sort_by_key(|pair| std::cmp::Reverse(pair.decisions));
        by_pool
    }

    fn side(&self, decision: Decision) -> Side {
        let pool = usize::try_from(decision.pool).ok().and_then(|place| self.pools.get(place));
        let reason = match decision.reason {
            Reason::Live => "live",
            Reason::Candidate => "candidate",
            Reason::Holdback => "holdback",
            Reason::Experiment => "experiment",
            Reason::Rule => "rule",
        };
        Side { pool: pool.cloned().unwrap_or_default(), reason }
    }
}

fn unit_field(source: &UnitSource) -> Option<Field> {
    match source {
        UnitSource::Header(name) => Some(Field::Header(name.as_str().to_owned())),
        UnitSource::Cookie(name) => Some(Field::Cookie(name.clone())),
        UnitSource::ClientAddress => None,
    }
}

fn field_name(field: &Field) -> String {
    match field {
        Field::Path => "path".to_owned(),
        Field::Header(name) => format!("header:{name}"),
        Field::Cookie(name) => format!("cookie:{name}"),
        Field::Query(name) => format!("query:{name}"),
    }
}
