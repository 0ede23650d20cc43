//! Judged queries: what a model is tried on. JSON, a query a line:
//!
//! ```json
//! {"query": "red shoes", "documents": [{"id": "d1", "features": [0.2, 7], "label": 3, "score": 1.5}, ...]}
//! ```
//!
//! Labels say how good a document is (0 is useless); scores are what a model is expected to say. Both may be left out, for all documents of a query.

use serde::{Deserialize, Deserializer, Serialize};

/// The largest file.
pub const JUDGED_BYTES: u64 = 256 << 20;
/// The most queries.
const QUERIES: usize = 100_000;
/// The most documents of a query.
const DOCUMENTS: usize = 1_000;
/// The best label: a gain of 2^31 - 1.
const LABEL: f64 = 31.0;
/// What features are, for whoever writes something else.
const FEATURES: &str = "features are lists of numbers; what is missing has to be filled in";
/// What ids and queries are.
const TEXTS: &str = "ids and queries are texts";

/// Queries with documents of the same number of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Of each document, 1 or more.
    pub features: usize,
    /// 1 or more.
    pub queries: Vec<Query>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What was searched for.
    pub name: String,
    /// Ids of its documents, 1 or more.
    pub ids: Vec<String>,
    /// Their features, one row after the other: documents x features.
    pub rows: Vec<f32>,
    /// 0..=31 for each document, where somebody judged them.
    pub labels: Option<Vec<f64>>,
    /// For each document, where a model is expected to say this.
    pub scores: Option<Vec<f32>>,
}

/// A line as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(deserialize_with = "name")]
    query: String,
    documents: Vec<Document>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    #[serde(deserialize_with = "name")]
    id: String,
    #[serde(deserialize_with = "numbers")]
    features: Vec<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// Why a text is no set of judged queries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct JudgedFault {
    /// From 1 on.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub what: String,
}

impl Judged {
    /// Reads JSON lines; empty ones are left out.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn read(text: &[u8]) -> Result<Judged, JudgedFault> {
        if let Some(what) = other_encoding(text) {
            return Err(JudgedFault { line: 1, what: what.to_owned() });
        }
        let mut judged = Judged { features: 0, queries: Vec::new() };
        for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let fault = |what| JudgedFault { line, what };
            let query = query(text).map_err(fault)?;
            let features = query.rows.len() / query.ids.len();
            if judged.queries.is_empty() {
                judged.features = features;
            }
            if features != judged.features {
                let what = format!("documents of {features} features: the lines before have {}", judged.features);
                return Err(fault(what));
            }
            if judged.queries.len() == QUERIES {
                return Err(fault(format!("more than {QUERIES} queries")));
            }
            judged.queries.push(query);
        }
        match judged.queries.is_empty() {
            true => Err(JudgedFault { line: 1, what: "no query; a line is like {\"query\": \"...\", \"documents\": [...]}".to_owned() }),
            false => Ok(judged),
        }
    }

    /// As [`Judged::read`] reads it.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for query in &self.queries {
            let of = |values: &Option<Vec<f32>>, index: usize| values.as_ref().and_then(|values| values.get(index)).copied();
            let rows = query.rows.chunks(self.features.max(1));
            let documents = query.ids.iter().zip(rows).enumerate().map(|(index, (id, row))| Document {
                id: id.clone(),
                features: row.to_vec(),
                label: query.labels.as_ref().and_then(|labels| labels.get(index)).copied(),
                score: of(&query.scores, index),
            });
            let line = Line { query: query.name.clone(), documents: documents.collect() };
            // A vector takes everything.
            let _ = serde_json::to_writer(&mut text, &line);
            text.push(b'\n');
        }
        text
    }

    /// Whether any query has two documents or more: one document is in no order.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        self.queries.iter().any(|query| query.ids.len() > 1)
    }

    /// Whether any query is judged.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        self.queries.iter().any(|query| query.labels.is_some())
    }
}

