//! A log of sealed windows: one JSON object a line, as a router records them and as `switchback policy simulate --replay` reads them.
//!
//! The fields are those of `wit/rollback.wit`, in snake case; `docs/POLICIES.md` shows a line. A line has at most
//! [`LINE_BYTES`], and numbers are written so that they are read the same, bit for bit.

use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use switchback_policy::rollback::{Bucket, Metric, Slice, Step, Tally, Window};

/// The longest line. 64 metrics with groups and 1,024 buckets have 0.6 MB.
pub const LINE_BYTES: u64 = 1 << 20;

/// The layout, in every line.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    /// How many slices of the rollout were judged before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<u64>,
    index: u64,
    length_ms: u32,
    slice: SliceName,
    step: StepLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share_ppm: Option<u32>,
    candidate_requests: u64,
    control_requests: u64,
    metrics: Vec<MetricLine>,
    /// `[upper_micros, candidate, control]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    latency: Vec<(u64, u64, u64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SliceName {
    Traffic,
    Engagement,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepLine {
    index: u32,
    share_ppm: u32,
    is_last: bool,
}

/// `n`, `sum`, `sumsq`.
type TallyLine = (u64, f64, f64);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricLine {
    id: String,
    candidate: TallyLine,
    control: TallyLine,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    candidate_groups: Vec<TallyLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    control_groups: Vec<TallyLine>,
}

/// A line that is no window.
#[derive(Debug, thiserror::Error)]
pub enum WindowLogError {
    /// The log cannot be read or written.
    #[error("the window log cannot be read or written")]
    Io(#[from] io::Error),
    /// A line is none.
    #[error("line {line} of the window log: {reason}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// One window as a line, without the line's end; `order` is how many slices of its rollout were judged before, whoever did.
///
/// # Errors
/// When a sum is not finite.
pub fn to_line(order: Option<u64>, window: &Window) -> Result<String, String> {
    for metric in &window.metrics {
        let tallies = [&metric.candidate, &metric.control].into_iter().chain(&metric.candidate_groups).chain(&metric.control_groups);
        if tallies.into_iter().any(|tally| !tally.sum.is_finite() || !tally.sumsq.is_finite()) {
            return Err(format!("{} has a sum that is no number", metric.id));
        }
    }
    let line = Line {
        v: VERSION,
        order,
        index: window.index,
        length_ms: window.length_ms,
        slice: match window.slice {
            Slice::Traffic => SliceName::Traffic,
            Slice::Engagement => SliceName::Engagement,
        },
        step: StepLine { index: window.step.index, share_ppm: window.step.share_ppm, is_last: window.step.is_last },
        share_ppm: window.share_ppm,
        candidate_requests: window.candidate_requests,
        control_requests: window.control_requests,
        metrics: window.metrics.iter().map(metric_line).collect(),
        latency: window.latency.iter().map(|bucket| (bucket.upper_micros, bucket.candidate, bucket.control)).collect(),
    };
    serde_json::to_string(&line).map_err(|error| error.to_string())
}

/// One window of a line, and its order where it is said.
///
/// # Errors
/// What is wrong with it.
pub fn from_line(text: &str) -> Result<(Option<u64>, Window), String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if line.v != VERSION {
        return Err(format!("v = {}: this program reads version {VERSION}", line.v));
    }
    let window = Window {
        index: line.index,
        length_ms: line.length_ms,
        slice: match line.slice {
            SliceName::Traffic => Slice::Traffic,
            SliceName::Engagement => Slice::Engagement,
        },
        step: Step { index: line.step.index, share_ppm: line.step.share_ppm, is_last: line.step.is_last },
        share_ppm: line.share_ppm,
        candidate_requests: line.candidate_requests,
        control_requests: line.control_requests,
        metrics: line.metrics.into_iter().map(metric).collect(),
        latency: line.latency.into_iter().map(|(upper_micros, candidate, control)| Bucket { upper_micros, candidate, control }).collect(),
    };
    Ok((line.order, window))
}

/// Writes one window as a line.
///
/// # Errors
/// When it cannot be written, or is longer than can be read.
pub fn write(to: &mut impl Write, order: Option<u64>, window: &Window) -> Result<(), WindowLogError> {
    let mut line = to_line(order, window).map_err(|reason| WindowLogError::Line { line: 0, reason })?;
    if line.len() as u64 >= LINE_BYTES {
        return Err(WindowLogError::Line { line: 0, reason: format!("{} bytes; {LINE_BYTES} at most are allowed", line.len()) });
    }
    line.push('\n');
    Ok(to.write_all(line.as_bytes())?)
}

/// Reads a log, window by window. A line that was cut off at the end of the log (a router that was killed while it wrote) is left out.
pub fn read(from: impl BufRead) -> impl Iterator<Item = Result<(Option<u64>, Window), WindowLogError>> {
    Reader { from, line: 0, is_over: false }
}

struct Reader<R> {
    from: R,
    line: u64,
    is_over: bool,
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<(Option<u64>, Window), WindowLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        self.line += 1;
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(LINE_BYTES).read_until(b'\n', &mut bytes);
        let parsed = match read {
            Err(error) => Err(error.into()),
            Ok(_) if bytes.last() != Some(&b'\n') => {
                self.is_over = true;
                let is_too_long = bytes.len() as u64 == LINE_BYTES;
                let reason = format!("longer than {LINE_BYTES} bytes");
                return is_too_long.then_some(Err(WindowLogError::Line { line: self.line, reason }));
            }
            Ok(_) => std::str::from_utf8(&bytes)
                .map_err(|error| error.to_string())
                .and_then(from_line)
                .map_err(|reason| WindowLogError::Line { line: self.line, reason }),
        };
        self.is_over = parsed.is_err();
        Some(parsed)
    }
}

