//! From the config in force to another one: what differs, what of it waits for a restart, and what the running router makes of it.
//! Pure.
//!
//! Invariant: whatever a running router cannot change stays as it is, by name, and the rest is applied.

use std::collections::{HashMap, HashSet};

use super::check_registry::Place;
use super::checked::Config;
use super::show::show;

/// Keys that hold from the start of the process to its end: sockets, threads, and the folder and store that the flags live in.
pub const FIXED: [&str; 16] = [
    "listen.traffic",
    "listen.traffic_tls",
    "listen.admin",
    "listen.workers",
    "state.url",
    "state.username",
    "state.password_file",
    "state.password_env",
    "state.sentinel_username",
    "state.sentinel_password_file",
    "state.sentinel_password_env",
    "state.ca",
    "state.cert",
    "state.key",
    "state.data_dir",
    "state.router_id",
];

/// A key whose value differs, as TOML writes both.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyChange {
    /// As `switchback config show` names it.
    pub key: String,
    /// `None` when the key was not there.
    pub old: Option<String>,
    /// `None` when the key is gone.
    pub new: Option<String>,
}

/// What a reload comes to.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The new config with the running router's values of [`FIXED`].
    pub config: Config,
    /// What is different from now on.
    pub changed: Vec<KeyChange>,
    /// What will be different after a restart.
    pub waiting: Vec<KeyChange>,
}

/// Works out a reload. `running` is what is in force (with the addresses that were really bound), `before` the file that it came from,
/// `at_start` the file that the process was started with, `new` the file as it is now.
#[must_use]
pub fn reload(running: &Config, before: &Config, at_start: &Config, new: &Config) -> Reload {
    let has_moved_tls = running.listen.traffic_tls.is_some() != new.listen.traffic_tls.is_some();
    let is_fixed = |key: &str| FIXED.contains(&key) || (has_moved_tls && key.starts_with("tls."));
    let mut config = new.clone();
    config.listen = running.listen.clone();
    config.listen.trusted_proxies.clone_from(&new.listen.trusted_proxies);
    if has_moved_tls {
        config.tls.clone_from(&running.tls);
    }
    // By default the folder of plugins is in the data folder, which stays where it is.
    if new.policies.dir == new.state.data_dir.join("policies") {
        config.policies.dir = running.state.data_dir.join("policies");
    }
    if new.registry.place == Place::Folder(new.state.data_dir.join("models")) {
        config.registry.place = Place::Folder(running.state.data_dir.join("models"));
    }
    config.state.url = running.state.url.clone();
    config.state.data_dir.clone_from(&running.state.data_dir);
    config.state.router_id.clone_from(&running.state.router_id);
    let mut changed = differences(before, new);
    let stays = |key: &str| {
        is_fixed(key)
            || (key == "policies.dir" && config.policies.dir == running.policies.dir)
            || (key == "registry.url" && config.registry.place == running.registry.place)
    };
    changed.retain(|change| !stays(&change.key));
    let mut waiting = differences(at_start, new);
    waiting.retain(|change| is_fixed(&change.key));
    let is_of_store =
        |change: &KeyChange| change.key.starts_with("state.") && change.key != "state.router_id" && change.key != "state.data_dir";
    if at_start.state.url != new.state.url && !waiting.iter().any(is_of_store) {
        // Only the password differs, and that is not shown.
        let shown = Some("(another password)".to_owned());
        waiting.push(KeyChange { key: "state.url".to_owned(), old: None, new: shown });
    }
    Reload { config, changed, waiting }
}

fn differences(old: &Config, new: &Config) -> Vec<KeyChange> {
    let (old, new) = (show(old), show(new));
    let old_by_key: HashMap<&str, &str> = old.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let new_keys: HashSet<&str> = new.iter().map(|(key, _)| key.as_str()).collect();
    let mut changes = Vec::new();
    for (key, value) in &new {
        let before = old_by_key.get(key.as_str()).copied();
        if before != Some(value.as_str()) {
            changes.push(KeyChange { key: key.clone(), old: before.map(str::to_owned), new: Some(value.clone()) });
        }
    }
    for (key, value) in old.iter().filter(|(key, _)| !new_keys.contains(key.as_str())) {
        changes.push(KeyChange { key: key.clone(), old: Some(value.clone()), new: None });
    }
    changes
}

/// `key = value (was old)`, for a log line and the command line.
impl std::fmt::Display for KeyChange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(out, "{} = {new} (was {old})", self.key),
            (None, Some(new)) => write!(out, "{} = {new} (new)", self.key),
            (_, None) => write!(out, "{} is gone", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state: &str, rest: &str) -> Config {
        let text = format!(
            r#"
            listen = {{ traffic = "127.0.0.1:0", admin = "127.0.0.1:0", workers = 2 }}
            state = {{ data_dir = "/a" {state} }}
            route = [{{ name = "search", pools = {{ blue = {{ endpoints = ["http://127.0.0.1:9001"] {rest} }} }} }}]
            "#
        );
        crate::config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn keys(changes: &[KeyChange]) -> Vec<&str> {
        changes.iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn what_cannot_change_is_named_and_kept_and_the_rest_is_applied() {
        let start = config("", "");
        let mut new = config(", router_id = \"x\", url = \"redis://127.0.0.1:1\"", ", version = \"v2\"");
        new.listen.traffic_tls = Some(([127, 0, 0, 1], 0).into());
        assert_eq!(new.routes[0].pools[0].version, "v2");
        let done = reload(&start, &start, &start, &new);
        assert_eq!(keys(&done.changed), ["route.search.pools.blue.version"]);
        assert_eq!(keys(&done.waiting), ["listen.traffic_tls", "state.url", "state.router_id"]);
        assert_eq!(done.config.state.router_id, None);
        assert_eq!(done.config.listen.traffic_tls, None);
        assert_eq!(done.config.routes[0].pools[0].version, "v2");
        let again = reload(&done.config, &new, &start, &new);
        assert!(again.changed.is_empty());
        assert_eq!(keys(&again.waiting), keys(&done.waiting), "what waits is named each time");
    }

    #[test]
    fn the_default_folder_of_plugins_stays_in_the_data_folder_that_stays() {
        let (start, mut new) = (config("", ""), config("", ""));
        new.state.data_dir = "/b".into();
        new.policies.dir = "/b/policies".into();
        let done = reload(&start, &start, &start, &new);
        assert_eq!(done.config.policies.dir, std::path::Path::new("/a/policies"));
        assert!(done.changed.is_empty(), "{:?}", done.changed);
        assert_eq!(keys(&done.waiting), ["state.data_dir"]);
    }

    #[test]
    fn a_key_that_is_gone_is_told() {
        let with = config("", ", health = { interval = \"1s\" }");
        let mut more = with.clone();
        more.routes.push(more.routes[0].clone());
        more.routes[1].name = "ads".to_owned();
        let done = reload(&more, &more, &more, &with);
        assert!(done.changed.iter().all(|change| change.new.is_none() && change.key.starts_with("route.ads.")), "{:?}", done.changed);
        assert!(done.changed.iter().any(|change| change.to_string() == "route.ads.name is gone"));
    }
}