/// What a text is whose bytes are no JSON, whatever is in it.
fn other_encoding(text: &[u8]) -> Option<&'static str> {
    match text {
        [0xef, 0xbb, 0xbf, ..] => Some("it begins with a byte order mark; must be UTF-8 without one"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Some("it is UTF-16; must be UTF-8"),
        _ => None,
    }
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map_err(|error| with_rule(&error, TEXTS))
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    Vec::deserialize(from).map_err(|error| with_rule(&error, FEATURES))
}

/// The same error, with what is allowed.
fn with_rule<E: serde::de::Error>(error: &E, rule: &str) -> E {
    E::custom(format!("{} ({rule})", without_place(&error.to_string())))
}

/// What a reader of JSON says, without the line and column that it adds: a query is one line.
fn without_place(said: &str) -> &str {
    said.rsplit_once(" at line ").map_or(said, |(said, _)| said)
}

/// What is wrong with the JSON of a line.
fn wrong(error: &serde_json::Error) -> String {
    let rule = if error.is_eof() { " (each query is one whole line)" } else { "" };
    format!("column {}: {}{rule}", error.column(), without_place(&error.to_string()))
}

fn query(text: &[u8]) -> Result<Query, String> {
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(
            "an array; must be one query, {\"query\": \"...\", \"documents\": [...]}, in each line, with nothing around or between them"
                .to_owned(),
        );
    }
    let Line { query: name, documents } = serde_json::from_slice(text).map_err(|error| wrong(&error))?;
    if !(1..=DOCUMENTS).contains(&documents.len()) {
        return Err(format!("documents: {} of them; must be 1 to {DOCUMENTS}", documents.len()));
    }
    let features = documents.first().map_or(0, |document| document.features.len());
    for (index, document) in documents.iter().enumerate() {
        if document.features.len() != features || features == 0 {
            let first = format!("must be as many as of the first document ({features}), and 1 or more");
            return Err(format!("documents[{index}].features: {} of them; {first}", document.features.len()));
        }
        let is_finite = document.features.iter().chain(&document.score).all(|value| value.is_finite());
        if !is_finite {
            return Err(format!("documents[{index}]: features and scores must be finite in 32 bits"));
        }
        if document.label.is_some_and(|label| !(0.0..=LABEL).contains(&label)) {
            return Err(format!("documents[{index}].label: must be from 0 to {LABEL}"));
        }
    }
    let all = |what: &str, there: usize| match there {
        0 => Ok(false),
        _ if there == documents.len() => Ok(true),
        _ => Err(format!("{what}: {there} of {} documents have one; must be all or none", documents.len())),
    };
    let has_labels = all("label", documents.iter().filter(|document| document.label.is_some()).count())?;
    let has_scores = all("score", documents.iter().filter(|document| document.score.is_some()).count())?;
    Ok(Query {
        name,
        rows: documents.iter().flat_map(|document| &document.features).copied().collect(),
        labels: has_labels.then(|| documents.iter().filter_map(|document| document.label).collect()),
        scores: has_scores.then(|| documents.iter().filter_map(|document| document.score).collect()),
        ids: documents.into_iter().map(|document| document.id).collect(),
    })
}

/// Two lines, for tests.
#[cfg(test)]
pub(super) const TWO: &str = r#"{"query": "a", "documents": [{"id": "1", "features": [1, 2], "label": 3}, {"id": "2", "features": [0, 1.5], "label": 0}]}

