//! Windows of one sender: what it counted in each second, of each model version. Pure.
//!
//! What a sender says of a window is everything that it has counted in it so far, and not what came since it last said something. So to say it again does no
//! harm, whoever had heard it before, and the sum over the senders is exact whatever was lost or repeated on the way (a grow-only counter:
//! Shapiro and others, 2011). `docs/decisions/fleet-merge.md` has the whole story.

use std::collections::BTreeMap;

use super::counts::Counts;

/// Everything counted in one window: by model version, as [`super::version_id`] has it.
pub type Window = BTreeMap<u32, Counts>;

/// What one sender counted on one route, by window: the second, since 1970.
#[derive(Debug, Default)]
pub struct Windows {
    kept: BTreeMap<u32, Kept>,
    /// Since the sender began, by version.
    totals: Window,
    /// What was counted in windows that are no longer kept.
    late: u64,
}

#[derive(Debug, Default)]
struct Kept {
    window: Window,
    /// Something was counted since the store last had it.
    is_news: bool,
}

impl Windows {
    /// Counts. What is counted in a window before `oldest` is in the totals alone, and is counted as late.
    pub fn add(&mut self, window: u32, version: u32, counts: &Counts, oldest: u32) {
        if counts.is_empty() {
            return;
        }
        self.totals.entry(version).or_default().merge(counts);
        if window < oldest {
            self.late += 1;
            return;
        }
        let kept = self.kept.entry(window).or_default();
        kept.window.entry(version).or_default().merge(counts);
        kept.is_news = true;
    }

    /// Forgets windows before `oldest`. Those that the store never had are answered: they are lost to the fleet.
    pub fn forget(&mut self, oldest: u32) -> Vec<Window> {
        let kept = self.kept.split_off(&oldest);
        let gone = std::mem::replace(&mut self.kept, kept);
        gone.into_values().filter(|gone| gone.is_news).map(|gone| gone.window).collect()
    }

    /// The windows that the store does not have as they are now.
    pub fn news(&self) -> impl Iterator<Item = (u32, &Window)> {
        self.kept.iter().filter(|(_, kept)| kept.is_news).map(|(window, kept)| (*window, &kept.window))
    }

    /// The store has these windows, as they were when [`Windows::news`] told them; nothing was counted since.
    pub fn are_stored(&mut self, windows: impl IntoIterator<Item = u32>) {
        for window in windows {
            if let Some(kept) = self.kept.get_mut(&window) {
                kept.is_news = false;
            }
        }
    }

    /// The store may have lost what it had: everything is news again.
    pub fn say_again(&mut self) {
        self.kept.values_mut().for_each(|kept| kept.is_news = true);
    }

    /// A window as it is now.
    #[must_use]
    pub fn get(&self, window: u32) -> Option<&Window> {
        self.kept.get(&window).map(|kept| &kept.window)
    }

    /// The newest windows, the newest first, and at most so many.
    pub fn newest(&self, most: usize) -> impl Iterator<Item = (u32, &Window)> {
        self.kept.iter().rev().take(most).map(|(window, kept)| (*window, &kept.window))
    }

    /// Everything since the sender began.
    #[must_use]
    pub fn totals(&self) -> &Window {
        &self.totals
    }

    /// How often something was counted in a window that was no longer kept.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }
}

/// Adds what another sender says of the same window.
pub fn merge(sum: &mut Window, other: &Window) {
    for (version, counts) in other {
        sum.entry(*version).or_default().merge(counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::Number;
    use proptest::prelude::*;

    fn requests(more: u64) -> Counts {
        let mut counts = Counts::default();
        counts.add(Number::Requests, 0, more);
        counts
    }

    fn of(window: &Window) -> u64 {
        window.values().map(|counts| counts[Number::Requests]).sum()
    }

    /// What happens between a sender and its store.
    #[derive(Debug, Clone)]
    enum Step {
        Count(u32, u32, u64),
        /// The news are sent; whether they arrive, and whether the sender hears that they did.
        Send {
            arrives: bool,
            is_heard: bool,
        },
        /// The store loses everything, and the sender learns of it when it connects again.
        StoreDies,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..5_u32, 0..3_u32, 1..9_u64).prop_map(|(window, version, more)| Step::Count(window, version, more)),
            4 => any::<(bool, bool)>().prop_map(|(arrives, is_heard)| Step::Send { arrives, is_heard: arrives && is_heard }),
            1 => Just(Step::StoreDies),
        ]
    }

    proptest! {
        /// Whatever is lost or repeated: once the store has heard the news, it has the truth, to the unit.
        #[test]
        fn the_store_has_the_truth_in_the_end(steps in prop::collection::vec(step(), 0..60)) {
            let (mut mine, mut stored, mut truth) = (Windows::default(), BTreeMap::<u32, Window>::new(), BTreeMap::<u32, Window>::new());
            for step in steps.iter().chain([&Step::Send { arrives: true, is_heard: true }]) {
                match *step {
                    Step::Count(window, version, more) => {
                        mine.add(window, version, &requests(more), 0);
                        truth.entry(window).or_default().entry(version).or_default().merge(&requests(more));
                    }
                    Step::Send { arrives, is_heard } => {
                        let news: Vec<(u32, Window)> = mine.news().map(|(window, counts)| (window, counts.clone())).collect();
                        if is_heard {
                            mine.are_stored(news.iter().map(|(window, _)| *window));
                        }
                        if arrives {
                            stored.extend(news);
                        }
                    }
                    Step::StoreDies => {
                        stored.clear();
                        mine.say_again();
                    }
                }
            }
            prop_assert_eq!(stored, truth);
        }
    }

    #[test]
    fn what_comes_late_is_in_the_totals_alone() {
        let mut windows = Windows::default();
        windows.add(10, 1, &requests(3), 11);
        windows.add(11, 1, &requests(4), 11);
        assert_eq!((windows.late(), windows.get(10), of(windows.totals())), (1, None, 7));
        assert_eq!(of(windows.get(11).unwrap()), 4);
    }

    #[test]
    fn what_the_store_never_had_is_told_when_it_is_forgotten() {
        let mut windows = Windows::default();
        for window in [10, 11, 12] {
            windows.add(window, 1, &requests(u64::from(window)), 0);
        }
        windows.are_stored([11]);
        let lost = windows.forget(12);
        assert_eq!(lost.iter().map(of).collect::<Vec<_>>(), [10]);
        assert_eq!(windows.news().map(|(window, _)| window).collect::<Vec<_>>(), [12]);
    }
}
