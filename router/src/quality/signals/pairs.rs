//! Pairs of answers, a query's own and its copy's: what each counts, and the sums by rollout. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::kept::Kept;
use super::ranked::{Likeness, compare, ranked};
use super::said::{BodyFault, Packing};
use crate::config::Signals;
use crate::vocabulary::Copies;

/// Rollouts of one route whose sums are kept: the newest.
const ROLLOUTS: usize = 4;

/// What a copy counts of which nothing is known but that it was answered.
pub(super) const SENT: Copies = Copies { sent: 1, failed: 0, compared: 0, top1_changed: 0, jaccard_micros: 0, unread: 0 };

/// Whose pair it is.
#[derive(Debug, Clone)]
pub struct PairOf {
    /// The route's id.
    pub route: u32,
    /// That of the version which got the copy.
    pub version: u32,
    /// The rollout's id.
    pub rollout: Arc<str>,
}

/// One answer of a pair.
#[derive(Debug)]
pub enum Half {
    /// There is none, or it is a 5xx, or was not whole in time.
    Failed,
    /// It is neither that nor a 2xx.
    Refused,
    /// A 2xx whose body is no JSON, or packed in a way that is not read.
    NoJson,
    /// A 2xx whose body nobody kept: it has none, its client went away, or its route does not say where a list is.
    Unkept,
    /// A 2xx with a body to read.
    Body(Packing, Kept),
}

/// What is to be done with a pair.
pub(super) enum Task {
    /// It says nothing of the copy.
    Nothing,
    /// It is known what it counts.
    Count(Copies),
    /// Its lists are to be compared.
    Compare((Packing, Kept), (Packing, Kept)),
}

/// What a pair counts; a query that fails by itself says nothing of its copy.
pub(super) fn task(live: Half, copy: Half) -> Task {
    match (live, copy) {
        (Half::Failed, _) => Task::Nothing,
        (_, Half::Failed) => Task::Count(Copies { failed: 1, ..SENT }),
        (Half::Refused, _) => Task::Count(SENT),
        (_, Half::Refused) => Task::Count(Copies { failed: 1, ..SENT }),
        (Half::Unkept, _) | (_, Half::Unkept) => Task::Count(SENT),
        (Half::NoJson, _) | (_, Half::NoJson) => Task::Count(Copies { unread: 1, ..SENT }),
        (Half::Body(packing, live), Half::Body(packing_of_copy, copy)) => Task::Compare((packing, live), (packing_of_copy, copy)),
    }
}

/// What a pair counts whose lists are to be compared.
pub(super) fn compared((packing, live): &(Packing, Kept), (packing_of_copy, copy): &(Packing, Kept), signals: &Signals) -> Copies {
    let read = |kept: &Kept, packing: Packing| kept.whole().and_then(|body| ranked(body, packing, signals));
    match (read(live, *packing), read(copy, *packing_of_copy)) {
        (Ok(live), Ok(copy)) => {
            let Likeness { is_top1_changed, jaccard_micros } = compare(&live, &copy);
            Copies { compared: 1, top1_changed: u64::from(is_top1_changed), jaccard_micros, ..SENT }
        }
        // The router had no room for it: the answer is not to blame.
        (Err(BodyFault::Busy), _) | (_, Err(BodyFault::Busy)) => SENT,
        _ => Copies { unread: 1, ..SENT },
    }
}

/// What became of copies.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// By route: of its newest rollouts, the newest last.
    by_rollout: BTreeMap<u32, VecDeque<(Arc<str>, Copies)>>,
    /// By route and version, since the process began.
    by_version: BTreeMap<(u32, u32), Copies>,
}

impl Sums {
    pub(super) fn add(&mut self, of: &PairOf, copies: &Copies) {
        self.by_version.entry((of.route, of.version)).or_default().add(copies);
        let rollouts = self.by_rollout.entry(of.route).or_default();
        if let Some((_, sum)) = rollouts.iter_mut().find(|(rollout, _)| *rollout == of.rollout) {
            return sum.add(copies);
        }
        rollouts.push_back((of.rollout.clone(), *copies));
        if rollouts.len() > ROLLOUTS {
            rollouts.pop_front();
        }
    }

