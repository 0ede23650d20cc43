//! `switchback breaker`: what each router's own breaker holds back, and its clearing on all of them.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_client::AdminClient;
use super::of_route::OfRoute;
use super::{Failure, block_on, evidence, flag::plain, print};

const AFTER_HELP: &str = "\
Each router guards its own users: when a candidate fails more than control, it sends that candidate nobody, until the candidate is gone or the breaker is cleared. docs/ROLLOUTS.md says when it trips.

Examples:
  switchback breaker status search
  switchback breaker clear search

Exit codes: 0 done, 2 a router refused it, 69 a router was not reached.";

/// Look at, or clear, the breakers that the routers have of their own.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct BreakerArgs {
    #[command(subcommand)]
    command: BreakerCommand,
}

#[derive(Debug, Subcommand)]
enum BreakerCommand {
    /// Show what each router that is heard of holds back.
    #[command(after_help = "Examples:\n  switchback breaker status search\n  switchback breaker status search --json")]
    Status(OfRoute),
    /// Have every router that is heard of give the candidate its share again, and look at it anew.
    #[command(after_help = "Examples:\n  switchback breaker clear search\n  switchback breaker clear search --json")]
    Clear(OfRoute),
}

impl BreakerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (of, is_clear) = match self.command {
            BreakerCommand::Status(of) => (of, false),
            BreakerCommand::Clear(of) => (of, true),
        };
        let asked = block_on(of.ask(is_clear)).map_err(|failure| failure.in_json(of.json))?;
        let lines = || asked.iter().map(|router| if is_clear { cleared(router) } else { shown(router) }).collect();
        print(&if of.json { format!("{:#}\n", json!({ "route": of.route, "routers": asked })) } else { lines() })?;
        let failed = |is_refused: bool| asked.iter().filter(|router| router["is_refused"] == is_refused).count();
        match (failed(true), failed(false)) {
            (0, 0) => Ok(()),
            (0, unreached) => Err(Failure::unreachable(format!("{unreached} router(s) were not reached"))),
            (refused, _) => Err(Failure::refused(format!("{refused} router(s) refused it"))),
        }
    }
}

impl OfRoute {
    /// Every router that the one asked has heard of answers for itself.
    async fn ask(&self, is_clear: bool) -> Result<Vec<Value>, Failure> {
        let client = self.admin.client()?;
        let (path, route) =
            (format!("/api/v1/routes/{}/breaker", self.route), client.get(&format!("/api/v1/routes/{}", self.route)).await?);
        let all = || route["routers"].as_array().into_iter().flatten();
        // Where the store is away nobody is known any more: those that were heard of last are asked, as for a rollback.
        let is_away = all().all(|router| router["is_known"] != true);
        let heard = all().filter(|router| is_away || router["is_known"] == true);
        let mut peers: Vec<(String, AdminClient)> =
            heard.map(|router| (plain(&router["id"]), client.to_peer(&plain(&router["admin"])))).collect();
        // One that started while the store was away has heard of nobody, itself neither.
        if peers.is_empty() {
            peers.push((client.authority().to_owned(), client.to_peer(client.authority())));
        }
        let mut answers = Vec::new();
        for (id, peer) in peers {
            let answer = if is_clear { peer.delete(&path).await } else { peer.get(&path).await };
            let mut answer = answer.unwrap_or_else(|failure| json!({ "error": failure.message(), "is_refused": failure.is_refused() }));
            answer["router"] = id.into();
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn cleared(router: &Value) -> String {
    let id = plain(&router["router"]);
    match (router["error"].as_str(), router["cleared"].as_str()) {
        (Some(error), _) => format!("{id}: {error}\n"),
        (None, Some(version)) => format!("{id}: {version} gets its share again\n"),
        (None, None) => format!("{id}: held nothing back\n"),
    }
}

fn shown(router: &Value) -> String {
    let id = plain(&router["router"]);
    match router["error"].as_str() {
        Some(error) => format!("{id}: {error}\n"),
        None => format!("{id}: {}\n", of_router(router)),
    }
}

/// `tripped: v42 gets nobody since 12 s; roll back: ...`
pub(super) fn of_router(breaker: &Value) -> String {
    let state = plain(&breaker["state"]);
    match state.as_str() {
        "tripped" => {
            let since = breaker["since_unix_ms"].as_u64().unwrap_or(0);
            let ago = evidence::span(crate::admin::now_unix_ms().saturating_sub(since) / 1_000);
            format!("tripped: {} gets nobody here, since {ago}: {}", plain(&breaker["version"]), plain(&breaker["why"]))
        }
        "watching" => {
            let log_harm = breaker["log_harm"].as_f64().unwrap_or(0.0);
            let would =
                breaker["would_trip"].as_str().map_or_else(String::new, |why| format!("; observe_only: it would have tripped: {why}"));
            format!("watching: evidence {log_harm:.1} of {:.1}{would}", breaker["threshold_log"].as_f64().unwrap_or(0.0))
        }
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_router_is_a_line() {
        let tripped = json!({ "router": "a", "state": "tripped", "version": "v2", "since_unix_ms": crate::admin::now_unix_ms() - 7_500, "why": "it fails" });
        assert_eq!(shown(&tripped), "a: tripped: v2 gets nobody here, since 7 s: it fails\n");
        let watching = json!({ "router": "b", "state": "watching", "log_harm": 1.25, "threshold_log": 7.6, "would_trip": null });
        assert_eq!(shown(&watching), "b: watching: evidence 1.2 of 7.6\n");
        assert_eq!(shown(&json!({ "router": "c", "state": "idle" })), "c: idle\n");
        assert_eq!(shown(&json!({ "router": "d", "error": "refused" })), "d: refused\n");
        assert_eq!(cleared(&json!({ "router": "a", "cleared": "v2" })), "a: v2 gets its share again\n");
        assert_eq!(cleared(&json!({ "router": "a", "cleared": null })), "a: held nothing back\n");
    }
}
