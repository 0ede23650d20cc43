//! Tokens: what a response says of its query in 64 signed characters, so that a click can be attributed with no join and no session store.
//!
//! ```text
//!  0        1       2        6        12    13        17      21       25     26       32        48
//!  | version | key id | route | epoch | pool | version | arm | window | group | nonce | MAC       |
//! ```
//!
//! Big-endian, 48 bytes, base64url without padding: 64 characters, which are a valid UBI `query_id`. The MAC is SipHash-2-4-128 over the 32 bytes before it,
//! under a key of the route's own, made of one of the operator's: a token of one route is a forgery on any other. SipHash is a MAC by design (Aumasson and
//! Bernstein, 2012), and its 128 bits cost some 300 instructions, where HMAC-SHA-256 costs ten times that.
//!
//! Pure: whoever reads a token says what time it is.

use std::fmt;
use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip128::{Hasher128 as _, SipHasher24 as Sip128};
use subtle::ConstantTimeEq as _;

use crate::vocabulary::hash32;

/// Of a token as bytes.
const BYTES: usize = 48;
/// Of them, those that the MAC signs.
const SIGNED: usize = 32;
/// Of a token as text.
pub const CHARACTERS: usize = 64;
/// Of this layout.
const VERSION: u8 = 1;
/// Groups that units are counted in, for the design effect.
pub const GROUPS: u8 = 32;
/// The pool's place is in the lower six bits of its byte.
const POOL_BITS: u8 = 0b0011_1111;
/// The query counts for no role: its answer came from another pool than the one that was decided on, or an override asked for it.
const UNCOUNTED: u8 = 0b0100_0000;

/// What a token says of its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Of the flags that were obeyed, 0..2^48.
    pub epoch: u64,
    /// The place in the route's config of the pool that answered, 0..64. For people: what counts is `version`.
    pub pool: u8,
    /// The query counts for its pool. Not one that another pool was to answer, and not one that an override asked for.
    pub is_counted: bool,
    /// Which model answered, as [`version_id`] has it.
    pub version: u32,
    /// The arm of an experiment, as [`arm_id`](crate::vocabulary::arm_id) has it; 0 without one. Then the query counts for it, and for no version.
    pub arm: u32,
    /// The window that the query counts in, in seconds since 1970.
    pub window: u32,
    /// The unit's group, 0..[`GROUPS`].
    pub group: u8,
    /// Random, 0..2^48: tells tokens of one window apart.
    pub nonce: u64,
}

/// The text of a token.
pub type TokenText = [u8; CHARACTERS];

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// It is not 64 characters of base64url, or of another version.
    Malformed,
    /// No key of this route made its MAC.
    Forged,
    /// Its window is too long ago.
    Expired,
    /// Its window has not begun.
    Early,
}

impl TokenFault {
    /// All of them.
    pub const ALL: [TokenFault; 4] = [TokenFault::Malformed, TokenFault::Forged, TokenFault::Expired, TokenFault::Early];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            TokenFault::Malformed => "malformed_token",
            TokenFault::Forged => "forged_token",
            TokenFault::Expired => "expired_token",
            TokenFault::Early => "early_token",
        }
    }
}

/// One of the operator's keys, for one route.
#[derive(Clone)]
struct RouteKey {
    id: u8,
    route: u32,
    mac: Sip128,
}

/// The keys of one route: the first signs, and all of them are good.
#[derive(Clone)]
pub struct TokenKeys(Vec<RouteKey>);

impl fmt::Debug for TokenKeys {
    /// Says nothing of the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({})", self.0.len())
    }
}

impl TokenKeys {
    /// The keys of the route of this name, made of the operator's. Without any, nothing can be issued and every token is a forgery.
    #[must_use]
    pub fn of(route: &str, secrets: &[[u8; 32]]) -> TokenKeys {
        let key = |secret: &[u8; 32]| {
            let (left, right) = secret.split_at(16);
            let derived = hash128(left, &[b"switchback token v1 ", route.as_bytes()].concat());
            let id = hash128(right, b"switchback key id");
            RouteKey { id: id[0], route: hash32(route.as_bytes()), mac: keyed(&derived) }
        };
        TokenKeys(secrets.iter().map(key).collect())
    }

