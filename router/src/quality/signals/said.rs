//! What a body says, by the pointers of its route. Pure.

use std::collections::HashSet;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::config::{Pointer, Signals};

/// Ids and scores of a response that are looked at.
const MOST_RESULTS: usize = 1_000;
/// Scores that the mean is of.
const TOP: usize = 10;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    None,
    /// gzip.
    Gzip,
}

/// What one response says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Said {
    /// Whether there are results.
    pub found: Option<bool>,
    /// How good they are, 0 to 1.
    pub quality: Option<f64>,
}

/// Why a sampled body says nothing, or not all of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BodyFault {
    /// It is longer than `max_body`, as it is or unpacked.
    TooLong,
    /// It is no gzip, or broken off.
    BadGzip,
    /// It is no JSON.
    BadJson,
    /// There is nothing where a pointer leads.
    Missing,
    /// What is there is of another type than it should be.
    WrongType,
    /// A score or quality is not from 0 to 1.
    OutOfRange,
    /// A result is there twice.
    RepeatedId,
    /// There was no room for it.
    Busy,
}

impl BodyFault {
    /// All of them.
    pub const ALL: [BodyFault; 8] = [
        BodyFault::TooLong,
        BodyFault::BadGzip,
        BodyFault::BadJson,
        BodyFault::Missing,
        BodyFault::WrongType,
        BodyFault::OutOfRange,
        BodyFault::RepeatedId,
        BodyFault::Busy,
    ];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            BodyFault::TooLong => "too_long",
            BodyFault::BadGzip => "bad_gzip",
            BodyFault::BadJson => "bad_json",
            BodyFault::Missing => "missing",
            BodyFault::WrongType => "wrong_type",
            BodyFault::OutOfRange => "out_of_range",
            BodyFault::RepeatedId => "repeated_id",
            BodyFault::Busy => "busy",
        }
    }
}

/// Reads a body. What is wrong with one signal leaves the others.
#[must_use]
pub fn said(body: &[u8], packing: Packing, signals: &Signals) -> (Said, Vec<BodyFault>) {
    let read = unpacked(body, packing, signals.max_body).and_then(|body| serde_json::from_slice(&body).map_err(|_| BodyFault::BadJson));
    let body: Value = match read {
        Ok(body) => body,
        Err(fault) => return (Said::default(), vec![fault]),
    };
    let mut faults = Vec::new();
    let mut look = |pointer: &Option<Pointer>, read: fn(&[&Value]) -> Result<Seen, BodyFault>| {
        let found = follow(&body, pointer.as_ref()?.steps());
        let seen = if found.is_empty() && !has_each(pointer.as_ref()?) { Err(BodyFault::Missing) } else { read(&found) };
        seen.map_err(|fault| faults.push(fault)).ok()
    };
    let (results, ids, scores, quality) =
        (look(&signals.results, results), look(&signals.ids, ids), look(&signals.scores, scores), look(&signals.quality, quality));
    let number = |seen: Option<Seen>| seen.and_then(|seen| seen.number);
    let found = results.or(ids).or(scores).map(|seen| seen.count > 0);
    (Said { found, quality: number(quality).or(number(scores)) }, faults)
}

/// What was found where a pointer leads.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    count: u64,
    number: Option<f64>,
}

pub(super) fn unpacked(body: &[u8], packing: Packing, most: usize) -> Result<Vec<u8>, BodyFault> {
    if packing == Packing::None {
        return Ok(body.to_vec());
    }
    let mut unpacked = Vec::new();
    // One more than there may be.
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body).take(limit).read_to_end(&mut unpacked).map_err(|_| BodyFault::BadGzip)?;
    if unpacked.len() > most { Err(BodyFault::TooLong) } else { Ok(unpacked) }
}

fn has_each(pointer: &Pointer) -> bool {
    pointer.steps().iter().any(Option::is_none)
}

/// Everything where a pointer's steps lead: one value, or one for each element of the arrays that they go through.
pub(super) fn follow<'v>(body: &'v Value, steps: &[Option<String>]) -> Vec<&'v Value> {
    let mut at = vec![body];
    for step in steps {
        at = match step {
            None => at.into_iter().filter_map(Value::as_array).flatten().take(MOST_RESULTS).collect(),
            Some(name) => at.into_iter().filter_map(|value| child(value, name)).collect(),
        };
    }
    at
}

fn child<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => object.get(name),
        Value::Array(array) => array.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// One value that is an array is its elements.
pub(super) fn elements<'v>(found: &[&'v Value]) -> Vec<&'v Value> {
    match found {
        [Value::Array(array)] => array.iter().take(MOST_RESULTS).collect(),
        found => found.to_vec(),
    }
}

fn results(found: &[&Value]) -> Result<Seen, BodyFault> {
    let count = match found {
        [Value::Number(number)] => number.as_u64().ok_or(BodyFault::WrongType)?,
        [Value::Array(_)] | [] | [_, _, ..] => elements(found).len() as u64,
        [_] => return Err(BodyFault::WrongType),
    };
    Ok(Seen { count, number: None })
}

fn ids(found: &[&Value]) -> Result<Seen, BodyFault> {
    let elements = elements(found);
    let mut known = HashSet::with_capacity(elements.len());
    for element in &elements {
        if !known.insert(id(element)?) {
            return Err(BodyFault::RepeatedId);
        }
    }
    Ok(Seen { count: elements.len() as u64, number: None })
}

