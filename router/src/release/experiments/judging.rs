//! Judges a route's experiments: every few seconds, on the task of the route's judge.
//!
//! Every router reads the records; the one that is named in a record moves it on. When that has not been heard for a while, whoever notices goes on from
//! the record. Two at once do no harm: a record is replaced only by who knows the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::record::Record;
use super::step::{Due, due, is_over, step};
use super::view::{ExperimentEvidence, view};
use crate::config::Route;
use crate::flags::{Change, ChangeError, Experiment, FlagStore, Flags, Grounds, Kind};
use crate::quality::FleetClock;
use crate::quality::pages::page_of;
use crate::release::cursor::Sealed;
use crate::release::kept::{Kept as _, RECORD_BYTES};
use crate::release::store::fleet_windows;
use crate::vocabulary::RouteIndex;

/// How often, at most: the store has one read more for each experiment and router then.
const EVERY: Duration = Duration::from_secs(5);
/// A judge that was not heard for so many times as long is taken to be gone.
const TAKE_OVER: u32 = 3;
/// Why an arm does harm is no longer, in characters.
const WHY_CHARS: usize = 1_024;

/// One route's experiments, as this router knows them.
#[derive(Debug, Default)]
pub(in crate::release) struct ExperimentsJudge {
    held: BTreeMap<String, Held>,
    last: Option<Instant>,
    /// What was wrong with the last look at each.
    faults: BTreeMap<String, String>,
}

/// A record as the store had it.
#[derive(Debug)]
struct Held {
    revision: u64,
    record: Record,
    /// When it last changed, as this router saw it.
    changed: Instant,
}

/// What a look is at.
pub(in crate::release) struct Look<'a> {
    pub(in crate::release) store: &'a FlagStore,
    pub(in crate::release) index: RouteIndex,
    pub(in crate::release) route: &'a Route,
    pub(in crate::release) flags: &'a Flags,
    pub(in crate::release) clock: &'a FleetClock,
    pub(in crate::release) sealed: Sealed,
    /// After the store was away, every router has told it again.
    pub(in crate::release) is_settled: bool,
    /// This process, and this router's id.
    pub(in crate::release) me: &'a str,
    pub(in crate::release) router: &'a str,
    pub(in crate::release) maturity: Duration,
}

/// Why a look came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The store is away, or was: what others told it is not all there yet.
    Lost(String),
    /// It is this experiment's alone.
    Own(String),
}

