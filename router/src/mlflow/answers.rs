//! What an MLflow server answers, as far as anybody here cares. Whatever is missing is empty: the API leaves out what has no value.

use serde::Deserialize;
use serde_json::Value;

/// Of `registered-models/alias` and `model-versions/get`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionFound {
    pub(super) model_version: ModelVersion,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ModelVersion {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) status: String,
    pub(super) status_message: String,
    pub(super) description: String,
    pub(super) user_id: String,
    pub(super) run_id: String,
    pub(super) tags: Vec<Pair>,
}

/// Of `model-versions/get-download-uri`.
#[derive(Debug, Deserialize)]
pub(super) struct UriFound {
    #[serde(default)]
    pub(super) artifact_uri: String,
}

/// Of `runs/get`.
#[derive(Debug, Deserialize)]
pub(super) struct RunFound {
    pub(super) run: Run,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    pub(super) info: RunInfo,
    pub(super) data: RunData,
    pub(super) inputs: RunInputs,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RunInfo {
    pub(super) user_id: String,
    pub(super) run_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RunData {
    pub(super) metrics: Vec<Metric>,
    pub(super) params: Vec<Pair>,
    pub(super) tags: Vec<Pair>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RunInputs {
    pub(super) dataset_inputs: Vec<DatasetInput>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct DatasetInput {
    pub(super) tags: Vec<Pair>,
    pub(super) dataset: Dataset,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Dataset {
    pub(super) name: String,
    pub(super) digest: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Metric {
    pub(super) key: String,
    /// A number, or the text NaN.
    pub(super) value: Value,
}

/// What it says when it does not do something.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Error {
    pub(super) message: String,
}

/// The value of a key.
pub(super) fn value<'p>(pairs: &'p [Pair], key: &str) -> Option<&'p str> {
    pairs.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str()).filter(|value| !value.is_empty())
}
