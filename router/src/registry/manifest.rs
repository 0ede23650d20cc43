//! What is known of a version: the one object that makes it one. Whoever reads it reads all of it, or nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::names::Name;
use super::sign::{Signature, SigningKey};
use crate::vocabulary::one_line;

/// What this program writes and reads.
pub(super) const FORM: u8 = 1;
/// The largest manifest, in bytes.
pub(super) const MANIFEST_BYTES: usize = 256 << 10;
/// The most tags, metrics, inputs or outputs.
const MOST: usize = 256;
/// The longest key of a tag or metric, and tensor's name, in characters.
const KEY_CHARS: usize = 128;
/// The longest value of a tag, in characters.
pub(super) const TEXT_CHARS: usize = 4_096;
/// Dimensions of a tensor.
const DIMENSIONS: usize = 8;

/// What an artefact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An ONNX model.
    Onnx,
    /// A Python pickle, joblib file or PyTorch archive. Never loaded here.
    Pickle,
    /// LightGBM's text format.
    LightGbm,
    /// XGBoost's JSON.
    XgBoost,
    /// Something that only its backend can read.
    Opaque,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 5] = [Format::Onnx, Format::Pickle, Format::LightGbm, Format::XgBoost, Format::Opaque];

    /// As manifests have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Format::Onnx => "onnx",
            Format::Pickle => "pickle",
            Format::LightGbm => "lightgbm",
            Format::XgBoost => "xgboost",
            Format::Opaque => "opaque",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let known = || Format::ALL.map(Format::label).join(", ");
        Format::ALL.into_iter().find(|format| format.label() == text).ok_or_else(|| format!("{text:?}: must be one of {}", known()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label())
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its elements' type, as numpy names it: `float32`, `int64`, `string`.
    #[serde(rename = "type")]
    pub element: String,
    /// Its dimensions; -1 for one that is free, as the number of documents is.
    pub shape: Vec<i64>,
}

impl fmt::Display for Tensor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(|size| if *size < 0 { "?".to_owned() } else { size.to_string() }).collect();
        write!(out, "{} {}[{}]", self.name, self.element, shape.join(", "))
    }
}

/// What its author says of a version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The version that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// What it was trained on: a digest, or where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_data: Option<String>,
    /// The revision of the code that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_revision: Option<String>,
    /// Numbers from training, like `ndcg@10`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Whatever else there is to say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Why there is this version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORM`].
    pub form: u8,
    /// Random, of the push that made it: a push whose answer was lost finds its own version by it.
    pub push: String,
    /// The model.
    pub model: Name,
    /// Its number, from 1 on.
    pub version: u64,
    /// What the artefact is.
    pub format: Format,
    /// The file's name where it came from.
    pub file: String,
    /// The artefact's SHA-256, 64 hex digits.
    pub sha256: String,
    /// The artefact's size.
    pub bytes: u64,
    /// What goes in; empty where nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Tensor>,
    /// What comes out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Tensor>,
    /// What its author says.
    #[serde(default)]
    pub about: About,
    /// Who pushed it.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub pushed_ms: u64,
}

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_line(.0))]
pub struct ManifestFault(pub String);

/// A manifest as the store has it: its exact bytes, which are what is signed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sealed {
    pub(super) manifest: Manifest,
    pub(super) signature: Option<Signature>,
    /// The manifest's own bytes.
    pub(super) signed: Vec<u8>,
}

/// The object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    manifest: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

impl Sealed {
    /// Reads and checks one.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub(super) fn read(text: &[u8]) -> Result<Sealed, ManifestFault> {
        if text.len() > MANIFEST_BYTES {
            return Err(ManifestFault(format!("{} bytes; {MANIFEST_BYTES} at most are allowed", text.len())));
        }
        let fault = |error: serde_json::Error| ManifestFault(error.to_string());
        let Written { manifest, signature } = serde_json::from_slice(text).map_err(fault)?;
        let signed = manifest.get().as_bytes().to_vec();
        let manifest: Manifest = serde_json::from_slice(&signed).map_err(fault)?;
        manifest.check()?;
        Ok(Sealed { manifest, signature, signed })
    }
}

impl Manifest {
    /// As the store has it, signed if there is a key.
    pub(super) fn render(&self, key: Option<&SigningKey>) -> Vec<u8> {
        let text = serde_json::to_string(self).unwrap_or_default();
        let signature = key.map(|key| key.sign(text.as_bytes()));
        let written = RawValue::from_string(text).map(|manifest| Written { manifest, signature });
        written.and_then(|written| serde_json::to_vec(&written)).unwrap_or_default()
    }

