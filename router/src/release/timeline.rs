//! Since when who is compared with whom, so that a window which is judged a minute later is judged by what held then. Pure.

use serde::{Deserialize, Serialize};

use super::roles::Setting;

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

/// What holds, and what held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timeline {
    entries: Vec<Entry>,
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

    /// Goes on with what another router saw since. `until_ms` is when this one was last kept: what held between that and the other's first sight is not known.
    pub(super) fn follow(&mut self, other: &Timeline, until_ms: u64) {
        let Some(last) = self.entries.last() else {
            self.clone_from(other);
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
        let changes = |entry: &Entry| entry.since_ms + APART_MS > begin && entry.since_ms < end + APART_MS;
        let is_whole = !self.entries.iter().skip(1).any(changes);
        Some(Held { setting: at.setting.clone(), step: at.step, is_whole })
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
        in_order && are_shares && self.entries.len() <= MOST
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
    fn the_oldest_changes_are_forgotten() {
        let mut timeline = Timeline::default();
        (0..100_u32).for_each(|change| timeline.observe(u64::from(change) * 10_000, u64::from(change), at(change)));
        assert_eq!((timeline.entries.len(), held(&timeline, 991)), (MOST, Some((99, 99, true))));
        timeline.entries.reverse();
        assert!(!timeline.is_sound());
    }
}
