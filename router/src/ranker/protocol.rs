//! Paths and what answers them: `POST /rank`, and the Open Inference Protocol v2 with its model repository extension.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::Ranker;
use super::catalog::Catalog;
use super::infer::infer;
use super::loading::blocking;
use super::rank::rank;
use super::refusal::{Refusal, read_json};
use super::repository::{Repository, VersionPolicy};
use crate::onnx::Model;
use crate::vocabulary::read_version;

/// Which version scored: on the answers of `/rank` and `infer`.
const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");

const PATHS: &str = "POST /rank; GET /v2, /v2/health/live, /v2/health/ready, /v2/models/MODEL[/versions/N][/ready]; \
                     POST /v2/models/MODEL[/versions/N]/infer, /v2/repository/index, /v2/repository/models/MODEL/load, .../unload";

/// A request whose body has been read.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

/// How a scoring call is made: [`rank`] or [`infer`].
type Scoring = fn(&Model, &[u8], usize) -> Result<Vec<u8>, Refusal>;

impl Ranker {
    /// Answers one request; a refusal becomes `{"error": "..."}`.
    pub(super) async fn answer(self: &Arc<Self>, request: Request<'_>) -> Response<Full<Bytes>> {
        self.dispatch(request).await.unwrap_or_else(|refusal| refuse(&refusal))
    }

    async fn dispatch(self: &Arc<Self>, request: Request<'_>) -> Result<Response<Full<Bytes>>, Refusal> {
        let path = request.path.strip_suffix('/').unwrap_or(request.path);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["rank"] => self.score(post(request)?, self.newest()?, rank).await,
            ["v2"] => get(&request).map(|()| server_metadata()),
            ["v2", "health", "live"] => get(&request).map(|()| json_answer(&json!({ "live": true }))),
            ["v2", "health", "ready"] => get(&request).and_then(|()| self.ready()),
            ["v2", "models", name, rest @ ..] => self.model(request, name, rest).await,
            ["v2", "repository", "index"] => self.index(&post(request)?).await,
            ["v2", "repository", "models", name, "load"] => {
                let policy = VersionPolicy::read(name, &post(request)?.body)?;
                let (ranker, name) = (Arc::clone(self), (*name).to_owned());
                to_its_end(async move { ranker.load(&name, &policy).await }).await
            }
            ["v2", "repository", "models", name, "unload"] => {
                post(request)?;
                let (ranker, name) = (Arc::clone(self), (*name).to_owned());
                to_its_end(async move { ranker.unload(&name).await }).await
            }
            _ => Err(Refusal::not_found(format!("there is nothing at {}; there is {PATHS}", shown(request.path)))),
        }
    }

    async fn model(&self, request: Request<'_>, name: &str, rest: &[&str]) -> Result<Response<Full<Bytes>>, Refusal> {
        let catalog = self.catalog.load_full();
        match rest {
            [] => get(&request).and_then(|()| find(&catalog, name, None)).map(|model| metadata(&catalog, &model)),
            ["ready"] => get(&request).and_then(|()| find(&catalog, name, None)).map(|model| model_ready(&model)),
            ["infer"] => self.score(post(request)?, find(&catalog, name, None)?, infer).await,
            ["versions", version] => {
                get(&request).and_then(|()| find(&catalog, name, Some(version))).map(|model| metadata(&catalog, &model))
            }
            ["versions", version, "ready"] => {
                get(&request).and_then(|()| find(&catalog, name, Some(version))).map(|model| model_ready(&model))
            }
            ["versions", version, "infer"] => self.score(post(request)?, find(&catalog, name, Some(version))?, infer).await,
            _ => Err(Refusal::not_found(format!("there is nothing at {}; there is {PATHS}", shown(request.path)))),
        }
    }

    /// What `POST /rank` uses.
    fn newest(&self) -> Result<Arc<Model>, Refusal> {
        let newest = self.catalog.load().newest(&self.name).cloned();
        newest.ok_or_else(|| Refusal::unavailable(format!("no version of the model `{}` is loaded", self.name)))
    }

    /// Scores on a blocking thread, at most so many at the same time.
    async fn score(&self, request: Request<'_>, model: Arc<Model>, scoring: Scoring) -> Result<Response<Full<Bytes>>, Refusal> {
        check_encoding(request.headers)?;
        let permit = Arc::clone(&self.scorers).acquire_owned().await.map_err(|error| Refusal::fault(error.to_string()))?;
        let (body, documents_at_most, version) = (request.body, self.limits.documents, model.version);
        let scored = blocking(move || {
            let _permit = permit;
            scoring(&model, &body, documents_at_most)
        });
        let answer = scored.await.map_err(Refusal::fault)??;
        let mut response = bytes_answer(answer);
        response.headers_mut().insert(MODEL_VERSION, HeaderValue::from(version));
        Ok(response)
    }

    /// Ready, also for the first load: no end was announced. As in Triton, whether a model is ready is asked of the model.
    fn ready(&self) -> Result<Response<Full<Bytes>>, Refusal> {
        if self.drain.is_announced() {
            return Err(Refusal::unavailable("the ranker is about to end"));
        }
        Ok(json_answer(&json!({ "ready": true })))
    }

    /// Every version there is, served or not; `{"ready": true}` asks for the served ones only. Of the registry's models those that are
    /// served are looked for, and the one that `/rank` uses: it may have any number of others.
    async fn index(&self, request: &Request<'_>) -> Result<Response<Full<Bytes>>, Refusal> {
        #[derive(serde::Deserialize, Default)]
        struct Wanted {
            #[serde(default)]
            ready: bool,
        }
        let wanted: Wanted = if request.body.is_empty() { Wanted::default() } else { read_json(&request.body)? };
        let catalog = self.catalog.load_full();
        let mut entries = BTreeSet::new();
        if !wanted.ready {
            let (repository, mut names) = (Arc::clone(&self.repository), BTreeSet::from([self.name.clone()]));
            names.extend(catalog.models.keys().cloned());
            entries = blocking(move || every_version(&repository, names)).await.map_err(Refusal::fault)?;
        }
        for (name, versions) in &catalog.models {
            entries.extend(versions.keys().map(|version| (name.clone(), *version)));
        }
        let entries = entries.iter().filter(|(name, version)| !wanted.ready || catalog.version(name, *version).is_some());
        let index: Vec<Value> = entries.map(|entry| index_entry(&catalog, entry)).collect();
        Ok(json_answer(&Value::from(index)))
    }
}

