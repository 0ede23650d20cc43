//! Flags in Redis: one hash a route that people read and flip, obeyed by every router within milliseconds.
//!
//! [`sync`] is one task that owns everything that is written ([`step`] for one route, [`report`] for heartbeats); [`commands`] is what is
//! asked; the Lua scripts beside are the atomic steps. Below them a [`session`] brings each call to the right server: the one that is
//! named, the primary that [`sentinel`]s name, or the owner of the slot in a [`cluster`], each over a [`link`]. Nothing here is on the
//! query path.

mod apart;
mod clock;
mod cluster;
mod commands;
mod fleet;
mod keeper;
mod keys;
mod link;
mod reach;
mod report;
mod sentinel;
mod session;
mod shelf;
mod signals;
mod slots;
mod step;
mod succeed;
mod survey;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::clock::FleetTime;
use self::clock::Known;
use self::fleet::Fleet;
use self::keys::Keys;
use self::reach::Reach;
use self::session::Way;
pub(crate) use self::shelf::Shelf;
pub use self::shelf::{Heard, Lease, Page, ShelfWord};
pub(crate) use self::survey::survey;
pub use self::survey::{ServerSeen, Survey};
use self::sync::{Request, Sync};
use super::copies::Copies;
use super::disk::{Copy, Disk};
use super::judge::{Mine, without_epoch};
use super::published::{Applied, Published, Source};
use super::{Change, ChangeError, Flags, FlagsError, HistoryError, LedgerEntry, RouterSeen, TripSeen, identity};
use crate::config::{Config, RedisState, Route};
use crate::vocabulary::RouteIndex;

/// How long a starting router waits for Redis before it goes on with its copy on disk.
const STARTUP_WAIT: Duration = Duration::from_secs(1);
/// Changes and ledger reads waiting for the one task; more are refused.
const REQUESTS: usize = 64;
/// A request is given up after this: the task may sit in one connection attempt and one unanswered command.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct RedisStore {
    requests: mpsc::Sender<Request>,
    /// What this router reports under.
    id: String,
    fleet: watch::Receiver<Fleet>,
    clock: watch::Receiver<Option<FleetTime>>,
    admin: Arc<Mutex<String>>,
    nodes: watch::Receiver<Vec<Option<String>>>,
    topology: &'static str,
    shelf: Shelf,
}

impl RedisStore {
    /// Starts from the copies on disk and connects; waits a second at most for Redis. Without `is_owner` nothing is written to disk
    /// and nothing is reported before [`RedisStore::set_owner`].
    pub(crate) async fn open(config: &Arc<Config>, redis: &RedisState, is_owner: bool) -> Result<(Arc<Published>, RedisStore), FlagsError> {
        check(redis)?;
        let way = Way::new(Reach::new(redis));
        let disk = Disk::open(&config.state.data_dir)?;
        let (mut starts, mut mines) = (Vec::new(), Vec::new());
        for route in &config.routes {
            let (applied, mine) = start(route, &disk, &way.reach.name);
            starts.push(applied);
            mines.push(mine);
        }
        let published = Arc::new(Published::new(config.clone(), starts));
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (fleet_sender, fleet) = watch::channel(Fleet::default());
        let (clock_sender, clock) = watch::channel(None);
        let (nodes_sender, nodes) = watch::channel(Vec::new());
        let (heard, first_heard) = oneshot::channel();
        let admin = Arc::new(Mutex::new(config.listen.admin.to_string()));
        let id = identity::router_id(config);
        let sync = Sync {
            published: published.clone(),
            keys: config.routes.iter().map(|route| Keys::of(&route.name)).collect(),
            way,
            mines,
            id: id.clone(),
            incarnation: identity::random_hex(8),
            admin: admin.clone(),
            copies: Copies::start(disk.clone()),
            disk,
            is_owner,
            fleet: fleet_sender,
            time: Known::default(),
            clock: clock_sender,
            notes: BTreeMap::new(),
            asked: Vec::new(),
            nodes: nodes_sender,
            first_heard: Some(heard),
            is_report_due: false,
        };
        tokio::spawn(sync.run(inbox));
        let _ = tokio::time::timeout(STARTUP_WAIT, first_heard).await;
        Ok((published, RedisStore { requests, id, fleet, clock, admin, nodes, topology: redis.topology.word(), shelf: Shelf::new(redis) }))
    }

