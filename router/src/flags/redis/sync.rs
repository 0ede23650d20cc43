//! The one task that decides what is asked of Redis: connect, track, read, judge, obey, write, report; and again when the connection is lost.
//!
//! ```text
//! connect -> tracking on -> read all -> wait for: an announcement, the poll, the heartbeat, a request -> step (read, judge, obey, write)
//!    ^                                                            |
//!    +------------- back-off, 20 to 200 ms <---- connection lost, or no answer in time
//! ```
//!
//! Tracking is on before the first read of each connection, and marks are taken before the read that answers them, so no change falls
//! between two reads; the poll is there for what a broken network swallows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::clock::{FleetTime, Known};
use super::fleet::Fleet;
use super::keys::Keys;
use super::link::{Link, is_lost};
use super::session::{Session, Way};
use super::succeed::Succession;
use crate::config::Config;
use crate::flags::copies::Copies;
use crate::flags::disk::Disk;
use crate::flags::embedded::HANDING_OVER;
use crate::flags::judge::Mine;
use crate::flags::published::Published;
use crate::flags::{Change, ChangeError, FlagsError, HistoryError, LedgerEntry};
use crate::vocabulary::RouteIndex;

const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Short, so that flags are obeyed again well within two seconds of Redis's return.
const LONGEST_BACKOFF: Duration = Duration::from_millis(200);
/// After this the other routers have mostly reported an epoch that this one has just applied.
const HEAR_OTHERS_AFTER: Duration = Duration::from_millis(100);
/// Routes read at once.
const READS_AT_ONCE: usize = 64;

/// What others ask of the task.
pub(super) enum Request {
    Change {
        asked_of: Arc<Published>,
        route: RouteIndex,
        change: Change,
        reply: oneshot::Sender<Result<u64, ChangeError>>,
    },
    History {
        asked_of: Arc<Published>,
        route: RouteIndex,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<LedgerEntry>, HistoryError>>,
    },
    /// Another config is in force from now on.
    Succeed {
        config: Arc<Config>,
        reply: oneshot::Sender<Result<Succession, FlagsError>>,
    },
    /// The data folder is this process's from now on, or no longer.
    SetOwner {
        is_owner: bool,
        reply: oneshot::Sender<()>,
    },
}

/// Why the work on one connection ended, when it was not lost.
enum Ended {
    /// Nobody holds the store any more.
    Abandoned,
    /// Another config is in force.
    Succeeded,
}

/// The task's state.
pub(super) struct Sync {
    pub(super) published: Arc<Published>,
    pub(super) way: Way,
    /// By route.
    pub(super) keys: Vec<Keys>,
    /// By route.
    pub(super) mines: Vec<Mine>,
    pub(super) id: String,
    pub(super) incarnation: String,
    pub(super) admin: Arc<Mutex<String>>,
    pub(super) copies: Copies,
    pub(super) disk: Disk,
    /// The data folder is this process's: copies are written, and this router is reported.
    pub(super) is_owner: bool,
    pub(super) fleet: watch::Sender<Fleet>,
    /// What is known of the fleet's clock, and what the others here see of it.
    pub(super) time: Known,
    pub(super) clock: watch::Sender<Option<FleetTime>>,
    /// What an operator should see to, by what it is about.
    pub(super) notes: BTreeMap<String, String>,
    /// Servers whose eviction policy was looked at.
    pub(super) asked: Vec<Weak<Link>>,
    /// The server that has each route's flags, by route; `None` while it is away.
    pub(super) nodes: watch::Sender<Vec<Option<String>>>,
    pub(super) first_heard: Option<oneshot::Sender<()>>,
    /// An epoch was applied that no heartbeat has told yet.
    pub(super) is_report_due: bool,
}

