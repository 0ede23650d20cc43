//! A route whose keys are on two nodes, because a cluster is half-way through moving their slot. Scripts over several keys are refused
//! then, with `TRYAGAIN`; each key by itself is found where it is, also by a write that creates it.
//!
//! So the flags are read alone and the sealed fields after them, and a write is one atomic step on the flags, which decides between
//! writers as ever, and then the rest. A router that dies between the two leaves no ledger entry and older sealed fields, until the next
//! write; that is the price of not waiting for the move.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisResult, Script};

use super::commands::{LEDGER_ENTRIES, Pairs, Texts, head_of, read_as, text};
use super::keys::Keys;
use super::link::Call;
use super::session::Session;
use crate::flags::Fields;
use crate::flags::judge::{Stored, Write};
use crate::flags::snapshot::read_epoch;

static KEEP_NEWER: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("keep.lua"), include_str!("keep_newer.lua"))));

/// Reads until two readings of the flags are the same and the sealed fields are theirs; then what is there is taken as it is.
const ROUNDS: u32 = 10;
/// A writer keeps the sealed fields within a millisecond of writing the flags.
const PAUSE: Duration = Duration::from_millis(2);

/// Flags and sealed fields that belong together, each read where it is.
pub(super) async fn read(session: &Session, keys: &Keys) -> RedisResult<Stored> {
    let mut stored = session.read_of(keys.slot, &[&keys.flags]).await?;
    for round in 1..=ROUNDS {
        if stored.sealed_epoch().is_some() {
            return Ok(stored);
        }
        let base = sealed(session, keys).await?;
        // Nobody writes the sealed fields without the flags: between two equal readings they did not change, but may be about to.
        let again = session.read_of(keys.slot, &[&keys.flags]).await?;
        let is_settled = again == stored && epoch_of(&base) >= epoch_of(&stored.fields);
        stored = again;
        if is_settled || round == ROUNDS {
            stored.base = base;
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(stored)
}

/// Without them there is no base to compare with, as where somebody put something else in their place.
async fn sealed(session: &Session, keys: &Keys) -> RedisResult<Fields> {
    match session.run(keys.slot, &Call::command("HGETALL").arg(&keys.sealed)).await {
        Ok(fields) => Ok(text(read_as::<Pairs>(fields)?)),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Fields::new()),
        Err(error) => Err(error),
    }
}

/// Writes the flags, if they are still what was judged; then what goes with them. The new seal; `None` when they are something else.
///
/// # Errors
/// The flags were not written, or it is not known whether they were.
pub(super) async fn write(session: &Session, keys: &Keys, stored: &Fields, write: &Write, texts: &Texts) -> RedisResult<Option<String>> {
    let Some(seal) = session.write_of(keys.slot, &[&keys.flags], stored, write, texts).await? else { return Ok(None) };
    let epoch = write.epoch.to_string();
    let mut keep = Call::script(&KEEP_NEWER, &[&keys.sealed]).arg(&epoch);
    for (name, value) in write.fields.iter().map(|(name, value)| (name.as_str(), value)).chain([("epoch", &epoch), ("seal", &seal)]) {
        keep = keep.arg(name).arg(value);
    }
    let good = Call::command("HSET").arg(&keys.good).arg("fields").arg(&texts.good);
    let tell = Call::command("XADD").arg(&keys.ledger).arg("MAXLEN").arg("~").arg(LEDGER_ENTRIES).arg("*").arg("entry").arg(&texts.entry);
    let rest = [keep, good, tell];
    let mut written = futures_util::future::join_all(rest.iter().map(|call| session.run(keys.slot, call))).await;
    if let Some(Ok(id)) = written.pop() {
        let head = head_of(&read_as::<String>(id)?, texts.entry.as_bytes());
        written.push(session.run(keys.slot, &Call::command("SET").arg(&keys.head).arg(head)).await);
    }
    for error in written.into_iter().filter_map(Result::err) {
        // The flags are written, whatever becomes of what is beside them.
        tracing::warn!(key = keys.flags, epoch, %error, "flags were written in a slot that moves, without all that goes with them");
    }
    Ok(Some(seal))
}

fn epoch_of(fields: &Fields) -> u64 {
    fields.get("epoch").and_then(|epoch| read_epoch(epoch)).unwrap_or(0)
}
