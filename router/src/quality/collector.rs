//! From what workers count to windows: once in each quarter of a second, on the control side.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::clock::FleetClock;
use super::counters::{PoolCounters, Quality};
use super::counts::{Counts, Number};
use super::events::{Cell, EventsDesk};
use super::outcomes::{QUARTERS, Quarter, Read, is_another_clock};
use super::secrets::Secret;
use super::series::Series;
use super::signals::SignalsDesk;
use super::token::{route_id, version_id};
use super::windows::{Window, Windows, merge, sum_of};
use crate::config::Config;

/// So many quarters after its beginning, a quarter's slot is read: it is over, and whoever was held up while counting in it has had another.
const READ_AFTER: u64 = 2;
const QUARTER: Duration = Duration::from_millis(1_000 / QUARTERS);
/// Windows that are kept, in seconds: as long as a store may be away before something is lost.
pub const KEPT: u32 = 600;

/// A model version on a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// The pool's name.
    pub pool: String,
    /// The model version, as the config or the registry names it.
    pub version: String,
}

/// What this router counted on one route.
#[derive(Debug, Default)]
pub struct RouteBook {
    /// Who is meant by the ids in the windows.
    pub served: BTreeMap<u32, Served>,
    /// The same of arms of experiments: `EXPERIMENT/ARM`.
    pub arms: BTreeMap<u32, String>,
    /// By second.
    pub windows: Windows,
    /// What the store was never told, by version: it was away for too long, or a process before this one was killed.
    pub dropped: Window,
}

/// What this router counted, by route. Of the control side: no worker waits for it.
#[derive(Debug, Default)]
pub struct Books(Mutex<BTreeMap<String, RouteBook>>);

impl Books {
    /// All of them, for as long as this is held.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RouteBook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who else counts: what users did, and what response bodies said.
#[derive(Debug, Clone)]
pub struct Desks {
    /// Events.
    pub events: EventsDesk,
    /// Bodies.
    pub signals: SignalsDesk,
}

impl Desks {
    /// Opens both, with a thread of its own for each.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open(config: &Config, secrets: &[Secret], clock: &FleetClock) -> std::io::Result<Desks> {
        Ok(Desks { events: EventsDesk::open(config, secrets, clock)?, signals: SignalsDesk::open()? })
    }

    fn drain(&self) -> Vec<(Cell, Counts)> {
        let mut cells = self.events.drain(..);
        cells.extend(self.signals.drain(..));
        cells
    }
}

/// One worker's counters of one version, or arm.
struct Source {
    route: Arc<str>,
    counters: Counters,
    /// Made when there is something to read: as large as what is counted, and most pools of a large config get no query.
    read: Option<Box<Read>>,
}

enum Counters {
    Pool(Arc<PoolCounters>),
    Arm {
        series: Arc<Series>,
        /// Quarters since the worker gave it up.
        given_up: u64,
    },
}

impl Counters {
    fn series(&self) -> &Series {
        match self {
            Counters::Pool(counters) => &counters.series,
            Counters::Arm { series, .. } => series,
        }
    }

    fn pool(&self) -> Option<*const PoolCounters> {
        match self {
            Counters::Pool(counters) => Some(Arc::as_ptr(counters)),
            Counters::Arm { .. } => None,
        }
    }

    /// Whether something may still be counted in it, or has yet to be read. Asked once in a quarter.
    fn is_in_use(&mut self) -> bool {
        match self {
            Counters::Pool(_) => true,
            Counters::Arm { series, given_up } => {
                *given_up = if Arc::strong_count(series) > 1 { 0 } else { *given_up + 1 };
                *given_up <= QUARTERS + READ_AFTER
            }
        }
    }
}

/// Reads the workers' counters.
struct Collector {
    sources: Vec<Source>,
    books: Arc<Books>,
    /// The last quarter that was read.
    last: u64,
}

