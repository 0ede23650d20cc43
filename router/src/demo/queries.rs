//! The queries that the demo's users send: real learning-to-rank input with judged documents, carried inside the binary.

use std::collections::HashMap;
use std::io::Read as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Made by router/demo/recipe.
const QUERIES: &[u8] = include_bytes!("../../demo/queries.jsonl.gz");
/// How deep a ranking is judged.
const DEPTH: usize = 10;

/// One query: what is sent, and what its documents are worth.
#[derive(Debug)]
pub(super) struct Query {
    /// The body of `POST /rank`: the documents without their labels.
    pub(super) body: Bytes,
    /// Label of each document by its id: 0 useless, 4 perfect.
    labels: HashMap<String, u8>,
    /// The best DCG@10 that any order can have.
    ideal: f64,
}

/// The embedded data is not what the recipe makes.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueriesError {
    #[error("the demo's queries cannot be unpacked")]
    Unpack(#[source] std::io::Error),
    #[error("line {line} of the demo's queries makes no sense")]
    Line {
        line: usize,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Written {
    query: String,
    documents: Vec<WrittenDocument>,
}

#[derive(Deserialize)]
struct WrittenDocument {
    id: String,
    label: u8,
    features: Value,
}

#[derive(Serialize)]
struct Sent<'a> {
    query: &'a str,
    documents: Vec<SentDocument<'a>>,
}

#[derive(Serialize)]
struct SentDocument<'a> {
    id: &'a str,
    features: &'a Value,
}

/// All of them with their labels, a line each: what models are validated on.
pub(super) fn judged() -> Result<String, QueriesError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(QUERIES).read_to_string(&mut text).map_err(QueriesError::Unpack)?;
    Ok(text)
}

/// All of them, in their order, from their lines.
pub(super) fn read_all(text: &str) -> Result<Vec<Query>, QueriesError> {
    text.lines().enumerate().map(|(line, text)| read(text).map_err(|source| QueriesError::Line { line: line + 1, source })).collect()
}

fn read(line: &str) -> Result<Query, serde_json::Error> {
    let written: Written = serde_json::from_str(line)?;
    let documents = written.documents.iter().map(|document| SentDocument { id: &document.id, features: &document.features });
    let body = serde_json::to_vec(&Sent { query: &written.query, documents: documents.collect() })?;
    let labels: HashMap<String, u8> = written.documents.into_iter().map(|document| (document.id, document.label)).collect();
    let mut best: Vec<u8> = labels.values().copied().collect();
    best.sort_unstable_by(|left, right| right.cmp(left));
    Ok(Query { body: Bytes::from(body), ideal: dcg(&best), labels })
}

impl Query {
    /// The labels of a ranking, best rank first; `None` when it is not a ranking of this query's documents.
    pub(super) fn labels_of<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Option<Vec<u8>> {
        let labels: Option<Vec<u8>> = ids.map(|id| self.labels.get(id).copied()).collect();
        labels.filter(|labels| labels.len() == self.labels.len())
    }

    /// NDCG@10 of a ranking by its labels, with gain 2^label - 1; 1 when no document is worth anything.
    pub(super) fn ndcg(&self, labels: &[u8]) -> f64 {
        if self.ideal > 0.0 { dcg(labels) / self.ideal } else { 1.0 }
    }
}

fn dcg(labels: &[u8]) -> f64 {
    let gain = |label: u8| f64::from((1_u32 << label) - 1);
    let ranked = (2_u32..).zip(labels.iter().take(DEPTH));
    ranked.map(|(rank, label)| gain(*label) / f64::from(rank).log2()).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_embedded_queries_can_be_read_and_do_not_give_the_labels_away() {
        let queries = read_all(&judged().unwrap()).unwrap();
        assert_eq!(queries.len(), 300);
        let body: serde_json::Value = serde_json::from_slice(&queries[0].body).unwrap();
        assert!(body["documents"][0]["features"].is_array());
        assert!(body["documents"][0].get("label").is_none());
    }

    #[test]
    fn the_ideal_order_is_worth_one_and_the_reverse_less() {
        let query = read(r#"{"query":"q","documents":[{"id":"a","label":0,"features":[]},{"id":"b","label":3,"features":[]}]}"#).unwrap();
        let labels = query.labels_of(["b", "a"].into_iter()).unwrap();
        assert!((query.ndcg(&labels) - 1.0).abs() < 1e-12);
        let reversed = query.labels_of(["a", "b"].into_iter()).unwrap();
        assert!((query.ndcg(&reversed) - 1.0 / 3_f64.log2()).abs() < 1e-12);
        assert_eq!(query.labels_of(["a"].into_iter()), None);
        assert_eq!(query.labels_of(["a", "x"].into_iter()), None);
    }
}
