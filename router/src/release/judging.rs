//! The tasks that judge: one for each route, each second, on the control thread's runtime; less often where there is nothing to judge.
//!
//! Every router has one and reads the record; the one that is named in it judges. When that has not been heard for a few seconds, whoever
//! notices goes on from the record. Two at once do no harm: a record is replaced only by who knows the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::announcer::Announcer;
use super::board::{Board, RouteBoard};
use super::breaker::Breakers;
use super::controller::Controller;
use super::cursor::{Sealed, due, is_nothing_due};
use super::experiments::judging::{ExperimentsJudge, Look};
use super::fill::Pair;
use super::history::History;
use super::judge::{InForce, Judged, Slice};
use super::kept::{Kept as _, RECORD_BYTES};
use super::log::WindowLog;
use super::record::{Record, Revision, Word};
use super::roles::{Arm, Setting};
use super::sight::Sight;
use super::store::{FleetWindows, fleet_windows};
use super::under::Under;
use super::view::{self, JudgeView};
use crate::config::{Config, Route};
use crate::flags::{self, FlagStore, Flags};
use crate::quality::pages::page_of;
use crate::quality::{Books, FleetClock};
use crate::vocabulary::RouteIndex;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// How often where there is nothing to judge: other flags are looked at within a second all the same.
const REST_EVERY: Duration = Duration::from_secs(5);
/// A judge that was not heard for so long is taken to be gone.
const TAKE_OVER: Duration = Duration::from_secs(3);
/// After the store was away, every router has told it again by then.
const SETTLE: Duration = Duration::from_secs(4);

/// No record is of a later revision when a router first sees it.
const FIRST_REVISION: u64 = 1 << 47;
/// Nor so much later than the last one that it saw.
const REVISION_JUMP: u64 = 1 << 32;

/// What is the same for every route and config.
#[derive(Clone)]
struct ThisRouter {
    under: watch::Receiver<Arc<Under>>,
    /// This process, and no other.
    me: String,
    /// This router's id.
    router: String,
    books: Arc<Books>,
    clock: FleetClock,
    board: Board,
    log: WindowLog,
}

/// The tasks.
pub struct Judging {
    this: ThisRouter,
    newest: watch::Sender<Arc<Under>>,
    tasks: BTreeMap<String, JoinHandle<()>>,
    breakers: JoinHandle<()>,
    controller: JoinHandle<()>,
    announcer: Announcer,
}

impl Judging {
    /// Starts the tasks on the current runtime. Judged windows are logged in `data_dir`.
    ///
    /// # Errors
    /// When there is no thread for the log.
    pub fn start(under: Under, books: Arc<Books>, clock: FleetClock, data_dir: &Path) -> std::io::Result<Judging> {
        let router = flags::router_id(&under.config);
        let newest = watch::Sender::new(Arc::new(under));
        let (board, log) = (Board::default(), WindowLog::start(data_dir)?);
        let breakers = Breakers::new(newest.subscribe(), clock.clone(), board.clone(), data_dir);
        let controller = Controller::new(newest.subscribe(), router.clone(), clock.clone(), board.clone());
        board.put_targets(&newest.borrow().targets);
        let announcer = Announcer::start(&newest.subscribe(), &router);
        let this = ThisRouter { under: newest.subscribe(), me: flags::random_id(), router, books, clock, board, log };
        let mut judging = Judging {
            this,
            newest,
            tasks: BTreeMap::new(),
            breakers: tokio::spawn(breakers.run()),
            controller: tokio::spawn(controller.run()),
            announcer,
        };
        judging.start_missing();
        Ok(judging)
    }

    /// What is known, for whoever shows it.
    #[must_use]
    pub fn board(&self) -> Board {
        self.this.board.clone()
    }

