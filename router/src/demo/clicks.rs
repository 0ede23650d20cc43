//! The cascade click model: a user looks from the top down, clicks what looks good, and leaves when satisfied or bored.
//!
//! It is the simplest model in which the order of a ranking changes what is clicked, with few parameters that can be told
//! in words; position-based models give the same clicks to a bad ranking whose good documents happen to be on top.

use rand::{Rng, RngExt};

/// Chance of a click on a document that is looked at, by label.
const CLICK: [f64; 5] = [0.03, 0.12, 0.35, 0.65, 0.90];
/// Chance of having found enough after a click, by label.
const SATISFIED: [f64; 5] = [0.10, 0.25, 0.45, 0.70, 0.90];
/// Chance of looking at the next document at all.
const GO_ON: f64 = 0.88;

/// How many documents of a ranking a user clicks, and the rank of the first, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clicks {
    pub(super) count: u32,
    pub(super) first_rank: Option<u32>,
}

/// Looks through a ranking, given by its labels from the top.
pub(super) fn cascade(labels: &[u8], rng: &mut impl Rng) -> Clicks {
    let mut clicks = Clicks::default();
    for (rank, label) in (1_u32..).zip(labels) {
        let chance = |table: &[f64; 5]| table.get(usize::from(*label)).copied().unwrap_or(0.0);
        if rng.random_bool(chance(&CLICK)) {
            clicks.count += 1;
            clicks.first_rank = clicks.first_rank.or(Some(rank));
            if rng.random_bool(chance(&SATISFIED)) {
                break;
            }
        }
        if !rng.random_bool(GO_ON) {
            break;
        }
    }
    clicks
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn share_with_a_click(labels: &[u8]) -> f64 {
        let mut rng = SmallRng::seed_from_u64(1);
        let clicked = (0..20_000).filter(|_| cascade(labels, &mut rng).count > 0).count();
        f64::from(u32::try_from(clicked).unwrap_or(u32::MAX)) / 20_000.0
    }

    #[test]
    fn a_better_order_of_the_same_documents_gets_more_clicks() {
        let (good, bad) = (share_with_a_click(&[4, 3, 1, 0, 0, 0, 0, 0]), share_with_a_click(&[0, 0, 0, 0, 0, 1, 3, 4]));
        assert!(good > bad + 0.2, "{good} against {bad}");
    }

    #[test]
    fn nothing_to_see_gets_no_click() {
        assert_eq!(cascade(&[], &mut SmallRng::seed_from_u64(1)), Clicks::default());
    }
}