    pub(super) fn of_rollout(&self, route: u32, rollout: &str) -> Copies {
        let rollouts = self.by_rollout.get(&route);
        rollouts.and_then(|rollouts| rollouts.iter().find(|(id, _)| &**id == rollout)).map(|(_, sum)| *sum).unwrap_or_default()
    }

    pub(super) fn of_version(&self, route: u32, version: u32) -> Copies {
        self.by_version.get(&(route, version)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::said::tests::signals;
    use super::*;

    fn kept(text: &str) -> (Packing, Kept) {
        let mut kept = Kept::new(4_096, &Arc::new(AtomicUsize::new(0)));
        kept.pass(text.as_bytes());
        (Packing::None, kept)
    }

    fn body() -> Half {
        let (packing, kept) = kept("{}");
        Half::Body(packing, kept)
    }

    #[test]
    fn what_each_answer_is_decides_what_a_pair_counts() {
        use Half::{Failed, NoJson, Refused, Unkept};
        let of = |live: Half, copy: Half| match task(live, copy) {
            Task::Nothing => "nothing".to_owned(),
            Task::Count(Copies { sent: 1, failed, compared: 0, top1_changed: 0, jaccard_micros: 0, unread }) => {
                format!("{failed} {unread}")
            }
            Task::Count(other) => format!("{other:?}"),
            Task::Compare(..) => "lists".to_owned(),
        };
        for copy in [Failed, Refused, NoJson, Unkept, body()] {
            assert_eq!(of(Failed, copy), "nothing", "a query that fails says nothing of its copy");
        }
        for live in [Refused, NoJson, Unkept, body()] {
            assert_eq!(of(live, Failed), "1 0");
        }
        assert_eq!([of(NoJson, Refused), of(Unkept, Refused), of(body(), Refused)], ["1 0"; 3], "the candidate refuses what live answers");
        assert_eq!([of(Refused, Refused), of(Refused, body()), of(Unkept, body()), of(Unkept, NoJson)], ["0 0"; 4]);
        assert_eq!([of(NoJson, body()), of(body(), NoJson), of(NoJson, NoJson)], ["0 1"; 3]);
        assert_eq!(of(body(), body()), "lists");
    }

    #[test]
    fn lists_that_are_read_are_compared() {
        let rules = signals(["", "/ids", "", ""]);
        let of = |live: &str, copy: &str| compared(&kept(live), &kept(copy), &rules);
        assert_eq!(of(r#"{"ids": ["a", "b"]}"#, r#"{"ids": ["a", "c"]}"#), Copies { compared: 1, jaccard_micros: 333_333, ..SENT });
        assert_eq!(of(r#"{"ids": ["a"]}"#, r#"{"ids": []}"#), Copies { compared: 1, top1_changed: 1, ..SENT });
        let (list, long) = (r#"{"ids": ["a"]}"#, " ".repeat(5_000));
        for (live, copy) in [("{}", list), (list, "no json"), (list, long.as_str())] {
            assert_eq!(of(live, copy), Copies { unread: 1, ..SENT });
        }
    }

    #[test]
    fn sums_are_kept_of_the_newest_rollouts() {
        let mut sums = Sums::default();
        let of = |rollout: &str| PairOf { route: 1, version: 2, rollout: rollout.into() };
        for rollout in ["a", "b", "a", "c", "d", "e"] {
            sums.add(&of(rollout), &SENT);
        }
        let counts = ["a", "b", "c", "d", "e", "f"].map(|rollout| sums.of_rollout(1, rollout).sent);
        assert_eq!(counts, [0, 1, 1, 1, 1, 0]);
        assert_eq!((sums.of_version(1, 2).sent, sums.of_version(1, 3).sent, sums.of_rollout(2, "e").sent), (6, 0, 0));
    }
}
