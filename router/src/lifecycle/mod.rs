//! The life of a router's process: start, reload, hand-over, drain.
//!
//! ```text
//! start: config, files, sockets (bound, from systemd, or from the process before) -> flags, policies, workers -> ready -> listen
//!   SIGHUP, POST /api/v1/reload   -> the next generation, built and checked whole, then swapped        (reload)
//!   SIGUSR2                       -> a new process, ready before this one stops: then as on SIGTERM     (upgrade)
//!   SIGTERM, SIGINT               -> readiness off, connections told, queries finished, the rest cut    (drain)
//! ```
//!
//! It runs on the control thread and owns the router's parts. Nothing here is on the query path.
//!
//! Invariant: whatever fails on the way to another config or process leaves the one in force as it was.

mod channel;
mod error;
mod fleet;
mod notify;
mod reload;
mod running;
mod signals;
mod sockets;
mod started_as;
mod token_key;
mod untold;
mod upgrade;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing_appender::non_blocking::ErrorCounter;

pub use error::LifecycleError;
pub use sockets::Inherited;
pub use started_as::StartedAs;

use crate::admin::{self, Access, AdminState, AskedReload, Readiness, Reloads, ThisProcess};
use crate::config::{self, Config};
use crate::flags::FlagStore;
use crate::footprint;
use crate::mlflow::Candidates;
use crate::notify::{Delivery, OpenGate, TargetError};
use crate::policy::Policies;
use crate::quality::{Desks, FleetClock, Quality, Secret, configured_secrets, token_secrets};
use crate::release::{Judging, PoolHealth, Under};
use crate::serve::{self, CutOff, Generation, Overrides, Pools, Sockets};
use crate::tls::ServerTls;
use crate::vocabulary::RouteIndex;
use channel::Predecessor;
use fleet::Telling;
use running::{Counting, Running, flags_of, policies_of, shadows_of};
use signals::{Signals, Wish};
use sockets::Listeners;
use token_key::Sharing;
use untold::Tallies;

/// What a start still does when the router is ready is over after this.
const SETTLED: Duration = Duration::from_secs(2);
/// Reloads that may wait for the one that is done.
const RELOADS: usize = 8;

/// What a router is started with.
#[derive(Debug)]
pub struct Start {
    /// The config file.
    pub file: PathBuf,
    /// How this process was started: a new one is started alike.
    pub started_as: StartedAs,
    /// Sockets that came with the process.
    pub inherited: Inherited,
    /// Says where it listens, to whoever started it.
    pub announce: fn(&Config),
    /// Counts log lines that were dropped.
    pub dropped_log_lines: ErrorCounter,
}

/// Runs a router until it is told to stop, and answers what its drain cut off.
///
/// # Errors
/// [`LifecycleError`], when it cannot start.
pub fn run(start: Start) -> Result<CutOff, LifecycleError> {
    let mut predecessor = Predecessor::find()?;
    let ended = run_after(start, &mut predecessor);
    if let (Err(error), Some(predecessor)) = (&ended, predecessor) {
        // Into the log of the process that goes on.
        predecessor.failed(&error.chain());
    }
    ended
}

fn run_after(start: Start, predecessor: &mut Option<Predecessor>) -> Result<CutOff, LifecycleError> {
    let refused = |key: &str, error: &dyn std::error::Error| LifecycleError::refused(&start.file, key, error);
    let asked = config::load(&start.file).map_err(|error| LifecycleError::Config { problems: error.lines().to_vec() })?;
    let tls = asked.tls.as_ref().map(ServerTls::load).transpose().map_err(|error| refused(error.key(), &error))?;
    let pools = Pools::of(&asked).map_err(|error| refused(error.key(), &error))?;
    FlagStore::check(&asked).map_err(|error| refused(error.key(), &error))?;
    let overrides = Overrides::load(asked.overrides.as_ref()).map_err(|error| refused(error.key(), &error))?;
    configured_secrets(&asked).map_err(|error| refused(error.key(), &error))?;
    let others = others(&asked).map_err(|error| refused(error.key(), &error))?;
    // Last, since it makes the data folder: a config that is refused leaves no trace.
    let access = Access::open(&asked).map_err(|error| refused(error.key(), &error))?;
    let secrets = token_secrets(&asked).map_err(|error| refused(error.key(), &error))?;
    let mut config = asked.clone();
    let inherited = match predecessor {
        Some(predecessor) => predecessor.sockets()?,
        None => start.inherited,
    };
    let listeners = Listeners::open(&mut config.listen, inherited)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| LifecycleError::System { what: "cannot start the control thread", source })?;
    let beginning = Beginning {
        file: start.file,
        started_as: start.started_as,
        announce: start.announce,
        dropped_log_lines: start.dropped_log_lines,
        asked,
        config: Arc::new(config),
        access: Arc::new(access),
        tls: tls.map(Arc::new),
        pools,
        overrides: Arc::new(overrides),
        secrets,
        others,
        listeners,
    };
    runtime.block_on(control(beginning, predecessor))
}

