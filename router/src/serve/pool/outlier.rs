//! Outlier detection: which endpoints of a pool are taken out because their attempts fail, and how they come back. Pure.
//!
//! ```text
//! in use --fails, and others do not--> ejected --its time is up--> half-open --every probe answered--> in use
//!                                         ^----- a probe failed: twice as long -----'      (or, while all others fail too)
//! ```
//!
//! Workers only count; one [`Detector`] a pool looks at the counts of all its endpoints, on the control thread. Deciding where the
//! failure is seen, as Envoy's workers do, makes its limits approximate: two workers eject the last two endpoints at once. Here never
//! more than the allowed share is out, and never the last.
//!
//! An endpoint is an outlier only against others: in a pool whose endpoints all fail (a bad model, a database that is gone) nobody stays
//! ejected, since half as many endpoints would answer no better. One that happens to fail before the others goes, and is back after its
//! first probe, because by then they have had its traffic and fail as it does. Linkerd's and Envoy's counts look at each endpoint alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// An endpoint of whose attempts this share fails, in percent, is none that another could be compared with.
const DOES_WELL_BELOW_PERCENT: u64 = 50;

/// What the workers have counted of an endpoint since the start, and how it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Failures since the last success.
    pub(super) consecutive: u32,
    pub(super) good: u64,
    pub(super) bad: u64,
    /// Probes since it became half-open.
    pub(super) good_probes: u32,
    pub(super) bad_probes: u32,
    /// Health checks, and the resolver, let it have traffic.
    pub(super) may_serve: bool,
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// So many failures in a row.
    ConsecutiveFailures,
    /// Too large a share of its attempts failed.
    FailurePercentage,
    /// It failed a probe.
    Probe,
}

impl Why {
    /// All of them, in the order of the counters.
    pub const ALL: [Why; 3] = [Why::ConsecutiveFailures, Why::FailurePercentage, Why::Probe];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Why::ConsecutiveFailures => "consecutive_failures",
            Why::FailurePercentage => "failure_percentage",
            Why::Probe => "probe",
        }
    }
}

/// What is to be done with the endpoint at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Eject { index: usize, lasts: Duration, why: Why },
    HalfOpen { index: usize },
    Back { index: usize, why: Return },
}

/// Why an endpoint is in use again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// It answered its probes.
    Answered,
    /// It did not, but no other endpoint does better.
    NoneBetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    In { since: Instant },
    Ejected { until: Instant },
    HalfOpen,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    good: u64,
    bad: u64,
}

impl Counts {
    fn of(look: &Look) -> Counts {
        Counts { good: look.good, bad: look.bad }
    }

    fn since(self, start: Counts) -> Counts {
        Counts { good: self.good.saturating_sub(start.good), bad: self.bad.saturating_sub(start.bad) }
    }

    /// Whether at least `percent` of a hundred failed. Nothing of nothing did.
    fn fails(self, percent: u64) -> bool {
        let total = self.good + self.bad;
        total > 0 && self.bad * 100 >= percent * total
    }
}

/// What is remembered of one endpoint.
#[derive(Debug, Clone, Copy)]
struct Track {
    phase: Phase,
    /// Ejections that good behaviour has not taken back: the next one lasts `base * 2^ejections`.
    ejections: u32,
    /// Counts when the interval before this one began, and when this one did.
    previous: Counts,
    current: Counts,
    may_serve: bool,
}

/// One pool's detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: config::Outlier,
    tracks: Vec<Track>,
    interval_ends: Instant,
}

impl Detector {
    /// Of a pool with so many endpoints, all in use.
    pub(super) fn new(endpoints: usize, config: &config::Outlier, now: Instant) -> Detector {
        let (previous, current) = (Counts::default(), Counts::default());
        let track = Track { phase: Phase::In { since: now }, ejections: 0, previous, current, may_serve: true };
        Detector { config: config.clone(), tracks: vec![track; endpoints], interval_ends: now + config.interval }
    }

    /// When it has something to do although nobody failed.
    pub(super) fn next_step(&self) -> Instant {
        let ends = self.tracks.iter().filter_map(|track| match track.phase {
            Phase::Ejected { until } => Some(until),
            Phase::In { .. } | Phase::HalfOpen => None,
        });
        ends.fold(self.interval_ends, Instant::min)
    }

    /// Looks at every endpoint of the pool, in its order.
    pub(super) fn step(&mut self, looks: &[Look], now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (index, look) in looks.iter().enumerate() {
            if let Some(track) = self.tracks.get_mut(index) {
                track.forget_while_dead(look);
            }
            changes.extend(self.end_ejection(index, look, looks, now));
        }
        for index in 0..looks.len() {
            // One that is back was looked at before its failures in a row were forgotten.
            let is_just_back = changes.iter().any(|change| matches!(change, Change::Back { index: back, .. } if *back == index));
            if let Some(why) = self.outlier(index, looks).filter(|_| !is_just_back) {
                changes.extend(self.eject(index, why, now));
            }
        }
        if now >= self.interval_ends {
            self.begin_interval(looks, now);
        }
        changes
    }

