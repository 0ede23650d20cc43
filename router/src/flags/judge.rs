//! What to do about what a store holds, given what this router applies. Pure: no clock, no randomness, no I/O.
//!
//! | the store's flags are | verdict |
//! |---|---|
//! | sealed, newer than ours or the same | obey them |
//! | sealed, older | keep ours, write ours back at a higher epoch |
//! | sealed, our epoch with another seal | a tie: see [`settle`] |
//! | not sealed: somebody edited by hand | obey the edit at once, and adopt it: bump the epoch, seal again |
//! | absent | keep ours, write ours back |
//!
//! A [`Write`] is made only if the store still holds exactly what was judged, so of any number of routers that come to the same
//! verdict one writes, and nobody overwrites what it has not seen.
//!
//! Invariants: the epoch written is above both ours and every epoch that the store sealed; what is obeyed of an edit never depends on
//! whether the write succeeds.

use super::Fields;
use super::edit::next_epoch;
use super::ledger::{FieldChange, Grounds, Kind, difference};
use super::snapshot::read_epoch;

/// What a store holds for one route, read in one atomic step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    /// All fields, `epoch` and `seal` too. Empty when the store has none.
    pub(crate) fields: Fields,
    /// The seal that these fields should have, computed by the store over the raw bytes. Empty when it has none.
    pub(crate) content: String,
    /// The fields as they were when last sealed. Needed, and read, only when the flags are not sealed.
    pub(crate) base: Fields,
    /// More fields or bytes than the limit: `fields` holds the known ones only.
    pub(crate) is_oversized: bool,
}

/// What this router applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mine {
    /// The newest epoch that it applied; 0 when none.
    pub(crate) epoch: u64,
    /// The seal that goes with it.
    pub(crate) seal: String,
    /// The fields of that epoch.
    pub(crate) sealed: Fields,
    /// The fields in force: the same, or with an edit on top that is not adopted yet.
    pub(crate) in_force: Fields,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The store's fields are in force.
    Apply,
    /// These fields are in force, at our epoch still; then the write makes them an epoch of their own.
    Obey { fields: Fields, adoption: Option<Write> },
    /// What is in force stays so; the write puts it into the store.
    Reseed(Write),
    /// Ask the ledger who made the store's side, then [`settle`].
    Tie,
}

/// One atomic write: refused unless the store still holds what was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// [`Stored::content`] as judged.
    pub(crate) expected_content: String,
    /// Whether the flags were sealed as judged.
    pub(crate) expected_sealed: bool,
    /// Every field after the write, without `epoch` and `seal`.
    pub(crate) fields: Fields,
    /// The epoch after the write.
    pub(crate) epoch: u64,
    pub(crate) kind: Kind,
    pub(crate) who: String,
    pub(crate) why: String,
    pub(crate) what: Vec<FieldChange>,
    pub(crate) grounds: Option<Box<Grounds>>,
}

/// Who judges, and with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    /// The router's id, for the ledger.
    pub(crate) me: &'a str,
    /// The colours that `live` may have on this route.
    pub(crate) colours: &'a [&'a str],
    /// 128 random bits, used when the route has no salt.
    pub(crate) fresh_salt: &'a str,
}

impl Stored {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The epoch, when these flags are as Switchback wrote them.
    pub(crate) fn sealed_epoch(&self) -> Option<u64> {
        self.epoch().filter(|_| self.is_sealed())
    }

    fn is_sealed(&self) -> bool {
        !self.is_oversized && !self.content.is_empty() && self.field("seal") == self.content
    }

    fn epoch(&self) -> Option<u64> {
        read_epoch(self.field("epoch"))
    }

    fn base_epoch(&self) -> Option<u64> {
        self.base.get("epoch").and_then(|epoch| read_epoch(epoch))
    }
}

