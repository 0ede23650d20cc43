//! A live model without a candidate, compared with itself some minutes ago: window by window, of this router's own counters. It alerts, and decides nothing. Pure.

use std::collections::BTreeMap;

use super::cursor::Sealed;
use super::fill::{Place, sum};
use super::judge::Slice as Judged;
use super::record::Comparison;
use super::roles::{Arm, Arms};
use crate::config::Route;
use crate::policy::rollback::{Slice, Step};
use crate::quality::{Counts, Windows};

/// It begins anew after so many windows: what was long ago says nothing about now.
const MOST_WINDOWS: u64 = 3_600;
/// Slices that are judged in one go.
const MOST: usize = 20;

/// What is known of the live model now against before.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The candidate is the live model now, and control is the same one then.
    pub(super) comparison: Option<Comparison>,
    /// It was said that the model is worse than it was.
    pub(super) has_alerted: bool,
}

impl History {
    /// Somebody is under test: they are compared with each other.
    pub(super) fn end(&mut self) {
        *self = History::default();
    }

    /// What is due of the live model. `lag` is how many seconds ago it is compared with. Nothing where nobody asked it anything for so long: it begins with the
    /// next query.
    pub(super) fn due(&mut self, live: &Arm, route: &Route, windows: &Windows, (sealed, lag): (Sealed, u32)) -> Vec<Judged> {
        if is_quiet(windows, sealed, lag) {
            self.end();
            return Vec::new();
        }
        let is_same = self.comparison.as_ref().is_some_and(|comparison| comparison.arms.candidate == *live);
        let is_long = self.comparison.as_ref().is_some_and(|comparison| comparison.next_engagement >= MOST_WINDOWS);
        if !is_same || is_long {
            let arms = Arms { candidate: live.clone(), control: live.clone() };
            self.comparison = Some(Comparison::begin(arms, sealed.traffic, sealed.traffic, 0));
            self.has_alerted = false;
        }
        let Some(comparison) = &mut self.comparison else { return Vec::new() };
        // After a pause it goes on with what is new.
        let index = u64::from(sealed.traffic.saturating_sub(comparison.base));
        comparison.next_traffic = comparison.next_traffic.max(index.saturating_sub(MOST as u64));
        let ids = live.ids(route);
        let mut due = Vec::new();
        while due.len() < MOST {
            let (traffic, engagement) = (comparison.second(comparison.next_traffic), comparison.second(comparison.next_engagement));
            let (second, index, slice) = if engagement < sealed.engagement && comparison.next_engagement < comparison.next_traffic {
                comparison.next_engagement += 1;
                (engagement, comparison.next_engagement - 1, Slice::Engagement)
            } else if traffic < sealed.traffic {
                comparison.next_traffic += 1;
                (traffic, comparison.next_traffic - 1, Slice::Traffic)
            } else {
                break;
            };
            let counts = |second: u32| sum(windows.get(second), &ids);
            let pair = super::fill::Pair { candidate: counts(second), control: counts(second.saturating_sub(lag)) };
            let step = Step { index: 0, share_ppm: 500_000, is_last: false };
            let place = Place { index, slice, step, share_ppm: None };
            due.push(Judged { due: super::cursor::Due { second, place, order: 0, is_lead_in: false }, pair });
        }
        due
    }
}

/// Whether nothing was counted in any window that would be looked at, now or then.
fn is_quiet(windows: &Windows, sealed: Sealed, lag: u32) -> bool {
    let oldest = sealed.engagement.min(sealed.traffic).saturating_sub(lag).saturating_sub(MOST as u32);
    windows.newest(1).next().is_none_or(|(newest, _)| newest < oldest)
}

/// Counts of both roles, for a view.
pub(super) type Sums<'a> = [&'a Counts; 2];

/// Observations and mean of each metric, by its id: candidate and control.
pub(super) fn means(sums: Sums<'_>) -> BTreeMap<&'static str, [Option<(u64, f64)>; 2]> {
    let mut means = BTreeMap::<&'static str, [Option<(u64, f64)>; 2]>::new();
    for (role, counts) in sums.into_iter().enumerate() {
        for (id, mean) in super::fill::means(counts) {
            if let Some(slot) = means.entry(id).or_default().get_mut(role) {
                *slot = Some(mean);
            }
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{NativeRollback, RollbackInstance};
    use crate::quality::{Number, version_id};
    use crate::release::roles::tests::route;

    /// Windows of 100 requests with some errors, one for each second.
    fn windows(errors: impl Fn(u32) -> u64) -> Windows {
        let mut windows = Windows::default();
        for second in 1_000..2_000 {
            let mut counts = Counts::default();
            counts.add(Number::Requests, 0, 100);
            counts.add(Number::Errors, 0, errors(second));
            windows.add(second, version_id("blue", "1"), &counts, 0);
        }
        windows
    }

    /// The last log evidence, and how many windows were taken.
    fn run(windows: &Windows) -> (f64, u64) {
        let route = route(["1", "2", "3"]);
        let live = Arm { version: "1".to_owned(), pool: None };
        let mut history = History::default();
        let mut policy = RollbackInstance::native(NativeRollback::Guardrail);
        for now in 1_400..2_000 {
            for Judged { due, pair } in history.due(&live, &route, windows, (Sealed { traffic: now, engagement: now - 60 }, 300)) {
                let comparison = history.comparison.as_mut().unwrap();
                comparison.take(
                    policy
                        .evaluate("{}", &comparison.state, &super::super::fill::shown(&pair, &due.place))
                        .map_err(|error| error.to_string()),
                );
            }
        }
        let comparison = history.comparison.unwrap();
        let said = comparison.said.unwrap();
        (said.evidence[0].log_harm, comparison.next_traffic)
    }

    #[test]
    fn a_model_that_nobody_asks_is_compared_with_nothing() {
        let route = route(["1", "2", "3"]);
        let live = Arm { version: "1".to_owned(), pool: None };
        let mut history = History::default();
        let mut due = |windows: &Windows, now: u32| {
            let sealed = Sealed { traffic: now - 4, engagement: now - 60 };
            (history.due(&live, &route, windows, (sealed, 300)).len(), history.comparison.is_some())
        };
        assert_eq!(due(&Windows::default(), 999), (0, false));
        let windows = windows(|_| 0);
        assert_eq!(due(&windows, 1_002), (0, true), "its first windows are not sealed");
        assert_eq!(due(&windows, 1_004), (2, true));
        assert!(due(&windows, 2_100).1, "it was asked a moment ago");
        assert_eq!(due(&windows, 2_400), (0, false));
    }

    #[test]
    fn a_model_that_stays_as_it_is_gives_no_evidence() {
        let (log_harm, judged) = run(&windows(|second| u64::from(second % 7 == 0)));
        assert!(log_harm < 1.0 && judged == 599, "{log_harm} {judged}");
    }

    #[test]
    fn one_that_gets_worse_is_noticed() {
        let (log_harm, _) = run(&windows(|second| if second < 1_700 { 1 } else { 9 }));
        assert!(log_harm > 4.7, "{log_harm}");
    }
}
