//! `switchback ranker`: serves ONNX rankers over the Open Inference Protocol v2 and `POST /rank`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::units;
use crate::onnx::ensure_no_telemetry;
use crate::ranker::{FromRegistry, Limits, Options, Ranker, RankerError, Serve};

use super::log::{LogFormat, start_log};
use super::parent::end_with_stdin;
use super::registry_args::RegistryArgs;
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  switchback ranker --model ranker.onnx --listen 127.0.0.1:9001
  switchback ranker --name shop --repository /var/lib/models     # shop/1/model.onnx, shop/2/model.onnx, ...
  switchback ranker --name search --registry s3://models/production --state /var/lib/ranker/served.json
  switchback ranker --name search --registry file:///srv/models --serve none
  curl -d '{\"documents\": [{\"id\": \"d1\", \"features\": [0.5, 1.2]}]}' http://127.0.0.1:9001/rank
  curl -X POST http://127.0.0.1:9001/v2/repository/models/shop/load

Versions are taken from --model, --repository and --registry (else SWITCHBACK_REGISTRY); --config (else SWITCHBACK_CONFIG) says how a registry is reached, and which one where none of these three is given.

Takes ONNX Runtime from --onnxruntime, else ORT_DYLIB_PATH, else beside the executable or in onnxruntime/ one folder up, else the system's; `scripts/fetch_onnxruntime.sh` gets it. Its telemetry is off (ORT_DISABLE_TELEMETRY=0 allows it).";

/// Scoring threads stay for a while, so that a pause in the traffic does not cost a thread start.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(600);

/// Serve ONNX ranking models: POST /rank and the Open Inference Protocol v2.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RankerArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// The model's name.
    #[arg(long, default_value = "ranker")]
    name: String,
    /// The ONNX file to serve.
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// The version that --model is.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    version: u64,
    /// Folder with further versions, as `MODEL/VERSION/model.onnx`.
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// A version of the registry must be signed with this public key of Ed25519, in PEM; may be said again.
    #[arg(long = "trusted-key", value_name = "FILE")]
    trusted_keys: Vec<PathBuf>,
    /// Folder where artefacts of the registry are kept, by their SHA-256 [default: they are read again whenever they are loaded].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The version to serve first: a number, an alias of the registry, or none [default: the alias champion, else the newest].
    #[arg(long, value_name = "N|ALIAS|none", conflicts_with = "model")]
    serve: Option<Serve>,
    /// File that remembers what is served: a ranker that starts again serves that, and not --serve or --model.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// ONNX Runtime's library or the folder it is in [otherwise ORT_DYLIB_PATH, beside the executable, the system].
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// Queries that are scored at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The largest body, like 512KiB or 4MiB.
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = read_size)]
    max_body: usize,
    /// The most documents in one query.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_documents: u32,
    /// The most open connections.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,
    /// Say where it listens as one line of JSON.
    #[arg(long)]
    json: bool,
    /// End when standard input ends: for a process that starts this one as its child.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl RankerArgs {
    /// Runs until SIGTERM or Ctrl-C.
    pub(super) fn run(self) -> Result<(), Failure> {
        ensure_no_telemetry().map_err(|error| Failure::unreachable(error.to_string()))?;
        if self.end_with_stdin {
            end_with_stdin()?;
        }
        let (_log, _) = start_log(LogFormat::Text, "warn");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().thread_keep_alive(THREAD_KEEP_ALIVE).build();
        runtime.map_err(|error| Failure::unreachable(format!("no runtime: {error}")))?.block_on(serve(self))
    }
}

async fn serve(args: RankerArgs) -> Result<(), Failure> {
    let (listen, as_json, name) = (args.listen, args.json, args.name.clone());
    let listener = TcpListener::bind(listen).await.map_err(|error| Failure::unreachable(format!("--listen {listen}: {error}")))?;
    let address = listener.local_addr().map_err(|error| Failure::unreachable(format!("--listen {listen}: {error}")))?;
    let ranker = Ranker::open(options(args)?).await.map_err(|error| failure(&error))?;
    let shutdown = shutdown().map_err(|error| Failure::unreachable(format!("no signals: {error}")))?;
    let (loaded, library) = (ranker.loaded(), ranker.library());
    let line = if as_json {
        let (version, features) = (loaded.as_ref().map(|loaded| loaded.version.to_string()), loaded.as_ref().map(|loaded| loaded.features));
        json!({ "listening": address.to_string(), "model": name, "version": version, "features": features, "onnxruntime": library })
            .to_string()
    } else {
        let served = loaded.map_or_else(
            || format!("{name}, no version of it yet,"),
            |loaded| format!("{name} version {} ({} features)", loaded.version, loaded.features),
        );
        format!("ranker: {served} on http://{address}, ONNX Runtime from {library}")
    };
    // A reader that is gone is no reason not to serve.
    let _ = print(&format!("{line}\n"));
    ranker.serve(listener, shutdown).await;
    Ok(())
}

/// Ends at SIGTERM or Ctrl-C.
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn failure(error: &RankerError) -> Failure {
    match error {
        RankerError::Model(_) | RankerError::Options(_) => Failure::usage(error.to_string()),
        RankerError::Library(_) | RankerError::Start(_) | RankerError::Away(_) => Failure::unreachable(error.to_string()),
    }
}

/// The registry that versions are served from: one that was named, or that of a config where there is nothing else to serve from.
fn registry(args: &RankerArgs) -> Result<Option<FromRegistry>, Failure> {
    let has_files = args.model.is_some() || args.repository.is_some();
    if !args.registry.has_url() && (has_files || !args.registry.has_config()) {
        return match (&args.cache, args.trusted_keys.first()) {
            (None, None) => Ok(None),
            _ => Err(Failure::usage("--cache and --trusted-key are for versions of a registry: give --registry URL")),
        };
    }
    let (registry, trusted_keys) = args.registry.open_trusting(&args.trusted_keys)?;
    Ok(Some(FromRegistry { registry, trusted_keys, cache: args.cache.clone() }))
}

fn options(args: RankerArgs) -> Result<Options, Failure> {
    let registry = registry(&args)?;
    let limits = Limits {
        body_bytes: args.max_body,
        documents: usize::try_from(args.max_documents).unwrap_or(usize::MAX),
        connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    Ok(Options {
        name: args.name,
        model: args.model,
        version: args.version,
        repository: args.repository,
        registry,
        serve: args.serve,
        state: args.state,
        onnxruntime: args.onnxruntime,
        threads: usize::from(args.threads),
        limits,
    })
}

fn read_size(text: &str) -> Result<usize, String> {
    let size = units::bytes(text).filter(|size| (1..=1 << 30).contains(size)).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| "must be a size from 1B to 1GiB, like 512KiB or 4MiB".to_owned())
}
