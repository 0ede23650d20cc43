//! The versions that routes use: what pools run, what a rollout goes to or back to, and what aliases point to. Each has to be there to be loaded again.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::finding::Finding;
use super::registry::PART;
use crate::cli::flag::plain;
use crate::cli::model_validate::LIVE;
use crate::cli::rollback_alias::numbered;
use crate::config::Config;
use crate::registry::{Found, Name, Registry, RegistryError};

const TO_DO: &str =
    "before a server has to load it: bring the file back from a backup, or deploy its file anew; docs/REGISTRY.md has the layout";

const NO_MODEL: &str = "before a server has to load it: mend registry.url, bring the model's folder back from a backup, or deploy its file anew \
                        (docs/REGISTRY.md has the layout); what is no model of this registry is better named without `:NUMBER`";

/// What routes use of the registry.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// By model and number, who uses a version.
    users: BTreeMap<Name, BTreeMap<u64, String>>,
    /// Of pools of which no router says anything: by model, the version that the config has, which flags may have replaced, and who it is of.
    written: BTreeMap<Name, (u64, String)>,
    /// Of routes whose servers load the model: by number, where it is live.
    live: BTreeMap<Name, BTreeMap<u64, String>>,
    /// What the rollouts of those, as long as they are under way, may have to go back to: it is the champion until they are done.
    before: BTreeSet<(Name, u64)>,
}

impl InUse {
    /// The models that routes of the config load; and of the routes of the router that runs, as its API has them, the versions.
    pub(super) fn of(config: &Config, routes: &Value) -> InUse {
        let mut used = InUse::default();
        for loading in config.routes.iter().filter_map(|route| route.loading.as_ref()) {
            if let Ok(model) = loading.model.parse() {
                used.users.entry(model).or_default();
            }
        }
        let told = || routes["routes"].as_array().into_iter().flatten();
        for route in config.routes.iter().filter(|route| told().all(|told| told["name"] != route.name.as_str())) {
            for pool in &route.pools {
                if let Some((model, number)) = numbered(&pool.version) {
                    used.written.entry(model).or_insert_with(|| (number, format!("pool {} of {}", pool.name, route.name)));
                }
            }
        }
        for route in told() {
            let name = plain(&route["name"]);
            for (pool, about) in route["pools"].as_object().into_iter().flatten() {
                used.add(&plain(&about["version"]), format!("pool {pool} of {name}"));
            }
            let rollout = &route["rollout"];
            if rollout["is_active"] == true || rollout["phase"] == "done" {
                used.add(&plain(&rollout["control"]), format!("the way back of {name}"));
                used.add(&plain(&rollout["candidate"]), format!("the rollout of {name}"));
            }
            let loads = config.routes.iter().find(|one| one.name == name).and_then(|one| one.loading.as_ref());
            if let Some(loads) = loads {
                used.add_live(&loads.model, route);
            }
        }
        used
    }

    fn add(&mut self, version: &str, by: String) {
        if let Some((model, number)) = numbered(version) {
            self.users.entry(model).or_default().entry(number).or_insert(by);
        }
    }

    /// Of a route whose servers load this model.
    fn add_live(&mut self, loads: &str, route: &Value) {
        let of_model = |version: &Value| numbered(&plain(version)).filter(|(model, _)| model.as_str() == loads);
        if let Some((model, number)) = of_model(&route["pools"][plain(&route["live"])]["version"]) {
            self.live.entry(model).or_default().entry(number).or_insert_with(|| plain(&route["name"]));
        }
        if route["rollout"]["is_active"] == true {
            self.before.extend(of_model(&route["rollout"]["control"]));
        }
    }

    /// Whether the alias that deployments move, and candidates are compared with, points to what is live.
    fn champion(&self, model: &Name, at: u64) -> Option<Finding> {
        let live = self.live.get(model).filter(|live| !live.contains_key(&at) && !self.before.contains(&(model.clone(), at)))?;
        let told: Vec<String> = live.iter().map(|(number, route)| format!("{model}:{number} on {route}")).collect();
        let (number, _) = live.last_key_value()?;
        let found = format!("it points to version {at}, and live is {}", told.join(", "));
        let to_do =
            format!("switchback model alias {model} {LIVE} {number}; `deploy --wait`, and `rollback` with --config, move it by themselves");
        Some(Finding::warning(PART, format!("{model}@{LIVE}"), found, to_do))
    }

