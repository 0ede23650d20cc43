//! Which slices are to be judged next, in order and each once. Pure.

use std::time::Duration;

use super::fill::{Place, WINDOW_MS};
use super::record::{Comparison, Record};
use super::roles::{Arms, Setting};
use super::timeline::{Held, Timeline};
use crate::policy::rollback::Slice;

/// Windows of control alone that come before a candidate's first: the policy learns from them what is usual.
const LEAD_IN: u32 = 60;
/// Slices that are judged in one go; the rest waits for the next.
pub(super) const MOST: usize = 120;
/// Windows older than this are not looked for: nobody keeps them.
const KEPT: u32 = 600;

/// A slice to be judged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Due {
    pub(super) second: u32,
    pub(super) place: Place,
    /// Slices that were judged before.
    pub(super) order: u64,
    /// Before the candidate began: whatever is counted of it belongs to an earlier comparison.
    pub(super) is_lead_in: bool,
}

/// What may be judged now: windows before these seconds can no longer change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) traffic: u32,
    pub(super) engagement: u32,
}

impl Sealed {
    /// Of windows that are sealed, in each slice, so long after their end.
    pub(super) fn at(now_ms: u64, traffic: Duration, engagement: Duration) -> Sealed {
        let before = |seal: Duration| {
            let sealed = now_ms.saturating_sub(u64::try_from(seal.as_millis()).unwrap_or(u64::MAX)) / u64::from(WINDOW_MS);
            u32::try_from(sealed).unwrap_or(u32::MAX)
        };
        Sealed { traffic: before(traffic), engagement: before(engagement) }
    }
}

/// Moves a record on to what is sealed, and answers the slices of its comparison that are due, in the order of time and at most [`MOST`].
pub(super) fn due(record: &mut Record, sealed: Sealed) -> Vec<Due> {
    let first = record.timeline.first_second().unwrap_or(u32::MAX).min(sealed.traffic);
    let oldest = sealed.traffic.saturating_sub(KEPT).max(first);
    if record.next_second < oldest {
        record.next_second = oldest;
        leave_out(record);
    }
    let mut due = Vec::new();
    while due.len() < MOST {
        if record.next_second < sealed.traffic && begins(record) {
            // Slices of one call are of one comparison; and nobody waits for those of one that is over.
            if !due.is_empty() {
                break;
            }
            due.extend(traffic(record));
        } else if let Some(next) = lead_in(record).or_else(|| engagement(record, sealed)) {
            due.push(next);
        } else if record.next_second >= sealed.traffic {
            break;
        } else if let Some(next) = traffic(record) {
            due.push(next);
        }
    }
    due
}

/// Whether [`due`] has no slice for a record like this, and leaves its comparison as it is: none is under way, and nobody was under test in a window that is
/// still looked for. It costs the same however long ago the last one was.
pub(super) fn is_nothing_due(comparison: Option<&Comparison>, next_second: u32, timeline: &Timeline, sealed: Sealed) -> bool {
    let from = next_second.max(sealed.traffic.saturating_sub(KEPT));
    comparison.is_none_or(|comparison| comparison.is_over) && timeline.is_nobody_from(from)
}

fn active(record: &mut Record) -> Option<(&Timeline, &mut Comparison)> {
    let Record { timeline, comparison, .. } = record;
    comparison.as_mut().filter(|comparison| !comparison.is_over).map(|comparison| (&*timeline, comparison))
}

/// Windows that nobody keeps any more are never judged.
fn leave_out(record: &mut Record) {
    let second = record.next_second;
    let Some((_, comparison)) = active(record) else { return };
    comparison.next_traffic = comparison.next_traffic.max(second.saturating_sub(comparison.base).into());
    comparison.next_engagement = comparison.next_engagement.max(comparison.next_traffic.saturating_sub(KEPT.into()));
}

