//! The windows of every router's counters, kept beside the flags on a connection of their own, so that neither waits for the other.
//!
//! What is kept is opaque here. A page is a hash with fields of each sender; a sender's word about a page is everything that it has to say of it, so that
//! it may be said as often as anybody likes (`docs/decisions/fleet-merge.md`).

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisResult, Script};
use tokio::sync::Mutex;

use super::commands::{Pairs, read_as};
use super::keys::Keys;
use super::link::{Call, is_lost};
use super::reach::Reach;
use super::session::{Session, Way};
use super::sync::explain;
use crate::config::RedisState;

static SHELVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("shelve.lua")));

/// A page is forgotten so long after its first word, and a sender after its last.
const KEPT: Duration = Duration::from_secs(1_800);

/// What one sender says of one page: fields and their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Which.
    pub number: u64,
    /// Names and values, one at least.
    pub fields: Vec<(String, Vec<u8>)>,
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

    /// Keeps pages of a route. `word` grows from one call to the next of this sender. Answers whether the connection is a new one: then the store may
    /// have lost what it was told on the one before.
    ///
    /// # Errors
    /// In words that say what to do. Whether something was kept is not known then.
    pub(crate) async fn put(&self, route: &str, sender: &str, word: u64, pages: &[Page]) -> Result<bool, String> {
        let keys = Keys::of(route);
        let names: Vec<String> = std::iter::once(keys.sender(sender)).chain(pages.iter().map(|page| keys.page(page.number))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let millis = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        let mut call = Call::script(&SHELVE, &names).arg(word).arg(millis).arg(millis);
        for page in pages {
            call = call.arg(page.fields.len());
            for (name, value) in &page.fields {
                call = call.arg(name).arg(value);
            }
        }
        self.run(&keys, &call).await.map(|(_, is_new): (i64, bool)| is_new)
    }

    /// Everything that any sender said of a page.
    ///
    /// # Errors
    /// In words that say what to do.
    pub(crate) async fn get(&self, route: &str, page: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>, String> {
        let keys = Keys::of(route);
        let call = Call::command("HGETALL").arg(keys.page(page));
        self.run::<Pairs>(&keys, &call).await.map(|(pairs, _)| pairs)
    }

    async fn run<T: redis::FromRedisValue>(&self, keys: &Keys, call: &Call) -> Result<(T, bool), String> {
        let mut held = self.session.lock().await;
        let (session, is_new) = match held.take() {
            Some(session) => (session, false),
            None => (Session::connect(&self.way, std::slice::from_ref(keys)).await.map_err(|error| explain(&error))?, true),
        };
        let answer: RedisResult<T> = session.run(keys.slot, call).await.and_then(read_as);
        // A connection that is lost is made anew by the next call.
        if session.ended().is_none() && !answer.as_ref().is_err_and(is_lost) {
            *held = Some(session);
        }
        answer.map(|answer| (answer, is_new)).map_err(|error| explain(&error))
    }
}
