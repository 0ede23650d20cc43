//! Fuzz target: whatever a server answers, and whatever is in a file of golden queries, is read or refused in one short line.

use switchback_fuzz::{Target, Trace, kind_of, trace};

use crate::{Golden, answers};

const WORDS: [&[u8]; 24] = [
    b"{\"error\": \"",
    b"\"name\": \"m\"",
    b"\"version\": \"3\"",
    b"\"state\": \"READY\"",
    b"\"reason\": ",
    b"\"extensions\": [\"model_repository\"]",
    b"\"inputs\": [",
    b"\"outputs\": [",
    b"\"datatype\": \"FP32\"",
    b"\"datatype\": \"FP64\"",
    b"\"shape\": [2, 1]",
    b"\"data\": [[0.5], [1]]",
    b"\"data\": [0.5, null]",
    b"{\"query\": \"a\", \"documents\": [",
    b"\"features\": [1, 2]",
    b"\"score\": 1",
    b"\"version_policy\": {}",
    b"\"ready\": false",
    b"NaN",
    b"1e999",
    b"null",
    b"\\u202e",
    b"[[[[",
    b"\n",
];

/// What was read, or how it was refused: in one line that is not as long as the input.
fn way<T>(read: Result<T, String>, shape: impl Fn(T) -> usize) -> Trace {
    match read {
        Ok(value) => trace(shape(value).min(8)),
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 6_000 && !why.chars().any(char::is_control), "{why:?}");
            trace(kind_of(&why))
        }
    }
}

#[test]
fn model_servers() {
    Target { name: "model_servers", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|bytes| {
        let scores = answers::scores(bytes, 2);
        assert!(scores.as_ref().map_or(true, |scores| scores.len() == 2), "{scores:?}");
        let ready = answers::ready_versions(bytes, "m");
        assert!(ready.as_ref().map_or(true, |versions| !versions.contains(&0)), "{ready:?}");
        if let Some(config) = answers::configuration(bytes) {
            assert!(!config.is_empty() && !config.contains_key("version_policy"), "{config:?}");
        }
        trace([
            way(scores, |scores| scores.len()),
            way(ready, |versions| versions.len()),
            way(answers::state_of(bytes, "m", 3), |state| usize::from(state.is_some())),
            way(answers::about(bytes), |about| usize::from(about.has_repository)),
            way(answers::input(bytes, Some("y")), |input| usize::from(input.is_double)),
            trace(answers::error_of(bytes).map(|said| kind_of(&said))),
            trace(answers::says_not_ready(bytes)),
            golden(bytes),
        ])
    });
}

fn golden(bytes: &[u8]) -> Trace {
    way(Golden::read(bytes), |golden| {
        for query in &golden.queries {
            let documents = query.ids.len();
            assert!(documents > 0 && golden.features > 0 && query.rows.len() == documents * golden.features, "{query:?}");
            assert!(query.rows.iter().chain(query.scores.iter().flatten()).all(|value| value.is_finite()), "{query:?}");
            if let Some(scores) = &query.scores {
                let found: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
                assert!(query.compare(&found, 0.0).is_ok(), "{query:?}");
            }
        }
        golden.queries()
    })
}
