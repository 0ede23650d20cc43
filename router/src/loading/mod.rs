//! Brings a version of a model onto the servers of a pool: what the registry knows of it, and the servers, together. docs/LOADING.md.
//!
//! ```text
//! registry -> source (report, golden queries, artefact) -> model servers (load, ready, warm-up, scores, commit) -> loaded
//! ```
//!
//! Nothing is kept here: a load that is begun again, by this router or another, finds what is there and goes on.

mod servers;
mod shared;
mod source;
mod strays;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model_servers::{
    Fault, FaultKind, Folder, Progress, Protocol, Report, Settings, SettingsFile, Stage, Wanted, WarmUp, bring_up, retire,
};
use serde_json::Map;
use tempfile::NamedTempFile;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{self, LoadProtocol};

pub use strays::{Stray, strays};

/// As MLServer looks for it.
const SETTINGS_FILE: &str = "model-settings.json";

/// A version, and where it is wanted.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where versions are.
    pub registry: config::Registry,
    /// The route's name.
    pub route: String,
    /// How versions are loaded.
    pub loading: config::Loading,
    /// On whose servers.
    pub pool: config::Pool,
    /// The route's other pools: what they run is not unloaded from servers that they share with this one. Empty where nothing is loaded with hooks.
    pub others: Vec<config::Pool>,
    /// Of the route's model.
    pub number: u64,
    /// SHA-256 of its artefact, where no other one will do.
    pub sha256: Option<String>,
    /// On these of its servers alone, as [`Stray::server`] names them; `None`: on all.
    pub only: Option<Vec<String>>,
    /// What for.
    pub purpose: Purpose,
}

/// What a version is loaded for, and so what is asked of its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It is to get users: its newest report has passed, and nothing is left of what an earlier one refused.
    Candidate {
        /// The live version, where the route has candidates tried on judged queries: a report has to have done that, too.
        live: Option<String>,
    },
    /// Somebody goes back to it: one report that passed is good enough; and so is none, since it is named by an operator. Refused reports alone are not, but
    /// where all they say is how a later version compares with it.
    WayBack,
    /// Its servers get back what they had, whatever is said of it by now.
    Restore,
}

impl Purpose {
    /// A candidate of this route, where this version is live.
    #[must_use]
    pub fn candidate(route: &config::Route, live: &str) -> Purpose {
        Purpose::Candidate { live: route.validation.judged.as_ref().map(|_| live.to_owned()) }
    }
}

/// Every server of the pool has the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// How that went, in words.
    pub what: String,
    /// For so long, in milliseconds.
    pub took_ms: u64,
}

/// Why a version was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be had, however often it is tried.
    Refused(String),
    /// Somebody who is needed does not answer.
    Away(String),
}

/// Loads a version on every server of its pool. `None`: it was cancelled, and the pool has what it had, as far as its servers answered.
///
/// # Errors
/// [`Trouble`]; the pool has what it had, or it is said that it does not.
pub async fn load(
    load: &Load,
    cancelled: &mut oneshot::Receiver<()>,
    progress: &(dyn Fn(String) + Sync),
) -> Result<Option<Loaded>, Trouble> {
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let bring = bring(load, &stop, progress);
    tokio::pin!(bring);
    let report = tokio::select! {
        report = &mut bring => report?,
        _ = cancelled => {
            // What is asked for already goes on at the server: it is waited for, and undone.
            stop.store(true, Ordering::Relaxed);
            let ended = bring.await;
            put_back(load, ended.is_ok(), progress).await;
            return Ok(None);
        }
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Loaded { what: in_words(load, &report, took_ms), took_ms }))
}

/// Whether a version may be loaded, as far as the registry knows. Nothing is done.
///
/// # Errors
/// [`Trouble`].
pub async fn check(load: &Load) -> Result<(), Trouble> {
    source::vetted(load).await.map(drop)
}

/// The same before anybody validated it: its reports are still to come.
///
/// # Errors
/// [`Trouble`].
pub async fn check_unvalidated(load: &Load) -> Result<(), Trouble> {
    source::trusted(load).await.map(drop)
}

/// Whether the registry has this very artefact of a version, where it is said which one it has to be. Nothing is done.
///
/// # Errors
/// [`Trouble`].
pub async fn check_artefact(load: &Load) -> Result<(), Trouble> {
    source::found(load).await.map(drop)
}

/// Takes a version away from every server of its pool, and out of the repository that the router fills.
///
/// # Errors
/// [`Trouble`]: call again to go on.
pub async fn unload(load: &Load) -> Result<(), Trouble> {
    let (settings, client, servers) = (settings(load), servers::client(load)?, servers::of(load).await?);
    let root = root(load);
    let folder = root.as_deref().map(|root| folder(load, root)).transpose()?;
    let wanted =
        Wanted { version: load.number, previous: None, golden: None, input: None, pool: &load.pool.name, route: &load.route, stop: None };
    retire(&client, &settings, &servers, &wanted, folder.as_ref()).await.map_err(trouble)
}

