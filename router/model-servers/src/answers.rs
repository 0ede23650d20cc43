//! What servers answer, read from bytes. Pure; nothing is believed that is not needed.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::fault::quoted;
use crate::read_version;

/// So many tensors are named in an error.
const NAMED: usize = 8;

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let start = String::from_utf8_lossy(body.get(..256).unwrap_or(body));
        format!("an answer that cannot be read: {}: `{}`", quoted(&error.to_string()), quoted(&start))
    })
}

/// The text of an error of the protocol.
pub(crate) fn error_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    serde_json::from_slice::<Error>(body).ok().map(|said| quoted(&said.error))
}

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    /// As it calls itself.
    pub(crate) name: String,
    /// It says that it has the model repository extension.
    pub(crate) has_repository: bool,
}

/// `GET /v2`.
pub(crate) fn about(body: &[u8]) -> Result<About, String> {
    #[derive(Deserialize)]
    struct Server {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        extensions: Option<Vec<String>>,
    }
    let Server { name, extensions } = json(body)?;
    let has_repository = extensions.unwrap_or_default().iter().any(|extension| extension == "model_repository");
    Ok(About { name: quoted(&name.unwrap_or_default()), has_repository })
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: Option<Value>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl Entry {
    fn version(&self) -> String {
        match &self.version {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    fn is_ready(&self) -> bool {
        self.state.as_deref() == Some("READY")
    }
}

/// `POST /v2/repository/index`: the versions of a model that are ready. All of them have a number, or it is an error.
pub(crate) fn ready_versions(body: &[u8], model: &str) -> Result<BTreeSet<u64>, String> {
    let entries: Vec<Entry> = json(body)?;
    let ready = entries.iter().filter(|entry| entry.name == model && entry.is_ready());
    ready
        .map(|entry| {
            let version = entry.version();
            let unnumbered =
                || format!("the model `{model}` is served with the version `{}`, which is no number of 1 or more", quoted(&version));
            read_version(&version).ok_or_else(unnumbered)
        })
        .collect()
}

/// `POST /v2/repository/index`: state and reason of one version, where it has it.
pub(crate) fn state_of(body: &[u8], model: &str, version: u64) -> Result<Option<(String, String)>, String> {
    let entries: Vec<Entry> = json(body)?;
    let found = entries.into_iter().find(|entry| entry.name == model && entry.version() == version.to_string());
    Ok(found.map(|entry| (quoted(&entry.state.unwrap_or_default()), quoted(&entry.reason.unwrap_or_default()))))
}

/// `GET .../ready` with a 2xx: whether the body takes it back.
pub(crate) fn says_not_ready(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Ready {
        ready: bool,
    }
    serde_json::from_slice::<Ready>(body).is_ok_and(|said| !said.ready)
}

/// `GET /v2/models/M/config`, without its version policy; `None` when it is none.
pub(crate) fn configuration(body: &[u8]) -> Option<Map<String, Value>> {
    let mut config: Map<String, Value> = serde_json::from_slice(body).ok()?;
    config.remove("version_policy");
    (!config.is_empty()).then_some(config)
}

/// The input tensor that golden queries fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    /// `FP64`, or else `FP32`.
    pub(crate) is_double: bool,
}

/// Metadata of a model: its input. `wanted` is the name that is taken where there are several, or none are told.
pub(crate) fn input(body: &[u8], wanted: Option<&str>) -> Result<Input, String> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        inputs: Option<Vec<Tensor>>,
    }
    #[derive(Deserialize)]
    struct Tensor {
        name: String,
        #[serde(default)]
        datatype: String,
    }
    let metadata: Metadata = json(body)?;
    let inputs = metadata.inputs.unwrap_or_default();
    let chosen = match inputs.as_slice() {
        [] => return Ok(Input { name: wanted.unwrap_or("input").to_owned(), is_double: false }),
        [one] => one,
        several => several.iter().find(|tensor| Some(tensor.name.as_str()) == wanted).ok_or_else(|| {
            let names: Vec<String> = several.iter().take(NAMED).map(|tensor| format!("`{}`", quoted(&tensor.name))).collect();
            format!("the model takes {} tensors ({}); golden queries fill one: say which", several.len(), names.join(", "))
        })?,
    };
    match chosen.datatype.as_str() {
        "FP64" => Ok(Input { name: chosen.name.clone(), is_double: true }),
        "FP32" | "" => Ok(Input { name: chosen.name.clone(), is_double: false }),
        other => Err(format!("the model's input `{}` is {}; golden queries are FP32 or FP64", quoted(&chosen.name), quoted(other))),
    }
}

#[derive(Debug, Deserialize)]
struct Output {
    #[serde(default)]
    name: String,
    #[serde(default)]
    datatype: String,
    #[serde(default)]
    shape: Vec<i64>,
    #[serde(default)]
    data: Option<Data>,
}

impl Output {
    /// A score for each document: as many numbers as there are documents, `[n]` or `[n, 1]`.
    fn fits(&self, documents: usize) -> bool {
        let is_float = matches!(self.datatype.as_str(), "FP32" | "FP64");
        let times = |product: usize, size: &i64| usize::try_from(*size).ok().and_then(|size| product.checked_mul(size));
        let has_shape = self.shape.is_empty() || self.shape.iter().try_fold(1, times) == Some(documents);
        is_float && has_shape && self.data.as_ref().is_some_and(|data| data.is_numeric && data.values.len() == documents)
    }
}

