//! `NaN`, which JSON has not: XGBoost 2 writes it for the threshold of a split by categories, where there is none.
//!
//! Such a file is copied, and each `NaN` becomes an empty text of the same length, which only [`Threshold`] reads as a number.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// The text with each `NaN` outside of texts replaced. The same text where there is none.
pub(super) fn readable(text: &str) -> Cow<'_, str> {
    // Most models have none: they are searched at the speed of memory.
    if !text.contains("NaN") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('"') {
        out.push_str(&before.replace("NaN", "\"\" "));
        let end = end_of_text(from);
        let (inner, after) = from.split_at_checked(end).unwrap_or((from, ""));
        out.push('"');
        out.push_str(inner);
        rest = after;
    }
    out.push_str(&rest.replace("NaN", "\"\" "));
    Cow::Owned(out)
}

/// Where a text ends that begins here, its quote included.
fn end_of_text(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// A threshold; NaN where there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threshold(pub(super) f32);

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Threshold, D::Error> {
        from.deserialize_any(Numbers).map(Threshold)
    }
}

struct Numbers;

impl Visitor<'_> for Numbers {
    type Value = f32;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f32, E> {
        // One that 32 bits do not hold becomes infinite, which is refused.
        #[allow(clippy::cast_possible_truncation)]
        Ok(value as f32)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f32, E> {
        #[allow(clippy::cast_precision_loss)]
        Ok(value as f32)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f32, E> {
        #[allow(clippy::cast_precision_loss)]
        Ok(value as f32)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<f32, E> {
        if value.is_empty() { Ok(f32::NAN) } else { Err(E::invalid_type(Unexpected::Str(value), &self)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_for_a_number_is_replaced() {
        assert!(matches!(readable(r#"{"a": [1, 2]}"#), Cow::Borrowed(_)));
        assert_eq!(readable(r#"{"NaN": [1,NaN,-NaN], "b\"NaN": NaN}"#), r#"{"NaN": [1,"" ,-"" ], "b\"NaN": "" }"#);
        assert_eq!(readable(r#""\\" NaN "NaN"#), r#""\\" ""  "NaN"#);
        let read = |text: &str| serde_json::from_str::<Threshold>(&readable(text)).map(|threshold| threshold.0);
        assert!(read("NaN").is_ok_and(f32::is_nan));
        assert_eq!(read("-2.5").ok(), Some(-2.5));
        assert!(read("1e300").is_ok_and(f32::is_infinite));
        assert!(read("\"1\"").is_err() && read("Infinity").is_err());
    }
}
