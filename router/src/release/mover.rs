//! Moves a route's rollout on: one router at a time, which holds the lease.
//!
//! The lease saves work; it is not what makes this safe. Each write names the epoch that it was decided on, so that of two routers which both
//! take themselves for the holder (one was stopped for a while) one writes, and the other sees what is there then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Board, RouteBoard};
use super::gates::Gates;
use super::grounds::grounds;
use super::loader::Loader;
use super::looks::Looks;
use super::rollout::{Move, Next, Seen, ToLoad, copies_before, next};
use super::strays::Strays;
use super::under::Under;
use crate::config::Route;
use crate::flags::{Change, ChangeError, Flags, Kind, Lease, Rollout, Source};
use crate::loading::Purpose;
use crate::vocabulary::RouteIndex;

/// How long a lease lasts, and how often it is asked for.
const LASTS: Duration = Duration::from_secs(3);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// After a write that failed, the next one is tried so much later.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One look at a route.
pub(super) struct Look<'a> {
    pub(super) under: &'a Under,
    pub(super) index: RouteIndex,
    pub(super) route: &'a Route,
    pub(super) flags: &'a Flags,
    /// This router's id.
    pub(super) router: &'a str,
    pub(super) now_ms: u64,
    /// The fleet's clock was heard: times of the record and `now_ms` are of one clock.
    pub(super) is_clock_heard: bool,
    pub(super) board: &'a Board,
}

/// What this router knows of a route's lease.
#[derive(Default)]
pub(super) struct Mover {
    lease: Option<Lease>,
    /// It was ours until then.
    until: Option<Instant>,
    asked: Option<Instant>,
    not_before: Option<Instant>,
    is_failing: bool,
    gates: Gates,
    loader: Loader,
    strays: Strays,
    looks: Looks,
    /// The one that was last under way.
    last: Option<Arc<Rollout>>,
    /// The gate that says that the candidate is to go.
    pub(super) wants_rollback: Option<String>,
    /// By the flags that were looked at last no rollout is under way, and nothing is left of one before.
    pub(super) rests: bool,
}

impl Mover {
    pub(super) async fn look(&mut self, look: &Look<'_>) {
        if let Some(rollout) = &look.flags.rollout {
            self.last = Some(rollout.clone());
        }
        let underway = self.last.clone().filter(|rollout| rollout.phase.is_active());
        self.strays.look(look, underway.is_some()).await;
        let Some(rollout) = underway else {
            self.gates.forget();
            self.loader.take_back();
            self.looks.forget();
            return self.rest(look).await;
        };
        self.rests = false;
        // A router that has not heard its store holds candidates at 0, whatever the record says.
        if !look.is_clock_heard || !matches!(look.under.flags.view(look.index).source, Source::Embedded | Source::Redis) {
            let waits_for = Some((rollout.moves, "the store was not heard yet".to_owned()));
            return look.board.put_rollout(&look.route.name, waits_for, None);
        }
        self.keep_lease(look, rollout.term).await;
        let RouteBoard { evidence, away, .. } = look.board.of(&look.route.name);
        let routers = look.under.flags.routers(look.index);
        let healthy: Vec<usize> = (look.under.health)(look.index).into_iter().map(|pool| pool.healthy).collect();
        let Look { route, flags, now_ms, .. } = *look;
        let is_ours = self.is_ours();
        if is_ours {
            self.strays.restore(look);
        } else {
            self.loader.let_go();
        }
        self.loader.end_others(&rollout.id);
        let (evidence, load) = (evidence.as_ref(), self.loader.seen(&rollout.id));
        let servers = self.looks.see(look, &rollout, &mut self.strays).await;
        let (routers, healthy, load, servers) = (routers.as_slice(), healthy.as_slice(), load.as_ref(), Some(&servers));
        let seen = Seen { route, flags, rollout: &rollout, now_ms, evidence, routers, healthy, gate: None, load, servers };
        let open = look.under.gates.get(&route.name).map(Vec::as_slice).unwrap_or_default();
        let mut next = next(&seen);
        if let Some(event) = next.gated(&rollout)
            && is_ours
            && let Some(gate) = self.gates.wait_for(open, &rollout, event, &route.name).await
        {
            next = super::rollout::next(&Seen { gate: Some(&gate), ..seen });
        }
        self.wants_rollback = if is_ours { self.gates.wants_rollback(open, &rollout, &route.name).await } else { None };
        let waits_for = match &next {
            Next::Wait(_) if let Some(why) = away => Some(format!("nothing is judged: {why}")),
            Next::Wait(what) => Some(what.clone()),
            Next::Load(to_load) => {
                let told = self.load(look, &rollout, to_load, is_ours);
                Some(seen.cannot_load(to_load).unwrap_or(told))
            }
            Next::Look { pools, .. } => {
                if is_ours {
                    self.looks.begin(look, pools);
                }
                let pools: Vec<&str> = pools.iter().map(|(pool, _)| pool.as_str()).collect();
                self.looks.is_slow().then(|| format!("the servers of {} are asked what they serve", pools.join(", ")))
            }
            Next::Rest | Next::Go(_) => None,
        };
        let waits_for = waits_for.map(|what| (rollout.moves, what));
        look.board.put_rollout(&route.name, waits_for, self.lease.as_ref().map(|lease| lease.holder.clone()));
        let now = Instant::now();
        let is_early = self.not_before.is_some_and(|not_before| now < not_before);
        if let Next::Go(go) = next
            && is_ours
            && !is_early
        {
            self.write(look, *go).await;
        }
    }

