//! Whose word is taken: `listen.trusted_proxies`, and `[override]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::check::Checker;
use super::checked::Override;
use super::written;

const PROXY_RULE: &str = "must be addresses or networks of them, like \"10.0.0.0/8\" or \"::1\"";
pub(super) const KEYS_RULE: &str = "must be 1 to 16 paths of files that hold a key each, the one that signs first";
/// Keys are tried one after the other.
pub(super) const KEYS: std::ops::RangeInclusive<usize> = 1..=16;

pub(super) fn check_proxies(checker: &mut Checker, written: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in written {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => checker.refuse("listen.trusted_proxies", text, PROXY_RULE),
        }
    }
    networks
}

pub(super) fn check_override(checker: &mut Checker, written: Option<written::Override>) -> Option<Override> {
    let written = written?;
    let files = written.key_files.unwrap_or_else(|| {
        checker.missing("override.key_files", KEYS_RULE);
        vec![String::new()]
    });
    if !KEYS.contains(&files.len()) {
        checker.refuse("override.key_files", files.len(), KEYS_RULE);
    }
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    let max_lifetime = checker.duration("override.max_lifetime", written.max_lifetime.as_deref(), day, minute, 30 * day);
    Some(Override { key_files: files.into_iter().map(PathBuf::from).collect(), max_lifetime })
}
