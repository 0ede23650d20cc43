//! What the caller says of a pool and of the version that it wants there, and what it is told.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::golden::Golden;
use crate::template::Template;

/// How the servers of a pool are told to load a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// The Open Inference Protocol v2 with its model repository extension: Triton, `MLServer`, `switchback ranker`.
    V2,
    /// URLs.
    Hooks(Hooks),
}

/// URLs that are called for every endpoint. A status of 2xx is a yes. Each may be called again for what it has done already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// POST: loads the version. Without `ready` a yes means that it is ready.
    pub load: Template,
    /// GET: whether the version is ready. One that names `{version}` is asked before the load too, which a yes makes needless where `unload`
    /// names `{version}` as well. Without that a load alone says which version is served, and is always asked for.
    pub ready: Option<Template>,
    /// POST: takes the version away again. One that names `{version}` takes away the version that the pool ran before, too, once the new one is
    /// ready everywhere.
    pub unload: Option<Template>,
}

/// How the servers of a pool are spoken to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Their protocol.
    pub protocol: Protocol,
    /// Their name of the model.
    pub model: String,
    /// V2: the rest of the model's configuration, which goes with every load. A server that takes it (Triton) takes it in the place of its
    /// `config.pbtxt`. When empty, it is the configuration of the version that is served, where the server tells it.
    pub config: Map<String, Value>,
    /// The longest that a request may take, except for one that loads.
    pub request_timeout: Duration,
    /// The longest from the load until ready; the same again for the commit, and for undoing it.
    pub load_timeout: Duration,
    /// From one question whether it is ready to the next; at least 10 ms.
    pub poll_every: Duration,
    /// How golden queries are asked.
    pub warm_up: WarmUp,
    /// Endpoints at the same time: 1 or more.
    pub parallel: usize,
}

/// What the golden queries have to show.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUp {
    /// The longest that all rounds on an endpoint may take.
    pub timeout: Duration,
    /// What the median of a round's answers must hold; `None`: any time will do.
    pub latency: Option<Duration>,
    /// At least so many rounds.
    pub rounds: u32,
    /// How far a score may be from the expected one, as a share of the spread of its query's expected scores: 0 or more.
    pub tolerance: f32,
}

/// The version that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its number: 1 or more.
    pub version: u64,
    /// What the pool served before the first try, where the caller knows: what an endpoint goes back to that has nothing, or only the wanted
    /// version, because an earlier try was ended in the middle. The wanted version itself: who has it keeps it, whatever becomes of the others.
    pub previous: Option<u64>,
    /// What it is warmed and compared with. `None`: ready is all that is asked.
    pub golden: Option<&'a Golden>,
    /// The name of the input tensor, where a server does not tell it. `None`: `input`.
    pub input: Option<&'a str>,
    /// The pool's name, for hooks.
    pub pool: &'a str,
    /// The route's name, for hooks.
    pub route: &'a str,
    /// Once the caller sets it, nothing more is begun, and what was done is undone: a fault. A failure sets it too: one for each call.
    pub stop: Option<&'a AtomicBool>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The model's file goes into the servers' folder.
    Placing,
    /// Loaded, and waited for.
    Loading,
    /// Golden queries.
    Warming,
    /// The versions beside it are dropped.
    Committing,
}

/// How far it is: told at the start of a stage, and for every endpoint that is through with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Endpoints that are through.
    pub done: usize,
    /// Of so many.
    pub of: usize,
}

/// What was found on the way; the version is the one that every endpoint serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// One for each endpoint, in the order that they were given in.
    pub endpoints: Vec<EndpointReport>,
}

/// What was found on one endpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct EndpointReport {
    /// `http://host:port`.
    pub endpoint: String,
    /// What the server calls itself; empty when it does not say, `hooks` for hooks.
    pub server: String,
    /// It was ready before, and was not loaded again.
    pub was_ready: bool,
    /// From the load until ready.
    pub load_ms: u64,
    /// All rounds of golden queries.
    pub warm_ms: u64,
    /// Golden queries that were answered; 0 when none were asked for, and ready was enough.
    pub queries: u64,
    /// The median answer of the last round.
    pub median_us: Option<u64>,
    /// Scores that were compared.
    pub compared: u64,
    /// The largest difference among them.
    pub worst_difference: f64,
    /// Versions that are served beside it, because they cannot be dropped here: the server takes every version of a folder that is not ours, or
    /// its hook said no.
    pub beside: Vec<u64>,
    /// What the hook said that did not drop them.
    pub why_beside: Option<String>,
}
