//! One server of the Open Inference Protocol v2: what it serves, and how that is changed.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answers::{self, About, Input};
use crate::call::{Answer, Call, Caller, after, is_yes, left, meaning, shown};
use crate::fault::Trouble;
use crate::listed;
use crate::settings::{EndpointReport, Settings, Wanted};

/// How a server is told which versions to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A load names them all. What it does not name is dropped.
    Specific,
    /// A load names the model: every version of its folder is served.
    ByName,
    /// As `Specific`, until it turns out that the server does not do that.
    Unsure,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) way: Way,
    /// The versions that were ready when it was first asked.
    pub(crate) before: BTreeSet<u64>,
    /// A load or an unload was sent: what it serves may be another thing than before.
    pub(crate) is_touched: bool,
    /// The rest of the model's configuration, which goes with every load.
    config: Map<String, Value>,
    /// What is found on the way; has the endpoint.
    pub(crate) report: EndpointReport,
}

impl<'a> Server<'a> {
    /// `endpoint` is `http://host:port`, checked.
    pub(crate) fn new(caller: Caller<'a>, settings: &'a Settings, endpoint: &str) -> Server<'a> {
        let report = EndpointReport { endpoint: endpoint.to_owned(), ..EndpointReport::default() };
        let (way, config) = (Way::Unsure, settings.config.clone());
        Server { caller, settings, way, before: BTreeSet::new(), is_touched: false, config, report }
    }

    /// Who it is and what it serves now. Changes nothing.
    pub(crate) async fn look(&mut self) -> Result<(), Trouble> {
        let answer = self.send(Method::GET, "/v2", None).await?;
        let about = match answer.status {
            status if is_yes(status) => answers::about(&answer.body).map_err(|why| Trouble::refused(format!("GET /v2: {why}")))?,
            // Some runtimes have everything but this.
            404 | 405 => About::default(),
            _ => return Err(meaning("GET /v2", &answer)),
        };
        self.way = match about.name.to_ascii_lowercase().as_str() {
            "mlserver" => Way::ByName,
            "triton" | "switchback-ranker" => Way::Specific,
            _ if about.has_repository => Way::Specific,
            _ => Way::Unsure,
        };
        self.report.server = about.name;
        self.before = self.ready_versions().await?;
        if self.config.is_empty() && !self.before.is_empty() && self.way != Way::ByName {
            let answer = self.send(Method::GET, &self.model_path("/config"), None).await?;
            self.config = if is_yes(answer.status) { answers::configuration(&answer.body) } else { None }.unwrap_or_default();
        }
        Ok(())
    }

    /// The versions that it says are ready.
    pub(crate) async fn ready_versions(&self) -> Result<BTreeSet<u64>, Trouble> {
        let path = "/v2/repository/index";
        let answer = self.send(Method::POST, path, Some(json!({ "ready": true }))).await?;
        if matches!(answer.status, 404 | 405 | 501) {
            let said = meaning(&format!("POST {path}"), &answer).why;
            return Err(Trouble::refused(format!("{said} (a server without the model repository extension: use hooks)")));
        }
        if !is_yes(answer.status) {
            return Err(meaning(&format!("POST {path}"), &answer));
        }
        answers::ready_versions(&answer.body, &self.settings.model).map_err(|why| Trouble::refused(format!("POST {path}: {why}")))
    }

    /// Loads `version` beside what is ready, and waits until it is. Nothing is sent when it is ready already and its file is the same.
    pub(crate) async fn load_beside(&mut self, version: u64, has_new_file: bool) -> Result<(), Trouble> {
        let began = Instant::now();
        let deadline = after(self.settings.load_timeout);
        self.report.was_ready = self.before.contains(&version) && !has_new_file;
        if !self.report.was_ready {
            let mut set = self.before.clone();
            set.insert(version);
            self.load(&set, deadline).await?;
        }
        self.wait_ready(version, deadline).await?;
        self.report.load_ms = millis(began.elapsed());
        Ok(())
    }

    /// One load. An answer that does not come in time is no fault: the load may still come about.
    async fn load(&mut self, set: &BTreeSet<u64>, deadline: Instant) -> Result<(), Trouble> {
        self.caller.go_on()?;
        self.is_touched = true;
        match self.load_once(set, deadline).await {
            Err(trouble) if trouble.is_timeout => Ok(()),
            Err(trouble) if self.way == Way::Unsure && !trouble.is_away() && blames_parameters(&trouble.why) => {
                self.way = Way::ByName;
                self.load_once(set, deadline).await.or_else(|trouble| if trouble.is_timeout { Ok(()) } else { Err(trouble) })
            }
            done => done,
        }
    }

    async fn load_once(&self, set: &BTreeSet<u64>, deadline: Instant) -> Result<(), Trouble> {
        let body = match self.way {
            Way::ByName => json!({}),
            Way::Specific | Way::Unsure => {
                let mut config = self.config.clone();
                config.insert("name".to_owned(), Value::from(self.settings.model.as_str()));
                config.insert("version_policy".to_owned(), json!({ "specific": { "versions": set } }));
                json!({ "parameters": { "config": Value::Object(config).to_string() } })
            }
        };
        let path = format!("/v2/repository/models/{}/load", self.settings.model);
        let call = self.call(Method::POST, &path, Some(body), left(deadline));
        let url = self.url(&path);
        self.caller.ask(&Call { url: &url, ..call }).await.map(|_| ())
    }

    /// Asks until the version is ready. A server that does not answer in between may be starting again.
    pub(crate) async fn wait_ready(&self, version: u64, deadline: Instant) -> Result<(), Trouble> {
        loop {
            let last = match self.is_ready(version).await {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(trouble) if trouble.is_away() => Some(trouble),
                Err(trouble) => return Err(trouble),
            };
            if !self.pause(deadline).await? {
                return Err(self.why_not_ready(version, last).await);
            }
        }
    }

    async fn is_ready(&self, version: u64) -> Result<bool, Trouble> {
        let path = self.model_path(&format!("/versions/{version}/ready"));
        let answer = self.send(Method::GET, &path, None).await?;
        match answer.status {
            status if is_yes(status) => Ok(!answers::says_not_ready(&answer.body)),
            300..400 => Err(meaning(&format!("GET {path}"), &answer)),
            _ => Ok(false),
        }
    }

    /// After the time is up: what the index says of the version decides whether to try again.
    async fn why_not_ready(&self, version: u64, last: Option<Trouble>) -> Trouble {
        let late = format!("version {version} is not ready after {}", shown(self.settings.load_timeout));
        if let Some(last) = last {
            return Trouble::away(format!("{late}: {}", last.why));
        }
        let index = self.send(Method::POST, "/v2/repository/index", Some(json!({}))).await;
        let state = index.map_err(|trouble| trouble.why).and_then(|answer| answers::state_of(&answer.body, &self.settings.model, version));
        match state {
            Err(why) => Trouble::away(format!("{late}: {why}")),
            Ok(None) => Trouble::refused(format!("{late}: the index does not have it: is its file in the server's repository?")),
            Ok(Some((state, _))) if state != "UNAVAILABLE" => Trouble::away(format!("{late}: the index says {state}")),
            Ok(Some((state, reason))) => Trouble::refused(format!("{late}: the index says {state}: {reason}")),
        }
    }

    /// Makes the server serve `set`, and nothing of `gone`; waits until it says so.
    ///
    /// A server that loads by name is made to take its folder anew: what is in there is the caller's to see to. One that turns out to do that is
    /// left as it is, with a refusal and `way` set.
    pub(crate) async fn serve(&mut self, set: &BTreeSet<u64>, gone: &BTreeSet<u64>, within: Duration) -> Result<(), Trouble> {
        let (deadline, way) = (after(within), self.way);
        let mut refusal = None;
        if set.is_empty() || way == Way::ByName {
            self.caller.go_on()?;
            self.is_touched = true;
            // A no may mean that nothing is loaded, which is what was asked for.
            refusal = self.unload(deadline).await.err().filter(|trouble| !trouble.is_timeout);
        }
        if !set.is_empty() {
            if let Some(refusal) = refusal.take()
                && !gone.is_disjoint(&self.ready_versions().await?)
            {
                return Err(refusal);
            }
            self.load(set, deadline).await?;
        }
        if self.way != way {
            return Err(Trouble::refused("the server loads models by name only"));
        }
        self.wait_serving(set, gone, deadline, refusal).await.map_err(|trouble| {
            let late = format!("after {}: {}", shown(within), trouble.why);
            if left(deadline).is_zero() { Trouble { why: late, ..trouble } } else { trouble }
        })
    }

    /// `refusal`: what is said when it does not serve that at once.
    async fn wait_serving(
        &self,
        set: &BTreeSet<u64>,
        gone: &BTreeSet<u64>,
        deadline: Instant,
        refusal: Option<Trouble>,
    ) -> Result<(), Trouble> {
        loop {
            let last = match self.ready_versions().await {
                Ok(ready) if set.is_subset(&ready) && gone.is_disjoint(&ready) => break,
                Ok(ready) => Trouble::refused(format!("it serves {}; wanted: {}", listed(&ready), listed(set))),
                Err(trouble) if trouble.is_away() => trouble,
                Err(trouble) => return Err(refusal.unwrap_or(trouble)),
            };
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            if !self.pause(deadline).await? {
                return Err(last);
            }
        }
        for version in set {
            self.wait_ready(*version, deadline).await?;
        }
        Ok(())
    }

    async fn unload(&self, deadline: Instant) -> Result<(), Trouble> {
        let path = format!("/v2/repository/models/{}/unload", self.settings.model);
        let call = self.call(Method::POST, &path, Some(json!({})), left(deadline));
        let url = self.url(&path);
        self.caller.ask(&Call { url: &url, ..call }).await.map(|_| ())
    }

    /// The tensor that golden queries fill.
    pub(crate) async fn input(&self, wanted: &Wanted<'_>) -> Result<Input, Trouble> {
        let path = self.model_path(&format!("/versions/{}", wanted.version));
        let answer = self.send(Method::GET, &path, None).await?;
        let body: &[u8] = match answer.status {
            status if is_yes(status) => &answer.body,
            404 | 405 | 501 => b"{}",
            _ => return Err(meaning(&format!("GET {path}"), &answer)),
        };
        answers::input(body, wanted.input).map_err(|why| Trouble::refused(format!("GET {path}: {why}")))
    }

    /// One query; the body of the answer.
    pub(crate) async fn infer(&self, version: u64, body: &[u8], timeout: Duration) -> Result<Vec<u8>, Trouble> {
        let path = self.model_path(&format!("/versions/{version}/infer"));
        let call = self.call(Method::POST, &path, None, timeout.min(self.settings.request_timeout));
        let url = self.url(&path);
        self.caller.ask(&Call { url: &url, body: Some(body.to_vec()), ..call }).await
    }

    /// Waits a little; false when the time is up.
    pub(crate) async fn pause(&self, deadline: Instant) -> Result<bool, Trouble> {
        self.caller.pause(self.settings.poll_every, deadline).await
    }

    fn model_path(&self, rest: &str) -> String {
        format!("/v2/models/{}{rest}", self.settings.model)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.report.endpoint)
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>, timeout: Duration) -> Call<'static> {
        let what = format!("{method} {path}");
        Call { method, url: "", what, body: body.map(|body| body.to_string().into_bytes()), timeout }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Trouble> {
        let call = self.call(method, path, body, self.settings.request_timeout);
        self.caller.send(&Call { url: &self.url(path), ..call }).await
    }
}

/// Whether a refused load was refused for what went with it.
fn blames_parameters(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    ["parameter", "config", "body", "field"].iter().any(|word| why.contains(word))
}

/// For reports.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