/// Text, or a number as text.
pub(super) fn id(value: &Value) -> Result<String, BodyFault> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(BodyFault::WrongType),
    }
}

fn scores(found: &[&Value]) -> Result<Seen, BodyFault> {
    let elements = elements(found);
    let scores = elements.iter().take(TOP).map(|score| number(score)).collect::<Result<Vec<f64>, BodyFault>>()?;
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    Ok(Seen { count: elements.len() as u64, number: (!scores.is_empty()).then_some(mean) })
}

fn quality(found: &[&Value]) -> Result<Seen, BodyFault> {
    let [value] = found else { return Err(BodyFault::WrongType) };
    Ok(Seen { count: 1, number: Some(number(value)?) })
}

/// From 0 to 1.
fn number(value: &Value) -> Result<f64, BodyFault> {
    let number = value.as_f64().ok_or(BodyFault::WrongType)?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(BodyFault::OutOfRange) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::vocabulary::Ppm;

    pub(crate) fn signals(pointers: [&str; 4]) -> Signals {
        let [results, ids, scores, quality] = pointers.map(|text| (!text.is_empty()).then(|| Pointer::parse(text).unwrap()));
        Signals { sample: Ppm::ALL, max_body: 4_096, results, ids, scores, quality }
    }

    pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packing.write_all(body).unwrap();
        packing.finish().unwrap()
    }

    fn of(body: &str, pointers: [&str; 4]) -> (Option<bool>, Option<f64>, Vec<BodyFault>) {
        let plain = said(body.as_bytes(), Packing::None, &signals(pointers));
        let packed = said(&gzip(body.as_bytes()), Packing::Gzip, &signals(pointers));
        assert_eq!(plain, packed);
        (plain.0.found, plain.0.quality, plain.1)
    }

    #[test]
    fn what_is_there_is_found() {
        let hits = r#"{"hits": {"total": 2, "hits": [{"_id": "a", "_score": 0.9}, {"_id": 7, "_score": 0.5}]}, "ndcg": 0.25}"#;
        assert_eq!(of(hits, ["/hits/total", "", "", ""]), (Some(true), None, vec![]));
        assert_eq!(of(hits, ["/hits/hits", "/hits/hits/*/_id", "/hits/hits/*/_score", ""]), (Some(true), Some(0.7), vec![]));
        assert_eq!(of(hits, ["", "", "/hits/hits/*/_score", "/ndcg"]), (Some(true), Some(0.25), vec![]));
        assert_eq!(of(hits, ["", "", "", "/hits/hits/1/_score"]), (None, Some(0.5), vec![]));
        assert_eq!(of(r#"{"outputs": [{"data": [0.5, 1]}]}"#, ["", "", "/outputs/0/data", ""]), (Some(true), Some(0.75), vec![]));
    }

    #[test]
    fn nothing_found_is_a_zero_result() {
        for (body, pointer) in [(r#"{"total": 0}"#, "/total"), (r#"{"hits": []}"#, "/hits"), (r#"{"hits": []}"#, "/hits/*/id")] {
            assert_eq!(of(body, [pointer, "", "", ""]), (Some(false), None, vec![]), "{body}");
        }
        assert_eq!(of(r#"{"hits": []}"#, ["", "/hits/*/id", "/hits/*/score", ""]), (Some(false), None, vec![]));
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_and_leaves_the_rest() {
        use BodyFault::{BadJson, Missing, OutOfRange, RepeatedId, WrongType};
        let all = ["/total", "/ids", "/scores", "/quality"];
        assert_eq!(of("{", all), (None, None, vec![BadJson]));
        assert_eq!(of("{}", all), (None, None, vec![Missing; 4]));
        let body = r#"{"total": -1, "ids": ["a", "a"], "scores": [0.5, 2], "quality": 1}"#;
        assert_eq!(of(body, all), (None, Some(1.0), vec![WrongType, RepeatedId, OutOfRange]));
        assert_eq!(of(r#"{"total": 3, "ids": [[]], "scores": [1], "quality": "1"}"#, all), (Some(true), Some(1.0), vec![WrongType; 2]));
        assert_eq!(of(r#"{"total": "3", "ids": ["a"], "scores": [], "quality": 1e999}"#, all).2, vec![BadJson]);
    }

    #[test]
    fn a_body_is_unpacked_as_far_as_it_may_be() {
        let bomb = gzip(&vec![b' '; 1 << 20]);
        assert_eq!(said(&bomb, Packing::Gzip, &signals(["/a", "", "", ""])).1, [BodyFault::TooLong]);
        let cut = gzip(br#"{"a": 0}"#);
        assert_eq!(said(&cut[..cut.len() - 9], Packing::Gzip, &signals(["/a", "", "", ""])).1, [BodyFault::BadGzip]);
        assert_eq!(said(b"{}", Packing::Gzip, &signals(["/a", "", "", ""])).1, [BodyFault::BadGzip]);
        let deep = "[".repeat(2_000);
        assert_eq!(said(deep.as_bytes(), Packing::None, &signals(["/a", "", "", ""])).1, [BodyFault::BadJson]);
    }
}
