//! What a backend says of the quality of its response, in fields of its head. Pure.
//!
//! | field | value |
//! |---|---|
//! | `x-quality-results` | how many results there are: a whole number; with 0, the query found nothing |
//! | `x-quality-score` | how good they are, by whatever the backend measures: a number from 0 to 1 |
//!
//! The fields pass to the client as they are. One that makes no sense is counted, and moves nothing.

use http::header::{HeaderMap, HeaderName};

use crate::quality::SignalFault;

/// What the fields of all signals start with.
pub(crate) const PREFIX: &str = "x-quality-";
const RESULTS: HeaderName = HeaderName::from_static("x-quality-results");
const SCORE: HeaderName = HeaderName::from_static("x-quality-score");

/// What one response says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Signals {
    /// Whether there are results.
    pub(crate) found: Option<Result<bool, SignalFault>>,
    /// 0 to 1.
    pub(crate) score: Option<Result<f64, SignalFault>>,
}

impl Signals {
    pub(crate) fn of(headers: &HeaderMap) -> Signals {
        Signals {
            found: one(headers, &RESULTS).map(|text| text.and_then(|text| results(text).map(|results| results > 0))),
            score: one(headers, &SCORE).map(|text| text.and_then(score)),
        }
    }
}

/// The text of a field; `None` where it is not there.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, SignalFault>> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return Some(Err(SignalFault::Repeated));
    }
    Some(line.to_str().map(str::trim).map_err(|_| SignalFault::NoNumber))
}

fn results(text: &str) -> Result<u64, SignalFault> {
    let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_whole {
        return Err(SignalFault::NoNumber);
    }
    text.parse().map_err(|_| SignalFault::OutOfRange)
}

fn score(text: &str) -> Result<f64, SignalFault> {
    let is_decimal = text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    let score: f64 = text.parse().ok().filter(|_| is_decimal).ok_or(SignalFault::NoNumber)?;
    if (0.0..=1.0).contains(&score) { Ok(score) } else { Err(SignalFault::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn signals(fields: &[(&HeaderName, &str)]) -> Signals {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Signals::of(&headers)
    }

    #[test]
    fn a_response_without_them_says_nothing() {
        assert_eq!(signals(&[(&http::header::AGE, "1")]), Signals::default());
    }

    #[test]
    fn what_makes_sense_is_taken() {
        for (text, found) in [("0", false), ("1", true), (" 12 ", true), ("18446744073709551615", true)] {
            assert_eq!(signals(&[(&RESULTS, text)]).found, Some(Ok(found)), "{text:?}");
        }
        for (text, score) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), (".5", 0.5), ("1e-1", 0.1), ("-0", 0.0)] {
            assert_eq!(signals(&[(&SCORE, text)]).score, Some(Ok(score)), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_is_a_fault() {
        use SignalFault::{NoNumber, OutOfRange, Repeated};
        for (text, fault) in
            [("", NoNumber), ("-1", NoNumber), ("1.5", NoNumber), ("x", NoNumber), ("é", NoNumber), ("99999999999999999999", OutOfRange)]
        {
            assert_eq!(signals(&[(&RESULTS, text)]).found, Some(Err(fault)), "{text:?}");
        }
        for (text, fault) in [
            ("", NoNumber),
            ("NaN", NoNumber),
            ("inf", NoNumber),
            ("e", NoNumber),
            ("0,5", NoNumber),
            ("1.01", OutOfRange),
            ("-0.1", OutOfRange),
            ("1e999", OutOfRange),
        ] {
            assert_eq!(signals(&[(&SCORE, text)]).score, Some(Err(fault)), "{text:?}");
        }
        assert_eq!(signals(&[(&SCORE, "1"), (&SCORE, "1")]).score, Some(Err(Repeated)));
    }

    proptest! {
        #[test]
        fn whatever_a_backend_says_is_a_number_in_range_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(RESULTS, value.clone()), (SCORE, value)]);
            let Signals { found, score } = Signals::of(&headers);
            prop_assert!(found.is_some());
            prop_assert!(score.unwrap().is_err() || (0.0..=1.0).contains(&score.unwrap().unwrap()));
        }
    }
}
