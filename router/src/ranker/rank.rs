//! `POST /rank`: documents with features in, the ranking out.

use serde::{Deserialize, Serialize};

use super::features::Features;
use super::refusal::{Refusal, objects, read_json};
use crate::onnx::{Model, Signature};

/// `{"query": "...", "documents": [{"id": "...", "features": ...}]}`; other keys are left alone.
#[derive(Debug, Deserialize)]
struct Query {
    query: Option<String>,
    #[serde(deserialize_with = "objects")]
    documents: Vec<Document>,
}

#[derive(Debug, Deserialize)]
struct Document {
    id: String,
    features: Features,
}

/// `{"model", "version", "query", "ranking": [{"id", "score"}]}`, best first.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    model: &'a str,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    ranking: Vec<Ranked<'a>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Ranked<'a> {
    id: &'a str,
    score: f32,
}

/// Reads, scores and orders; blocks. `documents_at_most` limits one query.
pub(super) fn rank(model: &Model, body: &[u8], documents_at_most: usize) -> Result<Vec<u8>, Refusal> {
    let query: Query = read_json(body)?;
    let rows = rows(&query.documents, &model.signature, documents_at_most)?;
    let scores = model.score(&rows).map_err(Refusal::fault)?;
    let answer = Answer {
        model: &model.name,
        version: model.version.to_string(),
        query: query.query.as_deref(),
        ranking: order(&query.documents, &scores),
    };
    serde_json::to_vec(&answer).map_err(|error| Refusal::fault(error.to_string()))
}

fn rows(documents: &[Document], signature: &Signature, documents_at_most: usize) -> Result<Vec<f32>, Refusal> {
    if documents.len() > documents_at_most {
        let given = documents.len();
        return Err(Refusal::bad(format!("documents: {given} documents; one query may have {documents_at_most}")));
    }
    let mut rows = Vec::with_capacity(documents.len() * signature.features);
    for (place, document) in documents.iter().enumerate() {
        let appended = document.features.append_to(&mut rows, signature);
        appended.map_err(|wrong| Refusal::bad(format!("documents[{place}].features (id {:?}): {wrong}", shown(&document.id))))?;
    }
    Ok(rows)
}

/// An id as errors quote it: never more than a line of it.
fn shown(id: &str) -> String {
    id.chars().take(64).collect()
}

/// Best first; documents with the same score stay in the order in which they came.
fn order<'a>(documents: &'a [Document], scores: &[f32]) -> Vec<Ranked<'a>> {
    let mut ranking: Vec<Ranked<'_>> =
        documents.iter().zip(scores).map(|(document, score)| Ranked { id: &document.id, score: *score }).collect();
    ranking.sort_by(|left, right| right.score.total_cmp(&left.score));
    ranking
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::features::tests::signature;
    use super::*;

    /// The rows that a body comes to, and of how many documents.
    pub(in super::super) fn rows_of(body: &[u8], signature: &Signature, documents_at_most: usize) -> Result<(usize, Vec<f32>), Refusal> {
        let query: Query = read_json(body)?;
        Ok((query.documents.len(), rows(&query.documents, signature, documents_at_most)?))
    }

    fn documents(ids: &[&str]) -> Vec<Document> {
        ids.iter().map(|id| Document { id: (*id).to_owned(), features: Features::List(vec![0.0]) }).collect()
    }

    #[test]
    fn the_best_comes_first_and_ties_keep_their_order() {
        let documents = documents(&["a", "b", "c", "d"]);
        let ids: Vec<&str> = order(&documents, &[0.5, 2.0, 0.5, -1.0]).iter().map(|ranked| ranked.id).collect();
        assert_eq!(ids, ["b", "a", "c", "d"]);
    }

    #[test]
    fn an_error_names_the_document_and_the_place() {
        let query: Query = read_json(br#"{"documents": [{"id": "a", "features": [1]}, {"id": "b", "features": [1, 2]}]}"#).unwrap();
        let refusal = rows(&query.documents, &signature(&["x"]), 10).unwrap_err();
        assert_eq!(refusal.message, "documents[1].features (id \"b\"): 2 features; the model takes 1");
    }

    #[test]
    fn too_many_documents_are_refused() {
        let refusal = rows(&documents(&["a", "b"]), &signature(&["x"]), 1).unwrap_err();
        assert_eq!(refusal.message, "documents: 2 documents; one query may have 1");
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_path() {
        let wrong = [
            (r#"{"documents": [{"id": "a", "features": [1, null]}]}"#, "documents[0].features[1]: "),
            (r#"{"documents": [{"id": 7, "features": [1]}]}"#, "documents[0].id: "),
            (r#"{"documents": [{"features": [1]}]}"#, "missing field `id`"),
            (r#"{"query": "x"}"#, "missing field `documents`"),
            (r#"{"documents": [{"id": "a", "features": [NaN]}]}"#, "not JSON"),
            (r#"[1]"#, "must be a JSON object"),
            (r#"["x", [{"id": "a", "features": [1]}]]"#, "must be a JSON object"),
            ("null", "must be a JSON object"),
            (r#"{"documents": [["a", [1]]]}"#, "documents[0]: invalid type: sequence, expected an object"),
            ("", "not JSON"),
        ];
        for (body, expected) in wrong {
            let refusal = read_json::<Query>(body.as_bytes()).unwrap_err();
            assert!(refusal.message.contains(expected), "{body}: {}", refusal.message);
        }
    }
}
