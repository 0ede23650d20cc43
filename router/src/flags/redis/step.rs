//! One route's step: what was read is judged, obeyed and, where the judge says so, written; and changes that are asked for.

use std::time::Duration;

use redis::RedisResult;

use super::copy_of;
use super::keys::Keys;
use super::link::{comes_back_later, has_no_room, is_lost};
use super::session::Session;
use super::sync::{Sync, explain};
use crate::config::Route;
use crate::flags::identity::random_hex;
use crate::flags::judge::{Judge, Settled, Stored, Verdict, Write, settle, without_epoch};
use crate::flags::ledger::{Kind, difference, presentable, serves};
use crate::flags::published::{Applied, Cause, Changed, Source};
use crate::flags::{Change, ChangeError, Fault, Fields, Flags, LedgerEntry, edit};
use crate::vocabulary::RouteIndex;

/// Read, judge and write again so often when others write at the same time; then the next announcement or poll goes on.
const ROUNDS: u32 = 32;
/// Between two rounds a writer that came too late waits a random time up to this, so that two routers do not go on getting in each
/// other's way. With [`ROUNDS`] it adds up to some 60 ms at the worst.
const PAUSE_MICROS: u64 = 4_000;
/// How far back in the ledger to look for who made an epoch.
const CAUSES: usize = 8;

