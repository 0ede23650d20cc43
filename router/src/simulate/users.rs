//! Users who send several queries each, alike in what they click and like: what a design effect is for.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng as _;
use switchback_policy::rollback::Tally;

use super::scenario::Scenario;
use super::traffic::TABLE;

/// Groups that units are hashed into.
const GROUPS: usize = 32;
/// A user's queries come among those of the users of about so many seconds.
const SESSION_SECONDS: f64 = 10.0;

/// The users of one role who are there at the moment. A user stays in its role.
pub(super) struct Users {
    present: Vec<User>,
    groups: [[Tally; GROUPS]; 2],
}

#[derive(Clone, Copy, Default)]
struct User {
    left: u32,
    group: usize,
    clicks: bool,
    quality: usize,
}

impl Users {
    pub(super) fn new(scenario: &Scenario, share: f64) -> Users {
        let present = if scenario.queries_per_user > 1 {
            (scenario.requests_per_second * share.max(0.01) * SESSION_SECONDS / f64::from(scenario.queries_per_user)).ceil() as usize
        } else {
            0
        };
        Users { present: vec![User::default(); present.max(1)], groups: [[Tally { n: 0, sum: 0.0, sumsq: 0.0 }; GROUPS]; 2] }
    }

    /// `n` queries of these users: clicks, and sum and sum of squares of the quality.
    ///
    /// Each query is what its user always does with probability sqrt(icc), and anybody's otherwise: two queries of a user then
    /// correlate by icc.
    pub(super) fn ask(
        &mut self,
        rng: &mut Xoshiro256PlusPlus,
        n: u64,
        scenario: &Scenario,
        click_rate: f64,
        quality: &[f64],
    ) -> (u64, (f64, f64)) {
        self.groups = [[Tally { n: 0, sum: 0.0, sumsq: 0.0 }; GROUPS]; 2];
        let [click_groups, quality_groups] = &mut self.groups;
        let alike = scenario.icc.sqrt();
        let (mut clicks, mut sum, mut squares) = (0, 0.0, 0.0);
        let present = self.present.len();
        for _ in 0..n {
            let Some(user) = self.present.get_mut((rng.next_u64() % present as u64) as usize) else { break };
            if user.left == 0 {
                let place = rng.next_u64() as usize;
                let (group, quality) = (place % GROUPS, place / GROUPS % TABLE);
                *user = User { left: scenario.queries_per_user, group, clicks: unit(rng) < click_rate, quality };
            }
            user.left -= 1;
            let clicked = if unit(rng) < alike { user.clicks } else { unit(rng) < click_rate };
            let place = if unit(rng) < alike { user.quality } else { rng.next_u64() as usize & (TABLE - 1) };
            let value = quality.get(place).copied().unwrap_or_default();
            clicks += u64::from(clicked);
            sum += value;
            squares += value * value;
            let clicked = f64::from(u8::from(clicked));
            for (groups, value) in [(&mut *click_groups, clicked), (&mut *quality_groups, value)] {
                if let Some(tally) = groups.get_mut(user.group) {
                    tally.n += 1;
                    tally.sum += value;
                    tally.sumsq += value * value;
                }
            }
        }
        (clicks, (sum, squares))
    }

    /// The groups of the last window, where users are told apart at all.
    pub(super) fn report(&self, is_clicks: bool, groups: &mut Vec<Tally>) {
        let [click_groups, quality_groups] = &self.groups;
        groups.clear();
        if self.present.len() > 1 {
            groups.extend_from_slice(if is_clicks { click_groups } else { quality_groups });
        }
    }
}

/// A number from 0 to 1.
fn unit(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