/// What was read, checked and bound before the control thread's runtime.
struct Beginning {
    file: PathBuf,
    started_as: StartedAs,
    announce: fn(&Config),
    dropped_log_lines: ErrorCounter,
    /// As in the file.
    asked: Config,
    /// With the addresses that were really bound.
    config: Arc<Config>,
    access: Arc<Access>,
    tls: Option<Arc<ServerTls>>,
    pools: Pools,
    overrides: Arc<Overrides>,
    secrets: Vec<Secret>,
    others: Others,
    listeners: Listeners,
}

async fn control(beginning: Beginning, predecessor: &mut Option<Predecessor>) -> Result<CutOff, LifecycleError> {
    let mut signals = Signals::listen()?;
    let announce = beginning.announce;
    let (asked_reloads, mut reloads) = mpsc::channel(RELOADS);
    let mut running = begin(beginning, predecessor.is_some(), asked_reloads).await?;
    if let Some(predecessor) = predecessor.as_mut() {
        running.take_over_from(predecessor).await?;
    }
    running.follow_versions().await;
    running.listen()?;
    if let Some(predecessor) = predecessor.take() {
        predecessor.serving().await;
    }
    announce(running.config());
    notify::ready(running.generation());
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        footprint::forget_start();
    });
    loop {
        tokio::select! {
            () = running.versions_moved() => running.follow_versions().await,
            Some(AskedReload { who, reply }) = reloads.recv() => drop(reply.send(running.reload(&who).await)),
            wish = signals.next() => match wish {
                Wish::Reload => drop(running.reload("SIGHUP").await),
                Wish::HandOver => match running.hand_over(&mut signals).await {
                    upgrade::Outcome::GoesOn => notify::ready(running.generation()),
                    upgrade::Outcome::HandedOver => return Ok(running.drain("handed over", false).await),
                    upgrade::Outcome::Stops(signal) => return Ok(running.drain(signal, true).await),
                },
                Wish::Stop(signal) => return Ok(running.drain(signal, true).await),
            },
        }
    }
}

/// Everything but the listeners' threads.
async fn begin(beginning: Beginning, is_beside: bool, asked_reloads: mpsc::Sender<AskedReload>) -> Result<Running, LifecycleError> {
    let Beginning { file, started_as, dropped_log_lines, asked, config, access, tls, pools, overrides, secrets, others, listeners, .. } =
        beginning;
    let flags = if is_beside { FlagStore::open_beside(&config).await? } else { FlagStore::open(&config).await? };
    let routes: Vec<RouteIndex> = (0..=u16::MAX).map(RouteIndex).take(config.routes.len()).collect();
    let policies = Policies::open(&config, flags_of(&flags, &routes))?;
    // Before anything is counted.
    let (tallies, quality) = (Tallies::open(&config.state.data_dir), Quality::new(&config));
    let (secrets, clock) = (token_key::share_first(&flags, &config, secrets).await, clock_of(&flags));
    let desks = Desks::open(&config, &secrets, &clock).map_err(no_thread)?;
    pools.look_up_names(&config).await;
    let generation = Arc::new(Generation {
        number: 1,
        config: config.clone(),
        pools,
        flags: flags_of(&flags, &routes),
        policies: policies_of(&policies, &routes),
        shadows: shadows_of(&policies, &routes),
        overrides,
        secrets,
        events: desks.events.clone(),
        signals: desks.signals.clone(),
        quality,
    });
    let counting = Counting::start(&generation.quality, clock.clone(), desks);
    let telling = Telling::start(&flags, clock.clone(), counting.books.clone(), tallies);
    let judging = judging(under(&generation, &flags, &policies, others), &counting, &clock)?;
    let sharing = flags.has_others().then(|| Sharing::start(&flags, &config, asked_reloads.clone()));
    let serving = serve::start(generation.clone())?;
    let process = ThisProcess {
        readiness: Readiness::default(),
        reloads: Arc::new(Reloads::new(asked_reloads)),
        connections: serving.connections.clone(),
        started_unix_ms: admin::now_unix_ms(),
        books: counting.books.clone(),
        board: judging.board(),
        clock,
        candidates: Candidates::new(started_as.program.clone(), &file, &config.state.data_dir),
        dropped_log_lines,
    };
    let parts = admin::Parts {
        generation: generation.clone(),
        flags: flags.clone(),
        policies: policies.clone(),
        tls: tls.clone(),
        access,
        waiting: Vec::new(),
    };
    let states = watch::Sender::new(Arc::new(AdminState::new(parts, process.clone())));
    Ok(Running {
        file,
        started_as,
        at_start: asked.clone(),
        asked,
        generation,
        flags,
        policies,
        tls,
        serving,
        counting,
        sharing,
        telling,
        judging,
        states,
        process,
        listeners: Some(listeners),
        admin: None,
        follows_after: None,
    })
}

