//! What responses say of decisions.

/// What a response says of the decision about its query: a set, so that a query asks once whether there is anything to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expose(u8);

impl Expose {
    /// Which pool answered.
    pub const POOL: Expose = Expose(1);
    /// Its model version.
    pub const VERSION: Expose = Expose(2);
    /// The epoch of the flags that were obeyed.
    pub const EPOCH: Expose = Expose(4);
    /// Why the pool was chosen.
    pub const REASON: Expose = Expose(8);
    /// The arm of an experiment, where the query is in one.
    pub const ARM: Expose = Expose(16);
    /// Each with its name in the config.
    pub const ALL: [(Expose, &str); 5] =
        [(Expose::POOL, "pool"), (Expose::VERSION, "version"), (Expose::EPOCH, "epoch"), (Expose::REASON, "reason"), (Expose::ARM, "arm")];

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Expose) -> Expose {
        Expose(self.0 | other.0)
    }

    /// Whether `other` is in it.
    #[must_use]
    pub fn has(self, other: Expose) -> bool {
        self.0 & other.0 == other.0
    }

    /// Nothing is said.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}
