//! Strays: servers of a pool that serve another version than it runs. They are asked, and nothing is changed.

use futures_util::StreamExt as _;
use model_servers::serving;
use serde::Serialize;

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
/// hooks nobody can tell.
pub async fn strays(load: &Load) -> Vec<Stray> {
    if load.loading.protocol != LoadProtocol::V2 {
        return Vec::new();
    }
    let found = servers::asked(load).await.and_then(|servers| Ok((servers, servers::client(load)?)));
    let (servers, client) = match found {
        Ok(found) => found,
        Err(Trouble::Away(why) | Trouble::Refused(why)) => {
            tracing::debug!(route = load.route, pool = load.pool.name, why, "the servers of a pool cannot be asked what they serve");
            return Vec::new();
        }
    };
    let settings = settings(load);
    let (client, settings) = (&client, &settings);
    let looks: Vec<_> = servers.into_iter().map(|server| async move { (serving(client, settings, &server).await, server) }).collect();
    let mut strays = Vec::new();
    let mut answers = futures_util::stream::iter(looks).buffer_unordered(load.loading.parallel.max(1));
    while let Some((answer, server)) = answers.next().await {
        match answer {
            Ok(serving) if serving.answers_with(load.number) => {}
            Ok(serving) => {
                let serves = serving.versions.iter().map(|number| format!("{}:{number}", load.loading.model)).collect();
                strays.push(Stray { server, serves });
            }
            Err(fault) => {
                tracing::debug!(route = load.route, pool = load.pool.name, %fault, "a server does not tell what it serves");
            }
        }
    }
    strays.sort_unstable();
    strays
}
