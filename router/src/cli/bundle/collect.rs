//! Asks a router, as a viewer, for everything that goes into a bundle. What it does not get is named in the manifest; without the ledger there is no bundle.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::manifest::{About, sha256};
use super::{Bundle, LEDGER, Manifest, Members, POLICIES, WINDOWS, part_of_name};
use crate::admin::now_unix_ms;
use crate::cli::Failure;
use crate::cli::admin_client::AdminClient;
use crate::cli::flag::plain;
use crate::flags::{Ledger, LedgerEntry};

/// What a router is asked for as JSON: the member, and the path after `/api/v1`; `{route}` is the route's.
const DOCUMENTS: [(&str, &str); 11] = [
    ("evidence.json", "/routes/{route}/evidence"),
    ("route.json", "/routes/{route}"),
    ("flags.json", "/routes/{route}/flags"),
    ("rollout.json", "/routes/{route}/rollout"),
    ("experiments.json", "/routes/{route}/experiments"),
    ("breaker.json", "/routes/{route}/breaker"),
    ("quality.json", "/routes/{route}/quality/fleet?seconds=600"),
    ("ledger-verified.json", "/routes/{route}/ledger"),
    ("policies.json", "/policies"),
    ("config.json", "/config"),
    ("status.json", "/status"),
];
/// Of a document, of a plugin, of metrics.
const DOCUMENT_BYTES: usize = 32 << 20;
/// Of the ledger, and of the windows that one router recorded of one comparison.
const LOG_BYTES: usize = 256 << 20;
/// Comparisons of a bundle: the newest of its time.
const MOST_COMPARISONS: usize = 8;
/// Routers that are asked.
const MOST_ROUTERS: usize = 50;
/// What was judged last is written to disk a moment later.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a bundle is to be about.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Wanted {
    pub(in crate::cli) route: String,
    /// In milliseconds since 1970; now without one.
    pub(in crate::cli) at_ms: Option<u64>,
    /// A rollout's id: what it was asked for is from its first entry in the ledger to its last one.
    pub(in crate::cli) rollout: Option<String>,
    pub(in crate::cli) from_ms: Option<u64>,
    pub(in crate::cli) to_ms: Option<u64>,
}

/// Everything that was got so far.
struct Basket<'c> {
    client: &'c AdminClient,
    route: String,
    members: Members,
    missing: Vec<String>,
}

/// Makes a bundle of what this router and those that it has heard of know.
///
/// # Errors
/// The router is not reached, has no such route or rollout, or does not give its ledger.
pub(in crate::cli) async fn collect(client: AdminClient, wanted: &Wanted) -> Result<Bundle, Failure> {
    let client = client.seen_as_viewer();
    let text = client.bytes(&format!("/api/v1/routes/{}/ledger/entries", wanted.route), LOG_BYTES).await?;
    let ledger = Ledger::read(&text).map_err(|why| Failure::unreachable(format!("the router's ledger cannot be read: {why}")))?;
    let entries = ledger.entries();
    let (at_ms, from_ms, to_ms) = span(wanted, &entries)?;
    let members = Members::from([(LEDGER.to_owned(), text.to_vec())]);
    let mut basket = Basket { client: &client, route: wanted.route.clone(), members, missing: Vec::new() };
    for (name, path) in DOCUMENTS {
        basket.document(&client, name, &format!("/api/v1{}", path.replace("{route}", &wanted.route))).await;
    }
    let explain =
        format!("/api/v1/routes/{}/explain{}", wanted.route, wanted.at_ms.map_or_else(String::new, |at| format!("?time_ms={at}")));
    basket.document(&client, "explain.json", &explain).await;
    basket.raw("metrics.txt", "/metrics").await;
    let route = basket.json("route.json");
    basket.of_the_routers(&route, (from_ms, to_ms)).await;
    basket.policies(&route, &entries).await;
    basket.members.insert("README.txt".to_owned(), include_bytes!("README.txt").to_vec());
    let is_told = basket.members.iter().find(|(_, bytes)| client.is_told_by(bytes));
    if let Some((name, _)) = is_told {
        return Err(Failure::refused(format!("no bundle is made: {name} would hold the token that it was asked with")));
    }
    let Basket { members, missing, route, .. } = basket;
    let about = About { router: client.authority().to_owned(), route, at_ms, from_ms, to_ms, missing };
    Ok(Bundle { manifest: Manifest::of(about, &members), members })
}

