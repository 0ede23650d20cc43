//! One version of a model: loaded, checked, warm, and scoring. Immutable once it is here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};
use sha2::{Digest, Sha256};

use super::library::Library;

/// More features than any ranking model has; a limit on what one document may cost.
const FEATURES_AT_MOST: i64 = 10_000;
/// Scoring calls before a version counts as warm: the first ones allocate arenas and touch the model's pages.
const WARM_UP_CALLS: usize = 8;
/// Documents in a warm-up call: a usual query.
const WARM_UP_DOCUMENTS: usize = 100;

/// What goes in and out of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name of the input, FP32 [-1, features].
    pub input: String,
    /// Features of a document.
    pub features: usize,
    /// Their names in order; empty when the file has no `feature_names` in its metadata.
    pub feature_names: Vec<String>,
    /// Place of each name.
    pub places: HashMap<String, usize>,
    /// Name of the output, FP32: one score a document.
    pub output: String,
    /// Whether the output is [-1, 1] rather than [-1].
    pub output_is_column: bool,
}

/// One version of a model.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its number.
    pub version: u64,
    /// What goes in and out.
    pub signature: Signature,
    /// SHA-256 of the file: a load of the same bytes keeps this one.
    pub digest: [u8; 32],
    /// As many as queries are scored at the same time: running one needs it alone.
    sessions: Mutex<Vec<Session>>,
}

/// What a version is loaded from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The model's name.
    pub name: String,
    /// Its number.
    pub version: u64,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

impl Source {
    /// A file's bytes, and what they are.
    #[must_use]
    pub fn new(name: &str, version: u64, bytes: Vec<u8>) -> Source {
        Source { name: name.to_owned(), version, digest: Sha256::digest(&bytes).into(), bytes }
    }
}

impl Model {
    /// Loads and warms; blocks.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(library: &Library, source: &Source, threads: usize) -> Result<Model, String> {
        let model = Model::open(library, source, threads)?;
        for _ in 0..threads {
            model.warm()?;
        }
        Ok(model)
    }

    /// Loads, and does not warm; blocks.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(library: &Library, source: &Source, threads: usize) -> Result<Model, String> {
        let mut sessions = Vec::with_capacity(threads);
        for _ in 0..threads {
            sessions.push(open_session(library, &source.bytes).map_err(|error| one_line(&error.to_string()))?);
        }
        let Some(session) = sessions.first() else { return Err("no scoring threads".to_owned()) };
        let signature = read_signature(session)?;
        let (name, version, digest) = (source.name.clone(), source.version, source.digest);
        Ok(Model { name, version, signature, digest, sessions: Mutex::new(sessions) })
    }

    /// Scores documents, one row of features after the other; blocks. Callers hold a scoring permit, so a session is always free.
    ///
    /// # Errors
    /// A score that is not finite, or another number of scores than documents; whatever ONNX Runtime says.
    pub fn score(&self, rows: &[f32]) -> Result<Vec<f32>, String> {
        let documents = rows.len() / self.signature.features.max(1);
        if documents == 0 {
            return Ok(Vec::new());
        }
        let Some(mut session) = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
            return Err("no scoring session is free".to_owned());
        };
        let scores = self.run(&mut session, rows, documents);
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(0, session);
        let scores = scores.map_err(|error| one_line(&error.to_string()))?;
        if scores.len() != documents {
            return Err(format!("the model gave {} scores for {documents} documents", scores.len()));
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(place) => Err(format!("the model gave a score that is not a finite number for document {place}")),
            None => Ok(scores),
        }
    }

    fn run(&self, session: &mut Session, rows: &[f32], documents: usize) -> ort::Result<Vec<f32>> {
        let input = TensorRef::from_array_view(([documents, self.signature.features], rows))?;
        let outputs = session.run(ort::inputs![self.signature.input.as_str() => input])?;
        let Some(output) = outputs.get(&self.signature.output) else { return Ok(Vec::new()) };
        let (shape, scores) = output.try_extract_tensor::<f32>()?;
        let rows = i64::try_from(documents).unwrap_or(i64::MAX);
        let is_as_said = if self.signature.output_is_column { **shape == [rows, 1] } else { **shape == [rows] };
        if is_as_said {
            Ok(scores.to_vec())
        } else {
            Err(ort::Error::new(format!("the output has the shape {shape:?} for {documents} documents")))
        }
    }

    fn warm(&self) -> Result<(), String> {
        let rows = vec![0.0; self.signature.features * WARM_UP_DOCUMENTS];
        for _ in 0..WARM_UP_CALLS {
            self.score(&rows).map_err(|error| format!("warming failed: {error}"))?;
        }
        Ok(())
    }
}

fn open_session(library: &Library, bytes: &[u8]) -> ort::Result<Session> {
    Session::builder(&library.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .commit_from_memory(bytes)
}

/// One FP32 input [-1, features], and an FP32 output with one score a document.
fn read_signature(session: &Session) -> Result<Signature, String> {
    let [input] = session.inputs() else {
        return Err(format!("a ranking model has one input, FP32 [-1, features]; this one has {}", session.inputs().len()));
    };
    let features = match tensor_shape(input.dtype()) {
        Some([_, features]) if (1..=FEATURES_AT_MOST).contains(features) => *features,
        _ => {
            let (name, dtype) = (input.name(), input.dtype());
            return Err(format!(
                "the input `{name}` is {dtype}; a ranking model takes FP32 [-1, features], features from 1 to {FEATURES_AT_MOST}"
            ));
        }
    };
    let output = session.outputs().iter().find_map(|output| match tensor_shape(output.dtype()) {
        Some([_, 1]) => Some((output.name(), true)),
        Some([_]) => Some((output.name(), false)),
        _ => None,
    });
    let Some((output, output_is_column)) = output else {
        return Err("no output is FP32 [-1, 1] or [-1], one score a document".to_owned());
    };
    let features = usize::try_from(features).map_err(|error| error.to_string())?;
    let feature_names = read_feature_names(session, features)?;
    let places = feature_names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
    Ok(Signature { input: input.name().to_owned(), features, feature_names, places, output: output.to_owned(), output_is_column })
}

/// The dimensions of an FP32 tensor.
fn tensor_shape(value: &ValueType) -> Option<&[i64]> {
    match value {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Some(shape),
        _ => None,
    }
}

fn read_feature_names(session: &Session, features: usize) -> Result<Vec<String>, String> {
    let metadata = session.metadata().map_err(|error| one_line(&error.to_string()))?;
    let Some(text) = metadata.custom("feature_names") else { return Ok(Vec::new()) };
    let names: Vec<String> =
        serde_json::from_str(&text).map_err(|error| format!("its metadata `feature_names` is not a JSON array of strings: {error}"))?;
    let distinct: std::collections::HashSet<&String> = names.iter().collect();
    if names.len() != features || distinct.len() != features {
        return Err(format!("its metadata `feature_names` names {} different features, the input takes {features}", distinct.len()));
    }
    Ok(names)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
