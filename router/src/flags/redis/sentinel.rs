//! Sentinels: who is the primary? All that are known are asked at once, and the newest election (the highest configuration epoch) is
//! believed, so that one sentinel behind a broken network does not send a router to a primary that was replaced.
//!
//! While a session lasts they are asked again four times a second, because a primary that was replaced may stay reachable: a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::task::AbortHandle;

use super::link::is_lost;
use super::reach::Reach;
use super::signals::Signals;
use crate::config::Node;

/// How often they are asked while all is well.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Sentinels beyond this many are not asked; deployments have three or five.
const MOST_SENTINELS: usize = 16;

/// The primary, and in which election it became that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) node: Node,
    pub(super) epoch: u64,
}

/// All sentinels that are known: those of the config, and those that they named.
#[derive(Debug)]
pub(super) struct Sentinels {
    reach: Arc<Reach>,
    /// The name under which they watch it.
    primary: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    learnt: BTreeSet<Node>,
    connections: BTreeMap<Node, MultiplexedConnection>,
}

impl Sentinels {
    pub(super) fn new(reach: Arc<Reach>, primary: String) -> Sentinels {
        Sentinels { reach, primary, known: Mutex::new(Known::default()) }
    }

    /// Where the primary is, by most of the sentinels; by fewer when the others do not answer.
    ///
    /// # Errors
    /// None of them answered, or none knows a primary of this name.
    pub(super) async fn ask(&self) -> RedisResult<Primary> {
        let nodes = self.nodes();
        let most = nodes.len() / 2 + 1;
        let ask = |node| async move { (node, self.ask_one(node).await) };
        let mut asked: FuturesUnordered<_> = nodes.iter().map(ask).collect();
        let mut learnt = BTreeSet::new();
        let (mut best, mut failed, mut answers) = (None::<Primary>, None, 0);
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok((primary, others)) => {
                    answers += 1;
                    // A sentinel does not name itself.
                    learnt.extend(others.into_iter().chain([node.clone()]));
                    if best.as_ref().is_none_or(|best| primary.epoch > best.epoch) {
                        best = Some(primary);
                    }
                }
                Err(error) => failed = Some(error),
            }
            if answers >= most {
                break;
            }
        }
        if answers > 0 {
            self.locked().learnt = learnt;
        }
        best.ok_or_else(|| failed.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "there are no sentinels").into()))
    }

    /// Those of the config first, so that nothing that was learnt pushes them out.
    fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.reach.redis.nodes.clone();
        nodes.extend(self.locked().learnt.iter().filter(|node| !self.reach.redis.nodes.contains(node)).cloned());
        nodes.truncate(MOST_SENTINELS.max(self.reach.redis.nodes.len()));
        nodes
    }

    async fn ask_one(&self, node: &Node) -> RedisResult<(Primary, Vec<Node>)> {
        let kept = self.locked().connections.get(node).cloned();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = self.reach.ask_sentinel(node).await.map_err(|error| about(node, error))?;
                self.locked().connections.insert(node.clone(), connection.clone());
                connection
            }
        };
        let answer = question(connection, &self.primary).await;
        if answer.as_ref().is_err_and(is_lost) {
            self.locked().connections.remove(node);
        }
        answer.map_err(|error| about(node, error))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn question(mut connection: MultiplexedConnection, name: &str) -> RedisResult<(Primary, Vec<Node>)> {
    let ask = |what: &str| {
        let mut command = redis::cmd("SENTINEL");
        command.arg(what).arg(name);
        command
    };
    // The first knows of a promotion earlier than the second.
    let address: Option<(String, u16)> = ask("GET-MASTER-ADDR-BY-NAME").query_async(&mut connection).await?;
    let unknown = || RedisError::from((ErrorKind::Client, "the sentinels watch no primary of this name", name.to_owned()));
    let (host, port) = address.ok_or_else(unknown)?;
    let primary: BTreeMap<String, String> = ask("MASTER").query_async(&mut connection).await?;
    let epoch = primary.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let others: Vec<BTreeMap<String, String>> = ask("SENTINELS").query_async(&mut connection).await?;
    let node = |other: BTreeMap<String, String>| Some(Node { host: other.get("ip")?.clone(), port: other.get("port")?.parse().ok()? });
    Ok((Primary { node: Node { host, port }, epoch }, others.into_iter().filter_map(node).collect()))
}

/// A sentinel's refusal says nothing of the server that holds the flags, nor of the user there.
fn about(node: &Node, error: RedisError) -> RedisError {
    let hint = match error.code() {
        Some("WRONGPASS" | "NOAUTH") => "; check state.sentinel_username and its password",
        Some("NOPERM") => "; the user of the sentinels needs the commands listed in docs/FLAGS.md",
        _ => "",
    };
    let kind = if error.code().is_some() { ErrorKind::Client } else { error.kind() };
    (kind, "sentinel", format!("{node}: {error}{hint}")).into()
}

/// Asks on while a session lasts. Dropping it ends that.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

#[derive(Default)]
struct Seen {
    moved_to: Option<Node>,
    concern: Option<String>,
}

impl Watch {
    pub(super) fn start(sentinels: Arc<Sentinels>, mut at: Primary, signals: Arc<Signals>) -> Watch {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let telling = seen.clone();
        let watching = async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                let answer = sentinels.ask().await;
                let mut seen = telling.lock().unwrap_or_else(PoisonError::into_inner);
                match answer {
                    // An older election is the word of a sentinel that has not heard yet.
                    Ok(primary) if primary.epoch >= at.epoch => {
                        seen.concern = None;
                        if primary.node != at.node {
                            seen.moved_to = Some(primary.node.clone());
                            signals.tell();
                        }
                        at.epoch = primary.epoch;
                    }
                    Ok(_) => {}
                    Err(error) => seen.concern = Some(format!("the sentinels do not say who the primary is ({error}): it stays as it is")),
                }
            }
        };
        Watch { seen, task: tokio::spawn(watching).abort_handle() }
    }

    /// Where the primary is now, when it is no longer where the session is.
    pub(super) fn moved_to(&self) -> Option<Node> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).moved_to.clone()
    }

    pub(super) fn concern(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).concern.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
