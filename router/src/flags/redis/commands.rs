//! What is asked of the store, and what comes back. Knows nothing of what to do about it, nor which server answers.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Script, Value};
use sha1::{Digest as _, Sha1};
use tokio::time::Instant;

use super::apart;
use super::clock::Answer;
use super::keys::{CLOCK, Keys, REPORTS, ROUTERS, slot_of};
use super::link::{Call, are_keys_apart};
use super::session::Session;
use crate::flags::chain::{GENESIS, Line, gap};
use crate::flags::edit::{HASH_BYTES, HASH_FIELDS, WRITABLE};
use crate::flags::judge::{Stored, Write};
use crate::flags::{EXPERIMENTS_BYTES, Fields, LedgerEntry};

/// An entry may be written while a ledger is read.
const CHAIN_READS: usize = 4;
/// About how many entries a route's ledger keeps.
pub(super) const LEDGER_ENTRIES: usize = 10_000;

static READ: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("read.lua"))));
static WRITE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("keep.lua"), include_str!("write.lua"))));
static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("seal.lua"), include_str!("heartbeat.lua"))));

/// A hash as it is answered.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a write stores beside the flags.
pub(super) struct Texts {
    pub(super) entry: String,
    pub(super) good: String,
    /// The id of the ledger's newest entry before this one; empty without any.
    pub(super) after: String,
}

impl Texts {
    fn of(good: &Fields, entry: &LedgerEntry, after: String) -> Texts {
        let good = if good.is_empty() { String::new() } else { serde_json::to_string(good).unwrap_or_default() };
        Texts { entry: serde_json::to_string(entry).unwrap_or_default(), good, after }
    }
}

/// What a router's heartbeat brought back.
pub(super) struct Beat {
    /// What time it is.
    pub(super) clock: Answer,
    /// What this id reported before.
    pub(super) before: String,
    /// Id, time, report.
    pub(super) seen: Vec<(String, u64, String)>,
}

impl Session {
    pub(super) async fn read(&self, keys: &Keys) -> RedisResult<Stored> {
        match self.read_of(keys.slot, &[&keys.flags, &keys.sealed]).await {
            Err(error) if are_keys_apart(&error) => apart::read(self, keys).await,
            read => read,
        }
    }

    /// Reads what these keys hold: the flags and the sealed fields, or the flags alone.
    pub(super) async fn read_of(&self, slot: u16, keys: &[&str]) -> RedisResult<Stored> {
        let call = Call::script(&READ, keys);
        let call = call.arg(HASH_FIELDS).arg(HASH_BYTES).arg(EXPERIMENTS_BYTES).arg("epoch").arg("rollout").arg(&WRITABLE[..]);
        let (content, fields, base, oversized): (String, Pairs, Pairs, u8) = read_as(self.run(slot, &call).await?)?;
        Ok(Stored { content, fields: text(fields), base: text(base), is_oversized: oversized == 1 })
    }

    /// The new seal; `None` when the store no longer holds what was judged.
    pub(super) async fn write(
        &self,
        keys: &Keys,
        stored: &Fields,
        write: &Write,
        good: &Fields,
        mut entry: LedgerEntry,
    ) -> RedisResult<Option<String>> {
        let newest = self.newest(keys).await?;
        let head: Option<String> = read_as(self.run(keys.slot, &Call::command("GET").arg(&keys.head)).await?).unwrap_or_default();
        entry.prev = previous(newest.as_ref(), head.as_deref());
        let texts = Texts::of(good, &entry, newest.map(|line| line.id).unwrap_or_default());
        match self.write_of(keys.slot, &[&keys.flags, &keys.sealed, &keys.ledger, &keys.good, &keys.head], stored, write, &texts).await {
            Err(error) if are_keys_apart(&error) => apart::write(self, keys, stored, write, &texts).await,
            written => written,
        }
    }

    /// Writes these keys in one step: all of them, or the flags alone.
    pub(super) async fn write_of(
        &self,
        slot: u16,
        keys: &[&str],
        stored: &Fields,
        write: &Write,
        texts: &Texts,
    ) -> RedisResult<Option<String>> {
        let is_meta = |name: &str| matches!(name, "epoch" | "seal");
        let deletions: Vec<&String> = stored.keys().filter(|name| !write.fields.contains_key(*name) && !is_meta(name)).collect();
        let mut call = Call::script(&WRITE, keys).arg(&write.expected_content).arg(u8::from(write.expected_sealed));
        call = call
            .arg(write.epoch)
            .arg(&texts.entry)
            .arg(LEDGER_ENTRIES)
            .arg(&texts.good)
            .arg(&texts.after)
            .arg(deletions.len())
            .arg(deletions);
        for (name, value) in write.fields.iter().filter(|(name, value)| stored.get(*name) != Some(value)) {
            call = call.arg(name).arg(value);
        }
        let seal: String = read_as(self.run(slot, &call).await?)?;
        Ok((!seal.is_empty()).then_some(seal))
    }