    /// `asked_of` is where the caller has the route's index from.
    pub(crate) async fn change(&self, asked_of: &Arc<Published>, route: RouteIndex, change: Change) -> Result<u64, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Change { asked_of: asked_of.clone(), route, change, reply };
        self.requests.try_send(request).map_err(|_| ChangeError::Unreachable { why: "too many changes are waiting for it".to_owned() })?;
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            _ => Err(ChangeError::Unanswered { why: format!("nothing within {REQUEST_TIMEOUT:?}") }),
        }
    }

    pub(crate) async fn history(
        &self,
        asked_of: &Arc<Published>,
        route: RouteIndex,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, HistoryError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::History { asked_of: asked_of.clone(), route, limit, reply };
        self.requests.try_send(request).map_err(|_| HistoryError { why: "too many requests are waiting for Redis".to_owned() })?;
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            _ => Err(HistoryError { why: format!("no answer within {REQUEST_TIMEOUT:?}") }),
        }
    }

    /// What time the fleet has, whenever that is heard.
    pub(crate) fn clock(&self) -> watch::Receiver<Option<FleetTime>> {
        self.clock.clone()
    }

    pub(crate) fn routers(&self, published: &Published, index: RouteIndex) -> Vec<RouterSeen> {
        let Some(route) = published.route(index) else { return Vec::new() };
        let timeout = published.config().state.router_timeout;
        let mut routers = self.fleet.borrow().on_route(&route.name, timeout, Instant::now());
        // Of itself a router knows more than its last report.
        if let (Some(own), Some(flags)) = (routers.iter_mut().find(|router| router.id == self.id), published.flags(index)) {
            (own.epoch, own.seal) = (flags.epoch, flags.seal.clone());
            own.trip = published.trip(index).map(|trip| TripSeen::of(&trip));
            own.copies = published.copies(index);
        }
        routers
    }

    /// The topology in one word, and the server that has this route's flags; `None` while it is away.
    pub(crate) fn server(&self, index: RouteIndex) -> (&'static str, Option<String>) {
        (self.topology, self.nodes.borrow().get(index.get()).cloned().flatten())
    }

    /// Where windows of counters are kept.
    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    pub(crate) fn set_admin(&self, address: String) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// Reads the files and variables that the config names, so that a mistake is told before anything starts.
pub(crate) fn check(redis: &RedisState) -> Result<(), FlagsError> {
    reach::check(redis)
}

/// What a route starts with: its copy on disk, else the config's initial flags. Both with nobody on the candidate until Redis is heard.
fn start(route: &Route, disk: &Disk, store: &str) -> (Applied, Mine) {
    let initial = Flags::initial(route);
    let copy = disk.load(&route.name).unwrap_or_else(|error| {
        tracing::error!(route = route.name, "{error}; starting from the initial flags");
        None
    });
    let Some(copy) = copy else {
        let fields = without_epoch(&initial.render(route));
        let mine = Mine { sealed: fields.clone(), in_force: fields.clone(), ..Mine::default() };
        return (Applied { fields, known: initial, faults: Vec::new(), source: Source::Initial }, mine);
    };
    let (mut known, faults) = Flags::read(&copy.fields, &initial, route);
    let mut mine = Mine { sealed: copy.fields.clone(), in_force: copy.fields.clone(), ..Mine::default() };
    // The epoch of another store says nothing in this one: that copy fills an empty store, and yields to one that has flags.
    if copy.store == store {
        (mine.epoch, mine.seal) = (copy.epoch, copy.seal.clone());
        (known.epoch, known.seal) = (copy.epoch, copy.seal);
    }
    (Applied { fields: copy.fields, known, faults, source: Source::Disk }, mine)
}

/// What goes to disk of a route.
fn copy_of(route: &Route, mine: &Mine, store: &str) -> Copy {
    Copy { route: route.name.clone(), store: store.to_owned(), epoch: mine.epoch, seal: mine.seal.clone(), fields: mine.in_force.clone() }
}
