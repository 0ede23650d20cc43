//! What the servers of a store are, and allow, as a router would find them: for whoever checks a set-up. Nothing is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::RedisResult;
use tokio::time::Instant;

use super::commands::read_as;
use super::keys::Keys;
use super::link::{Call, Link, info_field};
use super::reach::Reach;
use super::report::eviction_problem;
use super::session::{Session, Way};
use super::sync::explain;
use crate::config::{RedisState, Route};

/// Of so many routes the flags are read: those of one set-up are reached alike.
const ROUTES_READ: usize = 20;
/// The clock is asked for so often; the quickest answer says most.
const CLOCK_READS: usize = 5;
/// What a router writes with. A script that may not write anything is refused each of these, by the user's rights first.
const WRITES: &str = "#!lua flags=no-writes
local denied = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err and (string.find(answer.err, 'ACL') or string.find(answer.err, 'run this command')
    or string.find(answer.err, 'NOPERM') or string.find(answer.err, 'no permissions')) then
    denied[#denied + 1] = string.lower((...))
  end
end
try('HSET', KEYS[1], 'f', 'v')
try('HDEL', KEYS[1], 'f')
try('SET', KEYS[1], 'v')
try('DEL', KEYS[1])
try('XADD', KEYS[1], '*', 'f', 'v')
try('ZADD', KEYS[1], '0', 'm')
try('ZREM', KEYS[1], 'm')
try('PEXPIRE', KEYS[1], '1')
return denied";

/// A store, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Each server that has flags of the config's routes.
    pub servers: Vec<ServerSeen>,
    /// What the router would tell of sentinels and clusters.
    pub concern: Option<String>,
    /// Why flags and ledgers cannot be read.
    pub unread: Option<String>,
    /// Commands that the user lacks; `Err` with why that is not known.
    pub denied: Result<Vec<String>, String>,
}

/// One server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSeen {
    /// `host:port`.
    pub node: String,
    /// Its version.
    pub version: Option<String>,
    /// `master` or `slave`.
    pub role: Option<String>,
    /// Replicas that follow it.
    pub replicas: Option<u64>,
    /// Whether every write is in a file.
    pub is_append_only: Option<bool>,
    /// Whether the last snapshot and the last write of that file were good.
    pub is_saving_well: bool,
    /// It may drop flags when memory runs out: how, and what to set.
    pub eviction: Option<String>,
    /// A round trip.
    pub answers_in: Duration,
    /// What its clock is ahead of this machine's.
    pub ahead_ms: i64,
    /// Why nothing more is known of it.
    pub why: Option<String>,
}

/// Looks at the store of a config.
///
/// # Errors
/// In words that say what to do: it cannot be reached, or says nothing.
pub(crate) async fn survey(redis: &RedisState, routes: &[Route]) -> Result<Survey, String> {
    let keys: Vec<Keys> = routes.iter().map(|route| Keys::of(&route.name)).collect();
    let session = Session::connect(&Way::new(Reach::new(redis)), &keys).await.map_err(|error| explain(&error))?;
    let mut servers = Vec::new();
    for link in session.links() {
        servers.push(look_at(&link).await);
    }
    let mut unread = None;
    for keys in keys.iter().take(ROUTES_READ) {
        if let Err(error) = read(&session, keys).await {
            unread = Some(explain(&error));
            break;
        }
    }
    let denied = match keys.first() {
        Some(keys) => denied(&session, keys).await.map_err(|error| explain(&error)),
        None => Ok(Vec::new()),
    };
    Ok(Survey { servers, concern: session.concern(), unread, denied })
}

/// As a router reads, but for what it keeps.
async fn read(session: &Session, keys: &Keys) -> RedisResult<()> {
    session.read(keys).await?;
    session.good(keys).await?;
    session.lines(keys, "+", 1).await.map(drop)
}

async fn denied(session: &Session, keys: &Keys) -> RedisResult<Vec<String>> {
    let call = Call::command("EVAL").arg(WRITES).arg(1).arg(&keys.flags);
    read_as(session.run(keys.slot, &call).await?)
}

async fn look_at(link: &Link) -> ServerSeen {
    let mut seen = ServerSeen { node: link.node.to_string(), ..ServerSeen::default() };
    if let Err(error) = ask(link, &mut seen).await {
        seen.why = Some(explain(&error));
    }
    seen
}

async fn ask(link: &Link, seen: &mut ServerSeen) -> RedisResult<()> {
    (seen.answers_in, seen.ahead_ms) = clock(link).await?;
    let info = link.info("default").await?;
    let field = |name: &str| info_field(&info, name).map(str::to_owned);
    seen.version = field("redis_version");
    seen.role = field("role");
    seen.replicas = field("connected_slaves").and_then(|replicas| replicas.parse().ok());
    seen.is_append_only = field("aof_enabled").map(|enabled| enabled == "1");
    let is_well = |name: &str| field(name).is_none_or(|status| status == "ok");
    seen.is_saving_well = is_well("rdb_last_bgsave_status") && is_well("aof_last_write_status");
    seen.eviction = eviction_problem(&info, &link.node);
    Ok(())
}

/// The quickest of some round trips, and what the server's clock was ahead then.
async fn clock(link: &Link) -> RedisResult<(Duration, i64)> {
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..CLOCK_READS {
        let (asked, before) = (Instant::now(), unix_micros());
        let (seconds, micros): (i64, i64) = read_as(link.run(&Call::command("TIME"), false).await?)?;
        let took = asked.elapsed();
        let halfway = before.saturating_add(i64::try_from(took.as_micros() / 2).unwrap_or(0));
        let ahead_ms = (seconds.saturating_mul(1_000_000).saturating_add(micros) - halfway) / 1_000;
        if best.is_none_or(|(quickest, _)| took < quickest) {
            best = Some((took, ahead_ms));
        }
    }
    Ok(best.unwrap_or_default())
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
