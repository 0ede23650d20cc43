//! The thread that keeps every route on the policy that its flags name.
//!
//! It wakes when flags change, when the folder changes, when an admission is done, and once a second in case a change was
//! not announced. It never waits for an admission: flags that name a plugin which is there are obeyed at once.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::Watcher;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::catalogue::{Catalogue, Choice, Found, Trouble};
use super::folder::{Folder, Look, MOST_FILES, SETTLE};
use super::health::Patience;
use super::host_v0_rollback::RollbackProgram;
use super::in_force::SplitInForce;
use super::kept::Kept;
use super::rejection::Rejection;
use super::snapshot::snapshot;
use super::status::{PluginStatus, Refusal, now_unix_ms};
use super::workshop::{Done, Job, Outcome, Workshop};
use crate::config::{OnPolicyFailure, Route};
use crate::flags::{Flags, PolicyRef};

/// How often the folder is looked at although nothing was announced. A look is a `stat` for each plugin.
const POLL: Duration = Duration::from_secs(1);

/// What wakes the thread.
pub(super) enum Event {
    /// Flags or the folder changed.
    Changed,
    /// An admission is done.
    Done(Box<Done>),
    /// Somebody asks what a name means.
    Find(PolicyRef, oneshot::Sender<Choice>),
    /// The same, of a rollback policy.
    FindRollback(PolicyRef, oneshot::Sender<Choice<RollbackProgram>>),
    /// Somebody waits until the folder's file of this name, as it is by now, is taken in.
    TakeIn(String, oneshot::Sender<()>),
    /// The router ends.
    Stop,
}

/// A policy that failed on these flags need not be tried on them again.
pub(super) struct FailedTrial {
    digest: String,
    flags: Arc<Flags>,
    reason: String,
}

/// One route, as this thread sees it.
pub(super) struct RouteSlot {
    pub(super) route: Route,
    pub(super) flags: watch::Receiver<Arc<Flags>>,
    pub(super) in_force: watch::Sender<Arc<SplitInForce>>,
    /// The last policy that failed on this route's own flags.
    pub(super) failed_trial: Option<FailedTrial>,
    /// The flags, and the catalogue's revision, of when it was last given what they name.
    pub(super) settled: Option<(Arc<Flags>, u64)>,
}

impl RouteSlot {
    /// The policies that its flags name by digest.
    fn wanted_by_digest(&self) -> [Option<PolicyRef>; 2] {
        let flags = self.flags.borrow();
        [&flags.split_policy, &flags.rollback_policy].map(|wanted| wanted.digest.is_some().then(|| wanted.clone()))
    }

    /// Whether its flags name a policy so.
    fn names(&self, name: &str) -> bool {
        let flags = self.flags.borrow();
        flags.split_policy.name == name || flags.rollback_policy.name == name
    }

    fn is_settled(&self, flags: &Arc<Flags>, revision: u64) -> bool {
        self.settled.as_ref().is_some_and(|(known, at)| *at == revision && Arc::ptr_eq(known, flags))
    }
}

/// What [`super::Policies::status`] shows beside the policy in force itself.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteView {
    pub(super) wanted: String,
    pub(super) trouble: Option<Trouble>,
    pub(super) source: String,
    pub(super) since_unix_ms: u64,
    pub(super) refusals: Vec<Refusal>,
}

/// What the keeper writes, and the admin API and the judges read.
#[derive(Default)]
pub(super) struct Views {
    pub(super) routes: Vec<RouteView>,
    pub(super) plugins: Vec<PluginStatus>,
    /// As it was when the routes were last given what their flags name.
    pub(super) catalogue: Arc<Catalogue>,
}

/// The views of all routes and plugins.
pub(super) type Board = Arc<Mutex<Views>>;

/// The thread's state.
pub(super) struct Keeper {
    pub(super) catalogue: Catalogue,
    pub(super) folder: Folder,
    pub(super) dir: PathBuf,
    /// Names whose files wait for admission.
    pub(super) queue: VecDeque<String>,
    /// Names whose file was refused at start: what they meant before is looked for.
    pub(super) lost: Vec<String>,
    pub(super) workshop: Arc<Workshop>,
    pub(super) patience: Patience,
    pub(super) routes: Vec<RouteSlot>,
    pub(super) board: Board,
    /// Who waits for what to be taken in.
    pub(super) awaited: Vec<(String, oneshot::Sender<()>)>,
    pub(super) is_busy: bool,
    pub(super) is_settling: bool,
    /// Queries are served: what is in force has been of use.
    pub(super) is_serving: bool,
    /// The revision of the catalogue on the board.
    pub(super) published: Option<u64>,
}

