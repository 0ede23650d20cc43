//! The windows of every router's counters, kept beside the flags on a connection of their own, so that neither waits for the other.
//!
//! What is kept is opaque here. A page is a hash with fields of each sender; a sender's word about a page is everything that it has to say of it, so that
//! it may be said as often as anybody likes (`docs/decisions/fleet-merge.md`).

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisResult, Script};
use tokio::sync::Mutex;

use super::commands::{LEDGER_ENTRIES, Pairs, read_as};
use super::keys::{Keys, TOKEN_KEY, slot_of};
use super::link::{Call, is_lost};
use super::reach::Reach;
use super::session::{Session, Way};
use super::sync::explain;
use crate::config::RedisState;
use crate::flags::chain::Line;
use crate::flags::{HeldAt, Ledger, Revised};

static SHELVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("shelve.lua")));
static FIRST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("first.lua")));
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("announce.lua")));
static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));
static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("replace.lua")));

/// A page is forgotten so long after its first word, and a sender after its last.
const KEPT: Duration = Duration::from_secs(1_800);
/// No router counts further: what says so is somebody else's.
const MOST_REVISION: u64 = 1 << 48;
/// What is known of a candidate is forgotten so long after the last word about it.
const EVIDENCE_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// So many entries of a ledger are read at once, and so often.
const LEDGER_PAGE: usize = 200;
const LEDGER_PAGES: usize = 100;

/// What the store says to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The connection is a new one: the store may have lost what it was told on the one before.
    pub may_have_lost: bool,
    /// The sender's last word before this one, as far as the store knows; 0 for none.
    pub last_word: u64,
    /// The field that was looked for is there.
    pub is_there: bool,
}

/// The right to move a route's rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Higher than that of every holder before.
    pub term: u64,
    /// Who has it.
    pub holder: String,
}

/// What one sender says of one page: fields and their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Which.
    pub number: u64,
    /// Names and values, one at least.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// A word of a sender.
#[derive(Debug, Clone, Copy)]
pub struct ShelfWord<'a> {
    /// The route that it is about.
    pub route: &'a str,
    /// Who says it.
    pub sender: &'a str,
    /// Grows from one word to the next of a sender.
    pub number: u64,
    /// What it says.
    pub pages: &'a [Page],
    /// A page, and the field that it should have: somebody may have deleted it.
    pub look_at: Option<(u64, &'a str)>,
}

/// The shelf of one store.
pub(crate) struct Shelf {
    way: Way,
    session: Mutex<Option<Session>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("store", &self.way.reach.name).finish_non_exhaustive()
    }
}

impl Shelf {
    pub(crate) fn new(redis: &RedisState) -> Shelf {
        Shelf { way: Way::new(Reach::new(redis)), session: Mutex::new(None) }
    }

    /// Keeps pages of a route.
    ///
    /// # Errors
    /// In words that say what to do. Whether something was kept is not known then.
    pub(crate) async fn put(&self, word: ShelfWord<'_>) -> Result<Heard, String> {
        let ShelfWord { route, sender, number, pages, look_at } = word;
        let keys = Keys::of(route);
        let (looked_at, field) = look_at.unwrap_or((0, ""));
        let first = [keys.sender(sender), keys.page(looked_at)];
        let names: Vec<String> = first.into_iter().chain(pages.iter().map(|page| keys.page(page.number))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let millis = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        let mut call = Call::script(&SHELVE, &names).arg(number).arg(millis).arg(millis).arg(field);
        for page in pages {
            call = call.arg(page.fields.len());
            for (name, value) in &page.fields {
                call = call.arg(name).arg(value);
            }
        }
        let ((last_word, is_there), may_have_lost): ((u64, u8), bool) = self.run(&keys, &call).await?;
        Ok(Heard { may_have_lost, last_word, is_there: is_there == 1 })
    }

    /// Everything that any sender said of a page, and whether the store may have lost some of it: the connection is a new one. `None` where
    /// the key is somebody else's: of another type.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn get(&self, route: &str, page: u64) -> Result<Option<(Pairs, bool)>, String> {
        let keys = Keys::of(route);
        let call = Call::command("HGETALL").arg(keys.page(page));
        match self.try_in(keys.slot, &keys, &call).await {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
            Err(error) => Err(explain(&error)),
        }
    }

