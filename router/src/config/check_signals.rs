//! `[route.signals]`: what is heard of response bodies.

use super::check::Checker;
use super::pointer::Pointer;
use super::written;
use crate::vocabulary::Ppm;

const POINTER_RULE: &str = "must be a JSON pointer of at most 16 steps, like \"/hits/total\" or \"/hits/*/score\"";
const SAMPLE_RULE: &str = "must be a percentage from 0 to 100 with up to 4 decimals, like \"2.5\"";
const NOTHING_RULE: &str = "must have at least one of results, ids, scores and quality";

/// What a JSON response says of its own results, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signals {
    /// Of the queries that count.
    pub sample: Ppm,
    /// Longer bodies are left alone, in bytes.
    pub max_body: usize,
    /// Their number, or themselves: an array.
    pub results: Option<Pointer>,
    /// The id of each.
    pub ids: Option<Pointer>,
    /// The score of each, 0 to 1.
    pub scores: Option<Pointer>,
    /// How good the response is, 0 to 1.
    pub quality: Option<Pointer>,
}

pub(super) fn check_signals(checker: &mut Checker, route_key: &str, written: &written::Signals) -> Signals {
    let key = |name: &str| format!("{route_key}.signals.{name}");
    let sample = written.sample_percent.as_deref().map(|text| (text, Ppm::from_percent(text)));
    if let Some((text, None)) = sample {
        checker.refuse(&key("sample_percent"), text, SAMPLE_RULE);
    }
    let pointers = [&written.results, &written.ids, &written.scores, &written.quality];
    if pointers.iter().all(|pointer| pointer.is_none()) {
        checker.missing(&format!("{route_key}.signals"), NOTHING_RULE);
    }
    let mut pointer = |name: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let pointer = Pointer::parse(text);
        // One number, or the array itself.
        let is_of_many = |pointer: &Pointer| name == "results" && pointer.steps().contains(&None);
        if pointer.is_none() {
            checker.refuse(&key(name), text, POINTER_RULE);
        } else if pointer.as_ref().is_some_and(is_of_many) {
            checker.refuse(&key(name), text, "must be without *: it points at one number, or at one array");
        }
        pointer
    };
    let [results, ids, scores, quality] = [
        pointer("results", &written.results),
        pointer("ids", &written.ids),
        pointer("scores", &written.scores),
        pointer("quality", &written.quality),
    ];
    let max_body = checker.bytes(&key("max_body"), written.max_body.as_deref(), 256 << 10, 1 << 10, 8 << 20);
    Signals {
        // A tenth, unless it is said.
        sample: sample.and_then(|(_, sample)| sample).or_else(|| Ppm::from_percent("10")).unwrap_or(Ppm::ZERO),
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        results,
        ids,
        scores,
        quality,
    }
}
