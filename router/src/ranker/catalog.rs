//! What is served: an immutable map of models and versions, replaced whole by one pointer write.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::onnx::Model;

/// The served versions of one model, by number.
pub(super) type Versions = BTreeMap<u64, Arc<Model>>;

/// What is served now, and why the last load of a version failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalog {
    pub(super) models: BTreeMap<String, Versions>,
    /// By model and version: what was wrong with it when it was last to be loaded.
    pub(super) faults: BTreeMap<(String, u64), String>,
}

impl Catalog {
    /// The highest served version of a model: what a request without a version means.
    pub(super) fn newest(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)?.last_key_value().map(|(_, model)| model)
    }

    /// A certain served version.
    pub(super) fn version(&self, name: &str, version: u64) -> Option<&Arc<Model>> {
        self.models.get(name)?.get(&version)
    }
}
