//! The router that runs by this config, where one does, and those that it has heard of: whether they agree, and what they make of their routes.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use serde_json::{Map, Value};

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::admin::keys_of;
use crate::cli::admin_client::{AdminArgs, AdminClient};
use crate::cli::flag::plain;
use crate::cli::status::stray_line;
use crate::config::Config;
use crate::vocabulary::NO_VERSION;

const PART: &str = "router";
/// For one question: a router answers in milliseconds.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(6);
/// Routers of the fleet that are asked for their version.
const MOST_PEERS: usize = 50;
/// Keys that are named one by one.
const SHOWN_KEYS: usize = 5;
const RELOAD: &str = "`switchback reload --config FILE`, or a restart for what waits for one";

/// Whether a router answers at the admin address of the config.
pub(super) enum Running {
    /// It does: what it says of itself.
    Yes { client: AdminClient, status: Value },
    /// Nobody answers; why.
    No(String),
    /// Somebody does, and says no.
    Refused(String),
}

impl Running {
    pub(super) async fn ask(admin: &AdminArgs) -> Running {
        let client = match admin.client() {
            Ok(client) => client,
            Err(failure) => return Running::No(failure.message().to_owned()),
        };
        match tokio::time::timeout(ASKED_WITHIN, client.get("/api/v1/status")).await {
            Ok(Ok(status)) => Running::Yes { client, status },
            Ok(Err(failure)) if failure.is_refused() => Running::Refused(failure.message().to_owned()),
            Ok(Err(failure)) => Running::No(failure.message().to_owned()),
            Err(_) => Running::Refused(format!("{} takes connections, and does not answer", client.authority())),
        }
    }

    /// The same caller, for another check.
    pub(super) fn client(&self) -> Option<AdminClient> {
        match self {
            Running::Yes { client, .. } => Some(client.to_peer(client.authority())),
            Running::No(_) | Running::Refused(_) => None,
        }
    }

    /// The process.
    pub(super) fn pid(&self) -> Option<u64> {
        match self {
            Running::Yes { status, .. } => status["pid"].as_u64(),
            Running::No(_) | Running::Refused(_) => None,
        }
    }
}

pub(super) fn checks(config: &Shared, running: Running) -> Vec<Check> {
    let config = config.clone();
    vec![Check::new(PART, "admin API", async move {
        match running {
            Running::Yes { client, status } => look(&config, &client, &status).await,
            Running::No(why) => vec![Finding::ok(PART, "admin API", format!("no router of this config runs here: {why}"))],
            Running::Refused(why) => {
                let to_do = "run this as the router's user, or name a token with --token-file; or another program has its port";
                vec![Finding::failed(PART, "admin API", why, to_do)]
            }
        }
    })]
}

async fn look(config: &Config, client: &AdminClient, status: &Value) -> Vec<Finding> {
    let answers = format!("{}: version {}, pid {}", client.authority(), plain(&status["version"]), plain(&status["pid"]));
    let mut findings = vec![Finding::ok(PART, "admin API", answers)];
    let [ready, configured, routes] = ["/readyz", "/api/v1/config", "/api/v1/routes"].map(|path| client.get(path));
    let (ready, configured, routes) = tokio::join!(ready, configured, routes);
    findings.extend(readiness(ready.map_err(|failure| failure.message().to_owned()), status));
    match configured {
        Ok(configured) => {
            let mut file = keys_of(config);
            follow_flags(client, config, &mut file, &configured["keys"]).await;
            findings.push(same_config(&file, &configured));
        }
        Err(failure) => {
            findings.push(Finding::warning(PART, "config in force", failure.message(), "it may be an older version: upgrade it"))
        }
    }
    match routes {
        Ok(routes) => {
            let all = || routes["routes"].as_array().into_iter().flatten();
            all().for_each(|route| findings.extend(of_route(route)));
            findings.extend(fleet(client, status, all().flat_map(|route| route["routers"].as_array().into_iter().flatten())).await);
        }
        Err(failure) => findings.push(Finding::failed(PART, "routes", failure.message(), "look at its log")),
    }
    findings
}

