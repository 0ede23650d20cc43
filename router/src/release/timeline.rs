//! Since when who is compared with whom, so that a window which is judged a minute later is judged by what held then. Pure.

use serde::{Deserialize, Serialize};

use super::roles::{Arms, Setting};

/// A router may obey a change so much later or sooner than this one saw it, in milliseconds.
const APART_MS: u64 = 100;
/// Changes that are kept. The oldest go first: they are of windows that were judged long ago.
const MOST: usize = 64;

/// What held from a moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Milliseconds since 1970.
    since_ms: u64,
    epoch: u64,
    /// Counts changes.
    step: u32,
    setting: Setting,
}

/// A while in which some router may have obeyed other flags than the rest, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Apart {
    since_ms: u64,
    until_ms: u64,
}

/// What holds, and what held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timeline {
    entries: Vec<Entry>,
    /// In order, and none touches the next.
    apart: Vec<Apart>,
}

/// What held in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// When it began.
    pub(super) setting: Setting,
    /// Counts changes.
    pub(super) step: u32,
    /// The same to its end, on every router.
    pub(super) is_whole: bool,
}

impl Timeline {
    /// This holds now.
    pub(super) fn observe(&mut self, now_ms: u64, epoch: u64, setting: Setting) {
        match self.entries.last_mut() {
            // Other flags changed, or an edit was adopted.
            Some(last) if last.setting == setting => last.epoch = last.epoch.max(epoch),
            Some(last) => {
                let (step, since_ms) = (last.step.saturating_add(1), now_ms.max(last.since_ms));
                self.entries.push(Entry { since_ms, epoch, step, setting });
            }
            None => self.entries.push(Entry { since_ms: now_ms, epoch, step: 0, setting }),
        }
        let more = self.entries.len().saturating_sub(MOST);
        self.entries.drain(..more);
    }

    /// Some router may have obeyed other flags in this while.
    pub(super) fn are_apart(&mut self, since_ms: u64, until_ms: u64) {
        let touches = |apart: &Apart| apart.since_ms <= until_ms && apart.until_ms >= since_ms;
        let mut whole = Apart { since_ms, until_ms: until_ms.max(since_ms) };
        for apart in self.apart.iter().filter(|apart| touches(apart)) {
            whole.since_ms = whole.since_ms.min(apart.since_ms);
            whole.until_ms = whole.until_ms.max(apart.until_ms);
        }
        self.apart.retain(|apart| !touches(apart));
        let place = self.apart.partition_point(|apart| apart.since_ms < whole.since_ms);
        self.apart.insert(place, whole);
        let more = self.apart.len().saturating_sub(MOST);
        self.apart.drain(..more);
    }

    /// When the last change was.
    pub(super) fn last_change_ms(&self) -> Option<u64> {
        self.entries.last().map(|last| last.since_ms)
    }

    /// Goes on with what another router saw since. `until_ms` is when this one was last kept: what held between that and the other's first sight is not known.
    pub(super) fn follow(&mut self, other: &Timeline, until_ms: u64) {
        self.follow_changes(other, until_ms);
        other.apart.iter().for_each(|apart| self.are_apart(apart.since_ms, apart.until_ms));
    }

    fn follow_changes(&mut self, other: &Timeline, until_ms: u64) {
        let Some(last) = self.entries.last() else {
            self.entries.clone_from(&other.entries);
            return;
        };
        let (epoch, since_ms) = (last.epoch, last.since_ms);
        let is_news = |entry: &&Entry| (entry.epoch, entry.since_ms) > (epoch, since_ms) && entry.epoch >= epoch;
        let news: Vec<Entry> = other.entries.iter().filter(is_news).cloned().collect();
        let is_first_sight = news.first().is_some_and(|first| other.entries.first() == Some(first));
        if let Some(first) = news.first().filter(|first| is_first_sight && first.since_ms > until_ms) {
            let held = self.entries.last().map(|last| last.setting.clone()).filter(|held| *held != first.setting);
            if let Some(held) = held {
                self.observe(until_ms, epoch, Setting { share_ppm: None, ..held });
            }
        }
        for entry in news {
            self.observe(entry.since_ms, entry.epoch, entry.setting);
        }
    }

