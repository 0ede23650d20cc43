//! `switchback rollback`: takes the candidate out of traffic, on every router, with or without the store.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::of_route::{OfRoute, Ordered};
use super::rollback_to::To;
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

With --to, a version that the other colour still has becomes live at once; another one is loaded and warmed up first, and then becomes live.

Exit codes: 0 done, 2 refused (there is nothing to roll back, or nobody to take the traffic), 69 not every router was reached, 75 still under way at --timeout.";

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
        let asked = block_on(self.ask()).map_err(|failure| failure.in_json(is_json))?;
        print(&if is_json { format!("{asked:#}\n") } else { shown(&asked, self.dry_run) })?;
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

    async fn ask(&self) -> Result<Value, Failure> {
        let Ordered { of: OfRoute { route, admin, .. }, why } = &self.ordered;
        let client = admin.client()?;
        let (path, order) = (format!("/api/v1/routes/{route}/rollback"), json!({ "why": why, "dry_run": self.dry_run }));
        // Before it is done: who has to hear of it where the store cannot tell them.
        let route = client.get(&format!("/api/v1/routes/{route}")).await?;
        let mut done = client.post(&path, &order).await?;
        done["routers"] = json!([]);
        if done["held_back_here"] != true {
            return Ok(done);
        }
        let mut routers = Vec::new();
        for router in route["routers"].as_array().into_iter().flatten() {
            let peer = client.to_peer(&plain(&router["admin"]));
            let mut answer = peer.post(&path, &order).await.unwrap_or_else(|failure| json!({ "error": failure.message() }));
            answer["router"] = router["id"].clone();
            routers.push(answer);
        }
        done["routers"] = Value::Array(routers);
        Ok(done)
    }
}

fn shown(done: &Value, is_dry_run: bool) -> String {
    let (candidate, control, target) = (plain(&done["candidate"]), plain(&done["control"]), plain(&done["target"]));
    let [healthy, endpoints] = ["target_healthy", "target_endpoints"].map(|key| done[key].as_u64().unwrap_or(0));
    let what = format!("{candidate} gives its traffic to {control} on {target}");
    let health = format!(" ({healthy} of {endpoints} endpoints healthy)");
    let pinned = done["pinned"]
        .as_str()
        .map_or_else(String::new, |pool| format!("all traffic stays pinned to {pool}: switchback flag set ROUTE --unset pin\n"));
    if is_dry_run {
        return format!("would be done: {what}{health}\n{pinned}");
    }
    let what = if healthy < endpoints { what + &health } else { what };
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
        assert_eq!(shown(&done, true), "would be done: v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy)\n");
        assert_eq!(shown(&done, false), "rolled back: v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy), epoch 12\n");
        done["epoch"] = Value::Null;
        done["error"] = "it is away".into();
        done["routers"] = json!([{ "router": "a", "held_back_here": true }, { "router": "b", "error": "refused" }]);
        let said = shown(&done, false);
        assert!(
            said.ends_with(
                "each router holds v2 back by itself:\n  a: v2 gives its traffic to v1 on blue (2 of 3 endpoints healthy)\n  b: refused\n"
            ),
            "{said}"
        );
    }
}
