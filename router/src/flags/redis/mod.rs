//! Flags in Redis: one hash a route that people read and flip, obeyed by every router within milliseconds.
//!
//! [`sync`] is one task that owns the connection and everything that is written ([`step`] for one route, [`report`] for heartbeats);
//! [`link`] is what goes over the wire; the Lua scripts beside are the atomic steps. Nothing here is on the query path.

mod fleet;
mod link;
mod report;
mod signals;
mod step;
mod succeed;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::fleet::Fleet;
use self::link::{Address, Keys};
use self::sync::{Request, Sync};
use super::copies::Copies;
use super::disk::{Copy, Disk};
use super::judge::{Mine, without_epoch};
use super::published::{Applied, Published, Source};
use super::{Change, ChangeError, Flags, FlagsError, HistoryError, LedgerEntry, RouterSeen, identity};
use crate::config::{Config, Route};
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
    fleet: watch::Receiver<Fleet>,
    admin: Arc<Mutex<String>>,
}

impl RedisStore {
    /// Starts from the copies on disk and connects; waits a second at most for Redis. Without `is_owner` nothing is written to disk
    /// and nothing is reported before [`RedisStore::set_owner`].
    pub(crate) async fn open(config: &Arc<Config>, url: &str, is_owner: bool) -> Result<(Arc<Published>, RedisStore), FlagsError> {
        let address = Address::parse(url).map_err(|source| FlagsError::Address { source })?;
        let disk = Disk::open(&config.state.data_dir)?;
        let (mut starts, mut mines) = (Vec::new(), Vec::new());
        for route in &config.routes {
            let (applied, mine) = start(route, &disk, &address.name);
            starts.push(applied);
            mines.push(mine);
        }
        let published = Arc::new(Published::new(config.clone(), starts));
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (fleet_sender, fleet) = watch::channel(Fleet::default());
        let (heard, first_heard) = oneshot::channel();
        let admin = Arc::new(Mutex::new(config.listen.admin.to_string()));
        let sync = Sync {
            published: published.clone(),
            keys: config.routes.iter().map(|route| Keys::of(&route.name)).collect(),
            address,
            mines,
            id: identity::router_id(config),
            incarnation: identity::random_hex(8),
            admin: admin.clone(),
            copies: Copies::start(disk.clone()),
            disk,
            is_owner,
            fleet: fleet_sender,
            notes: BTreeMap::new(),
            first_heard: Some(heard),
            is_report_due: false,
        };
        tokio::spawn(sync.run(inbox));
        let _ = tokio::time::timeout(STARTUP_WAIT, first_heard).await;
        Ok((published, RedisStore { requests, fleet, admin }))
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

    pub(crate) fn routers(&self, published: &Published, index: RouteIndex) -> Vec<RouterSeen> {
        let Some(route) = published.route(index) else { return Vec::new() };
        let timeout = published.config().state.router_timeout;
        self.fleet.borrow().on_route(&route.name, timeout, Instant::now())
    }

    pub(crate) fn set_admin(&self, address: String) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
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
