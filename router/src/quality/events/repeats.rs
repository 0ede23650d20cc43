//! Which events of a token were counted, so that a repeat is not counted again. Pure.
//!
//! What is remembered of a token has a fixed size, whatever is said of it: a bit for each action and position. Positions from 63 on share a bit, and
//! so further clicks beyond the 62nd result are one.
//!
//! Tokens are kept by their window, in slices of a minute, and a slice is forgotten when every token in it has expired. What was forgotten is never good
//! again, also when tokens are to live longer from now on, or the clock goes back: so no repeat is counted. When the memory is full, tokens that are not in it are refused until slices
//! expire: to forget a good one instead would let its repeats be counted.

use std::collections::{BTreeMap, HashMap};

use super::read::Action;
use super::refusal::EventRefusal;
use crate::quality::{Token, TokenFault};

/// Of a token in the memory: 24 bytes of key, 40 of what was seen and one of the table's own, times 16/7 right after the table has grown, and half as
/// much again while it grows.
const BYTES: usize = 256;
/// Seconds of a slice. Whatever a token's lifetime: that may change.
const SLICE: u32 = 60;

/// What tells tokens apart. Whole, and not a hash of it: no two tokens are ever taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    nonce: u64,
    window: u32,
    route: u32,
    version: u32,
}

/// What was counted of a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// By position.
    clicks: u64,
    /// Conversion, purchase and add_to_cart, by position.
    conversions: [u64; 3],
    /// By place in `events.quality_actions`.
    quality: u16,
}

/// Whether an event is the first of its kind with its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The first click, conversion or number of this name of all that the token has had.
    First,
    /// The first at this position.
    Further,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// By the first window of the slice. The tables' hashes have random keys, so that nobody can aim at one place of them.
    slices: BTreeMap<u32, HashMap<Key, Seen>>,
    tokens: usize,
    /// Tokens of windows before this may have been forgotten.
    forgotten: u32,
}

impl Repeats {
    /// How many tokens are remembered.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Forgets what has expired by `now`, in seconds since 1970, with tokens that are good for `lifetime` seconds.
    pub(super) fn forget(&mut self, now: u32, lifetime: u32) {
        while let Some(entry) = self.slices.first_entry() {
            let end = entry.key().saturating_add(SLICE);
            if end.saturating_add(lifetime) > now {
                return;
            }
            self.forgotten = end;
            self.tokens = self.tokens.saturating_sub(entry.get().len());
            entry.remove();
        }
    }

    /// Notes an event, unless it was noted before. `memory` is in bytes.
    pub(super) fn note(&mut self, route: u32, token: &Token, action: Action, position: u16, memory: usize) -> Result<Turn, EventRefusal> {
        if token.window < self.forgotten {
            return Err(EventRefusal::Token(TokenFault::Expired));
        }
        let is_full = self.tokens >= memory / BYTES;
        let key = Key { nonce: token.nonce, window: token.window, route, version: token.version };
        let slice = self.slices.entry(token.window - token.window % SLICE).or_default();
        if is_full && !slice.contains_key(&key) {
            return Err(EventRefusal::MemoryFull);
        }
        let before = slice.len();
        let turn = slice.entry(key).or_default().note(action, position);
        self.tokens += slice.len() - before;
        turn
    }
}