    /// Goes on under another config.
    pub fn succeed(&mut self, under: Under) {
        self.newest.send_replace(Arc::new(under));
        self.this.board.put_targets(&self.newest.borrow().targets);
        // What was under way is begun anew, with the same id.
        self.announcer = Announcer::start(&self.newest.subscribe(), &self.this.router);
        self.tasks.retain(|_, task| !task.is_finished());
        self.start_missing();
    }

    fn start_missing(&mut self) {
        let under = self.newest.borrow().clone();
        let names: BTreeSet<&str> = under.config.routes.iter().map(|route| route.name.as_str()).collect();
        // A task whose route is gone ends when it sees that; one of that name may be wanted again before.
        self.tasks.retain(|name, task| names.contains(name.as_str()) || task.is_finished());
        for name in names {
            self.tasks.entry(name.to_owned()).or_insert_with(|| tokio::spawn(run(name.to_owned(), self.this.clone())));
        }
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        self.tasks.values().chain([&self.breakers, &self.controller]).for_each(JoinHandle::abort);
    }
}

/// Judges a route for as long as there is one, whatever happens to the task: it begins anew from the record.
async fn run(route: String, this: ThisRouter) {
    while AssertUnwindSafe(RouteJudge::new(&route, this.clone()).run()).catch_unwind().await.is_err() {
        tracing::error!(route, "the task that judges ended badly; it begins anew from what the store has");
        tokio::time::sleep(EVERY).await;
    }
}

/// A record as the store had it.
struct Held {
    revision: u64,
    record: Record,
}

/// A record that was sent, and not heard to be kept; and what was judged in it.
struct Sent {
    revision: u64,
    began: u32,
    judged: Vec<Judged>,
}

/// One route's task.
struct RouteJudge {
    route: String,
    this: ThisRouter,
    sight: Sight,
    held: Option<Held>,
    /// The revision that the store had, the last time.
    stored: Revision,
    /// When the record last changed, as this router saw it.
    changed: Instant,
    /// Since when the store has answered without a break.
    steady: Instant,
    sent: Option<Sent>,
    in_force: InForce,
    history: History,
    experiments: ExperimentsJudge,
    away: Option<String>,
    faults: Vec<String>,
    /// The next look.
    next: Instant,
    /// Nothing was due at the last look, nor can be by the flags that were seen.
    is_nothing_due: bool,
}

impl RouteJudge {
    fn new(route: &str, this: ThisRouter) -> RouteJudge {
        let now = Instant::now();
        RouteJudge {
            route: route.to_owned(),
            sight: Sight::new(this.clock.clone()),
            this,
            held: None,
            stored: 0,
            changed: now,
            steady: now,
            sent: None,
            in_force: InForce::native(),
            history: History::default(),
            experiments: ExperimentsJudge::default(),
            away: None,
            faults: Vec::new(),
            next: now,
            is_nothing_due: false,
        }
    }

