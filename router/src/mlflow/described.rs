//! What MLflow knows of a version, as a manifest of the registry says it. Pure.

use super::answers::{DatasetInput, ModelVersion, Run, value};
use crate::registry::About;
use crate::vocabulary::{is_obeyed, not_one_line};

/// The most tags, and metrics: some of the 256 that a manifest has are left to whoever pushes.
const MOST: usize = 200;
/// The longest key, in characters.
const KEY_CHARS: usize = 128;
/// Longer texts are cut, to so many characters.
const TEXT_CHARS: usize = 2_000;
/// Of all keys and values together, in bytes.
const ALL_BYTES: usize = 128 << 10;
/// Datasets that are named.
const DATASETS: usize = 16;

/// What is said of it, and the names of what was left out: for its size or its name, or because it is no number.
pub(super) fn described(version: &ModelVersion, run: Option<&Run>, server: &str) -> (About, Vec<String>) {
    let mut kept = Kept::default();
    let empty = Run::default();
    let Run { info, data, inputs } = run.unwrap_or(&empty);
    let user = value(&data.tags, "mlflow.user").or(Some(info.user_id.as_str())).filter(|user| !user.is_empty());
    for (key, text) in [
        ("mlflow.server", Some(server)),
        ("mlflow.model", Some(version.name.as_str())),
        ("mlflow.version", Some(version.version.as_str())),
        ("mlflow.run_id", Some(version.run_id.as_str())),
        ("mlflow.run_name", Some(info.run_name.as_str())),
        ("mlflow.user", user.or(Some(version.user_id.as_str()))),
        ("mlflow.source", value(&data.tags, "mlflow.source.name")),
    ] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            kept.tag(key, text);
        }
    }
    for metric in &data.metrics {
        kept.metric(&metric.key, metric.value.as_f64());
    }
    // What somebody says of the version goes over what the run says.
    for pair in version.tags.iter().chain(&data.tags).filter(|pair| !pair.key.starts_with("mlflow.")) {
        kept.tag(&pair.key, &pair.value);
    }
    for pair in &data.params {
        kept.tag(&format!("param.{}", pair.key), &pair.value);
    }
    let about = About {
        parent: None,
        training_data: training_data(&inputs.dataset_inputs),
        code_revision: value(&data.tags, "mlflow.source.git.commit").map(cut),
        why: cut(version.description.trim()),
        ..kept.about
    };
    (about, kept.left_out)
}

#[derive(Default)]
struct Kept {
    about: About,
    bytes: usize,
    left_out: Vec<String>,
}

impl Kept {
    fn tag(&mut self, key: &str, text: &str) {
        if self.about.tags.contains_key(key) {
            return;
        }
        let text = cut(text);
        if self.has_room(key, text.len(), self.about.tags.len()) {
            self.about.tags.insert(key.to_owned(), text);
        }
    }

    /// One that is no number, as that of a run which diverged, says nothing.
    fn metric(&mut self, key: &str, number: Option<f64>) {
        let Some(number) = number.filter(|number| number.is_finite()) else {
            self.left_out.push(key.to_owned());
            return;
        };
        if self.has_room(key, 8, self.about.metrics.len()) {
            self.about.metrics.insert(key.to_owned(), number);
        }
    }

    fn has_room(&mut self, key: &str, bytes: usize, count: usize) -> bool {
        let bytes = self.bytes + key.len() + bytes;
        let is_key = !key.is_empty() && key.chars().count() <= KEY_CHARS && not_one_line(key).is_none();
        let has_room = is_key && count < MOST && bytes <= ALL_BYTES;
        if has_room {
            self.bytes = bytes;
        } else {
            self.left_out.push(key.to_owned());
        }
        has_room
    }
}

/// The datasets of the training, by name and digest; all that the run names, where it does not say for what.
fn training_data(inputs: &[DatasetInput]) -> Option<String> {
    let context = |input: &&DatasetInput| value(&input.tags, "mlflow.data.context").map(str::to_owned);
    let of_training: Vec<&DatasetInput> =
        inputs.iter().filter(|input| context(input).is_some_and(|context| context.starts_with("train"))).collect();
    let chosen: Vec<&DatasetInput> =
        if of_training.is_empty() { inputs.iter().filter(|input| context(input).is_none()).collect() } else { of_training };
    let names: Vec<String> =
        chosen.iter().take(DATASETS).map(|input| cut(&format!("{}@{}", input.dataset.name, input.dataset.digest))).collect();
    (!names.is_empty()).then(|| cut(&names.join(", ")))
}

