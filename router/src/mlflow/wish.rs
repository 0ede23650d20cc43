//! A candidate for a route, as the config asks for it.

use std::time::Duration;

use super::model_uri::ModelUri;
use crate::config::{Config, MlflowAlias};

/// A candidate for a route: what an alias points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The route.
    pub route: String,
    /// The alias.
    pub alias: MlflowAlias,
    /// The MLflow server.
    pub url: String,
    /// `http://HOST:PORT` of this router's admin API.
    pub admin: String,
    /// For each try.
    pub timeout: Duration,
    /// The delivery that named it, where that was in this process.
    pub delivery: Option<String>,
    /// The version that was live when it was named, where that is known: a newer one that went live since is not replaced by who waits for its turn.
    pub before: Option<String>,
}

impl Wish {
    /// Those of all routes that ask for this alias of this model.
    #[must_use]
    pub fn of(config: &Config, model: &str, alias: &str) -> Vec<Wish> {
        let Some(mlflow) = &config.mlflow else { return Vec::new() };
        let asks = |wanted: &MlflowAlias| wanted.model == model && wanted.alias == alias;
        let wish = |route: &str, wanted: &MlflowAlias| Wish {
            route: route.to_owned(),
            alias: wanted.clone(),
            url: mlflow.url.clone(),
            admin: admin_of(config),
            timeout: mlflow.timeout,
            delivery: None,
            before: None,
        };
        let routes = config.routes.iter().filter_map(|route| Some((route, route.mlflow.as_ref()?)));
        routes.filter(|(_, wanted)| asks(wanted)).map(|(route, wanted)| wish(&route.name, wanted)).collect()
    }

    /// The same as this config has it; `None` where it asks for it no more.
    pub(super) fn under(&self, config: &Config) -> Option<Wish> {
        let wish = Wish::of(config, &self.alias.model, &self.alias.alias).into_iter().find(|wish| wish.route == self.route)?;
        Some(Wish { delivery: self.delivery.clone(), before: self.before.clone(), ..wish })
    }

    /// What the alias is called in MLflow.
    pub(super) fn from(&self) -> ModelUri {
        ModelUri::of_alias(&self.alias.model, &self.alias.alias)
    }
}

/// A router that listens on every address is asked on loopback.
fn admin_of(config: &Config) -> String {
    let mut address = config.listen.admin;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::super::child::tests::wish;
    use super::*;
    use crate::config::MlflowIfBusy;

    /// The route `search` asks for this alias of the model `Query Ranker`.
    pub(in super::super) fn config(alias: &str) -> Arc<Config> {
        let mlflow = "[mlflow]\nurl = \"http://another:5000\"\nsecret_file = \"secret\"";
        let route =
            format!("[route.mlflow]\nmodel = \"Query Ranker\"\nalias = \"{alias}\"\nregistry_model = \"ranker\"\nif_busy = \"queue\"");
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:9091\" }}\n{mlflow}\n[[route]]\nname = \"search\"\n{route}\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:9001\"]\n"
        );
        Arc::new(crate::config::parse("test", &text).unwrap())
    }

    #[test]
    fn one_is_asked_for_as_the_config_in_force_has_it() {
        let (delivery, before) = (Some("a1".to_owned()), Some("ranker:3".to_owned()));
        let asked = Wish { delivery, before, ..wish(Duration::from_secs(60)) };
        let now = asked.under(&config("champion")).unwrap();
        assert_eq!(
            (now.url.as_str(), now.admin.as_str(), now.alias.if_busy),
            ("http://another:5000", "http://127.0.0.1:9091", MlflowIfBusy::Queue)
        );
        assert_eq!((&now.delivery, &now.before, &now.route), (&asked.delivery, &asked.before, &asked.route));
        assert_eq!(asked.under(&config("live")), None);
        assert_eq!(Wish { route: "ads".to_owned(), ..asked }.under(&config("champion")), None);
    }
}
