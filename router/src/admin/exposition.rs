//! Writes Prometheus' text format, version 0.0.4: `# HELP`, `# TYPE`, then the samples of one family together.

use std::fmt::Write as _;

use crate::quality::DURATION_EDGES_MICROS;

/// The content type of what [`Exposition::finish`] returns.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values, in order.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Counts of a histogram's buckets, not cumulative, and their sum.
#[derive(Debug, Default, Clone)]
pub(super) struct Buckets {
    pub(super) counts: [u64; DURATION_EDGES_MICROS.len() + 1],
    pub(super) sum_micros: u64,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Begins a family; its samples follow. `kind` is counter, gauge or histogram; a counter's name ends with `_total`.
    pub(super) fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A counter's value.
    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.sample("", labels, None, value);
    }

    /// A gauge's value.
    pub(super) fn gauge(&mut self, labels: Labels<'_>, value: f64) {
        self.sample("", labels, None, value);
    }

    /// A histogram: its buckets, sum (in seconds) and count.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, buckets: &Buckets) {
        let mut total = 0;
        for (place, count) in buckets.counts.iter().enumerate() {
            total += count;
            let edge = DURATION_EDGES_MICROS.get(place).map_or_else(|| "+Inf".to_owned(), |edge| seconds(*edge).to_string());
            self.sample("_bucket", labels, Some(("le", &edge)), total);
        }
        self.sample("_sum", labels, None, seconds(buckets.sum_micros));
        self.sample("_count", labels, None, total);
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn sample(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&'static str, &str)>, value: impl std::fmt::Display) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let _ = write!(self.text, "{separator}{name}=\"{}\"", escaped(value));
            separator = ',';
        }
        let close = if separator == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// Whole microseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_families_samples_and_escapes() {
        let mut page = Exposition::default();
        page.family("a_total", "counter", "Counts.");
        page.count(&[("route", "x\"y\\z\n")], 7);
        page.count(&[], 8);
        page.family("b", "gauge", "Measures.");
        page.gauge(&[("pool", "blue"), ("endpoint", "h:1")], 0.5);
        let expected = "# HELP a_total Counts.\n# TYPE a_total counter\na_total{route=\"x\\\"y\\\\z\\n\"} 7\na_total 8\n\
                        # HELP b Measures.\n# TYPE b gauge\nb{pool=\"blue\",endpoint=\"h:1\"} 0.5\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_infinity() {
        let mut buckets = Buckets { sum_micros: 1_500_000, ..Buckets::default() };
        buckets.counts[0] = 2;
        buckets.counts[3] = 1;
        buckets.counts[DURATION_EDGES_MICROS.len()] = 4;
        let mut page = Exposition::default();
        page.family("d_seconds", "histogram", "Lasts.");
        page.histogram(&[("route", "r")], &buckets);
        let text = page.finish();
        for line in [
            "d_seconds_bucket{route=\"r\",le=\"0.0001\"} 2",
            "d_seconds_bucket{route=\"r\",le=\"0.001\"} 3",
            "d_seconds_bucket{route=\"r\",le=\"10\"} 3",
            "d_seconds_bucket{route=\"r\",le=\"+Inf\"} 7",
            "d_seconds_sum{route=\"r\"} 1.5",
            "d_seconds_count{route=\"r\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
