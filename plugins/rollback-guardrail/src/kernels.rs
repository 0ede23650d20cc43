//! The e-values: what one window says for and against "the candidate is no worse", and how windows are put together.
//!
//! docs/STATISTICS.md has the proofs. Invariant: only additions, multiplications, divisions and `libm`, in a fixed order, so that
//! the bits are the same natively and in WebAssembly.

/// Ratios of event rates that the tilt kernel looks for.
pub const THETAS: [f64; 6] = [1.5, 2.0, 4.0, 8.0, 16.0, 64.0];
/// `ln` of [`THETAS`]; a test holds that they are what `libm` says.
#[allow(clippy::approx_constant, reason = "one row of a table")]
pub(crate) const LOG_THETAS: [f64; 6] =
    [0.4054651081081644, 0.6931471805599453, 1.3862943611198906, 2.0794415416798357, 2.772588722239781, 4.1588830833596715];
/// Strengths of the mean kernel's bet: `0.9 * 2^-j`.
pub const ETAS: [f64; 8] = [0.9, 0.45, 0.225, 0.1125, 0.05625, 0.028125, 0.0140625, 0.00703125];
/// Ratios of canary's share to the configured one that the sample ratio check looks for.
pub const SHARE_RATIOS: [f64; 10] = [0.5, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1, 1.25, 2.0];
/// Ratios of coverage that the coverage check looks for.
pub const COVERAGE_RATIOS: [f64; 4] = [0.8, 0.9, 1.1, 1.25];
/// Windows among which the onset of harm is spread.
pub const RESTARTS: u64 = 3_600;
/// Below this distance a summand changes nothing in a double: `exp(-40) < 2^-53`.
const NOTHING: f64 = -40.0;

/// Sums of one metric for one role in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arm {
    /// Observations.
    pub n: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sumsq: f64,
}

impl Arm {
    /// `events` among `n` yes/no observations.
    #[must_use]
    pub fn events(n: f64, events: f64) -> Arm {
        Arm { n, sum: events, sumsq: events }
    }

    pub(crate) fn mean(self) -> f64 {
        self.sum / self.n
    }

    /// The sum of squares about `centre`.
    pub(crate) fn about(self, centre: f64) -> f64 {
        self.sumsq - 2.0 * centre * self.sum + self.n * centre * centre
    }
}

/// Both roles in the same window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arms {
    /// The version under test.
    pub candidate: Arm,
    /// The version it is compared with.
    pub control: Arm,
}

impl Arms {
    pub(crate) fn are_both_there(&self) -> bool {
        self.candidate.n > 0.0 && self.control.n > 0.0
    }

    pub(crate) fn total(&self) -> f64 {
        self.candidate.n + self.control.n
    }

    /// Precision of the difference of means, in observations: `n_c * n_s / (n_c + n_s)`.
    pub(crate) fn precision(&self) -> f64 {
        self.candidate.n * self.control.n / self.total()
    }
}

/// Log e-value of the tilt kernel for rare yes/no events: that the candidate's rate is more than `ratio` times control's.
#[must_use]
pub fn tilt(arms: &Arms, ratio: f64, theta: f64) -> f64 {
    let weighted = ratio * arms.candidate.n;
    let q = weighted / (weighted + arms.control.n);
    let events = arms.candidate.sum + arms.control.sum;
    arms.candidate.sum * libm::log(theta) - events * libm::log(1.0 + q * (theta - 1.0))
}

/// [`tilt`] for every one of [`THETAS`]. What depends on the numbers of observations alone is reckoned once, for several counts of events.
#[derive(Debug, Clone, Copy)]
pub struct Tilts {
    log_means: [f64; 6],
}

impl Tilts {
    /// For these numbers of observations.
    #[must_use]
    pub fn of(arms: &Arms, ratio: f64) -> Tilts {
        let weighted = ratio * arms.candidate.n;
        let q = weighted / (weighted + arms.control.n);
        Tilts { log_means: THETAS.map(|theta| libm::log(1.0 + q * (theta - 1.0))) }
    }

    /// Log e-values for these events.
    #[must_use]
    pub fn log_e(&self, arms: &Arms) -> [f64; 6] {
        let events = arms.candidate.sum + arms.control.sum;
        let mut log_e = [0.0; 6];
        for (slot, (log_theta, log_mean)) in log_e.iter_mut().zip(LOG_THETAS.iter().zip(&self.log_means)) {
            *slot = arms.candidate.sum * log_theta - events * log_mean;
        }
        log_e
    }
}

/// Log e-value that `n` units of which `hits` fell into a share `w` were not sent there as configured.
#[must_use]
pub fn share_tilt(hits: f64, n: f64, w: f64, theta: f64) -> f64 {
    hits * libm::log(theta) - n * libm::log(1.0 + w * (theta - 1.0))
}

