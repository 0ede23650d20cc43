//! Windows of one sender: what it counted in each second, of each model version. Pure.
//!
//! What a sender says of a window is everything that it has counted in it so far, and not what came since it last said something. So to say it again does no
//! harm, whoever had heard it before, and the sum over the senders is exact whatever was lost or repeated on the way (a grow-only counter:
//! Shapiro and others, 2011). `docs/decisions/fleet-merge.md` has the whole story.

use std::collections::BTreeMap;
use std::ops::Range;

use super::counts::{Counts, Number};

/// Everything counted in one window: by model version, as [`super::version_id`] has it.
pub type Window = BTreeMap<u32, Counts>;

/// How far a window had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    number: u64,
    counts: Numbers,
}

/// By version, what is counted by [`Number`].
type Numbers = BTreeMap<u32, [u64; Number::ALL.len()]>;

fn each(sums: &mut Numbers, others: &Numbers, with: impl Fn(u64, u64) -> u64) {
    for (version, numbers) in others {
        for (sum, number) in sums.entry(*version).or_default().iter_mut().zip(numbers) {
            *sum = with(*sum, *number);
        }
    }
}

fn numbers(window: &Window) -> Numbers {
    window.iter().map(|(version, counts)| (*version, counts.numbers)).collect()
}

/// What one sender counted on one route, by window: the second, since 1970.
#[derive(Debug, Default)]
pub struct Windows {
    kept: BTreeMap<u32, Kept>,
    /// Since the sender began, by version.
    totals: Window,
    /// What was counted in windows that are no longer kept.
    late: u64,
    /// What the store was known to have when it heard last, in all.
    told: Numbers,
}

#[derive(Debug, Default)]
struct Kept {
    window: Window,
    /// Grows with whatever is counted.
    revision: u64,
    /// The revision that the store has; 0 for none.
    stored: u64,
    /// The numbers that it has.
    stored_numbers: Numbers,
}

impl Kept {
    fn is_news(&self) -> bool {
        self.revision > self.stored
    }
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
        kept.revision += 1;
    }

    /// Forgets windows before `oldest`, and answers what the store is not known to have of them, by version: it is lost to the fleet.
    pub fn forget(&mut self, oldest: u32) -> Window {
        let kept = self.kept.split_off(&oldest);
        untold(std::mem::replace(&mut self.kept, kept))
    }

    /// The same with windows from `first` on, which are of no time yet.
    pub fn forget_from(&mut self, first: u32) -> Window {
        untold(self.kept.split_off(&first))
    }

    /// The windows that the store does not have as they are now, and how they are now.
    pub fn news(&self) -> impl Iterator<Item = (u32, Revision)> {
        self.kept
            .iter()
            .filter(|(_, kept)| kept.is_news())
            .map(|(window, kept)| (*window, Revision { number: kept.revision, counts: numbers(&kept.window) }))
    }

    /// The store has these windows as they were at this revision. What was counted since is news still.
    pub fn are_stored(&mut self, windows: impl IntoIterator<Item = (u32, Revision)>) {
        for (window, Revision { number, counts }) in windows {
            if let Some(kept) = self.kept.get_mut(&window).filter(|kept| kept.stored < number) {
                each(&mut self.told, &kept.stored_numbers, u64::saturating_sub);
                each(&mut self.told, &counts, u64::saturating_add);
                (kept.stored, kept.stored_numbers) = (number, counts);
            }
        }
    }

    /// Windows with traffic that the store has as they are now.
    pub fn stored(&self) -> impl Iterator<Item = u32> {
        let has_traffic = |kept: &Kept| kept.window.values().any(|counts| counts[Number::Requests] > 0);
        self.kept.iter().filter(move |(_, kept)| !kept.is_news() && has_traffic(kept)).map(|(window, _)| *window)
    }

    /// The store may have lost what it had of these windows: they are news again.
    pub fn say_again(&mut self, windows: Range<u32>) {
        for (_, kept) in self.kept.range_mut(windows) {
            each(&mut self.told, &kept.stored_numbers, u64::saturating_sub);
            (kept.stored, kept.stored_numbers) = (0, Numbers::new());
        }
    }

    /// What the store is known to have of everything since the sender began, windows that it has forgotten too, by version.
    pub fn told(&self) -> impl Iterator<Item = (&u32, &[u64; Number::ALL.len()])> {
        self.told.iter()
    }

    /// Some windows as they are now.
    pub fn range(&self, windows: Range<u32>) -> impl Iterator<Item = (u32, &Window)> {
        self.kept.range(windows).map(|(window, kept)| (*window, &kept.window))
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

/// What the store is not known to have of these, by version.
fn untold(gone: BTreeMap<u32, Kept>) -> Window {
    let mut lost = Window::new();
    for kept in gone.into_values().filter(Kept::is_news) {
        for (version, counts) in kept.window {
            let stored = kept.stored_numbers.get(&version).copied().unwrap_or_default();
            let lost = lost.entry(version).or_default();
            for (lost, (counted, stored)) in lost.numbers.iter_mut().zip(counts.numbers.into_iter().zip(stored)) {
                *lost += counted.saturating_sub(stored);
            }
        }
    }
    lost
}

/// Over all versions.
#[must_use]
pub fn sum_of(window: &Window) -> Counts {
    let mut sum = Counts::default();
    window.values().for_each(|counts| sum.merge(counts));
    sum
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
        /// Something is counted while the news are under way.
        SendAndCount(u32, u32, u64),
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
            2 => (0..5_u32, 0..3_u32, 1..9_u64).prop_map(|(window, version, more)| Step::SendAndCount(window, version, more)),
            4 => any::<(bool, bool)>().prop_map(|(arrives, is_heard)| Step::Send { arrives, is_heard: arrives && is_heard }),
            1 => Just(Step::StoreDies),
        ]
    }

    type Said = BTreeMap<u32, Window>;

    fn said(mine: &Windows) -> (Vec<(u32, Revision)>, Said) {
        let news: Vec<(u32, Revision)> = mine.news().collect();
        let said = news.iter().map(|(window, _)| (*window, mine.get(*window).unwrap().clone())).collect();
        (news, said)
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
                    Step::SendAndCount(window, version, more) => {
                        let (news, said) = said(&mine);
                        mine.add(window, version, &requests(more), 0);
                        truth.entry(window).or_default().entry(version).or_default().merge(&requests(more));
                        mine.are_stored(news);
                        stored.extend(said);
                    }
                    Step::Send { arrives, is_heard } => {
                        let (news, said) = said(&mine);
                        if is_heard {
                            mine.are_stored(news);
                        }
                        if arrives {
                            stored.extend(said);
                        }
                    }
                    Step::StoreDies => {
                        stored.clear();
                        mine.say_again(0..u32::MAX);
                    }
                }
            }
            prop_assert_eq!(&stored, &truth);
            let told: Numbers = mine.told().map(|(version, numbers)| (*version, *numbers)).filter(|(_, numbers)| numbers[0] > 0).collect();
            let mut all = Window::new();
            truth.values().for_each(|window| merge(&mut all, window));
            prop_assert_eq!(told, numbers(&all));
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
        let eleven = windows.news().find(|(window, _)| *window == 11);
        windows.are_stored(eleven);
        windows.add(11, 1, &requests(5), 0);
        assert_eq!(of(&windows.forget(12)), 10 + 5);
        assert_eq!(windows.news().map(|(window, _)| window).collect::<Vec<_>>(), [12]);
    }
}
