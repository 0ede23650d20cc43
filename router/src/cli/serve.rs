//! `switchback serve`: the router itself.
//!
//! The calling thread becomes the control thread (flags, plugins, health checks, admin API); the data path has threads of its
//! own. SIGTERM and SIGINT drain: readiness off, connections told to close, queries in flight finished.

use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::admin::{self, Access, AdminState, EndpointHealth};
use crate::config::{self, Config};
use crate::flags::FlagStore;
use crate::policy::Policies;
use crate::quality::Quality;
use crate::serve::{self, Inputs, Serving, SharedPool};
use crate::vocabulary::{PoolIndex, RouteIndex};

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
        let config = config::load(&self.config).map_err(|error| Failure::usage(error.to_string()))?;
        start_log(self.log);
        serve(config).map_err(|error| Failure::unreachable(format!("{error:#}")))
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn serve(mut config: Config) -> anyhow::Result<()> {
    let listen = &mut config.listen;
    let traffic = TcpListener::bind(listen.traffic).with_context(|| format!("listen.traffic: cannot listen on {}", listen.traffic))?;
    let admin = TcpListener::bind(listen.admin).with_context(|| format!("listen.admin: cannot listen on {}", listen.admin))?;
    // Where port 0 was asked for, everybody hears of the one that was given.
    listen.traffic = traffic.local_addr()?;
    listen.admin = admin.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control thread")?;
    runtime.block_on(control(&Arc::new(config), traffic, admin))
}

async fn control(config: &Arc<Config>, traffic: TcpListener, admin: TcpListener) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let access = Access::open(config)?;
    let flags = FlagStore::open(config).await?;
    let routes: Vec<RouteIndex> = (0..=u16::MAX).map(RouteIndex).take(config.routes.len()).collect();
    let policies = Policies::open(config, routes.iter().map(|route| flags.watch(*route)).collect())?;
    let quality = Quality::new(config);
    let inputs = Inputs {
        flags: routes.iter().map(|route| flags.watch(*route)).collect(),
        policies: routes.iter().map(|route| policies.split(*route)).collect(),
    };
    let serving = serve::start(config, traffic, &inputs, &quality)?;
    let (listening, is_listening) = watch::channel(true);
    let pools = serving.pools.clone();
    let endpoints = Arc::new(move || endpoint_health(&pools));
    let state = AdminState { config: config.clone(), flags, policies, quality, endpoints, is_listening, access: Arc::new(access) };
    admin.set_nonblocking(true)?;
    let (stop_admin, stopped) = watch::channel(false);
    let api = tokio::spawn(admin::run(tokio::net::TcpListener::from_std(admin)?, state, until(stopped)));
    announce(config);
    tracing::info!(signal = stop.await, "draining");
    listening.send_replace(false);
    drain(serving).await;
    stop_admin.send_replace(true);
    api.await.context("the admin API ended badly")
}

/// For whoever started us on port 0, and for the log.
fn announce(config: &Config) {
    let config::Listen { traffic, admin, workers } = &config.listen;
    tracing::info!(%traffic, %admin, workers, "listening");
    let mut stdout = std::io::stdout().lock();
    // A reader that is gone is no reason not to serve.
    let _ = writeln!(stdout, "listening: traffic {traffic}, admin {admin}").and_then(|()| stdout.flush());
}

async fn until(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = flag.wait_for(|set| *set).await;
}

fn endpoint_health(pools: &[Vec<Arc<SharedPool>>]) -> Vec<EndpointHealth> {
    let mut all = Vec::new();
    for (route, pools) in (0..=u16::MAX).map(RouteIndex).zip(pools) {
        for (pool, shared) in (0..=u8::MAX).map(PoolIndex).zip(pools) {
            all.extend(shared.endpoints.iter().map(|endpoint| EndpointHealth {
                route,
                pool,
                endpoint: endpoint.authority.to_string(),
                is_healthy: endpoint.is_healthy(),
                in_flight: u64::try_from(endpoint.in_flight()).unwrap_or(u64::MAX),
            }));
        }
    }
    all
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
