//! The e-values: golden, and never more than 1 on average where the candidate is no worse.

use super::Dice;
use crate::kernels::{
    Arm, Arms, Bet, COVERAGE_RATIOS, ETAS, LOG_THETAS, SHARE_RATIOS, Spread, THETAS, Tilts, absolute, log_add, log_mean,
    log_restart_weight, mean, restart, share_tilt, tilt,
};

fn assert_close(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
}

fn events(candidate: (f64, f64), control: (f64, f64)) -> Arms {
    Arms { candidate: Arm::events(candidate.0, candidate.1), control: Arm::events(control.0, control.1) }
}

#[test]
fn the_kernels_have_the_golden_values() {
    let arms = events((50.0, 3.0), (450.0, 2.0));
    assert_close(tilt(&arms, 1.0, 4.0), 2.847_061_761_02);
    assert_close(tilt(&arms, 1.5, 4.0), 2.375_508_363_67);
    assert_eq!(LOG_THETAS.map(f64::to_bits), THETAS.map(libm::log).map(f64::to_bits));
    assert_eq!(Tilts::of(&arms, 1.5).log_e(&arms), THETAS.map(|theta| tilt(&arms, 1.5, theta)));
    let candidate = Arm { n: 50.0, sum: 27.5, sumsq: 20.0 };
    let arms = Arms { candidate, control: Arm { n: 450.0, sum: 270.0, sumsq: 202.0 } };
    let at = ETAS.iter().position(|eta| *eta == 0.225).unwrap();
    assert_close(mean(&arms, 0.6, Bet::LOWER, &Spread::of(&arms))[at], 0.377_103_293_48);
    assert_close(restart(Some(-1.0), log_restart_weight(2), 0.7, 1.4), -0.499_622_427_246);
}

#[test]
fn the_restart_weights_sum_to_one() {
    let sum: f64 = (1..10_000).filter_map(log_restart_weight).map(f64::exp).sum();
    assert_close(sum, 1.0);
}

/// P(x of n) for events of probability p.
fn binomial(n: u32, x: u32, p: f64) -> f64 {
    let choose: f64 = (0..x).map(|i| f64::from(n - i) / f64::from(i + 1)).product();
    choose * p.powi(x.cast_signed()) * (1.0 - p).powi((n - x).cast_signed())
}

#[test]
fn the_tilt_kernel_is_a_fair_bet_at_the_boundary_and_a_bad_one_below() {
    for (n_c, n_s, ratio) in [(4, 9, 1.0), (1, 12, 1.0), (7, 3, 1.5), (5, 5, 2.0)] {
        for p_s in [0.01, 0.1, 0.4] {
            for theta in THETAS {
                let expected = |p_c: f64| {
                    let mut sum = 0.0;
                    for x_c in 0..=n_c {
                        for x_s in 0..=n_s {
                            let arms = events((n_c.into(), x_c.into()), (n_s.into(), x_s.into()));
                            sum += binomial(n_c, x_c, p_c) * binomial(n_s, x_s, p_s) * tilt(&arms, ratio, theta).exp();
                        }
                    }
                    sum
                };
                let boundary = expected((ratio * p_s).min(1.0));
                assert!(boundary <= 1.0 + 1e-9, "{boundary} for {n_c} and {n_s} at {p_s} times {ratio}, theta {theta}");
                assert!(expected(p_s * ratio * 0.5) < boundary);
                // And a candidate that is worse is found out.
                assert!(expected((ratio * p_s * 2.0).min(1.0)) > boundary);
            }
        }
    }
}

#[test]
fn coverage_and_share_are_fair_bets_in_both_directions() {
    for theta in COVERAGE_RATIOS {
        let (n_c, n_s, p) = (5, 8, 0.7);
        let mut sum = 0.0;
        for x_c in 0..=n_c {
            for x_s in 0..=n_s {
                let arms = events((n_c.into(), x_c.into()), (n_s.into(), x_s.into()));
                sum += binomial(n_c, x_c, p) * binomial(n_s, x_s, p) * tilt(&arms, 1.0, theta).exp();
            }
        }
        assert!(sum <= 1.0 + 1e-9, "{sum} at {theta}");
    }
    for theta in SHARE_RATIOS {
        let sum: f64 = (0..=20).map(|hits| binomial(20, hits, 0.1) * share_tilt(hits.into(), 20.0, 0.1, theta).exp()).sum();
        assert_close(sum, 1.0);
    }
}

#[test]
fn the_absolute_kernel_is_fair_at_what_was_promised() {
    for times in [2.0, 5.0, 20.0] {
        let expected = |p| (0..=20).map(|x| binomial(20, x, p) * absolute(Arm::events(20.0, x.into()), 0.02, times).exp()).sum::<f64>();
        assert_close(expected(0.02), 1.0);
        assert!(expected(0.01) < 1.0);
        assert!(expected(0.03) > 1.0);
    }
}