impl Keeper {
    /// Puts what the flags name in force before the first query, as far as it is there.
    pub(super) fn start(&mut self) {
        let look = self.folder.look_at_start(Instant::now());
        self.take_in(look);
        while let Some(job) = self.next_job().filter(|job| self.is_wanted(job)) {
            let done = self.workshop.perform(job);
            self.record(done);
        }
        self.settle();
    }

    /// Runs until [`Event::Stop`].
    pub(super) fn run(mut self, events: &Receiver<Event>, wake: &SyncSender<Event>, jobs: &SyncSender<Job>) {
        let mut watcher = None;
        self.is_serving = true;
        loop {
            watcher = watcher.or_else(|| watch_folder(&self.dir, wake.clone()));
            let look = self.folder.look(Instant::now());
            self.take_in(look);
            self.settle();
            self.answer_awaited();
            self.hand_out(jobs);
            let wait = if self.is_settling { SETTLE } else { POLL };
            match events.recv_timeout(wait) {
                Ok(Event::Changed) => {}
                Ok(Event::Done(done)) => {
                    self.is_busy = false;
                    self.record(*done);
                }
                Ok(Event::Find(wanted, answer)) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(self.catalogue.choose(&wanted));
                }
                Ok(Event::FindRollback(wanted, answer)) => {
                    let mut choice = self.catalogue.choose(&wanted);
                    if in_keeping(&self.catalogue, self.workshop.kept.as_ref(), &wanted).is_some() {
                        choice.trouble = Some(Trouble::Admitting);
                    }
                    let _ = answer.send(choice);
                }
                Ok(Event::TakeIn(name, answer)) => self.awaited.push((name, answer)),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    // A folder that was removed and made again has to be watched anew.
                    if !self.dir.is_dir() {
                        watcher = None;
                    }
                }
            }
        }
    }

    fn take_in(&mut self, look: Look) {
        self.is_settling = look.is_settling;
        for name in look.gone {
            self.queue.retain(|queued| *queued != name);
            if let Some(kept) = &self.workshop.kept {
                kept.forget_last(&name);
            }
            self.catalogue.file_gone(&name);
        }
        for name in look.passed_over {
            let source = self.folder.path(&name).display().to_string();
            let reason = Rejection::Crowded { most: MOST_FILES }.to_string();
            tracing::warn!(plugin = name, source, "plugin refused: {reason}");
            self.catalogue.remember(Refusal { name, source, digest: None, reason, unix_ms: now_unix_ms() });
        }
        for (name, why) in look.not_files {
            let source = self.folder.path(&name).display().to_string();
            let reason = Rejection::Unreadable { reason: why.to_owned() }.to_string();
            tracing::warn!(plugin = name, source, "plugin refused: {reason}");
            self.catalogue.remember(Refusal { name, source, digest: None, reason, unix_ms: now_unix_ms() });
        }
        for name in look.changed {
            self.catalogue.file_waits(&name, self.folder.path(&name).display().to_string());
            if !self.queue.contains(&name) {
                self.queue.push_back(name);
            }
        }
    }

    /// The next thing to admit: what a route waits for first.
    fn next_job(&mut self) -> Option<Job> {
        let kept = self.workshop.kept.as_ref();
        for wanted in self.routes.iter().flat_map(RouteSlot::wanted_by_digest).flatten() {
            if let Some(digest) = in_keeping(&self.catalogue, kept, &wanted) {
                return Some(Job::Kept { name: wanted.name.clone(), digest: digest.clone(), is_last: false });
            }
        }
        while let Some(name) = self.lost.pop() {
            if let Some(digest) = kept.and_then(|kept| kept.last(&name)) {
                return Some(Job::Kept { name, digest, is_last: true });
            }
        }
        let urgent = self.queue.iter().position(|name| self.routes.iter().any(|slot| slot.names(name)));
        let name = self.queue.remove(urgent.unwrap_or(0))?;
        let path = self.folder.path(&name);
        // Also where an earlier state of the file was judged since it was queued.
        self.catalogue.file_waits(&name, path.display().to_string());
        Some(Job::File { path, name, known: self.catalogue.known() })
    }

    /// Tells those whose file was looked at after they asked, and judged: what the board says of it holds.
    fn answer_awaited(&mut self) {
        let Keeper { awaited, folder, queue, catalogue, .. } = self;
        for (name, answer) in std::mem::take(awaited) {
            let is_judged = folder.is_taken_up(&name) && !queue.contains(&name) && !catalogue.is_waiting(&name);
            if is_judged {
                // Whoever asked may be gone.
                let _ = answer.send(());
            } else {
                awaited.push((name, answer));
            }
        }
    }

    fn is_wanted(&mut self, job: &Job) -> bool {
        let Job::File { name, .. } = job else { return true };
        let is_wanted = self.routes.iter().any(|slot| slot.flags.borrow().split_policy.name == *name);
        if !is_wanted {
            self.queue.push_front(name.clone());
        }
        is_wanted
    }

    fn hand_out(&mut self, jobs: &SyncSender<Job>) {
        if self.is_busy {
            return;
        }
        let Some(job) = self.next_job() else { return };
        match jobs.try_send(job) {
            Ok(()) => self.is_busy = true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::error!("the thread that admits plugins is gone; no further plugin will be admitted");
            }
        }
    }

    fn record(&mut self, done: Done) {
        let refusal = |name: &str, source: String, rejection: &dyn std::fmt::Display| {
            let reason = rejection.to_string();
            tracing::warn!(plugin = name, source, digest = done.digest.as_deref().unwrap_or(""), "plugin refused: {reason}");
            Refusal { name: name.to_owned(), source, digest: done.digest.clone(), reason, unix_ms: now_unix_ms() }
        };
        let digest = done.digest.as_deref().unwrap_or("");
        match (done.job, done.outcome) {
            (Job::File { name, .. }, Outcome::Unsettled) => self.folder.offer_again(&name, Instant::now()),
            (Job::File { name, .. }, Outcome::Known) => {
                if self.catalogue.file_admitted(&name, digest, None) {
                    self.remember_last(&name, digest);
                } else {
                    self.folder.offer_again(&name, Instant::now());
                }
            }
            (Job::File { name, .. }, Outcome::Admitted(admitted)) => {
                tracing::info!(plugin = name, digest, decision_ns = admitted.report.decision_ns, "plugin admitted");
                self.catalogue.file_admitted(&name, digest, Some(*admitted));
                self.remember_last(&name, digest);
            }
            (Job::File { name, path, .. }, Outcome::Rejected(rejection)) => {
                self.catalogue.file_refused(refusal(&name, path.display().to_string(), &rejection));
                if self.catalogue.has_lost(&name) {
                    self.lost.push(name);
                }
            }
            (Job::Kept { name, digest, is_last }, Outcome::Admitted(admitted)) => {
                self.catalogue.kept_admitted(&digest, *admitted, is_last.then_some(&name));
            }
            (Job::Kept { name, digest, .. }, Outcome::Rejected(rejection)) => {
                self.catalogue.kept_refused(&digest, refusal(&name, "kept".to_owned(), &rejection));
            }
            (Job::Kept { .. }, Outcome::Unsettled | Outcome::Known) => {}
        }
    }

    fn remember_last(&self, name: &str, digest: &str) {
        if let Some(kept) = &self.workshop.kept {
            kept.remember_last(name, digest);
        }
    }

    /// Gives every route what its flags name, as far as it is there. One whose flags are those of the last time has it, unless the catalogue is another one.
    fn settle(&mut self) {
        let Keeper { catalogue, board, workshop, .. } = self;
        let (revision, kept) = (catalogue.revision(), workshop.kept.as_ref());
        let mut settled = Vec::new();
        for (place, slot) in self.routes.iter_mut().enumerate() {
            let flags = Arc::clone(&slot.flags.borrow());
            if slot.is_settled(&flags, revision) {
                continue;
            }
            let mut view = board.lock().unwrap_or_else(PoisonError::into_inner).routes.get(place).cloned().unwrap_or_default();
            let mut choice: Choice = catalogue.choose(&flags.split_policy);
            if in_keeping(catalogue, kept, &flags.split_policy).is_some() {
                choice.trouble = Some(Trouble::Admitting);
            }
            settle_route(slot, &mut view, (&flags, choice), self.patience, self.is_serving);
            view.refusals = catalogue.refusals(&flags.split_policy);
            slot.settled = Some((flags, revision));
            settled.push((place, view));
        }
        if !settled.is_empty() || self.published != Some(revision) {
            self.publish(settled);
        }
    }

    /// Forgets what nobody uses any more, and shows the rest.
    fn publish(&mut self, settled: Vec<(usize, RouteView)>) {
        let in_force = self.routes.iter().map(|slot| slot.in_force.borrow().digest.clone());
        let named = self.routes.iter().flat_map(RouteSlot::wanted_by_digest).flatten().filter_map(|wanted| wanted.digest);
        let in_use: HashSet<String> = in_force.chain(named).collect();
        self.catalogue.forget_unused(&in_use);
        let mut views = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, view) in settled {
            if let Some(known) = views.routes.get_mut(place) {
                *known = view;
            }
        }
        if self.published != Some(self.catalogue.revision()) {
            (views.plugins, views.catalogue) = (self.catalogue.plugins(), Arc::new(self.catalogue.clone()));
            self.published = Some(self.catalogue.revision());
        }
    }
}