    /// Whether there is a key to sign with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Signs; `None` without a key.
    #[must_use]
    pub fn issue(&self, token: &Token) -> Option<TokenText> {
        let key = self.0.first()?;
        let pool = (token.pool & POOL_BITS) | if token.is_counted { 0 } else { UNCOUNTED };
        let mut signed = [0; SIGNED];
        signed[0] = VERSION;
        signed[1] = key.id;
        signed[2..6].copy_from_slice(&key.route.to_be_bytes());
        signed[6..12].copy_from_slice(&token.epoch.to_be_bytes()[2..]);
        signed[12] = pool;
        signed[13..17].copy_from_slice(&token.version.to_be_bytes());
        signed[17..21].copy_from_slice(&token.arm.to_be_bytes());
        signed[21..25].copy_from_slice(&token.window.to_be_bytes());
        signed[25] = token.group;
        signed[26..].copy_from_slice(&token.nonce.to_be_bytes()[2..]);
        let mut bytes = [0; BYTES];
        bytes[..SIGNED].copy_from_slice(&signed);
        bytes[SIGNED..].copy_from_slice(&key.mac_of(&signed));
        Some(encode(&bytes))
    }

    /// Reads a token that is not older than `lifetime`, in seconds, at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn read(&self, text: &[u8], now: u32, lifetime: u32) -> Result<Token, TokenFault> {
        let bytes = decode(text).filter(|bytes| bytes[0] == VERSION).ok_or(TokenFault::Malformed)?;
        let (signed, mac) = bytes.split_at(SIGNED);
        let is_good = |key: &&RouteKey| key.id == bytes[1] && bool::from(key.mac_of(signed).ct_eq(mac));
        self.0.iter().find(is_good).ok_or(TokenFault::Forged)?;
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            e0,
            e1,
            e2,
            e3,
            e4,
            e5,
            marks,
            v0,
            v1,
            v2,
            v3,
            a0,
            a1,
            a2,
            a3,
            w0,
            w1,
            w2,
            w3,
            group,
            n0,
            n1,
            n2,
            n3,
            n4,
            n5,
            ..,
        ] = bytes;
        let token = Token {
            epoch: u64::from_be_bytes([0, 0, e0, e1, e2, e3, e4, e5]),
            pool: marks & POOL_BITS,
            is_counted: marks & UNCOUNTED == 0,
            version: u32::from_be_bytes([v0, v1, v2, v3]),
            arm: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u32::from_be_bytes([w0, w1, w2, w3]),
            group,
            nonce: u64::from_be_bytes([0, 0, n0, n1, n2, n3, n4, n5]),
        };
        if token.window > now.saturating_add(CLOCKS_APART) {
            return Err(TokenFault::Early);
        }
        if now.saturating_sub(token.window) > lifetime {
            return Err(TokenFault::Expired);
        }
        Ok(token)
    }
}

/// The clock of the router that issued a token may be ahead of ours by so many seconds.
const CLOCKS_APART: u32 = 5;

/// The route that a token says it is of, as [`route_id`] has it; to look its keys up before anything in it is believed.
#[must_use]
pub fn route_of(text: &[u8]) -> Option<u32> {
    let bytes = decode(text)?;
    Some(u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]))
}

/// The route of this name in tokens.
#[must_use]
pub fn route_id(name: &str) -> u32 {
    hash32(name.as_bytes())
}

/// A pool's model version in tokens: whatever the pool's place in the config is by the time the token comes back.
#[must_use]
pub fn version_id(pool: &str, version: &str) -> u32 {
    hash32(&[pool.as_bytes(), b"\0", version.as_bytes()].concat())
}

impl RouteKey {
    fn mac_of(&self, signed: &[u8]) -> [u8; 16] {
        let mut mac = self.mac;
        mac.write(signed);
        mac.finish128().as_bytes()
    }
}

/// As the library's engine, which `decode` uses, for this one length: every response has a token, and this takes half of the instructions.
fn encode(bytes: &[u8; BYTES]) -> TokenText {
    let mut text = [0; CHARACTERS];
    for (to, from) in text.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<6>().0) {
        let [a, b, c, d, e, f] = *from;
        // 48 bits are spread over 64: two times 24, four times 12, eight times 6.
        let bits = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let bits = ((bits & 0xffff_ff00_0000) << 8) | (bits & 0xff_ffff);
        let bits = ((bits & 0x00ff_f000_00ff_f000) << 4) | (bits & 0x0000_0fff_0000_0fff);
        let bits = ((bits & 0x0fc0_0fc0_0fc0_0fc0) << 2) | (bits & 0x003f_003f_003f_003f);
        *to = bits.to_be_bytes();
    }
    for character in &mut text {
        *character = letter(*character);
    }
    text
}

/// The letter of six bits: `A` to `Z`, `a` to `z`, `0` to `9`, `-`, `_`. Without branches and tables the compiler makes vectors of it.
fn letter(bits: u8) -> u8 {
    let from = |first: u8, step: u8| if bits >= first { step } else { 0 };
    // From each kind of letters to the next.
    let steps = [from(26, 6), from(52, 0_u8.wrapping_sub(75)), from(62, 0_u8.wrapping_sub(13)), from(63, 49)];
    steps.into_iter().fold(bits.wrapping_add(b'A'), u8::wrapping_add)
}

fn decode(text: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (text.len() == CHARACTERS && read == BYTES).then_some(bytes)
}

