//! `[route.pools.NAME.outlier]`: written form -> checked form.

use std::time::Duration;

use super::check::Checker;
use super::checked::Outlier;
use super::written;

pub(super) fn check_outlier(checker: &mut Checker, pool_key: &str, written: &written::Outlier) -> Outlier {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let key = |name: &str| format!("{pool_key}.outlier.{name}");
    let (threshold, volume) = (key("failure_percentage_threshold"), key("failure_percentage_request_volume"));
    let outlier = Outlier {
        consecutive_failures: checker.count(&key("consecutive_failures"), written.consecutive_failures, 5, 0, 10_000),
        failure_percentage_threshold: checker.count(&threshold, written.failure_percentage_threshold, 50, 0, 100),
        failure_percentage_request_volume: checker.count(&volume, written.failure_percentage_request_volume, 50, 1, 1_000_000),
        interval: checker.duration(&key("interval"), written.interval.as_deref(), seconds(10), ms(100), seconds(3_600)),
        base_ejection_time: checker.duration(
            &key("base_ejection_time"),
            written.base_ejection_time.as_deref(),
            seconds(5),
            ms(10),
            seconds(3_600),
        ),
        max_ejection_time: checker.duration(
            &key("max_ejection_time"),
            written.max_ejection_time.as_deref(),
            seconds(300),
            ms(10),
            seconds(86_400),
        ),
        max_ejection_percent: checker.count(&key("max_ejection_percent"), written.max_ejection_percent, 50, 0, 50),
        probes: checker.count(&key("probes"), written.probes, 3, 1, 100),
    };
    checker.ordered((&key("base_ejection_time"), outlier.base_ejection_time), (&key("max_ejection_time"), outlier.max_ejection_time));
    outlier
}