/// Log e-value that the rate of events is not `slo`, but `times` as high: where there is no control left.
#[must_use]
pub fn absolute(arm: Arm, slo: f64, times: f64) -> f64 {
    let worse = libm::fmin(slo * times, 0.999);
    arm.sum * libm::log(worse / slo) + (arm.n - arm.sum) * libm::log((1.0 - worse) / (1.0 - slo))
}

/// What the mean kernel takes off for the spread, `psi(l) = -ln(1 - l) - l`, for every eta and both arms. It depends on the
/// numbers of observations alone, and is used for harm and for the gate.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    candidate: [f64; 8],
    control: [f64; 8],
}

impl Spread {
    /// For these numbers of observations.
    #[must_use]
    pub fn of(arms: &Arms) -> Spread {
        let total = arms.total();
        let psi = |l: f64| -libm::log1p(-l) - l;
        Spread {
            candidate: ETAS.map(|eta| psi(eta * arms.control.n / total)),
            control: ETAS.map(|eta| psi(eta * arms.candidate.n / total)),
        }
    }
}

/// What the mean kernel bets on: that the candidate's mean is lower than control's, or higher, or better than a margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bet {
    /// 1 to look for a candidate that is lower, -1 for one that is higher.
    pub sign: f64,
    /// What control's observations are multiplied with, at most 1: `1 - d` for a relative margin.
    pub scale: f64,
    /// What is added to the bet's difference: the margin of a gate that has an absolute one, 0 otherwise.
    pub shift: f64,
}

impl Bet {
    /// The candidate is lower than control.
    pub const LOWER: Bet = Bet { sign: 1.0, scale: 1.0, shift: 0.0 };
    /// The candidate is higher than control.
    pub const HIGHER: Bet = Bet { sign: -1.0, scale: 1.0, shift: 0.0 };
}

/// Log e-values of the mean kernel, one for each of [`ETAS`]. `centre` is about where the means are; it must have been known before
/// this window.
#[must_use]
pub fn mean(arms: &Arms, centre: f64, bet: Bet, spread: &Spread) -> [f64; 8] {
    let difference = bet.sign * (bet.scale * arms.control.mean() - arms.candidate.mean()) + bet.shift;
    let pull = arms.precision() * difference;
    let candidate = arms.candidate.about(centre);
    let control = bet.scale * bet.scale * arms.control.about(centre);
    let mut log_e = [0.0; 8];
    let etas = ETAS.iter().zip(spread.candidate.iter().zip(&spread.control));
    for (slot, (eta, (psi_candidate, psi_control))) in log_e.iter_mut().zip(etas) {
        *slot = eta * pull - psi_candidate * candidate - psi_control * control;
    }
    log_e
}

/// Log of the weight that starts anew in window `t`, from 1; `None` when none does.
#[must_use]
pub fn log_restart_weight(t: u64) -> Option<f64> {
    match t {
        1 => Some(libm::log(0.5)),
        2..=RESTARTS => Some(libm::log(0.5 / (RESTARTS - 1) as f64)),
        _ => None,
    }
}

/// One step of the restart mixture: `M <- (M + weight) * e^(1/phi)`, in logs. Without an `M` before there is only the new weight.
#[must_use]
pub fn restart(log_m: Option<f64>, log_weight: Option<f64>, log_e: f64, phi: f64) -> f64 {
    let begun = match (log_m, log_weight) {
        (Some(log_m), Some(log_weight)) => log_add(log_m, log_weight),
        (Some(log_m), None) => log_m,
        (None, Some(log_weight)) => log_weight,
        (None, None) => 0.0,
    };
    begun + log_e / phi
}

/// `ln(e^a + e^b)`.
#[must_use]
pub fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    let distance = low - high;
    if distance < NOTHING { high } else { high + libm::log1p(libm::exp(distance)) }
}

/// `ln` of the weighted sum of `e^x`. 0 for an empty list: without evidence the e-value is 1.
#[must_use]
pub fn log_mix(terms: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let highest = terms.clone().map(|(_, log)| log).fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return 0.0;
    }
    let mut sum = 0.0;
    for (weight, log) in terms {
        let distance = log - highest;
        if distance >= NOTHING {
            sum += weight * libm::exp(distance);
        }
    }
    highest + libm::log(sum)
}

/// `ln` of the mean of `e^x`.
#[must_use]
pub fn log_mean(logs: &[f64]) -> f64 {
    let weight = 1.0 / logs.len() as f64;
    log_mix(logs.iter().map(|log| (weight, *log)))
}
