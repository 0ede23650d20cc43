//! Who else routes: what this router reports of itself, and what it last heard of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::commands::Beat;
use crate::flags::{CopiesSeen, RouterSeen, TripSeen};

/// A router that is silent for this long is no longer listed.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What a router says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(super) struct Report {
    /// Random for each process, so that two routers under one id are noticed.
    pub(super) incarnation: String,
    /// Its admin address.
    pub(super) admin: String,
    /// Epoch and seal that it applies, by route.
    pub(super) routes: BTreeMap<String, (u64, String)>,
    /// What its breakers hold back, by route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) trips: BTreeMap<String, TripSeen>,
    /// Pools without a healthy endpoint, by route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) down: BTreeMap<String, Vec<String>>,
    /// What became of the copies of queries that it sent for a rollout, by route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) copies: BTreeMap<String, CopiesSeen>,
}

/// The routers at one heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fleet {
    heard: Option<Instant>,
    now_ms: u64,
    routers: Vec<(String, u64, Report)>,
}

impl Fleet {
    pub(super) fn new(beat: Beat, heard: Instant) -> Fleet {
        let read = |(id, at, report): (String, u64, String)| Some((id, at, serde_json::from_str(&report).ok()?));
        Fleet { heard: Some(heard), now_ms: beat.clock.fleet_ms, routers: beat.seen.into_iter().filter_map(read).collect() }
    }

    /// Whether there was a heartbeat yet.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// The routers that serve a route, by id. What passed since the heartbeat counts as silence, for this router too.
    pub(crate) fn on_route(&self, route: &str, router_timeout: Duration, now: Instant) -> Vec<RouterSeen> {
        let since = self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
        let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let seen = |(id, at, report): &(String, u64, Report)| {
            let (epoch, seal) = report.routes.get(route)?.clone();
            let seen_ms_ago = self.now_ms.saturating_sub(*at).saturating_add(since_ms);
            let is_known = Duration::from_millis(seen_ms_ago) <= router_timeout;
            Some(RouterSeen {
                id: id.clone(),
                epoch,
                seal,
                seen_ms_ago,
                is_known,
                admin: report.admin.clone(),
                trip: report.trips.get(route).cloned(),
                down: report.down.get(route).cloned().unwrap_or_default(),
                copies: report.copies.get(route).cloned(),
            })
        };
        let mut routers: Vec<RouterSeen> = self.routers.iter().filter_map(seen).collect();
        routers.sort_by(|left, right| left.id.cmp(&right.id));
        routers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::redis::clock::Answer;

    #[test]
    fn silence_makes_a_router_unknown_by_the_servers_clock_and_ours() {
        let report = r#"{"incarnation":"x","admin":"127.0.0.1:9","routes":{"search":[4,"s"]}}"#.to_owned();
        let seen =
            vec![("b".to_owned(), 9_000, report.clone()), ("a".to_owned(), 10_000, report), ("c".to_owned(), 1, "garbage".to_owned())];
        let heard = Instant::now();
        let clock = Answer { fleet_ms: 10_000, server_ms: 10_000, is_odd: false, took: Duration::ZERO };
        let fleet = Fleet::new(Beat { clock, before: String::new(), seen }, heard);
        let timeout = Duration::from_secs(3);
        let ages = |now: Instant| -> Vec<(String, u64, bool)> {
            fleet.on_route("search", timeout, now).into_iter().map(|seen| (seen.id, seen.seen_ms_ago, seen.is_known)).collect()
        };
        assert_eq!(ages(heard), [("a".to_owned(), 0, true), ("b".to_owned(), 1_000, true)]);
        let later = heard + Duration::from_millis(2_500);
        assert_eq!(ages(later), [("a".to_owned(), 2_500, true), ("b".to_owned(), 3_500, false)]);
        assert!(fleet.on_route("other", timeout, heard).is_empty());
    }
}
