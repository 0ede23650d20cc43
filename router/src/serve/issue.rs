//! Tokens on responses: what comes back with a click, and says which model it was that answered.

use std::cell::Cell;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::http1::PassedLines;
use super::routes::RouteWorker;
use super::split::Chosen;
use crate::quality::{Token, TokenKeys, TokenText, version_id};
use crate::vocabulary::PoolIndex;

/// Where it stands.
pub(crate) const TOKEN: &str = "x-switchback-token";
const X_SWITCHBACK_TOKEN: HeaderName = HeaderName::from_static(TOKEN);

/// One worker's tokens of one route.
pub(crate) struct Tokens {
    keys: TokenKeys,
    /// Model versions by pool, as tokens name them.
    versions: Vec<u32>,
    /// The state of a generator of nonces: it has to tell tokens apart, and needs no secrecy, since the MAC has that.
    random: Cell<u64>,
}

impl Tokens {
    /// For a route with these pools, by name and version. Without keys there are no tokens.
    pub(crate) fn new<'a>(keys: TokenKeys, pools: impl Iterator<Item = (&'a str, &'a str)>) -> Tokens {
        let versions = pools.map(|(name, version)| version_id(name, version)).collect();
        Tokens { keys, versions, random: Cell::new(rand::random::<u64>() | 1) }
    }

    /// xorshift64*, its upper 48 bits.
    fn nonce(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

/// Issues a token for a response of this pool, and counts it as an impression where the query counts. It is put behind the lines of a backend that pass as they came,
/// or else among the fields.
pub(crate) fn issue(headers: &mut HeaderMap, lines: Option<&mut PassedLines>, route: &RouteWorker, pool: PoolIndex, chosen: &Chosen) {
    let tokens = &route.tokens;
    let Some(version) = tokens.versions.get(pool.get()).copied() else { return };
    let counts = chosen.counts.as_ref().filter(|_| pool == chosen.pool);
    let at = route.quarter();
    let token = Token {
        epoch: chosen.epoch,
        pool: pool.0,
        is_counted: counts.is_some(),
        version,
        arm: counts.and_then(|counted| counted.arm.as_ref()).map_or(0, |arm| arm.id()),
        window: at.window(),
        group: counts.map_or(0, |counted| counted.group),
        nonce: tokens.nonce(),
    };
    let Some(text) = tokens.keys.issue(&token) else { return };
    match lines {
        Some(passed) => passed.lines.add(line(&text)),
        // Base64url is always a header value.
        None => drop(HeaderValue::from_bytes(&text).map(|value| headers.insert(X_SWITCHBACK_TOKEN, value))),
    }
    if let (Some(counted), Some(counters)) = (counts, route.counters().pools.get(pool.get())) {
        counted.outcomes(counters).issued(at, counted.group);
    }
}

/// As it stands in HTTP/1.
fn line(text: &TokenText) -> Bytes {
    const NAME: &[u8] = b"x-switchback-token: ";
    const END: &[u8] = b"\r\n";
    let mut line = Vec::with_capacity(NAME.len() + text.len() + END.len());
    line.extend_from_slice(NAME);
    line.extend_from_slice(text);
    line.extend_from_slice(END);
    line.into()
}
