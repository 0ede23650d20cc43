//! What one router sees of a route's flags, and of which routers obey them.

use std::collections::BTreeMap;

use super::roles::Setting;
use super::timeline::Timeline;
use crate::config::Route;
use crate::flags::{Flags, RouterSeen};
use crate::quality::FleetClock;

/// What this router saw.
pub(super) struct Sight {
    pub(super) timeline: Timeline,
    behind: Behind,
    /// The id of the rollout that was seen last.
    rollout: Option<String>,
    clock: FleetClock,
    /// How often the clock had been set when all this was seen.
    clock_steps: u64,
}

impl Sight {
    pub(super) fn new(clock: FleetClock) -> Sight {
        Sight { timeline: Timeline::default(), behind: Behind::default(), rollout: None, clock_steps: clock.steps(), clock }
    }

    /// These flags hold from now on.
    pub(super) fn change(&mut self, flags: &Flags, route: &Route) {
        let (now_ms, rollout) = (self.clock.now_ms(), flags.rollout.as_ref().map(|rollout| rollout.id.clone()));
        if rollout != self.rollout && self.rollout.is_some() {
            // Between two rollouts nobody was under test, whether or not that was seen.
            self.timeline.observe(now_ms, flags.epoch.saturating_sub(1), Setting::NOBODY);
        }
        self.rollout = rollout;
        self.timeline.observe(now_ms, flags.epoch, Setting::of(flags, route));
    }

    /// These routers were heard of lately.
    pub(super) fn look(&mut self, flags: &Flags, route: &Route, routers: &[RouterSeen]) {
        // What was seen by another clock tells nothing of now.
        let steps = self.clock.steps();
        if std::mem::replace(&mut self.clock_steps, steps) != steps {
            (self.timeline, self.behind) = (Timeline::default(), Behind::default());
            self.change(flags, route);
        }
        let now_ms = self.clock.now_ms();
        if let Some(since_ms) = self.behind.look(now_ms, self.timeline.last_change_ms().unwrap_or(now_ms), flags.epoch, routers) {
            self.timeline.are_apart(since_ms, now_ms);
        }
    }
}

/// Routers that were last heard of with older flags, and since when they may have obeyed them beside the others. Pure.
#[derive(Debug, Default)]
struct Behind(BTreeMap<String, u64>);

impl Behind {
    /// Since when, up to now, some router may have given other shares than these flags; `None` where none did.
    ///
    /// One that is no longer heard of gives none. When it is back (asleep, or cut off), it may have gone on with what it knew for a moment.
    fn look(&mut self, now_ms: u64, changed_ms: u64, epoch: u64, routers: &[RouterSeen]) -> Option<u64> {
        self.0.retain(|id, _| routers.iter().any(|router| router.id == *id));
        let mut since_ms: Option<u64> = None;
        for router in routers {
            let began = if router.epoch < epoch {
                let began = *self.0.entry(router.id.clone()).or_insert(changed_ms.min(now_ms));
                router.is_known.then_some(began)
            } else {
                self.0.remove(&router.id)
            };
            since_ms = [since_ms, began].into_iter().flatten().min();
        }
        since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(id: &str, epoch: u64, is_known: bool) -> RouterSeen {
        RouterSeen {
            id: id.to_owned(),
            epoch,
            seal: String::new(),
            seen_ms_ago: 0,
            is_known,
            admin: String::new(),
            trip: None,
            down: Vec::new(),
            copies: None,
        }
    }

    #[test]
    fn routers_are_apart_until_the_last_one_has_the_flags() {
        let mut behind = Behind::default();
        assert_eq!(behind.look(1_000, 0, 1, &[heard("a", 1, true), heard("b", 1, true)]), None);
        assert_eq!(behind.look(2_200, 2_000, 2, &[heard("a", 2, true), heard("b", 1, true)]), Some(2_000));
        assert_eq!(behind.look(3_200, 2_000, 2, &[heard("a", 2, true), heard("b", 2, true)]), Some(2_000), "up to when it was heard of");
        assert_eq!(behind.look(4_200, 2_000, 2, &[heard("a", 2, true), heard("b", 2, true)]), None);
    }

    #[test]
    fn one_that_sleeps_is_apart_when_it_wakes() {
        let mut behind = Behind::default();
        let look = |behind: &mut Behind, now_ms, epoch, is_known| {
            behind.look(now_ms, 2_000, 2, &[heard("a", 2, true), heard("asleep", epoch, is_known)])
        };
        assert_eq!(look(&mut behind, 3_000, 1, true), Some(2_000), "it may be awake");
        assert_eq!(look(&mut behind, 9_000, 1, false), None, "it gives no shares");
        assert_eq!(look(&mut behind, 10_000, 1, true), Some(2_000), "it does, with the flags from before");
        assert_eq!(look(&mut behind, 11_000, 2, true), Some(2_000));
        assert_eq!(look(&mut behind, 12_000, 2, true), None);
    }

    #[test]
    fn one_that_is_forgotten_and_comes_back_is_a_new_one() {
        let mut behind = Behind::default();
        assert_eq!(behind.look(3_000, 2_000, 2, &[heard("asleep", 1, false)]), None);
        assert_eq!(behind.look(700_000, 2_000, 2, &[]), None);
        assert_eq!(behind.look(701_000, 2_000, 2, &[heard("asleep", 2, true)]), None);
    }
}
