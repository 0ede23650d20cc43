//! `switchback status`: what each route does at this moment, on one screen.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient};
use super::flag::{concerns, plain};
use super::table::table;
use super::{Failure, block_on, evidence, print};

const EVERY: Duration = Duration::from_secs(1);

/// Show what each route does: live pool, shares, pools and their health, policies, routers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback status\n  switchback status --watch\n  switchback status --json")]
pub(super) struct Status {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Print JSON (with --watch: one object a line).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        block_on(async {
            let in_json = |failure: Failure| failure.in_json(self.json);
            let client = self.admin.client().map_err(in_json)?;
            self.show(&self.page(&client).await.map_err(in_json)?)?;
            if !self.watch {
                return Ok(());
            }
            let mut ticks = tokio::time::interval(EVERY);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                match self.page(&client).await {
                    Ok(page) => self.show(&page)?,
                    // Watching goes on: a router that restarts comes back.
                    Err(failure) => drop(failure.report()),
                }
            }
        })
    }

    /// On a terminal, a page takes the place of the one before.
    fn show(&self, page: &str) -> Result<(), Failure> {
        if self.watch && !self.json && std::io::stdout().is_terminal() {
            super::clear()?;
        }
        print(page)
    }

    async fn page(&self, client: &AdminClient) -> Result<String, Failure> {
        let answer = client.get("/api/v1/routes").await?;
        if self.json {
            return Ok(if self.watch { format!("{answer}\n") } else { format!("{answer:#}\n") });
        }
        let none = Vec::new();
        let routes = answer["routes"].as_array().unwrap_or(&none);
        let pages: Vec<String> = routes.iter().map(show_route).collect();
        Ok(pages.join("\n"))
    }
}

fn show_route(route: &Value) -> String {
    let mut text = headline(route);
    text.push_str(&table(&pool_rows(route)));
    text.push_str(&endpoint_lines(route));
    list(&route["policies"]).iter().for_each(|policy| text.push_str(&policy_line(policy)));
    let rollout = super::rollout::lines(&route["rollout"]);
    if !rollout.is_empty() {
        text.push_str(&format!("  {rollout}"));
    }
    text.push_str(&super::rollback_to::way_back(route));
    text.push_str(&evidence::lines_of(&route["evidence"], &route["rollout"], crate::admin::now_unix_ms()));
    if matches!(route["breaker"]["state"].as_str(), Some("tripped" | "watching")) {
        text.push_str(&format!("  breaker of this router: {}\n", super::breaker::of_router(&route["breaker"])));
    }
    text.push_str(&mlflow(&route["mlflow"]));
    text.push_str(&routers(route));
    text.push_str(&concerns(route));
    text
}

/// The one in force with its digest, and what became of the one that the flags name, where that is another.
fn policy_line(policy: &Value) -> String {
    let digest: String = plain(&policy["digest"]).chars().take(12).collect();
    let at_digest = if digest.is_empty() { String::new() } else { format!("@{digest}") };
    let (kind, name, state, why) = (plain(&policy["kind"]), plain(&policy["name"]), plain(&policy["state"]), plain(&policy["why"]));
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    let stand_in = match policy["answered_by"].as_str() {
        Some("last_good") => format!("; {} decides in its place", plain(&policy["last_good"]["name"])),
        Some("native") if state == "quarantined" => "; native decisions in its place".to_owned(),
        _ => String::new(),
    };
    let left = policy["in_force"]["quarantined_for_ms"].as_f64();
    let left = left.map_or_else(String::new, |millis| format!(" for another {:.1} s", millis / 1e3));
    match state.as_str() {
        "admitting" | "refused" => {
            format!("  {kind} policy {name}{at_digest} in force; the wanted {} {state}{because}{stand_in}\n", plain(&policy["wanted"]))
        }
        _ => format!("  {kind} policy {name}{at_digest} {}{left}{because}{stand_in}\n", state.replace('_', " ")),
    }
}

