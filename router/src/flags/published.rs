//! What this router obeys, route by route: written by one store task, read by the data path, policies, admin and heartbeats.
//!
//! Readers never wait: each route is two watches, one of the flags alone (it moves only when they do), one of everything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::ledger::{difference, one_line, presentable};
use super::{CopiesSeen, Fault, Fields, Flags, Trip};
use crate::config::{Config, Route};
use crate::vocabulary::RouteIndex;

/// Where a route's flags come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The config: no store was heard of, and there is no copy on disk.
    Initial,
    /// The copy on disk, with nobody on the candidate: no store was heard of since this router started.
    Disk,
    /// The embedded store.
    Embedded,
    /// Redis, now or when it was last heard of (see [`View::age`]).
    Redis,
}

/// One route's flags as this router applies them, for people.
#[derive(Debug, Clone)]
pub struct View {
    /// In force.
    pub flags: Arc<Flags>,
    /// Fields that are not obeyed, each with what is allowed there.
    pub faults: Vec<Fault>,
    /// Where they come from.
    pub source: Source,
    /// How long ago the store was heard; zero for the embedded store.
    pub age: Duration,
    /// How long this router obeys this epoch already: a router that was last heard before may obey it too.
    pub applied_for: Duration,
    /// How the store is built, in one word: `embedded`, `single`, `sentinel`, `cluster`.
    pub topology: &'static str,
    /// The server that has the flags; `None` while it is away, and for the embedded store.
    pub node: Option<String>,
    /// What an operator should see to: an eviction policy that may drop flags, an edit that cannot be adopted.
    pub warnings: Vec<String>,
}

/// Everything about one route at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    /// As last read, with values that are not obeyed.
    pub(crate) fields: Fields,
    /// The flags with the candidate where the store has it, also while it is held at 0.
    pub(crate) known: Flags,
    pub(crate) faults: Vec<Fault>,
    pub(crate) source: Source,
}

/// Who made a change, for the log line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause {
    pub(crate) who: String,
    pub(crate) why: String,
}

/// A change of traffic that is in force.
#[derive(Debug)]
pub(crate) struct Changed {
    route: String,
    pub(crate) epoch: u64,
    source: Source,
    what: String,
}

#[derive(Debug)]
struct Place {
    /// What the store says.
    stored: watch::Sender<Arc<Flags>>,
    /// What the data path obeys: the same, but for what the breaker holds back, and for who would be counted for the wrong version.
    obeyed: watch::Sender<Arc<Flags>>,
    trip: watch::Sender<Option<Arc<Trip>>>,
    /// Pools without a healthy endpoint, as this router sees them.
    down: watch::Sender<Vec<String>>,
    /// What became of the copies of queries that this router sent for the route's rollout.
    copies: watch::Sender<Option<CopiesSeen>>,
    applied: watch::Sender<Arc<Applied>>,
    /// Microseconds from `opened` to when the store was last heard of this route.
    heard_micros: AtomicU64,
    /// The same, to when the epoch in force was first obeyed here.
    applied_micros: AtomicU64,
}

/// All routes.
#[derive(Debug)]
pub(crate) struct Published {
    config: Arc<Config>,
    places: Vec<Place>,
    opened: Instant,
    warnings: watch::Sender<Vec<String>>,
    /// A breaker tripped or was cleared, or a pool went down or came back: the others are to hear of it.
    trips: Arc<Notify>,
    /// What changes are made to from then on: this one is for whoever still has it.
    pub(super) next: OnceLock<Weak<Published>>,
}

impl Published {
    /// Starts with what is known before a store answers: one [`Applied`] a route.
    pub(crate) fn new(config: Arc<Config>, starts: Vec<Applied>) -> Published {
        let place = |start: Applied| {
            let flags = Arc::new(in_force(&start));
            Place {
                stored: watch::channel(flags.clone()).0,
                obeyed: watch::channel(flags).0,
                trip: watch::channel(None).0,
                down: watch::channel(Vec::new()).0,
                copies: watch::channel(None).0,
                applied: watch::channel(Arc::new(start)).0,
                heard_micros: AtomicU64::new(0),
                applied_micros: AtomicU64::new(0),
            }
        };
        let places: Vec<Place> = starts.into_iter().map(place).collect();
        config.routes.iter().zip(&places).for_each(|(route, place)| place.obey(route));
        let (warnings, _) = watch::channel(Vec::new());
        Published { config, places, opened: Instant::now(), warnings, trips: Arc::default(), next: OnceLock::new() }
    }

