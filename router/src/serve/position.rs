//! Where a unit stands: its position under a salt, by which policies split traffic. Pure.
//!
//! SipHash because it is keyed: a client who picks its own id cannot aim for the candidate. A CRC, or a hash modulo n, would put
//! the same users into every rollout's first percent.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use switchback_policy::split::POSITIONS;

use crate::quality::GROUPS;

/// The key of one salt, derived once when the flags change.
#[derive(Clone, Copy)]
pub struct PositionKey(SipHasher24);

impl PositionKey {
    /// `SipHash-2-4(16 zero bytes, salt) || SipHash-2-4(16 bytes 0x01, salt)`.
    #[must_use]
    pub fn new(salt: &[u8]) -> PositionKey {
        let half = |fill: u8| {
            let mut hasher = SipHasher24::new_with_key(&[fill; 16]);
            hasher.write(salt);
            hasher.finish().to_le_bytes()
        };
        let mut key = [0; 16];
        let (low, high) = key.split_at_mut(8);
        low.copy_from_slice(&half(0x00));
        high.copy_from_slice(&half(0x01));
        PositionKey(SipHasher24::new_with_key(&key))
    }

    /// The position of a unit, 0..[`POSITIONS`]: `SipHash-2-4(key, unit) * POSITIONS / 2^64`.
    #[must_use]
    pub fn position(&self, unit: &[u8]) -> u32 {
        // Below POSITIONS, because the hash is below 2^64.
        u32::try_from(self.scaled(unit, POSITIONS)).unwrap_or(0)
    }

    /// The group of a unit, 0..[`GROUPS`], in the same way.
    #[must_use]
    pub fn group(&self, unit: &[u8]) -> u8 {
        u8::try_from(self.scaled(unit, GROUPS.into())).unwrap_or(0)
    }

    fn scaled(&self, unit: &[u8], bound: u32) -> u128 {
        let mut hasher = self.0;
        hasher.write(unit);
        (u128::from(hasher.finish()) * u128::from(bound)) >> 64
    }
}

impl std::fmt::Debug for PositionKey {
    /// Says nothing: a salt must not get into a log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("PositionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_positions() {
        let exp1 = PositionKey::new(b"exp1");
        assert_eq!(exp1.position(b"user42"), 747_927);
        assert_eq!(exp1.position(b"user43"), 402_127);
        assert_eq!(PositionKey::new(b"exp2").position(b"user42"), 403_026);
    }

    #[test]
    fn two_salts_are_independent() {
        const CELLS: usize = 10;
        const UNITS: u32 = 100_000;
        let (one, other) = (PositionKey::new(b"one salt"), PositionKey::new(b"another salt"));
        let mut table = [[0_u32; CELLS]; CELLS];
        for unit in 0..UNITS {
            let id = format!("user{unit}");
            let cell = |key: &PositionKey| key.position(id.as_bytes()) as usize * CELLS / POSITIONS as usize;
            table[cell(&one)][cell(&other)] += 1;
        }
        let expected = f64::from(UNITS) / (CELLS * CELLS) as f64;
        let chi_square: f64 = table.iter().flatten().map(|seen| (f64::from(*seen) - expected).powi(2) / expected).sum();
        // 99 degrees of freedom: mean 99, standard deviation 14; 160 is beyond the 99.99th percentile.
        assert!(chi_square < 160.0, "chi-square {chi_square}");
    }
}