impl Seen {
    fn note(&mut self, action: Action, position: u16) -> Result<Turn, EventRefusal> {
        let before = *self;
        let bit = 1_u64 << position.min(63);
        let [conversions, purchases, carts] = &mut self.conversions;
        let is_first = match action {
            // Counts for nothing, and is not remembered.
            Action::Impression => false,
            Action::Click => before.clicks == 0,
            Action::Conversion | Action::Purchase | Action::AddToCart => before.conversions == [0; 3],
            Action::Quality(..) => true,
        };
        match action {
            Action::Impression => return Ok(Turn::Further),
            Action::Click => self.clicks |= bit,
            Action::Conversion => *conversions |= bit,
            Action::Purchase => *purchases |= bit,
            Action::AddToCart => *carts |= bit,
            Action::Quality(place, _) => self.quality |= 1 << u32::from(place).min(15),
        }
        match (*self == before, is_first) {
            (true, _) => Err(EventRefusal::Repeated),
            (false, true) => Ok(Turn::First),
            (false, false) => Ok(Turn::Further),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u32 = 1_800_000_000;
    const HOUR: u32 = 3_600;

    fn token(window: u32, nonce: u64) -> Token {
        Token { epoch: 1, pool: 0, is_counted: true, version: 1, arm: 0, window, group: 0, nonce }
    }

    fn note(repeats: &mut Repeats, nonce: u64, action: Action, position: u16) -> Result<Turn, EventRefusal> {
        repeats.note(1, &token(NOW, nonce), action, position, 1 << 20)
    }

    #[test]
    fn the_first_counts_further_positions_are_told_apart_and_repeats_are_refused() {
        let mut repeats = Repeats::default();
        let mut click = |position| note(&mut repeats, 7, Action::Click, position);
        assert_eq!((click(3), click(3), click(4)), (Ok(Turn::First), Err(EventRefusal::Repeated), Ok(Turn::Further)));
        assert_eq!((click(100), click(200)), (Ok(Turn::Further), Err(EventRefusal::Repeated)), "far positions share a bit");
        assert_eq!(note(&mut repeats, 7, Action::AddToCart, 3), Ok(Turn::First));
        assert_eq!(note(&mut repeats, 7, Action::Purchase, 3), Ok(Turn::Further), "a token converts once");
        assert_eq!(note(&mut repeats, 7, Action::Quality(0, 5), 1), Ok(Turn::First));
        assert_eq!(note(&mut repeats, 7, Action::Quality(1, 5), 1), Ok(Turn::First));
        assert_eq!(note(&mut repeats, 7, Action::Quality(0, 6), 2), Err(EventRefusal::Repeated), "a number has no position");
        assert_eq!(note(&mut repeats, 8, Action::Click, 3), Ok(Turn::First));
        assert_eq!(repeats.tokens(), 2);
    }

    #[test]
    fn a_full_memory_refuses_new_tokens_and_knows_the_old_ones() {
        let mut repeats = Repeats::default();
        let most = 4_096;
        for nonce in 0..most {
            assert_eq!(note(&mut repeats, nonce, Action::Click, 1), Ok(Turn::First));
        }
        assert_eq!(note(&mut repeats, most, Action::Click, 1), Err(EventRefusal::MemoryFull));
        assert_eq!(note(&mut repeats, 0, Action::Click, 2), Ok(Turn::Further));
        repeats.forget(NOW + 3 * HOUR, HOUR);
        let later = token(NOW + 3 * HOUR, most);
        assert_eq!((repeats.tokens(), repeats.note(1, &later, Action::Click, 1, 1 << 20)), (0, Ok(Turn::First)));
    }

    #[test]
    fn what_was_forgotten_is_never_good_again() {
        let mut repeats = Repeats::default();
        assert_eq!(note(&mut repeats, 7, Action::Click, 1), Ok(Turn::First));
        repeats.forget(NOW + HOUR, HOUR);
        assert_eq!(note(&mut repeats, 7, Action::Click, 1), Err(EventRefusal::Repeated));
        repeats.forget(NOW + HOUR + SLICE, HOUR);
        // The lifetime is raised, or the clock set back.
        assert_eq!(note(&mut repeats, 7, Action::Click, 1), Err(EventRefusal::Token(TokenFault::Expired)));
    }

    proptest! {
        /// Whatever the order of tokens and times: nothing counts twice while its token is good, and memory stays within its bound.
        #[test]
        fn a_token_that_is_good_is_never_forgotten(
            steps in prop::collection::vec((0..4_000_u32, 0..400_u32, 0..6_u64), 1..200),
            lifetime in 60..3_600_u32,
        ) {
            let (mut repeats, mut counted, mut now) = (Repeats::default(), std::collections::HashSet::new(), NOW);
            for (age, passes, nonce) in steps {
                now += passes;
                repeats.forget(now, lifetime);
                let token = token(now - age.min(lifetime), nonce);
                let fresh = counted.insert((token.window, nonce));
                let turn = repeats.note(1, &token, Action::Click, 1, 1 << 20);
                prop_assert_eq!(turn, if fresh { Ok(Turn::First) } else { Err(EventRefusal::Repeated) });
                prop_assert!(repeats.slices.len() <= (lifetime / SLICE) as usize + 2, "{}", repeats.slices.len());
            }
        }
    }
}
