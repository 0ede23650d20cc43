//! `switchback serve`: the router itself.
//!
//! The calling thread becomes the control thread (flags, plugins, health checks, admin API); the data path has threads of its
//! own. SIGTERM and SIGINT drain: readiness off, connections told to close, queries in flight finished.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminState};
use crate::config::{self, Config};
use crate::flags::FlagStore;
use crate::policy::Policies;
use crate::quality::Quality;
use crate::serve::{self, Inputs, Serving};
use crate::vocabulary::RouteIndex;

use super::exit;

/// Runs the router until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  switchback serve --config /etc/switchback.toml
  kill -TERM $(pidof switchback)     # drain: finish the queries in flight, then exit 0

Ready when GET /readyz on the admin listener answers 200.")]
pub(crate) struct ServeArgs {
    /// The config file; see docs/CONFIG.md
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let config = match config::load(&args.config) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(exit::USAGE);
        }
    };
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchback: {error:#}");
            ExitCode::from(exit::UNREACHABLE)
        }
    }
}

fn serve(config: &Arc<Config>) -> anyhow::Result<()> {
    let listen = &config.listen;
    let traffic = TcpListener::bind(listen.traffic).with_context(|| format!("listen.traffic: cannot listen on {}", listen.traffic))?;
    let admin = TcpListener::bind(listen.admin).with_context(|| format!("listen.admin: cannot listen on {}", listen.admin))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control thread")?;
    runtime.block_on(control(config, traffic, admin))
}

async fn control(config: &Arc<Config>, traffic: TcpListener, admin: TcpListener) -> anyhow::Result<()> {
    let flags = FlagStore::open(config).await?;
    let routes: Vec<RouteIndex> = (0..config.routes.len()).filter_map(|index| u16::try_from(index).ok()).map(RouteIndex).collect();
    let policies = Policies::open(config, routes.iter().map(|route| flags.watch(*route)).collect())?;
    let quality = Quality::new(config);
    let inputs = Inputs {
        flags: routes.iter().map(|route| flags.watch(*route)).collect(),
        policies: routes.iter().map(|route| policies.split(*route)).collect(),
    };
    let (traffic_address, admin_address) = (traffic.local_addr()?, admin.local_addr()?);
    let serving = serve::start(config, traffic, &inputs, &quality)?;
    let state = AdminState::new(config.clone(), flags, policies, quality, serving.pools.clone());
    let readiness = state.readiness();
    let (stop_admin, stopped) = tokio::sync::watch::channel(false);
    let api = tokio::spawn(admin::run(admin, state, stopped));
    // For whoever started us on port 0; everything else is in the log.
    println!("listening: traffic {traffic_address}, admin {admin_address}");
    tracing::info!(traffic = %traffic_address, admin = %admin_address, workers = config.listen.workers, "listening");
    wait_for_stop().await?;
    readiness.draining();
    drain(serving).await;
    stop_admin.send_replace(true);
    api.await.context("the admin API ended badly")??;
    Ok(())
}

async fn wait_for_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "draining");
    Ok(())
}

async fn drain(serving: Serving) {
    match serving.drain().await {
        0 => tracing::info!("drained: every query was answered"),
        cut => tracing::warn!(cut, "the drain timeout passed: queries were cut off"),
    }
}
