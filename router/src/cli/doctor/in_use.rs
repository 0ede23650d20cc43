//! The versions that routes use: what pools run, what a rollout goes to or back to, and what aliases point to. Each has to be there to be loaded again.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::Finding;
use super::registry::PART;
use crate::cli::flag::plain;
use crate::cli::rollback_alias::numbered;
use crate::config::Config;
use crate::registry::{Found, Name, Registry, RegistryError};

const TO_DO: &str =
    "before a server has to load it: bring the file back from a backup, or deploy its file anew; docs/REGISTRY.md has the layout";

/// By model and number, who uses a version.
#[derive(Debug, Default)]
pub(super) struct InUse(BTreeMap<Name, BTreeMap<u64, String>>);

impl InUse {
    /// The models that routes of the config load; and of the routes of the router that runs, as its API has them, the versions.
    pub(super) fn of(config: &Config, routes: &Value) -> InUse {
        let mut used = InUse::default();
        for loading in config.routes.iter().filter_map(|route| route.loading.as_ref()) {
            if let Ok(model) = loading.model.parse() {
                used.0.entry(model).or_default();
            }
        }
        for route in routes["routes"].as_array().into_iter().flatten() {
            let name = plain(&route["name"]);
            for (pool, about) in route["pools"].as_object().into_iter().flatten() {
                used.add(&plain(&about["version"]), format!("pool {pool} of {name}"));
            }
            let rollout = &route["rollout"];
            if rollout["is_active"] == true || rollout["phase"] == "done" {
                used.add(&plain(&rollout["control"]), format!("the way back of {name}"));
                used.add(&plain(&rollout["candidate"]), format!("the rollout of {name}"));
            }
        }
        used
    }

    fn add(&mut self, version: &str, by: String) {
        if let Some((model, number)) = numbered(version) {
            self.0.entry(model).or_default().entry(number).or_insert(by);
        }
    }

    /// Whether a route has to do with it.
    pub(super) fn has(&self, model: &Name) -> bool {
        self.0.contains_key(model)
    }

    /// Whether the versions of a model that are in use are there, each with an artefact of the size that it had. `found` is what can be read of it.
    ///
    /// # Errors
    /// The registry is away.
    pub(super) async fn look(&self, registry: &Registry, model: &Name, found: &Found) -> Result<Vec<Finding>, RegistryError> {
        let Some(users) = self.0.get(model) else { return Ok(Vec::new()) };
        let (mut users, mut findings, mut whole) = (users.clone(), Vec::new(), Vec::new());
        match registry.aliases(model).await {
            Ok(aliases) => {
                for (alias, last) in aliases {
                    if let Some(number) = last.version {
                        users.entry(number).or_insert_with(|| format!("@{alias}"));
                    }
                }
            }
            Err(error @ RegistryError::Object { .. }) => {
                let to_do = format!("remove that file, and look with `switchback model alias {model}`");
                findings.push(Finding::failed(PART, format!("{model}: aliases"), error.to_string(), to_do));
            }
            Err(error) => return Err(error),
        }
        // Those that cannot be read are told of as such.
        users.retain(|number, _| !found.unreadable.iter().any(|(other, _)| other == number));
        for (number, by) in &users {
            let (name, version) = (format!("{model}:{number}"), found.versions.iter().find(|version| version.manifest.version == *number));
            let Some(version) = version else {
                findings.push(Finding::failed(PART, name, format!("used by {by}: the registry has no such version"), TO_DO));
                continue;
            };
            match registry.is_whole(version).await {
                Ok(()) => whole.push(name),
                Err(error) if error.is_away() => return Err(error),
                Err(error) => findings.push(Finding::failed(PART, name, format!("used by {by}: {error}"), TO_DO)),
            }
        }
        if !whole.is_empty() {
            findings.push(Finding::ok(PART, "in use", format!("{}: there, each of its size", whole.join(", "))));
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_pools_run_and_a_rollout_goes_back_to_is_in_use() {
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\n[[route]]\nname = \"web\"\n\
                    [route.loading]\nmodel = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let config = crate::config::parse("test", text).unwrap();
        let name = |text: &str| text.parse::<Name>().unwrap();
        let alone = InUse::of(&config, &Value::Null);
        assert!(alone.has(&name("search")) && !alone.has(&name("other")));
        let routes = json!({ "routes": [{
            "name": "web", "pools": { "blue": { "version": "search:3" }, "green": { "version": "none" }, "canary": { "version": "v7" } },
            "rollout": { "phase": "done", "is_active": false, "control": "search:2", "candidate": "search:3" },
        }] });
        let used = InUse::of(&config, &routes);
        let users = [(2, "the way back of web".to_owned()), (3, "pool blue of web".to_owned())];
        assert_eq!(used.0.get(&name("search")), Some(&BTreeMap::from(users)));
    }
}