impl Running {
    /// Takes connections on every address.
    fn listen(&mut self) -> Result<(), LifecycleError> {
        let Some(listeners) = &self.listeners else { return Ok(()) };
        let clone = |socket: &std::net::TcpListener| socket.try_clone().map_err(LifecycleError::of_sockets);
        let traffic_tls = match (&listeners.traffic_tls, &self.tls) {
            (Some(socket), Some(tls)) => Some((clone(socket)?, tls.clone())),
            _ => None,
        };
        self.serving.listen(Sockets { traffic: clone(&listeners.traffic)?, traffic_tls })?;
        self.listen_to_operators()
    }

    /// Answers the admin API, until [`Running::leave_operators`].
    fn listen_to_operators(&mut self) -> Result<(), LifecycleError> {
        let Some(listeners) = &self.listeners else { return Ok(()) };
        let socket = listeners.admin.try_clone().map_err(LifecycleError::of_sockets)?;
        let (stop, stopped) = watch::channel(false);
        self.admin = Some((stop, tokio::spawn(admin::run(socket, self.states.subscribe(), stopped))));
        self.process.candidates.resume(&self.generation.config);
        Ok(())
    }

    /// Ends the admin API: no new connection is taken when this returns, and requests in flight have two seconds.
    async fn leave_operators(&mut self) {
        let Some((stop, api)) = self.admin.take() else { return };
        stop.send_replace(true);
        match api.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the admin listener could not be used"),
            Err(error) => tracing::error!(%error, "the admin API ended badly"),
        }
        self.process.candidates.stop();
    }

    /// Ends in order: see [`serve::Serving::drain`].
    async fn drain(mut self, why: &'static str, takes_connections: bool) -> CutOff {
        let config = self.generation.config.clone();
        tracing::info!(why, timeout = ?config.limits.drain_timeout, "draining");
        notify::stopping(why);
        self.process.readiness.draining();
        self.process.candidates.stop();
        // The acceptor has its own; when that stops, nobody listens here any more.
        self.listeners = None;
        let plan = serve::DrainPlan { announce: config.lifecycle.drain_announce, timeout: config.limits.drain_timeout, takes_connections };
        let (stop, api) = self.admin.take().unzip();
        let cut_off = self.serving.drain(plan).await;
        self.counting.stop().await;
        self.telling.stop().await;
        if let (Some(stop), Some(api)) = (stop, api) {
            stop.send_replace(true);
            let _ = api.await;
        }
        match cut_off {
            CutOff { queries: 0, upgraded: 0 } => tracing::info!("drained: every query was answered"),
            CutOff { queries, upgraded } => tracing::warn!(queries, upgraded, "the drain timeout passed: what was left was cut off"),
        }
        cut_off
    }
}

/// The fleet's clock, as far as the store has said it.
fn clock_of(flags: &FlagStore) -> FleetClock {
    let (clock, time) = (FleetClock::start(), *flags.clock().borrow());
    if let Some(time) = time {
        clock.hear_at(time.at, time.unix_ms);
    }
    clock
}

fn no_thread(source: std::io::Error) -> LifecycleError {
    LifecycleError::System { what: "cannot start a thread for what is counted", source }
}

fn judging(under: Under, counting: &Counting, clock: &FleetClock) -> Result<Judging, LifecycleError> {
    let data_dir = under.config.state.data_dir.clone();
    Judging::start(under, counting.books.clone(), clock.clone(), &data_dir).map_err(no_thread)
}

/// Who is told of what happens, and who is asked, by route.
pub(super) struct Others {
    targets: Vec<Arc<Delivery>>,
    gates: BTreeMap<String, Vec<Arc<OpenGate>>>,
}

/// The secrets and certificates that the config names are read.
fn others(config: &Config) -> Result<Others, TargetError> {
    let targets = config.notify.iter().map(|target| Delivery::open(target).map(Arc::new)).collect::<Result<_, _>>()?;
    let mut gates = BTreeMap::new();
    for route in &config.routes {
        let open = route.rollout.gates.iter().map(|gate| OpenGate::open(&route.name, gate).map(Arc::new));
        gates.insert(route.name.clone(), open.collect::<Result<_, _>>()?);
    }
    Ok(Others { targets, gates })
}

/// What judges, breakers and rollouts see of a generation.
fn under(generation: &Arc<Generation>, flags: &Arc<FlagStore>, policies: &Arc<Policies>, others: Others) -> Under {
    let Others { targets, gates } = others;
    let pools = generation.clone();
    let health = move |route: RouteIndex| {
        let pools = pools.pools.shared.get(route.get()).map(Vec::as_slice).unwrap_or_default();
        pools.iter().map(|pool| PoolHealth { healthy: pool.healthy(), endpoints: pool.endpoints.len() }).collect()
    };
    let (config, flags, policies, quality) = (generation.config.clone(), flags.clone(), policies.clone(), generation.quality.clone());
    Under { config, flags, policies, quality, signals: generation.signals.clone(), health: Arc::new(health), gates, targets }
}