    fn end_ejection(&mut self, index: usize, look: &Look, looks: &[Look], now: Instant) -> Option<Change> {
        match self.tracks.get(index)?.phase {
            Phase::Ejected { until } if until <= now => {
                self.tracks.get_mut(index)?.phase = Phase::HalfOpen;
                Some(Change::HalfOpen { index })
            }
            Phase::HalfOpen if look.bad_probes > 0 && self.another_will_do(index, looks) => self.eject(index, Why::Probe, now),
            Phase::HalfOpen if look.bad_probes > 0 => self.readmit(index, look, Return::NoneBetter, now),
            Phase::HalfOpen if look.good_probes >= self.config.probes => self.readmit(index, look, Return::Answered, now),
            Phase::In { .. } | Phase::Ejected { .. } | Phase::HalfOpen => None,
        }
    }

    /// What it did before counts no more.
    fn readmit(&mut self, index: usize, look: &Look, why: Return, now: Instant) -> Option<Change> {
        let (track, counts) = (self.tracks.get_mut(index)?, Counts::of(look));
        *track = Track { phase: Phase::In { since: now }, previous: counts, current: counts, ..*track };
        Some(Change::Back { index, why })
    }

    /// Why this endpoint is to be ejected, if it is.
    fn outlier(&self, index: usize, looks: &[Look]) -> Option<Why> {
        let (track, look) = (self.tracks.get(index)?, looks.get(index)?);
        if !track.is_in() || !look.may_serve || !self.has_room() || !self.another_does_better(index, looks) {
            return None;
        }
        let Some(in_a_row) = positive(self.config.consecutive_failures) else { return self.fails_too_often(track, look) };
        if look.consecutive >= in_a_row { Some(Why::ConsecutiveFailures) } else { self.fails_too_often(track, look) }
    }

    fn fails_too_often(&self, track: &Track, look: &Look) -> Option<Why> {
        let threshold = positive(self.config.failure_percentage_threshold)?;
        let counts = Counts::of(look).since(track.previous);
        let says_something = counts.good + counts.bad >= u64::from(self.config.failure_percentage_request_volume);
        (says_something && counts.fails(u64::from(threshold))).then_some(Why::FailurePercentage)
    }

    fn has_room(&self) -> bool {
        let percent = usize::try_from(self.config.max_ejection_percent).unwrap_or(0);
        let out = self.tracks.iter().filter(|track| !track.is_in()).count();
        out < self.tracks.len() * percent / 100
    }

    /// Whether this one stands out against another: one that is in use, whose last attempt succeeded, and most do. One that was not asked yet
    /// has shown nothing. It will be: whoever fails comes last for a while, and a retry goes elsewhere.
    fn another_does_better(&self, index: usize, looks: &[Look]) -> bool {
        self.another_serves(index, looks, |counts, failures_in_a_row| failures_in_a_row == 0 && counts.good > 0)
    }

    /// Whether this one is not needed yet: another is in use that does not fail. Its last query may have failed, as queries do.
    fn another_will_do(&self, index: usize, looks: &[Look]) -> bool {
        let enough = self.config.consecutive_failures.max(1);
        self.another_serves(index, looks, |_, failures_in_a_row| failures_in_a_row < enough)
    }

    fn another_serves(&self, index: usize, looks: &[Look], does_well: impl Fn(Counts, u32) -> bool) -> bool {
        let others = self.tracks.iter().zip(looks).enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, pair)| pair).any(|(track, look)| {
            let counts = Counts::of(look).since(track.previous);
            track.is_in() && look.may_serve && !counts.fails(DOES_WELL_BELOW_PERCENT) && does_well(counts, look.consecutive)
        })
    }

    fn eject(&mut self, index: usize, why: Why, now: Instant) -> Option<Change> {
        let track = self.tracks.get_mut(index)?;
        let factor = 1_u32.checked_shl(track.ejections).unwrap_or(u32::MAX);
        let lasts = self.config.base_ejection_time.saturating_mul(factor).min(self.config.max_ejection_time);
        track.ejections = track.ejections.saturating_add(1);
        track.phase = Phase::Ejected { until: now + lasts };
        Some(Change::Eject { index, lasts, why })
    }

    /// Whoever was in use for the whole of the interval that ends gets one ejection forgiven.
    fn begin_interval(&mut self, looks: &[Look], now: Instant) {
        let began = self.interval_ends - self.config.interval;
        for (track, look) in self.tracks.iter_mut().zip(looks) {
            track.previous = track.current;
            track.current = Counts::of(look);
            if matches!(track.phase, Phase::In { since } if since <= began) {
                track.ejections = track.ejections.saturating_sub(1);
            }
        }
        self.interval_ends = now + self.config.interval;
    }
}

impl Track {
    fn is_in(&self) -> bool {
        matches!(self.phase, Phase::In { .. })
    }

    /// What a panic sent to an endpoint that its health checks had taken out is not held against it when they let it back in.
    fn forget_while_dead(&mut self, look: &Look) {
        if !look.may_serve || !self.may_serve {
            (self.previous, self.current) = (Counts::of(look), Counts::of(look));
        }
        self.may_serve = look.may_serve;
    }
}

/// Zero leaves a rule out.
fn positive(threshold: u32) -> Option<u32> {
    (threshold > 0).then_some(threshold)
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