    /// Whether a route has to do with it.
    pub(super) fn has(&self, model: &Name) -> bool {
        self.users.contains_key(model)
    }

    /// The versions in use of models of which the registry has none at all; `there` are those that it has.
    pub(super) fn gone(&self, there: &[Name]) -> Vec<Finding> {
        let failed = |model: &Name, number: u64, by: &str| {
            let found = format!("used by {by}: the registry has no version of {model} at all");
            Finding::failed(PART, format!("{model}:{number}"), found, NO_MODEL)
        };
        let mut findings = Vec::new();
        for (model, numbers) in self.users.iter().filter(|(model, _)| !there.contains(model)) {
            findings.extend(numbers.iter().map(|(number, by)| failed(model, *number, by)));
        }
        let is_told = |model: &Name| self.users.get(model).is_some_and(|numbers| !numbers.is_empty());
        for (model, (number, by)) in self.written.iter().filter(|(model, _)| !there.contains(model) && !is_told(model)) {
            findings.push(failed(model, *number, by));
        }
        findings
    }

    /// Whether the versions of a model that are in use are there, each with an artefact of the size that it had. `found` is what can be read of it.
    ///
    /// # Errors
    /// The registry is away.
    pub(super) async fn look(&self, registry: &Registry, model: &Name, found: &Found) -> Result<Vec<Finding>, RegistryError> {
        let Some(users) = self.users.get(model) else { return Ok(Vec::new()) };
        let (mut users, mut findings, mut whole) = (users.clone(), Vec::new(), Vec::new());
        match registry.aliases(model).await {
            Ok(aliases) => {
                for (alias, last) in aliases {
                    if let Some(number) = last.version {
                        findings.extend(self.champion(model, number).filter(|_| alias.as_str() == LIVE));
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
    fn a_champion_that_is_not_live_is_told_with_what_moves_it() {
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\n[[route]]\nname = \"web\"\n\
                    [route.loading]\nmodel = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let config = crate::config::parse("test", text).unwrap();
        let model: Name = "search".parse().unwrap();
        let of = |phase: &str| {
            InUse::of(
                &config,
                &json!({ "routes": [{
                    "name": "web", "live": "green", "pools": { "blue": { "version": "search:2" }, "green": { "version": "search:3" } },
                    "rollout": { "phase": phase, "is_active": phase == "baking", "control": "search:2", "candidate": "search:3" },
                }] }),
            )
        };
        let told = of("done").champion(&model, 2).unwrap();
        assert_eq!((told.name.as_str(), told.found.as_str()), ("search@champion", "it points to version 2, and live is search:3 on web"));
        assert!(told.to_do.starts_with("switchback model alias search champion 3"), "{}", told.to_do);
        assert_eq!((of("done").champion(&model, 3), of("baking").champion(&model, 2)), (None, None), "it moves when the rollout is done");
        assert!(of("baking").champion(&model, 1).is_some());
        assert_eq!(InUse::of(&config, &Value::Null).champion(&model, 2), None, "nobody says what is live");
    }

    #[test]
    fn a_model_that_is_gone_is_told_of_with_whoever_uses_it() {
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\n[[route]]\nname = \"web\"\n\
                    [route.loading]\nmodel = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"search:7\"\n\
                    [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = \"v8\"\n";
        let config = crate::config::parse("test", text).unwrap();
        let model = || vec!["search".parse::<Name>().unwrap()];
        let told = |routes: &Value, there: &[Name]| -> Vec<String> {
            let line = |finding: Finding| format!("{}: {}", finding.name, finding.found);
            InUse::of(&config, routes).gone(there).into_iter().map(line).collect()
        };
        let gone = |number: u64| vec![format!("search:{number}: used by pool blue of web: the registry has no version of search at all")];
        assert_eq!((told(&Value::Null, &[]), told(&Value::Null, &model())), (gone(7), Vec::new()), "what the config names");
        let running =
            json!({ "routes": [{ "name": "web", "pools": { "blue": { "version": "search:9" }, "green": { "version": "none" } } }] });
        assert_eq!((told(&running, &[]), told(&running, &model())), (gone(9), Vec::new()), "what the flags name");
        let other = json!({ "routes": [{ "name": "web", "pools": { "blue": { "version": "v9" } } }] });
        assert_eq!(told(&other, &[]), Vec::<String>::new(), "nobody has pushed it yet");
    }

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
        assert_eq!(used.users.get(&name("search")), Some(&BTreeMap::from(users)));
    }
}
