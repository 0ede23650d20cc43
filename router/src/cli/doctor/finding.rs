//! What a check found: one line.

use serde::Serialize;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or will not.
    Failed,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The part of the set-up.
    pub(super) part: &'static str,
    /// What was looked at.
    pub(super) name: String,
    pub(super) status: Status,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty where there is nothing to do.
    pub(super) to_do: String,
}

impl Finding {
    pub(super) fn ok(part: &'static str, name: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { part, name: name.into(), status: Status::Ok, found: found.into(), to_do: String::new() }
    }

    pub(super) fn warning(part: &'static str, name: impl Into<String>, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding { part, name: name.into(), status: Status::Warning, found: found.into(), to_do: to_do.into() }
    }

    pub(super) fn failed(part: &'static str, name: impl Into<String>, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding { part, name: name.into(), status: Status::Failed, found: found.into(), to_do: to_do.into() }
    }
}

/// A date in the time to come, by its seconds since 1970: whether a certificate that ends then is one to see to.
pub(super) fn until(part: &'static str, name: impl Into<String>, (what, not_after): (&str, i64), now: i64, to_do: &str) -> Finding {
    const DAY: i64 = 86_400;
    const SOON: i64 = 14 * DAY;
    let left = not_after.saturating_sub(now);
    let days = left / DAY;
    match left {
        left if left <= 0 => Finding::failed(part, name, format!("{what} ended {} day(s) ago", -days), to_do),
        left if left < SOON => Finding::warning(part, name, format!("{what} ends in {days} day(s)"), to_do),
        _ => Finding::ok(part, name, format!("{what}, {days} days left")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_soon_over_or_over() {
        let of = |not_after: i64| until("tls", "a", ("a.example", not_after), 1_000_000_000, "renew it");
        assert_eq!(
            (of(1_000_000_000 + 30 * 86_400).status, of(1_000_086_401).status, of(999_000_000).status),
            (Status::Ok, Status::Warning, Status::Failed)
        );
        assert_eq!(of(1_000_086_401).found, "a.example ends in 1 day(s)");
        assert_eq!((of(999_800_000).found.as_str(), of(999_800_000).to_do.as_str()), ("a.example ended 2 day(s) ago", "renew it"));
    }
}
