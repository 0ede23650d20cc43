//! Begins and ends shadow runs: the control side of [`ShadowRun`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::catalogue::{Choice, Found, Trouble};
use super::health::Patience;
use super::in_force::SplitInForce;
use super::keeper::Event;
use super::policies::Policies;
use super::shadow_run::{ShadowPlan, ShadowReport, ShadowRun, ShadowState};
use super::snapshot::snapshot;
use super::workshop::{Job, Outcome};
use crate::flags::PolicyRef;
use crate::vocabulary::{Ppm, RouteIndex};

/// How long a candidate may still be on its way through admission when a run is asked for.
const ADMISSION: Duration = Duration::from_secs(10);
/// Between two looks whether it has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a run does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// There is no such policy, or it is none.
    #[error("{0}")]
    NoPolicy(String),
    /// It does not take the route's flags.
    #[error("with this route's flags, {0}")]
    Refused(String),
    /// It is the one in force.
    #[error("{0} is in force on this route: there is nothing to compare")]
    InForce(String),
    /// One runs.
    #[error("a shadow run of {0} is under way on this route: stop it first")]
    Busy(String),
    /// The threads are gone or too busy.
    #[error("the router could not look for it; try again")]
    Unanswered,
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct ShadowOrder {
    /// The candidate.
    pub policy: PolicyRef,
    /// Share of the queries that are asked of both.
    pub share: Ppm,
    /// How long.
    pub length: Duration,
}

/// One route's runs: the one under way, which workers follow, and the last one.
#[derive(Default)]
pub(super) struct ShadowSlot {
    running: watch::Sender<Option<Arc<ShadowRun>>>,
    last: Mutex<Option<Arc<ShadowRun>>>,
}

impl Policies {
    /// The shadow run under way on a route, now and whenever that changes.
    #[must_use]
    pub fn shadow(&self, route: RouteIndex) -> watch::Receiver<Option<Arc<ShadowRun>>> {
        self.shadow_slot(route).running.subscribe()
    }

    /// What the run under way, or the last one, has come to. `None` when there was none since the router started.
    #[must_use]
    pub fn shadow_report(&self, route: RouteIndex) -> Option<ShadowReport> {
        let last = self.shadow_slot(route).last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.map(|run| run.report())
    }

    /// Begins a run. Inside a tokio runtime, which ends it when its time is over.
    ///
    /// # Errors
    /// When there is no such policy, it does not take the flags, or a run is under way.
    pub async fn begin_shadow(&self, route: RouteIndex, order: ShadowOrder) -> Result<ShadowReport, ShadowError> {
        let found = self.find(&order.policy).await?;
        let (config, flags) = self.route(route).ok_or(ShadowError::Unanswered)?;
        let mut split = self.split(route);
        let live = split.borrow_and_update().clone();
        if live.digest == found.digest {
            return Err(ShadowError::InForce(order.policy.name));
        }
        let patience = self.patience;
        let candidate = SplitInForce::wasm(&config.name, &order.policy.name, &found.digest, found.program, patience);
        let flags = flags.borrow().clone();
        if let Err(failure) = candidate.instantiate(&snapshot(config, &flags)) {
            return Err(ShadowError::Refused(failure.to_string()));
        }
        let Patience { strikes, .. } = patience;
        let plan = ShadowPlan { candidate, live: &live, route: config, share: order.share, length: order.length, most_failures: strikes };
        let run = Arc::new(ShadowRun::new(plan));
        let slot = self.shadow_slot(route);
        let mut last = slot.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(busy) = last.as_ref().filter(|run| !run.is_over()) {
            return Err(ShadowError::Busy(busy.report().candidate.name));
        }
        *last = Some(run.clone());
        drop(last);
        slot.running.send_replace(Some(run.clone()));
        tokio::spawn(end_in_time(run.clone(), slot.running.clone(), split, config.name.clone()));
        Ok(run.report())
    }

    /// Stops the run under way; what it came to. `None` when there was none.
    #[must_use]
    pub fn stop_shadow(&self, route: RouteIndex, who: &str) -> Option<ShadowReport> {
        let last = self.shadow_slot(route).last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        last.end(ShadowState::Stopped, &format!("stopped by {who}"));
        Some(last.report())
    }

    /// What a reference means; a plugin that was just put into the folder is waited for.
    async fn find(&self, wanted: &PolicyRef) -> Result<Found, ShadowError> {
        let deadline = Instant::now() + ADMISSION;
        loop {
            let (answer, answered) = oneshot::channel();
            self.wake.try_send(Event::Find(wanted.clone(), answer)).map_err(|_| ShadowError::Unanswered)?;
            let Choice { found, trouble } = answered.await.map_err(|_| ShadowError::Unanswered)?;
            match (found, trouble) {
                (_, Some(Trouble::Admitting)) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                (Some(found), _) => return Ok(found),
                (None, trouble) => return self.find_kept(wanted, trouble).await,
            }
        }
    }

    /// Exact bytes may be among the kept ones.
    async fn find_kept(&self, wanted: &PolicyRef, trouble: Option<Trouble>) -> Result<Found, ShadowError> {
        let why = match trouble {
            Some(Trouble::Refused(reason)) => reason,
            _ => "it is still being checked and compiled".to_owned(),
        };
        let Some(digest) = wanted.digest.clone() else { return Err(ShadowError::NoPolicy(why)) };
        if !self.workshop.kept.as_ref().is_some_and(|kept| kept.has(&digest)) {
            return Err(ShadowError::NoPolicy(why));
        }
        let (workshop, job) = (self.workshop.clone(), Job::Kept { name: wanted.name.clone(), digest: digest.clone(), is_last: false });
        let done = tokio::task::spawn_blocking(move || workshop.perform(job)).await.map_err(|_| ShadowError::Unanswered)?;
        match done.outcome {
            Outcome::Admitted(admitted) => {
                let program = admitted
                    .split
                    .ok_or_else(|| ShadowError::NoPolicy(super::Rejection::WrongKind { wanted: super::World::SplitPolicy }.to_string()))?;
                Ok(Found { digest, source: "kept".to_owned(), program })
            }
            Outcome::Rejected(rejection) => Err(ShadowError::NoPolicy(rejection.to_string())),
            Outcome::Unsettled | Outcome::Known => Err(ShadowError::NoPolicy(why)),
        }
    }
}

/// Ends a run when its time is over, its policy in force is another, or it has ended by itself; workers then let go of it.
async fn end_in_time(
    run: Arc<ShadowRun>,
    running: watch::Sender<Option<Arc<ShadowRun>>>,
    mut split: watch::Receiver<Arc<SplitInForce>>,
    route: String,
) {
    let length = Duration::from_secs_f64(run.report().seconds);
    tokio::select! {
        () = tokio::time::sleep(length) => run.end(ShadowState::Finished, ""),
        () = run.ended.notified() => {}
        _ = split.changed() => run.end(ShadowState::Stopped, "the policy in force is another"),
    }
    running.send_if_modified(|current| {
        let is_this = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &run));
        if is_this {
            *current = None;
        }
        is_this
    });
    let report = run.report();
    tracing::info!(
        route,
        candidate = report.candidate.name,
        digest = report.candidate.digest,
        decisions = report.decisions,
        disagreements = report.disagreements,
        failures = report.failures,
        why = report.why,
        "shadow run ended"
    );
}