impl Sync {
    /// Runs until nobody holds the sender of `inbox`.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let ended = match Session::connect(&self.way, &self.keys).await {
                Ok(session) => self.work(&session, &mut inbox).await,
                Err(error) => Err(error),
            };
            let error = match ended {
                Ok(Ended::Abandoned) => return,
                // The keys are others now, and announced on a connection that knows them.
                Ok(Ended::Succeeded) => continue,
                Err(error) => error,
            };
            self.nodes.send_replace(Vec::new());
            if !self.notes.contains_key("store") {
                backoff = FIRST_BACKOFF;
            }
            let why = explain(&error);
            self.note("store", Some(format!("{} is away ({why}): the last known flags stay in force", self.way.reach.name)));
            if self.pause(backoff, &mut inbox, &why).await.is_none() {
                return;
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Waits before the next attempt; refuses what is asked of Redis meanwhile. `None` when nobody holds the store any more.
    async fn pause(&mut self, backoff: Duration, inbox: &mut mpsc::Receiver<Request>, why: &str) -> Option<()> {
        let until = Instant::now() + backoff;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Some(()),
                request = inbox.recv() => match request? {
                    Request::Change { reply, .. } => drop(reply.send(Err(ChangeError::Unreachable { why: why.to_owned() }))),
                    Request::History { reply, .. } => drop(reply.send(Err(HistoryError { why: why.to_owned() }))),
                    Request::Succeed { config, reply } => self.succeed(&config, reply),
                    Request::SetOwner { is_owner, reply } => self.set_owner(is_owner, reply),
                },
            }
        }
    }

    /// Works on one connection until it is lost (an error), another config is in force, or nobody holds the store any more.
    async fn work(&mut self, session: &Session, inbox: &mut mpsc::Receiver<Request>) -> RedisResult<Ended> {
        let all: Vec<RouteIndex> = (0..self.keys.len()).filter_map(route_index).collect();
        self.step_many(session, &all).await?;
        self.note("store", None);
        tracing::info!(store = self.way.reach.name, "the flag store is heard");
        self.check_eviction(session).await?;
        let state = self.published.config().state.clone();
        let (mut poll, mut heartbeat) = (ticks(state.poll_interval), ticks(state.heartbeat_interval));
        self.beat(session).await?;
        if let Some(first_heard) = self.first_heard.take() {
            let _ = first_heard.send(());
        }
        let trips = self.published.trips();
        loop {
            tokio::select! {
                biased;
                () = session.signals.news() => {
                    if let Some(error) = session.ended() {
                        return Err(error);
                    }
                    let touched: Vec<RouteIndex> = session.signals.take_touched().into_iter().filter_map(route_index).collect();
                    self.step_many(session, &touched).await?;
                    self.check_eviction(session).await?;
                }
                request = inbox.recv() => match request {
                    Some(Request::Succeed { config, reply }) => {
                        self.succeed(&config, reply);
                        return Ok(Ended::Succeeded);
                    }
                    Some(request) => self.answer(session, request).await?,
                    None => return Ok(Ended::Abandoned),
                },
                _ = poll.tick() => self.step_many(session, &all).await?,
                _ = heartbeat.tick() => self.beat(session).await?,
                () = trips.notified() => self.is_report_due = true,
            }
            if self.is_report_due {
                self.beat(session).await?;
                // The others report the new epoch in these moments: hear them soon, not only after a whole interval.
                heartbeat.reset_after(state.heartbeat_interval.min(HEAR_OTHERS_AFTER));
            }
        }
    }

    async fn step_many(&mut self, session: &Session, routes: &[RouteIndex]) -> RedisResult<()> {
        for chunk in routes.chunks(READS_AT_ONCE) {
            let reads = chunk.iter().filter_map(|route| Some(session.read(self.keys.get(route.get())?)));
            let reads = futures_util::future::join_all(reads).await;
            for (route, read) in chunk.iter().zip(reads) {
                if let Err(error) = self.step(session, *route, read).await {
                    self.goes_on(session, *route, error)?;
                }
            }
        }
        Ok(())
    }

    /// A route whose server is away becomes a note where the others go on; else the session is over.
    fn goes_on(&mut self, session: &Session, index: RouteIndex, error: RedisError) -> RedisResult<()> {
        if !session.outlives() {
            return Err(error);
        }
        let name = self.published.route(index).map(|route| route.name.clone()).unwrap_or_default();
        self.note(&name, Some(format!("its flags are away ({}): the last known ones stay in force", explain(&error))));
        Ok(())
    }

    async fn answer(&mut self, session: &Session, request: Request) -> RedisResult<()> {
        match request {
            // Whoever asked has given up, and was told that nothing is known: so nothing is done.
            Request::Change { reply, .. } if reply.is_closed() => Ok(()),
            Request::Change { reply, .. } if !self.is_owner => {
                let _ = reply.send(Err(ChangeError::Unreachable { why: HANDING_OVER.to_owned() }));
                Ok(())
            }
            Request::Change { asked_of, route, change, reply } => {
                let Some(route) = self.published.place_of(&asked_of, route) else {
                    let _ = reply.send(Err(ChangeError::NotSaved { why: "there is no such route".to_owned() }));
                    return Ok(());
                };
                let (answer, ended) = match self.change(session, route, &change).await {
                    Ok(answer) => (answer, Ok(())),
                    Err(error) => (Err(ChangeError::Unreachable { why: explain(&error) }), Err(error)),
                };
                let is_unanswered = matches!(answer, Err(ChangeError::Unanswered { .. }));
                let _ = reply.send(answer);
                let ended = if is_unanswered { Err((ErrorKind::Io, "a write was not answered").into()) } else { ended };
                ended.or_else(|error| self.goes_on(session, route, error))
            }
            Request::Succeed { config, reply } => {
                self.succeed(&config, reply);
                Ok(())
            }
            Request::SetOwner { is_owner, reply } => {
                self.set_owner(is_owner, reply);
                Ok(())
            }
            Request::History { asked_of, route, limit, reply } => {
                let Some(route) = self.published.place_of(&asked_of, route) else { return Ok(()) };
                let Some(keys) = self.keys.get(route.get()) else { return Ok(()) };
                let answer = session.ledger(keys, limit).await;
                let lost = answer.as_ref().err().filter(|error| is_lost(error)).cloned();
                let _ = reply.send(answer.map_err(|error| HistoryError { why: explain(&error) }));
                lost.map_or(Ok(()), |error| self.goes_on(session, route, error))
            }
        }
    }

    /// Keeps what an operator should see to, by what it is about; a new one is logged, once.
    pub(super) fn note(&mut self, about: &str, note: Option<String>) {
        let before = match note.clone() {
            Some(note) => self.notes.insert(about.to_owned(), note),
            None => self.notes.remove(about),
        };
        if before != note {
            let show = |(about, note): (&String, &String)| format!("{about}: {note}");
            self.published.set_warnings(self.notes.iter().map(show).collect());
        }
    }
}