/// Control's windows before the candidate's first.
fn lead_in(record: &mut Record) -> Option<Due> {
    let (timeline, comparison) = active(record)?;
    let (index, began) = (comparison.next_traffic, comparison.began);
    let second = Some(comparison.second(index)).filter(|second| *second < began)?;
    let due = place(timeline, comparison, (second, index, Slice::Traffic));
    comparison.next_traffic += 1;
    Some(due)
}

/// A window that is mature.
fn engagement(record: &mut Record, sealed: Sealed) -> Option<Due> {
    let (timeline, comparison) = active(record)?;
    let index = Some(comparison.next_engagement).filter(|index| *index < comparison.next_traffic)?;
    let second = Some(comparison.second(index)).filter(|second| *second < sealed.engagement)?;
    let due = place(timeline, comparison, (second, index, Slice::Engagement));
    comparison.next_engagement += 1;
    Some(due)
}

/// Whether another comparison begins with the next second.
fn begins(record: &Record) -> bool {
    let second = record.next_second;
    let held = record.timeline.of_window(second);
    let arms = held.and_then(|held| held.setting.arms);
    let before = record.comparison.as_ref().filter(|comparison| !comparison.is_over);
    arms.is_some() && !before.is_some_and(|before| goes_on(&record.timeline, before, arms.as_ref(), second))
}

/// Whether these arms in the window of this second are those of the comparison, and were since its last one: the same two a second time are another one.
fn goes_on(timeline: &Timeline, comparison: &Comparison, arms: Option<&Arms>, second: u32) -> bool {
    Some(&comparison.arms) == arms && (comparison.began == second || !timeline.is_interrupted(second, &comparison.arms))
}

/// The next second: a slice of the comparison, or one that begins or ends it, or nobody's.
fn traffic(record: &mut Record) -> Option<Due> {
    let second = record.next_second;
    let held = record.timeline.of_window(second);
    let arms = held.as_ref().and_then(|held| held.setting.arms.clone());
    if let Some((timeline, comparison)) = active(record) {
        if goes_on(timeline, comparison, arms.as_ref(), second) {
            let index = comparison.next_traffic;
            let due = place(timeline, comparison, (second, index, Slice::Traffic));
            comparison.next_traffic += 1;
            record.next_second += 1;
            return Some(due);
        }
        comparison.is_over = true;
    }
    match (arms, held) {
        (Some(arms), Some(held)) => {
            record.comparison = Some(Comparison::begin(arms, second.saturating_sub(LEAD_IN), second, held.step));
        }
        _ => record.next_second += 1,
    }
    None
}

