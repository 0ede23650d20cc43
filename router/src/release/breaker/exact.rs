//! The e-value of one look: Fisher's exact test, as a bet. Pure.
//!
//! Of `n` requests in a look `k` failed, and `n_c` were the candidate's. If it fails no more than control, then which of them failed has nothing
//! to do with who answered, and the candidate's part `x` of the failures is hypergeometric, whatever the rate of failures is and however it
//! comes and goes. The bet is on Fisher's noncentral hypergeometric distribution with odds ratio `theta`:
//! ```text
//! e = theta^x / sum over j of h(j) theta^j        h(j) = C(n_c, j) C(n - n_c, k - j) / C(n, k)
//! ```
//! Its mean is 1 given `n`, `n_c` and `k`, and lower where the candidate fails less. Unlike the tilt of the rollback policy, which is for rare
//! events, it also counts control's answers that did not fail: while half of everything fails they say the most.

use rollback_guardrail::kernels::{Arm, Arms, THETAS, Tilts, log_mix};

use crate::quality::Ended;

/// Terms of the sum, at most. With as many failures and answers on both sides the tilt says enough, and less than the exact test.
const MOST_TERMS: u64 = 128;

/// Log e-values that the candidate fails more than control, one for each of [`THETAS`].
pub(super) fn log_e([candidate, control]: &[Ended; 2]) -> [f64; THETAS.len()] {
    let [(n, x), (others, failed)] = [candidate, control].map(|ended| (ended.requests, ended.failed()));
    let k = x + failed;
    let (least, most) = (k.saturating_sub(others), n.min(k));
    if most - least >= MOST_TERMS {
        let arms = Arms { candidate: Arm::events(n as f64, x as f64), control: Arm::events(others as f64, failed as f64) };
        return Tilts::of(&arms, 1.0).log_e(&arms);
    }
    // (j - x, ln of h(j) but for what all have in common).
    let mut terms = [(0.0, 0.0); MOST_TERMS as usize];
    let mut log_h = 0.0;
    let mut used = 0;
    for (slot, j) in terms.iter_mut().zip(least..=most) {
        *slot = (j as f64 - x as f64, log_h);
        used += 1;
        // h(j + 1) / h(j)
        let up = (n - j) as f64 * (k - j) as f64;
        let down = (j + 1) as f64 * ((others + j + 1).saturating_sub(k)) as f64;
        log_h += (up / down).ln();
    }
    let terms = terms.get(..used).unwrap_or_default();
    let all = log_mix(terms.iter().map(|(_, log_h)| (1.0, *log_h)));
    THETAS.map(|theta| {
        let log_theta = theta.ln();
        all - log_mix(terms.iter().map(move |(above, log_h)| (1.0, log_h + above * log_theta)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ended(requests: u64, errors: u64) -> Ended {
        Ended { requests, errors, timeouts: 0 }
    }

    fn log_choose(n: u64, k: u64) -> f64 {
        (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
    }

    proptest! {
        /// What makes it an e-value: over all ways in which the failures may have fallen, its mean is 1.
        #[test]
        fn its_mean_is_one(n in 1_u64..60, others in 1_u64..60, part in 0.0_f64..=1.0) {
            let k = ((n + others) as f64 * part) as u64;
            let mut means = [0.0; THETAS.len()];
            for x in k.saturating_sub(others)..=n.min(k) {
                let chance = (log_choose(n, x) + log_choose(others, k - x) - log_choose(n + others, k)).exp();
                for (mean, log_e) in means.iter_mut().zip(log_e(&[ended(n, x), ended(others, k - x)])) {
                    *mean += chance * log_e.exp();
                }
            }
            for mean in means {
                prop_assert!((mean - 1.0).abs() < 1e-9, "{means:?}");
            }
        }

        #[test]
        fn it_is_finite_for_all_counts(n in 0_u64..100_000, others in 0_u64..100_000, x in 0.0_f64..=1.0, y in 0.0_f64..=1.0) {
            let counts = [ended(n, (n as f64 * x) as u64), ended(others, (others as f64 * y) as u64)];
            for log_e in log_e(&counts) {
                prop_assert!(log_e.is_finite(), "{log_e} of {counts:?}");
            }
        }
    }

    #[test]
    fn rare_failures_weigh_as_with_the_tilt() {
        let (candidate, control) = (Arm::events(5_000.0, 6.0), Arm::events(45_000.0, 4.0));
        let tilts = Tilts::of(&Arms { candidate, control }, 1.0).log_e(&Arms { candidate, control });
        for (exact, tilt) in log_e(&[ended(5_000, 6), ended(45_000, 4)]).into_iter().zip(tilts) {
            assert!((exact - tilt).abs() < 0.05, "{exact} {tilt}");
            assert!(exact >= tilt - 1e-9, "it is never less");
        }
    }

    #[test]
    fn answers_of_control_count_where_everything_else_fails() {
        let counts = [ended(45, 45), ended(5, 0)];
        let arms = Arms { candidate: Arm::events(45.0, 45.0), control: Arm::events(5.0, 0.0) };
        let best = |log_e: [f64; 6]| log_e.into_iter().fold(0.0, f64::max);
        let (exact, tilt) = (best(log_e(&counts)), best(Tilts::of(&arms, 1.0).log_e(&arms)));
        assert!(exact > 12.0 && tilt < 5.0, "{exact} {tilt}");
    }

    #[test]
    fn what_fails_on_both_sides_or_nowhere_says_nothing() {
        for counts in
            [[ended(40, 40), ended(10, 10)], [ended(40, 0), ended(10, 0)], [ended(40, 3), ended(0, 0)], [ended(0, 0), ended(4, 4)]]
        {
            assert!(log_e(&counts).iter().all(|log_e| log_e.abs() < 1e-9), "{counts:?}");
        }
    }
}