fn route_index(index: usize) -> Option<RouteIndex> {
    u16::try_from(index).ok().map(RouteIndex)
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

const ACL_HINT: &str = "; the ACL user needs the keys and commands listed in docs/FLAGS.md";

/// An error in words that say what to do.
pub(super) fn explain(error: &RedisError) -> String {
    if error.code() == Some("WRONGTYPE") {
        // The server's words are those of a script, and do not say which key.
        return "one of the route's keys is of another type: {switchback:ROUTE}:flags, :sealed, :good, :evidence and :quality:N must be hashes, :ledger a stream; DEL \
                the one that TYPE says is none, and it is written anew"
            .to_owned();
    }
    // A command that is refused within a script has no code of its own: "can't run this command" in Redis 7.0, "ACL failure" later.
    let is_refused_in_script = |detail: &str| detail.contains("can't run this command") || detail.contains("ACL failure");
    let is_refused_in_script = error.detail().is_some_and(is_refused_in_script);
    let hint = match error.kind() {
        _ if is_refused_in_script => ACL_HINT,
        ErrorKind::Server(ServerErrorKind::NoPerm) => ACL_HINT,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            "; state.url must name the primary, not a replica: with Sentinel write redis+sentinel://"
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot) => {
            "; this is a node of a cluster: write redis+cluster:// in state.url"
        }
        ErrorKind::AuthenticationFailed => "; check the user and password in state.url, or in the keys beside it",
        _ if error.detail().is_some_and(|detail| detail.contains("unknown command")) => {
            "; a server without scripts is a sentinel: write redis+sentinel://HOST:PORT/NAME in state.url"
        }
        ErrorKind::RESP3NotSupported => "; Redis 6 or newer is needed",
        _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => "; check the user and password in state.url, or in the keys beside it",
        _ => "",
    };
    format!("{error}{hint}")
}
