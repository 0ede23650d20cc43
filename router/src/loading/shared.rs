//! Servers that pools share: what one pool runs is not unloaded for another.

use model_servers::{Filling, Template};

use super::{Load, servers};
use crate::config::LoadProtocol;

/// The servers of a pool, and its name.
type Servers<'a> = (&'a str, &'a [String]);

/// The version that a pool ran before, where a hook may unload it from these of its servers: none, where another pool runs it and would lose it.
pub(super) async fn not_shared(load: &Load, servers: &[String], previous: Option<u64>) -> Option<u64> {
    let (Some(version), LoadProtocol::Hooks(hooks)) = (previous, &load.loading.protocol) else { return previous };
    // Where none unloads a version alone, a load says what is served, and the one before has to be known to go back to it.
    let Some(unload) = hooks.unload.as_ref().filter(|unload| unload.names_version() && version != load.number) else { return previous };
    for other in load.others.iter().filter(|other| load.loading.version_of(&other.version) == Some(version)) {
        // A name that does not resolve is of no server that anybody asks.
        let theirs = servers::of_pool(load, other).await.unwrap_or_default();
        if meet(load, (unload, version), (&load.pool.name, servers), (&other.name, &theirs)) {
            let (route, pool, other) = (&load.route, &load.pool.name, &other.name);
            tracing::warn!(
                route,
                pool,
                other,
                version,
                "two pools share a server or its unload_url: the version is not unloaded, since the other pool runs it"
            );
            return None;
        }
    }
    previous
}

/// Whether what unloads a version of one pool unloads that of the other, too: they have a server in common, or a URL.
fn meet(load: &Load, (unload, version): (&Template, u64), ours: Servers<'_>, theirs: Servers<'_>) -> bool {
    let (model, route) = (load.loading.server_model.as_str(), load.route.as_str());
    let url = |pool: &str, endpoint: &str| unload.fill(&Filling { endpoint, model, version, pool, route });
    let is_met = |server: &String| {
        let taken = url(ours.0, server);
        theirs.1.iter().any(|other| other == server || url(theirs.0, other) == taken)
    };
    ours.1.iter().any(is_met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::Purpose;

    /// Version 2 is loaded on canary; all pools run version 1 but green, which runs `green`. Each pool has the server of this port.
    async fn unloaded([blue, green, canary]: [u16; 3], (green_runs, unload): (&str, &str)) -> Option<u64> {
        let top = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\nurl = \"file:///tmp/models\"\n";
        let loading =
            format!("[route.loading]\nmodel = \"search\"\nprotocol = \"hooks\"\nload_url = \"{{endpoint}}/load/{{version}}\"\n{unload}\n");
        let pool = |name: &str, port: u16, version: &str| {
            format!("[route.pools.{name}]\nendpoints = [\"http://127.0.0.1:{port}\"]\nversion = \"{version}\"\n")
        };
        let pools = pool("blue", blue, "search:1") + &pool("green", green, green_runs) + &pool("canary", canary, "search:1");
        let config = crate::config::parse("test", &format!("{top}[[route]]\nname = \"search\"\n{loading}{pools}")).unwrap();
        let route = &config.routes[0];
        let (canary, others) = route.pools.iter().cloned().partition::<Vec<_>, _>(|pool| pool.name == "canary");
        let load = Load {
            registry: config.registry.clone(),
            route: route.name.clone(),
            loading: route.loading.clone().unwrap(),
            pool: canary[0].clone(),
            others,
            number: 2,
            sha256: None,
            only: None,
            purpose: Purpose::Restore,
        };
        let servers = servers::of(&load).await.unwrap();
        not_shared(&load, &servers, Some(1)).await
    }

    #[tokio::test]
    async fn what_another_pool_runs_on_the_same_server_is_not_unloaded() {
        let own = "unload_url = \"{endpoint}/unload/{version}\"";
        assert_eq!(unloaded([1, 2, 3], ("search:1", own)).await, Some(1), "each has its own");
        assert_eq!(unloaded([3, 2, 3], ("search:1", own)).await, None);
        assert_eq!(unloaded([1, 3, 3], ("search:1", own)).await, None);
        assert_eq!(unloaded([1, 3, 3], ("search:0", own)).await, Some(1), "who shares the server runs another one");
    }

    #[tokio::test]
    async fn a_url_that_unloads_for_two_pools_is_not_asked_to() {
        let control = "unload_url = \"http://127.0.0.1:9/unload/{version}\"";
        assert_eq!(unloaded([1, 2, 3], ("search:0", control)).await, None);
        let of_pool = "unload_url = \"http://127.0.0.1:9/{pool}/unload/{version}\"";
        assert_eq!(unloaded([1, 2, 3], ("search:1", of_pool)).await, Some(1));
        // Nothing is unloaded alone: the version before is what an undone load goes back to.
        for unload in ["", "unload_url = \"http://127.0.0.1:9/unload\""] {
            assert_eq!(unloaded([3, 3, 3], ("search:1", unload)).await, Some(1), "{unload}");
        }
    }
}
