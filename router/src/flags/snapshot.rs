//! A route's flags as the data path sees them, and the pure function that reads them from a hash.
//!
//! Fields are judged one by one: a value that makes no sense keeps that field's last good value and becomes a [`Fault`], and
//! every other field is obeyed. So `live`, `pin` and `freeze` never wait for somebody else's typo.
//!
//! Invariant: nothing in a [`Flags`] needs checking again; every pool index is one of the route's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::experiments::Experiments;
use super::rollout::{ROLLOUT_BYTES, Rollout};
use super::trip::Shed;
use crate::config::{Route, VERSION_RULE, is_version};
use crate::vocabulary::{PoolIndex, Ppm};

/// How a store keeps a route's flags: field names and values, as `HGETALL` gives them.
pub type Fields = BTreeMap<String, String>;

/// The longest value that is read, in bytes (`experiments`: [`EXPERIMENTS_BYTES`]).
pub const VALUE_BYTES: usize = 1_024;
/// The longest `experiments` value, in bytes.
pub const EXPERIMENTS_BYTES: usize = 64 << 10;
/// Fields that say which model version a pool runs: `version.<pool>`.
pub const VERSION_OF: &str = "version.";
/// How many `flag.<name>` fields a route may have.
pub const FEATURES: usize = 256;
/// The highest epoch: it has 48 bits in the token.
pub const MAX_EPOCH: u64 = (1 << 48) - 1;

/// A share of the units, and the pool that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The pool.
    pub pool: PoolIndex,
    /// The share; zero means that nobody goes there.
    pub share: Ppm,
}

/// A policy by name, and by digest where the operator pinned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRef {
    /// The plugin's name: its file name without `.wasm`.
    pub name: String,
    /// SHA-256 of the file, 64 lower-case hex digits; `None` takes the newest admitted file of that name.
    pub digest: Option<String>,
}

/// One route's flags, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// Version: grows with every change.
    pub epoch: u64,
    /// SHA-1 over all other fields, as the store has it; empty when there is none yet.
    pub seal: String,
    /// Blue or green: who serves everybody else.
    pub live: PoolIndex,
    /// Where the candidate is, and its share.
    pub candidate: Share,
    /// The previous colour and its share. Not live: a holdback on the live pool is `None`.
    pub holdback: Option<Share>,
    /// Share of queries copied to the candidate.
    pub mirror: Ppm,
    /// All traffic goes there.
    pub pin: Option<PoolIndex>,
    /// No forward transition of a rollout.
    pub is_frozen: bool,
    /// Hashes units to positions. Hidden from viewers.
    pub salt: String,
    /// The split policy in force.
    pub split_policy: PolicyRef,
    /// The rollback policy in force.
    pub rollback_policy: PolicyRef,
    /// A/B experiments.
    pub experiments: Option<Arc<Experiments>>,
    /// The rollout that runs, or the last one.
    pub rollout: Option<Arc<Rollout>>,
    /// `version.<pool>`: which model version a pool runs, where it was loaded by Switchback; elsewhere the config says.
    pub versions: BTreeMap<PoolIndex, String>,
    /// `flag.<name>` without the prefix.
    pub features: BTreeMap<String, String>,
    /// What this router's breaker holds back; never in a store. Whatever names one of its pools, but for a pin and an override, means control.
    pub shed: Option<Shed>,
}

/// A field that was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The field.
    pub field: String,
    /// Its value, cut at 64 characters.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

impl Flags {
    /// The flags before any store was heard of: all traffic on the live pool that the config names at first.
    #[must_use]
    pub fn initial(route: &Route) -> Flags {
        let live = route.initial.get("live").and_then(|name| route.pool_named(name)).unwrap_or(PoolIndex(0));
        let base = Flags {
            epoch: 0,
            seal: String::new(),
            live,
            candidate: Share { pool: route.pool_named("canary").unwrap_or(live), share: Ppm::ZERO },
            holdback: None,
            mirror: Ppm::ZERO,
            pin: None,
            is_frozen: false,
            salt: String::new(),
            split_policy: PolicyRef { name: route.split_policy.clone(), digest: None },
            rollback_policy: PolicyRef { name: route.rollback_policy.clone(), digest: None },
            experiments: None,
            rollout: None,
            versions: BTreeMap::new(),
            features: BTreeMap::new(),
            shed: None,
        };
        Flags::read(&route.initial, &base, route).0
    }

