//! `[route.breaker]`: each router's own guard against a candidate that fails.

use super::check::Checker;
use super::written;

/// When it trips.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Whether there is one.
    pub is_enabled: bool,
    /// How likely it may be, over a whole rollout and all routers together, that it trips on a candidate which is no worse. 1e-9 to 0.05.
    pub alpha: f64,
}

pub(super) fn check_breaker(checker: &mut Checker, route_key: &str, written: &written::Breaker) -> Breaker {
    let alpha = written.alpha.unwrap_or(0.001);
    if !(1e-9..=0.05).contains(&alpha) {
        checker.refuse(&format!("{route_key}.breaker.alpha"), alpha, "must be from 1e-9 to 0.05");
    }
    Breaker { is_enabled: written.enabled.unwrap_or(true), alpha }
}
