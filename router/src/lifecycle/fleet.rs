//! Tells the other routers what this one counted: twice a second of the windows that pass, and every two seconds of all.
//!
//! A word is everything that there is to say of its pages, so that one which was lost is made good by the next, and one that was heard twice does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::untold::Tallies;
use crate::flags::{self, FlagStore, FleetTime, Heard, Page, ShelfWord};
use crate::quality::pages::{self, Half, PAGE};
use crate::quality::{Books, FleetClock, KEPT, Number, Revision, RouteBook, Slot, merge, route_id, sum_of};

/// How often the windows that pass are told.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Of so many words, one is about all windows.
const WHOLE_EVERY: u64 = 4;
/// What the others are about: windows older than that hardly change, and wait for the next whole word.
const PASSING_WINDOWS: u32 = PAGE;
/// Once in so many words, this looks for what routers before this one had not told: a second after the start, and twice a minute.
const LOOK_EVERY: u64 = 60;
/// The last word, when the router ends, may take this long.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The task.
pub(super) struct Telling {
    stores: watch::Sender<Arc<FlagStore>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Telling {
    pub(super) fn start(flags: &Arc<FlagStore>, clock: FleetClock, books: Arc<Books>, tallies: Tallies) -> Telling {
        let (stores, stop) = (watch::Sender::new(flags.clone()), watch::Sender::new(false));
        let (told, heard) = (BTreeMap::new(), BTreeMap::new());
        let teller = Teller { sender: flags::random_id(), words: 0, is_away: false, clock, is_apart: false, books, tallies, told, heard };
        Telling { task: tokio::spawn(teller.run(stores.subscribe(), stop.subscribe())), stores, stop }
    }

    /// The store under another config.
    pub(super) fn succeed(&self, flags: &Arc<FlagStore>) {
        self.stores.send_replace(flags.clone());
    }

    /// Says the last word.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that tells the fleet what was counted ended badly");
        }
    }
}

struct Teller {
    /// This process, and no other.
    sender: String,
    words: u64,
    /// The store was away the last time, which was logged.
    is_away: bool,
    clock: FleetClock,
    /// The store's clock is no clock, which was logged.
    is_apart: bool,
    books: Arc<Books>,
    /// Of processes that are gone, and this one's.
    tallies: Tallies,
    /// How much was told, by route and version.
    told: BTreeMap<(u32, u32), Option<Slot>>,
    /// The last word that the store heard, by route.
    heard: BTreeMap<String, u64>,
}

/// What is said of one route.
struct Word {
    pages: Vec<Page>,
    /// What the store has then.
    told: Vec<(u32, Revision)>,
    /// Pages that the store should have by now.
    stored: Vec<u64>,
}

impl Word {
    /// One of those after the other: somebody may delete a page, or a full server drop it.
    fn look_at(&self, number: u64) -> Option<u64> {
        let stored = u64::try_from(self.stored.len()).ok().filter(|stored| *stored > 0)?;
        self.stored.get(usize::try_from(number % stored).ok()?).copied()
    }
}

