//! Looks after a cluster's connections: notices elections, moved slots and dead nodes, and connects to whoever owns slots of ours now.
//!
//! A cheap question (the epoch) goes to the connected nodes four times a second. Where anything is amiss, all nodes that are known are asked
//! for the map of slots, and the one with the highest epoch is believed, so that a node behind a broken network misleads nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, Value};

use super::cluster::Shared;
use super::slots::{SlotMap, epoch_of};
use crate::config::Node;

/// How often the epoch is asked for while all is well.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two attempts while something is amiss.
const PAUSE: Duration = Duration::from_millis(50);
/// So many nodes are asked for the map; more would say the same.
const MOST_ASKED: usize = 12;

/// Runs until it is aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let is_amiss = tokio::time::timeout(LOOK_EVERY, shared.signals.until_amiss()).await.is_ok();
        if is_amiss || is_stale(&shared).await {
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = settle(&shared).await {
                shared.nodes().concern = Some(format!("the cluster does not say who has which slots: {error}"));
                shared.signals.amiss();
            }
        }
    }
}

/// Whether the map of slots may be out of date, or a node is not connected that should be.
async fn is_stale(shared: &Shared) -> bool {
    let (links, epoch, is_whole) = {
        let nodes = shared.nodes();
        let links: Vec<_> = nodes.links.values().cloned().collect();
        let is_whole = links.iter().all(|link| !link.is_gone())
            && shared.slots.iter().all(|slot| nodes.owner(*slot).is_some_and(|owner| nodes.links.contains_key(owner)));
        (links, nodes.map.epoch, is_whole)
    };
    let ask = |link: Arc<super::link::Link>| async move { epoch_of(&cluster_info(link.connection()).await?, &link.node) };
    let epochs = futures_util::future::join_all(links.into_iter().map(ask)).await;
    let newest = epochs.into_iter().filter_map(|epoch: RedisResult<u64>| epoch.ok()).max();
    !is_whole || newest != Some(epoch)
}

/// Asks for the map, connects to those who own slots of ours, and has everything read again where anything changed.
///
/// # Errors
/// No node says who has which slots, or none that has slots of ours can be reached.
pub(super) async fn settle(shared: &Arc<Shared>) -> RedisResult<()> {
    let map = newest_map(shared).await?;
    shared.learnt.learn(&map.nodes);
    let missing: BTreeSet<Node> = {
        let mut nodes = shared.nodes();
        let before: Vec<Option<Node>> = shared.slots.iter().map(|slot| nodes.owner(*slot).cloned()).collect();
        nodes.map = map;
        nodes.moved.clear();
        nodes.concern = None;
        // A node without slots is not in the map, and may be the one that a slot is on its way to: it is kept as long as it lives.
        nodes.links.retain(|_, link| !link.is_gone());
        let owners: Vec<Option<Node>> = shared.slots.iter().map(|slot| nodes.owner(*slot).cloned()).collect();
        if owners != before || std::mem::take(&mut nodes.is_unsettled) {
            shared.signals.touch_all();
        }
        owners.into_iter().flatten().filter(|owner| !nodes.links.contains_key(owner)).collect()
    };
    let mut connecting: FuturesUnordered<_> = missing.iter().map(|node| shared.connect(node)).collect();
    let mut failed = None;
    while let Some(connected) = connecting.next().await {
        match connected {
            Ok(link) => drop(shared.add(link)),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if shared.nodes().links.is_empty() => Err(error),
        _ => Ok(()),
    }
}

/// The map with the highest epoch among the answers of more than half of those asked; of fewer when the others do not answer.
async fn newest_map(shared: &Shared) -> RedisResult<SlotMap> {
    let mut nodes = shared.learnt.nodes();
    let is_linked = |node: &Node| shared.nodes().links.get(node).is_some_and(|link| !link.is_gone());
    nodes.sort_by_key(|node| !is_linked(node));
    nodes.truncate(MOST_ASKED);
    let most = nodes.len() / 2 + 1;
    let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| ask(shared, node)).collect();
    let (mut best, mut failed, mut answers) = (None::<SlotMap>, None, 0);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(map) => {
                answers += 1;
                if best.as_ref().is_none_or(|best| map.epoch > best.epoch) {
                    best = Some(map);
                }
            }
            Err(error) => failed = Some(error),
        }
        if answers >= most {
            break;
        }
    }
    best.ok_or_else(|| failed.unwrap_or_else(|| (ErrorKind::Client, "no node is known").into()))
}

async fn ask(shared: &Shared, node: &Node) -> RedisResult<SlotMap> {
    // What a server refuses is known by its code, and says what to do about it.
    let about = |error: RedisError| match error.code() {
        Some(_) => error,
        None => RedisError::from((error.kind(), "node", format!("{node}: {error}"))),
    };
    let linked = shared.nodes().links.get(node).filter(|link| !link.is_gone()).map(|link| link.connection());
    let mut connection = match linked {
        Some(connection) => connection,
        None => shared.reach.ask_server(node).await.map_err(about)?,
    };
    let info = cluster_info(connection.clone()).await.map_err(about)?;
    let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await.map_err(about)?;
    SlotMap::read(&info, &slots, node)
}

async fn cluster_info(mut connection: MultiplexedConnection) -> RedisResult<String> {
    redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await
}