    /// What is known of a route's candidate: its revision and bytes.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn evidence(&self, route: &str) -> Result<Revised, String> {
        let keys = Keys::of(route);
        self.record(&keys, &keys.evidence()).await
    }

    /// What is known of an experiment.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn experiment(&self, route: &str, name: &str) -> Result<Revised, String> {
        let keys = Keys::of(route);
        self.record(&keys, &keys.experiment(name)).await
    }

    async fn record(&self, keys: &Keys, key: &str) -> Result<Revised, String> {
        let call = Call::command("HMGET").arg(key).arg("revision").arg("record");
        let (fields, _): ([Option<Vec<u8>>; 2], bool) = self.run(keys, &call).await?;
        let [revision, record] = fields;
        Ok(revision.and_then(|text| revision_of(&text)).zip(record))
    }

    /// Replaces it; false when it was no longer of the revision `replaces` (0 for none).
    ///
    /// # Errors
    /// In words that say what to do. Whether it was replaced is not known then.
    pub(crate) async fn replace(&self, route: &str, replaces: u64, revision: u64, record: &[u8]) -> Result<bool, String> {
        let keys = Keys::of(route);
        self.replace_record((&keys, &keys.evidence()), replaces, revision, record).await
    }

    /// Replaces what is known of an experiment, in the same way.
    ///
    /// # Errors
    /// In words that say what to do. Whether it was replaced is not known then.
    pub(crate) async fn replace_experiment(
        &self,
        (route, name): (&str, &str),
        replaces: u64,
        revision: u64,
        record: &[u8],
    ) -> Result<bool, String> {
        let keys = Keys::of(route);
        self.replace_record((&keys, &keys.experiment(name)), replaces, revision, record).await
    }

    async fn replace_record(&self, (keys, key): (&Keys, &str), replaces: u64, revision: u64, record: &[u8]) -> Result<bool, String> {
        let millis = u64::try_from(EVIDENCE_KEPT.as_millis()).unwrap_or(u64::MAX);
        let call = Call::script(&REPLACE, &[key]).arg(replaces).arg(revision).arg(record).arg(millis);
        let (is_replaced, _): (i64, bool) = self.run(keys, &call).await?;
        Ok(is_replaced == 1)
    }

    /// The whole ledger of a route, whose flags are at this epoch.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn ledger(&self, route: &str, epoch: u64) -> Result<Ledger, String> {
        let keys = Keys::of(route);
        let (lines, is_newest) = self.with_session(&keys, async |session| session.chain(&keys).await).await?;
        Ok(Ledger { epoch, is_newest, is_full: lines.len() >= LEDGER_ENTRIES, lines })
    }

    /// What held at this time.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn at(&self, route: &str, time_ms: u64) -> Result<HeldAt, String> {
        let keys = Keys::of(route);
        let (mut held, mut newest) = (HeldAt::default(), "+".to_owned());
        for _ in 0..LEDGER_PAGES {
            let lines = self.with_session(&keys, async |session| session.lines(&keys, &newest, LEDGER_PAGE).await).await?;
            let Some(last) = lines.last() else { break };
            newest = format!("({}", last.id);
            for entry in lines.iter().filter_map(Line::entry) {
                if !held.look(entry, time_ms) {
                    return Ok(held);
                }
            }
        }
        Ok(held)
    }

    async fn with_session<T>(&self, keys: &Keys, ask: impl AsyncFnOnce(&Session) -> RedisResult<T>) -> Result<T, String> {
        let mut held = self.session.lock().await;
        let session = match held.take() {
            Some(session) => session,
            None => Session::connect(&self.way, std::slice::from_ref(keys)).await.map_err(|error| explain(&error))?,
        };
        let answer = ask(&session).await;
        if session.ended().is_none() && !answer.as_ref().is_err_and(is_lost) {
            *held = Some(session);
        }
        answer.map_err(|error| explain(&error))
    }

    /// Takes or keeps the right to move a route's rollout for so long, if nobody else has it; its term is at least `term`.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn lease(&self, route: &str, me: &str, lasts: Duration, term: u64) -> Result<Lease, String> {
        let keys = Keys::of(route);
        let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let call = Call::script(&LEASE, &[&keys.lease()]).arg(me).arg(millis).arg(term);
        let ((term, holder), _): ((String, String), bool) = self.run(&keys, &call).await?;
        Ok(Lease { term: term.parse().unwrap_or(0), holder })
    }

    /// Takes or keeps the right to tell a target of a route; see [`crate::flags::FlagStore::announce`].
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn announce(
        &self,
        (route, target): (&str, &str),
        me: &str,
        lasts: Duration,
        told: Option<u64>,
        begin: u64,
    ) -> Result<(String, u64), String> {
        let keys = Keys::of(route);
        let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let told = told.map(|told| told.to_string()).unwrap_or_default();
        let call = Call::script(&ANNOUNCE, &[&keys.announcer(target)]).arg(me).arg(millis).arg(told).arg(begin);
        let ((holder, told), _): ((String, String), bool) = self.run(&keys, &call).await?;
        Ok((holder, told.parse().unwrap_or(begin)))
    }

    /// The key of tokens that all routers of the store use: this one, unless another came first. `route` is any route.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn token_key(&self, route: &str, offered: &str) -> Result<String, String> {
        let call = Call::script(&FIRST, &[TOKEN_KEY]).arg(offered);
        let (kept, _): (String, bool) = self.run_in(slot_of(TOKEN_KEY), &Keys::of(route), &call).await?;
        Ok(kept)
    }

    async fn run<T: redis::FromRedisValue>(&self, keys: &Keys, call: &Call) -> Result<(T, bool), String> {
        self.run_in(keys.slot, keys, call).await
    }

    async fn run_in<T: redis::FromRedisValue>(&self, slot: u16, keys: &Keys, call: &Call) -> Result<(T, bool), String> {
        self.try_in(slot, keys, call).await.map_err(|error| explain(&error))
    }

    async fn try_in<T: redis::FromRedisValue>(&self, slot: u16, keys: &Keys, call: &Call) -> RedisResult<(T, bool)> {
        let mut held = self.session.lock().await;
        let (session, is_new) = match held.take() {
            Some(session) => (session, false),
            None => (Session::connect(&self.way, std::slice::from_ref(keys)).await?, true),
        };
        let answer: RedisResult<T> = session.run(slot, call).await.and_then(read_as);
        // A connection that is lost is made anew by the next call.
        if session.ended().is_none() && !answer.as_ref().is_err_and(is_lost) {
            *held = Some(session);
        }
        answer.map(|answer| (answer, is_new))
    }
}

/// `None` for what is no revision.
fn revision_of(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|revision| *revision <= MOST_REVISION)
}