/// The servers' repository, where the router fills it.
fn root(load: &Load) -> Option<PathBuf> {
    load.loading.repository.as_ref().map(|folder| PathBuf::from(folder.replace("{pool}", &load.pool.name)))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(fault: Fault) -> Trouble {
    match fault.kind {
        FaultKind::Refused => Trouble::Refused(fault.to_string()),
        FaultKind::Away => Trouble::Away(fault.to_string()),
    }
}

/// What was cancelled is undone by now, but for a load that was over already: then the version before it is loaded again.
async fn put_back(load: &Load, is_over: bool, progress: &(dyn Fn(String) + Sync)) {
    let (route, pool, version) = (&load.route, &load.pool.name, load.number);
    let previous = load.loading.version_of(&load.pool.version).filter(|previous| is_over && *previous != version);
    let put_back = match previous {
        Some(number) => {
            let back = Load { number, sha256: None, purpose: Purpose::Restore, ..load.clone() };
            match bring(&back, &AtomicBool::new(false), progress).await {
                // With the protocol the load has done that.
                Ok(_) if unloads_one(load) => unload(load).await,
                done => done.map(|_| ()),
            }
        }
        None => Ok(()),
    };
    match put_back {
        Ok(()) => tracing::info!(route, pool, version, "the load of a version was taken back"),
        Err(Trouble::Refused(why) | Trouble::Away(why)) => {
            tracing::warn!(
                route,
                pool,
                version,
                why,
                "the load of a version could not be taken back: the pool runs another one than the flags say"
            );
        }
    }
}

/// There is a hook that unloads one version and leaves the others.
fn unloads_one(load: &Load) -> bool {
    match &load.loading.protocol {
        LoadProtocol::Hooks(hooks) => hooks.unload.as_ref().is_some_and(model_servers::Template::names_version),
        LoadProtocol::V2 => false,
    }
}

async fn bring(load: &Load, stop: &AtomicBool, progress: &(dyn Fn(String) + Sync)) -> Result<Report, Trouble> {
    let settings = settings(load);
    let root = root(load);
    let source = source::read(load, root.as_deref(), progress).await?;
    let folder = root.as_deref().map(|root| folder(load, root)).transpose()?;
    let (client, servers) = (servers::client(load)?, servers::asked(load).await?);
    let wanted = Wanted {
        version: load.number,
        previous: shared::not_shared(load, &servers, load.loading.version_of(&load.pool.version)).await,
        golden: source.golden.as_ref(),
        input: source.input.as_deref(),
        pool: &load.pool.name,
        route: &load.route,
        stop: Some(stop),
    };
    let place = folder.as_ref().zip(source.artefact.as_ref().map(NamedTempFile::path));
    let told = |at: Progress| progress(stage(load, at));
    bring_up(&client, &settings, &servers, &wanted, place, &told).await.map_err(trouble)
}

fn settings(load: &Load) -> Settings {
    let loading = &load.loading;
    let protocol = match &loading.protocol {
        LoadProtocol::V2 => Protocol::V2,
        LoadProtocol::Hooks(hooks) => Protocol::Hooks(hooks.clone()),
    };
    Settings {
        protocol,
        model: loading.server_model.clone(),
        config: Map::new(),
        request_timeout: loading.request_timeout,
        load_timeout: loading.timeout,
        poll_every: loading.poll_every,
        warm_up: WarmUp {
            timeout: loading.warm_up_timeout,
            latency: loading.warm_up_latency,
            rounds: loading.warm_up_rounds,
            tolerance: loading.tolerance as f32,
        },
        parallel: loading.parallel,
    }
}

fn folder(load: &Load, root: &Path) -> Result<Folder, Trouble> {
    let loading = &load.loading;
    let settings = match &loading.repository_settings {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Trouble::Refused(format!("{}: {error}", path.display())))?;
            Some(SettingsFile { name: SETTINGS_FILE.to_owned(), text })
        }
        None => None,
    };
    Folder::new(root, &loading.server_model, &loading.repository_file, settings).map_err(Trouble::Refused)
}

/// `search:13 is warmed up on canary: 1 of 2 servers`
fn stage(load: &Load, Progress { stage, done, of }: Progress) -> String {
    let (model, number, pool) = (&load.loading.model, load.number, &load.pool.name);
    let what = match stage {
        Stage::Placing => "is put into the repository of",
        Stage::Loading => "is loaded on",
        Stage::Warming => "is warmed up on",
        Stage::Committing => "is made the only version on",
    };
    format!("{model}:{number} {what} {pool}: {done} of {of} server(s)")
}

/// `2 server(s) of canary have search:13 after 1.3 s; 60 golden queries, 1,540 scores compared, slowest median 2.1 ms`
fn in_words(load: &Load, report: &Report, took_ms: u64) -> String {
    let servers = &report.endpoints;
    let mut text = format!(
        "{} server(s) of {} have {}:{} after {:.1} s",
        servers.len(),
        load.pool.name,
        load.loading.model,
        load.number,
        Duration::from_millis(took_ms).as_secs_f64()
    );
    let queries: u64 = servers.iter().map(|server| server.queries).sum();
    if queries > 0 {
        let compared: u64 = servers.iter().map(|server| server.compared).sum();
        let slowest = servers.iter().filter_map(|server| server.median_us).max().unwrap_or(0);
        let slowest = Duration::from_micros(slowest).as_secs_f64() * 1e3;
        text.push_str(&format!("; {queries} golden queries, {compared} scores compared, slowest median {slowest:.1} ms"));
    }
    if let Some(server) = servers.iter().find(|server| !server.beside.is_empty()) {
        let beside: Vec<String> = server.beside.iter().map(u64::to_string).collect();
        text.push_str(&format!("; {} goes on with {} beside it", server.endpoint, beside.join(", ")));
        if let Some(why) = &server.why_beside {
            text.push_str(&format!(", which it did not unload: {why}"));
        }
    }
    text
}