fn readiness(ready: Result<Value, String>, status: &Value) -> Vec<Finding> {
    if status["draining"] == true {
        return vec![Finding::warning(PART, "ready", "it drains, and ends", "nothing, if that was asked for")];
    }
    let ready = match ready {
        Ok(ready) => ready,
        Err(why) => return vec![Finding::failed(PART, "ready", why, "GET /readyz says what it lacks: pools, or the flag store")],
    };
    let texts = |key: &str| ready[key].as_array().into_iter().flatten().map(plain).collect::<Vec<_>>();
    let problems =
        texts("problems").into_iter().map(|problem| Finding::failed(PART, "ready", problem, "see to it: it goes on with what it has"));
    let warnings = texts("warnings").into_iter().map(|warning| Finding::warning(PART, "ready", warning, "see to it"));
    let mut findings: Vec<Finding> = problems.chain(warnings).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(PART, "ready", "it takes queries, and nothing is amiss"));
    }
    findings
}

/// Of a pool whose version the flags say, since Switchback loaded it, the file's word does not count: the one in force takes its place.
async fn follow_flags(client: &AdminClient, config: &Config, file: &mut Map<String, Value>, in_force: &Value) {
    for route in &config.routes {
        let pools =
            route.pools.iter().map(|pool| (format!("version.{}", pool.name), format!("route.{}.pools.{}.version", route.name, pool.name)));
        let differ: Vec<(String, String)> = pools.filter(|(_, key)| file.get(key) != in_force.get(key)).collect();
        if differ.is_empty() {
            continue;
        }
        let Ok(flags) = client.get(&format!("/api/v1/routes/{}/flags", route.name)).await else { continue };
        for (field, key) in differ {
            if flags["fields"].get(&field).is_some() {
                file.insert(key.clone(), in_force[&key].clone());
            }
        }
    }
}

/// Whether the router has in force what the file says.
fn same_config(file: &Map<String, Value>, configured: &Value) -> Finding {
    let (in_force, generation) = (&configured["keys"], plain(&configured["generation"]));
    // A port that the system picked is no difference.
    let is_picked = |value: &Value| value.as_str().is_some_and(|value| value.ends_with(":0\""));
    let is_said = |key: &&String| !(key.starts_with("listen.") && file.get(key.as_str()).is_some_and(is_picked));
    let in_force = in_force.as_object().cloned().unwrap_or_default();
    let mut differ: Vec<&str> =
        file.keys().chain(in_force.keys()).filter(is_said).filter(|key| file.get(*key) != in_force.get(*key)).map(String::as_str).collect();
    differ.sort_unstable();
    differ.dedup();
    if differ.is_empty() {
        return Finding::ok(PART, "config in force", format!("generation {generation}, as the file says"));
    }
    let more = if differ.len() > SHOWN_KEYS { format!(", and {} more", differ.len() - SHOWN_KEYS) } else { String::new() };
    let named = differ.iter().take(SHOWN_KEYS).copied().collect::<Vec<_>>().join(", ");
    Finding::warning(PART, "config in force", format!("generation {generation}: the file says otherwise of {named}{more}"), RELOAD)
}

fn of_route(route: &Value) -> Vec<Finding> {
    let name = plain(&route["name"]);
    let named = |what: &str| format!("{name}: {what}");
    let mut findings = Vec::new();
    let live = plain(&route["live"]);
    if route["pools"][&live]["version"] == NO_VERSION {
        let found = format!("pool {live} is live and runs no version: its servers let go of it");
        findings.push(Finding::failed(PART, named("live"), found, format!("switchback rollback {name} --to VERSION")));
    }
    for policy in route["policies"].as_array().into_iter().flatten() {
        let state = plain(&policy["state"]);
        let is_well = matches!(state.as_str(), "in_force" | "admitting") || (state == "native" && policy["kind"] == "rollback");
        if !is_well {
            let found = format!(
                "{} policy {} is {}: {}",
                plain(&policy["kind"]),
                plain(&policy["wanted"]),
                state.replace('_', " "),
                plain(&policy["why"])
            );
            findings.push(Finding::failed(PART, named("policy"), found, "runbooks/bad-plugin.md"));
        }
    }
    for fault in route["faults"].as_array().into_iter().flatten() {
        let found = format!("not obeyed: {}: must be {}", plain(&fault["field"]), plain(&fault["allowed"]));
        findings.push(Finding::failed(PART, named("flags"), found, format!("switchback flag set {name} {}=...", plain(&fault["field"]))));
    }
    let warnings = route["warnings"].as_array().into_iter().flatten();
    findings.extend(warnings.map(|warning| Finding::warning(PART, named("flags"), plain(warning), "see to it")));
    if route["breaker"]["state"] == "tripped" {
        let found = format!("tripped: {}", plain(&route["breaker"]["why"]));
        findings.push(Finding::warning(
            PART,
            named("breaker"),
            found,
            format!("switchback breaker status {name} (runbooks/quality-alert.md)"),
        ));
    }
    let rollout = &route["rollout"];
    if rollout["is_active"] == true && (rollout["is_stalled"] == true || !rollout["paused"].is_null()) {
        let found = format!("stalled or paused: waits: {}", plain(&rollout["waits_for"]));
        findings.push(Finding::warning(
            PART,
            named("rollout"),
            found,
            format!("switchback rollout status {name} (runbooks/canary-stuck.md)"),
        ));
    }
    findings.extend(strays_of(route, &name));
    findings.extend(routers_of(route, &name));
    if findings.is_empty() {
        findings.push(Finding::ok(PART, name.clone(), format!("live {}, epoch {}", plain(&route["live"]), plain(&route["applied_epoch"]))));
    }
    findings
}

