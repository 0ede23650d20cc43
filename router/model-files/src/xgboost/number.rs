//! Numbers, which XGBoost writes as texts in its parameters: `"num_feature": "12"`.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::super::error::Malformed;

/// A whole number, as a text or as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(i64);

impl Number {
    /// The number, if it is allowed.
    pub(super) fn within(self, name: &str, allowed: RangeInclusive<i64>) -> Result<usize, Malformed> {
        let (least, most) = (allowed.start(), allowed.end());
        let number = Some(self.0).filter(|number| allowed.contains(number)).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| Malformed::new(format!("{name} = {}", self.0), format!("must be from {least} to {most}")))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        from.deserialize_any(Numbers).map(Number)
    }
}

/// A yes or no: `true`, or `1` in newer versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag;

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Flag, D::Error> {
        match from.deserialize_any(Numbers)? {
            0 | 1 => Ok(Flag),
            other => Err(D::Error::custom(format_args!("{other} must be 0 or 1"))),
        }
    }
}

struct Numbers;

impl Visitor<'_> for Numbers {
    type Value = i64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a whole number")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<i64, E> {
        Ok(i64::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<i64, E> {
        value.trim().parse().map_err(|_| E::custom("must be a whole number"))
    }
}

/// So many numbers, all of them finite.
pub(super) fn check_finite(name: &str, numbers: &[f32], count: usize) -> Result<(), Malformed> {
    check_count(name, numbers.len(), count)?;
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(place) => Err(Malformed::new(format!("{name}[{place}]"), "must be a finite number of 32 bits")),
        None => Ok(()),
    }
}

/// Fails unless a list is as long as it must be.
pub(super) fn check_count(name: &str, found: usize, count: usize) -> Result<(), Malformed> {
    if found == count { Ok(()) } else { Err(Malformed::new(name, format!("has {found} values: must be {count}"))) }
}
