//! What routes start with in the embedded store: their flags as they were left, or their initial ones with a salt of their own.
//!
//! Flags that are new are written for all routes before any is waited for: a first start with a thousand routes waits for the disk as often as one with ten.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::{Beside, Copy, Disk};
use super::judge::without_epoch;
use super::ledger::serves;
use super::ledger_file::LedgerFile;
use super::published::{Applied, Source};
use super::{Fields, Flags, FlagsError, Kind, LedgerEntry, edit, identity, seal};
use crate::config::Route;

/// What copies of the embedded store call it.
const STORE: &str = "embedded";

/// The starts of some routes.
pub(super) struct Starts<'a> {
    disk: &'a Disk,
    may_write: bool,
    written: Vec<Beside>,
    ledgers: Vec<PathBuf>,
}

impl<'a> Starts<'a> {
    /// Without `may_write` nothing is written.
    pub(super) fn new(disk: &'a Disk, may_write: bool) -> Starts<'a> {
        Starts { disk, may_write, written: Vec::new(), ledgers: Vec::new() }
    }

    /// What a route starts with. Nobody may obey it before [`Starts::put_in_place`].
    ///
    /// # Errors
    /// Its file cannot be read, or one beside it cannot be written.
    pub(super) fn of(&mut self, route: &Route) -> Result<Applied, FlagsError> {
        let initial = Flags::initial(route);
        let (mut fields, epoch, is_new) = match self.disk.load(&route.name)? {
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
        if is_new && self.may_write {
            // The ledger first, as with every change: an entry whose flags never came is one of two for its epoch, and a change without an entry could not be told.
            self.first_entry(route, &known);
            let written = self.disk.write_beside(&copy_of(route, &known, &fields));
            self.written.push(written.map_err(|source| FlagsError::File {
                path: self.disk.path(&route.name),
                what: "write it",
                source,
            })?);
        }
        Ok(Applied { fields, known, faults, source: Source::Embedded })
    }

    /// Without it nobody could say who served whom before the first change. A ledger that cannot be written is told by that.
    fn first_entry(&mut self, route: &Route, known: &Flags) {
        let entry = LedgerEntry {
            epoch: known.epoch,
            time_ms: now_ms(),
            kind: Kind::Reseed,
            who: STORE.to_owned(),
            why: "first start: the store had no flags for this route".to_owned(),
            serves: serves(known, route),
            ..LedgerEntry::default()
        };
        match LedgerFile::new(self.disk.folder(), &route.name).append_unsynced(&entry) {
            Ok(path) => self.ledgers.push(path),
            Err(error) => tracing::warn!(route = route.name, %error, "the ledger cannot be written"),
        }
    }

    /// What is new is on disk when this returns.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn put_in_place(self) -> Result<(), FlagsError> {
        if self.written.is_empty() {
            return Ok(());
        }
        let done = self.disk.put_in_place(self.written, self.ledgers);
        done.map_err(|(path, source)| FlagsError::File { path, what: "write it", source })
    }
}

/// As it is kept on disk.
pub(super) fn copy_of(route: &Route, known: &Flags, fields: &Fields) -> Copy {
    let (epoch, seal) = (known.epoch, known.seal.clone());
    Copy { route: route.name.clone(), store: STORE.to_owned(), epoch, seal, fields: without_epoch(fields) }
}

/// With this epoch, and the seal that goes with it.
pub(super) fn sealed(mut fields: Fields, epoch: u64) -> Fields {
    fields.insert("epoch".to_owned(), epoch.to_string());
    fields.insert("seal".to_owned(), seal(&fields));
    fields
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(routes: usize) -> Config {
        let mut text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n".to_owned();
        for number in 0..routes {
            text.push_str(&format!("[[route]]\nname = \"r{number}\"\nmatch = {{ path_prefix = \"/r{number}\" }}\n"));
            text.push_str("[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n");
        }
        crate::config::parse("test", &text).unwrap()
    }

    fn start(config: &Config, disk: &Disk, may_write: bool) -> Vec<Fields> {
        let mut starts = Starts::new(disk, may_write);
        let applied = config.routes.iter().map(|route| starts.of(route).unwrap().fields).collect();
        starts.put_in_place().unwrap();
        applied
    }

    #[test]
    fn flags_are_as_they_were_left_and_each_route_has_its_salt_and_its_first_entry() {
        for routes in [1, 40] {
            let (folder, config) = (tempfile::tempdir().unwrap(), config(routes));
            let disk = Disk::open(folder.path()).unwrap();
            let first = start(&config, &disk, true);
            assert!(first.windows(2).all(|pair| pair[0]["salt"] != pair[1]["salt"]));
            assert_eq!(start(&config, &disk, true), first);
            for route in &config.routes {
                let ledger = LedgerFile::new(disk.folder(), &route.name).whole(1).unwrap();
                assert_eq!((ledger.entries().len(), ledger.verify(None).problems), (1, Vec::new()));
            }
        }
    }

    /// The process ended before the flags were in their place.
    #[test]
    fn a_start_that_did_not_come_to_its_end_is_begun_anew() {
        let (folder, config) = (tempfile::tempdir().unwrap(), config(20));
        let disk = Disk::open(folder.path()).unwrap();
        let mut starts = Starts::new(&disk, true);
        config.routes.iter().for_each(|route| drop(starts.of(route).unwrap()));
        drop(starts);
        assert_eq!(disk.load("r0").unwrap(), None);
        let first = start(&config, &disk, true);
        assert_eq!(start(&config, &disk, true), first);
        let ledger = LedgerFile::new(disk.folder(), "r0").whole(1).unwrap();
        assert_eq!((ledger.lines.len(), ledger.entries().len(), ledger.verify(None).problems), (2, 1, Vec::new()));
    }

    #[test]
    fn who_may_not_write_leaves_no_trace() {
        let (folder, config) = (tempfile::tempdir().unwrap(), config(20));
        let disk = Disk::open(folder.path()).unwrap();
        start(&config, &disk, false);
        assert_eq!(std::fs::read_dir(disk.folder()).unwrap().count(), 0);
    }
}