/// Servers that serve another version than their pool runs.
fn strays_of(route: &Value, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (pool, about) in route["pools"].as_object().into_iter().flatten() {
        let version = plain(&about["version"]);
        for stray in about["strays"].as_array().into_iter().flatten() {
            let to_do = match stray["restore"].as_str() {
                Some(_) => "look again in a minute".to_owned(),
                None => {
                    format!("have the router load it: switchback flag set {name} version.{pool}={version}, with restore in [route.loading]")
                }
            };
            let to_do =
                format!("{to_do}; start `switchback ranker` with --state, so that it comes back with what it served (docs/LOADING.md)");
            findings.push(Finding::failed(PART, format!("{name}: pool {pool}"), stray_line(&version, stray), to_do));
        }
    }
    findings
}

/// Whether every router that reports obeys the same epoch.
fn routers_of(route: &Value, name: &str) -> Vec<Finding> {
    let routers = || route["routers"].as_array().into_iter().flatten();
    let names =
        |chosen: &dyn Fn(&Value) -> bool| routers().filter(|router| chosen(router)).map(|router| plain(&router["id"])).collect::<Vec<_>>();
    let epoch = &route["epoch"];
    let mut findings = Vec::new();
    let behind = names(&|router: &Value| router["is_known"] == true && &router["epoch"] != epoch);
    if !behind.is_empty() {
        let found = format!("not on epoch {}: {}", plain(epoch), behind.join(", "));
        findings.push(Finding::warning(
            PART,
            format!("{name}: routers"),
            found,
            "look again in some seconds; then runbooks/split-brain.md",
        ));
    }
    let silent = names(&|router: &Value| router["is_known"] != true);
    if !silent.is_empty() {
        let found = format!("not heard of for some time: {}", silent.join(", "));
        findings.push(Finding::warning(
            PART,
            format!("{name}: routers"),
            found,
            "start them, or wait: they are forgotten after 10 minutes",
        ));
    }
    findings
}

/// Whether all routers are of one version.
async fn fleet(client: &AdminClient, status: &Value, routers: impl Iterator<Item = &Value>) -> Vec<Finding> {
    let mut peers: Vec<(String, String)> =
        routers.filter(|router| router["is_known"] == true).map(|router| (plain(&router["id"]), plain(&router["admin"]))).collect();
    peers.sort();
    peers.dedup();
    peers.truncate(MOST_PEERS);
    let alone = peers.len() < 2;
    let ask = |(id, admin): (String, String)| {
        let peer = client.to_peer(&admin);
        async move { (id, peer.get("/api/v1/status").await) }
    };
    let asked = futures_util::future::join_all(peers.into_iter().filter(|_| !alone).map(ask)).await;
    let mine = plain(&status["version"]);
    let (mut others, mut unheard, count) = (Vec::new(), Vec::new(), asked.len());
    for (id, answer) in asked {
        match answer {
            Ok(status) if status["version"] == mine.as_str() => {}
            Ok(status) => others.push(format!("{id} is {}", plain(&status["version"]))),
            Err(failure) => unheard.push(format!("{id}: {}", failure.message())),
        }
    }
    versions(&mine, count, &others, &unheard)
}