    /// What stands in for fields of the sealed flags that make no sense; an empty value for the field's default.
    pub(super) async fn good(&self, keys: &Keys) -> RedisResult<Fields> {
        let call = Call::command("HGET").arg(&keys.good).arg("fields");
        let text: Option<Vec<u8>> = read_as(self.run(keys.slot, &call).await?)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// The newest ledger entries, newest first. Entries that make no sense are left out.
    pub(super) async fn ledger(&self, keys: &Keys, limit: usize) -> RedisResult<Vec<LedgerEntry>> {
        Ok(self.lines(keys, "+", limit).await?.iter().filter_map(Line::entry).collect())
    }

    /// The newest ledger entries from this id on (`+`: from the newest one on), as they are, newest first.
    pub(super) async fn lines(&self, keys: &Keys, newest: &str, limit: usize) -> RedisResult<Vec<Line>> {
        let call = Call::command("XREVRANGE").arg(&keys.ledger).arg(newest).arg("-").arg("COUNT").arg(limit);
        type Item = (String, Vec<(String, Vec<u8>)>);
        let items: Vec<Item> = read_as(self.run(keys.slot, &call).await?)?;
        // What somebody added under another name is an entry that cannot be read.
        let text = |fields: Vec<(String, Vec<u8>)>| fields.into_iter().find(|(name, _)| name == "entry").map(|(_, text)| text);
        Ok(items.into_iter().map(|(id, fields)| Line::new(id, text(fields).unwrap_or_default())).collect())
    }

    /// What the ledger's newest entry is. A key of another type has none, and is told when it is written to.
    async fn newest(&self, keys: &Keys) -> RedisResult<Option<Line>> {
        match self.lines(keys, "+", 1).await {
            Ok(lines) => Ok(lines.into_iter().next()),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole ledger, oldest entry first, and whether its newest entry is the one that was written last.
    pub(super) async fn chain(&self, keys: &Keys) -> RedisResult<(Vec<Line>, bool)> {
        let head = Call::command("GET").arg(&keys.head);
        // An entry may be written between the two readings: then both are read again.
        let mut read = (Vec::new(), false);
        for _ in 0..CHAIN_READS {
            let head: Option<String> = read_as(self.run(keys.slot, &head).await?)?;
            let mut lines = self.lines(keys, "+", 2 * LEDGER_ENTRIES).await?;
            let is_newest = head.is_some_and(|head| lines.first().is_some_and(|newest| head_of(&newest.id, &newest.text) == head));
            lines.reverse();
            read = (lines, is_newest);
            if is_newest {
                break;
            }
        }
        Ok(read)
    }

    /// Reports this router (nobody, where the id is empty), and hears who there is and what time it is. `ahead_ms` is what the fleet's clock is ahead of the server's,
    /// as this router knows it.
    pub(super) async fn beat(&self, id: &str, report: &str, forget_after: Duration, ahead_ms: Option<i64>) -> RedisResult<Beat> {
        let forget_ms = u64::try_from(forget_after.as_millis()).unwrap_or(u64::MAX);
        let call = Call::script(&HEARTBEAT, &[ROUTERS, REPORTS, CLOCK]).arg(id).arg(report).arg(forget_ms);
        let (call, asked) = (call.arg(ahead_ms.map(|ahead| ahead.to_string()).unwrap_or_default()), Instant::now());
        let answer: Vec<Vec<u8>> = read_as(self.run(slot_of(ROUTERS), &call).await?)?;
        let mut answer = answer.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (fleet_ms, server_ms, is_odd) = (number(answer.next()), number(answer.next()), number(answer.next()) == 1);
        let (before, took) = (answer.next().unwrap_or_default(), asked.elapsed());
        let mut seen = Vec::new();
        while let (Some(id), at, Some(report)) = (answer.next(), answer.next(), answer.next()) {
            seen.push((id, number(at), report));
        }
        Ok(Beat { clock: Answer { fleet_ms, server_ms, is_odd, took }, before, seen })
    }
}

/// What an entry names as the one before it: the newest one, unless that is not what the store knows to have been written last. (An entry that is newer than
/// what the store knows was written while a cluster moved the slot.)
fn previous(newest: Option<&Line>, head: Option<&str>) -> String {
    let id = |text: &str| {
        let (ms, number) = text.split_once(' ').map_or(text, |(id, _)| id).split_once('-')?;
        Some((ms.parse::<u64>().ok()?, number.parse::<u64>().ok()?))
    };
    match (newest, head) {
        (None, None) => GENESIS.to_owned(),
        (None, Some(head)) => gap(head),
        (Some(newest), Some(head))
            if head_of(&newest.id, &newest.text) != head && id(head).is_none_or(|head| id(&newest.id) <= Some(head)) =>
        {
            gap(head)
        }
        (Some(newest), _) => newest.hash(),
    }
}

/// What the store keeps of a ledger's newest entry.
pub(super) fn head_of(id: &str, text: &[u8]) -> String {
    format!("{id} {}", hex::encode(Sha1::digest(text)))
}

pub(super) fn read_as<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(redis::from_redis_value(value)?)
}

/// Bytes that are not UTF-8 become U+FFFD, which no field is allowed to have: such a value is judged by itself, as any other garbage.
pub(super) fn text(pairs: Pairs) -> Fields {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