fn place(timeline: &Timeline, comparison: &Comparison, (second, index, slice): (u32, u64, Slice)) -> Due {
    let is_lead_in = second < comparison.began;
    let held = timeline.of_window(second.max(comparison.began));
    let held = held.unwrap_or(Held { setting: Setting::NOBODY, step: comparison.first_step, is_whole: false });
    let mut place = Place::of(index, slice, &held, comparison.first_step);
    if is_lead_in {
        place.share_ppm = None;
    }
    Due { second, place, order: comparison.next_traffic + comparison.next_engagement, is_lead_in }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::kept::Kept as _;
    use crate::release::roles::Arm;
    use proptest::prelude::*;

    fn setting(candidate: Option<&str>, ppm: u32) -> Setting {
        let arm = |version: &str| Arm { version: version.to_owned(), pool: None };
        let arms = candidate.map(|candidate| Arms { candidate: arm(candidate), control: arm("old") });
        Setting { arms, step_ppm: ppm, share_ppm: Some(ppm), is_baking: false, is_last: false }
    }

    fn sealed(second: u32) -> Sealed {
        Sealed { traffic: second, engagement: second - 58 }
    }

    fn seconds(due: &[Due], slice: Slice) -> Vec<u32> {
        due.iter().filter(|due| due.place.slice == slice).map(|due| due.second).collect()
    }

    #[test]
    fn nothing_is_due_without_a_candidate() {
        let mut record = Record::default();
        assert_eq!((due(&mut record, sealed(1_000)).len(), record.next_second), (0, 1_000));
        record.timeline.observe(1_000_500, 1, Setting::NOBODY);
        assert_eq!((due(&mut record, sealed(1_100)).len(), record.next_second, record.comparison), (0, 1_100, None));
    }

    fn is_at_rest(record: &Record, sealed: Sealed) -> bool {
        is_nothing_due(record.comparison.as_ref(), record.next_second, &record.timeline, sealed)
    }

    #[test]
    fn a_route_rests_before_its_first_candidate_and_when_the_last_one_is_over() {
        let mut record = Record::default();
        record.timeline.observe(900_000, 1, Setting::NOBODY);
        assert!(is_at_rest(&record, sealed(1_000)));
        record.timeline.observe(1_000_500, 2, setting(Some("new"), 10));
        assert!(!is_at_rest(&record, sealed(999)), "it begins in a moment");
        due(&mut record, sealed(1_003));
        assert!(!is_at_rest(&record, sealed(1_003)));
        record.timeline.observe(1_010_000, 3, Setting::NOBODY);
        assert!(!is_at_rest(&record, sealed(1_011)), "there is more to judge, and its end to be kept");
        while !due(&mut record, sealed(1_011)).is_empty() {}
        assert!(record.comparison.as_ref().is_some_and(|comparison| comparison.is_over));
        assert!(is_at_rest(&record, sealed(1_012)));
    }

    proptest! {
        /// Whoever rests misses nothing, whatever held when.
        #[test]
        fn at_rest_nothing_is_due(changes in prop::collection::vec((0..90_000_u64, 0..3_u32), 0..8), looks in prop::collection::vec(1..400_u32, 1..8)) {
            let (mut record, mut ms) = (Record::default(), 900_000);
            for (epoch, (later, who)) in (1..).zip(changes) {
                ms += later;
                let candidate = [None, Some("a"), Some("b")][who as usize];
                record.timeline.observe(ms, epoch, candidate.map_or(Setting::NOBODY, |candidate| setting(Some(candidate), who)));
            }
            let mut second = 900;
            for later in looks {
                second += later;
                let (rests, before) = (is_at_rest(&record, sealed(second)), record.clone());
                let slices = due(&mut record, sealed(second));
                if rests {
                    prop_assert_eq!((slices.len(), &record.comparison), (0, &before.comparison));
                }
            }
        }
    }

    #[test]
    fn a_candidate_is_judged_from_its_first_second_and_a_minute_of_control_before() {
        let mut record = Record::default();
        record.timeline.observe(900_000, 1, Setting::NOBODY);
        record.timeline.observe(1_000_500, 2, setting(Some("new"), 10));
        let first = due(&mut record, sealed(1_003));
        assert_eq!(seconds(&first, Slice::Traffic), (941..1_003).collect::<Vec<_>>());
        assert_eq!(first.iter().filter(|due| due.is_lead_in && due.place.slice == Slice::Traffic).count(), 60);
        assert_eq!(first[0].place.share_ppm, None);
        let last = &first[first.len() - 1];
        assert_eq!((last.second, last.place.index, last.place.share_ppm, last.place.step.index), (1_002, 61, Some(10), 0));
        assert_eq!(seconds(&first, Slice::Engagement), (941..945).collect::<Vec<_>>());
        assert_eq!(due(&mut record, sealed(1_003)), []);
        record.timeline.observe(1_010_000, 3, setting(Some("new"), 20));
        let more = due(&mut record, sealed(1_012));
        let shares: Vec<_> = more.iter().filter(|due| due.place.slice == Slice::Traffic).map(|due| due.place.share_ppm).collect();
        let expected = [Some(10); 6].into_iter().chain([None, None, Some(20)]);
        assert_eq!(shares, expected.collect::<Vec<_>>());
        assert_eq!(more.last().unwrap().place.step.index, 1);
    }

    #[test]
    fn another_candidate_is_another_comparison() {
        let mut record = Record::default();
        record.timeline.observe(1_000_000, 1, setting(Some("new"), 10));
        due(&mut record, sealed(1_010));
        record.timeline.observe(1_010_000, 2, Setting::NOBODY);
        due(&mut record, sealed(1_020));
        assert!(record.comparison.as_ref().unwrap().is_over);
        record.timeline.observe(1_020_000, 3, setting(Some("newer"), 10));
        let first = due(&mut record, sealed(1_021));
        let comparison = record.comparison.as_ref().unwrap();
        assert_eq!((comparison.base, comparison.began, comparison.arms.candidate.version.as_str()), (960, 1_020, "newer"));
        assert_eq!((first[0].place.index, first.len()), (0, 61 + 3));
    }

    /// Rolled back and begun again within a second, which no window shows.
    #[test]
    fn the_same_candidate_once_more_is_another_comparison() {
        let mut record = Record::default();
        record.timeline.observe(1_000_000, 1, setting(Some("new"), 10));
        due(&mut record, sealed(1_010));
        record.timeline.observe(1_010_250, 2, Setting::NOBODY);
        record.timeline.observe(1_010_680, 3, setting(Some("new"), 10));
        let mut began = Vec::new();
        for second in 1_011..1_015 {
            due(&mut record, sealed(second));
            began.push(record.comparison.as_ref().map(|comparison| (comparison.began, comparison.is_over)).unwrap());
        }
        assert_eq!(began, [(1_000, false), (1_011, false), (1_011, false), (1_011, false)]);
    }

    #[test]
    fn after_a_long_outage_it_goes_on_with_what_is_kept() {
        let mut record = Record::default();
        record.timeline.observe(1_000_000, 1, setting(Some("new"), 10));
        due(&mut record, sealed(1_010));
        let mut all = Vec::new();
        while let more = due(&mut record, sealed(9_000))
            && !more.is_empty()
        {
            assert!(more.len() <= MOST);
            all.extend(more);
        }
        assert_eq!(seconds(&all, Slice::Traffic), (8_400..9_000).collect::<Vec<_>>());
        assert_eq!((all[0].place.index, record.next_second), (7_460 - 600, 9_000));
    }

    proptest! {
        /// However time passes and whatever the flags do: each slice once, in order, never before it is sealed, and never judged in two comparisons.
        #[test]
        fn each_slice_is_due_once(changes in prop::collection::vec((0..3_u32, 1..40_u32, 1..40_u32), 1..20)) {
            let (mut record, mut now) = (Record::default(), 10_000_u32);
            let mut seen = std::collections::BTreeMap::<(u32, u32, bool), u64>::new();
            for (epoch, (candidate, wait, look)) in (1..).zip(changes) {
                let name = ["a", "b"].get(candidate as usize).copied();
                record.timeline.observe(u64::from(now) * 1_000 + 300, epoch, setting(name, 10));
                now += wait;
                for _ in 0..look {
                    let at = sealed(now);
                    for due in due(&mut record, at) {
                        let is_traffic = due.place.slice == Slice::Traffic;
                        let end = if is_traffic { at.traffic } else { at.engagement };
                        prop_assert!(due.second < end);
                        let began = record.comparison.as_ref().unwrap().began;
                        let before = seen.insert((began, due.second, is_traffic), due.place.index);
                        prop_assert_eq!(before, None);
                    }
                    let comparison = record.comparison.as_ref();
                    prop_assert!(comparison.is_none_or(|comparison| comparison.next_engagement <= comparison.next_traffic));
                    prop_assert!(Record::read(&record.write()).as_ref() == Ok(&record));
                }
            }
            for began in seen.keys().map(|(began, ..)| *began).collect::<std::collections::BTreeSet<_>>() {
                let traffic: Vec<u32> = seen.keys().filter(|(of, _, is_traffic)| *of == began && *is_traffic).map(|(_, second, _)| *second).collect();
                prop_assert!(traffic.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", traffic);
            }
        }
    }
}