fn versions(mine: &str, count: usize, others: &[String], unheard: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !others.is_empty() {
        let found = format!("this one is {mine}, {}", others.join(", "));
        findings.push(Finding::warning(PART, "versions", found, "upgrade the others (runbooks/upgrade-router.md)"));
    }
    if !unheard.is_empty() {
        findings.push(Finding::warning(
            PART,
            "other routers",
            unheard.join("; "),
            "their admin API must be reachable from here, with this token",
        ));
    }
    if findings.is_empty() && count > 1 {
        findings.push(Finding::ok(PART, "versions", format!("all {count} routers are {mine}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::finding::Status;

    fn route() -> Value {
        json!({
            "name": "search", "live": "blue", "epoch": 7, "applied_epoch": 7, "faults": [], "warnings": [],
            "policies": [{ "kind": "split", "state": "in_force" }, { "kind": "rollback", "state": "native" }],
            "breaker": { "state": "idle" }, "rollout": null,
            "routers": [{ "id": "a", "epoch": 7, "is_known": true }, { "id": "b", "epoch": 7, "is_known": true }],
        })
    }

    #[test]
    fn a_route_is_well_or_says_what_is_not() {
        assert_eq!(of_route(&route()), [Finding::ok(PART, "search", "live blue, epoch 7")]);
        let mut ill = route();
        ill["policies"][0] = json!({ "kind": "split", "state": "quarantined", "wanted": "mine", "why": "it trapped" });
        ill["faults"] = json!([{ "field": "pin", "value": "x", "allowed": "a pool" }]);
        ill["breaker"] = json!({ "state": "tripped", "why": "it fails" });
        ill["rollout"] = json!({ "is_active": true, "is_stalled": true, "waits_for": "hold" });
        ill["routers"][1]["epoch"] = json!(6);
        let found: Vec<String> = of_route(&ill).into_iter().map(|finding| format!("{}: {}", finding.name, finding.found)).collect();
        assert_eq!(
            found,
            [
                "search: policy: split policy mine is quarantined: it trapped",
                "search: flags: not obeyed: pin: must be a pool",
                "search: breaker: tripped: it fails",
                "search: rollout: stalled or paused: waits: hold",
                "search: routers: not on epoch 7: b",
            ]
        );
    }

    #[test]
    fn a_server_with_another_version_is_named_with_what_to_do() {
        let mut ill = route();
        let stray = |restore: Value| json!([{ "server": "http://h:1", "serves": ["search:1"], "restore": restore }]);
        ill["pools"] = json!({ "blue": { "version": "search:2", "strays": stray(Value::Null) } });
        let found = &of_route(&ill)[0];
        assert_eq!(
            (found.status, found.name.as_str(), found.found.as_str()),
            (Status::Failed, "search: pool blue", "http://h:1 serves search:1 and not search:2")
        );
        assert!(found.to_do.contains("flag set search version.blue=search:2") && found.to_do.contains("--state"), "{}", found.to_do);
        ill["pools"]["blue"]["strays"] = stray(json!("it is loaded there again"));
        let found = &of_route(&ill)[0];
        assert!(found.found.ends_with(": it is loaded there again") && found.to_do.starts_with("look again"), "{found:?}");
    }

    #[test]
    fn a_file_that_says_otherwise_is_told_by_its_keys() {
        let keys = |workers: &str| Map::from_iter([("listen.workers".to_owned(), json!(workers))]);
        let in_force = json!({ "generation": 3, "keys": { "listen.workers": "2" } });
        assert_eq!(same_config(&keys("2"), &in_force).status, Status::Ok);
        let port = |text: &str| Map::from_iter([("listen.admin".to_owned(), json!(text))]);
        let bound = json!({ "generation": 1, "keys": { "listen.admin": "\"127.0.0.1:4711\"" } });
        assert_eq!(same_config(&port("\"127.0.0.1:0\""), &bound).status, Status::Ok);
        assert_eq!(same_config(&port("\"127.0.0.1:1\""), &bound).status, Status::Warning);
        let found = same_config(&keys("4"), &in_force);
        assert_eq!((found.status, found.found.as_str()), (Status::Warning, "generation 3: the file says otherwise of listen.workers"));
    }

    #[test]
    fn versions_that_differ_are_told() {
        assert_eq!(versions("1", 1, &[], &[]), []);
        assert_eq!(versions("1", 2, &[], &[])[0].status, Status::Ok);
        assert_eq!(versions("1", 2, &["b is 2".to_owned()], &[])[0].found, "this one is 1, b is 2");
    }
}