    /// What types do not say.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn check(&self) -> Result<(), ManifestFault> {
        let refuse = |what: &str, is: &str, allowed: &str| Err(ManifestFault(format!("{what} = {is}: must be {allowed}")));
        if self.form != FORM {
            return refuse("form", &self.form.to_string(), "1: another one was written by a newer Switchback");
        }
        if self.version == 0 {
            return refuse("version", "0", "1 or more");
        }
        if !is_digest(&self.sha256) {
            return refuse("sha256", &cut(&self.sha256), "64 hex digits, in lower case");
        }
        let sizes = [
            ("inputs", self.inputs.len()),
            ("outputs", self.outputs.len()),
            ("metrics", self.about.metrics.len()),
            ("tags", self.about.tags.len()),
        ];
        if let Some((what, size)) = sizes.into_iter().find(|(_, size)| *size > MOST) {
            return refuse(what, &size.to_string(), "256 at most");
        }
        let tensors = || self.inputs.iter().chain(&self.outputs);
        if let Some(tensor) = tensors().find(|tensor| tensor.shape.len() > DIMENSIONS || tensor.shape.iter().any(|size| *size < -1)) {
            return refuse("a shape", &cut(&tensor.to_string()), "8 dimensions at most, each of them -1 or more");
        }
        let keys =
            self.about.metrics.keys().chain(self.about.tags.keys()).chain(tensors().flat_map(|tensor| [&tensor.name, &tensor.element]));
        if let Some(key) = keys.into_iter().find(|key| key.chars().count() > KEY_CHARS || key.contains(char::is_control)) {
            return refuse("a key", &cut(key), "128 characters at most, none of them a control character");
        }
        let About { training_data, code_revision, why, tags, .. } = &self.about;
        let texts = tags.values().chain(training_data).chain(code_revision).chain([why, &self.who, &self.file, &self.push]);
        if let Some(text) = texts.into_iter().find(|text| text.chars().count() > TEXT_CHARS) {
            return refuse("a text", &cut(text), "4096 characters at most");
        }
        match self.about.metrics.iter().find(|(_, value)| !value.is_finite()) {
            Some((key, value)) => refuse(&format!("the metric {key}"), &value.to_string(), "a finite number"),
            None => Ok(()),
        }
    }
}

/// Whether a text is a SHA-256 in hex.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn cut(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        let tensor = |name: &str| Tensor { name: name.to_owned(), element: "float32".to_owned(), shape: vec![-1, 300] };
        Manifest {
            form: FORM,
            push: "ab".repeat(16),
            model: "search".parse().unwrap(),
            version: 7,
            format: Format::Onnx,
            file: "ranker.onnx".to_owned(),
            sha256: "0123456789abcdef".repeat(4),
            bytes: 42,
            inputs: vec![tensor("features")],
            outputs: vec![tensor("scores")],
            about: About { parent: Some(6), metrics: BTreeMap::from([("ndcg@10".to_owned(), 0.743)]), ..About::default() },
            who: "alice".to_owned(),
            pushed_ms: 1,
        }
    }

    #[test]
    fn it_reads_back() {
        let read = Sealed::read(&manifest().render(None)).unwrap();
        assert_eq!((read.manifest, read.signature), (manifest(), None));
        assert_eq!(manifest().inputs[0].to_string(), "features float32[?, 300]");
    }

    #[test]
    fn each_mistake_is_named() {
        let wrong = |change: fn(&mut Manifest), says: &str| {
            let mut manifest = manifest();
            change(&mut manifest);
            let fault = Sealed::read(&manifest.render(None)).unwrap_err().to_string();
            assert!(fault.contains(says), "{fault}");
        };
        wrong(|manifest| manifest.form = 2, "form = 2: must be 1");
        wrong(|manifest| manifest.version = 0, "version = 0: must be 1 or more");
        wrong(|manifest| manifest.sha256.push('0'), "must be 64 hex digits");
        wrong(|manifest| manifest.inputs[0].shape[0] = -2, "each of them -1 or more");
        wrong(|manifest| manifest.inputs = vec![manifest.inputs[0].clone(); 257], "inputs = 257: must be 256 at most");
        wrong(|manifest| manifest.about.why = "x".repeat(4_097), "4096 characters at most");
        wrong(|manifest| manifest.about.tags = BTreeMap::from([("a\nb".to_owned(), String::new())]), "control character");
        let fault = Sealed::read(br#"{"manifest": {}, "a\nsearch:7: as it was pushed": 1}"#).unwrap_err().to_string();
        assert!(fault.contains(r"`a\nsearch:7: as it was pushed`") && !fault.contains('\n'), "{fault}");
        assert!(Sealed::read(b"{}").unwrap_err().to_string().contains("missing field"));
        assert!(Sealed::read(&vec![b' '; MANIFEST_BYTES + 1]).unwrap_err().to_string().contains("at most are allowed"));
    }
}
