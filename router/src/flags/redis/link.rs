//! One connection to Redis: what is sent and what comes back. Knows nothing of what to do about it.
//!
//! This is the boundary behind which other topologies belong: whoever can connect, track, read and write as here can carry flags.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult, Script, ServerErrorKind,
};

use super::signals::Signals;
use crate::flags::edit::{HASH_BYTES, HASH_FIELDS, WRITABLE};
use crate::flags::judge::{Stored, Write};
use crate::flags::{EXPERIMENTS_BYTES, Fields, LedgerEntry};

/// A connection, with its handshake, may take this long; then another attempt is made.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(750);
/// An answer may take this long; then the server counts as gone. A paused server is found out this way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// About how many entries a route's ledger keeps.
const LEDGER_ENTRIES: usize = 10_000;
/// Each write makes Redis try all prefixes that are tracked: 1,000 take it 0.2 ms, 10,000 take 2 ms and 3 s to register. With more routes
/// than this, one prefix is tracked that all their keys share, and announcements of other keys are ignored.
const MOST_PREFIXES: usize = 100;
/// What the keys of every route start with.
const KEYS_PREFIX: &str = "{switchback:";

static READ: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("read.lua"))));
static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("write.lua"))));
static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("heartbeat.lua"))));

/// The keys of one route. They share a hash tag, so that a cluster keeps them on one node and one script may touch them all.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// What people read and write. A tracking prefix: no other key starts so.
    pub(super) flags: String,
    /// The fields as they were when last sealed.
    sealed: String,
    /// Who changed what.
    ledger: String,
    /// What stands in for fields of the sealed flags that make no sense, so that a router which never knew better does as the others.
    good: String,
}

impl Keys {
    pub(super) fn of(route: &str) -> Keys {
        let key = |name: &str| format!("{KEYS_PREFIX}{route}}}:{name}");
        Keys { flags: key("flags"), sealed: key("sealed"), ledger: key("ledger"), good: key("good") }
    }
}

/// Where to connect.
#[derive(Debug, Clone)]
pub(super) struct Address {
    client: Client,
    /// The address without credentials.
    pub(super) name: String,
}

