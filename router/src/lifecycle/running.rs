//! A running router's parts.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::StartedAs;
use super::fleet::Telling;
use super::sockets::Listeners;
use super::token_key::Sharing;
use crate::admin::{AdminState, ThisProcess};
use crate::config::Config;
use crate::flags::{FlagStore, Flags};
use crate::policy::{Policies, ShadowRun, SplitInForce};
use crate::quality::{self, Books, Desks, FleetClock, Quality};
use crate::release::Judging;
use crate::serve::{Generation, Serving};
use crate::tls::ServerTls;
use crate::vocabulary::RouteIndex;

/// The admin API's task, and what stops it.
pub(super) type AdminApi = (watch::Sender<bool>, JoinHandle<std::io::Result<()>>);

/// A running router.
pub(super) struct Running {
    /// The config file.
    pub(super) file: PathBuf,
    pub(super) started_as: StartedAs,
    /// The file as it was when the process started.
    pub(super) at_start: Config,
    /// The file that the config in force came from.
    pub(super) asked: Config,
    /// In force.
    pub(super) generation: Arc<Generation>,
    pub(super) flags: Arc<FlagStore>,
    pub(super) policies: Arc<Policies>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) serving: Serving,
    pub(super) counting: Counting,
    pub(super) telling: Telling,
    pub(super) judging: Judging,
    /// Where there may be other routers.
    pub(super) sharing: Option<Sharing>,
    pub(super) states: watch::Sender<Arc<AdminState>>,
    pub(super) process: ThisProcess,
    /// To be passed on; gone when the router drains.
    pub(super) listeners: Option<Listeners>,
    pub(super) admin: Option<AdminApi>,
    /// Versions of pools could not follow the flags; they try again then.
    pub(super) follows_after: Option<Instant>,
}

/// The task that turns what workers count into windows.
pub(super) struct Counting {
    pub(super) books: Arc<Books>,
    newest: watch::Sender<Quality>,
    task: JoinHandle<()>,
}

impl Counting {
    pub(super) fn start(quality: &Quality, clock: FleetClock, desks: Desks) -> Counting {
        let (newest, books) = (watch::Sender::new(quality.clone()), Arc::<Books>::default());
        let task = tokio::spawn(quality::collect(newest.subscribe(), clock, books.clone(), desks));
        Counting { books, newest, task }
    }

    /// From now on these are counted too.
    pub(super) fn succeed(&self, quality: &Quality) {
        self.newest.send_replace(quality.clone());
    }

    /// What was counted until now is in the books when this returns.
    pub(super) async fn stop(self) {
        drop(self.newest);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that counts windows ended badly");
        }
    }
}

impl Running {
    pub(super) fn config(&self) -> &Config {
        &self.generation.config
    }

    /// The number of the config in force.
    pub(super) fn generation(&self) -> u64 {
        self.generation.number
    }
}

pub(super) fn flags_of(flags: &FlagStore, routes: &[RouteIndex]) -> Vec<watch::Receiver<Arc<Flags>>> {
    routes.iter().map(|route| flags.watch(*route)).collect()
}

pub(super) fn policies_of(policies: &Policies, routes: &[RouteIndex]) -> Vec<watch::Receiver<Arc<SplitInForce>>> {
    routes.iter().map(|route| policies.split(*route)).collect()
}

pub(super) fn shadows_of(policies: &Policies, routes: &[RouteIndex]) -> Vec<watch::Receiver<Option<Arc<ShadowRun>>>> {
    routes.iter().map(|route| policies.shadow(*route)).collect()
}
