//! What was seen: every answer, every step, and what follows from them. Pure: times are given, nothing is asked.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// The pools of the demo's route, in the order of the config.
pub(super) const POOLS: [&str; 3] = ["blue", "green", "canary"];
/// Reasons of failures that are kept, for the end of the demo.
const REASONS_KEPT: usize = 5;

/// One answered query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    /// Who asked.
    pub(super) unit: u32,
    /// Which pool answered, an index into [`POOLS`].
    pub(super) pool: usize,
    /// The model's version that scored, by its number.
    pub(super) version: u32,
    pub(super) sent: Instant,
    /// The whole body is there.
    pub(super) answered: Instant,
    /// NDCG@10 of the ranking.
    pub(super) ndcg: f64,
    pub(super) clicks: u32,
}

/// What happened at the beginning of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Traffic began.
    Start,
    /// The canary got more users.
    Ramp,
    /// Another plugin took over: nobody may notice.
    Plugin,
    /// `live` moved to the other colour.
    Flip,
    /// A rollout went on: its model has more users, on whatever pool.
    Rollout,
}

/// A stretch of time with the same flags and plugin.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) label: String,
    pub(super) change: Change,
    /// Just before the change was made.
    pub(super) written: Instant,
    /// When it was known to be made.
    pub(super) applied: Instant,
    /// Share of the users that each pool should get, by [`POOLS`].
    pub(super) configured: [f64; 3],
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) sent: u64,
    pub(super) failed: u64,
    /// Clicks that the router counted.
    pub(super) clicks: u64,
    pub(super) reasons: Vec<String>,
    pub(super) observations: Vec<Observation>,
    pub(super) steps: Vec<Step>,
    /// Latency of the same query through the router and straight to the ranker.
    pub(super) routed: Vec<Duration>,
    pub(super) direct: Vec<Duration>,
}

/// The traffic of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traffic {
    pub(super) queries: u64,
    /// By [`POOLS`], of the queries that were sent and answered within the step.
    pub(super) shares: [f64; 3],
    /// Different users among them.
    pub(super) units: usize,
}

