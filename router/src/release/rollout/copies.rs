//! What copies of queries say of a candidate before anybody is answered by it. Pure.
//!
//! Of `n` copies a part `p` failed, and a part `q` may. With `d = p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))` the copies speak against the
//! candidate when `p > q` and `n d >= ln 1000 + ln(2 sqrt(n))`. A candidate that fails in no more than `q` of its copies ever comes to that with
//! a probability of 1 in 1,000 at most, however often one looks: `exp(n d) / (2 sqrt(n))` is no more than the bet of Krichevsky and Trofimov
//! on its failures, whose mean is 1. The same holds of lists with another first result.

use super::next::Seen;
use crate::config::Route;
use crate::flags::{Flags, Phase, Rollout, RouterSeen};
use crate::vocabulary::{Copies, Ppm};

/// The natural logarithm of 1,000.
const LOG_ODDS: f64 = 6.907_755_278_982_137;

/// What is to become of a candidate by its copies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing speaks against it.
    Good,
    /// More of them have to come: why.
    Open(String),
    /// It ends: why.
    Bad(String),
}

/// The copies of a rollout, since the step in which they are judged began: sums over all routers that are heard of; `None` where none of them sent
/// any for it.
#[must_use]
pub fn copies_of(rollout: &Rollout, routers: &[RouterSeen]) -> Option<Copies> {
    let all = all_copies_of(rollout, routers)?;
    Some(rollout.copies_before.as_ref().map_or(all, |before| all.since(before)))
}

/// The same, from the rollout's beginning.
pub(super) fn all_copies_of(rollout: &Rollout, routers: &[RouterSeen]) -> Option<Copies> {
    let of_this = routers.iter().filter(|router| router.is_known).filter_map(|router| router.copies.as_ref());
    let of_this = of_this.filter(|seen| seen.rollout == rollout.id).map(|seen| seen.copies);
    of_this.reduce(|mut sum, more| {
        sum.add(&more);
        sum
    })
}

/// What the next transition stands on, of the rollout that mirrors by these flags.
#[must_use]
pub fn copies_before(flags: &Flags, routers: &[RouterSeen]) -> Option<Copies> {
    let rollout = flags.rollout.as_ref().filter(|rollout| rollout.phase == Phase::Mirroring)?;
    copies_of(rollout, routers)
}

/// Judges the copies so far, by the plan of the rollout. Without copies, or a plan for them, there is nothing to judge.
pub(super) fn judge(seen: &Seen<'_>) -> Verdict {
    let Some(gate) = seen.rollout.plan.mirror_gate.as_ref().filter(|_| seen.rollout.phase == Phase::Mirroring) else {
        return Verdict::Good;
    };
    let copies = copies_of(seen.rollout, seen.routers).unwrap_or_default();
    let least = gate.min_samples;
    let failed = Part { some: copies.failed, all: copies.sent, most: gate.max_failing };
    let changed = Part { some: copies.top1_changed, all: copies.compared, most: gate.max_top1_change };
    let (failing, moving) = (failed.in_words("copies", "failed"), changed.in_words("compared lists", "have another first result"));
    let bad = |what: String| match seen.route.is_observed_only {
        false => Verdict::Bad(format!("the copies speak against it: {what}")),
        true => Verdict::Open(format!("observe_only: the copies would end it: {what}")),
    };
    if failed.all >= least && failed.is_beyond_chance() {
        return bad(failing);
    }
    if changed.all >= least && changed.is_beyond_chance() {
        let jaccard = copies.jaccard().unwrap_or_default();
        return bad(format!("{moving}, Jaccard@10 {jaccard:.2}"));
    }
    let chance = "more copies tell whether that is chance";
    if failed.all < least {
        return Verdict::Open(format!("{} of {least} copies are over", failed.all));
    }
    if failed.is_above() {
        return Verdict::Open(format!("{failing}: {chance}"));
    }
    if has_lists(seen.route) && changed.all < least {
        let unread = copies.unread;
        return Verdict::Open(format!("{} of {least} lists are compared, and {unread} could not be read", changed.all));
    }
    if changed.is_above() {
        return Verdict::Open(format!("{moving}: {chance}"));
    }
    Verdict::Good
}

