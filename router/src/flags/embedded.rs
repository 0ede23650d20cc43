//! The embedded store: flags of one router, in its own process and durable in its data folder. For those who run one router, and for trying
//! things out; the same rules as in Redis, with exactly one owner instead of many.
//!
//! Invariant: a change is on disk before anybody obeys it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::{Copy, Disk};
use super::judge::without_epoch;
use super::ledger::{Kind, LedgerEntry, difference, presentable};
use super::ledger_file::LedgerFile;
use super::published::{Applied, Cause, Published, Source};
use super::{Change, ChangeError, Fields, Flags, FlagsError, HistoryError, RouterSeen, edit, identity, seal};
use crate::config::{Config, Route};
use crate::vocabulary::RouteIndex;

/// What copies of this store call it.
const STORE: &str = "embedded";

#[derive(Debug)]
pub(crate) struct Embedded {
    inner: Arc<Inner>,
    id: String,
    admin: Mutex<String>,
}

#[derive(Debug)]
struct Inner {
    published: Arc<Published>,
    disk: Disk,
    /// One change at a time.
    writing: Mutex<Vec<LedgerFile>>,
}

impl Embedded {
    pub(crate) fn open(config: &Arc<Config>) -> Result<(Arc<Published>, Embedded), FlagsError> {
        let disk = Disk::open(&config.state.data_dir)?;
        let mut starts = Vec::new();
        for route in &config.routes {
            starts.push(start(route, &disk)?);
        }
        let published = Arc::new(Published::new(config.clone(), starts));
        let folder = config.state.data_dir.join("flags");
        let ledgers = config.routes.iter().map(|route| LedgerFile::new(&folder, &route.name)).collect();
        let inner = Inner { published: published.clone(), disk, writing: Mutex::new(ledgers) };
        let admin = Mutex::new(config.listen.admin.to_string());
        Ok((published, Embedded { inner: Arc::new(inner), id: identity::router_id(config), admin }))
    }

    pub(crate) async fn change(&self, index: RouteIndex, change: Change) -> Result<u64, ChangeError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || inner.change(index, &change)).await;
        done.unwrap_or_else(|error| Err(ChangeError::Unanswered { why: error.to_string() }))
    }

    pub(crate) fn routers(&self, index: RouteIndex) -> Vec<RouterSeen> {
        let Some(flags) = self.inner.published.flags(index) else { return Vec::new() };
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (epoch, seal) = (flags.epoch, flags.seal.clone());
        vec![RouterSeen { id: self.id.clone(), epoch, seal, seen_ms_ago: 0, is_known: true, admin }]
    }

    pub(crate) fn set_admin(&self, address: String) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) async fn history(&self, index: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || inner.history(index, limit)).await;
        done.unwrap_or_else(|error| Err(HistoryError { why: error.to_string() }))
    }
}

impl Inner {
    fn ledgers(&self) -> MutexGuard<'_, Vec<LedgerFile>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, index: RouteIndex, change: &Change) -> Result<u64, ChangeError> {
        let ledgers = self.ledgers();
        let place = (self.published.applied(index), self.published.route(index), ledgers.get(index.get()));
        let (Some(applied), Some(route), Some(ledger)) = place else {
            return Err(ChangeError::NotSaved { why: "there is no such route".to_owned() });
        };
        let found = applied.known.epoch;
        if let Some(expected) = change.expected_epoch.filter(|expected| *expected != found) {
            return Err(ChangeError::Conflict { expected, found });
        }
        let fields = edit::apply(&applied.fields, change, &applied.known, route).map_err(ChangeError::Invalid)?;
        let fields = sealed(fields, edit::next_epoch(found));
        let (known, faults) = Flags::read(&fields, &applied.known, route);
        let entry = LedgerEntry {
            epoch: known.epoch,
            time_ms: now_ms(),
            kind: Kind::Change,
            who: change.who.clone(),
            why: change.why.clone(),
            what: presentable(difference(&applied.fields, &fields)),
        };
        // The ledger first: an entry whose epoch never came is left out when it is read; a change without an entry could not be told.
        ledger.append(&entry).map_err(|error| ChangeError::NotSaved { why: format!("the ledger cannot be written: {error}") })?;
        let saved = self.disk.save(&copy_of(route, &known, &fields));
        saved.map_err(|error| ChangeError::NotSaved {
            why: format!("{} cannot be written: {error}", self.disk.path(&route.name).display()),
        })?;
        let epoch = known.epoch;
        if let Some(changed) = self.published.apply(index, Applied { fields, known, faults, source: Source::Embedded }) {
            changed.log(&Cause { who: entry.who, why: entry.why });
        }
        Ok(epoch)
    }

    fn history(&self, index: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        let ledgers = self.ledgers();
        let (Some(ledger), Some(applied)) = (ledgers.get(index.get()), self.published.applied(index)) else { return Ok(Vec::new()) };
        ledger.newest(applied.known.epoch, limit).map_err(|error| HistoryError { why: error.to_string() })
    }
}

/// The route's flags as they were left, or its initial ones with a salt of its own.
fn start(route: &Route, disk: &Disk) -> Result<Applied, FlagsError> {
    let initial = Flags::initial(route);
    let (mut fields, epoch, is_new) = match disk.load(&route.name)? {
        Some(copy) if copy.store == STORE => (copy.fields, copy.epoch, false),
        // Flags that were in Redis before go on from there.
        Some(copy) => (copy.fields, edit::next_epoch(copy.epoch), true),
        None => (without_epoch(&initial.render(route)), 1, true),
    };
    if fields.get("salt").is_none_or(String::is_empty) {
        fields.insert("salt".to_owned(), identity::random_hex(16));
    }
    let fields = sealed(fields, epoch);
    let (known, faults) = Flags::read(&fields, &initial, route);
    if is_new {
        let saved = disk.save(&copy_of(route, &known, &fields));
        saved.map_err(|source| FlagsError::File { path: disk.path(&route.name), what: "write it", source })?;
    }
    Ok(Applied { fields, known, faults, source: Source::Embedded })
}

fn copy_of(route: &Route, known: &Flags, fields: &Fields) -> Copy {
    let (epoch, seal) = (known.epoch, known.seal.clone());
    Copy { route: route.name.clone(), store: STORE.to_owned(), epoch, seal, fields: without_epoch(fields) }
}

fn sealed(mut fields: Fields, epoch: u64) -> Fields {
    fields.insert("epoch".to_owned(), epoch.to_string());
    fields.insert("seal".to_owned(), seal(&fields));
    fields
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