impl Record {
    /// Notes a query that failed.
    pub(super) fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.reasons.len() < REASONS_KEPT {
            self.reasons.push(reason);
        }
    }

    /// What was sent and answered within a step: after its change was made, before the next one was begun.
    pub(super) fn traffic(&self, step: usize) -> Traffic {
        let (mut counts, mut units) = ([0_u32; 3], HashSet::new());
        for seen in self.observations.iter().filter(|seen| self.step_of(seen) == Some(step)) {
            if let Some(count) = counts.get_mut(seen.pool) {
                *count += 1;
            }
            units.insert(seen.unit);
        }
        let total: u32 = counts.iter().sum();
        let shares = counts.map(|count| f64::from(count) / f64::from(total.max(1)));
        Traffic { queries: u64::from(total), shares, units: units.len() }
    }

    /// Answers to users while a change was made: of no step.
    pub(super) fn between_steps(&self) -> u64 {
        let count = self.observations.iter().filter(|seen| self.step_of(seen).is_none()).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Users whose pool changed where it must not: within a step, over the change of a plugin, or from the canary back to
    /// the live pool while the canary grows.
    pub(super) fn units_that_changed_arm(&self) -> usize {
        let mut arms: HashMap<u32, (usize, usize)> = HashMap::new();
        let mut changed = HashSet::new();
        for seen in &self.observations {
            let Some(step) = self.step_of(seen) else { continue };
            let before = arms.insert(seen.unit, (step, seen.pool));
            if before.is_some_and(|(earlier, pool)| !self.may_move(earlier, step, pool, seen.pool)) {
                changed.insert(seen.unit);
            }
        }
        changed.len()
    }

    /// From the beginning of a change to the last answer from a pool that the change took all traffic from; zero when none came.
    pub(super) fn last_answer_of_old_pool(&self, step: usize) -> Option<Duration> {
        let (previous, changed) = (self.steps.get(step.checked_sub(1)?)?, self.steps.get(step)?);
        let was_emptied = |pool: usize| {
            let share = |step: &Step| step.configured.get(pool).copied().unwrap_or(0.0);
            share(previous) > 0.0 && share(changed) <= 0.0
        };
        let until = self.steps.get(step + 1).map(|next| next.written);
        let within = |seen: &&Observation| seen.answered >= changed.written && until.is_none_or(|until| seen.sent < until);
        let late = self.observations.iter().filter(within).filter(|seen| was_emptied(seen.pool));
        Some(late.map(|seen| seen.answered - changed.written).max().unwrap_or_default())
    }

    /// Queries a second and share of each pool over the last `window`.
    pub(super) fn recent(&self, now: Instant, window: Duration) -> (f64, [f64; 3]) {
        let mut counts = [0_u32; 3];
        for seen in self.observations.iter().rev().take_while(|seen| seen.answered + window >= now) {
            if let Some(count) = counts.get_mut(seen.pool) {
                *count += 1;
            }
        }
        let total: u32 = counts.iter().sum();
        let shares = counts.map(|count| f64::from(count) / f64::from(total.max(1)));
        (f64::from(total) / window.as_secs_f64(), shares)
    }

    /// The step whose flags a query surely met; `None` for one that was under way while a change was made.
    fn step_of(&self, seen: &Observation) -> Option<usize> {
        let begun = self.steps.partition_point(|step| step.applied <= seen.sent);
        let step = begun.checked_sub(1)?;
        let until = self.steps.get(begun).map(|next| next.written);
        until.is_none_or(|until| seen.answered <= until).then_some(step)
    }

    /// Whether the changes between two steps, one after the other, can have moved a user so.
    fn may_move(&self, earlier: usize, later: usize, from: usize, to: usize) -> bool {
        let (low, high) = (earlier.min(later), earlier.max(later));
        let (from, to) = if earlier <= later { (from, to) } else { (to, from) };
        let mut reached = HashSet::from([from]);
        for step in self.steps.get(low + 1..=high).unwrap_or_default() {
            let moved = (0..POOLS.len()).filter(|pool| reached.iter().any(|from| step.change.moves(*from, *pool)));
            reached.extend(moved.collect::<Vec<_>>());
        }
        reached.contains(&to)
    }
}

