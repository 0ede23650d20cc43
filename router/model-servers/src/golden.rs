//! Golden queries: rows of features, and the scores that are expected for them. JSON, a query a line, as judged queries have it:
//!
//! ```json
//! {"query": "red shoes", "documents": [{"id": "d1", "features": [0.2, 7], "score": 1.5}, ...]}
//! ```
//!
//! Without scores a query warms and proves nothing. Labels and whatever else a line has are left alone.

use serde::Deserialize;

/// The most queries of a round; those after them are left out.
const QUERIES: usize = 256;
/// The most bytes of lines; what is after them is left out.
const BYTES: usize = 32 << 20;
/// The most documents of a query.
const DOCUMENTS: usize = 1_000;
/// A difference that is none: what the last bits of small scores come to.
const ABSOLUTE: f64 = 1e-6;

/// Queries with rows of the same width.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    pub(crate) features: usize,
    pub(crate) queries: Vec<Query>,
    left_out: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) ids: Vec<String>,
    /// One row after the other: documents x features.
    pub(crate) rows: Vec<f32>,
    pub(crate) scores: Option<Vec<f32>>,
}

#[derive(Debug, Deserialize)]
struct Line {
    query: String,
    documents: Vec<Document>,
}

#[derive(Debug, Deserialize)]
struct Document {
    id: String,
    features: Vec<f32>,
    #[serde(default)]
    score: Option<f32>,
}

impl Golden {
    /// Reads JSON lines; empty ones are passed over. The first 256 queries of the first 32 MiB are taken.
    ///
    /// # Errors
    /// The first of them that is wrong, with its line.
    pub fn read(jsonl: &[u8]) -> Result<Golden, String> {
        let mut golden = Golden { features: 0, queries: Vec::new(), left_out: 0 };
        let mut bytes = 0_usize;
        for (line, text) in (1..).zip(jsonl.split(|byte| *byte == b'\n')) {
            if text.trim_ascii().is_empty() {
                continue;
            }
            bytes = bytes.saturating_add(text.len());
            if golden.queries.len() == QUERIES || (bytes > BYTES && !golden.queries.is_empty()) {
                golden.left_out += 1;
                continue;
            }
            let fault = |what: String| format!("line {line}: {what}");
            if text.len() > BYTES {
                return Err(fault(format!("{} bytes; must be at most {BYTES}", text.len())));
            }
            let query = read_query(text).map_err(fault)?;
            let features = query.rows.len() / query.ids.len().max(1);
            if golden.queries.is_empty() {
                golden.features = features;
            }
            if features != golden.features {
                return Err(fault(format!("documents of {features} features: the lines before have {}", golden.features)));
            }
            golden.queries.push(query);
        }
        match golden.queries.is_empty() {
            true => Err("no query; a line is like {\"query\": \"...\", \"documents\": [...]}".to_owned()),
            false => Ok(golden),
        }
    }

