//! The difference of the means with an interval that holds at every look, for people.

use crate::bytes::{Reader, Writer};
use crate::kernels::Arms;

/// Window-stratified difference, candidate minus control.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Interval {
    /// Sum of the windows' precisions.
    precision: f64,
    /// Sum of precision times difference.
    weighted: f64,
    /// Variance of that sum.
    variance: f64,
    /// Where the interval is tightest; fixed before the first window is looked at, 0 until then.
    rho: f64,
}

impl Interval {
    pub(crate) fn add(&mut self, arms: &Arms, centre: f64, phi: f64, best_at: f64, alpha: f64) {
        if self.rho == 0.0 {
            let a = -2.0 * libm::log(alpha);
            let guess = (centre * (1.0 - centre)).max(1e-4) * best_at;
            self.rho = guess / (a + libm::log1p(a));
        }
        let precision = arms.precision();
        let spread = (arms.candidate.about(centre) + arms.control.about(centre)) / arms.total();
        self.precision += precision;
        self.weighted += precision * (arms.candidate.mean() - arms.control.mean());
        self.variance += phi * precision * spread.max(0.0);
    }

    /// Difference, low end, high end. All of -1 to 1 while nothing is known.
    pub(crate) fn bounds(&self, alpha: f64) -> (f64, f64, f64) {
        if self.precision <= 0.0 || self.rho <= 0.0 {
            return (0.0, -1.0, 1.0);
        }
        let difference = self.weighted / self.precision;
        let reach = self.variance + self.rho;
        let half = (reach * libm::log(reach / (self.rho * alpha * alpha))).sqrt() / self.precision;
        (difference, (difference - half).max(-1.0), (difference + half).min(1.0))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64s(&[self.precision, self.weighted, self.variance, self.rho]);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Interval, String> {
        Ok(Interval {
            precision: reader.f64("an interval's precision", 0.0, 1e18)?,
            weighted: reader.f64("an interval's weighted difference", -1e18, 1e18)?,
            variance: reader.f64("an interval's variance", 0.0, 1e18)?,
            rho: reader.f64("an interval's rho", 0.0, 1e18)?,
        })
    }
}
