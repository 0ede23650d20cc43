//! What a rollback has to do with aliases of the registry: `--to search@champion`, and `champion`, which follows what becomes live by it.

use std::time::Duration;

use tokio::time::timeout;

use super::deploy_told::Told;
use super::model_validate::LIVE;
use super::registry_args::failed;
use super::validating::named;
use super::{Failure, deploy_alias};
use crate::config::{self, Config};
use crate::registry::{Name, Reference, Registry};
use crate::vocabulary::read_version;

/// The rollback is done by then: a registry that does not answer is tried again for so long, and waited for so long.
const RETRY_FOR: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_secs(10);

/// `NAME@ALIAS` as `MODEL:NUMBER`, NAME being the model or its route; whatever has no `@` as it is. `config` is the router's, where one was named.
///
/// # Errors
/// It is not known which registry is meant, or that has no such alias, or is away.
pub(super) async fn resolved(config: Option<&Config>, route: &str, version: &str) -> Result<String, Failure> {
    let Some((name, alias)) = version.split_once('@') else { return Ok(version.to_owned()) };
    let Some(config) = config else {
        let why = "an alias is one of the registry of --config FILE (or SWITCHBACK_CONFIG), which is not named or not good";
        return Err(Failure::usage(format!("--to {version}: {why}; or name the version, like search:9")));
    };
    let text = format!("{}@{alias}", model(config, route, name));
    let wanted = text.parse::<Reference>().map_err(|error| Failure::usage(format!("--to {version}: {error}")))?;
    let registry = Registry::open(&config.registry).map_err(failed)?;
    Ok(named(&registry.version(&wanted).await.map_err(failed)?))
}

/// The model of the route, where the route's own name was said.
fn model<'n>(config: &'n Config, route: &str, name: &'n str) -> &'n str {
    let found = config.routes.iter().find(|one| one.name == route && name == route);
    found.and_then(|route| route.loading.as_ref()).map_or(name, |loading| &loading.model)
}

/// Points `champion` to the version that a rollback made live, where it is one of a model of the registry: for a route with `[route.loading]`, of that model.
/// What keeps it from that is told, and is no failure: users have the version by now.
pub(super) async fn follow(config: Option<&Config>, (route, version, why): (&str, &str, &str), told: &Told) {
    let Some((model, number)) = numbered(version) else { return };
    let by_hand = format!("by hand: switchback model alias {model} {LIVE} {number}");
    let Some(config) = config else {
        let why = "--config FILE (or SWITCHBACK_CONFIG) says in which registry it is";
        return told.line("alias", &format!("{model}@{LIVE} is left where it is: {why}; {by_hand}"));
    };
    let loading = config.routes.iter().find(|one| one.name == route).and_then(|one| one.loading.as_ref());
    if loading.is_some_and(|loading| loading.model != model.as_str()) {
        return;
    }
    let warn = |why: String| told.line("warning", &format!("warning: {model}@{LIVE} was not moved to version {number}: {why}; {by_hand}"));
    let patient = config::Registry { retry_for: RETRY_FOR.min(config.registry.retry_for), ..config.registry.clone() };
    let registry = match Registry::open(&patient) {
        Ok(registry) => registry,
        // Versions of other things have such names too.
        Err(_) if loading.is_none() => return,
        Err(error) => return warn(Failure::chain(&error)),
    };
    if timeout(WITHIN, deploy_alias::is_back(&registry, (&model, number), (route, why), told)).await.is_err() {
        warn(format!("the registry did not answer within {} s", WITHIN.as_secs()));
    }
}

/// Model and number of `search:9`; `None` for what is no version of a model.
pub(super) fn numbered(version: &str) -> Option<(Name, u64)> {
    let (model, number) = version.rsplit_once(':')?;
    Some((model.parse().ok()?, read_version(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_a_model_has_its_number() {
        assert_eq!(numbered("search:9").map(|(model, number)| (model.to_string(), number)), Some(("search".to_owned(), 9)));
        for other in ["v42", "search:", "search:v9", ":9", "Search:9"] {
            assert!(numbered(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_route_stands_for_its_model() {
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\n[[route]]\nname = \"web\"\n\
                    [route.loading]\nmodel = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let config = crate::config::parse("test", text).unwrap();
        assert_eq!(
            (model(&config, "web", "web"), model(&config, "web", "search"), model(&config, "app", "app")),
            ("search", "search", "app")
        );
    }

    #[tokio::test]
    async fn what_is_no_alias_is_left_alone_and_an_alias_needs_a_registry() {
        assert_eq!(resolved(None, "search", "search:9").await.unwrap(), "search:9");
        let refused = resolved(None, "search", "search@champion").await.unwrap_err();
        assert!(
            refused.message().starts_with("--to search@champion: an alias is one of the registry of --config"),
            "{}",
            refused.message()
        );
    }
}
