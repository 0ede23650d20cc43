//! The design effect: how many observations of clustered units are worth one of independent ones.
//!
//! A user sends several queries, and they are alike; so the variance of a mean is `phi` times what it would be. Units are
//! hashed into 32 groups, which are independent; the spread of the groups' sums says what `phi` is.

use switchback_policy::rollback::Tally;

use crate::bytes::{Reader, Writer};
use crate::config::Config;
use crate::kernels::Arm;

/// Groups of units.
pub(crate) const GROUPS: usize = 32;
/// Below this the groups say nothing.
const LEAST: f64 = 64.0;
/// The most that a sum may be when it is read: more than a rollout can have.
const MOST: f64 = 1e18;

/// One arm's groups since the rollout began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Groups {
    n: [f64; GROUPS],
    sum: [f64; GROUPS],
    total: Arm,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups { n: [0.0; GROUPS], sum: [0.0; GROUPS], total: Arm::default() }
    }
}

impl Groups {
    /// Adds one window's groups.
    fn add(&mut self, tallies: &[Tally]) {
        let slots = self.n.iter_mut().zip(&mut self.sum);
        for ((n, sum), tally) in slots.zip(tallies) {
            *n += tally.n as f64;
            *sum += tally.sum;
            self.total.n += tally.n as f64;
            self.total.sum += tally.sum;
            self.total.sumsq += tally.sumsq;
        }
    }

    /// `G/(G-1) * sum (S_g - mean*n_g)^2 / (SS - n*mean^2)`.
    fn of_means(&self) -> Option<f64> {
        let Arm { n, sum, sumsq } = self.total;
        let mean = sum / n;
        let within = sumsq - n * mean * mean;
        if n < LEAST || within <= 1e-9 * n {
            return None;
        }
        let mut between = 0.0;
        for (group_n, group_sum) in self.n.iter().zip(&self.sum) {
            let apart = group_sum - mean * group_n;
            between += apart * apart;
        }
        Some(GROUPS as f64 / (GROUPS - 1) as f64 * between / within)
    }

    /// The same for the numbers of requests: the variance of the groups' sizes over what independent units would give.
    fn of_sizes(&self) -> Option<f64> {
        let expected = self.total.n / GROUPS as f64;
        if self.total.n < LEAST {
            return None;
        }
        let mut spread = 0.0;
        for n in &self.n {
            spread += (n - expected) * (n - expected);
        }
        Some(spread / expected / (GROUPS - 1) as f64)
    }

    fn write(&self, writer: &mut Writer) {
        writer.f64s(&self.n);
        writer.f64s(&self.sum);
        writer.f64s(&[self.total.n, self.total.sum, self.total.sumsq]);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Groups, String> {
        let mut groups = Groups::default();
        reader.f64s("a group's observations", &mut groups.n, 0.0, MOST)?;
        reader.f64s("a group's sum", &mut groups.sum, 0.0, MOST)?;
        groups.total.n = reader.f64("the groups' observations", 0.0, MOST)?;
        groups.total.sum = reader.f64("the groups' sum", 0.0, MOST)?;
        groups.total.sumsq = reader.f64("the groups' sum of squares", 0.0, MOST)?;
        Ok(groups)
    }
}

/// Both arms' groups of one metric.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Clusters {
    candidate: Groups,
    control: Groups,
}

impl Clusters {
    pub(crate) fn add(&mut self, candidate: &[Tally], control: &[Tally]) {
        self.candidate.add(candidate);
        self.control.add(control);
    }

    /// Of both arms.
    pub(crate) fn observations(&self) -> f64 {
        self.candidate.total.n + self.control.total.n
    }

    /// The design effect of means.
    pub(crate) fn of_means(&self, config: &Config, floor: f64) -> f64 {
        shrink(config, floor, [self.candidate.of_means(), self.control.of_means()])
    }

    /// The design effect of the numbers of requests.
    pub(crate) fn of_sizes(&self, config: &Config) -> f64 {
        shrink(config, 1.0, [self.candidate.of_sizes(), self.control.of_sizes()])
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.candidate.write(writer);
        self.control.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Clusters, String> {
        Ok(Clusters { candidate: Groups::read(reader)?, control: Groups::read(reader)? })
    }
}

/// Pulls the arms' estimates towards the prior, by degrees of freedom; then what caution asks for.
pub(crate) fn shrink(config: &Config, floor: f64, estimates: [Option<f64>; 2]) -> f64 {
    let mut degrees = config.prior_degrees;
    let mut sum = config.prior_degrees * config.prior;
    for estimate in estimates.into_iter().flatten() {
        degrees += (GROUPS - 1) as f64;
        sum += (GROUPS - 1) as f64 * estimate;
    }
    config.caution * (sum / degrees).max(floor)
}