impl Sync {
    /// Brings one route in step with the store: obeys, adopts, reseeds, until the store is sealed and in force here. Answers what the
    /// store holds then; `None` when it cannot be sealed (too large, not permitted, or others write all the time).
    ///
    /// # Errors
    /// The connection was lost. What the server refuses concerns this route only and becomes a note.
    pub(super) async fn step(&mut self, session: &Session, index: RouteIndex, first: RedisResult<Stored>) -> RedisResult<Option<Stored>> {
        let published = self.published.clone();
        let (Some(route), Some(keys)) = (published.route(index), self.keys.get(index.get()).cloned()) else { return Ok(None) };
        let mut read = first;
        for round in 0..ROUNDS {
            let stored = match read {
                Ok(stored) => stored,
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) => {
                    self.note(&route.name, Some(format!("the flags cannot be read: {}", explain(&error))));
                    return Ok(None);
                }
            };
            published.heard_now(index);
            let write = match self.verdict(session, index, route, &stored).await? {
                Verdict::Apply | Verdict::Tie => {
                    self.apply(session, index, route, &stored).await?;
                    return Ok(Some(stored));
                }
                Verdict::Obey { fields, adoption } => {
                    self.obey(index, route, &stored, &fields);
                    let Some(write) = adoption else {
                        self.note(&route.name, Some(oversized(&keys.flags)));
                        return Ok(None);
                    };
                    write
                }
                Verdict::Reseed(write) => {
                    tracing::warn!(route = route.name, epoch = write.epoch, why = write.why, "writing the flags back to the store");
                    write
                }
            };
            match self.write(session, index, route, &stored, &write).await {
                Ok(Some(stored)) => return Ok(Some(stored)),
                Ok(None) => {}
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) => {
                    self.note(&route.name, Some(format!("the flags cannot be written: {}", explain(&error))));
                    return Ok(None);
                }
            }
            stand_aside(round).await;
            read = session.read(&keys).await;
        }
        session.signals.touch_index(index.get());
        Ok(None)
    }

    async fn verdict(&self, session: &Session, index: RouteIndex, route: &Route, stored: &Stored) -> RedisResult<Verdict> {
        let (Some(mine), Some(keys)) = (self.mines.get(index.get()), self.keys.get(index.get())) else { return Ok(Verdict::Apply) };
        let colours: Vec<&str> = ["blue", "green"].into_iter().filter(|colour| route.pool_named(colour).is_some()).collect();
        let judge = Judge { me: &self.id, colours: &colours, fresh_salt: &random_hex(16) };
        let verdict = judge.judge(stored, mine);
        if verdict != Verdict::Tie {
            return Ok(verdict);
        }
        let last = match session.ledger(keys, 1).await {
            Ok(entries) => entries.first().map(|entry| entry.kind),
            Err(error) if is_lost(&error) => return Err(error),
            // Who wrote last cannot be told: the same as a ledger that was lost.
            Err(_) => None,
        };
        Ok(match settle(last) {
            Settled::TheirsWins => Verdict::Apply,
            Settled::OursWins => Verdict::Reseed(judge.put_back(stored, mine)),
        })
    }

    /// Sealed flags are in force.
    async fn apply(&mut self, session: &Session, index: RouteIndex, route: &Route, stored: &Stored) -> RedisResult<()> {
        let epoch_before = self.mines.get(index.get()).map_or(0, |mine| mine.epoch);
        let last_good = self.last_good(session, index, route, stored).await?;
        let changed = self.put_in_force(index, route, &stored.fields, &stored.fields, last_good);
        self.note(&route.name, None);
        if let Some(changed) = changed {
            // Who and why are read only after the flags are in force: a flip does not wait for its log line.
            let cause = match self.keys.get(index.get()) {
                Some(keys) if changed.epoch > epoch_before => cause_of(session, keys, changed.epoch).await?,
                _ => Cause::default(),
            };
            changed.log(&cause);
        }
        Ok(())
    }

    /// An edit by hand is in force, at the epoch that was in force before.
    fn obey(&mut self, index: RouteIndex, route: &Route, stored: &Stored, fields: &Fields) {
        if let Some(changed) = self.put_in_force(index, route, &without_epoch(fields), &stored.fields, None) {
            changed.log(&Cause { who: "external".to_owned(), why: "external edit".to_owned() });
        }
    }

    /// The last good flags for a new epoch with fields that make no sense: what the router that sealed it had. This router may never
    /// have known that, and "epoch 13 is applied" means one content. `None` when its own will do.
    async fn last_good(&self, session: &Session, index: RouteIndex, route: &Route, stored: &Stored) -> RedisResult<Option<Flags>> {
        let (Some(before), Some(mine), Some(keys)) =
            (self.published.applied(index), self.mines.get(index.get()), self.keys.get(index.get()))
        else {
            return Ok(None);
        };
        let is_new = stored.sealed_epoch().is_some_and(|epoch| epoch > mine.epoch);
        if !is_new || Flags::read(&stored.fields, &before.known, route).1.is_empty() {
            return Ok(None);
        }
        let good = match session.good(keys).await {
            Ok(good) => good,
            Err(error) if is_lost(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        let mut meant = stored.fields.clone();
        for (field, value) in good {
            if value.is_empty() {
                meant.remove(&field)
            } else {
                meant.insert(field, value)
            };
        }
        Ok(Some(Flags::read(&meant, &before.known, route).0))
    }

    /// What stands in for fields that make no sense, as [`Session::good`] gives it to other routers.
    fn good_values(&self, index: RouteIndex, route: &Route, fields: &Fields) -> Fields {
        let Some(applied) = self.published.applied(index) else { return Fields::new() };
        let (known, faults) = Flags::read(fields, &applied.known, route);
        let rendered = known.render(route);
        let good = |fault: Fault| {
            let value = rendered.get(&fault.field).cloned().unwrap_or_default();
            (fault.field, value)
        };
        faults.into_iter().map(good).collect()
    }

    /// Reads the fields against the last good flags (this router's own, unless others are given) and publishes them. With a seal
    /// among the fields they are the new `mine`.
    fn put_in_force(
        &mut self,
        index: RouteIndex,
        route: &Route,
        fields: &Fields,
        shown: &Fields,
        last_good: Option<Flags>,
    ) -> Option<Changed> {
        let before = self.published.applied(index)?;
        let (known, faults) = Flags::read(fields, last_good.as_ref().unwrap_or(&before.known), route);
        let mine = self.mines.get_mut(index.get())?;
        let mine_before = mine.clone();
        mine.in_force = without_epoch(&known.render(route));
        if fields.contains_key("seal") {
            (mine.epoch, mine.seal) = (known.epoch, known.seal.clone());
            mine.sealed = mine.in_force.clone();
        }
        if *mine != mine_before {
            if self.is_owner {
                self.copies.save(&route.name, copy_of(route, mine, &self.way.reach.name));
            }
            self.is_report_due = true;
        }
        self.published.apply(index, Applied { fields: shown.clone(), known, faults, source: Source::Redis })
    }

    /// One atomic write. What was written is in force here when it returns; `None` when the store no longer held what was judged.
    async fn write(
        &mut self,
        session: &Session,
        index: RouteIndex,
        route: &Route,
        stored: &Stored,
        write: &Write,
    ) -> RedisResult<Option<Stored>> {
        let Some(keys) = self.keys.get(index.get()) else { return Ok(None) };
        let (kind, who, why) = (write.kind, write.who.clone(), write.why.clone());
        let serves = self.published.applied(index).map(|applied| serves(&Flags::read(&write.fields, &applied.known, route).0, route));
        let (what, grounds) = (presentable(write.what.clone()), write.grounds.as_deref().cloned());
        let entry =
            LedgerEntry { epoch: write.epoch, kind, who, why, what, serves: serves.unwrap_or_default(), grounds, ..LedgerEntry::default() };
        let good = self.good_values(index, route, &write.fields);
        let Some(seal) = session.write(keys, &stored.fields, write, &good, entry.clone()).await? else { return Ok(None) };
        let mut fields = write.fields.clone();
        fields.insert("epoch".to_owned(), write.epoch.to_string());
        fields.insert("seal".to_owned(), seal.clone());
        let changed = self.put_in_force(index, route, &fields, &fields, None);
        self.note(&route.name, None);
        if let Some(changed) = changed {
            changed.log(&Cause { who: entry.who, why: entry.why });
        }
        if write.kind == Kind::ExternalEdit {
            tracing::info!(route = route.name, epoch = write.epoch, "adopted an external edit");
        }
        Ok(Some(Stored { fields, content: seal, base: Fields::new(), is_oversized: false }))
    }

    /// Makes a change that was asked for. The outer error is a connection lost before anything was written.
    pub(super) async fn change(&mut self, session: &Session, index: RouteIndex, change: &Change) -> RedisResult<Result<u64, ChangeError>> {
        let published = self.published.clone();
        let (Some(route), Some(keys)) = (published.route(index), self.keys.get(index.get()).cloned()) else {
            return Ok(Err(ChangeError::NotSaved { why: "there is no such route".to_owned() }));
        };
        for round in 0..ROUNDS {
            // An edit by hand that nobody has adopted yet comes first, and then counts as somebody else's change.
            let read = session.read(&keys).await;
            let Some(stored) = self.step(session, index, read).await? else {
                if self.notes.contains_key(&route.name) {
                    break;
                }
                continue;
            };
            let write = match self.prepare(&stored, index, route, change) {
                Ok(write) => write,
                Err(error) => return Ok(Err(error)),
            };
            match self.write(session, index, route, &stored, &write).await {
                Ok(Some(_)) => return Ok(Ok(write.epoch)),
                Ok(None) => stand_aside(round).await,
                // The server says that it did nothing.
                Err(error) if comes_back_later(&error) => return Err(error),
                Err(error) if is_lost(&error) => return Ok(Err(ChangeError::Unanswered { why: explain(&error) })),
                Err(error) if has_no_room(&error) => return Ok(Err(ChangeError::NotWritten { why: explain(&error) })),
                Err(error) => return Ok(Err(ChangeError::NotSaved { why: explain(&error) })),
            }
        }
        let why = self.notes.get(&route.name).cloned().unwrap_or_else(|| "others write to it all the time".to_owned());
        Ok(Err(ChangeError::NotSaved { why }))
    }

    fn prepare(&self, stored: &Stored, index: RouteIndex, route: &Route, change: &Change) -> Result<Write, ChangeError> {
        let found = stored.sealed_epoch().unwrap_or(0);
        if let Some(expected) = change.expected_epoch.filter(|expected| *expected != found) {
            return Err(ChangeError::Conflict { expected, found });
        }
        let known = self.published.applied(index).map_or_else(|| Flags::initial(route), |applied| applied.known.clone());
        let fields = edit::apply(&stored.fields, change, &known, route).map_err(ChangeError::Invalid)?;
        Ok(Write {
            expected_content: stored.content.clone(),
            expected_sealed: true,
            what: difference(&stored.fields, &fields),
            fields: without_epoch(&fields),
            epoch: edit::next_epoch(found),
            kind: change.kind,
            who: change.who.clone(),
            why: change.why.clone(),
            grounds: change.grounds.clone(),
        })
    }
}

async fn cause_of(session: &Session, keys: &Keys, epoch: u64) -> RedisResult<Cause> {
    match session.ledger(keys, CAUSES).await {
        Ok(entries) => {
            let entry = entries.into_iter().find(|entry| entry.epoch == epoch);
            Ok(entry.map(|entry| Cause { who: entry.who, why: entry.why }).unwrap_or_default())
        }
        Err(error) if is_lost(&error) => Err(error),
        Err(_) => Ok(Cause::default()),
    }
}

fn oversized(key: &str) -> String {
    let (fields, bytes) = (edit::HASH_FIELDS, edit::HASH_BYTES);
    format!(
        "the hash {key} has more than {fields} fields or {bytes} bytes: its known fields are obeyed, but it cannot be adopted or changed; \
         HDEL what does not belong there"
    )
}

/// The first round that came too late tries again at once.
async fn stand_aside(round: u32) {
    if round > 0 {
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..=PAUSE_MICROS))).await;
    }
}
