//! Servers as Triton and `MLServer` behave. Their models say `version * first feature + second feature`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::http::{Answers, Reply, Request, no, ok};

/// Serves what a load names, and drops what it does not name; a load answers before its versions are ready.
pub(crate) struct Triton {
    pub(crate) name: &'static str,
    on_disk: BTreeSet<u64>,
    state: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    served: BTreeSet<u64>,
    /// Ready after so many more questions.
    coming: BTreeMap<u64, u32>,
    configs: Vec<Value>,
}

impl Triton {
    pub(crate) fn new(on_disk: &[u64], served: &[u64]) -> Triton {
        let state = Loaded { served: served.iter().copied().collect(), ..Loaded::default() };
        Triton { name: "triton", on_disk: on_disk.iter().copied().collect(), state: Mutex::new(state) }
    }

    /// What it serves, and what it will.
    pub(crate) fn served(&self) -> BTreeSet<u64> {
        let state = self.state.lock().unwrap();
        state.served.iter().chain(state.coming.keys()).copied().collect()
    }

    /// The configurations of all loads.
    pub(crate) fn configs(&self) -> Vec<Value> {
        self.state.lock().unwrap().configs.clone()
    }

    fn load(&self, body: &str) -> Reply {
        let body: Value = serde_json::from_str(body).unwrap();
        let config: Value = serde_json::from_str(body["parameters"]["config"].as_str().unwrap()).unwrap();
        let versions = config["version_policy"]["specific"]["versions"].as_array().unwrap().iter().map(|version| version.as_u64().unwrap());
        let versions: BTreeSet<u64> = versions.collect();
        let mut state = self.state.lock().unwrap();
        state.configs.push(config);
        if !versions.is_subset(&self.on_disk) {
            return no(400, "failed to load 'm', failed to poll from model repository");
        }
        let fresh: BTreeSet<u64> = versions.difference(&state.served).copied().collect();
        state.served.retain(|version| versions.contains(version));
        state.coming = fresh.into_iter().map(|version| (version, 3)).collect();
        ok("")
    }

    fn tick(&self) {
        let mut state = self.state.lock().unwrap();
        let ready: Vec<u64> = state
            .coming
            .iter_mut()
            .filter_map(|(version, left)| {
                *left = left.saturating_sub(1);
                (*left == 0).then_some(*version)
            })
            .collect();
        for version in ready {
            state.coming.remove(&version);
            state.served.insert(version);
        }
    }
}

impl Answers for Triton {
    fn answer(&self, request: &Request) -> Reply {
        let is_served = |version: u64| self.state.lock().unwrap().served.contains(&version);
        match request.line.split('/').collect::<Vec<_>>().as_slice() {
            ["GET ", "v2"] => ok(json!({ "name": self.name, "version": "2.50.0", "extensions": ["model_repository"] })),
            ["POST ", "v2", "repository", "index"] => {
                self.tick();
                let state = self.state.lock().unwrap();
                let entry = |version: &u64| {
                    let is_ready = state.served.contains(version);
                    json!({ "name": "m", "version": version.to_string(), "state": if is_ready { "READY" } else { "UNAVAILABLE" }, "reason": if is_ready { "" } else { "unloaded" } })
                };
                let mut index: Vec<Value> = self.on_disk.iter().map(entry).collect();
                index.push(json!({ "name": "another" }));
                ok(Value::from(index))
            }
            ["POST ", "v2", "repository", "models", "m", "load"] => self.load(&request.body),
            ["POST ", "v2", "repository", "models", "m", "unload"] => {
                *self.state.lock().unwrap() = Loaded::default();
                ok("")
            }
            ["GET ", "v2", "models", "m", "config"] => {
                ok(json!({ "name": "m", "backend": "onnxruntime", "version_policy": { "latest": { "num_versions": 1 } } }))
            }
            ["GET ", "v2", "models", "m", "versions", version, "ready"] => {
                self.tick();
                if is_served(version.parse().unwrap()) { ok("") } else { no(400, "not ready") }
            }
            [_, "v2", "models", "m", "versions", version, ..] if !is_served(version.parse().unwrap()) => {
                no(404, "Request for unknown model")
            }
            ["GET ", "v2", "models", "m", "versions", _] => {
                ok(json!({ "name": "m", "inputs": [{ "name": "features", "datatype": "FP32", "shape": [-1, 2] }], "outputs": [] }))
            }
            ["POST ", "v2", "models", "m", "versions", version, "infer"] => scores(version.parse().unwrap(), &request.body, "features"),
            _ => no(404, "nothing there"),
        }
    }
}

