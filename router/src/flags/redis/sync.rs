//! The one task that talks to Redis: connect, track, read, judge, obey, write, report; and again when the connection is lost.
//!
//! ```text
//! connect -> tracking on -> read all -> wait for: an announcement, the poll, the heartbeat, a request -> read, judge, obey, write
//!    ^                                                            |
//!    +------------- back-off, 20 to 200 ms <---- connection lost, or no answer in time
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::copy_of;
use super::fleet::{FORGET_AFTER, Fleet, Report};
use super::link::{Address, Keys, Link, is_lost};
use crate::config::Route;
use crate::flags::copies::Copies;
use crate::flags::edit;
use crate::flags::identity::random_hex;
use crate::flags::judge::{Judge, Mine, Settled, Stored, Verdict, Write, settle, without_epoch};
use crate::flags::ledger::{Kind, difference, presentable};
use crate::flags::published::{Applied, Cause, Changed, Published, Source};
use crate::flags::{Change, ChangeError, Fields, Flags, HistoryError, LedgerEntry};
use crate::vocabulary::RouteIndex;

const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Short, so that flags are obeyed again well within two seconds of Redis's return.
const LONGEST_BACKOFF: Duration = Duration::from_millis(200);
/// Read, judge and write again so often when others write at the same time; then the next poll goes on.
const ROUNDS: usize = 16;
/// Routes read at once.
const READS_AT_ONCE: usize = 64;

/// What others ask of the task.
pub(super) enum Request {
    Change { route: usize, change: Change, reply: oneshot::Sender<Result<u64, ChangeError>> },
    History { route: usize, limit: usize, reply: oneshot::Sender<Result<Vec<LedgerEntry>, HistoryError>> },
}

pub(super) struct Sync {
    pub(super) published: Arc<Published>,
    pub(super) address: Address,
    pub(super) keys: Vec<Keys>,
    pub(super) mines: Vec<Mine>,
    pub(super) id: String,
    pub(super) incarnation: String,
    pub(super) admin: Arc<Mutex<String>>,
    pub(super) copies: Copies,
    pub(super) fleet: watch::Sender<Fleet>,
    /// What an operator should see to, by what it is about.
    pub(super) notes: BTreeMap<String, String>,
    pub(super) first_heard: Option<oneshot::Sender<()>>,
    /// An epoch was applied that no heartbeat has told yet.
    pub(super) is_report_due: bool,
}

/// Why a session ended.
enum End {
    Lost(RedisError),
    /// Nobody holds the store any more.
    Closed,
}

impl From<RedisError> for End {
    fn from(error: RedisError) -> End {
        End::Lost(error)
    }
}

impl Sync {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut backoff = FIRST_BACKOFF;
        let mut down_since: Option<Instant> = None;
        loop {
            let ended = match Link::connect(&self.address, &self.keys).await {
                Ok(link) => {
                    let ended = self.session(&link, &mut inbox, &mut down_since).await;
                    if down_since.is_none() {
                        backoff = FIRST_BACKOFF;
                    }
                    ended
                }
                Err(error) => End::Lost(error),
            };
            let End::Lost(error) = ended else { return };
            let why = explain(&error);
            if down_since.is_none() {
                tracing::warn!(store = self.address.name, why, "the flag store is away: the last known flags stay in force");
                down_since = Some(Instant::now());
            }
            if self.pause(backoff, &mut inbox, &why).await.is_none() {
                return;
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Waits before the next attempt; refuses what is asked meanwhile. `None` when nobody holds the store any more.
    async fn pause(&mut self, backoff: Duration, inbox: &mut mpsc::Receiver<Request>, why: &str) -> Option<()> {
        let until = Instant::now() + backoff;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Some(()),
                request = inbox.recv() => match request? {
                    Request::Change { reply, .. } => drop(reply.send(Err(ChangeError::Unreachable { why: why.to_owned() }))),
                    Request::History { reply, .. } => drop(reply.send(Err(HistoryError { why: why.to_owned() }))),
                },
            }
        }
    }