    /// The same store under another config: one [`Applied`] for each of its routes.
    pub(super) fn followed_by(&self, config: Arc<Config>, starts: Vec<Applied>) -> Published {
        let mut next = Published::new(config, starts);
        (next.opened, next.trips) = (self.opened, self.trips.clone());
        for (route, place) in next.config.routes.iter().zip(&next.places) {
            let before = self.index_of(&route.name).and_then(|index| self.places.get(index.get()));
            place.trip.send_replace(before.and_then(|before| before.trip.borrow().clone()));
            place.copies.send_replace(before.and_then(|before| before.copies.borrow().clone()));
            place.obey(route);
            let heard = before.map_or(0, |before| before.heard_micros.load(Ordering::Relaxed));
            place.heard_micros.store(heard, Ordering::Relaxed);
            let applied = before.map_or(0, |before| before.applied_micros.load(Ordering::Relaxed));
            place.applied_micros.store(applied, Ordering::Relaxed);
        }
        next.warnings.send_replace(self.warnings());
        next
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn route(&self, index: RouteIndex) -> Option<&Route> {
        self.config.routes.get(index.get())
    }

    /// What the data path obeys.
    pub(crate) fn watch(&self, index: RouteIndex) -> Option<watch::Receiver<Arc<Flags>>> {
        self.places.get(index.get()).map(|place| place.obeyed.subscribe())
    }

    /// What the store says.
    pub(crate) fn watch_stored(&self, index: RouteIndex) -> Option<watch::Receiver<Arc<Flags>>> {
        self.places.get(index.get()).map(|place| place.stored.subscribe())
    }

    pub(crate) fn trip(&self, index: RouteIndex) -> Option<Arc<Trip>> {
        self.places.get(index.get()).and_then(|place| place.trip.borrow().clone())
    }

    /// From now on this is held back on the route, on top of whatever its flags say; `None` for nothing.
    pub(crate) fn set_trip(&self, index: RouteIndex, trip: Option<Arc<Trip>>) {
        let (Some(place), Some(route)) = (self.places.get(index.get()), self.route(index)) else { return };
        place.trip.send_replace(trip);
        place.obey(route);
        self.trips.notify_one();
    }

    pub(crate) fn down(&self, index: RouteIndex) -> Vec<String> {
        self.places.get(index.get()).map(|place| place.down.borrow().clone()).unwrap_or_default()
    }

    /// These pools have no healthy endpoint now.
    pub(crate) fn set_down(&self, index: RouteIndex, pools: Vec<String>) {
        let Some(place) = self.places.get(index.get()) else { return };
        let is_new = place.down.send_if_modified(|known| {
            let is_new = *known != pools;
            *known = pools;
            is_new
        });
        if is_new {
            self.trips.notify_one();
        }
    }

    pub(crate) fn copies(&self, index: RouteIndex) -> Option<CopiesSeen> {
        self.places.get(index.get()).and_then(|place| place.copies.borrow().clone())
    }

    /// So much became of copies so far; the other routers hear of it with the next heartbeat.
    pub(crate) fn set_copies(&self, index: RouteIndex, copies: Option<CopiesSeen>) {
        if let Some(place) = self.places.get(index.get()) {
            place.copies.send_if_modified(|known| std::mem::replace(known, copies.clone()) != copies);
        }
    }

    /// Told whenever [`Published::set_trip`] was called, and when [`Published::set_down`] changed something.
    pub(crate) fn trips(&self) -> Arc<Notify> {
        self.trips.clone()
    }

    pub(crate) fn watch_reads(&self, index: RouteIndex) -> Option<watch::Receiver<Arc<Applied>>> {
        self.places.get(index.get()).map(|place| place.applied.subscribe())
    }

    /// What the store says.
    pub(crate) fn flags(&self, index: RouteIndex) -> Option<Arc<Flags>> {
        self.places.get(index.get()).map(|place| place.stored.borrow().clone())
    }

    pub(crate) fn applied(&self, index: RouteIndex) -> Option<Arc<Applied>> {
        self.places.get(index.get()).map(|place| place.applied.borrow().clone())
    }

    /// How long ago this route was read from the store; since opening when it never was.
    pub(crate) fn age_of(&self, index: RouteIndex) -> Duration {
        let micros = self.places.get(index.get()).map_or(0, |place| place.heard_micros.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(self.opened + Duration::from_micros(micros))
    }

    /// The same for the route that was not heard of for longest: a cluster may have lost the node of one route only.
    pub(crate) fn age(&self) -> Duration {
        let oldest = self.places.iter().map(|place| place.heard_micros.load(Ordering::Relaxed)).min().unwrap_or(0);
        Instant::now().saturating_duration_since(self.opened + Duration::from_micros(oldest))
    }

    pub(crate) fn heard_now(&self, index: RouteIndex) {
        if let Some(place) = self.places.get(index.get()) {
            place.heard_micros.fetch_max(self.micros_now(), Ordering::Relaxed);
        }
    }

    /// How long this router obeys the route's epoch already.
    pub(crate) fn applied_for(&self, index: RouteIndex) -> Duration {
        let micros = self.places.get(index.get()).map_or(0, |place| place.applied_micros.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(self.opened + Duration::from_micros(micros))
    }

    fn micros_now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    pub(crate) fn set_warnings(&self, warnings: Vec<String>) {
        for warning in warnings.iter().filter(|warning| !self.warnings.borrow().contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warnings.send_replace(warnings);
    }

    /// Puts a route's flags in force. Logs fields that are newly not obeyed; answers what changed for traffic, to be logged with its cause.
    pub(crate) fn apply(&self, index: RouteIndex, applied: Applied) -> Option<Changed> {
        let (place, route) = (self.places.get(index.get())?, self.route(index)?);
        let before = place.applied.borrow().clone();
        for fault in applied.faults.iter().filter(|fault| !before.faults.contains(fault)) {
            let Fault { field, value, allowed } = fault;
            tracing::warn!(route = route.name, field, value, allowed, "a flag is not obeyed; its last good value stays in force");
        }
        let (old, new) = (place.stored.borrow().clone(), Arc::new(in_force(&applied)));
        let source = applied.source;
        place.applied.send_replace(Arc::new(applied));
        if old == new {
            return None;
        }
        if old.epoch != new.epoch {
            place.applied_micros.store(self.micros_now(), Ordering::Relaxed);
        }
        place.stored.send_replace(new.clone());
        place.obey(route);
        let what = one_line(&presentable(difference(&old.render(route), &new.render(route))));
        (!what.is_empty()).then(|| Changed { route: route.name.clone(), epoch: new.epoch, source, what })
    }
}

impl Place {
    /// Publishes what the data path obeys, where that is news.
    fn obey(&self, route: &Route) {
        let stored = self.stored.borrow().clone();
        let held_back = self.trip.borrow().as_ref().and_then(|trip| trip.shed(&stored, route));
        let obeyed = held_back.map_or(stored, Arc::new);
        let obeyed = obeyed.without_who_is_ahead(route).map_or(obeyed, Arc::new);
        self.obeyed.send_if_modified(|before| {
            let is_news = *before != obeyed;
            *before = obeyed;
            is_news
        });
    }
}

impl Changed {
    /// One line for each change of traffic: what it was, what it is, who, why.
    pub(crate) fn log(&self, cause: &Cause) {
        let Changed { route, epoch, source, what } = self;
        tracing::info!(route, epoch, what, who = cause.who, why = cause.why, ?source, "flags changed");
    }
}

/// What the data path obeys: a router that has not heard its store yet sends nobody to the candidate.
pub(super) fn in_force(applied: &Applied) -> Flags {
    match applied.source {
        Source::Initial | Source::Disk => applied.known.clone().without_candidate(),
        Source::Embedded | Source::Redis => applied.known.clone(),
    }
}