/// `mlflow: models:/search@champion is not deployed as version 3, 12 s ago: ...`
fn mlflow(mlflow: &Value) -> String {
    let mut said = Vec::new();
    if mlflow["is_working"] == true {
        let another = if mlflow["is_waiting"] == true { ", and another one waits" } else { "" };
        let what = mlflow["waits"].as_str().unwrap_or("pushed and deployed");
        said.push(format!("a candidate is {what}{another}"));
    }
    if let last @ Value::Object(_) = &mlflow["last"] {
        let ago = evidence::span(mlflow["last_ms_ago"].as_u64().unwrap_or(0) / 1_000);
        let version = last["version"].as_u64().map_or_else(String::new, |version| format!(" (version {version})"));
        let what = match last["why"].as_str() {
            None => "deployed".to_owned(),
            Some(why) => format!("{}: {why}", plain(&last["result"]).replace('_', " ")),
        };
        said.push(format!("{}{version}, {ago} ago: {what}", plain(&last["candidate"])));
    }
    if said.is_empty() { String::new() } else { format!("  mlflow: {}\n", said.join("; ")) }
}

/// `search: live blue, canary 25 % on canary, epoch 12 (redis sentinel 10.0.0.5:6379, heard 0.2 s ago)`
fn headline(route: &Value) -> String {
    let mut words = vec![format!("live {}", plain(&route["live"]))];
    let percent = |field: &str| route[field].as_f64().filter(|percent| *percent > 0.0);
    if let Some(share) = percent("canary_percent") {
        words.push(format!("canary {share} % on {}", plain(&route["candidate_pool"])));
    }
    if let Some(share) = percent("holdback_percent") {
        words.push(format!("holdback {share} % on {}", plain(&route["holdback_pool"])));
    }
    if let Some(share) = percent("mirror_percent") {
        words.push(format!("mirror {share} %"));
    }
    if !route["pin"].is_null() {
        words.push(format!("PINNED to {}", plain(&route["pin"])));
    }
    if route["freeze"] == true {
        words.push("frozen".to_owned());
    }
    let applied = match (&route["epoch"], &route["applied_epoch"]) {
        (store, applied) if store == applied => format!("epoch {applied}"),
        (store, applied) => format!("epoch {applied} applied, {store} in the store"),
    };
    let age = route["age_seconds"].as_f64().unwrap_or(0.0);
    let heard = match route["source"].as_str() {
        Some("disk" | "initial") => format!(", the store was never heard, for {age:.1} s"),
        _ if age > 0.0 => format!(", heard {age:.1} s ago"),
        _ => String::new(),
    };
    let store = match (route["store"]["topology"].as_str(), route["store"]["node"].as_str()) {
        (Some("single"), Some(node)) => format!(" {node}"),
        (Some(topology @ ("sentinel" | "cluster")), Some(node)) => format!(" {topology} {node}"),
        (Some(topology @ ("sentinel" | "cluster")), None) => format!(" {topology}"),
        _ => String::new(),
    };
    format!("{}: {}, {applied} ({}{store}{heard})\n", plain(&route["name"]), words.join(", "), plain(&route["source"]))
}

fn pool_rows(route: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![["pool", "version", "healthy", "in flight", "role"].map(str::to_owned).to_vec()];
    for (name, pool) in route["pools"].as_object().into_iter().flatten() {
        let endpoints = list(&pool["endpoints"]);
        let in_flight: u64 = endpoints.iter().filter_map(|endpoint| endpoint["in_flight"].as_u64()).sum();
        let roles: Vec<String> = list(&pool["roles"]).iter().map(plain).collect();
        let healthy = format!("{}/{}", plain(&pool["healthy"]), endpoints.len());
        rows.push(vec![name.clone(), plain(&pool["version"]), healthy, in_flight.to_string(), roles.join(", ")]);
    }
    rows
}

