//! One worker's part in a shadow run: it notes what the candidate wants to see of a sampled query, and asks the candidate later.
//!
//! The query itself only pays for the note (positions and a few strings, for one query in a hundred by default). A task of the worker asks
//! the candidate when the query is on its way; a candidate that is late holds up its worker for its deadline, and a few such failures
//! end the run.
//!
//! Invariant: nothing here changes where a query goes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use switchback_policy::split::{Decision, Snapshot};
use tokio::sync::Notify;

use super::head::Head;
use super::position::PositionKey;
use super::query::{self, Unit};
use super::seat::Configured;
use crate::policy::{PolicyFailure, ShadowRun};
use crate::quality::RouteCounters;

/// Notes that wait to be looked at; further ones are counted as skipped.
const NOTES: usize = 32;
/// All queries, in parts per million.
const ALL: u32 = 1_000_000;

/// One worker's part in a run.
pub(crate) struct Shadow {
    run: Arc<ShadowRun>,
    /// `None` after a failure, until the next note is looked at.
    configured: Option<Configured>,
    /// Grows by the share with each query; a query is sampled when it reaches [`ALL`].
    due: u32,
    notes: VecDeque<Note>,
    /// Wakes the task that looks at the notes.
    wake: Rc<Notify>,
}

/// A sampled query, as the candidate shall see it, and what was decided about it.
struct Note {
    live: Decision,
    positions: Vec<u32>,
    fields: Vec<Option<String>>,
}

impl Shadow {
    pub(crate) fn new(run: Arc<ShadowRun>, wake: Rc<Notify>, snapshot: &Snapshot, rollout: PositionKey) -> Shadow {
        let mut shadow = Shadow { run, configured: None, due: 0, notes: VecDeque::with_capacity(NOTES), wake };
        shadow.instantiate(snapshot, rollout);
        shadow
    }

    /// Takes new flags. Notes from before are let go: their decisions were taken under other flags.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot, rollout: PositionKey) {
        self.notes.clear();
        self.configured = None;
        self.instantiate(snapshot, rollout);
    }

    fn instantiate(&mut self, snapshot: &Snapshot, rollout: PositionKey) {
        if self.run.is_over() {
            return;
        }
        match self.run.instantiate(snapshot) {
            Ok((instance, wanted)) => self.configured = Some(Configured::new(instance, wanted, rollout)),
            Err(failure) => self.run.failed(&failure),
        }
    }

    /// Notes a decided query, if it is one of the sample.
    pub(crate) fn note(&mut self, live: Decision, unit: &Unit<'_>, head: &Head) {
        self.due = self.due.saturating_add(self.run.share.get());
        if self.due < ALL {
            return;
        }
        self.due -= ALL;
        self.take_note(live, unit, head);
    }

    #[cold]
    fn take_note(&mut self, live: Decision, unit: &Unit<'_>, head: &Head) {
        let Some(configured) = self.configured.as_ref().filter(|_| self.notes.len() < NOTES && !self.run.is_over()) else {
            return self.run.skip();
        };
        let positions = configured.keys.iter().map(|key| key.position(unit.bytes())).collect();
        let fields = configured.fields.iter().map(|field| query::field(head, field).map(Cow::into_owned)).collect();
        self.notes.push_back(Note { live, positions, fields });
        self.wake.notify_one();
    }

    /// Asks the candidate about the oldest note, and counts what it says. False when there is none.
    pub(crate) fn look_at_note(&mut self, snapshot: &Snapshot, rollout: PositionKey, counters: &RouteCounters) -> bool {
        let Some(note) = self.notes.pop_front() else { return false };
        if self.run.is_over() {
            self.notes.clear();
            return false;
        }
        match self.configured.as_mut().map(|configured| configured.ask(&note)) {
            Some(Ok(candidate)) => self.count(&note, candidate, counters),
            Some(Err(failure)) => {
                self.configured = None;
                self.run.failed(&failure);
                // Whatever waits was noted for the instance that is gone, and is as good for the next.
                self.instantiate(snapshot, rollout);
            }
            None => self.run.skip(),
        }
        true
    }

    fn count(&self, note: &Note, candidate: Decision, counters: &RouteCounters) {
        if self.run.count(note.live, candidate) {
            counters.shadow_agreed.increment();
            return;
        }
        counters.shadow_disagreed.increment();
        if let Some(configured) = &self.configured {
            self.run.keep_example([note.live, candidate], &note.positions, &configured.fields, &note.fields);
        }
    }
}

impl Configured {
    fn ask(&mut self, note: &Note) -> Result<Decision, PolicyFailure> {
        if let ([position], []) = (note.positions.as_slice(), self.fields.as_slice()) {
            return self.instance.route(*position);
        }
        let fields: Vec<Option<&str>> = note.fields.iter().map(Option::as_deref).collect();
        self.instance.route_fields(&note.positions, &fields)
    }
}