/// The digest that a route wants, where it is among the kept plugins and has yet to be admitted.
pub(super) fn in_keeping<'a>(catalogue: &Catalogue, kept: Option<&Kept>, wanted: &'a PolicyRef) -> Option<&'a String> {
    wanted.digest.as_ref().filter(|digest| catalogue.lacks(digest) && kept.is_some_and(|kept| kept.has(digest)))
}

fn settle_route(slot: &mut RouteSlot, view: &mut RouteView, chosen: (&Arc<Flags>, Choice), patience: Patience, is_serving: bool) {
    let (flags, Choice { found, mut trouble }) = chosen;
    let wanted = &flags.split_policy;
    if let Some(Trouble::Refused(reason)) = trouble.as_ref().filter(|_| found.is_none() && trouble != view.trouble) {
        let (route, policy, in_force) = (&slot.route.name, wanted.to_string(), &slot.in_force.borrow().name);
        tracing::warn!(route, policy, in_force, "split policy not put in force: {reason}");
    }
    let in_force = Arc::clone(&slot.in_force.borrow());
    let is_new = |found: &Found| found.digest != in_force.digest || wanted.name != in_force.name;
    if let Some(found) = found.filter(is_new) {
        match try_on_route(slot, &found, flags, patience) {
            Ok(mut split) => {
                split.last_good = last_good(slot, &in_force, &found.digest, patience).filter(|_| is_serving);
                tracing::info!(
                    route = slot.route.name,
                    old = in_force.name,
                    old_digest = in_force.digest,
                    new = split.name,
                    new_digest = split.digest,
                    epoch = flags.epoch,
                    "policy in force changed"
                );
                view.source = found.source;
                view.since_unix_ms = now_unix_ms();
                slot.in_force.send_replace(Arc::new(split));
            }
            Err(reason) => trouble = Some(Trouble::Refused(reason)),
        }
    }
    view.wanted = wanted.to_string();
    view.trouble = trouble;
}