    /// What held in the window of this second; `None` before anything was seen.
    pub(super) fn of_window(&self, second: u32) -> Option<Held> {
        let begin = u64::from(second) * 1_000;
        let end = begin + 1_000;
        let at = self.entries.iter().rev().find(|entry| entry.since_ms <= begin)?;
        let touches = |since_ms: u64, until_ms: u64| until_ms + APART_MS > begin && since_ms < end + APART_MS;
        let is_whole = !self.entries.iter().skip(1).any(|entry| touches(entry.since_ms, entry.since_ms))
            && !self.apart.iter().any(|apart| touches(apart.since_ms, apart.until_ms));
        Some(Held { setting: at.setting.clone(), step: at.step, is_whole })
    }

    /// The last epoch of the flags that held when this second began; `None` where that is not known any more.
    pub(super) fn epoch_at(&self, second: u32) -> Option<u64> {
        let begin = u64::from(second) * 1_000;
        self.entries.iter().rev().find(|entry| entry.since_ms <= begin).map(|entry| entry.epoch)
    }

    /// Whether others, or nobody, were compared for a moment within the window before that of this second: a window tells only what held when it began.
    pub(super) fn is_interrupted(&self, second: u32, arms: &Arms) -> bool {
        let begin = u64::from(second) * 1_000;
        let within = |entry: &&Entry| entry.since_ms + 1_000 > begin && entry.since_ms <= begin;
        self.entries.iter().filter(within).any(|entry| entry.setting.arms.as_ref() != Some(arms))
    }

    /// Whether nobody was under test in the window of this second, nor since.
    pub(super) fn is_nobody_from(&self, second: u32) -> bool {
        let begin = u64::from(second) * 1_000;
        let later = self.entries.partition_point(|entry| entry.since_ms <= begin);
        self.entries.iter().skip(later.saturating_sub(1)).all(|entry| entry.setting.arms.is_none())
    }

    /// The first second of which anything is known.
    pub(super) fn first_second(&self) -> Option<u32> {
        let first = self.entries.first()?;
        u32::try_from(first.since_ms.div_ceil(1_000)).ok()
    }

    /// Whether it is one: it may have come from outside.
    pub(super) fn is_sound(&self) -> bool {
        let in_order = self.entries.windows(2).all(|pair| matches!(pair, [a, b] if a.since_ms <= b.since_ms && a.step < b.step));
        let are_shares = self.entries.iter().all(|entry| {
            let share_ppm = entry.setting.share_ppm.unwrap_or(0);
            entry.setting.step_ppm.max(share_ppm) <= 1_000_000 && entry.since_ms <= u64::from(u32::MAX) * 1_000
        });
        let latest_ms = u64::from(u32::MAX) * 1_000;
        let are_whiles = self.apart.iter().all(|apart| apart.since_ms <= apart.until_ms && apart.until_ms <= latest_ms)
            && self.apart.windows(2).all(|pair| matches!(pair, [a, b] if a.until_ms < b.since_ms));
        in_order && are_shares && are_whiles && self.entries.len().max(self.apart.len()) <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ppm: u32) -> Setting {
        Setting { step_ppm: ppm, share_ppm: Some(ppm), ..Setting::NOBODY }
    }

    fn held(timeline: &Timeline, second: u32) -> Option<(u32, u32, bool)> {
        timeline.of_window(second).map(|held| (held.setting.step_ppm, held.step, held.is_whole))
    }

    fn of(changes: &[(u64, u64, u32)]) -> Timeline {
        let mut timeline = Timeline::default();
        changes.iter().for_each(|(ms, epoch, ppm)| timeline.observe(*ms, *epoch, at(*ppm)));
        timeline
    }