/// Every outcome of n observations of 0, 1/2 or 1, as (probability, arm).
fn outcomes(n: u32, p: [f64; 3]) -> Vec<(f64, Arm)> {
    let mut all = vec![(1.0, Arm::default())];
    for _ in 0..n {
        let mut next: Vec<(f64, Arm)> = Vec::new();
        for (probability, arm) in &all {
            for (value, p) in [0.0, 0.5, 1.0].into_iter().zip(p) {
                let arm = Arm { n: arm.n + 1.0, sum: arm.sum + value, sumsq: arm.sumsq + value * value };
                match next.iter_mut().find(|(_, known)| *known == arm) {
                    Some((sum, _)) => *sum += probability * p,
                    None => next.push((probability * p, arm)),
                }
            }
        }
        all = next;
    }
    all
}

/// The mean e-value of a bet for each eta, by full enumeration.
fn expected(n: [u32; 2], p: [[f64; 3]; 2], centre: f64, bet: Bet) -> [f64; 8] {
    let mut sums = [0.0; 8];
    for (p_c, candidate) in outcomes(n[0], p[0]) {
        for (p_s, control) in outcomes(n[1], p[1]) {
            let arms = Arms { candidate, control };
            for (sum, log_e) in sums.iter_mut().zip(mean(&arms, centre, bet, &Spread::of(&arms))) {
                *sum += p_c * p_s * log_e.exp();
            }
        }
    }
    sums
}

#[test]
fn the_mean_kernel_is_no_good_bet_where_the_means_are_equal_whatever_the_centre() {
    // Different shapes of the same mean: nothing but the mean matters.
    let shapes = [[0.7, 0.0, 0.3], [0.5, 0.4, 0.1], [0.4, 0.6, 0.0]];
    let same_mean = [[0.0, 0.6, 0.4], [0.3, 0.0, 0.7], [0.1, 0.4, 0.5]];
    for (n, shapes) in [([4, 6], shapes), ([1, 9], same_mean), ([6, 2], shapes)] {
        for p_c in shapes {
            for p_s in shapes {
                for centre in [0.0, 0.3, 0.5, 0.9, 1.0] {
                    for bet in [Bet::LOWER, Bet::HIGHER] {
                        for expected in expected(n, [p_c, p_s], centre, bet) {
                            assert!(expected <= 1.0 + 1e-12, "{expected} for {p_c:?} and {p_s:?} about {centre}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_gate_is_no_good_bet_where_the_candidate_is_worse_by_its_margin() {
    let relative = |part: f64| Bet { sign: -1.0, scale: 1.0 - part, shift: 0.0 };
    let control = [0.4, 0.2, 0.4];
    for (bet, mean) in [
        (Bet { sign: -1.0, scale: 1.0, shift: 0.1 }, 0.4),
        (Bet { sign: 1.0, scale: 1.0, shift: 0.1 }, 0.6),
        (relative(0.2), 0.4),
        (relative(0.05), 0.475),
    ] {
        for centre in [0.0, 0.5, 1.0] {
            for e in expected([4, 6], [[1.0 - mean, 0.0, mean], control], centre, bet) {
                assert!(e <= 1.0 + 1e-12, "{e} for {bet:?} about {centre}");
            }
        }
    }
    // A candidate that is as good as control does win.
    let wins = expected([6, 6], [[0.05, 0.0, 0.95], [0.05, 0.0, 0.95]], 0.95, Bet { sign: -1.0, scale: 1.0, shift: 0.5 });
    assert!(wins.iter().any(|e| *e > 1.2), "{wins:?}");
}

#[test]
fn a_mixture_crosses_a_bound_as_rarely_as_ville_allows() {
    let (rollouts, windows, alpha) = (2_000, 300, 0.05);
    let mut dice = Dice(7);
    let mut crossed = 0;
    for _ in 0..rollouts {
        let mut grid = [None; THETAS.len()];
        let highest = (1..=windows).map(|t| {
            let arms = events((10.0, dice.events(10, 0.1) as f64), (30.0, dice.events(30, 0.1) as f64));
            let logs: Vec<f64> = grid
                .iter_mut()
                .zip(THETAS)
                .map(|(log_m, theta)| *log_m.insert(restart(*log_m, log_restart_weight(t), tilt(&arms, 1.0, theta), 1.0)))
                .collect();
            log_mean(&logs)
        });
        crossed += u32::from(highest.fold(f64::MIN, f64::max) >= -f64::ln(alpha));
    }
    // 2,000 rollouts at the bound itself would give 100 with a deviation of 10.
    assert!((1..=130).contains(&crossed), "{crossed} of {rollouts} crossed a bound of {alpha}");
}

#[test]
fn sums_of_exponentials_keep_what_is_large_and_what_is_small() {
    assert_close(log_add(1_000.0, 1_000.0), 1_000.0 + f64::ln(2.0));
    assert_close(log_add(-5.0, 3.0), f64::ln(f64::exp(-5.0) + f64::exp(3.0)));
    assert_close(log_add(0.0, -1e9), 0.0);
    assert_close(log_mean(&[2.0, 2.0, 2.0]), 2.0);
    assert_close(log_mean(&[]), 0.0);
}