    /// Begins a load, unless it is under way or another router's: how far it is.
    fn load(&mut self, look: &Look<'_>, rollout: &Rollout, to_load: &ToLoad, is_ours: bool) -> String {
        if !is_ours {
            let by = self.lease.as_ref().map_or("nobody yet", |lease| lease.holder.as_str());
            return format!("{} is loaded on {}, by {by}", to_load.version, to_load.pool);
        }
        let begin = || self.loader.begin((&rollout.id, purpose(rollout, look.route)), to_load.clone(), &look.under.config, look.route);
        self.strays.leave(&to_load.pool).unwrap_or_else(begin)
    }

    /// No rollout is under way.
    async fn rest(&mut self, look: &Look<'_>) {
        self.wants_rollback = None;
        self.rests = self.strays.are_not_looked_for();
        self.restore_between_rollouts(look).await;
        look.board.put_rollout(&look.route.name, None, None);
    }

    /// Of several routers the one that has the lease has servers load what they lost.
    async fn restore_between_rollouts(&mut self, look: &Look<'_>) {
        if !self.strays.wants_lease(look) {
            self.lease = None;
            return;
        }
        self.keep_lease(look, self.last.as_ref().map_or(0, |rollout| rollout.term)).await;
        if self.is_ours() && !self.loader.is_leaving() {
            self.strays.restore(look);
        }
    }

    fn is_ours(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    async fn keep_lease(&mut self, look: &Look<'_>, term: u64) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now < asked + ASK_EVERY) {
            return;
        }
        self.asked = Some(now);
        match look.under.flags.lease(&look.route.name, look.router, LASTS, term).await {
            Ok(lease) => {
                // From before it was asked for: it does not last longer than the store thinks.
                self.until = (lease.holder == look.router).then_some(now + LASTS);
                self.lease = Some(lease);
            }
            Err(error) => {
                tracing::debug!(route = look.route.name, error, "the lease of the rollout cannot be had");
                self.lease = None;
            }
        }
    }

    async fn write(&mut self, look: &Look<'_>, go: Move) {
        let term = self.lease.as_ref().map_or(0, |lease| lease.term);
        let Move { event, mut rollout, mut fields } = go;
        if rollout.term > term {
            // Somebody of a later term moved it: the lease is asked for again.
            (self.until, self.asked) = (None, None);
            return;
        }
        rollout.term = term;
        fields.insert("rollout".to_owned(), Some(rollout.render()));
        let (route, what, why) = (&look.route.name, rollout.summary(), rollout.why.clone());
        let who = format!("router:{}", look.router).chars().take(128).collect();
        let copies = copies_before(look.flags, &look.under.flags.routers(look.index));
        let grounds = Some(Box::new(grounds(event.label(), &rollout, &look.board.of(route), copies)));
        let change = Change { fields, expected_epoch: Some(look.flags.epoch), kind: Kind::Rollout, who, why: why.clone(), grounds };
        match look.under.flags.change(look.index, change).await {
            Ok(epoch) => {
                tracing::info!(route, event = event.label(), what, epoch, why, "the rollout goes on");
                look.board.count_move(route, event.label());
                self.is_failing = false;
            }
            // Somebody was first: what they wrote is looked at.
            Err(ChangeError::Conflict { .. }) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(route, event = event.label(), what, %error, "the rollout cannot be moved on; it is tried again");
                }
                self.not_before = Some(Instant::now() + AGAIN_AFTER);
            }
        }
    }
}

/// What a rollout's version is loaded for. What is promoted without further steps is a candidate all the same: nobody had it before.
fn purpose(rollout: &Rollout, route: &Route) -> Purpose {
    if rollout.goes_back() { Purpose::WayBack } else { Purpose::candidate(route, &rollout.control) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Hurry;
    use crate::release::roles::tests::flags;
    use crate::release::rollout::{Begin, begin};

    #[test]
    fn what_is_promoted_is_a_candidate_and_what_comes_back_at_once_is_none() {
        let route = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\nurl = \"file:///tmp/models\"\n\
                     [[route]]\nname = \"search\"\n[route.loading]\nmodel = \"search\"\n\
                     [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"search:1\"\n\
                     [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = \"search:2\"\n\
                     [route.pools.canary]\nendpoints = [\"http://127.0.0.1:3\"]\nversion = \"search:2\"\n";
        let route = crate::config::parse("test", route).unwrap().routes.remove(0);
        let begun = |at_once| {
            let asked = Begin { candidate: Some("search:3".to_owned()), at_once, id: "cd".repeat(16), ..Begin::default() };
            begin(&asked, &flags(&route, &[]), &route, &[1, 1, 1], 7).unwrap().rollout
        };
        let (back, rollout) = (begun(true), begun(false));
        assert_eq!((back.hurry, purpose(&back, &route)), (Some(Hurry::Live), Purpose::WayBack));
        let candidate = Purpose::Candidate { live: None };
        let promoted = Rollout { hurry: Some(Hurry::Live), ..rollout.clone() };
        assert_eq!((purpose(&rollout, &route), purpose(&promoted, &route)), (candidate.clone(), candidate));
    }
}