/// A text on one line, and not too long: whoever writes tags there makes no lines of his own here.
fn cut(text: &str) -> String {
    text.chars().map(|letter| if is_obeyed(letter) { ' ' } else { letter }).take(TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version() -> ModelVersion {
        let version = json!({
            "name": "search", "version": "3", "run_id": "29da", "description": " tonight's \n", "status": "READY",
            "tags": [{ "key": "night", "value": "2026-08-01" }],
        });
        serde_json::from_value(version).unwrap()
    }

    fn run(data: serde_json::Value, inputs: serde_json::Value) -> Run {
        serde_json::from_value(json!({ "info": { "user_id": "root", "run_name": "ox" }, "data": data, "inputs": inputs })).unwrap()
    }

    #[test]
    fn a_manifest_says_what_the_run_says() {
        let data = json!({
            "metrics": [{ "key": "ndcg_10", "value": 0.743 }, { "key": "loss", "value": "NaN" }],
            "params": [{ "key": "trees", "value": "130" }],
            "tags": [
                { "key": "mlflow.user", "value": "ann" }, { "key": "night", "value": "another" }, { "key": "team", "value": "rank" },
                { "key": "mlflow.source.git.commit", "value": "9b2e1c4" }, { "key": "mlflow.log-model.history", "value": "x" },
            ],
        });
        let inputs = json!({ "dataset_inputs": [
            { "tags": [{ "key": "mlflow.data.context", "value": "training" }], "dataset": { "name": "clicks", "digest": "2b67" } },
            { "tags": [{ "key": "mlflow.data.context", "value": "eval" }], "dataset": { "name": "judged", "digest": "77aa" } },
        ] });
        let (about, left_out) = described(&version(), Some(&run(data, inputs)), "http://mlflow:5000");
        assert_eq!((about.code_revision.as_deref(), about.training_data.as_deref()), (Some("9b2e1c4"), Some("clicks@2b67")));
        assert_eq!((about.why.as_str(), about.metrics.get("ndcg_10"), about.metrics.len()), ("tonight's", Some(&0.743), 1));
        assert_eq!(left_out, ["loss"]);
        let tags: Vec<(&str, &str)> = about.tags.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        let expected = [
            ("mlflow.model", "search"),
            ("mlflow.run_id", "29da"),
            ("mlflow.run_name", "ox"),
            ("mlflow.server", "http://mlflow:5000"),
            ("mlflow.user", "ann"),
            ("mlflow.version", "3"),
            ("night", "2026-08-01"),
            ("param.trees", "130"),
            ("team", "rank"),
        ];
        assert_eq!(tags, expected);
        let (about, _) = described(&version(), None, "http://mlflow:5000");
        assert_eq!((about.training_data, about.code_revision, about.tags.len()), (None, None, 5));
    }

    #[test]
    fn what_a_manifest_cannot_hold_is_left_out_and_counted() {
        let many: Vec<_> = (0..5_000).map(|index| json!({ "key": format!("p{index}"), "value": "x".repeat(6_000) })).collect();
        let odd = [json!({ "key": "a\nb", "value": "1" }), json!({ "key": "k".repeat(129), "value": "1" })];
        let data = json!({ "params": many, "tags": odd, "metrics": (0..300).map(|index| json!({ "key": format!("m{index}"), "value": 1 })).collect::<Vec<_>>() });
        let (about, left_out) = described(&version(), Some(&run(data, json!({}))), "http://mlflow:5000");
        let bytes: usize = about.tags.iter().map(|(key, text)| key.len() + text.len()).sum();
        assert!(bytes <= ALL_BYTES && about.tags.len() <= MOST && about.metrics.len() == MOST, "{bytes}");
        // Seven tags say where it comes from.
        assert_eq!(about.tags.len() + about.metrics.len() + left_out.len() - 7, 5_000 + 2 + 300);
        assert!(left_out.iter().any(|name| name == "a\nb") && left_out.iter().any(|name| name == "m299"));
    }

    #[test]
    fn whatever_is_said_is_one_line() {
        let forged = "ok\n  signed with  77f6\u{2028}\u{202e}x\r\n";
        let data = json!({
            "tags": [{ "key": "zz", "value": forged }, { "key": "a\u{202e}b", "value": "1" }, { "key": "mlflow.source.git.commit", "value": forged }],
            "params": [{ "key": "trees", "value": forged }],
        });
        let inputs = json!({ "dataset_inputs": [{ "tags": [], "dataset": { "name": forged, "digest": "2b67" } }] });
        let version = ModelVersion { description: format!("{forged}and more"), ..version() };
        let (about, left_out) = described(&version, Some(&run(data, inputs)), "http://mlflow:5000");
        let texts = about.tags.values().chain(&about.training_data).chain(&about.code_revision).chain([&about.why]);
        assert!(texts.clone().count() == 12 && texts.clone().all(|text| not_one_line(text).is_none()), "{about:?}");
        assert_eq!(about.tags.get("zz").map(String::as_str), Some("ok   signed with  77f6  x  "));
        assert_eq!(
            (about.why.as_str(), left_out.as_slice()),
            ("ok   signed with  77f6  x  and more", ["a\u{202e}b".to_owned()].as_slice())
        );
    }
}