    /// How many queries a round has: 1 or more.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// How many more lines there were.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

fn read_query(text: &[u8]) -> Result<Query, String> {
    let Line { query: name, documents } = serde_json::from_slice(text).map_err(|error| crate::fault::quoted(&error.to_string()))?;
    if !(1..=DOCUMENTS).contains(&documents.len()) {
        return Err(format!("documents: {} of them; must be 1 to {DOCUMENTS}", documents.len()));
    }
    let features = documents.first().map_or(0, |document| document.features.len());
    for (index, document) in documents.iter().enumerate() {
        let count = document.features.len();
        if count != features || features == 0 {
            return Err(format!(
                "documents[{index}].features: {count} of them; must be as many as of the first ({features}), and 1 or more"
            ));
        }
        if !document.features.iter().chain(&document.score).all(|value| value.is_finite()) {
            return Err(format!("documents[{index}]: features and scores must be finite in 32 bits"));
        }
    }
    let scored = documents.iter().filter(|document| document.score.is_some()).count();
    if scored != 0 && scored != documents.len() {
        return Err(format!("score: {scored} of {} documents have one; must be all or none", documents.len()));
    }
    Ok(Query {
        name,
        rows: documents.iter().flat_map(|document| &document.features).copied().collect(),
        scores: (scored > 0).then(|| documents.iter().filter_map(|document| document.score).collect()),
        ids: documents.into_iter().map(|document| document.id).collect(),
    })
}

impl Query {
    /// The largest difference between the scores that were found and those expected, 0 where none are.
    ///
    /// A difference may be `tolerance` times the spread of the query's expected scores, and a millionth.
    pub(crate) fn compare(&self, found: &[f64], tolerance: f32) -> Result<f64, String> {
        let name = |index: usize| crate::fault::quoted(self.ids.get(index).map_or("", String::as_str));
        let query = crate::fault::quoted(&self.name);
        if let Some(index) = found.iter().position(|score| !score.is_finite()) {
            return Err(format!("query `{query}`, document `{}`: its score is no finite number", name(index)));
        }
        let Some(expected) = &self.scores else { return Ok(0.0) };
        let (least, most) =
            expected.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), score| (least.min(*score), most.max(*score)));
        let spread = (f64::from(most) - f64::from(least)).max(ABSOLUTE);
        let allowed = f64::from(tolerance.max(0.0)) * spread + ABSOLUTE;
        let mut worst = 0.0_f64;
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            let difference = (f64::from(*expected) - found).abs();
            if difference > allowed {
                let name = name(index);
                return Err(format!(
                    "query `{query}`, document `{name}`: expected the score {expected}, found {found} (allowed: {allowed:.2e} more or less)"
                ));
            }
            worst = worst.max(difference);
        }
        Ok(worst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden(text: &str) -> Golden {
        Golden::read(text.as_bytes()).unwrap()
    }

    const LINE: &str = r#"{"query": "a", "documents": [{"id": "x", "features": [1, 2], "score": 1, "label": 3}, {"id": "y", "features": [3, 4], "score": 3}]}"#;

    #[test]
    fn lines_are_read() {
        let golden = golden(&format!("{LINE}\n\n{LINE}\n"));
        assert_eq!((golden.queries(), golden.left_out(), golden.features), (2, 0, 2));
        assert_eq!(
            (golden.queries[0].rows.as_slice(), &golden.queries[0].scores),
            ([1.0, 2.0, 3.0, 4.0].as_slice(), &Some(vec![1.0, 3.0]))
        );
    }

    #[test]
    fn only_so_many_are_taken() {
        let golden = golden(&format!("{LINE}\n").repeat(300));
        assert_eq!((golden.queries(), golden.left_out()), (256, 44));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            (String::new(), "no query"),
            (format!("{LINE}\n{{}}"), "line 2: missing field `query`"),
            (LINE.replace("[3, 4]", "[3]"), "documents[1].features: 1 of them"),
            (LINE.replace(r#""score": 3"#, r#""x": 3"#), "score: 1 of 2 documents"),
            (LINE.replace("[1, 2]", "[1, 1e300]"), "line 1: "),
            (format!("{LINE}\n{}", r#"{"query": "b", "documents": [{"id": "1", "features": [1]}]}"#), "line 2: documents of 1 features"),
        ] {
            let error = Golden::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn scores_are_compared_by_the_spread() {
        let query = &golden(LINE).queries[0];
        assert_eq!(query.compare(&[1.0, 3.015_625], 0.01), Ok(0.015_625));
        let error = query.compare(&[1.0, 3.03], 0.01).unwrap_err();
        assert!(error.contains("query `a`, document `y`: expected the score 3, found 3.03 (allowed: 2.00e-2 more or less)"), "{error}");
        assert!(query.compare(&[f64::NAN, 3.0], 1e9).is_err() && query.compare(&[1.0, f64::INFINITY], f32::MAX).is_err());
        // Scores that are all the same have no spread to speak of.
        let flat = Query { scores: Some(vec![5.0, 5.0]), ..query.clone() };
        assert!(flat.compare(&[5.000_000_5, 5.0], 0.0).is_ok() && flat.compare(&[5.001, 5.0], 0.1).is_err());
    }

    proptest! {
        #[test]
        fn what_was_expected_is_right(scores in prop::collection::vec(-1e30_f32..1e30, 2..9), tolerance in 0.0_f32..1.0) {
            let found: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
            let query = Query { name: String::new(), ids: vec![String::new(); scores.len()], rows: Vec::new(), scores: Some(scores) };
            prop_assert_eq!(query.compare(&found, tolerance), Ok(0.0));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = Golden::read(text.as_bytes());
        }
    }
}