/// Collects until the sender of configs is gone. What was counted until then is in the books.
pub async fn collect(mut quality: watch::Receiver<Quality>, clock: FleetClock, books: Arc<Books>, desks: Desks) {
    let mut collector = Collector { sources: Vec::new(), books, last: 0 };
    let newest = quality.borrow_and_update().clone();
    newest.clock().set(quarter(&clock, Instant::now()));
    collector.know(&newest);
    loop {
        tokio::select! {
            () = tokio::time::sleep(to_next(&clock, Instant::now())) => {
                collector.tick(&quality.borrow(), quarter(&clock, Instant::now()));
                collector.take(desks.drain());
            }
            changed = quality.changed() => {
                let newest = quality.borrow_and_update().clone();
                collector.know(&newest);
                if changed.is_err() {
                    let now = quarter(&clock, Instant::now()).max(newest.clock().quarter().0);
                    (0..=READ_AFTER).for_each(|later| collector.tick(&newest, now + later));
                    collector.take(desks.drain());
                    return;
                }
            }
        }
    }
}

fn quarter(clock: &FleetClock, now: Instant) -> u64 {
    let since = clock.since_1970(now);
    since.as_secs() * QUARTERS + u64::from(since.subsec_millis()) / (1_000 / QUARTERS)
}

/// How long until the next quarter begins.
fn to_next(clock: &FleetClock, now: Instant) -> Duration {
    QUARTER - Duration::from_nanos(u64::from(clock.since_1970(now).subsec_nanos()) % 250_000_000)
}

impl Collector {
    /// Reads those of this config too. Those of the one before are read as long as a query of it may still count.
    fn know(&mut self, quality: &Quality) {
        self.sources.retain(|source| !matches!(&source.counters, Counters::Pool(counters) if Arc::strong_count(counters) == 1));
        let known: HashSet<*const PoolCounters> = self.sources.iter().filter_map(|source| source.counters.pool()).collect();
        let mut books = self.books.lock();
        for (place, route) in quality.config().routes.iter().enumerate() {
            let (name, book) = (Arc::<str>::from(route.name.as_str()), books.entry(route.name.clone()).or_default());
            for pool in &route.pools {
                let version = version_id(&pool.name, &pool.version);
                book.served.entry(version).or_insert_with(|| Served { pool: pool.name.clone(), version: pool.version.clone() });
            }
            let of_workers = quality.workers().iter().filter_map(|worker| worker.routes.get(place));
            for counters in of_workers.flat_map(|counters| &counters.pools).filter(|counters| !known.contains(&Arc::as_ptr(counters))) {
                self.sources.push(Source { route: name.clone(), counters: Counters::Pool(counters.clone()), read: None });
            }
        }
    }

    /// Reads the arms, too, that workers began to count in.
    fn know_arms(&mut self, quality: &Quality) {
        for series in quality.new_arms().take() {
            let route = quality.config().routes.iter().find(|route| route_id(&route.name) == series.route());
            if let Some(route) = route {
                let mut books = self.books.lock();
                books.entry(route.name.clone()).or_default().arms.entry(series.id()).or_insert_with(|| series.name().to_owned());
                let counters = Counters::Arm { series, given_up: 0 };
                self.sources.push(Source { route: route.name.as_str().into(), counters, read: None });
            }
        }
    }

    /// What users did and what bodies said, in the windows of their queries.
    fn take(&self, cells: Vec<(Cell, Counts)>) {
        if cells.is_empty() {
            return;
        }
        let oldest = Quarter(self.last).window().saturating_sub(KEPT);
        let mut books = self.books.lock();
        let mut by_id: HashMap<u32, &mut RouteBook> = books.iter_mut().map(|(route, book)| (route_id(route), book)).collect();
        for (cell, counts) in cells {
            if let Some(book) = by_id.get_mut(&cell.route) {
                book.windows.add(cell.window, cell.version, &counts, oldest);
            }
        }
    }

    /// The clock was another one until now. What was counted in the future is lost, or no window would ever be told or judged until then.
    fn go_back(&mut self, now: u64) {
        // This quarter is the first that is read.
        self.last = now.saturating_sub(1);
        for (route, book) in self.books.lock().iter_mut() {
            let lost = book.windows.forget_from(Quarter(now).window().saturating_add(1));
            let requests = sum_of(&lost)[Number::Requests];
            tracing::warn!(route, requests, "this router's clock was ahead until it heard the store: the fleet never hears of these");
            merge(&mut book.dropped, &lost);
        }
    }

