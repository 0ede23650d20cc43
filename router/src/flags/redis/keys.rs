//! Names of keys, and where a cluster keeps them.

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
/// What the keys of every route start with.
pub(super) const KEYS_PREFIX: &str = "{switchback:";
/// Who was heard when.
pub(super) const ROUTERS: &str = "{switchback}:routers";
/// The key of tokens, where no config names one.
pub(super) const TOKEN_KEY: &str = "{switchback}:token-key";
/// What time it is.
pub(super) const CLOCK: &str = "{switchback}:clock";
/// What they said.
pub(super) const REPORTS: &str = "{switchback}:reports";

/// The keys of one route. They share a hash tag, so that a cluster keeps them on one node and one script may touch them all.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// What people read and write. A tracking prefix: no other key starts so.
    pub(super) flags: String,
    /// The fields as they were when last sealed.
    pub(super) sealed: String,
    /// Who changed what.
    pub(super) ledger: String,
    /// What stands in for fields of the sealed flags that make no sense, so that a router which never knew better does as the others.
    pub(super) good: String,
    /// The ledger's newest entry: its hash.
    pub(super) head: String,
    /// Where a cluster keeps all of them.
    pub(super) slot: u16,
}

impl Keys {
    pub(super) fn of(route: &str) -> Keys {
        let key = |name: &str| format!("{KEYS_PREFIX}{route}}}:{name}");
        let flags = key("flags");
        Keys { slot: slot_of(&flags), flags, sealed: key("sealed"), ledger: key("ledger"), good: key("good"), head: key("ledger-head") }
    }
}

impl Keys {
    /// What every sender says of a page of windows.
    pub(super) fn page(&self, number: u64) -> String {
        format!("{}quality:{number}", self.prefix())
    }

    /// The last word of a sender.
    pub(super) fn sender(&self, sender: &str) -> String {
        format!("{}sender:{sender}", self.prefix())
    }

    /// What is known of the candidate.
    pub(super) fn evidence(&self) -> String {
        format!("{}evidence", self.prefix())
    }

    /// What is known of an experiment.
    pub(super) fn experiment(&self, name: &str) -> String {
        format!("{}experiment:{name}", self.prefix())
    }

    /// Who moves the rollout.
    pub(super) fn lease(&self) -> String {
        format!("{}lease", self.prefix())
    }

    /// Who tells a target of the route, and how far it was told.
    pub(super) fn announcer(&self, target: &str) -> String {
        format!("{}notify:{target}", self.prefix())
    }

    /// `{switchback:ROUTE}:`
    fn prefix(&self) -> &str {
        self.flags.strip_suffix("flags").unwrap_or(&self.flags)
    }
}

/// The slot of a key: CRC16 (XMODEM) of what stands in its first braces, or of all of it where there are none.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key).as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` has it.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot_of("123456789"), 12_739);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(slot_of("foo{}{bar}"), crc16::State::<crc16::XMODEM>::calculate(b"foo{}{bar}") % SLOTS);
        let keys = Keys::of("search");
        for key in [
            &keys.flags,
            &keys.sealed,
            &keys.ledger,
            &keys.good,
            &keys.head,
            &keys.page(7),
            &keys.sender("ab"),
            &keys.evidence(),
            &keys.experiment("big"),
            &keys.lease(),
        ] {
            assert_eq!(slot_of(key), keys.slot, "{key}");
        }
        assert_eq!((slot_of(ROUTERS), slot_of(ROUTERS), slot_of(ROUTERS)), (slot_of(REPORTS), slot_of(TOKEN_KEY), slot_of(CLOCK)));
    }
}