fn metric_line(metric: &Metric) -> MetricLine {
    let tally = |tally: &Tally| (tally.n, tally.sum, tally.sumsq);
    MetricLine {
        id: metric.id.clone(),
        candidate: tally(&metric.candidate),
        control: tally(&metric.control),
        candidate_groups: metric.candidate_groups.iter().map(tally).collect(),
        control_groups: metric.control_groups.iter().map(tally).collect(),
    }
}

fn metric(line: MetricLine) -> Metric {
    let tally = |(n, sum, sumsq)| Tally { n, sum, sumsq };
    Metric {
        id: line.id,
        candidate: tally(line.candidate),
        control: tally(line.control),
        candidate_groups: line.candidate_groups.into_iter().map(tally).collect(),
        control_groups: line.control_groups.into_iter().map(tally).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let tally = |n| Tally { n, sum: n as f64 / 3.0, sumsq: n as f64 / 7.0 };
        Window {
            index: 7,
            length_ms: 1_000,
            slice: Slice::Engagement,
            step: Step { index: 2, share_ppm: 100_000, is_last: true },
            share_ppm: None,
            candidate_requests: 50,
            control_requests: 450,
            metrics: vec![Metric {
                id: "quality".to_owned(),
                candidate: tally(50),
                control: tally(449),
                candidate_groups: vec![tally(1); 32],
                control_groups: Vec::new(),
            }],
            latency: vec![Bucket { upper_micros: 1_050, candidate: 1, control: 2 }],
        }
    }

    #[test]
    fn a_log_is_read_as_it_was_written_but_for_a_line_that_was_cut_off() {
        let mut log = Vec::new();
        for _ in 0..3 {
            write(&mut log, Some(7), &window()).unwrap();
        }
        log.truncate(log.len() - 5);
        let read: Vec<_> = read(log.as_slice()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, vec![(Some(7), window()), (Some(7), window())]);
    }

    #[test]
    fn a_line_that_is_no_window_is_said_by_its_number() {
        let mut log = Vec::new();
        write(&mut log, None, &window()).unwrap();
        log.extend_from_slice(b"{\"v\": 1}\n");
        let error = read(log.as_slice()).nth(1).unwrap().unwrap_err();
        assert!(error.to_string().starts_with("line 2 of the window log: missing field"), "{error}");
        let other = to_line(None, &window()).unwrap().replace("\"v\":1", "\"v\":2");
        assert_eq!(from_line(&other).unwrap_err(), "v = 2: this program reads version 1");
        let mut nan = window();
        nan.metrics[0].candidate.sum = f64::NAN;
        assert!(to_line(None, &nan).is_err());
    }
}
