//! `[mlflow]` and `[route.mlflow]`: whose webhooks are believed, and which of them is a candidate for which route.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::checked::Route;
use super::written;
use crate::vocabulary::{REGISTRY_NAME_RULE, is_registry_name};

/// The new one, and those that are on their way out.
const SECRETS: std::ops::RangeInclusive<usize> = 1..=4;
/// The longest name of a model or alias, in bytes; MLflow's own limit is 256 characters.
const NAME_BYTES: usize = 1_024;
const URL_RULE: &str = "must be a URL like \"http://mlflow.example.org:5000\": http or https, a host, perhaps a path, and no user, ? or #";
const SECRET_RULE: &str = "must be the path of a file that holds the webhook's secret, 16 to 1024 printable ASCII characters on one line";
const SECRETS_RULE: &str =
    "must be 1 to 4 paths of files that each hold a webhook's secret, 16 to 1024 printable ASCII characters on one line";
const NAME_RULE: &str = "must be a name that MLflow could have: 1 to 1024 bytes, without /, :, @ and control characters";
const IF_BUSY_RULE: &str = "must be \"refuse\", \"supersede\" or \"queue\"";
const NO_MLFLOW: &str = "needs an [mlflow] section: the server, and the secret that its webhook signs with";

/// The MLflow server whose webhooks are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mlflow {
    /// Where models are pushed from. Without a slash at its end.
    pub url: String,
    /// Files with the secrets that its webhook may sign with. At least one.
    pub secret_files: Vec<PathBuf>,
    /// A delivery that is older than this, or so much ahead, is refused.
    pub max_age: Duration,
    /// For one candidate: from its download to the start of its rollout.
    pub timeout: Duration,
}

/// Which alias names the candidate of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlflowAlias {
    /// The model, as MLflow calls it.
    pub model: String,
    /// Its alias.
    pub alias: String,
    /// The model's name in the registry here.
    pub registry_model: String,
    /// What is done where another rollout is under way.
    pub if_busy: MlflowIfBusy,
}

/// What is done with a candidate while another rollout is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlflowIfBusy {
    /// It is not deployed.
    Refuse,
    /// The other one is aborted.
    Supersede,
    /// It waits.
    Queue,
}

impl MlflowIfBusy {
    const ALL: [MlflowIfBusy; 3] = [MlflowIfBusy::Refuse, MlflowIfBusy::Supersede, MlflowIfBusy::Queue];

    /// In the config, and on the command line of `deploy`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            MlflowIfBusy::Refuse => "refuse",
            MlflowIfBusy::Supersede => "supersede",
            MlflowIfBusy::Queue => "queue",
        }
    }
}

/// An MLflow server's URL in its one form, without a slash at the end; `None` for what cannot be one.
#[must_use]
pub fn mlflow_url(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let uri: http::Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = uri.query().is_none() && !text.contains('#') && !uri.path().contains("..") && text.len() <= 2_048;
    let has_host = uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    (is_http && is_plain && has_host).then(|| text.to_owned())
}

/// Whether MLflow could call a model or an alias so. It allows everything but a slash and a colon; an `@` cannot be told from that of an alias.
#[must_use]
pub fn is_mlflow_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len()) && !text.contains(['/', ':', '@']) && !text.contains(char::is_control) && text.trim() == text
}

pub(super) fn check_mlflow(checker: &mut Checker, written: Option<written::Mlflow>, routes: &[Route]) -> Option<Mlflow> {
    let Some(written) = written else {
        for route in routes.iter().filter(|route| route.mlflow.is_some()) {
            checker.refuse_as_written(&format!("route.{}.mlflow", route.name), "{ ... }".to_owned(), NO_MLFLOW.to_owned());
        }
        return None;
    };
    let text = checker.required("mlflow.url", written.url.clone(), URL_RULE);
    let url = mlflow_url(&text);
    if written.url.is_some() && url.is_none() {
        // Whoever wrote a password into it does not want to read it in a log.
        let shown = if text.contains('@') { "(with a user)" } else { &text };
        checker.refuse("mlflow.url", shown, URL_RULE);
    }
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    Some(Mlflow {
        url: url.unwrap_or_default(),
        secret_files: check_secrets(checker, written.secret_file, written.secret_files),
        max_age: checker.duration("mlflow.max_age", written.max_age.as_deref(), 5 * minute, Duration::from_secs(1), hour),
        timeout: checker.duration("mlflow.timeout", written.timeout.as_deref(), 2 * hour, Duration::from_secs(1), 168 * hour),
    })
}

fn check_secrets(checker: &mut Checker, one: Option<String>, several: Option<Vec<String>>) -> Vec<PathBuf> {
    match (&one, &several) {
        (Some(one), Some(_)) => {
            checker.refuse("mlflow.secret_file", one, "must not stand beside mlflow.secret_files: put it there");
        }
        (Some(path), None) if path.is_empty() => checker.refuse("mlflow.secret_file", path, SECRET_RULE),
        (None, Some(paths)) if !SECRETS.contains(&paths.len()) || paths.iter().any(String::is_empty) => {
            checker.refuse("mlflow.secret_files", paths, SECRETS_RULE);
        }
        (None, None) => checker.missing("mlflow.secret_file", SECRET_RULE),
        _ => {}
    }
    one.into_iter().chain(several.unwrap_or_default()).map(PathBuf::from).collect()
}

