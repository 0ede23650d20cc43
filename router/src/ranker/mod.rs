//! An ONNX ranking server: the embedded default for what stands behind a pool.
//!
//! ```text
//! connection -> server -> protocol -> rank | infer -> model (ONNX Runtime) -> answer
//!                              |                        ^
//!                              +-> loading -> repository (files, registry) + catalog (one pointer, swapped) + state
//! ```
//!
//! It speaks `POST /rank` (documents in, ranking out) and the Open Inference Protocol v2 with the model repository extension. The event
//! loop only moves bytes: parsing, scoring, loading and warming happen on blocking threads, so a load never stalls a query.
//!
//! Invariant: what is served changes by one pointer write, after every version of the new set is loaded and warm. A load that
//! fails leaves what is served untouched.

mod cache;
mod catalog;
mod features;
#[cfg(test)]
mod fuzz;
mod infer;
mod loading;
mod protocol;
mod pull;
mod rank;
mod refusal;
mod repository;
mod server;
mod start;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

use self::catalog::Catalog;
pub use self::pull::FromRegistry;
use self::repository::Repository;
use self::server::Drain;
pub use self::start::Serve;
use self::state::StateFile;
use crate::onnx::{Library, LibraryError, load_library};
use crate::vocabulary::{MODEL_NAME_RULE, is_model_name};

/// What a ranker serves, and what a client may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model that `POST /rank` uses. 1..=128 of letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// An ONNX file to serve as `version` of `name`.
    pub model: Option<PathBuf>,
    /// The number of the version in `model`. At least 1.
    pub version: u64,
    /// A folder with `<model>/<version>/model.onnx`, for versions that are loaded later.
    pub repository: Option<PathBuf>,
    /// Switchback's registry, for the same.
    pub registry: Option<FromRegistry>,
    /// What is served at the start. By default `model`, else the registry's `champion`, else the newest version.
    pub serve: Option<Serve>,
    /// A file that says what is served, written with each load and unload. Where it is there, it says what is served at the start.
    pub state: Option<PathBuf>,
    /// ONNX Runtime's shared library, or the folder it is in; see [`LibraryError`] for where it is looked for otherwise.
    pub onnxruntime: Option<PathBuf>,
    /// Queries that are scored at the same time. At least 1.
    pub threads: usize,
    /// What a client may take.
    pub limits: Limits,
}

/// What a client may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of a request's body.
    pub body_bytes: usize,
    /// Documents in one query.
    pub documents: usize,
    /// Open connections; further ones wait in the listener's backlog.
    pub connections: usize,
    /// From a connection's first byte to the end of a request's head; also how long a kept-alive connection may idle.
    pub header_timeout: Duration,
    /// For a request's whole body.
    pub body_timeout: Duration,
    /// Loads that wait for the one that runs.
    pub waiting_loads: usize,
    /// Size of a model file.
    pub model_bytes: u64,
    /// Versions of one model that are served at the same time.
    pub versions: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 4 << 20,
            documents: 1_000,
            connections: 1_024,
            // Longer than a router keeps an idle connection, so that the ranker never closes one that is about to be used.
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            waiting_loads: 4,
            model_bytes: 512 << 20,
            versions: 8,
        }
    }
}

/// Why a ranker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RankerError {
    /// ONNX Runtime cannot be used.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// What is to be served at the start cannot be.
    #[error("{0}")]
    Model(String),
    /// Neither a file nor a folder was given, or a name that cannot be.
    #[error("{0}")]
    Options(String),
    /// A thread of the ranker's own died.
    #[error("{0}")]
    Start(String),
    /// The registry does not answer.
    #[error("{0}")]
    Away(String),
}

/// A ranking server with its models loaded, before it listens.
#[derive(Debug)]
pub struct Ranker {
    name: String,
    catalog: ArcSwap<Catalog>,
    repository: Arc<Repository>,
    state: Option<Arc<StateFile>>,
    library: &'static Library,
    threads: usize,
    limits: Limits,
    /// One permit for each query that may be scored at the same time.
    scorers: Arc<Semaphore>,
    /// Held by the load that runs; loads replace the catalog one after the other.
    load: Mutex<()>,
    /// One permit for each load that runs or waits.
    loads: Semaphore,
    drain: Drain,
}

/// What was loaded at the start, for the line that says so.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The version that `POST /rank` uses.
    pub version: u64,
    /// How many features it takes.
    pub features: usize,
}

impl Ranker {
    /// Loads ONNX Runtime and the model, and warms it.
    ///
    /// # Errors
    /// [`RankerError`] when the library or the model cannot be used, or nothing was given to serve.
    pub async fn open(options: Options) -> Result<Ranker, RankerError> {
        if options.model.is_none() && options.repository.is_none() && options.registry.is_none() {
            return Err(RankerError::Options(
                "nothing to serve: give --model FILE.onnx, or --repository DIR or --registry URL with versions of the model".into(),
            ));
        }
        if options.registry.is_none() && matches!(options.serve, Some(Serve::Alias(_))) {
            return Err(RankerError::Options("--serve ALIAS: aliases are in a registry: give --registry URL".into()));
        }
        if !is_model_name(&options.name) {
            let name = &options.name;
            return Err(RankerError::Options(format!("the model name {name:?} must be {}", MODEL_NAME_RULE)));
        }
        let wanted = options.onnxruntime.clone();
        let library = loading::blocking(move || load_library(wanted.as_deref())).await.map_err(RankerError::Start)??;
        let permits = options.limits.waiting_loads.saturating_add(1);
        let (serve, given) = (options.serve.clone(), options.model.as_ref().map(|_| options.version));
        let drain = Drain::default();
        let ranker = Ranker {
            catalog: ArcSwap::default(),
            repository: Arc::new(Repository::new(&options, drain.watch())?),
            state: options.state.map(|path| Arc::new(StateFile::new(path))),
            library,
            threads: options.threads.max(1),
            scorers: Arc::new(Semaphore::new(options.threads.max(1))),
            load: Mutex::new(()),
            loads: Semaphore::new(permits),
            drain,
            limits: options.limits,
            name: options.name,
        };
        ranker.begin(serve, given).await?;
        Ok(ranker)
    }

    /// Where ONNX Runtime was found.
    #[must_use]
    pub fn library(&self) -> String {
        self.library.path.display().to_string()
    }

    /// What `POST /rank` uses now.
    #[must_use]
    pub fn loaded(&self) -> Option<Loaded> {
        let catalog = self.catalog.load();
        let model = catalog.newest(&self.name)?;
        Some(Loaded { version: model.version, features: model.signature.features })
    }
}

/// Loads the models, then serves until `shutdown` ends, then lets queries in flight finish.
///
/// # Errors
/// As [`Ranker::open`].
pub async fn run(listener: TcpListener, options: Options, shutdown: impl Future<Output = ()>) -> Result<(), RankerError> {
    let ranker = Ranker::open(options).await?;
    ranker.serve(listener, shutdown).await;
    Ok(())
}