fn every_version(repository: &Repository, mut names: BTreeSet<String>) -> BTreeSet<(String, u64)> {
    let mut entries = BTreeSet::new();
    names.extend(repository.names());
    for name in names {
        let found = repository.available(&name, None);
        if let Some(why) = found.away {
            tracing::warn!(model = name, why, "the index lacks what the registry has");
        }
        entries.extend(found.places.into_keys().map(|version| (name.clone(), version)));
    }
    entries
}

/// Does it also when the client, which may wait no longer, has gone.
async fn to_its_end(work: impl Future<Output = Result<(), Refusal>> + Send + 'static) -> Result<Response<Full<Bytes>>, Refusal> {
    let done = tokio::spawn(work).await.map_err(|error| Refusal::fault(error.to_string()))?;
    done.map(|()| json_answer(&json!({})))
}

fn index_entry(catalog: &Catalog, entry: &(String, u64)) -> Value {
    let (name, version) = (&entry.0, entry.1);
    let is_served = catalog.version(name, version).is_some();
    let state = if is_served { "READY" } else { "UNAVAILABLE" };
    let fault = catalog.faults.get(entry).map_or("", String::as_str);
    let reason = if !is_served && fault.is_empty() { "not loaded" } else { fault };
    json!({ "name": name, "version": version.to_string(), "state": state, "reason": reason })
}

fn find(catalog: &Catalog, name: &str, version: Option<&str>) -> Result<Arc<Model>, Refusal> {
    let Some(versions) = catalog.models.get(name) else {
        let names: Vec<&str> = catalog.models.keys().map(String::as_str).collect();
        return Err(Refusal::not_found(format!(
            "there is no model `{}` here; there is: {}",
            shown(name),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )));
    };
    let found = match version {
        None => catalog.newest(name),
        Some(text) => read_version(text).and_then(|version| versions.get(&version)),
    };
    found.cloned().ok_or_else(|| {
        let numbers: Vec<String> = versions.keys().map(u64::to_string).collect();
        let wanted = shown(version.unwrap_or("newest"));
        Refusal::not_found(format!("the model `{name}` has no version {wanted} loaded; loaded: {}", numbers.join(", ")))
    })
}

fn metadata(catalog: &Catalog, model: &Model) -> Response<Full<Bytes>> {
    let versions: Vec<String> = catalog.models.get(&model.name).into_iter().flatten().map(|(version, _)| version.to_string()).collect();
    let signature = &model.signature;
    let output_shape = if signature.output_is_column { json!([-1, 1]) } else { json!([-1]) };
    json_answer(&json!({
        "name": model.name,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": [{ "name": signature.input, "datatype": "FP32", "shape": [-1, signature.features] }],
        "outputs": [{ "name": signature.output, "datatype": "FP32", "shape": output_shape }],
        "parameters": { "version": model.version.to_string(), "feature_names": signature.feature_names },
    }))
}

fn model_ready(model: &Model) -> Response<Full<Bytes>> {
    json_answer(&json!({ "name": model.name, "version": model.version.to_string(), "ready": true }))
}

fn server_metadata() -> Response<Full<Bytes>> {
    let version = env!("CARGO_PKG_VERSION");
    json_answer(&json!({ "name": "switchback-ranker", "version": version, "extensions": ["model_repository"] }))
}

fn get(request: &Request<'_>) -> Result<(), Refusal> {
    let is_read = matches!(*request.method, Method::GET | Method::HEAD);
    if is_read { Ok(()) } else { Err(Refusal::method(request.method, &shown(request.path), "GET")) }
}

fn post(request: Request<'_>) -> Result<Request<'_>, Refusal> {
    if request.method == Method::POST {
        return Ok(request);
    }
    Err(Refusal::method(request.method, &shown(request.path), "POST"))
}

/// Bodies are plain JSON: nothing compressed, and no tensors in binary form.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key("inference-header-content-length") {
        return Err(Refusal::media("tensors in binary form are not read here; send `data` as JSON"));
    }
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(()),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(Refusal::media(format!("content-encoding `{}` is not read here; send plain JSON", shown(&other))))
        }
    }
}

/// A piece of a request as errors quote it: never more than a line of it.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// The answer of a refusal.
pub(super) fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = json_answer(&json!({ "error": refusal.message }));
    *response.status_mut() = refusal.status;
    if let Some(allow) = refusal.allow {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    bytes_answer(value.to_string().into_bytes())
}

fn bytes_answer(body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
