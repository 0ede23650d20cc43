//! Fuzz targets of the ranker: bodies of `POST /rank`, of `infer` and of a load.

use switchback_fuzz::{Target, Trace, kind_of, trace};

use super::features::tests::signature;
use super::refusal::Refusal;
use super::repository::VersionPolicy;
use super::{infer, rank};

const DOCUMENTS: usize = 4;

const WORDS: [&[u8]; 20] = [
    b"\"documents\":",
    b"\"features\":",
    b"\"id\":",
    b"\"query\":",
    b"{\"bm25\": 1, \"price\": 2}",
    b"[1, 2]",
    b"[[1, 2], [3, 4]]",
    b"\"inputs\":",
    b"\"outputs\":",
    b"\"name\": \"features\"",
    b"\"shape\": [2, 2]",
    b"\"datatype\": \"FP32\"",
    b"\"data\":",
    b"\"parameters\": {\"config\": ",
    b"\\\"version_policy\\\"",
    b"\\\"specific\\\"",
    b"1e39",
    b"NaN",
    b"null",
    b"\\ud800",
];

/// How a body is refused.
fn refused(refusal: &Refusal) -> Trace {
    assert!(refusal.status.is_client_error() && !refusal.message.is_empty(), "{refusal:?}");
    trace(kind_of(&refusal.message))
}

fn check_rows(documents: usize, rows: &[f32]) {
    assert!(documents <= DOCUMENTS && rows.len() == documents * 2, "{documents} documents, {} numbers", rows.len());
    assert!(rows.iter().all(|value| value.is_finite()), "{rows:?}");
}

#[test]
fn rank_body() {
    let signature = signature(&["bm25", "price"]);
    Target { name: "rank_body", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|body| {
        match rank::tests::rows_of(body, &signature, DOCUMENTS) {
            Ok((documents, rows)) => {
                check_rows(documents, &rows);
                trace(documents)
            }
            Err(refusal) => refused(&refusal),
        }
    });
}

#[test]
fn infer_body() {
    let signature = signature(&["x", "y"]);
    Target { name: "infer_body", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|body| {
        match infer::tests::rows_of(body, &signature, DOCUMENTS) {
            Ok(rows) => {
                check_rows(rows.len() / 2, &rows);
                trace(rows.len())
            }
            Err(refusal) => refused(&refusal),
        }
    });
}

#[test]
fn load_body() {
    Target { name: "load_body", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|body| {
        match VersionPolicy::read("model", body) {
            Ok(policy) => trace(format!("{policy:?}").chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect::<String>()),
            Err(refusal) => refused(&refusal),
        }
    });
}
