//! The file `MLmodel` of a model: which flavours it has, and so which of its files is the model itself. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::registry::Format;

/// The largest `MLmodel`, in bytes: with a signature and input examples it is some KiB.
pub(super) const MLMODEL_BYTES: usize = 1 << 20;
/// The longest path of a file in a model, in bytes.
const PATH_BYTES: usize = 1_024;

/// By which key of which flavour the model's own file is found; of those that a model has, the first counts.
const FLAVOURS: [(&str, &[&str]); 7] = [
    ("onnx", &["data"]),
    ("lightgbm", &["data"]),
    ("xgboost", &["data"]),
    ("sklearn", &["pickled_model"]),
    ("catboost", &["data"]),
    ("pytorch", &["model_data"]),
    ("python_function", &["python_model", "model_path", "data"]),
];

/// What an `MLmodel` says.
#[derive(Debug, Clone, PartialEq)]
pub struct MlModel {
    flavours: BTreeMap<String, Value>,
}

/// The file that is the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// Its path below the model's folder, with slashes.
    pub path: String,
    /// What it is; `None` where only its bytes can tell.
    pub format: Option<Format>,
    /// The flavour that names it.
    pub flavour: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    flavors: Map<String, Value>,
}

impl MlModel {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(text: &[u8]) -> Result<MlModel, String> {
        if text.len() > MLMODEL_BYTES {
            return Err(format!("{} bytes; {MLMODEL_BYTES} at most are allowed", text.len()));
        }
        let text = std::str::from_utf8(text).map_err(|_| "it is no text in UTF-8".to_owned())?;
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 20_000, max_aliases: 64, max_anchors: 64, max_documents: 1 },
        };
        let written: Written = serde_saphyr::from_str_with_options(text, options).map_err(|error| one_line(&error.to_string()))?;
        if written.flavors.is_empty() {
            return Err("it names no flavors".to_owned());
        }
        Ok(MlModel { flavours: written.flavors.into_iter().collect() })
    }

    /// Finds the model's own file.
    ///
    /// # Errors
    /// There is none that can be told, or its path leads elsewhere.
    pub fn artefact(&self) -> Result<Artefact, String> {
        for (flavour, keys) in FLAVOURS {
            let Some(said) = self.flavours.get(flavour) else { continue };
            let Some(path) = keys.iter().find_map(|key| said.get(key)).and_then(Value::as_str) else { continue };
            // PyTorch's is a folder with this in it.
            let path = if flavour == "pytorch" { format!("{path}/model.pth") } else { path.to_owned() };
            if !is_inside(&path) {
                return Err(format!("its flavour {flavour} names the file {:?}: must be a path inside the model", cut(&path)));
            }
            return Ok(Artefact { format: Some(format_of(flavour, &path)), path, flavour: flavour.to_owned() });
        }
        let names = self.flavours.keys().take(10).map(|name| cut(name)).collect::<Vec<_>>().join(", ");
        let known = FLAVOURS.map(|(flavour, _)| flavour).join(", ");
        Err(format!("which of its files is the model cannot be told: its flavours are {names}, and known are {known}"))
    }
}

/// Whether a path stays in its folder, whoever reads it.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    let is_plain = !path.contains(['\\', ':', '%', '?', '#']) && !path.contains(char::is_control);
    (1..=PATH_BYTES).contains(&path.len()) && is_plain && path.split('/').all(is_part)
}

fn format_of(flavour: &str, path: &str) -> Format {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    match (flavour, extension.as_str()) {
        (_, "onnx") | ("onnx", _) => Format::Onnx,
        (_, "pkl" | "pickle" | "joblib" | "pth" | "pt") => Format::Pickle,
        // An archive of its own, which nothing here looks into.
        (_, "skops") => Format::Opaque,
        ("lightgbm", _) => Format::LightGbm,
        ("xgboost", _) => Format::XgBoost,
        ("sklearn", _) => Format::Pickle,
        _ => Format::Opaque,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As MLflow 3.17 writes them.
    pub(crate) const ONNX: &str = "artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.16.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
    python_version: 3.11.7
mlflow_version: 3.17.2
model_size_bytes: 5601
run_id: 29dac4850c414210ae86a116220f9fa2
signature:
  inputs: '[{\"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"float32\", \"shape\": [-1,
    40]}}]'
  outputs: null
utc_time_created: '2026-11-29 14:49:06.309704'
";
    pub(crate) const SKLEARN: &str = "flavors:\n  python_function:\n    model_path: model.skops\n  sklearn:\n    pickled_model: model.skops\n    skops_trusted_types: null\n";

    fn artefact(text: &str) -> Result<(String, Format), String> {
        MlModel::read(text.as_bytes()).and_then(|model| model.artefact()).map(|artefact| (artefact.path, artefact.format.unwrap()))
    }

    #[test]
    fn the_file_of_each_flavour_is_found() {
        assert_eq!(artefact(ONNX), Ok(("model.onnx".to_owned(), Format::Onnx)));
        assert_eq!(artefact(SKLEARN), Ok(("model.skops".to_owned(), Format::Opaque)));
        for (flavour, key, path, expected, format) in [
            ("lightgbm", "data", "model.lgb", "model.lgb", Format::LightGbm),
            ("lightgbm", "data", "model.pkl", "model.pkl", Format::Pickle),
            ("xgboost", "data", "model.json", "model.json", Format::XgBoost),
            ("xgboost", "data", "model.ubj", "model.ubj", Format::XgBoost),
            ("sklearn", "pickled_model", "model.pkl", "model.pkl", Format::Pickle),
            ("pytorch", "model_data", "data", "data/model.pth", Format::Pickle),
            ("catboost", "data", "model.cb", "model.cb", Format::Opaque),
            ("python_function", "python_model", "python_model.pkl", "python_model.pkl", Format::Pickle),
        ] {
            let text = format!("flavors:\n  {flavour}:\n    {key}: {path}\n");
            assert_eq!(artefact(&text), Ok((expected.to_owned(), format)), "{text}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", "C:x", "\"%2e%2e/x\"", "a?b", "\"a\\nb\"", "\"\"", "."] {
            let text = format!("flavors:\n  onnx:\n    data: {path}\n");
            assert!(artefact(&text).is_err_and(|error| error.contains("must be a path inside the model")), "{path}");
        }
    }

    #[test]
    fn what_is_no_mlmodel_says_why() {
        for (text, says) in [
            ("", "it names no flavors"),
            ("flavors: {}", "it names no flavors"),
            ("flavors: 7", "expected mapping"),
            ("flavors:\n  spark:\n    data: x\n", "its flavours are spark, and known are onnx, lightgbm"),
            ("flavors:\n  onnx:\n    data: [1]\n", "its flavours are onnx"),
            ("flavors: [", ""),
            ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n<html>", ""),
        ] {
            let said = artefact(text).unwrap_err();
            assert!(said.contains(says) && !said.contains('\n'), "{text}: {said}");
        }
        assert!(MlModel::read(&[0xff, 0xfe, 0xfd]).is_err() && MlModel::read(&vec![b'#'; MLMODEL_BYTES + 1]).is_err());
        let deep = format!("flavors: {}1{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(MlModel::read(deep.as_bytes()).is_err());
    }
}
