//! Splits by categories: each names a set in a table of bits, `cat_threshold[cat_boundaries[n]..cat_boundaries[n + 1]]`.

use super::super::error::{Malformed, shown};
use super::text::Fields;

/// The sets of a tree.
pub(super) struct Tables {
    count: usize,
}

/// Reads and checks them. There are none where `num_cat` is 0.
pub(super) fn read(fields: &Fields<'_>) -> Result<Tables, Malformed> {
    let count = usize::try_from(fields.number("num_cat", 0..=i64::from(i32::MAX - 1))?).unwrap_or(0);
    if count == 0 {
        return Ok(Tables { count });
    }
    let bounds: Vec<usize> = fields.numbers("cat_boundaries", count + 1, 0..=i64::from(i32::MAX))?;
    if bounds.first() != Some(&0) {
        return Err(Malformed::new("cat_boundaries[0]", "must be 0"));
    }
    if let Some(place) = bounds.iter().zip(bounds.iter().skip(1)).position(|(bound, next)| next < bound) {
        return Err(Malformed::new(format!("cat_boundaries[{}]", place + 1), "is below the one before it"));
    }
    let words = bounds.last().copied().unwrap_or(0);
    fields.numbers::<u32>("cat_threshold", words, 0..=i64::from(u32::MAX))?;
    Ok(Tables { count })
}

impl Tables {
    /// The threshold of a split by categories is the number of its set.
    pub(super) fn check_splits(&self, thresholds: &str, decisions: &[u8]) -> Result<(), Malformed> {
        for (place, (threshold, decision)) in thresholds.split_ascii_whitespace().zip(decisions).enumerate() {
            let is_by_category = decision & 1 == 1;
            if is_by_category && !threshold.parse().is_ok_and(|set: usize| set < self.count) {
                let what = format!("is a split by categories: must be a whole number below num_cat = {}", self.count);
                return Err(Malformed::new(format!("threshold[{place}] = {}", shown(threshold)), what));
            }
        }
        Ok(())
    }
}
