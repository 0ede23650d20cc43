//! A route and a fleet to roll out on, in memory.

use super::*;
use crate::flags::{Fields, Flags, Rollout, RouterSeen};
use crate::release::roles::tests::route;
use crate::release::view::{EvidenceView, RoleView, WindowsView};
use crate::vocabulary::Ppm;

/// Blue runs v1 and is live; green and canary run v2.
pub(super) struct Scene {
    pub(super) route: crate::config::Route,
    pub(super) fields: Fields,
    pub(super) now_ms: u64,
    pub(super) evidence: Option<EvidenceView>,
    pub(super) routers: Vec<RouterSeen>,
    pub(super) healthy: Vec<usize>,
    pub(super) gate: Option<&'static str>,
    pub(super) load: Option<LoadSeen>,
    /// Unless it is said, all were asked just now, and serve what they should.
    pub(super) servers: Option<ServersSeen>,
}

impl Scene {
    pub(super) fn start() -> Scene {
        let mut scene = Scene::quiet(route(["v1", "v2", "v2"]));
        let begun = scene.begin(None).unwrap();
        scene.write(&begun);
        scene
    }

    /// With nothing under way.
    pub(super) fn quiet(route: crate::config::Route) -> Scene {
        let mut scene = Scene {
            fields: Flags::initial(&route).render(&route),
            route,
            now_ms: 1_000_000,
            evidence: None,
            routers: vec![router("one"), router("other")],
            healthy: vec![2, 2, 2],
            gate: None,
            load: None,
            servers: None,
        };
        scene.fields.insert("epoch".to_owned(), "7".to_owned());
        scene
    }

    pub(super) fn flags(&self) -> Flags {
        let (flags, faults) = Flags::read(&self.fields, &Flags::initial(&self.route), &self.route);
        assert_eq!(faults, []);
        flags
    }

    pub(super) fn rollout(&self) -> Rollout {
        Rollout::clone(self.flags().rollout.as_ref().unwrap())
    }

    pub(super) fn begin(&self, candidate: Option<&str>) -> Result<Move, Refusal> {
        let asked = Begin {
            candidate: candidate.map(str::to_owned),
            id: "ab".repeat(16),
            salt: "0123456789".to_owned(),
            who: "alice".to_owned(),
            why: "salt of this rollout".to_owned(),
            ..Begin::default()
        };
        begin(&asked, &self.flags(), &self.route, &self.healthy, self.now_ms)
    }

    pub(super) fn seen<T>(&self, look: impl FnOnce(&Seen<'_>) -> T) -> T {
        let (flags, rollout) = (self.flags(), self.rollout());
        let asked = self.route.pools.iter().map(|pool| (pool.name.clone(), pool.version.clone())).collect();
        let servers = self.servers.clone().unwrap_or_else(|| ServersSeen { asked, ..ServersSeen::default() });
        look(&Seen {
            route: &self.route,
            flags: &flags,
            rollout: &rollout,
            now_ms: self.now_ms,
            evidence: self.evidence.as_ref(),
            routers: &self.routers,
            healthy: &self.healthy,
            gate: self.gate,
            load: self.load.as_ref(),
            servers: Some(&servers),
        })
    }

    pub(super) fn next(&self) -> Next {
        self.seen(next)
    }

    pub(super) fn waits_for(&self) -> String {
        match self.next() {
            Next::Wait(what) => what,
            other => panic!("{other:?}"),
        }
    }

    /// The next transition is written.
    pub(super) fn go(&mut self) -> Event {
        match self.next() {
            Next::Go(go) => {
                self.write(&go);
                go.event
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn order(&mut self, order: Order) -> Result<Event, String> {
        let made = self.seen(|seen| carry_out(order, seen, "alice", "")).map_err(|refusal| refusal.0)?;
        self.write(&made);
        Ok(made.event)
    }

    pub(super) fn write(&mut self, made: &Move) {
        for (field, value) in &made.fields {
            match value {
                Some(value) => self.fields.insert(field.clone(), value.clone()),
                None => self.fields.remove(field),
            };
        }
    }

    /// An hour later the policy says so, of windows until then, of so many requests of the candidate.
    pub(super) fn judge(&mut self, verdict: &'static str, requests: u64) {
        self.now_ms += 3_600_000;
        self.evidence = Some(evidence(verdict, requests, self.now_ms));
    }

    pub(super) fn shares(&self) -> (String, String, String) {
        let flags = self.flags();
        let name = |index: crate::vocabulary::PoolIndex| self.route.pools[index.get()].name.clone();
        let held = flags.holdback.map_or(Ppm::ZERO, |holdback| holdback.share);
        (name(flags.live), format!("{} on {}", flags.candidate.share, name(flags.candidate.pool)), held.to_string())
    }
}

pub(super) fn router(id: &str) -> RouterSeen {
    let (seal, admin) = (String::new(), String::new());
    RouterSeen {
        id: id.to_owned(),
        epoch: 1 << 40,
        seal,
        seen_ms_ago: 0,
        is_known: true,
        admin,
        trip: None,
        down: Vec::new(),
        copies: None,
    }
}

pub(super) fn evidence(verdict: &'static str, requests: u64, now_ms: u64) -> EvidenceView {
    let role = |version: &str| RoleView { version: version.to_owned(), pools: Vec::new() };
    EvidenceView {
        candidate: role("v2"),
        control: role("v1"),
        began_unix_seconds: 0,
        began_epoch: None,
        is_over: false,
        candidate_requests: requests,
        judged_until_unix_seconds: u32::try_from(now_ms / 1_000).unwrap(),
        candidate_failing: Some(0.01),
        control_failing: Some(0.01),
        verdict: Some(verdict),
        summary: format!("{verdict}: so says the policy"),
        log_harm: None,
        threshold_log: None,
        metrics: Vec::new(),
        windows: WindowsView { traffic: 1, engagement: 1 },
        failures: 0,
        last_failure: None,
        judge: "one".to_owned(),
        judged_unix_ms: now_ms,
    }
}
