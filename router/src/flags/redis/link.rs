//! One connection to one server, with tracking on. Knows nothing of what is asked, nor of other servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, ToRedisArgs, Value};

use super::keys::{KEYS_PREFIX, Keys};
use super::reach::{Reach, timeouts};
use super::signals::Signals;
use crate::config::Node;

/// Each write makes Redis try all prefixes that are tracked: 1,000 take it 0.2 ms, 10,000 take 2 ms and 3 s to register. With more routes
/// than this, one prefix is tracked that all their keys share, and announcements of other keys are ignored.
const MOST_PREFIXES: usize = 100;

/// A command, or a script that is loaded where it is missing. All its keys are in one slot.
pub(super) struct Call {
    command: Cmd,
    script: Option<&'static Script>,
}

impl Call {
    pub(super) fn command(name: &str) -> Call {
        Call { command: redis::cmd(name), script: None }
    }

    pub(super) fn script(script: &'static Script, keys: &[&str]) -> Call {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        Call { command, script: Some(script) }
    }

    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Call {
        self.command.arg(argument);
        self
    }
}

/// A live connection with tracking on.
pub(super) struct Link {
    pub(super) node: Node,
    connection: MultiplexedConnection,
    is_gone: Arc<AtomicBool>,
}

impl Link {
    /// Connects and turns tracking on. Whatever changes from here on is announced, so reading comes after.
    pub(super) async fn connect(reach: &Reach, node: &Node, keys: &[Keys], signals: &Arc<Signals>) -> RedisResult<Link> {
        let is_gone = Arc::new(AtomicBool::new(false));
        let (hearing, gone) = (signals.clone(), is_gone.clone());
        let config = timeouts().set_push_sender(move |push| {
            hearing.hear(&push, &gone);
            Ok::<(), redis::aio::SendError>(())
        });
        let connection = reach.server(node)?.get_multiplexed_async_connection_with_config(&config).await?;
        let link = Link { node: node.clone(), connection, is_gone };
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        let shared = [KEYS_PREFIX.to_owned()];
        let prefixes: Vec<&String> =
            if keys.len() <= MOST_PREFIXES { keys.iter().map(|keys| &keys.flags).collect() } else { shared.iter().collect() };
        for prefix in prefixes {
            command.arg("PREFIX").arg(prefix);
        }
        command.exec_async(&mut link.connection.clone()).await?;
        Ok(link)
    }

    /// `is_asking`: the slot is on its way here, and the node that still owns it sent us.
    pub(super) async fn run(&self, call: &Call, is_asking: bool) -> RedisResult<Value> {
        let answer = self.send(&call.command, is_asking).await;
        match (&answer, call.script) {
            (Err(error), Some(script)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(&mut self.connection.clone()).await?;
                self.send(&call.command, is_asking).await
            }
            _ => answer,
        }
    }

    async fn send(&self, command: &Cmd, is_asking: bool) -> RedisResult<Value> {
        let mut connection = self.connection.clone();
        if !is_asking {
            return command.query_async(&mut connection).await;
        }
        // ASKING is for the very next command, so nothing may come between.
        let mut pair = redis::pipe();
        pair.cmd("ASKING").add_command(command.clone());
        let answers = connection.send_packed_commands(&pair, 1, 1).await?;
        answers.into_iter().next_back().unwrap_or(Value::Nil).extract_error()
    }

    /// The connection was closed.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// The lines of `INFO section`.
    pub(super) async fn info(&self, section: &str) -> RedisResult<String> {
        redis::cmd("INFO").arg(section).query_async(&mut self.connection.clone()).await
    }

    /// What a node says of its cluster: see [`super::slots`].
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// The value of `name` in what `INFO` or `CLUSTER INFO` said.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether the server is of no more use as it is, so that the next thing is to connect again. Other errors are its answer to one command.
pub(super) fn is_lost(error: &RedisError) -> bool {
    comes_back_later(error) || error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() || error.is_connection_dropped()
}

/// Nothing was done, because some of the call's keys are at another node: their slot is on its way there. A call with one key never fails so.
pub(super) fn are_keys_apart(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain)
}

/// The server did nothing of what it was asked: its memory is full, or its disk.
pub(super) fn has_no_room(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF"))
}

/// The server did nothing of what it was asked, and says that it will later.
pub(super) fn comes_back_later(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain
        )
    )
}
