//! `rollback --to search@champion`: the version that an alias of the registry points to.

use super::Failure;
use super::registry_args::failed;
use super::validating::named;
use crate::config::Config;
use crate::registry::{Reference, Registry};

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

#[cfg(test)]
mod tests {
    use super::*;

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