/// The moment, and from when to when.
fn span(wanted: &Wanted, entries: &[LedgerEntry]) -> Result<(u64, u64, u64), Failure> {
    if let Some(id) = &wanted.rollout {
        let is_of_it = |entry: &&LedgerEntry| entry.grounds.as_ref().is_some_and(|grounds| grounds.rollout.as_ref() == Some(id));
        let times: Vec<u64> = entries.iter().filter(is_of_it).map(|entry| entry.time_ms).collect();
        let known: BTreeSet<&String> = entries.iter().filter_map(|entry| entry.grounds.as_ref()?.rollout.as_ref()).collect();
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        let unknown = || Failure::usage(format!("--rollout {id}: the ledger has none of that id; it has: {}", known.join(", ")));
        let (last, first) = (times.iter().max().ok_or_else(unknown)?, times.iter().min().ok_or_else(unknown)?);
        return Ok((*last, *first, *last));
    }
    // The store's clock, which the ledger is by, may be ahead of this machine's.
    let newest = entries.first().map_or(0, |entry| entry.time_ms);
    let to_ms = wanted.to_ms.or(wanted.at_ms).unwrap_or_else(|| now_unix_ms().max(newest));
    let from_ms = wanted.from_ms.or(wanted.at_ms).unwrap_or(to_ms);
    if from_ms > to_ms {
        return Err(Failure::usage("--from must not be after --to"));
    }
    Ok((wanted.at_ms.unwrap_or(to_ms), from_ms, to_ms))
}

/// The comparisons of a time, the newest first: those that began in it, and the one that was under way, or over, when it began.
fn of_the_time(began: &[u64], (from_ms, to_ms): (u64, u64)) -> Vec<u64> {
    let before = began.iter().copied().filter(|began| began * 1_000 <= from_ms).max();
    let within = began.iter().copied().filter(|began| (from_ms..=to_ms).contains(&(began * 1_000)));
    let chosen: BTreeSet<u64> = within.chain(before).collect();
    chosen.into_iter().rev().collect()
}