/// A line for each endpoint that does not get its whole share, and for each pool that panics.
fn endpoint_lines(route: &Value) -> String {
    let mut text = String::new();
    for (name, pool) in route["pools"].as_object().into_iter().flatten() {
        if pool["is_panicking"] == true {
            text.push_str(&format!("  {name} panics: too few of its endpoints are healthy, all are used\n"));
        }
        for stray in list(&pool["strays"]) {
            text.push_str(&format!("  {name} {}\n", stray_line(&plain(&pool["version"]), stray)));
        }
        for endpoint in list(&pool["endpoints"]).iter().filter(|endpoint| endpoint["state"] != "healthy") {
            let state = plain(&endpoint["state"]).replace('_', " ");
            let rest = endpoint["ejected_for_ms"].as_f64().map_or_else(String::new, |millis| format!(" for another {:.1} s", millis / 1e3));
            let why = endpoint["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
            text.push_str(&format!("  {name} {} is {state}{rest}{why}\n", plain(&endpoint["endpoint"])));
        }
    }
    text
}

/// `http://127.0.0.1:9001 serves search:1 and not search:2, as of 25 s ago: it is loaded there again`. Servers are asked now and then, and may have loaded
/// it since.
pub(super) fn stray_line(version: &str, stray: &Value) -> String {
    let serves = list(&stray["serves"]).iter().map(plain).collect::<Vec<_>>().join(", ");
    let serves = if serves.is_empty() { "nothing" } else { &serves };
    let restore = stray["restore"].as_str().map_or_else(String::new, |restore| format!(": {restore}"));
    let age =
        stray["seen_seconds_ago"].as_f64().filter(|age| *age >= 1.0).map_or_else(String::new, |age| format!(", as of {age:.0} s ago"));
    format!("{} serves {serves} and not {version}{age}{restore}", plain(&stray["server"]))
}

fn routers(route: &Value) -> String {
    let routers = list(&route["routers"]);
    let (known, unknown): (Vec<&Value>, Vec<&Value>) = routers.iter().partition(|router| router["is_known"] == true);
    let epoch = &route["epoch"];
    // What a router said before the epoch came into force here does not tell whether it obeys it by now.
    let is_applied = epoch == &route["applied_epoch"];
    let was_before = |router: &Value| is_applied && router["seen_ms_ago"].as_u64() >= route["applied_ms_ago"].as_u64();
    let others = known.iter().filter(|router| &router["epoch"] != epoch);
    let (silent, behind): (Vec<&Value>, Vec<&Value>) = others.partition(|router| was_before(router));
    let names = |routers: &[&Value]| routers.iter().map(|router| plain(&router["id"])).collect::<Vec<_>>().join(", ");
    let mut text = format!("  {} router(s)", known.len());
    if !known.is_empty() && silent.is_empty() && behind.is_empty() {
        text.push_str(&format!(", all on epoch {epoch}"));
    }
    if !behind.is_empty() {
        text.push_str(&format!(", not on epoch {epoch}: {}", names(&behind)));
    }
    if !silent.is_empty() {
        text.push_str(&format!(", not heard since epoch {epoch}: {}", names(&silent)));
    }
    if !unknown.is_empty() {
        text.push_str(&format!("; silent: {}", names(&unknown)));
    }
    let tripped: Vec<&Value> = known.iter().filter(|router| router["trip"].is_object()).copied().collect();
    if !tripped.is_empty() {
        text.push_str(&format!("; breaker tripped on {}", names(&tripped)));
    }
    text.push('\n');
    text
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_policy_is_not_mistaken_for_the_one_in_force() {
        let policy = json!({
            "kind": "split", "name": "mine", "digest": "0123456789abcdef", "state": "refused", "wanted": "mine", "why": "it trapped"
        });
        assert_eq!(policy_line(&policy), "  split policy mine@0123456789ab in force; the wanted mine refused: it trapped\n");
        let policy = json!({
            "kind": "split", "name": "mine", "digest": "0123456789abcdef", "state": "quarantined", "why": "it trapped",
            "answered_by": "last_good", "last_good": { "name": "split-rules" }
        });
        let expected = "  split policy mine@0123456789ab quarantined: it trapped; split-rules decides in its place\n";
        assert_eq!(policy_line(&policy), expected);
        let mut native = policy.clone();
        native["answered_by"] = json!("native");
        native["in_force"] = json!({ "quarantined_for_ms": 4_200 });
        let expected = "  split policy mine@0123456789ab quarantined for another 4.2 s: it trapped; native decisions in its place\n";
        assert_eq!(policy_line(&native), expected);
    }

    #[test]
    fn what_becomes_of_mlflows_candidates_is_said() {
        let working = json!({ "is_working": true, "is_waiting": true, "last": null, "last_ms_ago": null });
        assert_eq!(mlflow(&working), "  mlflow: a candidate is pushed and deployed, and another one waits\n");
        let waits = json!({ "is_working": true, "is_waiting": false, "waits": "tried again in 5 s: not pushed: exit status: 69: away" });
        assert_eq!(mlflow(&waits), "  mlflow: a candidate is tried again in 5 s: not pushed: exit status: 69: away\n");
        let last = json!({ "candidate": "models:/a@b", "version": 3, "result": "not_deployed", "why": "busy" });
        let over = json!({ "is_working": false, "is_waiting": false, "last": last, "last_ms_ago": 12_400 });
        assert_eq!(mlflow(&over), "  mlflow: models:/a@b (version 3), 12 s ago: not deployed: busy\n");
        assert_eq!(mlflow(&json!({ "is_working": false, "is_waiting": false, "last": null })) + &mlflow(&Value::Null), "");
    }

    #[test]
    fn a_server_that_serves_another_version_is_named() {
        let mut stray = json!({ "server": "http://h:1", "serves": ["search:1"], "restore": null });
        let pools = json!({ "pools": { "blue": { "version": "search:2", "strays": [stray] } } });
        assert_eq!(endpoint_lines(&pools), "  blue http://h:1 serves search:1 and not search:2\n");
        stray["serves"] = json!([]);
        stray["restore"] = json!("it is loaded there again");
        assert_eq!(stray_line("search:2", &stray), "http://h:1 serves nothing and not search:2: it is loaded there again");
        stray["seen_seconds_ago"] = json!(0.4);
        assert!(stray_line("search:2", &stray).contains("and not search:2: it"), "that is now");
        stray["seen_seconds_ago"] = json!(25.3);
        assert!(stray_line("search:2", &stray).ends_with("and not search:2, as of 25 s ago: it is loaded there again"));
    }

    #[test]
    fn a_route_fits_on_a_few_lines() {
        let route = json!({
            "name": "search", "live": "blue", "candidate_pool": "canary", "canary_percent": 2.5, "holdback_percent": 0.0,
            "mirror_percent": 0.0, "pin": null, "freeze": true, "epoch": 12, "applied_epoch": 12, "applied_ms_ago": 40, "source": "redis", "age_seconds": 0.25,
            "store": { "topology": "sentinel", "node": "10.0.0.5:6379" },
            "pools": { "blue": { "version": "v41", "healthy": 1, "roles": ["live"], "endpoints": [
                { "endpoint": "h:1", "state": "healthy", "in_flight": 3 },
                { "endpoint": "h:2", "state": "half_open", "in_flight": 0 },
                { "endpoint": "h:3", "state": "ejected", "ejected_for_ms": 2500, "in_flight": 0,
                  "why": "5 failures in a row, last: answered 503" }
            ] } },
            "policies": [{ "kind": "split", "name": "split-weighted", "digest": "0123456789abcdef", "state": "in_force", "why": "" }],
            "routers": [{ "id": "a", "epoch": 12, "is_known": true, "seen_ms_ago": 30 },
                        { "id": "b", "epoch": 11, "is_known": true, "seen_ms_ago": 20 },
                        { "id": "c", "epoch": 9, "is_known": false, "seen_ms_ago": 9000 },
                        { "id": "d", "epoch": 11, "is_known": true, "seen_ms_ago": 400 }],
            "faults": [{ "field": "pin", "value": "x", "allowed": "a pool" }], "warnings": ["w"],
        });
        let expected = "search: live blue, canary 2.5 % on canary, frozen, epoch 12 (redis sentinel 10.0.0.5:6379, heard 0.2 s ago)\n\
                        \x20 pool  version  healthy  in flight  role\n\
                        \x20 blue  v41      1/3      3          live\n\
                        \x20 blue h:2 is half open\n\
                        \x20 blue h:3 is ejected for another 2.5 s: 5 failures in a row, last: answered 503\n\
                        \x20 split policy split-weighted@0123456789ab in force\n\
                        \x20 3 router(s), not on epoch 12: b, not heard since epoch 12: d; silent: c\n\
                        \x20 not obeyed: pin = x: must be a pool\n\
                        \x20 warning: w\n";
        assert_eq!(show_route(&route), expected);
    }
}
