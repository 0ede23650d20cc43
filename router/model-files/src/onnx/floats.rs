//! The numbers of a tensor, whichever way they are stored.

use super::proto::Tensor;

/// The first element that is as `is_so` says, if it is of a type with a point.
pub(super) fn position(tensor: &Tensor, is_so: impl Fn(f64) -> bool) -> Option<usize> {
    let raw = tensor.raw_data.as_deref();
    match tensor.data_type? {
        1 | 14 => match raw {
            Some(raw) => fours(raw).position(|number| is_so(f64::from(number))),
            None => tensor.float_data.iter().position(|number| is_so(f64::from(*number))),
        },
        11 | 15 => match raw {
            Some(raw) => eights(raw).position(is_so),
            None => tensor.double_data.iter().position(|number| is_so(*number)),
        },
        kind @ (10 | 16) => match raw {
            Some(raw) => raw.as_chunks::<2>().0.iter().position(|bytes| is_so(half(kind, u16::from_le_bytes(*bytes)))),
            None => tensor.int32_data.iter().position(|bits| u16::try_from(*bits).is_ok_and(|bits| is_so(half(kind, bits)))),
        },
        kind @ (17..=20 | 24) => match raw {
            Some(raw) => raw.iter().position(|bits| is_so(quarter(kind, *bits))),
            None => tensor.int32_data.iter().position(|bits| u8::try_from(*bits).is_ok_and(|bits| is_so(quarter(kind, bits)))),
        },
        _ => None,
    }
}

/// All numbers of a tensor of 32 or 64 bits.
pub(super) fn all(tensor: &Tensor) -> Option<Vec<f64>> {
    match (tensor.data_type?, tensor.raw_data.as_deref()) {
        (1, Some(raw)) => Some(fours(raw).map(f64::from).collect()),
        (1, None) => Some(tensor.float_data.iter().map(|number| f64::from(*number)).collect()),
        (11, Some(raw)) => Some(eights(raw).collect()),
        (11, None) => Some(tensor.double_data.clone()),
        _ => None,
    }
}

/// All whole numbers of a tensor of `most` at most, if it is INT64, INT32 or UINT8.
pub(super) fn whole(tensor: &Tensor, most: usize) -> Option<Vec<i64>> {
    let numbers: Vec<i64> = match (tensor.data_type?, tensor.raw_data.as_deref()) {
        (7, Some(raw)) => raw.as_chunks::<8>().0.iter().take(most + 1).map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        (7, None) => tensor.int64_data.iter().take(most + 1).copied().collect(),
        (6, Some(raw)) => raw.as_chunks::<4>().0.iter().take(most + 1).map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect(),
        (2, Some(raw)) => raw.iter().take(most + 1).map(|byte| i64::from(*byte)).collect(),
        (6 | 2, None) => tensor.int32_data.iter().take(most + 1).map(|number| i64::from(*number)).collect(),
        _ => return None,
    };
    (numbers.len() <= most).then_some(numbers)
}

fn fours(raw: &[u8]) -> impl Iterator<Item = f32> + '_ {
    raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn eights(raw: &[u8]) -> impl Iterator<Item = f64> + '_ {
    raw.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes))
}

/// What kind of number 16 bits are: NaN, infinite, or finite, for which 0 stands. FLOAT16 has 5 bits of exponent and 10 of fraction,
/// BFLOAT16 has 8 and 7.
fn half(kind: i32, bits: u16) -> f64 {
    let (exponent, fraction) = if kind == 10 { (0x7c00, 0x03ff) } else { (0x7f80, 0x007f) };
    match (bits & exponent == exponent, bits & fraction == 0) {
        (false, _) => 0.0,
        (true, true) => f64::INFINITY,
        (true, false) => f64::NAN,
    }
}

/// The same of 8 bits: each of the five types keeps other patterns for what is no number.
fn quarter(kind: i32, bits: u8) -> f64 {
    let is_nan = match kind {
        17 => bits & 0x7f == 0x7f,
        18 | 20 => bits == 0x80,
        19 => bits & 0x7f > 0x7c,
        _ => bits == 0xff,
    };
    match (is_nan, kind == 19 && bits & 0x7f == 0x7c) {
        (true, _) => f64::NAN,
        (false, true) => f64::INFINITY,
        (false, false) => 0.0,
    }
}
