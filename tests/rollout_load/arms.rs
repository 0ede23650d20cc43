//! Which arm each answer had to come from: the flags of its epoch, from the ledger, and its user's position under the salt of that time.

use std::collections::BTreeMap;

use switchback::serve::PositionKey;
use switchback_tests::Router;
use switchback_tests::shoppers::Answered;

const POSITIONS: f64 = 1e6;

/// The flags that say who gets what, as far as they are set.
#[derive(Debug, Clone, Default)]
struct Flags {
    fields: BTreeMap<String, String>,
    /// A router's breaker held the candidate back, until the flags followed.
    is_held_back: bool,
    /// How many salts there were so far.
    salt: usize,
}

impl Flags {
    fn pool(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    /// In positions.
    fn share(&self, field: &str) -> u32 {
        let percent = self.fields.get(field).and_then(|value| value.trim_end_matches([' ', '%']).parse::<f64>().ok());
        (percent.unwrap_or(0.0) / 100.0 * POSITIONS).round() as u32
    }

    /// The pool and the reason for it.
    fn arm(&self, position: u32) -> (&str, &'static str) {
        if position < self.share("canary_percent") {
            (self.pool("candidate_pool"), "candidate")
        } else if position >= POSITIONS as u32 - self.share("holdback_percent") {
            (self.pool("holdback_pool"), "holdback")
        } else {
            (self.pool("live"), "live")
        }
    }
}

/// The flags of every epoch that there was.
pub(crate) struct Epochs {
    flags: BTreeMap<u64, Flags>,
    /// The one that the first router made, and that of each rollout.
    salts: Vec<PositionKey>,
}

impl Epochs {
    /// From the ledger, oldest first. `salts` are all that there were, in their order.
    pub(crate) fn read(router: &Router, salts: &[String]) -> Epochs {
        let (status, body) = router.admin("GET", "/api/v1/routes/search/history?limit=1000", b"");
        assert_eq!(status, 200, "{body}");
        let mut flags = BTreeMap::new();
        let mut now = Flags::default();
        now.fields.insert("live".to_owned(), "blue".to_owned());
        flags.insert(0, now.clone());
        for entry in body["entries"].as_array().unwrap().iter().rev() {
            if let Some((_, before)) = flags.iter_mut().next_back() {
                before.is_held_back = entry["kind"] == "rollback" && entry["why"].as_str().unwrap().starts_with("the breakers of ");
            }
            for change in entry["what"].as_array().unwrap() {
                let field = change["field"].as_str().unwrap();
                now.salt += usize::from(field == "salt");
                now.fields.insert(field.to_owned(), change["new"].as_str().unwrap_or_default().to_owned());
            }
            flags.insert(entry["epoch"].as_u64().unwrap(), now.clone());
        }
        assert_eq!(now.salt, salts.len(), "each rollout has a salt of its own");
        Epochs { flags, salts: salts.iter().map(|salt| PositionKey::new(salt.as_bytes())).collect() }
    }

    /// What is wrong with an answer; nothing, for almost all.
    pub(crate) fn fault(&self, answered: &Answered) -> Option<String> {
        let (_, flags) = self.flags.range(..=answered.epoch).next_back()?;
        let key = self.salts.get(flags.salt.checked_sub(1)?)?;
        let position = key.position(format!("user{}", answered.user).as_bytes());
        let (pool, reason) = flags.arm(position);
        let said = (answered.pool.as_str(), answered.reason.as_str());
        // Live answers in the place of a candidate that failed, and of one that the router's own breaker holds back.
        let is_stood_in = said.1 == "fallback" || (flags.is_held_back && said.1 == "live");
        let is_stood_in = is_stood_in && reason == "candidate" && said.0 == flags.pool("live");
        (said != (pool, reason) && !is_stood_in).then(|| {
            format!("user{}, epoch {}, position {position}: {} ({}), not {pool} ({reason})", answered.user, answered.epoch, said.0, said.1)
        })
    }
}

/// Users who changed sides more often than a rollout does: they come to the candidate once, and where it is taken back they leave it once. `visits` are of
/// one rollout; what the live pool answered in a candidate's place is nobody's change of sides.
pub(crate) fn turncoats(visits: &[Answered], candidate: &str, is_back: bool) -> usize {
    let mut users: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
    for answered in visits.iter().filter(|answered| answered.reason != "fallback") {
        let sides = users.entry(answered.user).or_insert_with(|| vec![false]);
        let is_on_it = answered.version == candidate;
        if sides.last() != Some(&is_on_it) {
            sides.push(is_on_it);
        }
    }
    let allowed: &[bool] = if is_back { &[false, true, false] } else { &[false, true] };
    users.values().filter(|sides| !allowed.starts_with(sides)).count()
}