    /// Reads a hash; `last_good` supplies each field that makes no sense. An absent field is its default, but for `live` and
    /// `salt` (and `epoch`), which stay as they were: traffic stays where it is, and units on their side. Pure.
    #[must_use]
    pub fn read(fields: &Fields, last_good: &Flags, route: &Route) -> (Flags, Vec<Fault>) {
        let mut reader = Reader { fields, route, faults: Vec::new() };
        let flags = reader.read(last_good);
        (flags, reader.faults)
    }

    /// What the holdback can get at most, when candidate and holdback want more than everybody: the candidate comes first.
    #[must_use]
    pub(crate) fn cut_holdback(&self) -> Option<Ppm> {
        let most = self.candidate.share.rest();
        self.holdback.filter(|holdback| holdback.share > most).map(|_| most)
    }

    /// The same flags with nobody on the candidate: for a router that starts without its store.
    #[must_use]
    pub fn without_candidate(mut self) -> Flags {
        self.candidate.share = Ppm::ZERO;
        self
    }

    /// The flags with nobody on a candidate or a holdback whose pool runs another version by these flags than by the route, under which its queries
    /// are counted: the config in force follows a moment later. A router that was stopped for seconds may hear of a version and of its share
    /// at once. `None` where nobody is ahead.
    pub(super) fn without_who_is_ahead(&self, route: &Route) -> Option<Flags> {
        let is_ahead = |share: &Share| {
            let version = self.versions.get(&share.pool);
            share.share > Ppm::ZERO
                && version.is_some_and(|version| route.pools.get(share.pool.get()).is_some_and(|pool| pool.version != *version))
        };
        let (candidate, holdback) = (is_ahead(&self.candidate), self.holdback.as_ref().is_some_and(is_ahead));
        if !candidate && !holdback {
            return None;
        }
        let mut flags = self.clone();
        if candidate {
            flags.candidate.share = Ppm::ZERO;
        }
        flags.holdback = flags.holdback.filter(|_| !holdback);
        Some(flags)
    }
}