impl Judge<'_> {
    pub(crate) fn judge(&self, stored: &Stored, mine: &Mine) -> Verdict {
        if let Some(epoch) = stored.sealed_epoch() {
            return match epoch.cmp(&mine.epoch) {
                std::cmp::Ordering::Greater => Verdict::Apply,
                std::cmp::Ordering::Equal if stored.field("seal") == mine.seal => Verdict::Apply,
                std::cmp::Ordering::Equal => Verdict::Tie,
                std::cmp::Ordering::Less => Verdict::Reseed(self.put_back(stored, mine)),
            };
        }
        if stored.fields.is_empty() {
            return Verdict::Reseed(self.put_back(stored, mine));
        }
        self.edited(stored, mine)
    }

    /// Writes back what is in force, or what the store itself sealed last if that is newer.
    pub(crate) fn put_back(&self, stored: &Stored, mine: &Mine) -> Write {
        let base_epoch = stored.base_epoch().unwrap_or(0);
        let fields = if base_epoch > mine.epoch { &stored.base } else { &mine.in_force };
        let highest = mine.epoch.max(base_epoch).max(stored.sealed_epoch().unwrap_or(0));
        let why = match stored.sealed_epoch() {
            Some(older) => format!("the store had epoch {older}, this router applies {}", mine.epoch),
            None if highest == 0 => "first start: the store had no flags for this route".to_owned(),
            None => format!("the store had lost its flags; last known epoch {highest}"),
        };
        let mut write = self.write(stored, fields.clone(), highest, Kind::Reseed);
        write.why = why;
        write.what = difference(&stored.fields, &write.fields);
        write
    }

    fn edited(&self, stored: &Stored, mine: &Mine) -> Verdict {
        let base_epoch = stored.base_epoch().filter(|epoch| *epoch >= mine.epoch);
        let (ground, ground_epoch) = match base_epoch {
            Some(epoch) => (&stored.base, epoch),
            None => (&mine.sealed, mine.epoch),
        };
        let fields = self.on_top(ground, edit(stored));
        if stored.is_oversized {
            return Verdict::Obey { fields, adoption: None };
        }
        // Without a sealed copy the epoch as it stands is all that is known of how far the store had come.
        let highest = if stored.base.is_empty() { ground_epoch.max(stored.epoch().unwrap_or(0)) } else { ground_epoch };
        let mut write = self.write(stored, fields.clone(), highest, Kind::ExternalEdit);
        write.who = "external".to_owned();
        write.why = "external edit".to_owned();
        write.what = difference(ground, &write.fields);
        Verdict::Obey { fields, adoption: Some(write) }
    }

    /// An edit over the last fields that were sealed. A flip of `live` by hand sends nobody to candidate and holdback.
    fn on_top(&self, ground: &Fields, edit: Vec<FieldChange>) -> Fields {
        let mut fields = without_epoch(ground);
        for change in edit {
            let is_flip = change.field == "live" && change.new.as_deref().is_some_and(|live| self.colours.contains(&live));
            if is_flip && ground.get("live") != change.new.as_ref() {
                fields.insert("canary_percent".to_owned(), "0".to_owned());
                fields.insert("holdback_percent".to_owned(), "0".to_owned());
            }
            match change.new {
                Some(value) => fields.insert(change.field, value),
                None => fields.remove(&change.field),
            };
        }
        fields
    }

    fn write(&self, stored: &Stored, fields: Fields, highest: u64, kind: Kind) -> Write {
        let mut fields = without_epoch(&fields);
        if fields.get("salt").is_none_or(String::is_empty) {
            fields.insert("salt".to_owned(), self.fresh_salt.to_owned());
        }
        Write {
            expected_content: stored.content.clone(),
            expected_sealed: stored.is_sealed(),
            fields,
            epoch: next_epoch(highest),
            kind,
            who: self.me.to_owned(),
            why: String::new(),
            what: Vec::new(),
            grounds: None,
        }
    }
}

/// What was edited by hand, `live` last, so that its flip has the final say on the shares.
fn edit(stored: &Stored) -> Vec<FieldChange> {
    let mut edit = difference(&stored.base, &stored.fields);
    // A hash without an epoch was made anew by hand, and an oversized one is seen in part: what is missing there was not deleted.
    if stored.is_oversized || !stored.fields.contains_key("epoch") {
        edit.retain(|change| change.new.is_some());
    }
    // These two never go by deletion: traffic stays where it is, and units on their side.
    edit.retain(|change| change.new.is_some() || !matches!(change.field.as_str(), "live" | "salt"));
    edit.sort_by_key(|change| change.field == "live");
    edit
}

/// Settles a tie: two contents under one epoch, because the store lost a write that this router had applied. A change or an edit on the
/// store's side was made after the loss, by somebody who meant it: it wins. A reseed was made by a router that had not heard of our
/// epoch: ours wins.
pub(crate) fn settle(last_kind: Option<Kind>) -> Settled {
    match last_kind {
        Some(Kind::Reseed) => Settled::OursWins,
        _ => Settled::TheirsWins,
    }
}

/// See [`settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    TheirsWins,
    OursWins,
}

pub(crate) fn without_epoch(fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    fields.remove("epoch");
    fields.remove("seal");
    fields
}
