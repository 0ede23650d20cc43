//! Looks at servers just before a rollout goes on: whether those that were judged, and those that come next, serve what their pools run.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mover::Look;
use super::rollout::{Asked, ServersSeen, judged};
use super::strays::{PoolStrays, RouteStrays, Strays, in_words, load_of};
use crate::config::{Config, Route};
use crate::flags::{Phase, Rollout};
use crate::loading::{Load, strays};

/// A server that does not tell by then what it serves is not waited for.
const TELLS_WITHIN: Duration = Duration::from_secs(3);
/// Whoever watches is told of a look that takes longer.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// What a look found is of now for so long.
const FRESH: Duration = Duration::from_secs(1);

/// A look that is under way.
struct Looking {
    pools: Vec<Asked>,
    task: JoinHandle<RouteStrays>,
    began: Instant,
}

/// The looks of one route, one at a time.
#[derive(Default)]
pub(super) struct Looks {
    /// Rollout, phase, step and when that began.
    step: Option<(String, Phase, usize, u64)>,
    looking: Option<Looking>,
    /// By the last look, and until when that is of now.
    asked: Vec<Asked>,
    until: Option<Instant>,
    /// Pools that had strays in this step.
    had: BTreeSet<String>,
}

impl Looks {
    /// What is known of the servers by now.
    pub(super) async fn see(&mut self, look: &Look<'_>, rollout: &Rollout, strays: &mut Strays) -> ServersSeen {
        let step = (rollout.id.clone(), rollout.phase, rollout.step, rollout.since_ms);
        if self.step.as_ref() != Some(&step) {
            self.forget();
            strays.attend(&[]);
            self.step = Some(step);
        }
        let now = Instant::now();
        if let Some(Looking { pools, task, .. }) = self.looking.take_if(|looking| looking.task.is_finished())
            && let Ok(found) = task.await
        {
            strays.doubt(found, &pools);
            (self.asked, self.until) = (pools, Some(now + FRESH));
        }
        if self.until.is_none_or(|until| now >= until) {
            self.asked.clear();
        }
        let found = strays.suspected();
        let judged = judged(rollout, look.flags, look.route);
        self.had.extend(judged.into_iter().map(|(pool, _)| pool).filter(|pool| found.contains_key(pool)));
        let strays = found.iter().map(|(pool, found)| (pool.clone(), in_words(&found.strays))).collect();
        ServersSeen { asked: self.asked.clone(), strays, had: self.had.clone() }
    }

    /// Begins a look, unless it is under way. Only for the router that has the route's lease.
    pub(super) fn begin(&mut self, look: &Look<'_>, pools: &[Asked]) {
        if self.looking.as_ref().is_some_and(|looking| looking.pools == pools) {
            return;
        }
        let loads = loads(&look.under.config, look.route, pools);
        let task = tokio::spawn(async move { ask(&loads, TELLS_WITHIN).await });
        if let Some(before) = self.looking.replace(Looking { pools: pools.to_vec(), task, began: Instant::now() }) {
            before.task.abort();
        }
    }

    /// One takes so long that whoever watches wants to know.
    pub(super) fn is_slow(&self) -> bool {
        self.looking.as_ref().is_some_and(|looking| looking.began.elapsed() > TOLD_AFTER)
    }

    /// Another step, or none: what was found is of the one before.
    pub(super) fn forget(&mut self) {
        if let Some(looking) = std::mem::take(self).looking {
            looking.task.abort();
        }
    }
}

/// The strays of these pools that a look of so long finds.
pub async fn strays_now(config: &Config, route: &Route, pools: &[Asked], within: Duration) -> RouteStrays {
    ask(&loads(config, route, pools), within).await
}

/// What a look of so long finds of these pools. For whoever cannot wait: a server that does not tell in time is no stray.
pub async fn servers_now(config: &Config, route: &Route, pools: Vec<Asked>, within: Duration) -> ServersSeen {
    let found = strays_now(config, route, &pools, within).await;
    let strays = found.iter().map(|(pool, found)| (pool.clone(), in_words(&found.strays))).collect();
    ServersSeen { asked: pools, strays, had: BTreeSet::new() }
}

fn loads(config: &Config, route: &Route, pools: &[Asked]) -> Vec<Load> {
    pools.iter().filter_map(|pool| load_of(config, route, pool, None)).collect()
}

async fn ask(loads: &[Load], within: Duration) -> RouteStrays {
    let by = Instant::now() + within;
    let mut looks = Vec::new();
    for load in loads {
        looks.push(async move { (load, strays(load, Some(by)).await) });
    }
    let found = futures_util::future::join_all(looks).await;
    let of = |(load, strays): (&Load, Vec<_>)| {
        let version = load.pool.version.clone();
        (load.pool.name.clone(), PoolStrays { version, strays, ..PoolStrays::default() })
    };
    found.into_iter().filter(|(_, strays)| !strays.is_empty()).map(of).collect()
}