struct Reader<'a> {
    fields: &'a Fields,
    route: &'a Route,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read(&mut self, last_good: &Flags) -> Flags {
        let route = self.route;
        let live = self.field("live", last_good.live, last_good.live, &self.colours(), |text| {
            route.pool_named(text).filter(|_| matches!(text, "blue" | "green"))
        });
        let candidate = self.candidate(last_good, live);
        Flags {
            epoch: self.field("epoch", last_good.epoch, last_good.epoch, "a whole number below 2^48", read_epoch),
            seal: self.fields.get("seal").cloned().unwrap_or_default(),
            live,
            candidate,
            holdback: self.holdback(last_good, live),
            mirror: self.percent("mirror_percent", last_good.mirror),
            pin: self.pin(last_good),
            is_frozen: self.field("freeze", last_good.is_frozen, false, "true or false", read_bool),
            salt: self.field("salt", last_good.salt.clone(), last_good.salt.clone(), "8 to 128 printable ASCII characters", read_salt),
            split_policy: self.policy("split_policy", &last_good.split_policy, &route.split_policy),
            rollback_policy: self.policy("rollback_policy", &last_good.rollback_policy, &route.rollback_policy),
            experiments: self.experiments(last_good),
            rollout: self.rollout(last_good),
            versions: self.versions(last_good),
            features: self.features(last_good),
            shed: None,
        }
    }

    /// Reads one field: its default when absent (or empty), its last good value and a fault when it makes no sense.
    fn field<T>(&mut self, name: &str, last_good: T, default: T, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> T {
        let Some(text) = self.fields.get(name).filter(|text| !text.is_empty()) else { return default };
        let most = match name {
            "experiments" => EXPERIMENTS_BYTES,
            "rollout" => ROLLOUT_BYTES,
            _ => VALUE_BYTES,
        };
        let value = if text.len() <= most && is_text(text) { read(text) } else { None };
        value.unwrap_or_else(|| {
            self.fault(name, text, allowed);
            last_good
        })
    }

    fn fault(&mut self, field: &str, value: &str, allowed: &str) {
        // Salts are nobody's business, and experiments are full of them.
        let value = if field == "experiments" { format!("({} bytes)", value.len()) } else { value.chars().take(64).collect() };
        self.faults.push(Fault { field: field.to_owned(), value, allowed: allowed.to_owned() });
    }

    fn percent(&mut self, name: &str, last_good: Ppm) -> Ppm {
        self.field(name, last_good, Ppm::ZERO, "a percentage from 0 to 100 with up to 4 decimals, like 2.5", Ppm::from_percent)
    }

    fn colours(&self) -> String {
        let has = |name| self.route.pool_named(name).is_some();
        match (has("blue"), has("green")) {
            (true, true) => "blue or green",
            (true, false) => "blue (this route has no pool green)",
            (false, true) => "green (this route has no pool blue)",
            (false, false) => "a pool of this route",
        }
        .to_owned()
    }

    fn pool_names(&self) -> String {
        let names: Vec<&str> = self.route.pools.iter().map(|pool| pool.name.as_str()).collect();
        format!("a pool of this route: {}", names.join(", "))
    }

    fn pool(&mut self, name: &str, last_good: Option<PoolIndex>, default: Option<PoolIndex>) -> Option<PoolIndex> {
        let (route, allowed) = (self.route, self.pool_names());
        self.field(name, last_good, default, &allowed, |text| route.pool_named(text).map(Some))
    }

    /// `pin` may be emptied or set to `none` to take it back.
    fn pin(&mut self, last_good: &Flags) -> Option<PoolIndex> {
        if self.fields.get("pin").is_some_and(|text| text == "none") {
            return None;
        }
        self.pool("pin", last_good.pin, None)
    }

    fn candidate(&mut self, last_good: &Flags, live: PoolIndex) -> Share {
        let share = self.percent("canary_percent", last_good.candidate.share);
        let default = self.route.pool_named("canary");
        match self.pool("candidate_pool", Some(last_good.candidate.pool), default) {
            Some(pool) => Share { pool, share },
            None if share == Ppm::ZERO => Share { pool: live, share },
            None => {
                self.fault("canary_percent", &share.to_string(), "0: this route has no pool canary, and candidate_pool is not set");
                Share { pool: live, share: Ppm::ZERO }
            }
        }
    }

    fn holdback(&mut self, last_good: &Flags, live: PoolIndex) -> Option<Share> {
        let last_share = last_good.holdback.map_or(Ppm::ZERO, |holdback| holdback.share);
        let share = self.percent("holdback_percent", last_share);
        let pool = self.pool("holdback_pool", last_good.holdback.map(|holdback| holdback.pool), None)?;
        (pool != live && share > Ppm::ZERO).then_some(Share { pool, share })
    }

    fn policy(&mut self, field: &str, last_good: &PolicyRef, default: &str) -> PolicyRef {
        let default = PolicyRef { name: default.to_owned(), digest: None };
        let allowed = "a policy's name, or name@digest with its SHA-256 as 64 lower-case hex digits";
        self.field(field, last_good.clone(), default, allowed, PolicyRef::parse)
    }

    fn experiments(&mut self, last_good: &Flags) -> Option<Arc<Experiments>> {
        let text = self.fields.get("experiments").filter(|text| !text.is_empty() && text.len() <= EXPERIMENTS_BYTES);
        let salt = self.fields.get("salt").map_or(last_good.salt.as_str(), String::as_str);
        let read = text.map(|text| Experiments::parse(text).map(Arc::new));
        let allowed = match &read {
            Some(Ok(experiments)) if experiments.has_salt(salt) => {
                "salts that are none but theirs; one of them is the flags' salt".to_owned()
            }
            Some(Err(fault)) => format!("experiments as docs/EXPERIMENTS.md has them; {fault}"),
            _ => format!("JSON of up to {EXPERIMENTS_BYTES} bytes"),
        };
        self.field("experiments", last_good.experiments.clone(), None, &allowed, |_| {
            read.and_then(Result::ok).filter(|experiments| !experiments.has_salt(salt)).map(Some)
        })
    }

    fn rollout(&mut self, last_good: &Flags) -> Option<Arc<Rollout>> {
        let read = |text: &str| Rollout::parse(text).map(|rollout| Some(Arc::new(rollout)));
        self.field("rollout", last_good.rollout.clone(), None, "a rollout's record as this version of Switchback writes it", read)
    }

    fn versions(&mut self, last_good: &Flags) -> BTreeMap<PoolIndex, String> {
        let mut versions = BTreeMap::new();
        let (fields, route) = (self.fields, self.route);
        for field in fields.keys() {
            let Some(name) = field.strip_prefix(VERSION_OF) else { continue };
            let Some(pool) = route.pool_named(name) else {
                self.fault(field, fields.get(field).map_or("", String::as_str), &format!("version. and {}", self.pool_names()));
                continue;
            };
            let last = last_good.versions.get(&pool).cloned();
            let read = |text: &str| is_version(text).then(|| Some(text.to_owned()));
            if let Some(version) = self.field(field, last, None, VERSION_RULE, read) {
                versions.insert(pool, version);
            }
        }
        versions
    }

    fn features(&mut self, last_good: &Flags) -> BTreeMap<String, String> {
        let mut features = BTreeMap::new();
        let fields = self.fields;
        for (field, value) in fields {
            let Some(name) = field.strip_prefix("flag.") else { continue };
            let named_well = !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
            let has_room = features.len() < FEATURES;
            if named_well && value.len() <= VALUE_BYTES && is_text(value) && has_room {
                features.insert(name.to_owned(), value.clone());
                continue;
            }
            self.fault(
                field,
                value,
                "at most 256 flags, flag.<name> with a name of 1 to 64 printable characters and a value of up to 1024 bytes of UTF-8",
            );
            if let Some(value) = last_good.features.get(name).filter(|_| has_room) {
                features.insert(name.to_owned(), value.clone());
            }
        }
        features
    }
}

impl PolicyRef {
    /// The newest admitted file of this name.
    #[must_use]
    pub fn named(name: &str) -> PolicyRef {
        PolicyRef { name: name.to_owned(), digest: None }
    }

    /// Reads `name` or `name@digest`.
    #[must_use]
    pub fn parse(text: &str) -> Option<PolicyRef> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let good_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        let good_digest =
            digest.is_none_or(|digest| digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        (good_name && good_digest).then(|| PolicyRef { name: name.to_owned(), digest: digest.map(str::to_owned) })
    }
}

/// As [`PolicyRef::parse`] reads it.
impl std::fmt::Display for PolicyRef {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.digest {
            Some(digest) => write!(out, "{}@{digest}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

/// Reads an epoch; `None` for anything but a number up to [`MAX_EPOCH`].
pub(crate) fn read_epoch(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|epoch| is_number && *epoch <= MAX_EPOCH)
}

/// Stores read bytes that are not UTF-8 with this character in their place: such a value is never obeyed.
fn is_text(text: &str) -> bool {
    !text.contains(char::REPLACEMENT_CHARACTER)
}

fn read_bool(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn read_salt(text: &str) -> Option<String> {
    let good = (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
}