fn scores(version: u64, body: &str, input: &str) -> Reply {
    let body: Value = serde_json::from_str(body).unwrap();
    let tensor = &body["inputs"][0];
    assert_eq!((tensor["name"].as_str(), tensor["datatype"].as_str()), (Some(input), Some("FP32")));
    let data: Vec<f64> = tensor["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let scores: Vec<f64> = data.chunks(2).map(|row| version as f64 * row[0] + row[1]).collect();
    let labels = json!({ "name": "label", "datatype": "INT64", "shape": [scores.len()], "data": vec![1; scores.len()] });
    ok(
        json!({ "model_name": "m", "outputs": [labels, { "name": "scores", "datatype": "FP64", "shape": [scores.len(), 1], "data": scores }] }),
    )
}

/// Knows a model by its name, and serves every version that its folder holds when it is loaded.
pub(crate) struct MlServer {
    folder: PathBuf,
    served: Mutex<BTreeSet<u64>>,
    /// As it is called; one that is not called `mlserver` has to be found out.
    pub(crate) name: &'static str,
}

impl MlServer {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> MlServer {
        let fake = MlServer { folder: folder.into(), served: Mutex::default(), name: "mlserver" };
        *fake.served.lock().unwrap() = fake.found();
        fake
    }

    pub(crate) fn served(&self) -> BTreeSet<u64> {
        self.served.lock().unwrap().clone()
    }

    /// Every folder with a settings file, but hidden ones.
    fn found(&self) -> BTreeSet<u64> {
        let entries = std::fs::read_dir(self.folder.join("m")).into_iter().flatten().flatten();
        let shown = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        let settings = shown.filter_map(|entry| std::fs::read(entry.path().join("model-settings.json")).ok());
        settings
            .map(|text| {
                let settings: Value = serde_json::from_slice(&text).unwrap();
                settings["parameters"]["version"].as_str().unwrap().parse().unwrap()
            })
            .collect()
    }
}

impl Answers for MlServer {
    fn answer(&self, request: &Request) -> Reply {
        let mut served = self.served.lock().unwrap();
        let is_served = |version: &str, served: &BTreeSet<u64>| version.parse().is_ok_and(|version: u64| served.contains(&version));
        match request.line.split('/').collect::<Vec<_>>().as_slice() {
            ["GET ", "v2"] => ok(json!({ "name": self.name, "version": "1.6.1", "extensions": [] })),
            ["POST ", "v2", "repository", "index"] => ok(Value::from_iter(
                served.iter().map(|version| json!({ "name": "m", "version": version.to_string(), "state": "READY", "reason": "" })),
            )),
            ["POST ", "v2", "repository", "models", "m", "load"] => {
                if request.body.contains("parameters") {
                    return no(400, "unexpected field: parameters");
                }
                let found = self.found();
                if found.is_empty() {
                    return no(404, "Model m not found");
                }
                served.extend(found);
                ok("{}")
            }
            ["POST ", "v2", "repository", "models", "m", "unload"] if served.is_empty() => no(404, "Model m not found"),
            ["POST ", "v2", "repository", "models", "m", "unload"] => {
                served.clear();
                ok("{}")
            }
            ["GET ", "v2", "models", "m", "versions", version, "ready"] => {
                if is_served(version, &served) {
                    ok("{}")
                } else {
                    no(404, "Model m not found")
                }
            }
            ["GET ", "v2", "models", "m", "versions", version] if is_served(version, &served) => ok(json!({ "name": "m", "inputs": [] })),
            ["POST ", "v2", "models", "m", "versions", version, "infer"] if is_served(version, &served) => {
                scores(version.parse().unwrap(), &request.body, "input")
            }
            _ => no(404, "nothing there"),
        }
    }
}
