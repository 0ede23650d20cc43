//! Signed overrides: a request that says which pool shall answer it, and proves that it may.
//!
//! `x-switchback-override: POOL;EXPIRY;SIGNATURE`, where the signature is the HMAC-SHA-256, in hexadecimal, of `ROUTE;POOL;EXPIRY`. Names
//! have no `;`, so that nothing can be moved from one part to another.
//!
//! Invariant: an override that is not good is ignored and counted. It never becomes an error, and never reaches a backend.

use std::path::PathBuf;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::{self, Route};
use crate::quality::OverrideFault;
use crate::vocabulary::PoolIndex;

/// The field that carries an override.
pub const FIELD: &str = "x-switchback-override";
const NAME: HeaderName = HeaderName::from_static(FIELD);
/// Shorter ones could be guessed, longer ones are some other file.
const KEY_CHARACTERS: std::ops::RangeInclusive<usize> = 32..=1_024;

/// Whose signature chooses a pool, and for how long.
#[derive(Default)]
pub struct Overrides {
    keys: Vec<Hmac<Sha256>>,
    max_seconds: u64,
}

impl std::fmt::Debug for Overrides {
    /// Says nothing of the keys.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Overrides({} keys)", self.keys.len())
    }
}

/// A key that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// The file.
    #[error("override.key_files = {path:?}: cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("override.key_files = {path:?}: must hold a key of 32 to 1024 printable ASCII characters on one line")]
    Key {
        /// Which.
        path: PathBuf,
    },
}

impl OverrideError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        "override.key_files"
    }
}

impl Overrides {
    /// Reads the keys that the config names; without `[override]` there are none, and no override is good.
    ///
    /// # Errors
    /// [`OverrideError`], naming the file.
    pub fn load(written: Option<&config::Override>) -> Result<Overrides, OverrideError> {
        let Some(written) = written else { return Ok(Overrides::default()) };
        let keys = written.key_files.iter().map(|path| {
            let text = std::fs::read_to_string(path).map_err(|source| OverrideError::File { path: path.clone(), source })?;
            let text = text.trim_end();
            let is_key = KEY_CHARACTERS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            let key = Hmac::new_from_slice(text.as_bytes()).ok().filter(|_| is_key);
            key.ok_or_else(|| OverrideError::Key { path: path.clone() })
        });
        Ok(Overrides { keys: keys.collect::<Result<_, _>>()?, max_seconds: written.max_lifetime.as_secs() })
    }

    /// The value of [`FIELD`], signed with the first key; `None` without any.
    #[must_use]
    pub fn sign(&self, route: &str, pool: &str, expiry: u64) -> Option<String> {
        let signature = signature(self.keys.first()?, route, pool, expiry);
        Some(format!("{pool};{expiry};{}", hex::encode(signature)))
    }

    /// The pool that a request asks for with right. `None` when it asks for none; `now` is in seconds since 1970.
    pub(crate) fn look(&self, headers: &HeaderMap, route: &Route, now: u64) -> Option<Result<PoolIndex, OverrideFault>> {
        let mut lines = headers.get_all(NAME).iter();
        let line = lines.next()?;
        let text = line.to_str().ok().filter(|_| lines.next().is_none());
        Some(text.and_then(parse).ok_or(OverrideFault::Malformed).and_then(|asked| self.check(&asked, route, now)))
    }

    fn check(&self, asked: &Asked<'_>, route: &Route, now: u64) -> Result<PoolIndex, OverrideFault> {
        // Every key is tried, whichever is the right one, so that the time says nothing.
        let mut is_signed = Choice::from(0);
        for key in &self.keys {
            is_signed |= signature(key, &route.name, asked.pool, asked.expiry).ct_eq(&asked.signature);
        }
        if !bool::from(is_signed) {
            return Err(OverrideFault::Signature);
        }
        if asked.expiry <= now {
            return Err(OverrideFault::Expired);
        }
        if asked.expiry - now > self.max_seconds {
            return Err(OverrideFault::TooLong);
        }
        route.pool_named(asked.pool).ok_or(OverrideFault::Pool)
    }
}

struct Asked<'a> {
    pool: &'a str,
    expiry: u64,
    signature: [u8; 32],
}

fn parse(text: &str) -> Option<Asked<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (pool, expiry, signed) = (parts.next()?, parts.next()?, parts.next()?);
    let mut signature = [0; 32];
    hex::decode_to_slice(signed, &mut signature).ok()?;
    let is_number = !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit());
    let expiry = expiry.parse().ok().filter(|_| is_number && parts.next().is_none())?;
    Some(Asked { pool, expiry, signature })
}

