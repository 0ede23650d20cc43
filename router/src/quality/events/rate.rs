//! How many events are taken: so many a second in all and from each address, with bursts. Pure: whoever asks says what time it is.
//!
//! A token bucket is one number, the time at which it was or will be full (GCRA): it needs no timer. The addresses that are told apart are bounded: what
//! is full again is forgotten, and when there are still too many, new ones share one bucket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// Addresses whose buckets are not full. Some 6 MB.
const ADDRESSES: usize = 65_536;
/// All of them are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) all: Rate,
    pub(super) address: Rate,
}

/// What was taken lately.
#[derive(Debug, Default)]
pub(super) struct RateLimits {
    all: Bucket,
    addresses: HashMap<Address, Bucket>,
    others: Bucket,
    looked: Option<Instant>,
}

/// Who is one client: an address of IPv4, or a network of IPv6 that one subscriber gets (a /64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address.to_canonical() {
            IpAddr::V4(address) => Address::V4(address.to_bits()),
            IpAddr::V6(address) => Address::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

/// When it will have been idle for long enough to be full; `None` when it is full.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// How many of `wanted` are there.
    fn room(self, rate: Rate, now: Instant, wanted: u32) -> u32 {
        let owed = self.0.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        // Rounded up, so that nobody gets more.
        let owed = (owed.as_nanos() * u128::from(rate.per_second)).div_ceil(1_000_000_000);
        let room = u128::from(rate.burst).saturating_sub(owed);
        wanted.min(u32::try_from(room).unwrap_or(u32::MAX))
    }

    fn take(&mut self, rate: Rate, now: Instant, taken: u32) {
        let time = Duration::from_nanos((u64::from(taken) * 1_000_000_000).div_ceil(u64::from(rate.per_second.max(1))));
        let from = self.0.map_or(now, |full| full.max(now));
        self.0 = Some(from + time);
    }

    fn is_full(self, now: Instant) -> bool {
        self.0.is_none_or(|full| full <= now)
    }
}

impl RateLimits {
    /// Whether anything at all would be taken.
    pub(super) fn has_room(&mut self, rates: Rates, address: IpAddr, now: Instant) -> bool {
        let of_address = self.bucket(address, now).room(rates.address, now, 1);
        self.all.room(rates.all, now, of_address) > 0
    }

    /// Takes up to `wanted`, and says how many.
    pub(super) fn take(&mut self, rates: Rates, address: IpAddr, now: Instant, wanted: u32) -> u32 {
        let all = self.all;
        let bucket = self.bucket(address, now);
        let taken = all.room(rates.all, now, bucket.room(rates.address, now, wanted));
        bucket.take(rates.address, now, taken);
        self.all.take(rates.all, now, taken);
        taken
    }

    fn bucket(&mut self, address: IpAddr, now: Instant) -> &mut Bucket {
        let address = Address::from(address);
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY) {
                self.looked = Some(now);
                self.addresses.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.addresses.len() >= ADDRESSES {
                return &mut self.others;
            }
        }
        self.addresses.entry(address).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: Rates = Rates { all: Rate { per_second: 100, burst: 300 }, address: Rate { per_second: 10, burst: 20 } };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let (mut limits, start) = (RateLimits::default(), Instant::now());
        let mut take = |last, at, wanted| limits.take(RATES, address(last), at, wanted);
        assert_eq!((take(1, start, 15), take(1, start, 15), take(1, start, 15)), (15, 5, 0));
        assert_eq!(take(2, start, 15), 15, "another address has its own");
        assert_eq!(take(1, start + Duration::from_secs(1), 15), 10);
        assert_eq!(take(1, start + Duration::from_secs(60), 100), 20, "no more than a burst is saved up");
        assert!(!limits.has_room(RATES, address(1), start + Duration::from_secs(60)));
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let (mut limits, start) = (RateLimits::default(), Instant::now());
        let taken: u32 = (0..100).map(|last| limits.take(RATES, address(last), start, 20)).sum();
        assert_eq!((taken, limits.has_room(RATES, address(200), start)), (300, false));
    }

    #[test]
    fn neighbours_of_ipv6_are_one_client_and_mapped_addresses_are_ipv4() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn addresses_are_bounded_and_those_beyond_share() {
        let (mut limits, start) = (RateLimits::default(), Instant::now());
        let rates = Rates { all: Rate { per_second: 10_000_000, burst: 10_000_000 }, ..RATES };
        let nth = |n: u32| IpAddr::from(n.to_be_bytes());
        let taken: u32 = (0..70_000).map(|n| limits.take(rates, nth(n), start, 20)).sum();
        assert_eq!((limits.addresses.len(), taken), (ADDRESSES, (u32::try_from(ADDRESSES).unwrap() + 1) * 20));
        assert_eq!(limits.take(rates, nth(80_000), start + Duration::from_secs(5), 20), 20, "the others are full again");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_a_burst_and_the_rate(asks in prop::collection::vec((0..2_000_u64, 0..50_u32), 1..100)) {
            let (mut limits, start) = (RateLimits::default(), Instant::now());
            let (mut passed, mut taken) = (Duration::ZERO, 0);
            for (pause, wanted) in asks {
                passed += Duration::from_millis(pause);
                taken += limits.take(RATES, address(1), start + passed, wanted);
                let most = 20.0 + 10.0 * passed.as_secs_f64();
                prop_assert!(f64::from(taken) <= most, "{taken} of {most}");
            }
        }
    }
}