/// Why a rollout goes on that mirrored for its time.
pub(super) fn time_is_over(seen: &Seen<'_>) -> String {
    let over = "the time for copies is over";
    copies_of(seen.rollout, seen.routers).map_or_else(|| over.to_owned(), |copies| format!("{over}: {}", in_words(&copies)))
}

/// `0 of 412 copies failed, another first result for 3.2 % of 405 lists, Jaccard@10 0.94`
fn in_words(copies: &Copies) -> String {
    let failed = format!("{} of {} copies failed", copies.failed, copies.sent);
    match (copies.top1_change(), copies.jaccard()) {
        (Some(changed), Some(jaccard)) => {
            let changed = percent(changed);
            format!("{failed}, another first result for {changed} % of {} lists, Jaccard@10 {jaccard:.2}", copies.compared)
        }
        _ => format!("{failed}, no lists were compared"),
    }
}

/// Whether the route says where its answers have the lists that could be compared.
fn has_lists(route: &Route) -> bool {
    route.signals.as_ref().is_some_and(|signals| signals.ids.is_some() || signals.scores.is_some())
}

/// Some of all of them, and how many it may be.
struct Part {
    some: u64,
    all: u64,
    most: Ppm,
}

impl Part {
    fn is_above(&self) -> bool {
        u128::from(self.some) * u128::from(Ppm::ALL.get()) > u128::from(self.most.get()) * u128::from(self.all)
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of copies stay far below 2^53")]
    fn is_beyond_chance(&self) -> bool {
        let (all, most) = (self.all as f64, self.most.percent() / 100.0);
        let is = self.share();
        let term = |is: f64, most: f64| if is > 0.0 { is * (is / most).ln() } else { 0.0 };
        let divergence = term(is, most) + term(1.0 - is, 1.0 - most);
        self.is_above() && all * divergence >= LOG_ODDS + (2.0 * all.sqrt()).ln()
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of copies stay far below 2^53")]
    fn share(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.some as f64 / self.all as f64 }
    }

    /// `of 400 copies 12.3 % failed (at most 1 %)`
    fn in_words(&self, of: &str, what: &str) -> String {
        format!("of {} {of} {} % {what} (at most {} %)", self.all, percent(self.share()), self.most)
    }
}

/// A share of 0 to 1, in percent.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent > 0.0 && percent < 1.0 { 2 } else { 1 };
    format!("{percent:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn is_ended(some: u64, all: u64, most: &str) -> bool {
        Part { some, all, most: Ppm::from_percent(most).unwrap() }.is_beyond_chance()
    }

    #[test]
    fn what_is_beyond_chance_is_so_by_the_formula() {
        // 9 of 100, where 1 of 100 may: n d = 12.1, and ln 1000 + ln 20 = 9.9.
        assert_eq!([7, 8, 9].map(|failed| is_ended(failed, 100, "1")), [false, false, true]);
        assert_eq!([0, 1].map(|failed| is_ended(failed, 100, "0")), [false, true]);
        assert_eq!([0, 100].map(|failed| is_ended(failed, 100, "100")), [false, false]);
        assert_eq!([70, 80, 100].map(|changed| is_ended(changed, 100, "70")), [false, false, true]);
        assert!(!is_ended(0, 0, "0") && is_ended(u64::MAX, u64::MAX, "99"));
    }

    /// Looked at after each copy, of 500 candidates that fail as often as they may hardly one is ended.
    #[test]
    fn a_candidate_within_its_limit_is_left_alone_however_often_one_looks() {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut is_ended_at_last = || {
            let mut failed = 0;
            (1..=2_000).any(|sent| {
                failed += u64::from(random.random_bool(0.01));
                sent >= 100 && is_ended(failed, sent, "1")
            })
        };
        let ended = (0..500).filter(|_| is_ended_at_last()).count();
        assert!(ended <= 2, "{ended}");
    }
}