fn keyed(key: &[u8; 16]) -> Sip128 {
    Sip128::new_with_key(key)
}

fn hash128(key: &[u8], text: &[u8]) -> [u8; 16] {
    let mut whole = [0; 16];
    whole.copy_from_slice(key);
    let mut hasher = keyed(&whole);
    hasher.write(text);
    hasher.finish128().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u32 = 1_800_000_000;
    const HOUR: u32 = 3_600;

    fn keys(route: &str, secrets: &[u8]) -> TokenKeys {
        TokenKeys::of(route, &secrets.iter().map(|fill| [*fill; 32]).collect::<Vec<_>>())
    }

    #[test]
    fn the_alphabet_is_the_librarys() {
        for first in 0..=u8::MAX {
            let bytes = std::array::from_fn(|at| first.wrapping_mul(7).wrapping_add(u8::try_from(at).unwrap().wrapping_mul(first)));
            assert_eq!(encode(&bytes).as_slice(), URL_SAFE_NO_PAD.encode(bytes).as_bytes());
        }
    }

    fn token() -> Token {
        let version = version_id("canary", "42");
        Token { epoch: 7, pool: 2, is_counted: true, version, arm: 0, window: NOW, group: 31, nonce: 0x0000_1234_5678_9abc }
    }

    fn tokens() -> impl Strategy<Value = Token> {
        let numbers = (0..1_u64 << 48, 0..64_u8, any::<bool>(), any::<u32>(), any::<u32>());
        (numbers, NOW - HOUR..=NOW, 0..GROUPS, 0..1_u64 << 48).prop_map(
            |((epoch, pool, is_counted, version, arm), window, group, nonce)| Token {
                epoch,
                pool,
                is_counted,
                version,
                arm,
                window,
                group,
                nonce,
            },
        )
    }

    #[test]
    fn a_token_is_64_characters_that_say_the_same_everywhere() {
        let text = keys("search", b"a").issue(&token()).unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{text}");
        assert_eq!(route_of(text.as_bytes()), Some(route_id("search")));
        assert_eq!((keys("search", b"").issue(&token()), keys("search", b"").is_empty()), (None, true));
    }

    #[test]
    fn keys_rotate_and_are_each_routes_own() {
        let old = keys("search", b"a").issue(&token()).unwrap();
        let read = |keys: &TokenKeys, text: &[u8]| keys.read(text, NOW, HOUR);
        assert_eq!(read(&keys("search", b"ba"), &old), Ok(token()));
        let new = keys("search", b"ba").issue(&token()).unwrap();
        assert_eq!(read(&keys("search", b"ba"), &new), Ok(token()));
        assert_eq!(read(&keys("search", b"a"), &new), Err(TokenFault::Forged));
        assert_eq!(read(&keys("ads", b"a"), &old), Err(TokenFault::Forged));
        assert_eq!(read(&keys("search", b""), &old), Err(TokenFault::Forged));
    }

    #[test]
    fn a_token_is_good_for_its_time() {
        let keys = keys("search", b"a");
        let text = keys.issue(&token()).unwrap();
        let at = |now: u32| keys.read(&text, now, HOUR).err();
        assert_eq!((at(NOW + HOUR), at(NOW + HOUR + 1)), (None, Some(TokenFault::Expired)));
        assert_eq!((at(NOW - CLOCKS_APART), at(NOW - CLOCKS_APART - 1)), (None, Some(TokenFault::Early)));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let keys = keys("search", b"a");
        let good = keys.issue(&token()).unwrap();
        let mut longer = good.to_vec();
        longer.push(b'A');
        let mut other_version = URL_SAFE_NO_PAD.decode(good).unwrap();
        other_version[0] = 2;
        let other_version = URL_SAFE_NO_PAD.encode(other_version).into_bytes();
        for text in [&b""[..], b"abc", &good[..63], &longer, &[b'+'; 64], &[b'='; 64], &[0xff; 64], &[b'A'; 10_000], &other_version] {
            assert_eq!(keys.read(text, NOW, HOUR), Err(TokenFault::Malformed));
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back(token in tokens()) {
            let keys = keys("search", b"a");
            prop_assert_eq!(keys.read(&keys.issue(&token).unwrap(), NOW, HOUR), Ok(token));
        }

        #[test]
        fn no_bit_of_it_can_be_changed(token in tokens(), bit in 0_usize..BYTES * 8) {
            let keys = keys("search", b"a");
            let mut bytes = URL_SAFE_NO_PAD.decode(keys.issue(&token).unwrap()).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(bytes);
            let expected = if bit < 8 { TokenFault::Malformed } else { TokenFault::Forged };
            prop_assert_eq!(keys.read(text.as_bytes(), NOW, HOUR), Err(expected));
        }
    }
}