pub(super) fn check_alias(checker: &mut Checker, route_key: &str, written: written::MlflowAlias) -> MlflowAlias {
    let key = |name: &str| format!("{route_key}.mlflow.{name}");
    let mut name = |name: &str, value: Option<String>| {
        let text = checker.required(&key(name), value.clone(), NAME_RULE);
        if value.is_some() && !is_mlflow_name(&text) {
            checker.refuse(&key(name), &text, NAME_RULE);
        }
        text
    };
    let (model, alias) = (name("model", written.model), name("alias", written.alias));
    let registry_model = written.registry_model.unwrap_or_else(|| model.clone());
    if !model.is_empty() && !is_registry_name(&registry_model) {
        checker.refuse(&key("registry_model"), &registry_model, format!("must be the model's name in the registry: {REGISTRY_NAME_RULE}"));
    }
    let label = written.if_busy.as_deref().unwrap_or("refuse");
    let if_busy = MlflowIfBusy::ALL.into_iter().find(|if_busy| if_busy.label() == label).unwrap_or_else(|| {
        checker.refuse(&key("if_busy"), label, IF_BUSY_RULE);
        MlflowIfBusy::Refuse
    });
    MlflowAlias { model, alias, registry_model, if_busy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse, show};

    fn read(mlflow: &str, route: &str) -> Result<Config, String> {
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\n{mlflow}\n[[route]]\nname = \"search\"\n{route}\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:9001\"]\n"
        );
        parse("test", &text).map_err(|error| error.to_string())
    }

    const SERVER: &str = "[mlflow]\nurl = \"http://mlflow:5000/\"\nsecret_file = \"secret\"";
    const ALIAS: &str = "[route.mlflow]\nmodel = \"search\"\nalias = \"champion\"";

    #[test]
    fn a_url_a_secret_a_model_and_an_alias_are_enough() {
        let config = read(SERVER, ALIAS).unwrap();
        let mlflow = config.mlflow.as_ref().unwrap();
        assert_eq!((mlflow.url.as_str(), mlflow.max_age.as_secs(), mlflow.timeout.as_secs()), ("http://mlflow:5000", 300, 7_200));
        let alias = config.routes[0].mlflow.as_ref().unwrap();
        assert_eq!((alias.registry_model.as_str(), alias.if_busy), ("search", MlflowIfBusy::Refuse));
        let shown = show(&config);
        let value = |key: &str| shown.iter().find(|(shown, _)| shown == key).map(|(_, value)| value.as_str());
        assert_eq!(value("mlflow.secret_files"), Some("[\"secret\"]"));
        assert_eq!(value("route.search.mlflow.if_busy"), Some("\"refuse\""));
        assert!(read("", "").unwrap().mlflow.is_none());
    }

    #[test]
    fn each_mistake_is_named() {
        for (mlflow, route, says) in [
            ("", ALIAS, "route.search.mlflow = { ... }: needs an [mlflow] section"),
            ("[mlflow]", "", "mlflow.url is missing"),
            ("[mlflow]\nurl = \"http://h\"", "", "mlflow.secret_file is missing"),
            ("[mlflow]\nurl = \"databricks\"\nsecret_file = \"a\"", "", "mlflow.url = \"databricks\": must be a URL like"),
            ("[mlflow]\nurl = \"http://h\"\nsecret_files = []", "", "mlflow.secret_files = []: must be 1 to 4 paths"),
            ("[mlflow]\nurl = \"http://h\"\nsecret_file = \"a\"\nsecret_files = [\"b\"]", "", "must not stand beside mlflow.secret_files"),
            ("[mlflow]\nurl = \"http://h\"\nsecret_file = \"\"", "", "mlflow.secret_file = \"\": must be the path"),
            (
                "[mlflow]\nurl = \"http://h\"\nsecret_file = \"a\"\nmax_age = \"2h\"",
                "",
                "mlflow.max_age = \"2h\": must be a duration from 1s to 1h",
            ),
            (SERVER, "[route.mlflow]\nmodel = \"search\"", "route.search.mlflow.alias is missing"),
            (
                SERVER,
                "[route.mlflow]\nmodel = \"a/b\"\nalias = \"x\"\nregistry_model = \"s\"",
                "route.search.mlflow.model = \"a/b\": must be a name",
            ),
            (
                SERVER,
                "[route.mlflow]\nmodel = \"Search\"\nalias = \"x\"",
                "route.search.mlflow.registry_model = \"Search\": must be the model's name",
            ),
            (
                SERVER,
                "[route.mlflow]\nmodel = \"s\"\nalias = \"x\"\nif_busy = \"wait\"",
                "route.search.mlflow.if_busy = \"wait\": must be \"refuse\"",
            ),
        ] {
            let said = read(mlflow, route).unwrap_err();
            assert!(said.contains(says), "{mlflow}\n{route}: {said}");
        }
        let said = read("[mlflow]\nurl = \"http://ann:s3cret@h\"\nsecret_file = \"a\"", "").unwrap_err();
        assert!(said.contains("mlflow.url") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn urls_are_those_of_a_server() {
        assert_eq!(mlflow_url("http://mlflow:5000/").as_deref(), Some("http://mlflow:5000"));
        assert_eq!(mlflow_url("https://h/prefix").as_deref(), Some("https://h/prefix"));
        for wrong in
            ["", "mlflow", "databricks", "ftp://h", "http://", "http://a:b@h", "http://h?x=1", "http://h#x", "sqlite:///x", "http://h/../x"]
        {
            assert_eq!(mlflow_url(wrong), None, "{wrong}");
        }
    }
}
