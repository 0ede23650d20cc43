//! A cluster: one connection with tracking for each node that has keys of ours, and calls that go where their slot is.
//!
//! ```text
//! call -> the slot's owner -> answer
//!              |  MOVED: the owner from now on; ASK: for this call (the slot is on its way there)
//!              v
//!         connect, tracking on, all routes are marked to be read again -> the call once more
//! ```
//!
//! `keeper` looks after the connections and the map of slots meanwhile. A route whose node is away does not hold up the
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::task::AbortHandle;

use super::keeper;
use super::keys::{Keys, ROUTERS, slot_of};
use super::link::{Call, Link, are_keys_apart, comes_back_later, is_lost};
use super::reach::Reach;
use super::signals::Signals;
use super::slots::{SlotMap, redirected};
use crate::config::Node;

/// How often one call is sent again: for redirections, and while a node cannot answer.
const ROUNDS: u32 = 10;
/// Before a call is sent again that the cluster could not answer just now.
const STAND_ASIDE: Duration = Duration::from_millis(20);

/// Nodes that were heard of, also in sessions before: the nodes of the config may all be gone one day.
#[derive(Debug)]
pub(super) struct Learnt {
    written: Vec<Node>,
    named: Mutex<Vec<Node>>,
}

impl Learnt {
    pub(super) fn new(written: Vec<Node>) -> Learnt {
        Learnt { written, named: Mutex::new(Vec::new()) }
    }

    /// Those that the cluster named last, then those of the config.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nodes.extend(self.written.iter().filter(|node| !nodes.contains(node)).cloned().collect::<Vec<_>>());
        nodes
    }

    pub(super) fn learn(&self, named: &[Node]) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named.to_vec();
    }
}

/// A cluster's connections. Dropping it ends what looks after them.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

/// What calls and the keeper share.
pub(super) struct Shared {
    pub(super) reach: Arc<Reach>,
    pub(super) learnt: Arc<Learnt>,
    pub(super) signals: Arc<Signals>,
    keys: Vec<Keys>,
    /// Slots that have keys of ours.
    pub(super) slots: BTreeSet<u16>,
    nodes: Mutex<Nodes>,
    /// One connection attempt at a time, so that nobody connects twice to one node.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct Nodes {
    pub(super) map: SlotMap,
    /// Owners that a MOVED told of since the map was read.
    pub(super) moved: BTreeMap<u16, Node>,
    pub(super) links: BTreeMap<Node, Arc<Link>>,
    /// A call was not answered for a reason that passes: everything is to be read again.
    pub(super) is_unsettled: bool,
    /// Why the cluster cannot be looked at.
    pub(super) concern: Option<String>,
}

impl Nodes {
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        self.moved.get(&slot).or_else(|| self.map.owner(slot))
    }

    fn live(&self, node: &Node) -> Option<&Arc<Link>> {
        self.links.get(node).filter(|link| !link.is_gone())
    }
}