/// Who stands in for a policy with this digest: the one in force until now if nothing went wrong with it, else the one that stood in
/// for that. At most one is held, so that however many follow each other, two programs are.
fn last_good(slot: &RouteSlot, in_force: &SplitInForce, digest: &str, patience: Patience) -> Option<Arc<SplitInForce>> {
    if slot.route.on_policy_failure == OnPolicyFailure::Native {
        return None;
    }
    let previous = in_force.is_good().then(|| Arc::new(in_force.as_last_good(patience)));
    [previous, in_force.last_good.clone()].into_iter().flatten().find(|good| good.digest != digest)
}

/// The last check before a policy takes over: it takes this route's own flags.
fn try_on_route(slot: &mut RouteSlot, found: &Found, flags: &Arc<Flags>, patience: Patience) -> Result<SplitInForce, String> {
    // An edit that is obeyed and not adopted yet has no epoch of its own, so the flags themselves are compared.
    if let Some(failed) = &slot.failed_trial
        && failed.digest == found.digest
        && Arc::ptr_eq(&failed.flags, flags)
    {
        return Err(failed.reason.clone());
    }
    let name = &flags.split_policy.name;
    let split = SplitInForce::wasm(&slot.route.name, name, &found.digest, found.program.clone(), patience);
    match split.instantiate(&snapshot(&slot.route, flags)) {
        Ok(_) => {
            slot.failed_trial = None;
            Ok(split)
        }
        Err(failure) => {
            let reason = format!("with this route's flags, {failure}");
            tracing::warn!(route = slot.route.name, policy = name, digest = found.digest, "policy not put in force: {reason}");
            slot.failed_trial = Some(FailedTrial { digest: found.digest.clone(), flags: Arc::clone(flags), reason: reason.clone() });
            Err(reason)
        }
    }
}

/// Has the folder announce its changes; `None` where it cannot, and polling must do.
fn watch_folder(dir: &std::path::Path, wake: SyncSender<Event>) -> Option<notify::RecommendedWatcher> {
    let announce = move |event: notify::Result<notify::Event>| {
        let is_reading = matches!(&event, Ok(event) if event.kind.is_access());
        if !is_reading {
            // When the channel is full, the thread is awake anyway and looks at the folder.
            let _ = wake.try_send(Event::Changed);
        }
    };
    let mut watcher = notify::recommended_watcher(announce).ok()?;
    watcher.watch(dir, notify::RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}
