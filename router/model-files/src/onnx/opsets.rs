//! Which versions of ONNX and of its operators a runtime knows.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::super::error::{Malformed, shown};
use super::proto::OpsetId;

/// What a runtime takes. Domains that are not named are custom operators, which it has no code for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opsets {
    /// Versions of the format itself.
    pub ir: RangeInclusive<i64>,
    /// `ai.onnx`, in a file also written as an empty text.
    pub ai_onnx: RangeInclusive<i64>,
    /// `ai.onnx.ml`: tree ensembles, and what else scikit-learn needs.
    pub ai_onnx_ml: RangeInclusive<i64>,
    /// `com.microsoft`: the runtime's own.
    pub com_microsoft: RangeInclusive<i64>,
}

impl Opsets {
    /// Of ONNX Runtime 1.32.0, found by loading a model of each version into it: it refuses IR 15, ai.onnx 29, ai.onnx.ml 6 and
    /// com.microsoft 2,
    /// and takes those below. It promises less than it takes: what is newer than its last released opset may still change. IR 1 and 2 are
    /// of 2017, from before ONNX 1.0.
    pub const ONNX_RUNTIME_1_32: Opsets = Opsets { ir: 3..=14, ai_onnx: 1..=28, ai_onnx_ml: 1..=5, com_microsoft: 1..=1 };

    fn versions(&self, domain: &str) -> Option<&RangeInclusive<i64>> {
        match domain {
            "ai.onnx" => Some(&self.ai_onnx),
            "ai.onnx.ml" => Some(&self.ai_onnx_ml),
            "com.microsoft" => Some(&self.com_microsoft),
            _ => None,
        }
    }

    /// Whether the runtime has operators of its own there.
    pub(super) fn has(&self, domain: &str) -> bool {
        self.versions(domain).is_some()
    }

    /// The domains that a model or a function imports, with their versions. Of a domain that the runtime does not know, only functions of
    /// the model
    /// itself can be used, which is seen when they are.
    pub(super) fn read(&self, imports: &[OpsetId]) -> Result<BTreeMap<String, i64>, Malformed> {
        let mut opsets = BTreeMap::new();
        for import in imports {
            let domain = canonical(import.domain.as_deref());
            let version = import.version.unwrap_or(0);
            let place = || format!("opset {} = {version}", shown(domain));
            if let Some(known) = self.versions(domain).filter(|known| !known.contains(&version)) {
                return Err(Malformed::new(place(), format!("must be from {} to {}", known.start(), known.end())));
            }
            // Exporters write the same import twice; skl2onnx does.
            match opsets.insert(domain.to_owned(), version) {
                Some(other) if other != version => return Err(Malformed::new(place(), format!("is also imported as {other}"))),
                _ => {}
            }
        }
        Ok(opsets)
    }
}

/// A domain by its one name: the empty one is `ai.onnx`.
pub(super) fn canonical(domain: Option<&str>) -> &str {
    domain.filter(|domain| !domain.is_empty()).unwrap_or("ai.onnx")
}
