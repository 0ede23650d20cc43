//! The embedded store: flags of one router, in its own process and durable in its data folder. For those who run one router, and for trying
//! things out; the same rules as in Redis, with exactly one owner instead of many.
//!
//! Invariant: a change is on disk before anybody obeys it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;
use super::ledger::{LedgerEntry, difference, presentable, serves};
use super::ledger_file::LedgerFile;
use super::local_shelf::LocalShelf;
use super::published::{Applied, Cause, Published, Source};
use super::record_file::RecordFiles;
use super::starts::{Starts, copy_of, now_ms, sealed};
use super::told_file::ToldFiles;
use super::{Change, ChangeError, Flags, FlagsError, HistoryError, Ledger, RouterSeen, TripSeen, edit, identity};
use crate::config::Config;
use crate::vocabulary::RouteIndex;

/// Why a process that leaves makes no changes any more.
pub(super) const HANDING_OVER: &str = "this router is handing over to a new process, which takes changes in a moment";

#[derive(Debug)]
pub(crate) struct Embedded {
    inner: Arc<Inner>,
    id: String,
    admin: Mutex<String>,
    records: RecordFiles,
    shelf: LocalShelf,
    told: ToldFiles,
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    /// Of the ledgers.
    folder: PathBuf,
    /// One change at a time.
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    /// Of the config in force.
    published: Arc<Published>,
    /// By route.
    ledgers: Vec<LedgerFile>,
    /// The data folder is this process's.
    is_owner: bool,
}

impl Embedded {
    /// Without `is_owner` nothing is written before [`Embedded::take_over`].
    pub(crate) fn open(config: &Arc<Config>, is_owner: bool) -> Result<(Arc<Published>, Embedded), FlagsError> {
        let disk = Disk::open(&config.state.data_dir)?;
        let mut starts = Starts::new(&disk, is_owner);
        let all = config.routes.iter().map(|route| starts.of(route)).collect::<Result<Vec<Applied>, FlagsError>>()?;
        starts.put_in_place()?;
        let published = Arc::new(Published::new(config.clone(), all));
        let folder = config.state.data_dir.join("flags");
        let writing = Writing { published: published.clone(), ledgers: ledgers(&folder, config), is_owner };
        let inner = Inner { disk, folder, writing: Mutex::new(writing) };
        let admin = Mutex::new(config.listen.admin.to_string());
        let folder = &config.state.data_dir;
        let (records, shelf, told) = (RecordFiles::new(folder), LocalShelf::new(folder), ToldFiles::new(folder));
        Ok((published, Embedded { inner: Arc::new(inner), id: identity::router_id(config), admin, records, shelf, told }))
    }

    /// `asked_of` is where the caller has the route's index from.
    pub(crate) async fn change(&self, asked_of: &Arc<Published>, index: RouteIndex, change: Change) -> Result<u64, ChangeError> {
        let (inner, asked_of) = (self.inner.clone(), asked_of.clone());
        let done = tokio::task::spawn_blocking(move || inner.change(&asked_of, index, &change)).await;
        done.unwrap_or_else(|error| Err(ChangeError::Unanswered { why: error.to_string() }))
    }

    pub(crate) fn routers(&self, published: &Published, index: RouteIndex) -> Vec<RouterSeen> {
        let Some(flags) = published.flags(index) else { return Vec::new() };
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (epoch, seal) = (flags.epoch, flags.seal.clone());
        let trip = published.trip(index).map(|trip| TripSeen::of(&trip));
        let (down, copies) = (published.down(index), published.copies(index));
        vec![RouterSeen { id: self.id.clone(), epoch, seal, seen_ms_ago: 0, is_known: true, admin, trip, down, copies }]
    }