{"query": "b", "documents": [{"id": "3", "features": [5, 5]}]}
"#;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_read() {
        let judged = Judged::read(TWO.as_bytes()).unwrap();
        assert_eq!((judged.features, judged.queries.len(), judged.has_labels()), (2, 2, true));
        assert_eq!(judged.queries[0].rows, [1.0, 2.0, 0.0, 1.5]);
        assert_eq!((&judged.queries[0].labels, &judged.queries[1].labels), (&Some(vec![3.0, 0.0]), &None));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let said = |text: &str| Judged::read(text.as_bytes()).unwrap_err().to_string();
        let document = |features: &str, more: &str| format!(r#"{{"id": "1", "features": {features}{more}}}"#);
        let line = |documents: &[String]| format!(r#"{{"query": "a", "documents": [{}]}}"#, documents.join(", "));
        let good = document("[1]", "");
        let cases = [
            (String::new(), "line 1: no query"),
            (line(&[]), "line 1: documents: 0 of them; must be 1 to 1000"),
            ("{".to_owned(), "line 1: column 1: EOF while parsing an object (each query is one whole line)"),
            ("[\n{}\n]".to_owned(), "line 1: an array; must be one query"),
            (format!("\n[{}]", line(std::slice::from_ref(&good))), "line 2: an array; must be one query"),
            ("\u{feff}{}".to_owned(), "line 1: it begins with a byte order mark"),
            (
                line(&[document(r#"{"bm25": 1}"#, "")]),
                "invalid type: map, expected a sequence (features are lists of numbers; what is missing",
            ),
            (
                line(&[document("[null]", "")]),
                "invalid type: null, expected f32 (features are lists of numbers; what is missing has to be filled in)",
            ),
            (line(&[good.replace("\"1\"", "0")]), "invalid type: integer `0`, expected a string (ids and queries are texts)"),
            (
                line(std::slice::from_ref(&good)).replace("\"a\"", "7"),
                "invalid type: integer `7`, expected a string (ids and queries are texts)",
            ),
            (line(&[good.replace("\"id\"", "\"di\"")]), "missing field `id`"),
            (line(&[document("[]", "")]), "documents[0].features: 0 of them"),
            (line(&[good.clone(), document("[1, 2]", "")]), "documents[1].features: 2 of them"),
            (line(&[document("[1e99]", "")]), "number out of range (features are lists of numbers"),
            (line(&[document("[1]", ", \"label\": 32")]), "documents[0].label: must be from 0 to 31"),
            (line(&[document("[1]", ", \"label\": 3"), good.clone()]), "label: 1 of 2 documents have one"),
            (format!("{}\n{}", line(&[good]), line(&[document("[1, 2]", "")])), "line 2: documents of 2 features"),
        ];
        for (text, expected) in cases {
            let said = said(&text);
            assert!(said.contains(expected) && !said.contains("at line"), "{text}: {said}");
            assert_eq!(said.contains("filled in"), expected.contains("features are"), "{text}: {said}");
        }
        for text in [b"\xff\xfe{\0}\0".as_slice(), b"\xfe\xff\0{", b"{\0}\0", b"\0{\0}"] {
            let fault = Judged::read(text).unwrap_err().to_string();
            assert_eq!(fault, "line 1: it is UTF-16; must be UTF-8");
        }
    }

    #[test]
    fn a_single_document_is_in_no_order() {
        assert!(Judged::read(TWO.as_bytes()).unwrap().has_orders());
        let alone = TWO.lines().last().unwrap();
        assert!(!Judged::read(format!("{alone}\n{alone}").as_bytes()).unwrap().has_orders());
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back(
            queries in proptest::collection::vec(proptest::collection::vec((-1e6_f32..1e6, 0_u8..32, -9.0_f32..9.0), 1..5), 1..5),
            is_judged: bool,
        ) {
            let of = |documents: &Vec<(f32, u8, f32)>| Query {
                name: "a".to_owned(),
                ids: documents.iter().map(|(value, ..)| value.to_string()).collect(),
                rows: documents.iter().flat_map(|(value, ..)| [*value, 1.0]).collect(),
                labels: is_judged.then(|| documents.iter().map(|(_, label, _)| f64::from(*label)).collect()),
                scores: (!is_judged).then(|| documents.iter().map(|(_, _, score)| *score).collect()),
            };
            let judged = Judged { features: 2, queries: queries.iter().map(of).collect() };
            prop_assert_eq!(Judged::read(&judged.render()), Ok(judged));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = Judged::read(text.as_bytes());
        }
    }
}