    async fn session(&mut self, link: &Link, inbox: &mut mpsc::Receiver<Request>, down_since: &mut Option<Instant>) -> End {
        match self.work(link, inbox, down_since).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }

    async fn work(&mut self, link: &Link, inbox: &mut mpsc::Receiver<Request>, down_since: &mut Option<Instant>) -> Result<(), End> {
        let all: Vec<usize> = (0..self.keys.len()).collect();
        self.sync_many(link, &all).await?;
        let away = down_since.take().map(|since| since.elapsed());
        tracing::info!(store = self.address.name, ?away, "the flag store is heard");
        if let Some(first_heard) = self.first_heard.take() {
            let _ = first_heard.send(());
        }
        self.check_eviction(link).await?;
        let state = self.published.config().state.clone();
        let mut poll = ticks(state.poll_interval);
        let mut heartbeat = ticks(state.heartbeat_interval);
        loop {
            if self.is_report_due {
                self.beat(link).await?;
            }
            tokio::select! {
                biased;
                () = link.signals.news() => {
                    if link.signals.is_gone() {
                        return Err(RedisError::from((ErrorKind::Io, "the connection was closed")).into());
                    }
                    let touched = link.signals.take_touched();
                    self.sync_many(link, &touched).await?;
                }
                request = inbox.recv() => match request {
                    Some(request) => self.answer(link, request).await?,
                    None => return Ok(()),
                },
                _ = poll.tick() => self.sync_many(link, &all).await?,
                _ = heartbeat.tick() => self.beat(link).await?,
            }
        }
    }

    async fn sync_many(&mut self, link: &Link, routes: &[usize]) -> RedisResult<()> {
        for chunk in routes.chunks(READS_AT_ONCE) {
            let reads = chunk.iter().filter_map(|route| Some(link.read(self.keys.get(*route)?)));
            let reads = futures_util::future::join_all(reads).await;
            for (route, read) in chunk.iter().zip(reads) {
                self.sync_route(link, *route, read).await?;
            }
        }
        Ok(())
    }

