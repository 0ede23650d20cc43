//! What is asked of the store, and what comes back. Knows nothing of what to do about it, nor which server answers.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Script, Value};

use super::apart;
use super::keys::{Keys, REPORTS, ROUTERS, slot_of};
use super::link::{Call, are_keys_apart};
use super::session::Session;
use crate::flags::edit::{HASH_BYTES, HASH_FIELDS, WRITABLE};
use crate::flags::judge::{Stored, Write};
use crate::flags::{EXPERIMENTS_BYTES, Fields, LedgerEntry};

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
}

impl Texts {
    fn of(good: &Fields, entry: &LedgerEntry) -> Texts {
        let good = if good.is_empty() { String::new() } else { serde_json::to_string(good).unwrap_or_default() };
        Texts { entry: serde_json::to_string(entry).unwrap_or_default(), good }
    }
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
        entry: &LedgerEntry,
    ) -> RedisResult<Option<String>> {
        let texts = Texts::of(good, entry);
        match self.write_of(keys.slot, &[&keys.flags, &keys.sealed, &keys.ledger, &keys.good], stored, write, &texts).await {
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
        call = call.arg(write.epoch).arg(&texts.entry).arg(LEDGER_ENTRIES).arg(&texts.good).arg(deletions.len()).arg(deletions);
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
        let call = Call::command("XREVRANGE").arg(&keys.ledger).arg("+").arg("-").arg("COUNT").arg(limit);
        type Item = (String, Vec<(String, Vec<u8>)>);
        let items: Vec<Item> = read_as(self.run(keys.slot, &call).await?)?;
        let read = |(id, fields): Item| {
            let (_, text) = fields.into_iter().find(|(name, _)| name == "entry")?;
            let mut entry: LedgerEntry = serde_json::from_slice(&text).ok()?;
            entry.time_ms = id.split('-').next()?.parse().ok()?;
            Some(entry)
        };
        Ok(items.into_iter().filter_map(read).collect())
    }

    pub(super) async fn beat(&self, id: &str, report: &str, forget_after: Duration) -> RedisResult<Beat> {
        let forget_ms = u64::try_from(forget_after.as_millis()).unwrap_or(u64::MAX);
        let call = Call::script(&HEARTBEAT, &[ROUTERS, REPORTS]).arg(id).arg(report).arg(forget_ms);
        let answer: Vec<Vec<u8>> = read_as(self.run(slot_of(ROUTERS), &call).await?)?;
        let mut answer = answer.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (now_ms, before) = (number(answer.next()), answer.next().unwrap_or_default());
        let mut seen = Vec::new();
        while let (Some(id), at, Some(report)) = (answer.next(), answer.next(), answer.next()) {
            seen.push((id, number(at), report));
        }
        Ok(Beat { now_ms, before, seen })
    }
}

pub(super) fn read_as<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(redis::from_redis_value(value)?)
}

/// Bytes that are not UTF-8 become U+FFFD, which no field is allowed to have: such a value is judged by itself, as any other garbage.
pub(super) fn text(pairs: Pairs) -> Fields {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