impl Teller {
    async fn run(mut self, stores: watch::Receiver<Arc<FlagStore>>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => {
                    let store = stores.borrow().clone();
                    if tokio::time::timeout(LAST_WORD, self.tell_all(&store, true)).await.is_err() {
                        tracing::warn!("the store did not hear what was counted last within {LAST_WORD:?}");
                    }
                    return;
                }
            }
            let store = stores.borrow().clone();
            self.set_clock(*store.clock().borrow());
            self.tell_all(&store, number % WHOLE_EVERY == 0).await;
            self.forget();
            if number % LOOK_EVERY == 2 {
                self.tallies.look(&self.books);
            }
        }
    }

    async fn tell_all(&mut self, store: &FlagStore, is_whole: bool) {
        let counted = |book: &RouteBook| book.windows.newest(1).next().is_some();
        let routes: Vec<String> = self.books.lock().iter().filter(|(_, book)| counted(book)).map(|(route, _)| route.clone()).collect();
        for route in routes {
            self.tell(store, &route, is_whole).await;
        }
    }

    async fn tell(&mut self, store: &FlagStore, route: &str, is_whole: bool) {
        let Some(word) = self.books.lock().get(route).and_then(|book| word(book, &self.sender, is_whole)) else { return };
        self.words += 1;
        let field = Half::Traffic.field(&self.sender);
        let look_at = word.look_at(self.words).map(|number| (number, field.as_str()));
        let said = ShelfWord { route, sender: &self.sender, number: self.words, pages: &word.pages, look_at };
        let heard = store.shelve(said).await;
        {
            let mut books = self.books.lock();
            let Some(book) = books.get_mut(route) else { return };
            let known = self.heard.get(route).copied().unwrap_or(0);
            // It was emptied, or another server has taken over which heard less.
            let has_lost = heard.as_ref().is_ok_and(|heard| heard.may_have_lost || heard.last_word < known);
            if heard.is_err() || has_lost {
                book.windows.say_again(0..u32::MAX);
            }
            if let Ok(Heard { is_there: false, .. }) = heard {
                look_at.iter().for_each(|(number, _)| book.windows.say_again(windows_of(*number)));
            }
            if heard.is_ok() {
                self.heard.insert(route.to_owned(), self.words);
                book.windows.are_stored(word.told);
            }
            for (version, numbers) in book.windows.told() {
                let id = (route_id(route), *version);
                if let Some(slot) = self.told.entry(id).or_insert_with(|| Slot::told(id.0, id.1)) {
                    slot.set(numbers);
                }
            }
        }
        match heard {
            Ok(_) => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!("the store hears again what is counted");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(why, "the store does not take what is counted; it is told for {KEPT} s");
                }
            }
        }
    }

    /// Windows and tokens are of the fleet's clock.
    fn set_clock(&mut self, time: Option<FleetTime>) {
        let ahead_ms = time.and_then(|time| self.clock.hear_at(time.at, time.unix_ms));
        if let Some(ahead_ms) = ahead_ms.filter(|_| !self.is_apart) {
            tracing::error!(
                ahead_ms,
                "the store's clock is a day and more from this machine's, and is not followed: set one of them right"
            );
        }
        self.is_apart = ahead_ms.is_some();
    }

    /// What is too old is forgotten, and what nobody heard of it is counted.
    fn forget(&self) {
        for (route, book) in self.books.lock().iter_mut() {
            let Some((newest, _)) = book.windows.newest(1).next() else { continue };
            let lost = book.windows.forget(newest.saturating_sub(KEPT));
            let sum = sum_of(&lost);
            if !sum.is_empty() {
                let (requests, clicks) = (sum[Number::Requests], sum[Number::Clicks]);
                tracing::warn!(route, requests, clicks, "the store was away for too long: the fleet never hears of these");
                merge(&mut book.dropped, &lost);
            }
        }
    }
}

/// `None` where there is nothing new.
fn word(book: &RouteBook, sender: &str, is_whole: bool) -> Option<Word> {
    let (newest, _) = book.windows.newest(1).next()?;
    let is_due = |second: u32| is_whole || second + PASSING_WINDOWS > newest;
    let news: BTreeMap<u32, Revision> = book.windows.news().filter(|(second, _)| is_due(*second)).collect();
    let numbers: BTreeSet<u64> = news.keys().map(|second| pages::page_of(*second)).collect();
    let pages: Vec<Page> = numbers
        .into_iter()
        .map(|number| {
            let fields = Half::ALL.map(|half| (half.field(sender), pages::write(half, book.windows.range(windows_of(number)))));
            Page { number, fields: fields.into_iter().filter(|(_, value)| !value.is_empty()).collect() }
        })
        .filter(|page| !page.fields.is_empty())
        .collect();
    let stored: BTreeSet<u64> = book.windows.stored().map(pages::page_of).collect();
    let stored = stored.into_iter().filter(|number| pages.iter().all(|page| page.number != *number)).collect();
    (!pages.is_empty()).then_some(Word { pages, told: news.into_iter().collect(), stored })
}

fn windows_of(page: u64) -> Range<u32> {
    let first = u32::try_from(page * u64::from(PAGE)).unwrap_or(u32::MAX);
    first..first.saturating_add(PAGE)
}