    /// Brings one route in step with the store: obeys, adopts, reseeds, until the store is sealed and in force here. Answers what the
    /// store holds then; `None` when it cannot be sealed (too large, not permitted, or others write all the time).
    async fn sync_route(&mut self, link: &Link, index: usize, first: RedisResult<Stored>) -> RedisResult<Option<Stored>> {
        let published = self.published.clone();
        let route_index = RouteIndex(u16::try_from(index).unwrap_or(u16::MAX));
        let (Some(route), Some(keys)) = (published.route(route_index), self.keys.get(index).cloned()) else { return Ok(None) };
        let mut read = first;
        for _ in 0..ROUNDS {
            let Some(stored) = self.noted(&route.name, read)? else { return Ok(None) };
            self.published.heard_now();
            let write = match self.verdict(link, index, route, &stored).await? {
                Verdict::Apply | Verdict::Tie => {
                    self.apply(link, index, route, &stored).await?;
                    return Ok(Some(stored));
                }
                Verdict::Obey { fields, adoption } => {
                    self.obey(index, route, &stored, fields);
                    let Some(write) = adoption else {
                        self.note(&route.name, Some(oversized(&keys.flags)));
                        return Ok(None);
                    };
                    write
                }
                Verdict::Reseed(write) => {
                    tracing::warn!(route = route.name, epoch = write.epoch, why = write.why, "writing the flags back to the store");
                    write
                }
            };
            match self.write(link, index, route, &stored, &write).await {
                Ok(Some(stored)) => return Ok(Some(stored)),
                Ok(None) => {}
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) => {
                    self.note(&route.name, Some(format!("the flags cannot be written: {}", explain(&error))));
                    return Ok(None);
                }
            }
            read = link.read(&keys).await;
        }
        link.signals.touch_index(index);
        Ok(None)
    }

    /// A read that the server refused concerns this route only: it is noted, and the last known flags stay in force.
    fn noted(&mut self, route: &str, read: RedisResult<Stored>) -> RedisResult<Option<Stored>> {
        match read {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if is_lost(&error) => Err(error),
            Err(error) => {
                self.note(route, Some(format!("the flags cannot be read: {}", explain(&error))));
                Ok(None)
            }
        }
    }

    async fn verdict(&self, link: &Link, index: usize, route: &Route, stored: &Stored) -> RedisResult<Verdict> {
        let (Some(mine), Some(keys)) = (self.mines.get(index), self.keys.get(index)) else { return Ok(Verdict::Apply) };
        let colours: Vec<&str> = ["blue", "green"].into_iter().filter(|colour| route.pool_named(colour).is_some()).collect();
        let judge = Judge { me: &self.id, colours: &colours, fresh_salt: &random_hex(16) };
        let verdict = judge.judge(stored, mine);
        if verdict != Verdict::Tie {
            return Ok(verdict);
        }
        let last = link.ledger(keys, 1).await?.first().map(|entry| entry.kind);
        Ok(match settle(last) {
            Settled::TheirsWins => Verdict::Apply,
            Settled::OursWins => Verdict::Reseed(judge.put_back(stored, mine)),
        })
    }

    /// Sealed flags are in force.
    async fn apply(&mut self, link: &Link, index: usize, route: &Route, stored: &Stored) -> RedisResult<()> {
        let epoch_before = self.mines.get(index).map_or(0, |mine| mine.epoch);
        let changed = self.put_in_force(index, route, &stored.fields, stored.fields.clone());
        self.note(&route.name, None);
        if let Some(changed) = changed {
            // Who and why are read only after the flags are in force: a flip does not wait for its log line.
            let epoch = changed.epoch;
            let cause = match self.keys.get(index) {
                Some(keys) if epoch > epoch_before => cause_of(link, keys, epoch).await?,
                _ => Cause::default(),
            };
            changed.log(&cause);
        }
        Ok(())
    }

    /// An edit by hand is in force, at the epoch that was in force before.
    fn obey(&mut self, index: usize, route: &Route, stored: &Stored, fields: Fields) {
        let changed = self.put_in_force(index, route, &without_epoch(&fields), stored.fields.clone());
        if let Some(changed) = changed {
            changed.log(&Cause { who: "external".to_owned(), why: "external edit".to_owned() });
        }
    }

    /// Reads the fields against the last good flags and publishes them. With an epoch among the fields they are the new `mine`.
    fn put_in_force(&mut self, index: usize, route: &Route, fields: &Fields, shown: Fields) -> Option<Changed> {
        let route_index = RouteIndex(u16::try_from(index).ok()?);
        let before = self.published.applied(route_index)?;
        let (known, faults) = Flags::read(fields, &before.known, route);
        let mine = self.mines.get_mut(index)?;
        let mine_before = mine.clone();
        mine.in_force = without_epoch(&known.render(route));
        if fields.contains_key("seal") {
            (mine.epoch, mine.seal) = (known.epoch, known.seal.clone());
            mine.sealed = mine.in_force.clone();
        }
        if *mine != mine_before || before.source == Source::Initial {
            self.copies.save(index, copy_of(route, mine, &self.address.name));
            self.is_report_due = true;
        }
        self.published.apply(route_index, Applied { fields: shown, known, faults, source: Source::Redis })
    }

    /// One atomic write. What was written is in force here when it returns; `None` when the store no longer held what was judged.
    async fn write(&mut self, link: &Link, index: usize, route: &Route, stored: &Stored, write: &Write) -> RedisResult<Option<Stored>> {
        let Some(keys) = self.keys.get(index) else { return Ok(None) };
        let (kind, who, why) = (write.kind, write.who.clone(), write.why.clone());
        let entry = LedgerEntry { epoch: write.epoch, time_ms: 0, kind, who, why, what: presentable(write.what.clone()) };
        let Some(seal) = link.write(keys, &stored.fields, write, &entry).await? else { return Ok(None) };
        let mut fields = write.fields.clone();
        fields.insert("epoch".to_owned(), write.epoch.to_string());
        fields.insert("seal".to_owned(), seal.clone());
        let changed = self.put_in_force(index, route, &fields, fields.clone());
        self.note(&route.name, None);
        if let Some(changed) = changed {
            changed.log(&Cause { who: entry.who, why: entry.why });
        }
        if write.kind == Kind::ExternalEdit {
            tracing::info!(route = route.name, epoch = write.epoch, "adopted an external edit");
        }
        Ok(Some(Stored { fields, content: seal, base: Fields::new(), is_oversized: false }))
    }

    async fn answer(&mut self, link: &Link, request: Request) -> RedisResult<()> {
        match request {
            // Whoever asked has given up, and was told that nothing is known: so nothing is done.
            Request::Change { reply, .. } if reply.is_closed() => Ok(()),
            Request::Change { route, change, reply } => {
                let (answer, lost) = match self.change(link, route, &change).await {
                    Ok(answer) => (answer, None),
                    Err(error) => (Err(ChangeError::Unreachable { why: explain(&error) }), Some(error)),
                };
                let unanswered = matches!(answer, Err(ChangeError::Unanswered { .. }));
                let _ = reply.send(answer);
                match lost {
                    Some(error) => Err(error),
                    None if unanswered => Err((ErrorKind::Io, "a write was not answered").into()),
                    None => Ok(()),
                }
            }
            Request::History { route, limit, reply } => {
                let Some(keys) = self.keys.get(route) else { return Ok(()) };
                let answer = link.ledger(keys, limit).await;
                let lost = answer.as_ref().err().filter(|error| is_lost(error)).cloned();
                let _ = reply.send(answer.map_err(|error| HistoryError { why: explain(&error) }));
                lost.map_or(Ok(()), Err)
            }
        }
    }

    /// The outer error is a connection lost before anything was written.
    async fn change(&mut self, link: &Link, index: usize, change: &Change) -> RedisResult<Result<u64, ChangeError>> {
        let published = self.published.clone();
        let route_index = RouteIndex(u16::try_from(index).unwrap_or(u16::MAX));
        let (Some(route), Some(keys)) = (published.route(route_index), self.keys.get(index).cloned()) else {
            return Ok(Err(ChangeError::NotSaved { why: "there is no such route".to_owned() }));
        };
        for _ in 0..ROUNDS {
            let first = link.read(&keys).await;
            let Some(stored) = self.sync_route(link, index, first).await? else {
                let why = self.notes.get(&route.name).cloned().unwrap_or_else(|| "others write to it all the time".to_owned());
                return Ok(Err(ChangeError::NotSaved { why }));
            };
            let found = stored.sealed_epoch().unwrap_or(0);
            if let Some(expected) = change.expected_epoch.filter(|expected| *expected != found) {
                return Ok(Err(ChangeError::Conflict { expected, found }));
            }
            let write = match self.prepare(&stored, found, change, route) {
                Ok(write) => write,
                Err(error) => return Ok(Err(error)),
            };
            match self.write(link, index, route, &stored, &write).await {
                Ok(Some(_)) => return Ok(Ok(write.epoch)),
                Ok(None) => {}
                Err(error) if is_lost(&error) => return Ok(Err(ChangeError::Unanswered { why: explain(&error) })),
                Err(error) => return Ok(Err(ChangeError::NotSaved { why: explain(&error) })),
            }
        }
        Ok(Err(ChangeError::NotSaved { why: "others write to it all the time".to_owned() }))
    }

    fn prepare(&self, stored: &Stored, found: u64, change: &Change, route: &Route) -> Result<Write, ChangeError> {
        let index = self.published.config().routes.iter().position(|other| other.name == route.name).unwrap_or(usize::MAX);
        let applied = self.published.applied(RouteIndex(u16::try_from(index).unwrap_or(u16::MAX)));
        let known = applied.map_or_else(|| Flags::initial(route), |applied| applied.known.clone());
        let fields = edit::apply(&stored.fields, change, &known, route).map_err(ChangeError::Invalid)?;
        Ok(Write {
            expected_content: stored.content.clone(),
            expected_seal: stored.fields.get("seal").cloned().unwrap_or_default(),
            what: difference(&stored.fields, &fields),
            fields: without_epoch(&fields),
            epoch: found + 1,
            kind: Kind::Change,
            who: change.who.clone(),
            why: change.why.clone(),
        })
    }

    async fn beat(&mut self, link: &Link) -> RedisResult<()> {
        self.is_report_due = false;
        let report = self.report();
        let text = serde_json::to_string(&report).unwrap_or_default();
        match link.beat(&self.id, &text, FORGET_AFTER).await {
            Ok(beat) => {
                let before: Option<Report> = serde_json::from_str(&beat.before).ok();
                let heard = Instant::now();
                let is_twice = before.is_some_and(|before| before.incarnation != self.incarnation) && self.fleet.borrow().is_heard();
                let note = format!("another router reports under the id {:?}: give each a state.router_id of its own", self.id);
                self.note("heartbeat", is_twice.then_some(note));
                self.fleet.send_replace(Fleet::new(beat, heard));
                Ok(())
            }
            Err(error) if is_lost(&error) => Err(error),
            Err(error) => {
                self.note("heartbeat", Some(format!("this router cannot report itself: {}", explain(&error))));
                Ok(())
            }
        }
    }

    fn report(&self) -> Report {
        let routes = &self.published.config().routes;
        let applied = routes.iter().enumerate().filter_map(|(index, route)| {
            let flags = self.published.flags(RouteIndex(u16::try_from(index).ok()?))?;
            Some((route.name.clone(), (flags.epoch, flags.seal.clone())))
        });
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { incarnation: self.incarnation.clone(), admin, routes: applied.collect() }
    }

    async fn check_eviction(&mut self, link: &Link) -> RedisResult<()> {
        let note = match link.eviction_policy().await {
            Ok(Some(policy)) if policy != "noeviction" => Some(format!(
                "{} has maxmemory-policy {policy}: when memory runs out it may drop flags; set it to noeviction",
                self.address.name
            )),
            Err(error) if is_lost(&error) => return Err(error),
            _ => None,
        };
        self.note("eviction", note);
        Ok(())
    }

    /// Keeps what an operator should see to; a new note is logged once, by [`Published::set_warnings`].
    fn note(&mut self, about: &str, note: Option<String>) {
        let before = self.notes.get(about).cloned();
        match &note {
            Some(note) => self.notes.insert(about.to_owned(), note.clone()),
            None => self.notes.remove(about),
        };
        if before != note {
            let show = |(about, note): (&String, &String)| format!("{about}: {note}");
            self.published.set_warnings(self.notes.iter().map(show).collect());
        }
    }
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn cause_of(link: &Link, keys: &Keys, epoch: u64) -> RedisResult<Cause> {
    match link.ledger(keys, 8).await {
        Ok(entries) => {
            let entry = entries.into_iter().find(|entry| entry.epoch == epoch);
            Ok(entry.map(|entry| Cause { who: entry.who, why: entry.why }).unwrap_or_default())
        }
        Err(error) if is_lost(&error) => Err(error),
        Err(_) => Ok(Cause::default()),
    }
}

fn oversized(key: &str) -> String {
    format!(
        "the hash {key} has more than {} fields or {} bytes: its known fields are obeyed, but it cannot be adopted or changed; HDEL what does \
         not belong there",
        edit::HASH_FIELDS,
        edit::HASH_BYTES
    )
}

/// An error in words that say what to do.
fn explain(error: &RedisError) -> String {
    let hint = match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => "; the ACL user needs the keys and commands listed in docs/FLAGS.md",
        ErrorKind::Server(ServerErrorKind::ReadOnly) => "; state.url must name the primary, not a replica",
        ErrorKind::AuthenticationFailed => "; check the user and password in state.url",
        _ if error.code() == Some("WRONGTYPE") => "; the key holds something else than a hash: DEL it, and it is written anew",
        _ => "",
    };
    format!("{error}{hint}")
}
