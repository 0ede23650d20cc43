//! `switchback rollback`: takes the candidate out of traffic, on every router, with or without the store.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::deploy_told::Told;
use super::of_route::{OfRoute, Ordered};
use super::rollback_to::To;
use super::status::{list, stray_line};
use super::{Failure, block_on, flag, flag::plain, print, rollback_alias};
use crate::config::units;

/// How long it may be waited for.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(86_400);

const AFTER_HELP: &str = "\
A candidate that ramps loses its share; a new live colour with a holdback gives its traffic back to the previous one. One write, which every router obeys within milliseconds. Where Redis is away, each router that was heard of is told by itself, and the flags follow when Redis is back.

Examples:
  switchback rollback search
  switchback rollback search --why \"v42 ranks worse\"
  switchback rollback search --dry-run
  switchback rollback search --to search:9 --why \"v12 and v11 rank worse\"
  switchback rollback search --to search@champion --config switchback.toml

With --to, a version that the other colour still has becomes live at once; another one is loaded and warmed up first, and then becomes live. Where a live version gives way, the alias champion of the registry of --config follows; a registry that does not answer is told of, and holds nothing up.

Exit codes: 0 done, 2 refused (there is nothing to roll back, or nobody to take the traffic), 64 bad usage, 69 not every router was reached, 75 still under way at --timeout.";

/// Take the candidate of a route out of traffic, at once and everywhere.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    ordered: Ordered,
    /// Only say what would be done, and whether the pool that gets the traffic is ready.
    #[arg(long)]
    dry_run: bool,
    /// The version to go back to, like search:9 or search@champion (the route or its model, and an alias of the registry of --config), instead of the one before.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// With --to: wait for so long at most, like 90s or 10m; it goes on all the same.
    #[arg(long, value_name = "DURATION", default_value = "10m", requires = "to", allow_hyphen_values = true)]
    timeout: String,
}

impl RollbackArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let is_json = self.ordered.of.json;
        self.ordered.check()?;
        if let Some(version) = &self.to {
            return block_on(self.to(version)).map_err(|failure| failure.in_json(is_json));
        }
        let (mut asked, route) = block_on(self.ask()).map_err(|failure| failure.in_json(is_json))?;
        if self.dry_run {
            (asked["would"], asked["loads"]) = (would(&asked, &route).into(), false.into());
        }
        // The registry comes last: whether it answers is no business of whoever waits for this.
        let printed = print(&if is_json { format!("{asked:#}\n") } else { shown(&asked) });
        if is_another_live(&asked, &route) {
            block_on(self.move_champion(&plain(&asked["control"])))?;
        }
        printed?;
        let unreached = asked["routers"].as_array().into_iter().flatten().filter(|router| router["held_back_here"] != true).count();
        if unreached > 0 {
            Err(Failure::unreachable(format!("{unreached} router(s) were not reached: they follow when the store is back")))
        } else {
            Ok(())
        }
    }

    async fn to(&self, version: &str) -> Result<(), Failure> {
        let Ordered { of: OfRoute { route, admin, json }, why } = &self.ordered;
        let time = units::duration(&self.timeout).filter(|time| (LEAST..=MOST).contains(time));
        let time = time.ok_or_else(|| Failure::usage(format!("--timeout {}: must be from 1s to 24h, like 90s or 10m", self.timeout)))?;
        let config = admin.good_config();
        let (route, client, deadline) = (flag::checked(route)?, admin.client()?, Instant::now() + time);
        let version = &rollback_alias::resolved(config.as_ref(), route, version).await?;
        let again = &format!("switchback rollback {route} --to {version}{}", admin.again());
        let to = To { config: config.as_ref(), route, version, why, deadline, is_json: *json, again };
        if self.dry_run { to.would(&client).await } else { to.go(client).await }
    }

    /// The version before is live again, and the alias says so.
    async fn move_champion(&self, version: &str) -> Result<(), Failure> {
        let Ordered { of: OfRoute { route, admin, json }, why } = &self.ordered;
        rollback_alias::follow(admin.good_config().as_ref(), (route, version, why), &Told::new(*json)).await;
        Ok(())
    }

    /// What became of it, and the route before.
    async fn ask(&self) -> Result<(Value, Value), Failure> {
        let Ordered { of: OfRoute { route, admin, .. }, why } = &self.ordered;
        let client = admin.client()?;
        let (path, order) = (format!("/api/v1/routes/{route}/rollback"), json!({ "why": why, "dry_run": self.dry_run }));
        // Before it is done: who has to hear of it where the store cannot tell them.
        let route = client.get(&format!("/api/v1/routes/{route}")).await?;
        let mut done = client.post(&path, &order).await?;
        done["routers"] = json!([]);
        if done["held_back_here"] != true {
            return Ok((done, route));
        }
        let mut routers = Vec::new();
        for router in route["routers"].as_array().into_iter().flatten() {
            let peer = client.to_peer(&plain(&router["admin"]));
            let mut answer = peer.post(&path, &order).await.unwrap_or_else(|failure| json!({ "error": failure.message() }));
            answer["router"] = router["id"].clone();
            routers.push(answer);
        }
        // One that started while the store was away has heard of nobody, itself neither.
        if routers.is_empty() {
            let mut own = done.clone();
            own["router"] = client.authority().into();
            routers.push(own);
        }
        done["routers"] = Value::Array(routers);
        Ok((done, route))
    }
}