impl ExperimentsJudge {
    /// Looks, if it is time to; answers what is known of each experiment then.
    ///
    /// # Errors
    /// In words: the store may have lost what others told it.
    pub(in crate::release) async fn tick(&mut self, look: &Look<'_>) -> Result<Option<BTreeMap<String, ExperimentEvidence>>, String> {
        let every = EVERY.min(look.maturity / 4);
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return Ok(None);
        }
        self.last = Some(Instant::now());
        let all = look.flags.experiments.as_ref().map(|all| all.experiments.as_slice()).unwrap_or_default();
        self.held.retain(|name, _| all.iter().any(|experiment| experiment.name == *name));
        let (mut known, mut faults, mut lost) = (BTreeMap::new(), BTreeMap::new(), None);
        for experiment in all {
            match self.look(look, experiment, every).await {
                Ok(()) => {}
                Err(Trouble::Lost(why)) => lost = Some(why),
                Err(Trouble::Own(why)) => drop(faults.insert(experiment.name.clone(), why)),
            }
            let record = self.held.get(&experiment.name).map(|held| &held.record).filter(|record| record.is_of(experiment));
            let evidence = record.map_or_else(ExperimentEvidence::default, |record| view(experiment, record));
            known.insert(experiment.name.clone(), evidence);
        }
        for (experiment, why) in faults.iter().filter(|(name, why)| self.faults.get(*name) != Some(*why)) {
            tracing::error!(route = look.route.name, experiment, why, "an experiment is not judged; it is tried again");
        }
        self.faults = faults;
        lost.map_or(Ok(Some(known)), Err)
    }

    async fn look(&mut self, look: &Look<'_>, experiment: &Experiment, every: Duration) -> Result<(), Trouble> {
        let (name, route) = (&experiment.name, &look.route.name);
        if self.held.get(name).is_some_and(|held| held.record.is_of(experiment) && is_over(&held.record, experiment)) {
            return Ok(());
        }
        let stored = look.store.experiment(route, name).await.map_err(Trouble::Own)?;
        let revision = stored.as_ref().map_or(0, |(revision, _)| *revision);
        let known = self.held.get(name).map_or(0, |held| held.revision);
        if let Some((_, bytes)) = stored.filter(|_| revision > known) {
            match Record::read(&bytes) {
                Ok(record) => drop(self.held.insert(name.clone(), Held { revision, record, changed: Instant::now() })),
                Err(fault) => tracing::error!(route, experiment = name, %fault, "the evidence in the store is none; it is replaced"),
            }
        }
        let has_others = look.store.has_others();
        let is_mine = self
            .held
            .get(name)
            .filter(|held| held.record.is_of(experiment))
            .is_none_or(|held| held.record.judge == look.me || !has_others || held.changed.elapsed() >= every * TAKE_OVER);
        if !is_mine || (has_others && !look.is_settled) {
            return Ok(());
        }
        self.judge(look, experiment, revision).await
    }

    async fn judge(&mut self, look: &Look<'_>, experiment: &Experiment, stored: u64) -> Result<(), Trouble> {
        let held = self.held.get(&experiment.name);
        let known = held.map_or(0, |held| held.revision);
        let before = held.map(|held| &held.record).filter(|record| record.is_of(experiment));
        let mut record = match (before, held) {
            (Some(record), _) => record.clone(),
            (None, Some(held)) if held.record.is_of_former(experiment) => {
                tracing::warn!(
                    route = look.route.name,
                    experiment = experiment.name,
                    "it was changed while it ran: its report begins anew"
                );
                Record::begin(experiment, look.clock.now_seconds().saturating_add(1))
            }
            (None, _) => Record::begin(experiment, first_second(experiment, look.sealed)),
        };
        let due = due(&mut record, experiment, look.sealed);
        // What was passed over is kept, too; but of an experiment that ended before anybody kept anything there is nothing to say.
        if due.is_empty() && (before == Some(&record) || (before.is_none() && is_over(&record, experiment))) {
            return Ok(());
        }
        let Some(mut record) = judged(look, experiment, record, due).await? else { return Ok(()) };
        (record.judge, record.router, record.at_ms) = (look.me.to_owned(), look.router.to_owned(), look.clock.now_ms());
        let bytes = record.write();
        if bytes.len() > RECORD_BYTES {
            return Err(Trouble::Own(format!("the evidence has {} bytes; {RECORD_BYTES} at most are kept", bytes.len())));
        }
        let revision = known.max(stored).saturating_add(1);
        let replaced = look.store.replace_experiment(&look.route.name, &experiment.name, stored, revision, &bytes).await;
        if !replaced.map_err(Trouble::Own)? {
            // Another one's is read with the next look.
            return Ok(());
        }
        let harmful = record
            .others
            .iter()
            .zip(&record.found)
            .find_map(|(arm, found)| Some((arm.arms.candidate.version.clone(), found.harm.clone()?)));
        self.held.insert(experiment.name.clone(), Held { revision, record, changed: Instant::now() });
        if let Some((arm, harm)) = harmful.filter(|_| experiment.is_running() && experiment.stop_on_harm && !look.route.is_observed_only) {
            stop(look, experiment, &format!("arm {arm} of {}: {harm}", experiment.name)).await;
        }
        Ok(())
    }
}

/// Where nobody says when it was created, what is sealed from now on is its.
fn first_second(experiment: &Experiment, sealed: Sealed) -> u32 {
    if experiment.started_ms == 0 { sealed.engagement } else { u32::try_from(experiment.started_ms / 1_000).unwrap_or(u32::MAX) }
}

/// The record after what is due. Not on a runtime's thread: it may take tens of milliseconds.
async fn judged(look: &Look<'_>, experiment: &Experiment, mut record: Record, due: Due) -> Result<Option<Record>, Trouble> {
    let pages: BTreeSet<u64> = due.seconds().map(page_of).collect();
    let heard = fleet_windows(look.store, &look.route.name, pages).await.map_err(Trouble::Own)?;
    if heard.may_have_lost {
        return Err(Trouble::Lost("it was connected to anew: the other routers tell it again what they counted".to_owned()));
    }
    let experiment = experiment.clone();
    let work = move || {
        step(&mut record, &experiment, &heard.windows, &due);
        record
    };
    Ok(tokio::task::spawn_blocking(work).await.inspect_err(|error| tracing::error!(%error, "an experiment could not be judged")).ok())
}

/// An arm does harm: nobody is sent to it any more. Of two routers one writes, on the epoch that it knows.
async fn stop(look: &Look<'_>, experiment: &Experiment, why: &str) {
    let why: String = why.chars().take(WHY_CHARS).collect();
    let Some(all) = &look.flags.experiments else { return };
    let after = all.stopped(&experiment.name, look.clock.now_ms(), &why);
    let change = Change {
        fields: BTreeMap::from([("experiments".to_owned(), Some(after.render()))]),
        expected_epoch: Some(look.flags.epoch),
        kind: Kind::Experiment,
        who: format!("router:{}", look.router).chars().take(128).collect(),
        why: why.clone(),
        grounds: Some(Box::new(Grounds::of_experiment("experiment_stopped", &experiment.name))),
    };
    match look.store.change(look.index, change).await {
        Ok(epoch) => tracing::error!(route = look.route.name, experiment = experiment.name, epoch, why, "the experiment is stopped"),
        // Somebody was first: what they wrote is looked at.
        Err(ChangeError::Conflict { .. }) => {}
        Err(error) => {
            tracing::error!(route = look.route.name, experiment = experiment.name, %error, why, "an experiment should be stopped")
        }
    }
}