impl Cluster {
    pub(super) async fn connect(reach: &Arc<Reach>, learnt: &Arc<Learnt>, keys: &[Keys], signals: &Arc<Signals>) -> RedisResult<Cluster> {
        let slots = keys.iter().map(|keys| keys.slot).chain([slot_of(ROUTERS)]).collect();
        let (reach, learnt, signals) = (reach.clone(), learnt.clone(), signals.clone());
        let (nodes, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        let shared = Arc::new(Shared { reach, learnt, signals, keys: keys.to_vec(), slots, nodes, connecting });
        keeper::settle(&shared).await?;
        let keeper = tokio::spawn(keeper::keep(shared.clone())).abort_handle();
        Ok(Cluster { shared, keeper })
    }

    /// Brings a call to the owner of its slot, wherever that is.
    ///
    /// # Errors
    /// Also [`are_keys_apart`], at once: only the caller knows how to ask for each key by itself.
    pub(super) async fn run(&self, slot: u16, call: &Call) -> RedisResult<Value> {
        let mut asked: Option<Node> = None;
        let mut round = 0;
        loop {
            let (link, is_asking) = match asked.take() {
                Some(node) => (self.shared.link_to(&node).await?, true),
                None => (self.shared.owner(slot).await?, false),
            };
            let error = match link.run(call, is_asking).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            round += 1;
            match error.kind() {
                _ if round >= ROUNDS => return Err(self.shared.unsettled(error)),
                ErrorKind::Server(ServerErrorKind::Moved) => {
                    let Some(node) = redirected(&error, &link.node) else { return Err(self.shared.unsettled(error)) };
                    self.shared.moved(slot, node);
                }
                _ if are_keys_apart(&error) => return Err(error),
                ErrorKind::Server(ServerErrorKind::Ask) => asked = redirected(&error, &link.node),
                _ if comes_back_later(&error) => tokio::time::sleep(STAND_ASIDE).await,
                _ if is_lost(&error) => {
                    self.shared.lost(&link);
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// No connection is left.
    pub(super) fn is_cut_off(&self) -> bool {
        self.shared.nodes().links.values().all(|link| link.is_gone())
    }

    /// The node that answers for this slot, while it is connected.
    pub(super) fn node_of(&self, slot: u16) -> Option<String> {
        let nodes = self.shared.nodes();
        nodes.owner(slot).filter(|node| nodes.live(node).is_some()).map(ToString::to_string)
    }

    pub(super) fn concern(&self) -> Option<String> {
        let nodes = self.shared.nodes();
        let away: BTreeSet<String> = self
            .shared
            .slots
            .iter()
            .filter_map(|slot| nodes.owner(*slot))
            .filter(|node| nodes.live(node).is_none())
            .map(ToString::to_string)
            .collect();
        let away: Vec<String> = away.into_iter().collect();
        if away.is_empty() {
            nodes.concern.clone()
        } else {
            Some(format!("away: {}; the flags kept there stay as they are", away.join(", ")))
        }
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.shared.nodes().links.values().cloned().collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    pub(super) fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a slot's owner. An owner that is away is the keeper's to reach: nobody waits for it here.
    async fn owner(&self, slot: u16) -> RedisResult<Arc<Link>> {
        let (owner, was_moved) = {
            let nodes = self.nodes();
            let owner = nodes.owner(slot).cloned();
            if let Some(link) = owner.as_ref().and_then(|owner| nodes.live(owner)) {
                return Ok(link.clone());
            }
            (owner, nodes.moved.contains_key(&slot))
        };
        match owner {
            Some(node) if was_moved => self.link_to(&node).await,
            Some(node) => {
                self.signals.amiss();
                Err((ErrorKind::Io, "the node that has this slot is away", node.to_string()).into())
            }
            None => {
                self.signals.amiss();
                Err((ErrorKind::Io, "no node of the cluster has this slot", slot.to_string()).into())
            }
        }
    }

    /// A connection to this node with tracking on. A new one has everything read again: what was announced before it was there is lost.
    pub(super) async fn link_to(&self, node: &Node) -> RedisResult<Arc<Link>> {
        let _one = self.connecting.lock().await;
        if let Some(link) = self.nodes().live(node) {
            return Ok(link.clone());
        }
        match Link::connect(&self.reach, node, &self.keys, &self.signals).await {
            Ok(link) => Ok(self.add(link)),
            Err(error) => {
                self.nodes().moved.retain(|_, owner| owner != node);
                self.signals.amiss();
                Err(error)
            }
        }
    }

    pub(super) async fn connect(&self, node: &Node) -> RedisResult<Link> {
        Link::connect(&self.reach, node, &self.keys, &self.signals).await
    }

    pub(super) fn add(&self, link: Link) -> Arc<Link> {
        let link = Arc::new(link);
        tracing::info!(node = %link.node, "a node of the flag store is heard");
        self.nodes().links.insert(link.node.clone(), link.clone());
        self.signals.touch_all();
        link
    }

    fn moved(&self, slot: u16, node: Node) {
        tracing::info!(slot, %node, "a slot of the flag store has moved");
        self.nodes().moved.insert(slot, node);
        self.signals.amiss();
    }

    fn lost(&self, link: &Arc<Link>) {
        let mut nodes = self.nodes();
        if nodes.links.get(&link.node).is_some_and(|kept| Arc::ptr_eq(kept, link)) {
            nodes.links.remove(&link.node);
        }
        drop(nodes);
        self.signals.amiss();
    }

    /// The cluster is between two states: whoever looks after it reads again when it has settled.
    fn unsettled(&self, error: RedisError) -> RedisError {
        self.nodes().is_unsettled = true;
        self.signals.amiss();
        error
    }
}
