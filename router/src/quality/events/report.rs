//! What whoever sent events is told: how many were accepted, how many refused and why. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::refusal::EventRefusal;

/// Refusals that are told one by one.
const TOLD: usize = 10;

/// The answer to a request with events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Events that are good.
    accepted: u64,
    /// Of these, those that moved a metric: a token's first click, and the like.
    counted: u64,
    /// By reason.
    refused: BTreeMap<&'static str, u64>,
    /// The first few.
    refusals: Vec<Told>,
    #[serde(skip)]
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Told {
    /// Which one of the request; the first is 1. 0 is the request itself.
    event: u64,
    reason: &'static str,
    why: &'static str,
}

impl Report {
    /// Of a request in which nothing was looked at yet.
    pub(super) fn new() -> Report {
        Report { accepted: 0, counted: 0, refused: BTreeMap::new(), refusals: Vec::new(), status: 202 }
    }

    /// Of a request that was refused as a whole.
    #[must_use]
    pub fn refused(refusal: EventRefusal) -> Report {
        let mut report = Report::new();
        report.refuse(0, refusal, 1);
        report.status = status_of(refusal);
        report
    }

    pub(super) fn accept(&mut self, is_counted: bool) {
        self.accepted += 1;
        self.counted += u64::from(is_counted);
    }

    /// `event` is the first of `times`, counted from 1.
    pub(super) fn refuse(&mut self, event: usize, refusal: EventRefusal, times: usize) {
        if times == 0 {
            return;
        }
        *self.refused.entry(refusal.label()).or_default() += times as u64;
        if self.refusals.len() < TOLD {
            self.refusals.push(Told { event: event as u64, reason: refusal.label(), why: refusal.why() });
        }
        // A request that is nothing but this.
        self.status = if self.accepted == 0 && self.refused.len() == 1 && is_of_all(refusal) { status_of(refusal) } else { 202 };
    }

    /// Of HTTP: 202 as soon as there is an event in it, good or bad.
    #[must_use]
    pub fn status(&self) -> u16 {
        if self.accepted > 0 { 202 } else { self.status }
    }

    /// Whether it may be sent again, after how many seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        matches!(self.status(), 429 | 503).then_some(1)
    }

    /// As JSON, on one line.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Whether it says that there was nothing to be read, or nothing taken at all.
fn is_of_all(refusal: EventRefusal) -> bool {
    matches!(refusal, EventRefusal::Empty | EventRefusal::BadJson | EventRefusal::BadUtf8 | EventRefusal::RateLimited)
}

fn status_of(refusal: EventRefusal) -> u16 {
    match refusal {
        EventRefusal::Empty | EventRefusal::BadJson | EventRefusal::BadUtf8 => 400,
        EventRefusal::Closed => 404,
        EventRefusal::Method => 405,
        EventRefusal::BrokenOff => 408,
        EventRefusal::TooLarge => 413,
        EventRefusal::Encoded => 415,
        EventRefusal::RateLimited => 429,
        EventRefusal::QueueFull => 503,
        _ => 202,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_event_in_it_is_202_and_one_with_nothing_is_not() {
        assert_eq!(Report::new().status(), 202);
        for (refusal, status) in [(EventRefusal::BadJson, 400), (EventRefusal::RateLimited, 429), (EventRefusal::Repeated, 202)] {
            let mut report = Report::new();
            report.refuse(1, refusal, 1);
            assert_eq!((report.status(), report.retry_after()), (status, (status == 429).then_some(1)), "{refusal:?}");
            report.refuse(2, EventRefusal::TooDeep, 1);
            assert_eq!(report.status(), 202, "{refusal:?}");
            report.accept(true);
            assert_eq!(report.status(), 202, "{refusal:?}");
        }
    }

    #[test]
    fn refusals_are_counted_all_and_told_a_few() {
        let mut report = Report::new();
        report.accept(true);
        report.accept(false);
        (1..=20).for_each(|event| report.refuse(event, EventRefusal::Repeated, 1));
        report.refuse(21, EventRefusal::TooMany, 5);
        report.refuse(0, EventRefusal::TooLarge, 0);
        let said: serde_json::Value = serde_json::from_str(&report.body()).unwrap();
        assert_eq!((&said["accepted"], &said["counted"]), (&2.into(), &1.into()));
        assert_eq!(said["refused"], serde_json::json!({ "repeated": 20, "too_many": 5 }));
        assert_eq!((said["refusals"].as_array().unwrap().len(), &said["refusals"][9]["event"]), (TOLD, &10.into()));
    }
}
