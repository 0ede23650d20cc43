//! `switchback serve`: the router itself.
//!
//! The calling thread becomes the control thread (flags, plugins, health checks, admin API); the data path has threads of its
//! own. SIGTERM and SIGINT drain: readiness off, connections told to close, queries in flight finished.

use std::io::{IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::admin::{self, Access, AccessError, AdminState};
use crate::config::{self, Config};
use crate::flags::{FlagStore, FlagsError};
use crate::policy::Policies;
use crate::quality::Quality;
use crate::serve::{self, Inputs, OverrideError, Overrides, Serving, SharedPool, Sockets};
use crate::tls::{ServerTls, TlsError};
use crate::vocabulary::RouteIndex;

/// Run the router until it is told to stop.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchback serve --config /etc/switchback.toml
  RUST_LOG=debug switchback serve --config switchback.toml --log json
  kill -TERM $(pidof switchback)     # drain: finish the queries in flight, then exit 0

Prints one line with its addresses when it listens; ready when GET /readyz on the admin listener answers 200.")]
pub(super) struct Serve {
    /// The config file; see docs/CONFIG.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines look. They go to stderr; RUST_LOG says which (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Serve {
    /// Serves until SIGTERM or SIGINT.
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = config::load(&self.config).map_err(|error| Failure::config(&error.to_string()))?;
        // Writes what is still to be written when it is dropped.
        let _log = start_log(self.log);
        let refused =
            |error: AccessError| Failure::config(&format!("{}: {}", config::place(&self.config, error.key()), Failure::chain(&error)));
        let access = Access::open(&config).map_err(refused)?;
        let refused =
            |error: TlsError| Failure::config(&format!("{}: {}", config::place(&self.config, error.key()), Failure::chain(&error)));
        let certificates = Certificates::load(&config).map_err(refused)?;
        let refused =
            |error: FlagsError| Failure::config(&format!("{}: {}", config::place(&self.config, error.key()), Failure::chain(&error)));
        FlagStore::check(&config).map_err(refused)?;
        let refused =
            |error: OverrideError| Failure::config(&format!("{}: {}", config::place(&self.config, error.key()), Failure::chain(&error)));
        let overrides = Overrides::load(config.overrides.as_ref()).map_err(refused)?;
        serve(config, access, certificates, overrides).map_err(|error| Failure::unreachable(format!("{error:#}")))
    }
}

/// Log lines that may wait to be written.
const LOG_LINES: usize = 10_000;

/// Lines are written by a thread of their own: whoever reads stderr may be slow or stuck, and no worker waits for that. Lines beyond
/// [`LOG_LINES`] are dropped.
fn start_log(format: LogFormat) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    guard
}

/// What TLS needs, read before a port is bound.
pub(super) struct Certificates {
    server: Option<Arc<ServerTls>>,
    pools: Vec<Vec<Arc<SharedPool>>>,
}

impl Certificates {
    /// Reads and checks every file.
    pub(super) fn load(config: &Config) -> Result<Certificates, TlsError> {
        let server = config.tls.as_ref().map(ServerTls::load).transpose()?.map(Arc::new);
        Ok(Certificates { server, pools: serve::pools(config)? })
    }
}

fn serve(mut config: Config, access: Access, certificates: Certificates, overrides: Overrides) -> anyhow::Result<()> {
    let listen = &mut config.listen;
    let bind = |key: &str, address: &mut SocketAddr| {
        let socket = TcpListener::bind(*address).with_context(|| format!("{key}: cannot listen on {address}"))?;
        // Where port 0 was asked for, everybody hears of the one that was given.
        *address = socket.local_addr()?;
        anyhow::Ok(socket)
    };
    let traffic = bind("listen.traffic", &mut listen.traffic)?;
    let traffic_tls = match (&mut listen.traffic_tls, certificates.server) {
        (Some(address), Some(tls)) => Some((bind("listen.traffic_tls", address)?, tls)),
        _ => None,
    };
    let admin = bind("listen.admin", &mut listen.admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control thread")?;
    let sockets = Sockets { traffic, traffic_tls };
    runtime.block_on(control(&Arc::new(config), sockets, certificates.pools, admin, access, overrides))
}

async fn control(
    config: &Arc<Config>,
    sockets: Sockets,
    pools: Vec<Vec<Arc<SharedPool>>>,
    admin: TcpListener,
    access: Access,
    overrides: Overrides,
) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let flags = FlagStore::open(config).await?;
    let routes: Vec<RouteIndex> = (0..=u16::MAX).map(RouteIndex).take(config.routes.len()).collect();
    let policies = Policies::open(config, routes.iter().map(|route| flags.watch(*route)).collect())?;
    let quality = Quality::new(config);
    let inputs = Inputs {
        flags: routes.iter().map(|route| flags.watch(*route)).collect(),
        policies: routes.iter().map(|route| policies.split(*route)).collect(),
        shadows: routes.iter().map(|route| policies.shadow(*route)).collect(),
        overrides: Arc::new(overrides),
    };
    let tls = sockets.traffic_tls.as_ref().map(|(_, tls)| tls.clone());
    serve::look_up_names(config, &pools).await;
    let serving = serve::start(config, sockets, pools, &inputs, &quality)?;
    let state = AdminState::new(config.clone(), flags, policies, quality, serving.pools.clone(), tls, access);
    let readiness = state.readiness();
    let (stop_admin, stopped) = watch::channel(false);
    let api = tokio::spawn(admin::run(admin, state, stopped));
    announce(config);
    tracing::info!(signal = stop.await, "draining");
    readiness.draining();
    drain(serving).await;
    stop_admin.send_replace(true);
    api.await.context("the admin API ended badly")?.context("the admin listener cannot be used")
}

/// For whoever started us on port 0, and for the log.
fn announce(config: &Config) {
    let config::Listen { traffic, traffic_tls, admin, workers, .. } = &config.listen;
    let over_tls = traffic_tls.map_or_else(String::new, |address| format!(", tls {address}"));
    tracing::info!(%traffic, ?traffic_tls, %admin, workers, "listening");
    let mut stdout = std::io::stdout().lock();
    // A reader that is gone is no reason not to serve.
    let _ = writeln!(stdout, "listening: traffic {traffic}, admin {admin}{over_tls}").and_then(|()| stdout.flush());
}

/// Listens for signals from now on; resolves with the name of the first.
fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

async fn drain(serving: Serving) {
    match serving.drain().await {
        0 => tracing::info!("drained: every query was answered"),
        cut => tracing::warn!(cut, "the drain timeout passed: queries were cut off"),
    }
}
