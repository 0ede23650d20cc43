//! `[evidence]`: how counters become evidence.

use std::time::Duration;

use super::check::Checker;
use super::written;

/// When a window is taken, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// A window's traffic is taken so long after its end: by then every router has told what it counted.
    pub traffic_seal: Duration,
    /// A window's clicks, conversions and quality are taken so long after its end.
    pub maturity: Duration,
    /// A live model without a candidate is compared with itself, so long before.
    pub history: Duration,
    /// Of the log of judged windows, in bytes, by route. 0 keeps none.
    pub log_bytes: u64,
}

pub(super) fn check_evidence(checker: &mut Checker, written: &written::Evidence) -> Evidence {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let traffic_seal = checker.duration("evidence.traffic_seal", written.traffic_seal.as_deref(), seconds(2), ms(1_500), seconds(30));
    let evidence = Evidence {
        traffic_seal,
        maturity: checker.duration(
            "evidence.maturity",
            written.maturity.as_deref(),
            seconds(60).max(traffic_seal),
            ms(1_500),
            seconds(240),
        ),
        history: checker.duration("evidence.history", written.history.as_deref(), seconds(300), seconds(1), seconds(300)),
        log_bytes: checker.bytes("evidence.log_bytes", written.log_bytes.as_deref(), 256 << 20, 0, 64 << 30),
    };
    checker.ordered(("evidence.traffic_seal", evidence.traffic_seal), ("evidence.maturity", evidence.maturity));
    evidence
}