fn signature(key: &Hmac<Sha256>, route: &str, pool: &str, expiry: u64) -> [u8; 32] {
    let mut mac = key.clone();
    mac.update(format!("{route};{pool};{expiry}").as_bytes());
    mac.finalize().into_bytes().into()
}

/// Seconds since 1970.
pub(crate) fn seconds_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    pub(in crate::serve) const NOW: u64 = 1_700_000_000;
    const HOUR: u64 = 3_600;
    pub(in crate::serve) const LONGEST: u64 = 24 * HOUR;

    pub(in crate::serve) fn overrides(keys: &[&str]) -> Overrides {
        let keys = keys.iter().map(|key| Hmac::new_from_slice(key.as_bytes()).unwrap()).collect();
        Overrides { keys, max_seconds: LONGEST }
    }

    pub(in crate::serve) fn route() -> Route {
        let config = r#"
            listen = { traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }
            route = [{ name = "search", pools = { blue = { endpoints = ["http://127.0.0.1:1"] }, canary = { endpoints = ["http://127.0.0.1:2"] } } }]
        "#;
        crate::config::parse("test", config).unwrap().routes.remove(0)
    }

    fn look(overrides: &Overrides, lines: &[&str]) -> Option<Result<PoolIndex, OverrideFault>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, HeaderValue::from_str(line).unwrap());
        }
        overrides.look(&headers, &route(), NOW)
    }

    #[test]
    fn a_signature_is_what_other_tools_make() {
        // printf 'search;canary;1700003600' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "canary;1700003600;60a73d2bd7089251fcec380eab84935ea0a76a2e6a5494556d6880f826815b96";
        assert_eq!(overrides(&["0123456789abcdef0123456789abcdef"]).sign("search", "canary", NOW + HOUR).unwrap(), expected);
    }

    #[test]
    fn a_good_one_chooses_its_pool_by_any_of_the_keys() {
        let (old, new, both) = (overrides(&["old"]), overrides(&["new"]), overrides(&["new", "old"]));
        for signer in [&old, &new] {
            let line = signer.sign("search", "canary", NOW + HOUR).unwrap();
            assert_eq!(look(&both, &[&line]), Some(Ok(route().pool_named("canary").unwrap())));
        }
        assert_eq!(look(&both, &[]), None);
    }

    #[test]
    fn each_fault_has_its_name() {
        let keys = overrides(&["key"]);
        let sign = |route: &str, pool: &str, expiry: u64| keys.sign(route, pool, expiry).unwrap();
        let good = sign("search", "canary", NOW + HOUR);
        let fault = |line: &str| look(&keys, &[line]).unwrap().unwrap_err();
        assert_eq!(fault(&sign("search", "canary", NOW)), OverrideFault::Expired);
        assert_eq!(fault(&sign("search", "canary", NOW + 25 * HOUR)), OverrideFault::TooLong);
        assert_eq!(fault(&sign("search", "green", NOW + HOUR)), OverrideFault::Pool);
        assert_eq!(fault(&sign("other", "canary", NOW + HOUR)), OverrideFault::Signature, "another route's");
        assert_eq!(fault(&good.replace("canary", "blue")), OverrideFault::Signature);
        assert_eq!(fault(&good.replace(&(NOW + HOUR).to_string(), &(NOW + 2 * HOUR).to_string())), OverrideFault::Signature);
        for malformed in
            ["", "canary", "canary;1", "canary;1;00", &format!("{good};"), &good.replace("canary;", "canary;+"), &good[..good.len() - 1]]
        {
            assert_eq!(fault(malformed), OverrideFault::Malformed, "{malformed}");
        }
        assert_eq!(look(&keys, &[&good, &good]), Some(Err(OverrideFault::Malformed)), "two of them");
        assert_eq!(look(&overrides(&[]), &[&good]), Some(Err(OverrideFault::Signature)), "without keys none is good");
    }

    proptest! {
        #[test]
        fn nothing_that_was_not_signed_is_good(text in "[a-z;0-9 ]{0,120}") {
            let found = look(&overrides(&["key"]), &[&text]);
            prop_assert!(matches!(found, Some(Err(OverrideFault::Malformed | OverrideFault::Signature))));
        }
    }
}