/// Whether the live version gave way to the one before it: it is written, and it was live.
fn is_another_live(done: &Value, route: &Value) -> bool {
    done["epoch"].is_u64() && route["pools"][plain(&route["live"])]["version"] == done["candidate"]
}

/// A store that was not heard for so many seconds is thought to be away.
const HEARD_WITHIN: f64 = 5.0;

/// Who gives its traffic to whom, and what of those endpoints is healthy.
fn what_and_health(done: &Value) -> (String, String) {
    let (candidate, control, target) = (plain(&done["candidate"]), plain(&done["control"]), plain(&done["target"]));
    let [healthy, endpoints] = ["target_healthy", "target_endpoints"].map(|key| done[key].as_u64().unwrap_or(0));
    let health = format!(" ({healthy} of {endpoints} endpoints healthy)");
    (format!("{candidate} gives its traffic to {control} on {target}"), health)
}

/// What a dry run says: that, how long it takes, and which servers of the target are not ready for it.
fn would(done: &Value, route: &Value) -> String {
    let (what, health) = what_and_health(done);
    let (control, target) = (plain(&done["control"]), plain(&done["target"]));
    let strays = list(&route["pools"][&target]["strays"]).iter().map(|stray| format!("; {target} {}", stray_line(&control, stray)));
    let means = if done["can_hold_back"] == true { "each router goes back by itself" } else { "nothing is done, and this ends with 69" };
    format!("{what}{health}: at once, by one write{}{}", strays.collect::<String>(), store_is_away(route, means))
}

/// That the store was not heard lately, and what that means; empty where it was.
pub(super) fn store_is_away(route: &Value, means: &str) -> String {
    let age = route["age_seconds"].as_f64().filter(|age| *age > HEARD_WITHIN);
    age.map_or_else(String::new, |age| format!("; the store was last heard {age:.0} s ago: while it is away {means}"))
}

fn shown(done: &Value) -> String {
    let (candidate, (what, health)) = (plain(&done["candidate"]), what_and_health(done));
    let pinned = done["pinned"]
        .as_str()
        .map_or_else(String::new, |pool| format!("all traffic stays pinned to {pool}: switchback flag set ROUTE --unset pin\n"));
    if let Some(would) = done["would"].as_str() {
        return format!("would be done: {would}\n{pinned}");
    }
    let is_whole = done["target_healthy"] == done["target_endpoints"];
    let what = if is_whole { what } else { what + &health };
    if let Some(epoch) = done["epoch"].as_u64() {
        return format!("rolled back: {what}, epoch {epoch}\n{pinned}");
    }
    let mut text = format!("the store is away ({}); each router holds {candidate} back by itself:\n", plain(&done["error"]));
    for router in done["routers"].as_array().into_iter().flatten() {
        let said = if router["held_back_here"] == true { what.clone() } else { plain(&router["error"]) };
        text.push_str(&format!("  {}: {said}\n", plain(&router["router"])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said() {
        let mut done = json!({ "candidate": "v2", "control": "v1", "target": "blue", "target_healthy": 2, "target_endpoints": 3, "epoch": 12, "error": null, "routers": [] });
        assert_eq!(shown(&done), "rolled back: v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy), epoch 12\n");
        done["epoch"] = Value::Null;
        done["error"] = "it is away".into();
        done["routers"] = json!([{ "router": "a", "held_back_here": true }, { "router": "b", "error": "refused" }]);
        let said = shown(&done);
        assert!(
            said.ends_with(
                "each router holds v2 back by itself:\n  a: v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy)\n  b: refused\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_dry_run_says_how_long_it_takes_and_who_is_not_ready() {
        let mut done =
            json!({ "candidate": "v2", "control": "v1", "target": "blue", "target_healthy": 2, "target_endpoints": 3, "epoch": null });
        let mut route = json!({ "live": "green", "pools": { "blue": { "version": "v1", "strays": [] }, "green": { "version": "v2" } } });
        let at_once = "v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy): at once, by one write";
        assert_eq!(would(&done, &route), at_once);
        route["age_seconds"] = 12.3.into();
        let away = "; the store was last heard 12 s ago: while it is away";
        for (can, means) in [(true, "each router goes back by itself"), (false, "nothing is done, and this ends with 69")] {
            done["can_hold_back"] = can.into();
            assert_eq!(would(&done, &route), format!("{at_once}{away} {means}"));
        }
        route["age_seconds"] = 0.3.into();
        route["pools"]["blue"]["strays"] = json!([{ "server": "http://h:1", "serves": ["v9"], "restore": null }]);
        assert_eq!(would(&done, &route), format!("{at_once}; blue http://h:1 serves v9 and not v1"));
        done["would"] = at_once.into();
        assert_eq!(shown(&done), format!("would be done: {at_once}\n"));
    }

    #[test]
    fn another_version_is_live_where_the_live_one_gave_way() {
        let mut done = json!({ "candidate": "v2", "control": "v1", "epoch": 7 });
        let mut route = json!({ "live": "green", "pools": { "blue": { "version": "v1" }, "green": { "version": "v2" } } });
        assert!(is_another_live(&done, &route));
        route["live"] = "blue".into();
        assert!(!is_another_live(&done, &route), "a candidate that ramps was not live");
        (route["live"], done["epoch"]) = ("green".into(), Value::Null);
        assert!(!is_another_live(&done, &route), "nothing was written");
    }
}