/// `infer`: the scores of so many documents, from the first output that fits. A score that is `null` is no number.
pub(crate) fn scores(body: &[u8], documents: usize) -> Result<Vec<f64>, String> {
    #[derive(Deserialize)]
    struct Inferred {
        #[serde(default)]
        outputs: Vec<Output>,
    }
    let Inferred { mut outputs } = json(body)?;
    let Some(index) = outputs.iter().position(|output| output.fits(documents)) else {
        let shown = |output: &Output| {
            format!("`{}` {} {:?}", quoted(&output.name), quoted(&output.datatype), output.shape.get(..4).unwrap_or(&output.shape))
        };
        let named: Vec<String> = outputs.iter().take(NAMED).map(shown).collect();
        let named = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        return Err(format!("no output of FP32 or FP64 with {documents} scores; outputs: {named}"));
    };
    Ok(outputs.swap_remove(index).data.map(|data| data.values).unwrap_or_default())
}

/// Tensor data, in lists of lists or flat.
#[derive(Debug, Default)]
struct Data {
    values: Vec<f64>,
    is_numeric: bool,
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        let mut data = Data { values: Vec::new(), is_numeric: true };
        Onto(&mut data).deserialize(deserializer)?;
        Ok(data)
    }
}

/// Puts what it reads behind what is there. serde_json bounds the depth.
struct Onto<'a>(&'a mut Data);

impl<'de> DeserializeSeed<'de> for Onto<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Onto<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("lists of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Onto(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.is_numeric = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.values.push(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.values.push(value as f64);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.values.push(value as f64);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.values.push(f64::NAN);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.0.is_numeric = false;
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.0.is_numeric = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_who_they_are() {
        let triton = br#"{"name": "triton", "version": "2.50.0", "extensions": ["classification", "model_repository"]}"#;
        assert_eq!(about(triton), Ok(About { name: "triton".to_owned(), has_repository: true }));
        assert_eq!(about(br#"{"name": "mlserver", "extensions": null}"#), Ok(About { name: "mlserver".to_owned(), has_repository: false }));
        assert!(about(b"<html>").unwrap_err().contains("cannot be read: expected value at line 1 column 1: `<html>`"));
    }

    #[test]
    fn the_index_is_read() {
        let index = br#"[{"name": "m", "version": "2", "state": "READY"}, {"name": "m", "version": 10, "state": "READY", "reason": ""},
            {"name": "m", "version": "3", "state": "UNAVAILABLE", "reason": "too large"}, {"name": "other"}, {"name": "m2", "version": "x", "state": "READY"}]"#;
        assert_eq!(ready_versions(index, "m"), Ok([2, 10].into()));
        assert_eq!(ready_versions(index, "other"), Ok([].into()));
        assert!(ready_versions(index, "m2").unwrap_err().contains("the version `x`, which is no number"));
        assert_eq!(state_of(index, "m", 3), Ok(Some(("UNAVAILABLE".to_owned(), "too large".to_owned()))));
        assert_eq!(state_of(index, "m", 4), Ok(None));
    }

    #[test]
    fn the_input_is_found() {
        let input = |text: &str, wanted| super::input(text.as_bytes(), wanted);
        let named = |name: &str, is_double| Ok(Input { name: name.to_owned(), is_double });
        assert_eq!(input(r#"{"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}]}"#, Some("y")), named("x", true));
        assert_eq!(input(r#"{"inputs": null}"#, None), named("input", false));
        assert_eq!(input("{}", Some("y")), named("y", false));
        let two = r#"{"inputs": [{"name": "x", "datatype": "FP32"}, {"name": "y", "datatype": "FP32"}]}"#;
        assert_eq!(input(two, Some("y")), named("y", false));
        assert!(input(two, None).unwrap_err().contains("takes 2 tensors (`x`, `y`)"));
        assert!(input(r#"{"inputs": [{"name": "x", "datatype": "BYTES"}]}"#, None).unwrap_err().contains("is BYTES"));
    }

    #[test]
    fn scores_come_from_the_output_that_fits() {
        let scores = |outputs: &str, documents| super::scores(format!(r#"{{"outputs": [{outputs}]}}"#).as_bytes(), documents);
        let labels = r#"{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}"#;
        let pairs = r#"{"name": "pairs", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}"#;
        let column = r#"{"name": "s", "datatype": "FP64", "shape": [2, 1], "data": [[0.5], [-1]]}"#;
        assert_eq!(scores(&format!("{labels}, {pairs}, {column}"), 2), Ok(vec![0.5, -1.0]));
        assert_eq!(
            scores(&format!("{labels}, {pairs}"), 2).unwrap_err(),
            "no output of FP32 or FP64 with 2 scores; outputs: `label` BYTES [2], `pairs` FP32 [2, 2]"
        );
        assert!(scores("", 2).unwrap_err().contains("outputs: none"));
        assert!(scores(&column.replace("[[0.5], [-1]]", "[0.5, null]"), 2).unwrap()[1].is_nan());
        // The shape and the data say different things.
        assert!(scores(&column.replace("[2, 1]", "[3, 1]"), 2).is_err() && scores(&column.replace("[2, 1]", "[3, 1]"), 3).is_err());
        assert!(scores(&column.replace("[2, 1]", "[-2, -1]"), 2).is_err());
        assert!(scores(&column.replace("-1]]", "NaN]]"), 2).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn small_answers() {
        assert_eq!(error_of(br#"{"error": "a"}"#), Some("a".to_owned()));
        assert_eq!((error_of(b"{}"), error_of(b"x"), error_of(br#"{"error": {}}"#)), (None, None, None));
        assert!(says_not_ready(br#"{"ready": false}"#) && !says_not_ready(b"") && !says_not_ready(br#"{"ready": true}"#));
        assert_eq!(configuration(br#"{"version_policy": {}}"#), None);
        assert_eq!(configuration(br#"{"backend": "x", "version_policy": {}}"#).map(|config| config.len()), Some(1));
    }
}