impl Address {
    /// Reads a `redis://` or `rediss://` URL.
    pub(super) fn parse(url: &str) -> RedisResult<Address> {
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let name = format!("redis {} database {}", info.addr(), settings.db());
        if url.starts_with("rediss:") {
            // Fails when the process has one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Address { client: Client::open(info.set_redis_settings(settings))?, name })
    }
}

/// A live connection with tracking on.
pub(super) struct Link {
    connection: MultiplexedConnection,
    pub(super) signals: Arc<Signals>,
}

/// What a router's heartbeat brought back.
pub(super) struct Beat {
    /// The server's clock.
    pub(super) now_ms: u64,
    /// What this id reported before.
    pub(super) before: String,
    /// Id, time, report.
    pub(super) seen: Vec<(String, u64, String)>,
}

impl Link {
    /// Connects and turns tracking on. Whatever changes from here on is announced, so reading comes after.
    pub(super) async fn connect(address: &Address, keys: &[Keys]) -> RedisResult<Link> {
        let signals = Arc::new(Signals::new(keys.iter().map(|keys| keys.flags.clone()).collect()));
        let hearing = signals.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(move |push| {
                hearing.hear(&push);
                Ok::<(), redis::aio::SendError>(())
            });
        let connection = address.client.get_multiplexed_async_connection_with_config(&config).await?;
        let link = Link { connection, signals };
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

    pub(super) async fn read(&self, keys: &Keys) -> RedisResult<Stored> {
        let mut call = READ.key(&keys.flags);
        call.key(&keys.sealed).arg(HASH_FIELDS).arg(HASH_BYTES).arg(EXPERIMENTS_BYTES).arg("epoch").arg(&WRITABLE[..]);
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        let (content, fields, base, oversized): (String, Pairs, Pairs, u8) = call.invoke_async(&mut self.connection.clone()).await?;
        Ok(Stored { content, fields: text(fields), base: text(base), is_oversized: oversized == 1 })
    }

    /// The new seal; `None` when the store no longer holds what was judged.
    pub(super) async fn write(
        &self,
        keys: &Keys,
        stored: &Fields,
        write: &Write,
        good: &Fields,
        entry: &LedgerEntry,
    ) -> RedisResult<Option<String>> {
        let is_meta = |name: &str| matches!(name, "epoch" | "seal");
        let deletions: Vec<&String> = stored.keys().filter(|name| !write.fields.contains_key(*name) && !is_meta(name)).collect();
        let entry = serde_json::to_string(entry).unwrap_or_default();
        let mut call = WRITE.key(&keys.flags);
        let good = if good.is_empty() { String::new() } else { serde_json::to_string(good).unwrap_or_default() };
        call.key(&keys.sealed).key(&keys.ledger).key(&keys.good).arg(&write.expected_content).arg(u8::from(write.expected_sealed));
        call.arg(write.epoch).arg(entry).arg(LEDGER_ENTRIES).arg(good).arg(deletions.len()).arg(deletions);
        for (name, value) in write.fields.iter().filter(|(name, value)| stored.get(*name) != Some(value)) {
            call.arg(name).arg(value);
        }
        let seal: String = call.invoke_async(&mut self.connection.clone()).await?;
        Ok((!seal.is_empty()).then_some(seal))
    }

    /// What stands in for fields of the sealed flags that make no sense; an empty value for the field's default.
    pub(super) async fn good(&self, keys: &Keys) -> RedisResult<Fields> {
        let text: Option<Vec<u8>> = redis::cmd("HGET").arg(&keys.good).arg("fields").query_async(&mut self.connection.clone()).await?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// The newest ledger entries, newest first. Entries that make no sense are left out.
    pub(super) async fn ledger(&self, keys: &Keys, limit: usize) -> RedisResult<Vec<LedgerEntry>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&keys.ledger).arg("+").arg("-").arg("COUNT").arg(limit);
        type Item = (String, Vec<(String, Vec<u8>)>);
        let items: Vec<Item> = command.query_async(&mut self.connection.clone()).await?;
        let read = |(id, fields): Item| {
            let (_, text) = fields.into_iter().find(|(name, _)| name == "entry")?;
            let mut entry: LedgerEntry = serde_json::from_slice(&text).ok()?;
            entry.time_ms = id.split('-').next()?.parse().ok()?;
            Some(entry)
        };
        Ok(items.into_iter().filter_map(read).collect())
    }

    pub(super) async fn beat(&self, id: &str, report: &str, forget_after: Duration) -> RedisResult<Beat> {
        let mut call = HEARTBEAT.key("{switchback}:routers");
        let forget_ms = u64::try_from(forget_after.as_millis()).unwrap_or(u64::MAX);
        call.key("{switchback}:reports").arg(id).arg(report).arg(forget_ms);
        let answer: Vec<Vec<u8>> = call.invoke_async(&mut self.connection.clone()).await?;
        let mut answer = answer.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (now_ms, before) = (number(answer.next()), answer.next().unwrap_or_default());
        let mut seen = Vec::new();
        while let (Some(id), at, Some(report)) = (answer.next(), answer.next(), answer.next()) {
            seen.push((id, number(at), report));
        }
        Ok(Beat { now_ms, before, seen })
    }

    /// The eviction policy, for example `noeviction`.
    pub(super) async fn eviction_policy(&self) -> RedisResult<Option<String>> {
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut self.connection.clone()).await?;
        Ok(info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(|policy| policy.trim().to_owned()))
    }
}

/// Whether the connection is of no more use, so that the next thing is to connect again. Other errors are the server's answer to one
/// command.
pub(super) fn is_lost(error: &RedisError) -> bool {
    let comes_back_later = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain
        )
    );
    comes_back_later || error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() || error.is_connection_dropped()
}

/// Bytes that are not UTF-8 become U+FFFD, which no field is allowed to have: such a value is judged by itself, as any other garbage.
fn text(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Fields {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