    #[test]
    fn a_window_is_of_what_held_when_it_began() {
        let timeline = of(&[(10_500, 1, 1), (20_500, 2, 2), (20_700, 3, 2), (30_950, 4, 3), (40_020, 5, 4)]);
        assert_eq!((timeline.first_second(), held(&timeline, 10)), (Some(11), None));
        assert_eq!(held(&timeline, 11), Some((1, 0, true)));
        assert_eq!(held(&timeline, 20), Some((1, 0, false)));
        assert_eq!(held(&timeline, 21), Some((2, 1, true)));
        assert_eq!((held(&timeline, 30), held(&timeline, 31)), (Some((2, 1, false)), Some((3, 2, false))), "routers differ a little");
        assert_eq!((held(&timeline, 39), held(&timeline, 40)), (Some((3, 2, false)), Some((3, 2, false))));
        assert_eq!(held(&timeline, 41), Some((4, 3, true)));
        assert!(timeline.is_sound());
    }

    #[test]
    fn another_router_goes_on_with_what_it_saw() {
        let mut kept = of(&[(10_000, 1, 1), (20_000, 2, 2)]);
        kept.follow(&of(&[(9_900, 1, 1), (20_010, 2, 2), (30_000, 3, 3)]), 29_000);
        assert_eq!(kept, of(&[(10_000, 1, 1), (20_000, 2, 2), (30_000, 3, 3)]));
        let mut adopted = of(&[(10_000, 1, 1), (20_000, 1, 2)]);
        adopted.follow(&of(&[(9_900, 1, 1), (20_010, 2, 2)]), 29_000);
        assert_eq!(adopted, of(&[(10_000, 1, 1), (20_000, 2, 2)]));
    }

    #[test]
    fn what_nobody_saw_has_no_share() {
        let mut kept = of(&[(10_000, 1, 1)]);
        kept.follow(&of(&[(50_000, 7, 4)]), 20_000);
        assert_eq!(kept.of_window(15).unwrap().setting.share_ppm, Some(1));
        assert_eq!(kept.of_window(30).unwrap().setting.share_ppm, None);
        assert_eq!(kept.of_window(51).unwrap().setting.share_ppm, Some(4));
        let mut same = of(&[(10_000, 1, 1)]);
        same.follow(&of(&[(50_000, 7, 1)]), 20_000);
        assert_eq!(held(&same, 30), Some((1, 0, true)));
    }

    #[test]
    fn while_routers_are_apart_no_window_is_whole() {
        let mut timeline = of(&[(10_000, 1, 1), (20_000, 2, 2)]);
        timeline.are_apart(20_000, 20_900);
        timeline.are_apart(30_000, 31_500);
        timeline.are_apart(20_000, 22_100);
        assert_eq!(timeline.apart, [Apart { since_ms: 20_000, until_ms: 22_100 }, Apart { since_ms: 30_000, until_ms: 31_500 }]);
        let whole = (19..34).filter(|second| timeline.of_window(*second).unwrap().is_whole);
        assert_eq!(whole.collect::<Vec<_>>(), [23, 24, 25, 26, 27, 28, 32, 33]);
        assert!(timeline.is_sound());
        let mut other = of(&[(10_000, 1, 1), (20_000, 2, 2)]);
        other.are_apart(31_400, 33_000);
        timeline.follow(&other, 40_000);
        timeline.follow(&other, 40_000);
        assert_eq!(timeline.apart.last(), Some(&Apart { since_ms: 30_000, until_ms: 33_000 }));
        (0..100).for_each(|at| timeline.are_apart(50_000 + at * 10, 50_001 + at * 10));
        assert_eq!((timeline.apart.len(), timeline.is_sound()), (MOST, true));
        timeline.apart.reverse();
        assert!(!timeline.is_sound());
    }

    #[test]
    fn the_oldest_changes_are_forgotten() {
        let mut timeline = Timeline::default();
        (0..100_u32).for_each(|change| timeline.observe(u64::from(change) * 10_000, u64::from(change), at(change)));
        assert_eq!((timeline.entries.len(), held(&timeline, 991)), (MOST, Some((99, 99, true))));
        timeline.entries.reverse();
        assert!(!timeline.is_sound());
    }
}