    async fn run(mut self) {
        loop {
            let under = self.this.under.borrow_and_update().clone();
            let place = under.config.routes.iter().position(|route| route.name == self.route);
            let Some((index, route)) = place.and_then(|place| Some((u16::try_from(place).ok()?, under.config.routes.get(place)?))) else {
                self.this.board.forget(&self.route);
                return;
            };
            let mut flags = under.flags.watch_stored(RouteIndex(index));
            flags.mark_changed();
            loop {
                tokio::select! {
                    changed = flags.changed() => {
                        if changed.is_err() {
                            break;
                        }
                        self.sight.change(&flags.borrow_and_update(), route);
                        self.next = self.next.min(Instant::now() + EVERY);
                    }
                    () = sleep_until(self.next) => {
                        let newest = flags.borrow().clone();
                        self.sight.look(&newest, route, &under.flags.routers(RouteIndex(index)));
                        self.tick(&under, (RouteIndex(index), route), &newest).await;
                        let every = if self.rests(&under.flags, &newest) { REST_EVERY } else { EVERY };
                        let (next, now) = (self.next + every, Instant::now());
                        self.next = if next > now { next } else { now + every };
                    }
                    changed = self.this.under.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Whether there is nothing to look at before the flags change. Where there are other routers, the store is looked at each second: whether it was away counts.
    fn rests(&self, store: &FlagStore, flags: &Flags) -> bool {
        let has_experiments = flags.experiments.as_ref().is_some_and(|all| !all.experiments.is_empty());
        !store.has_others() && self.away.is_none() && self.is_nothing_due && !has_experiments && self.history.comparison.is_none()
    }

    async fn tick(&mut self, under: &Under, (index, route): (RouteIndex, &Route), flags: &Flags) {
        self.in_force.follow(&under.policies, &flags.rollback_policy);
        match self.look(&under.flags).await {
            Ok(stored) => {
                if let Some(why) = self.judge(under, route, stored).await.err() {
                    self.lost(why);
                } else {
                    self.away = None;
                }
            }
            Err(why) => self.lost(why),
        }
        self.look_at_experiments(under, (index, route), flags).await;
        self.compare_with_history(under, route, flags).await;
        self.publish(route, under);
    }

    /// The store is away, or was: what others told it is not all there yet.
    fn lost(&mut self, why: String) {
        self.steady = Instant::now();
        if self.away.is_none() {
            tracing::warn!(route = self.route, why, "nothing is judged while the store is away");
        }
        self.away = Some(why);
    }

    /// Reads the record, and takes it if it is newer than the one that is known.
    async fn look(&mut self, store: &FlagStore) -> Result<Revision, String> {
        let stored = store.evidence(&self.route).await?;
        let revision = stored.as_ref().map_or(0, |(revision, _)| *revision);
        if revision < std::mem::replace(&mut self.stored, revision) {
            // A failover lost what was kept since, and may have lost windows. What is known here is not lost.
            self.steady = Instant::now();
        }
        let known = self.held.as_ref().map_or(0, |held| held.revision);
        if !self.is_plausible(revision) {
            self.blame(format!("revision {revision} is far beyond what any router counted"));
        } else if let Some((_, bytes)) = stored.filter(|_| revision > known) {
            match Record::read(&bytes) {
                Ok(record) => self.take(Held { revision, record }),
                Err(fault) => self.blame(fault.to_string()),
            }
        }
        Ok(revision)
    }

    /// What the store has is nobody's.
    fn blame(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            tracing::error!(route = self.route, fault, "the evidence in the store is none; it is replaced");
            self.faults = vec![fault];
        }
    }

    /// Whether routers can have counted so far: one that writes each second takes a century for a jump like this.
    fn is_plausible(&self, revision: Revision) -> bool {
        let known = self.held.as_ref().map(|held| held.revision);
        known.map_or(revision <= FIRST_REVISION, |known| revision <= known.saturating_add(REVISION_JUMP))
    }

    /// Above whatever a router has seen.
    fn next_revision(&self, known: Revision, stored: Revision) -> Revision {
        if self.is_plausible(stored) { known.max(stored).saturating_add(1) } else { known.saturating_add(1) }
    }

    fn take(&mut self, held: Held) {
        self.changed = Instant::now();
        if let Some(sent) = self.sent.take_if(|sent| sent.revision == held.revision && held.record.judge == self.this.me) {
            self.log(sent.began, sent.judged);
        }
        self.held = Some(held);
    }

    fn log(&self, began: u32, judged: Vec<Judged>) {
        let log_bytes = self.this.under.borrow().config.evidence.log_bytes;
        self.this.log.write(&self.route, began, log_bytes, judged);
    }

    fn is_judge(&self, has_others: bool) -> bool {
        match &self.held {
            Some(held) if held.record.judge != self.this.me => !has_others || self.changed.elapsed() >= TAKE_OVER,
            Some(_) | None => true,
        }
    }

    fn sealed(&self, config: &Config) -> Sealed {
        Sealed::at(self.this.clock.now_ms(), config.evidence.traffic_seal, config.evidence.maturity)
    }

    fn is_nothing_due(&self, sealed: Sealed) -> bool {
        let Some(Held { record, .. }) = &self.held else { return is_nothing_due(None, 0, &self.sight.timeline, sealed) };
        let mut timeline = record.timeline.clone();
        timeline.follow(&self.sight.timeline, record.at_ms);
        is_nothing_due(record.comparison.as_ref(), record.next_second, &timeline, sealed)
    }

    /// Judges what is due, if it is this router's turn.
    async fn judge(&mut self, under: &Under, route: &Route, stored: Revision) -> Result<(), String> {
        self.is_nothing_due = self.is_nothing_due(self.sealed(&under.config));
        if self.is_nothing_due {
            return Ok(());
        }
        let has_others = under.flags.has_others();
        if !self.is_judge(has_others) || (has_others && self.steady.elapsed() < SETTLE) {
            return Ok(());
        }
        let (known, mut record) = self.held.as_ref().map_or_else(Default::default, |held| (held.revision, held.record.clone()));
        let (said, was_over) = record.comparison.as_ref().map_or((None, true), |before| (before.verdict(), before.is_over));
        record.timeline.follow(&self.sight.timeline, record.at_ms);
        let due = due(&mut record, self.sealed(&under.config));
        let Some(comparison) = record.comparison.take() else { return Ok(()) };
        if due.is_empty() && comparison.is_over == was_over {
            return Ok(());
        }
        let numbers: BTreeSet<u64> = due.iter().map(|due| page_of(due.second)).collect();
        let heard = fleet_windows(&under.flags, &self.route, numbers).await?;
        if heard.may_have_lost {
            return Err("it was connected to anew: the other routers tell it again what they counted".to_owned());
        }
        let (candidate, control) = (comparison.arms.candidate.ids(route), comparison.arms.control.ids(route));
        let slices = due.into_iter().map(|due| {
            let candidate: &[u32] = if due.is_lead_in { &[] } else { &candidate };
            let pair = Pair::of(heard.windows.get(&due.second), candidate, &control);
            Slice { due, pair }
        });
        let began = comparison.began;
        let comparison = comparison.of_policy(&self.in_force.name, &self.route);
        let Some((comparison, judged)) = self.in_force.judge(&route.rollback_config, comparison, slices.collect()).await else {
            return Ok(());
        };
        (record.judge, record.router, record.at_ms) = (self.this.me.clone(), self.this.router.clone(), self.this.clock.now_ms());
        let word = comparison.verdict();
        record.comparison = Some(comparison);
        self.replace(under, record, (stored, self.next_revision(known, stored)), (began, judged)).await?;
        self.hear_faults(heard);
        self.say(word, said, route);
        Ok(())
    }

    async fn replace(
        &mut self,
        under: &Under,
        record: Record,
        (replaces, revision): (Revision, Revision),
        (began, judged): (u32, Vec<Judged>),
    ) -> Result<(), String> {
        let bytes = record.write();
        if bytes.len() > RECORD_BYTES {
            return Err(format!("the evidence has {} bytes; {RECORD_BYTES} at most are kept", bytes.len()));
        }
        self.sent = Some(Sent { revision, began, judged });
        // A record that another one replaced meanwhile is read in a second.
        if under.flags.replace_evidence(&self.route, replaces, revision, &bytes).await? {
            self.take(Held { revision, record });
        } else {
            self.sent = None;
        }
        Ok(())
    }

    fn hear_faults(&mut self, heard: FleetWindows) {
        if let Some(fault) = heard.faults.first().filter(|_| self.faults.is_empty()) {
            tracing::warn!(route = self.route, fault, "what a router told the store cannot be read, and is left out");
        }
        self.faults = heard.faults;
    }

    /// A verdict that is another one than before is logged.
    fn say(&self, word: Option<Word>, before: Option<Word>, route: &Route) {
        let Some((held, word)) = self.held.as_ref().zip(word).filter(|(_, word)| Some(*word) != before) else { return };
        let Some(comparison) = &held.record.comparison else { return };
        let summary = comparison.said.as_ref().map(|said| said.summary.as_str()).unwrap_or_default();
        let (candidate, control) = (&comparison.arms.candidate.version, &comparison.arms.control.version);
        let (verdict, observe_only) = (word.label(), route.is_observed_only);
        match word {
            Word::RollBack => tracing::warn!(route = self.route, verdict, candidate, control, observe_only, "{summary}"),
            Word::Advance | Word::Hold | Word::NoData => {
                tracing::info!(route = self.route, verdict, candidate, control, observe_only, "{summary}");
            }
        }
    }

    /// Whatever becomes of experiments, the candidate is judged.
    async fn look_at_experiments(&mut self, under: &Under, (index, route): (RouteIndex, &Route), flags: &Flags) {
        let look = Look {
            store: &under.flags,
            index,
            route,
            flags,
            clock: &self.this.clock,
            sealed: self.sealed(&under.config),
            is_settled: self.steady.elapsed() >= SETTLE,
            me: &self.this.me,
            router: &self.this.router,
            maturity: under.config.evidence.maturity,
        };
        match self.experiments.tick(&look).await {
            Ok(None) => {}
            Ok(Some(known)) => self.this.board.put_experiments(&self.route, known),
            Err(why) => self.lost(why),
        }
    }

    /// Without a candidate, the live model is compared with itself.
    async fn compare_with_history(&mut self, under: &Under, route: &Route, flags: &Flags) {
        if Setting::of(flags, route).arms.is_some() || flags.pin.is_some() {
            self.history.end();
            return;
        }
        let Some(pool) = route.pools.get(flags.live.get()) else { return };
        let live = Arm { version: pool.version.clone(), pool: Some(pool.name.clone()) };
        let lag = u32::try_from(under.config.evidence.history.as_secs()).unwrap_or(u32::MAX);
        let sealed = self.sealed(&under.config);
        let slices = match self.this.books.lock().get(&self.route) {
            Some(book) => self.history.due(&live, route, &book.windows, (sealed, lag)),
            None => return,
        };
        if slices.is_empty() {
            return;
        }
        let Some(comparison) = self.history.comparison.take() else { return };
        let comparison = comparison.of_policy(&self.in_force.name, &self.route);
        let judged = self.in_force.judge(&route.rollback_config, comparison, slices).await;
        let Some((comparison, _)) = judged else { return };
        let is_worse = comparison.verdict() == Some(Word::RollBack);
        if is_worse && !std::mem::replace(&mut self.history.has_alerted, is_worse) {
            let summary = comparison.said.as_ref().map(|said| said.summary.as_str()).unwrap_or_default();
            let version = &live.version;
            tracing::warn!(
                route = self.route,
                version,
                seconds_ago = lag,
                "the live model is worse than it was; nothing acts on this: {summary}"
            );
        }
        self.history.comparison = Some(comparison);
    }

    fn publish(&self, route: &Route, under: &Under) {
        let lag = u32::try_from(under.config.evidence.history.as_secs()).unwrap_or(u32::MAX);
        let record = self.held.as_ref().map(|held| &held.record);
        let evidence = record.and_then(|record| Some(view::evidence(record.comparison.as_ref()?, record, route)));
        let InForce { name, digest, source, why, .. } = &self.in_force;
        let judge = JudgeView { name: name.clone(), digest: digest.clone(), source: source.clone(), why: why.clone() };
        let history = self.history.comparison.as_ref().map(|comparison| view::history(comparison, lag));
        let board = RouteBoard { evidence, history, judge, away: self.away.clone(), faults: self.faults.clone() };
        self.this.board.put(&self.route, board);
    }
}
