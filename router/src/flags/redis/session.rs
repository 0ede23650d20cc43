//! The connections to the store at one time: to one server, to the primary that sentinels name, or to the nodes of a cluster.
//!
//! This is the boundary behind which topologies stand: [`Session::connect`] finds the servers and turns tracking on, [`Session::run`]
//! brings a call to the server that has its slot.
//!
//! Invariant: what a server holds is read after tracking is on there, so that no change falls between.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::cluster::{Cluster, Learnt};
use super::keys::Keys;
use super::link::{Call, Link, info_field};
use super::reach::Reach;
use super::sentinel::{Sentinels, Watch};
use super::signals::Signals;
use crate::config::Topology;

/// How the store is found, over and over.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) reach: Arc<Reach>,
    sentinels: Option<Arc<Sentinels>>,
    learnt: Arc<Learnt>,
}

impl Way {
    pub(super) fn new(reach: Reach) -> Way {
        let reach = Arc::new(reach);
        let sentinels = match &reach.redis.topology {
            Topology::Sentinel { primary } => Some(Arc::new(Sentinels::new(reach.clone(), primary.clone()))),
            Topology::Single | Topology::Cluster => None,
        };
        let learnt = Arc::new(Learnt::new(reach.redis.nodes.clone()));
        Way { reach, sentinels, learnt }
    }
}

/// Live connections, with tracking on.
pub(super) struct Session {
    pub(super) signals: Arc<Signals>,
    servers: Servers,
}

enum Servers {
    One(Arc<Link>),
    Watched(Arc<Link>, Watch),
    Cluster(Cluster),
}

impl Session {
    /// Finds the servers, connects and turns tracking on.
    ///
    /// # Errors
    /// None of the servers can be reached, or none says where the flags are.
    pub(super) async fn connect(way: &Way, keys: &[Keys]) -> RedisResult<Session> {
        let signals = Arc::new(Signals::new(keys.iter().map(|keys| keys.flags.clone()).collect()));
        let servers = match (&way.reach.redis.topology, &way.sentinels) {
            (Topology::Cluster, _) => Servers::Cluster(Cluster::connect(&way.reach, &way.learnt, keys, &signals).await?),
            (_, Some(sentinels)) => {
                let found = sentinels.ask().await?;
                let link = Link::connect(&way.reach, &found.node, keys, &signals).await?;
                is_primary(&link).await?;
                let watch = Watch::start(sentinels.clone(), found, signals.clone());
                Servers::Watched(Arc::new(link), watch)
            }
            (_, None) => {
                let node = way.reach.redis.nodes.first().ok_or((ErrorKind::InvalidClientConfig, "no address"))?;
                Servers::One(Arc::new(Link::connect(&way.reach, node, keys, &signals).await?))
            }
        };
        Ok(Session { signals, servers })
    }

    /// Brings a call to the server that has this slot.
    pub(super) async fn run(&self, slot: u16, call: &Call) -> RedisResult<Value> {
        match &self.servers {
            Servers::One(link) => link.run(call, false).await,
            Servers::Watched(link, _) => link.run(call, false).await.map_err(|error| match error.kind() {
                // It was the primary, and no longer is: nothing was written, and the sentinels know who is now.
                ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                    let no_primary = (ErrorKind::Server(ServerErrorKind::MasterDown), "no longer the primary", link.node.to_string());
                    RedisError::from(no_primary)
                }
                _ => error,
            }),
            Servers::Cluster(cluster) => cluster.run(slot, call).await,
        }
    }

    /// Why this session is over, if it is. Looked at after each of its signals.
    pub(super) fn ended(&self) -> Option<RedisError> {
        let closed = |link: &Link| (ErrorKind::Io, "the connection was closed", link.node.to_string()).into();
        match &self.servers {
            Servers::One(link) => link.is_gone().then(|| closed(link)),
            Servers::Watched(link, watch) => {
                let moved = |node| (ErrorKind::Io, "the sentinels name another primary", format!("{node}")).into();
                watch.moved_to().map(moved).or_else(|| link.is_gone().then(|| closed(link)))
            }
            Servers::Cluster(cluster) => {
                cluster.is_cut_off().then(|| (ErrorKind::Io, "no node of the cluster that has flags can be reached").into())
            }
        }
    }

    /// Whether other routes go on although a call failed like this: a cluster loses one node, and the others answer.
    pub(super) fn outlives(&self) -> bool {
        match &self.servers {
            Servers::One(_) | Servers::Watched(..) => false,
            Servers::Cluster(cluster) => !cluster.is_cut_off(),
        }
    }

    /// The server that answers for this slot.
    pub(super) fn node_of(&self, slot: u16) -> Option<String> {
        match &self.servers {
            Servers::One(link) | Servers::Watched(link, _) => Some(link.node.to_string()),
            Servers::Cluster(cluster) => cluster.node_of(slot),
        }
    }

    /// What an operator should see to in the servers themselves.
    pub(super) fn concern(&self) -> Option<String> {
        match &self.servers {
            Servers::One(_) => None,
            Servers::Watched(_, watch) => watch.concern(),
            Servers::Cluster(cluster) => cluster.concern(),
        }
    }

    /// All connections, for what is to be asked of each server.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        match &self.servers {
            Servers::One(link) | Servers::Watched(link, _) => vec![link.clone()],
            Servers::Cluster(cluster) => cluster.links(),
        }
    }
}

/// A sentinel may still name a server that was demoted meanwhile, or one that is not promoted yet.
async fn is_primary(link: &Link) -> RedisResult<()> {
    let info = link.info("replication").await?;
    match info_field(&info, "role") {
        Some("slave") => Err((ErrorKind::Io, "the sentinels name a replica", link.node.to_string()).into()),
        _ => Ok(()),
    }
}