    pub(crate) fn set_admin(&self, address: String) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) async fn history(
        &self,
        asked_of: &Arc<Published>,
        index: RouteIndex,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, HistoryError> {
        let (inner, asked_of) = (self.inner.clone(), asked_of.clone());
        let done = tokio::task::spawn_blocking(move || inner.history(&asked_of, index, limit)).await;
        done.unwrap_or_else(|error| Err(HistoryError { why: error.to_string() }))
    }

    pub(crate) async fn ledger(&self, asked_of: &Arc<Published>, index: RouteIndex) -> Result<Ledger, HistoryError> {
        let (inner, asked_of) = (self.inner.clone(), asked_of.clone());
        let done = tokio::task::spawn_blocking(move || inner.ledger(&asked_of, index)).await;
        done.unwrap_or_else(|error| Err(HistoryError { why: error.to_string() }))
    }

    /// The same flags under another config.
    ///
    /// # Errors
    /// A new route's file that cannot be read or written. Nothing has changed then.
    pub(crate) fn succeed(&self, config: &Arc<Config>) -> Result<Arc<Published>, FlagsError> {
        let inner = &self.inner;
        let mut writing = inner.writing();
        let is_owner = writing.is_owner;
        let mut starts = Starts::new(&inner.disk, is_owner);
        let published = Arc::new(writing.published.successor(config, |route| starts.of(route))?);
        starts.put_in_place()?;
        writing.ledgers = ledgers(&inner.folder, config);
        writing.published.gives_way_to(&published);
        writing.published = published.clone();
        Ok(published)
    }

    /// What is known of candidates.
    pub(crate) fn records(&self) -> &RecordFiles {
        &self.records
    }

    /// How far targets were told.
    pub(crate) fn told(&self) -> &ToldFiles {
        &self.told
    }

    /// Windows of counters.
    pub(crate) fn shelf(&self) -> &LocalShelf {
        &self.shelf
    }

    /// Whether changes are made here.
    pub(crate) fn is_owner(&self) -> bool {
        self.inner.writing().is_owner
    }

    /// Makes no change from now on; one that is under way is finished first.
    pub(crate) fn let_go(&self) {
        self.inner.writing().is_owner = false;
    }

    /// Obeys what the process before this one wrote last, and makes changes from now on.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(crate) fn take_over(&self) -> Result<(), FlagsError> {
        let inner = &self.inner;
        let mut writing = inner.writing();
        let mut starts = Starts::new(&inner.disk, true);
        let routes = &writing.published.config().routes;
        let all = routes.iter().map(|route| starts.of(route)).collect::<Result<Vec<Applied>, FlagsError>>()?;
        starts.put_in_place()?;
        for (index, newest) in (0..=u16::MAX).map(RouteIndex).zip(all) {
            if writing.published.applied(index).is_none_or(|applied| applied.fields != newest.fields) {
                writing.published.apply(index, newest);
            }
        }
        self.records.forget();
        writing.is_owner = true;
        Ok(())
    }
}

fn ledgers(folder: &Path, config: &Config) -> Vec<LedgerFile> {
    config.routes.iter().map(|route| LedgerFile::new(folder, &route.name)).collect()
}

impl Inner {
    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, asked_of: &Published, index: RouteIndex, change: &Change) -> Result<u64, ChangeError> {
        let writing = self.writing();
        if !writing.is_owner {
            return Err(ChangeError::Unreachable { why: HANDING_OVER.to_owned() });
        }
        let published = &writing.published;
        let place = published
            .place_of(asked_of, index)
            .and_then(|index| Some((index, published.applied(index)?, published.route(index)?, writing.ledgers.get(index.get())?)));
        let Some((index, applied, route, ledger)) = place else {
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
            kind: change.kind,
            who: change.who.clone(),
            why: change.why.clone(),
            what: presentable(difference(&applied.fields, &fields)),
            serves: serves(&known, route),
            grounds: change.grounds.as_deref().cloned(),
            prev: String::new(),
        };
        // The ledger first: an entry whose epoch never came is left out when it is read; a change without an entry could not be told.
        ledger.append(&entry).map_err(|error| ChangeError::NotWritten { why: format!("the ledger cannot be written: {error}") })?;
        let saved = self.disk.save(&copy_of(route, &known, &fields));
        saved.map_err(|error| ChangeError::NotWritten {
            why: format!("{} cannot be written: {error}", self.disk.path(&route.name).display()),
        })?;
        let epoch = known.epoch;
        if let Some(changed) = published.apply(index, Applied { fields, known, faults, source: Source::Embedded }) {
            changed.log(&Cause { who: entry.who, why: entry.why });
        }
        Ok(epoch)
    }

    fn history(&self, asked_of: &Published, index: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        let writing = self.writing();
        let published = &writing.published;
        let place = published.place_of(asked_of, index);
        let place = place.and_then(|index| Some((writing.ledgers.get(index.get())?, published.applied(index)?)));
        let Some((ledger, applied)) = place else { return Ok(Vec::new()) };
        ledger.newest(applied.known.epoch, limit).map_err(|error| HistoryError { why: error.to_string() })
    }

    fn ledger(&self, asked_of: &Published, index: RouteIndex) -> Result<Ledger, HistoryError> {
        let writing = self.writing();
        let published = &writing.published;
        let place = published.place_of(asked_of, index);
        let place = place.and_then(|index| Some((writing.ledgers.get(index.get())?, published.applied(index)?)));
        let Some((ledger, applied)) = place else { return Err(HistoryError { why: "there is no such route".to_owned() }) };
        ledger.whole(applied.known.epoch).map_err(|error| HistoryError { why: error.to_string() })
    }
}
