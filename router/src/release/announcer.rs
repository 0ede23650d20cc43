//! Tells the targets of `[[notify]]` what the ledger says: each event once for the whole fleet, in its order.
//!
//! The ledger is the outbox: a transition is written with its entry, and needs nobody who tells of it. For each target one router at a time has
//! the right to tell, and notes how far it came in the store; where it dies, another goes on from there. Nobody waits for this.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::notices::notice_of;
use super::under::{Under, newest};
use crate::config::Route;
use crate::flags::{LedgerEntry, Source};
use crate::notify::Delivery;
use crate::vocabulary::RouteIndex;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the right to tell lasts, how often it is renewed, and how soon another router looks again.
const LASTS: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Entries that are read at once. Older ones than this are not told any more.
const ENTRIES: usize = 1_000;

/// The tasks, one for each target.
pub(super) struct Announcer {
    tasks: Vec<JoinHandle<()>>,
}

impl Announcer {
    /// `router` is this router's id.
    pub(super) fn start(under: &watch::Receiver<Arc<Under>>, router: &str) -> Announcer {
        let targets = under.borrow().targets.clone();
        let task = |delivery: Arc<Delivery>| {
            let target = Target { under: under.clone(), router: router.to_owned(), delivery, routes: BTreeMap::new() };
            tokio::spawn(target.run())
        };
        Announcer { tasks: targets.iter().cloned().map(task).collect() }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One target.
struct Target {
    under: watch::Receiver<Arc<Under>>,
    router: String,
    delivery: Arc<Delivery>,
    routes: BTreeMap<String, Known>,
}

/// What is known of one route.
#[derive(Default)]
struct Known {
    /// The epoch that was told last.
    told: Option<u64>,
    not_before: Option<Instant>,
}

impl Target {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.under.has_changed().is_ok() {
            ticks.tick().await;
            let (under, is_other) = newest(&mut self.under);
            if is_other {
                let names: HashSet<&str> = under.config.routes.iter().map(|route| route.name.as_str()).collect();
                self.routes.retain(|name, _| names.contains(name.as_str()));
            }
            for (index, route) in (0..=u16::MAX).map(RouteIndex).zip(&under.config.routes) {
                let is_its = self.delivery.target().routes.as_ref().is_none_or(|routes| routes.contains(&route.name));
                if is_its && !self.delivery.is_off() {
                    self.look(&under, index, route).await;
                }
            }
        }
    }

    /// Where the flags are of another epoch than was told last, somebody has to tell of it.
    async fn look(&mut self, under: &Under, index: RouteIndex, route: &Route) {
        let epoch = under.flags.stored(index).epoch;
        let known = self.routes.get(&route.name);
        let is_early = known.is_some_and(|known| known.not_before.is_some_and(|not_before| Instant::now() < not_before));
        if is_early || known.is_some_and(|known| known.told.is_some_and(|told| told >= epoch)) {
            return;
        }
        if !matches!(under.flags.view(index).source, Source::Embedded | Source::Redis) {
            return;
        }
        let told = self.tell(under, index, route, epoch).await;
        let known = self.routes.entry(route.name.clone()).or_default();
        known.not_before = (!told).then(|| Instant::now() + AGAIN_AFTER);
    }

    /// Whether all is told.
    async fn tell(&mut self, under: &Under, index: RouteIndex, route: &Route, epoch: u64) -> bool {
        let Some(told) = self.right(under, route, None, epoch).await else { return false };
        let entries = match under.flags.history(index, ENTRIES).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(route = route.name, %error, "nobody is told: the ledger cannot be read");
                return false;
            }
        };
        for entry in entries.into_iter().rev().filter(|entry| entry.epoch > told) {
            if !self.deliver(under, route, &entry).await || self.right(under, route, Some(entry.epoch), epoch).await.is_none() {
                return false;
            }
        }
        // An epoch that no entry is of has nothing to tell.
        self.right(under, route, Some(epoch), epoch).await.is_some()
    }

    /// False when another router has the right meanwhile.
    async fn deliver(&mut self, under: &Under, route: &Route, entry: &LedgerEntry) -> bool {
        let Some(notice) = notice_of(&route.name, entry).filter(|notice| self.delivery.wants(notice)) else { return true };
        let delivery = self.delivery.clone();
        let delivered = delivery.deliver(&notice);
        tokio::pin!(delivered);
        loop {
            tokio::select! {
                _ = &mut delivered => return true,
                () = tokio::time::sleep(RENEW_EVERY) => {
                    // While the store is away nobody else can take it over either.
                    if self.holder(under, route, None, entry.epoch).await.is_some_and(|holder| holder != self.router) {
                        return false;
                    }
                }
            }
        }
    }

    /// The epoch that was told last, if it is this router's to tell.
    async fn right(&mut self, under: &Under, route: &Route, told: Option<u64>, begin: u64) -> Option<u64> {
        let holder = self.holder(under, route, told, begin).await?;
        let known = self.routes.get(&route.name)?.told?;
        (holder == self.router).then_some(known)
    }

    async fn holder(&mut self, under: &Under, route: &Route, told: Option<u64>, begin: u64) -> Option<String> {
        let name = self.delivery.target().name.clone();
        let known = self.routes.entry(route.name.clone()).or_default();
        // Where the store has forgotten it, this router has not.
        let begin = known.told.unwrap_or(begin);
        match under.flags.announce(&route.name, &name, &self.router, LASTS, told, begin).await {
            Ok((holder, told)) => {
                known.told = Some(told);
                Some(holder)
            }
            Err(error) => {
                tracing::debug!(route = route.name, target_name = name, error, "nobody is told while the store is away");
                None
            }
        }
    }
}