impl Change {
    /// Whether it may take a user from one pool to another.
    fn moves(self, from: usize, to: usize) -> bool {
        let name = |pool: usize| POOLS.get(pool).copied().unwrap_or_default();
        match self {
            Change::Flip => true,
            Change::Ramp => name(to) == "canary",
            Change::Rollout => matches!((name(from), name(to)), ("blue", "green" | "canary") | ("canary", "green")),
            Change::Start | Change::Plugin => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: usize = 0;
    const GREEN: usize = 1;
    const CANARY: usize = 2;

    fn at(ms: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_millis(ms)
    }

    fn step(change: Change, written: u64, configured: [f64; 3]) -> Step {
        Step { label: String::new(), change, written: at(written), applied: at(written + 2), configured }
    }

    /// Start, ramp at 100, plugin at 200, flip at 300.
    fn record(seen: &[(u32, usize, u64)]) -> Record {
        let steps = vec![
            step(Change::Start, 0, [1.0, 0.0, 0.0]),
            step(Change::Ramp, 100, [0.5, 0.0, 0.5]),
            step(Change::Plugin, 200, [0.5, 0.0, 0.5]),
            step(Change::Flip, 300, [0.0, 1.0, 0.0]),
        ];
        let observation = |(unit, pool, ms): &(u32, usize, u64)| Observation {
            unit: *unit,
            pool: *pool,
            version: 1,
            sent: at(*ms),
            answered: at(ms + 1),
            ndcg: 0.5,
            clicks: 1,
        };
        Record { steps, observations: seen.iter().map(observation).collect(), ..Record::default() }
    }

    #[test]
    fn a_rollout_moves_users_to_its_model_and_nobody_back() {
        let moved = |from: usize, to: usize| {
            let mut record = record(&[(1, from, 50), (1, to, 110)]);
            record.steps.truncate(2);
            record.steps[1].change = Change::Rollout;
            record.units_that_changed_arm() == 0
        };
        assert_eq!([moved(BLUE, CANARY), moved(BLUE, GREEN), moved(CANARY, GREEN)], [true; 3]);
        assert_eq!([moved(CANARY, BLUE), moved(GREEN, BLUE), moved(GREEN, CANARY)], [false; 3]);
    }

    #[test]
    fn who_was_away_for_several_changes_may_have_moved_by_each() {
        let moved = |from: usize, to: usize| {
            let mut record = record(&[(1, from, 50), (1, to, 310)]);
            let changes = [Change::Start, Change::Rollout, Change::Plugin, Change::Ramp];
            record.steps.iter_mut().zip(changes).for_each(|(step, change)| step.change = change);
            record.units_that_changed_arm() == 0
        };
        assert_eq!([moved(GREEN, CANARY), moved(BLUE, GREEN), moved(CANARY, GREEN)], [true; 3]);
        assert_eq!([moved(GREEN, BLUE), moved(CANARY, BLUE)], [false; 2]);
    }

    #[test]
    fn shares_count_only_what_surely_met_the_steps_flags() {
        let record = record(&[(1, BLUE, 50), (1, BLUE, 99), (1, BLUE, 101), (1, CANARY, 110), (2, BLUE, 120)]);
        assert_eq!(record.traffic(0), Traffic { queries: 2, shares: [1.0, 0.0, 0.0], units: 1 });
        assert_eq!(record.between_steps(), 1, "one was under way when the ramp was made");
        assert_eq!(record.traffic(1), Traffic { queries: 2, shares: [0.5, 0.0, 0.5], units: 2 });
    }

    #[test]
    fn a_growing_canary_a_plugin_and_a_flip_move_nobody_the_wrong_way() {
        let all_is_well =
            record(&[(1, BLUE, 50), (1, CANARY, 110), (1, CANARY, 210), (1, GREEN, 310), (2, BLUE, 50), (2, BLUE, 220), (2, GREEN, 320)]);
        assert_eq!(all_is_well.units_that_changed_arm(), 0);
        let within_a_step = record(&[(1, BLUE, 110), (1, CANARY, 120)]);
        assert_eq!(within_a_step.units_that_changed_arm(), 1);
        let over_a_plugin = record(&[(1, BLUE, 110), (1, CANARY, 210)]);
        assert_eq!(over_a_plugin.units_that_changed_arm(), 1);
        let off_the_canary = record(&[(1, CANARY, 50), (1, BLUE, 110)]);
        assert_eq!(off_the_canary.units_that_changed_arm(), 1);
    }

    #[test]
    fn the_last_answer_of_the_old_pool_is_measured_from_the_write() {
        assert_eq!(record(&[(1, BLUE, 250), (1, GREEN, 310)]).last_answer_of_old_pool(3), Some(Duration::ZERO));
        assert_eq!(record(&[(1, BLUE, 304), (1, GREEN, 310)]).last_answer_of_old_pool(3), Some(Duration::from_millis(5)));
        assert_eq!(record(&[]).last_answer_of_old_pool(0), None);
    }

    #[test]
    fn recent_shares_look_back_no_further_than_the_window() {
        let record = record(&[(1, BLUE, 10), (1, BLUE, 900), (2, CANARY, 950)]);
        let (rate, shares) = record.recent(at(1_000), Duration::from_millis(500));
        assert!((rate - 4.0).abs() < 1e-9);
        assert_eq!(shares, [0.5, 0.0, 0.5]);
    }
}
