//! `[events]` and `[token]`: what is taken of events, and whose tokens are good.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::check_trust::{KEYS, KEYS_RULE};
use super::checked::{Events, Rate};
use super::written;

const PATH_RULE: &str = "must begin with /, be no more than 256 characters of a URL's path, and not be / alone";
const ACTION_RULE: &str =
    "must be at most 16 names of 1 to 64 of a-z, 0-9, - and _, and none of click, impression, conversion, purchase and add_to_cart";
const ACTIONS: usize = 16;
/// They have a meaning of their own.
const OTHER_ACTIONS: [&str; 5] = ["click", "impression", "conversion", "purchase", "add_to_cart"];

pub(super) fn check_events(checker: &mut Checker, written: written::Events) -> Events {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let path = written.path.unwrap_or_else(|| "/_switchback/events".to_owned());
    if !is_path(&path) {
        checker.refuse("events.path", &path, PATH_RULE);
    }
    let (minute, hour, day) = (Duration::from_secs(60), Duration::from_secs(3_600), Duration::from_secs(86_400));
    let token_lifetime = checker.duration("events.token_lifetime", written.token_lifetime.as_deref(), hour, minute, day);
    Events {
        path,
        is_public: written.public.unwrap_or(true),
        max_body: bytes(checker.bytes("events.max_body", written.max_body.as_deref(), 256 << 10, 1 << 10, 16 << 20)),
        max_events: checker.count("events.max_events", written.max_events, 1_000, 1, 100_000),
        rate: check_rate(checker, ("events.rate", written.rate, 20_000), ("events.burst", written.burst)),
        rate_per_address: check_rate(
            checker,
            ("events.rate_per_address", written.rate_per_address, 2_000),
            ("events.burst_per_address", written.burst_per_address),
        ),
        repeat_memory: bytes(checker.bytes("events.repeat_memory", written.repeat_memory.as_deref(), 128 << 20, 1 << 20, 16 << 30)),
        // At most a day.
        token_lifetime_seconds: u32::try_from(token_lifetime.as_secs()).unwrap_or(86_400),
        quality_actions: check_actions(checker, written.quality_actions),
    }
}

/// The burst is twice the rate unless it is said.
fn check_rate(checker: &mut Checker, (key, rate, default): (&str, Option<u64>, u32), (burst_key, burst): (&str, Option<u64>)) -> Rate {
    let per_second: u32 = checker.count(key, rate, default, 1, 10_000_000);
    let burst: u32 = checker.count(burst_key, burst, per_second.saturating_mul(2), 1, 100_000_000);
    if burst < per_second {
        checker.refuse(burst_key, burst, format!("must not be below {key} ({per_second})"));
    }
    Rate { per_second, burst }
}

fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b'\\' | b'"' | b'{' | b'}');
    path.starts_with('/') && (2..=256).contains(&path.len()) && path.bytes().all(is_plain)
}

fn check_actions(checker: &mut Checker, written: Option<Vec<String>>) -> Vec<String> {
    let actions = written.unwrap_or_else(|| vec!["quality".to_owned()]);
    let is_name = |name: &String| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        (1..=64).contains(&name.len()) && name.bytes().all(is_letter) && !OTHER_ACTIONS.contains(&name.as_str())
    };
    if actions.len() > ACTIONS {
        checker.refuse("events.quality_actions", actions.len(), ACTION_RULE);
    }
    for name in actions.iter().filter(|name| !is_name(name)) {
        checker.refuse("events.quality_actions", name, ACTION_RULE);
    }
    actions
}

pub(super) fn check_token(checker: &mut Checker, written: Option<written::Token>) -> Option<Vec<PathBuf>> {
    let files = written?.key_files.unwrap_or_else(|| {
        checker.missing("token.key_files", KEYS_RULE);
        vec![String::new()]
    });
    if !KEYS.contains(&files.len()) {
        checker.refuse("token.key_files", files.len(), KEYS_RULE);
    }
    Some(files.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_one_and_not_every_path() {
        for good in ["/e", "/_switchback/events", "/a/b.c~d"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "/", "e", "/e?x", "/e#x", "/%65", "/ e", "/\u{e9}", &format!("/{}", "e".repeat(256))] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_burst_is_twice_the_rate_unless_it_is_said() {
        let mut checker = Checker::default();
        let of = |checker: &mut Checker, rate, burst| check_rate(checker, ("r", rate, 10), ("b", burst));
        assert_eq!(of(&mut checker, None, None), Rate { per_second: 10, burst: 20 });
        assert_eq!(of(&mut checker, Some(5), Some(7)), Rate { per_second: 5, burst: 7 });
        assert_eq!(checker.said(), "");
        of(&mut checker, Some(5), Some(4));
        assert_eq!(checker.said(), "b = 4: must not be below r (5)\n");
    }

    #[test]
    fn an_action_that_means_something_else_is_no_quality() {
        for bad in ["click", "", "A", "a b", &"a".repeat(65)] {
            let mut checker = Checker::default();
            check_actions(&mut checker, Some(vec![bad.to_owned()]));
            assert!(checker.said().contains("events.quality_actions"), "{bad}");
        }
    }
}