    /// It is this quarter now: what can be read is.
    fn tick(&mut self, quality: &Quality, now: u64) {
        quality.clock().set(now);
        self.know_arms(quality);
        if is_another_clock(self.last, now) {
            self.go_back(now);
        }
        // After a pause, every slot is read; what was counted in it meanwhile belongs to one of the quarters that passed.
        let first = self.last.max(now.saturating_sub(READ_AFTER + QUARTERS - 1)) + 1;
        let mut books = self.books.lock();
        for quarter in (first..=now.saturating_sub(READ_AFTER)).map(Quarter) {
            let oldest = quarter.window().saturating_sub(KEPT);
            for source in &mut self.sources {
                let series = source.counters.series();
                let Some(outcomes) = series.outcomes_if_any() else { continue };
                let counts = source.read.get_or_insert_default().take(outcomes, quarter);
                if let Some(book) = books.get_mut(&*source.route) {
                    book.windows.add(quarter.window(), series.id(), &counts, oldest);
                }
            }
            self.sources.retain_mut(|source| source.counters.is_in_use());
        }
        self.last = self.last.max(now.saturating_sub(READ_AFTER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::Outcome;

    fn quality(pools: &[(&str, &str)]) -> Quality {
        let mut text =
            "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\", workers = 2 }\n[[route]]\nname = \"search\"\n".to_owned();
        for (pool, version) in pools {
            text.push_str(&format!("[route.pools.{pool}]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"{version}\"\n"));
        }
        Quality::new(&Arc::new(crate::config::parse("test", &text).unwrap()))
    }

    fn count(quality: &Quality, worker: usize, pool: usize, more: u64) {
        let counters = &quality.workers()[worker].routes[0].pools[pool];
        (0..more).for_each(|_| counters.series.outcomes().ended(quality.clock().quarter(), 3, Outcome::Answered));
    }

    fn requests(books: &Books, window: u32, version: u32) -> u64 {
        let books = books.lock();
        books["search"].windows.get(window).and_then(|window| window.get(&version)).map_or(0, |counts| counts[Number::Requests])
    }

    #[test]
    fn what_workers_count_is_in_its_window_whatever_the_config() {
        let before = quality(&[("blue", "1"), ("green", "1")]);
        let books = Arc::new(Books::default());
        let mut collector = Collector { sources: Vec::new(), books: books.clone(), last: 0 };
        collector.know(&before);
        let (blue, green) = (version_id("blue", "1"), version_id("green", "2"));
        collector.tick(&before, 4_000);
        count(&before, 0, 0, 5);
        count(&before, 1, 0, 7);
        collector.tick(&before, 4_003);
        count(&before, 0, 0, 1);
        assert_eq!(requests(&books, 1_000, blue), 12, "the quarter after next reads it");
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\", workers = 2 }\n[[route]]\nname = \"search\"\n\
                    [route.pools.green]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"2\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"1\"\n";
        let after = before.succeed(&Arc::new(crate::config::parse("test", text).unwrap()));
        collector.know(&after);
        collector.tick(&after, 4_004);
        let place = |name: &str| after.config().routes[0].pools.iter().position(|pool| pool.name == name).unwrap();
        count(&before, 0, 0, 2);
        count(&after, 0, place("green"), 3);
        for now in 4_005..4_012 {
            collector.tick(&after, now);
        }
        assert_eq!((requests(&books, 1_000, blue), requests(&books, 1_001, blue), requests(&books, 1_001, green)), (13, 2, 3));
        assert_eq!(books.lock()["search"].windows.totals()[&blue][Number::Requests], 15);
    }

    /// What was read of a pool is as large as what is counted of it: 35 KB for each worker.
    #[test]
    fn a_pool_without_queries_takes_no_room_and_is_known_once() {
        let quality = quality(&[("blue", "1"), ("green", "1")]);
        let mut collector = Collector { sources: Vec::new(), books: Arc::new(Books::default()), last: 0 };
        collector.know(&quality);
        collector.know(&quality);
        assert_eq!(collector.sources.len(), 2 * quality.workers().len());
        let has_room = |collector: &Collector| collector.sources.iter().filter(|source| source.read.is_some()).count();
        collector.tick(&quality, 4_000);
        assert_eq!(has_room(&collector), 0);
        count(&quality, 0, 0, 1);
        (1..4).for_each(|later| collector.tick(&quality, 4_000 + later));
        assert_eq!(has_room(&collector), 1);
        assert_eq!(requests(&collector.books, 1_000, version_id("blue", "1")), 1);
    }

    /// A machine whose clock is an hour ahead until it hears the store.
    #[test]
    fn after_a_clock_that_was_ahead_windows_go_on() {
        let quality = quality(&[("blue", "1")]);
        let books = Arc::new(Books::default());
        let mut collector = Collector { sources: Vec::new(), books: books.clone(), last: 0 };
        collector.know(&quality);
        let (blue, hour) = (version_id("blue", "1"), 3_600 * QUARTERS);
        for now in 0..8 {
            collector.tick(&quality, 4_000 + hour + now);
            count(&quality, 0, 0, 1);
        }
        assert_eq!(requests(&books, 4_600, blue), 4);
        collector.tick(&quality, 4_000);
        assert_eq!(quality.clock().quarter(), Quarter(4_000));
        {
            let books = books.lock();
            let book = &books["search"];
            assert_eq!((book.windows.newest(1).count(), sum_of(&book.dropped)[Number::Requests]), (0, 6));
        }
        count(&quality, 0, 0, 3);
        (1..12).for_each(|now| collector.tick(&quality, 4_000 + now));
        assert_eq!((requests(&books, 1_000, blue), requests(&books, 1_001, blue)), (5, 0), "with the two that were not read yet");
    }

    /// A control thread that was held up for seconds loses nothing.
    #[test]
    fn nothing_is_lost_in_a_pause() {
        let quality = quality(&[("blue", "1"), ("green", "1")]);
        let books = Arc::new(Books::default());
        let mut collector = Collector { sources: Vec::new(), books: books.clone(), last: 0 };
        collector.know(&quality);
        collector.tick(&quality, 4_000);
        let mut counted = 0;
        for (pause, more) in [(1, 3), (9, 4), (2, 5), (40, 6), (3, 7), (5, 8)] {
            count(&quality, 0, 0, more);
            counted += more;
            let now = quality.clock().quarter().0 + pause;
            collector.tick(&quality, now);
        }
        let now = quality.clock().quarter().0;
        (1..=4).for_each(|later| collector.tick(&quality, now + later));
        assert_eq!(books.lock()["search"].windows.totals()[&version_id("blue", "1")][Number::Requests], counted);
    }

    #[tokio::test]
    async fn the_clock_goes_on_and_the_end_reads_everything() {
        let quality = quality(&[("blue", "1"), ("green", "1")]);
        let (newest, books) = (watch::Sender::new(quality.clone()), Arc::new(Books::default()));
        let clock = FleetClock::start();
        let desks = Desks::open(quality.config(), &[], &clock).unwrap();
        let collecting = tokio::spawn(collect(newest.subscribe(), clock, books.clone(), desks));
        let passes = async |quarters: u64| {
            let before = quality.clock().quarter().0;
            while quality.clock().quarter().0 < before + quarters {
                tokio::task::yield_now().await;
            }
        };
        let began = Instant::now();
        passes(1).await;
        passes(2).await;
        assert!(began.elapsed() > QUARTER && began.elapsed() < 20 * QUARTER, "{:?}", began.elapsed());
        count(&quality, 0, 0, 9);
        drop(newest);
        collecting.await.unwrap();
        assert_eq!(books.lock()["search"].windows.totals()[&version_id("blue", "1")][Number::Requests], 9);
    }
}
