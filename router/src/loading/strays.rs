//! Strays: servers of a pool that serve another version than it runs. They are asked, and nothing is changed.

use futures_util::StreamExt as _;
use model_servers::serving;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{Load, Trouble, servers, settings};
use crate::config::LoadProtocol;

/// A server that serves another version than its pool runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stray {
    /// `http://host:port`.
    pub server: String,
    /// What it serves, as `search:12`, the oldest first; empty: nothing.
    pub serves: Vec<String>,
}

/// The servers of a pool that do not answer with the version of `load`. One that cannot be asked is none: health checks tell of that. With
/// hooks nobody can tell. With a deadline all are asked at once, and who does not tell by then cannot be asked.
pub async fn strays(load: &Load, by: Option<Instant>) -> Vec<Stray> {
    if load.loading.protocol != LoadProtocol::V2 {
        return Vec::new();
    }
    let asked = async { servers::asked(load).await.and_then(|servers| Ok((servers, servers::client(load)?))) };
    let (servers, client) = match in_time(by, asked).await.unwrap_or_else(|| Err(late())) {
        Ok(found) => found,
        Err(Trouble::Away(why) | Trouble::Refused(why)) => {
            tracing::debug!(route = load.route, pool = load.pool.name, why, "the servers of a pool cannot be asked what they serve");
            return Vec::new();
        }
    };
    let settings = settings(load);
    let (client, settings) = (&client, &settings);
    let at_a_time = if by.is_some() { servers.len() } else { load.loading.parallel };
    let looks: Vec<_> =
        servers.into_iter().map(|server| async move { (in_time(by, serving(client, settings, &server)).await, server) }).collect();
    let mut strays = Vec::new();
    let mut answers = futures_util::stream::iter(looks).buffer_unordered(at_a_time.max(1));
    while let Some((answer, server)) = answers.next().await {
        match answer {
            Some(Ok(serving)) if serving.answers_with(load.number) => {}
            Some(Ok(serving)) => {
                let serves = serving.versions.iter().map(|number| format!("{}:{number}", load.loading.model)).collect();
                strays.push(Stray { server, serves });
            }
            None => tracing::debug!(route = load.route, pool = load.pool.name, server, "a server does not tell in time what it serves"),
            Some(Err(fault)) => {
                tracing::debug!(route = load.route, pool = load.pool.name, %fault, "a server does not tell what it serves");
            }
        }
    }
    strays.sort_unstable();
    strays
}

/// What comes of it by then; without a deadline, whenever that is.
async fn in_time<T>(by: Option<Instant>, what: impl Future<Output = T>) -> Option<T> {
    match by {
        Some(by) => timeout_at(by, what).await.ok(),
        None => Some(what.await),
    }
}

fn late() -> Trouble {
    Trouble::Away("the names of the servers do not resolve in time".to_owned())
}