impl Basket<'_> {
    fn json(&self, name: &str) -> Value {
        self.members.get(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    async fn document(&mut self, client: &AdminClient, name: &str, path: &str) {
        match client.get(path).await {
            Ok(found) => drop(self.members.insert(name.to_owned(), format!("{found:#}\n").into_bytes())),
            Err(failure) => self.missing.push(format!("{name}: {}", failure.message())),
        }
    }

    async fn raw(&mut self, name: &str, path: &str) {
        match self.client.bytes(path, DOCUMENT_BYTES).await {
            Ok(found) => drop(self.members.insert(name.to_owned(), found.to_vec())),
            Err(failure) => self.missing.push(format!("{name}: {}", failure.message())),
        }
    }

    /// The windows that each router recorded, and which version of the program it is.
    async fn of_the_routers(&mut self, route: &Value, time: (u64, u64)) {
        let all = || route["routers"].as_array().into_iter().flatten();
        let is_away = all().all(|router| router["is_known"] != true);
        let heard = all().filter(|router| is_away || router["is_known"] == true);
        let mut peers: Vec<(String, AdminClient)> =
            heard.map(|router| (plain(&router["id"]), self.client.to_peer(&plain(&router["admin"])))).collect();
        // The one that is asked may be reached by another address than it says, or is alone.
        let is_named = peers.iter().any(|(_, peer)| peer.authority() == self.client.authority());
        let asked = self.client.to_peer(self.client.authority());
        match peers.as_mut_slice() {
            [(_, only)] => *only = asked,
            _ if is_named => {}
            _ => peers.insert(0, ("asked".to_owned(), asked)),
        }
        if peers.len() > MOST_ROUTERS {
            self.missing.push(format!("windows of {} routers: {MOST_ROUTERS} are asked at most", peers.len() - MOST_ROUTERS));
        }
        let mut judged: BTreeMap<String, (AdminClient, Vec<u64>)> = BTreeMap::new();
        for (id, peer) in peers.into_iter().take(MOST_ROUTERS) {
            let part = part_of_name(&id);
            self.document(&peer, &format!("routers/{part}.json"), "/api/v1/status").await;
            match peer.get(&format!("/api/v1/routes/{}/windows", self.route)).await {
                Ok(list) => {
                    let comparisons = list["comparisons"].as_array().into_iter().flatten();
                    let began = comparisons.filter_map(|comparison| comparison["began_unix_seconds"].as_u64()).collect();
                    judged.insert(part, (peer, began));
                }
                Err(failure) => self.missing.push(format!("{WINDOWS} of {id}: {}", failure.message())),
            }
        }
        let began: Vec<u64> = judged.values().flat_map(|(_, began)| began.iter().copied()).collect();
        let of_the_time = of_the_time(&began, time);
        let (taken, left) = of_the_time.split_at(of_the_time.len().min(MOST_COMPARISONS));
        if let Some(newest) = left.first() {
            let how_many = left.len();
            self.missing.push(format!(
                "{WINDOWS} of {how_many} comparisons of this time, the newest of them began at {newest}: the newest {MOST_COMPARISONS} are taken (a shorter time has the others)"
            ));
        }
        for began in taken {
            self.comparison(&judged, *began).await;
        }
    }

    /// The windows of one comparison, from every router that judged some; once more where what was shown as judged is not written yet.
    async fn comparison(&mut self, judged: &BTreeMap<String, (AdminClient, Vec<u64>)>, began: u64) {
        let evidence = &self.json("evidence.json")["evidence"];
        let windows = |slice: &str| evidence["windows"][slice].as_u64().unwrap_or(0);
        let due = if evidence["began_unix_seconds"] == began { windows("traffic") + windows("engagement") } else { 0 };
        let deadline = tokio::time::Instant::now() + LOGGED_WITHIN;
        loop {
            let (mut lines, mut failed) = (0, Vec::new());
            for (part, (peer, _)) in judged.iter().filter(|(_, (_, all))| all.contains(&began)) {
                let name = format!("{WINDOWS}{began}/{part}.jsonl");
                match peer.bytes(&format!("/api/v1/routes/{}/windows?began={began}", self.route), LOG_BYTES).await {
                    Ok(found) => {
                        lines += found.iter().filter(|byte| **byte == b'\n').count() as u64;
                        self.members.insert(name, found.to_vec());
                    }
                    Err(failure) => failed.push(format!("{name}: {}", failure.message())),
                }
            }
            if lines >= due || !failed.is_empty() || tokio::time::Instant::now() >= deadline {
                return self.missing.extend(failed);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Those in force, and those that the ledger's transitions rest on.
    async fn policies(&mut self, route: &Value, entries: &[LedgerEntry]) {
        let in_force = route["policies"].as_array().into_iter().flatten();
        let in_force = in_force.map(|policy| format!("{}@{}", plain(&policy["name"]), plain(&policy["digest"])));
        let judged = entries.iter().filter_map(|entry| entry.grounds.as_ref()?.policy.clone());
        let named: BTreeSet<String> = in_force.chain(judged).collect();
        for policy in named {
            let Some((name, digest)) = policy.split_once('@').filter(|(_, digest)| digest.len() == 64) else { continue };
            // An archive of the plain kind has names of 100 bytes.
            let short: String = part_of_name(name).chars().take(20).collect();
            let member = format!("{POLICIES}{short}@{digest}.wasm");
            match self.client.bytes(&format!("/api/v1/plugins/{digest}"), DOCUMENT_BYTES).await {
                Ok(bytes) if sha256(&bytes) == digest => drop(self.members.insert(member, bytes.to_vec())),
                Ok(_) => self.missing.push(format!("{member}: the router gave other bytes")),
                Err(failure) => self.missing.push(format!("{member}: {}", failure.message())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Grounds;

    #[test]
    fn a_bundle_has_the_comparisons_of_its_time() {
        let began = [100, 200, 300, 400];
        assert_eq!(of_the_time(&began, (250_000, 250_000)), [200]);
        assert_eq!(of_the_time(&began, (150_000, 350_000)), [300, 200, 100]);
        assert_eq!(of_the_time(&began, (50_000, 60_000)), [0_u64; 0]);
        assert_eq!(of_the_time(&(0..20).collect::<Vec<_>>(), (0, 90_000)).first(), Some(&19));
    }

    #[test]
    fn a_rollout_is_found_by_its_id() {
        let entry = |epoch: u64, id: &str| LedgerEntry {
            epoch,
            time_ms: epoch * 1_000,
            grounds: Some(Grounds { rollout: Some(id.to_owned()), ..Grounds::default() }),
            ..LedgerEntry::default()
        };
        let entries = [entry(5, "b"), entry(4, "a"), entry(3, "a"), LedgerEntry::default()];
        let wanted = |id: &str| Wanted { rollout: Some(id.to_owned()), ..Wanted::default() };
        assert_eq!(span(&wanted("a"), &entries).ok(), Some((4_000, 3_000, 4_000)));
        assert!(span(&wanted("c"), &entries).unwrap_err().message().ends_with("it has: a, b"));
        let backwards = Wanted { from_ms: Some(2), to_ms: Some(1), ..Wanted::default() };
        assert!(span(&backwards, &entries).is_err());
        assert_eq!(span(&Wanted { at_ms: Some(7), ..Wanted::default() }, &entries).ok(), Some((7, 7, 7)));
    }
}
