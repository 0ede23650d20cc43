//! `[route.loading]`: how versions of a route's model are loaded on the servers of its pools.

use std::path::PathBuf;
use std::time::Duration;

use model_servers::{Hooks, Template};

use super::check::Checker;
use super::written;
use crate::vocabulary::{MODEL_NAME_RULE, REGISTRY_NAME_RULE, is_model_name, is_registry_name, read_version};

const PROTOCOL_RULE: &str = "must be \"v2\" or \"hooks\"";
const NO_LOAD_URL: &str = "must be a URL like \"{endpoint}/models/{model}/{version}\"";
const SERVER_RULE: &str = "must be where a server is, like \"http://{hostname}:8001\": no version, no ? and no / at its end";
const HOOKS_RULE: &str = "is for protocol = \"hooks\"";
const REPOSITORY_RULE: &str = "must be the path of a folder that the router may write to, like \"/models/{pool}\"";
const NO_REPOSITORY: &str = "is for a repository that the router fills: say where in repository";

/// How versions of a route's model are loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loading {
    /// The model's name in the registry: its versions are `MODEL:N`.
    pub model: String,
    /// How servers are asked.
    pub protocol: LoadProtocol,
    /// What the servers call the model.
    pub server_model: String,
    /// Where an endpoint's model server is. `None`: the endpoint is one.
    pub server_url: Option<Template>,
    /// The servers' model repository: a folder that the router fills. `{pool}` stands for the pool. `None`: they find versions themselves.
    pub repository: Option<String>,
    /// The artefact's name in it.
    pub repository_file: String,
    /// The template of a file that is written beside the artefact as `model-settings.json`, with `{model}`, `{version}` and `{file}`.
    pub repository_settings: Option<PathBuf>,
    /// From the load until the version is ready.
    pub timeout: Duration,
    /// For one request.
    pub request_timeout: Duration,
    /// Between two looks whether a version is ready.
    pub poll_every: Duration,
    /// For the warm-up of one endpoint.
    pub warm_up_timeout: Duration,
    /// What the median time of a golden query has to reach. `None`: any time will do.
    pub warm_up_latency: Option<Duration>,
    /// How often the golden queries are asked. 1..=1000.
    pub warm_up_rounds: u32,
    /// Scores may differ by so much, in parts of the spread of a query's scores. 0..=1.
    pub tolerance: f64,
    /// Endpoints at the same time. 1..=1024.
    pub parallel: usize,
    /// Between two looks whether servers still serve what their pools run. Zero: nobody looks.
    pub check_every: Duration,
    /// A server that lost the version that Switchback had loaded gets it again.
    pub restore: bool,
}

/// How servers are asked to load a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProtocol {
    /// The repository extension of the Open Inference Protocol, as in Triton and `switchback ranker`.
    V2,
    /// URLs of the operator's.
    Hooks(Hooks),
}

impl LoadProtocol {
    /// As configs have it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            LoadProtocol::V2 => "v2",
            LoadProtocol::Hooks(_) => "hooks",
        }
    }
}

impl Loading {
    /// Whether servers are asked now and then what they serve.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.protocol == LoadProtocol::V2 && !self.check_every.is_zero()
    }

    /// The registry's version that this label names, as `search:13` does for the model `search`; `None` for any other label.
    #[must_use]
    pub fn version_of(&self, label: &str) -> Option<u64> {
        label.strip_prefix(self.model.as_str())?.strip_prefix(':').and_then(read_version)
    }
}

pub(super) fn check_loading(checker: &mut Checker, route_key: &str, mut written: written::Loading) -> Loading {
    let key = |name: &str| format!("{route_key}.loading.{name}");
    let named = format!("must be the model's name in the registry: {REGISTRY_NAME_RULE}");
    let model = checker.required(&key("model"), written.model.clone(), &named);
    if written.model.is_some() && !is_registry_name(&model) {
        checker.refuse(&key("model"), &model, named);
    }
    for (name, value) in [("server_model", &written.server_model), ("repository_file", &written.repository_file)] {
        if let Some(value) = value.as_deref().filter(|value| !is_model_name(value)) {
            checker.refuse(&key(name), value, format!("must be {MODEL_NAME_RULE}"));
        }
    }
    let server_url = written.server_url.take().and_then(|url| check_server(checker, &key("server_url"), &url));
    let protocol = check_protocol(checker, &key, &mut written);
    check_repository(checker, &key, &written);
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let mut duration = |name: &str, value: &Option<String>, default: Duration, least: Duration, most: Duration| {
        checker.duration(&key(name), value.as_deref(), default, least, most)
    };
    let timeout = duration("load_timeout", &written.load_timeout, seconds(120), ms(100), seconds(3_600));
    let request_timeout = duration("request_timeout", &written.request_timeout, seconds(10), ms(10), seconds(3_600));
    let poll_every = duration("poll_every", &written.poll_every, ms(250), ms(10), seconds(60));
    let warm_up_timeout = duration("warm_up_timeout", &written.warm_up_timeout, seconds(60), ms(100), seconds(3_600));
    let latency = duration("warm_up_latency", &written.warm_up_latency, seconds(60), Duration::from_micros(1), seconds(60));
    let check_every = duration("check_every", &written.check_every, seconds(30), Duration::ZERO, seconds(3_600));
    let tolerance = written.tolerance.unwrap_or(1e-4);
    if !(0.0..=1.0).contains(&tolerance) {
        checker.refuse(&key("tolerance"), tolerance, "must be from 0 to 1");
    }
    Loading {
        server_model: written.server_model.unwrap_or_else(|| model.clone()),
        server_url,
        model,
        protocol,
        repository: written.repository,
        repository_file: written.repository_file.unwrap_or_else(|| "model.onnx".to_owned()),
        repository_settings: written.repository_settings.map(PathBuf::from),
        timeout,
        request_timeout,
        poll_every,
        warm_up_timeout,
        warm_up_latency: written.warm_up_latency.map(|_| latency),
        warm_up_rounds: checker.count(&key("warm_up_rounds"), written.warm_up_rounds, 3, 1, 1_000),
        tolerance,
        parallel: checker.count(&key("parallel"), written.parallel, 8, 1, 1_024),
        check_every,
        restore: written.restore.unwrap_or(true),
    }
}

fn check_protocol(checker: &mut Checker, key: &impl Fn(&str) -> String, written: &mut written::Loading) -> LoadProtocol {
    let urls = [("load_url", written.load_url.take()), ("ready_url", written.ready_url.take()), ("unload_url", written.unload_url.take())];
    match written.protocol.as_deref().unwrap_or("v2") {
        "hooks" => {
            let [load, ready, unload] = urls.map(|(name, url)| url.map(|url| (key(name), url)));
            if load.is_none() {
                checker.missing(&key("load_url"), NO_LOAD_URL);
            }
            let mut template = |url: Option<(String, String)>| url.and_then(|(key, url)| check_url(checker, &key, &url));
            let (load, ready, unload) = (template(load), template(ready), template(unload));
            // One that is missing or wrong was told of.
            load.map_or(LoadProtocol::V2, |load| LoadProtocol::Hooks(Hooks { load, ready, unload }))
        }
        protocol => {
            for (name, url) in urls.iter().filter_map(|(name, url)| url.as_ref().map(|url| (name, url))) {
                checker.refuse(&key(name), url, HOOKS_RULE);
            }
            if protocol != "v2" {
                checker.refuse(&key("protocol"), protocol, PROTOCOL_RULE);
            }
            LoadProtocol::V2
        }
    }
}

fn check_url(checker: &mut Checker, key: &str, url: &str) -> Option<Template> {
    url.parse().map_err(|why| checker.refuse(key, url, why)).ok()
}

fn check_server(checker: &mut Checker, key: &str, url: &str) -> Option<Template> {
    let template = check_url(checker, key, url)?;
    let is_place = !template.names_version() && !url.contains('?') && !url.ends_with('/');
    if !is_place {
        checker.refuse(key, url, SERVER_RULE);
    }
    Some(template)
}

fn check_repository(checker: &mut Checker, key: &impl Fn(&str) -> String, written: &written::Loading) {
    let Some(repository) = &written.repository else {
        for (name, value) in [("repository_file", &written.repository_file), ("repository_settings", &written.repository_settings)] {
            if let Some(value) = value {
                checker.refuse(&key(name), value, NO_REPOSITORY);
            }
        }
        return;
    };
    if repository.is_empty() || repository.contains('\0') {
        checker.refuse(&key("repository"), repository, REPOSITORY_RULE);
    }
    if let Some(unknown) = unknown_variable(repository, &["{pool}"]) {
        checker.refuse(&key("repository"), repository, format!("must have no braces but {{pool}}, not {unknown}"));
    }
    if let Some(path) = written.repository_settings.as_ref().filter(|path| path.is_empty()) {
        checker.refuse(&key("repository_settings"), path, "must be the path of a template");
    }
}

/// The first piece in braces that is none of these.
fn unknown_variable<'t>(text: &'t str, allowed: &[&str]) -> Option<&'t str> {
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let piece = rest.get(start..)?;
        let end = piece.find('}').map_or(piece.len(), |end| end + 1);
        let (piece, after) = piece.split_at(end);
        if !allowed.contains(&piece) {
            return Some(piece);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> written::Loading {
        written::Loading { model: Some("search".to_owned()), ..written::Loading::default() }
    }

    fn check(written: written::Loading) -> (Loading, String) {
        let mut checker = Checker::default();
        let checked = check_loading(&mut checker, "route", written);
        (checked, checker.said())
    }

    #[test]
    fn a_model_is_enough() {
        let (loading, said) = check(written());
        assert_eq!(said, "");
        assert_eq!((loading.server_model.as_str(), loading.repository_file.as_str()), ("search", "model.onnx"));
        assert_eq!((loading.protocol.label(), loading.warm_up_latency), ("v2", None));
        assert_eq!((loading.check_every, loading.restore), (Duration::from_secs(30), true));
        let off = check(written::Loading { check_every: Some("0s".to_owned()), restore: Some(false), ..written() });
        assert_eq!((off.0.check_every, off.0.restore, off.1.as_str()), (Duration::ZERO, false, ""));
    }

    #[test]
    fn labels_name_versions_of_this_model() {
        let (loading, _) = check(written());
        assert_eq!(loading.version_of("search:13"), Some(13));
        for other in ["search", "search:", "search:0", "search:013", "search:1a", "search:+1", "ads:13", "search2:13", "search:13:1", "v13"]
        {
            assert_eq!(loading.version_of(other), None, "{other}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let (_, said) = check(written::Loading {
            model: text("Search"),
            server_model: text("../search"),
            repository: text("/models/{model}"),
            repository_file: text("a/b"),
            load_url: text("http://h/load"),
            poll_every: text("1h"),
            warm_up_latency: text("fast"),
            warm_up_rounds: Some(0),
            tolerance: Some(f64::NAN),
            check_every: text("-1s"),
            parallel: Some(0),
            ..written::Loading::default()
        });
        for mistake in [
            "model = \"Search\": must be the model's name in the registry",
            "server_model = \"../search\": must be 1 to 128",
            "repository = \"/models/{model}\": must have no braces but {pool}, not {model}",
            "repository_file = \"a/b\": must be 1 to 128",
            "load_url = \"http://h/load\": is for protocol",
            "poll_every = \"1h\": must be a duration",
            "warm_up_latency = \"fast\": must be a duration",
            "warm_up_rounds = 0: must be",
            "tolerance = NaN: must be from 0 to 1",
            "check_every = \"-1s\": must be a duration from",
            "parallel = 0: must be",
        ] {
            assert!(said.contains(&format!("route.loading.{mistake}")), "{mistake}: {said}");
        }
        let (_, said) = check(written::Loading { repository_file: text("a"), repository_settings: text("b"), ..written() });
        assert!(
            said.contains("repository_file = \"a\": is for a repository") && said.contains("repository_settings = \"b\": is for"),
            "{said}"
        );
        assert!(check(written::Loading { protocol: text("v3"), ..written() }).1.contains("protocol = \"v3\": must be"));
        assert!(check(written::Loading { protocol: text("hooks"), ..written() }).1.contains("load_url = : must be a URL like"));
    }

    #[test]
    fn urls_are_templates() {
        let text = |text: &str| Some(text.to_owned());
        let hooks = |url: &str| check(written::Loading { protocol: text("hooks"), load_url: text(url), ready_url: text(url), ..written() });
        for good in ["{endpoint}/load/{model}/{version}?pool={pool}", "http://{hostname}:8500/{route}", "https://deploy.example.org/load"] {
            let (loading, said) = hooks(good);
            assert_eq!(said, "");
            assert!(matches!(loading.protocol, LoadProtocol::Hooks(hooks) if hooks.load.to_string() == good && hooks.ready.is_some()));
        }
        for wrong in
            ["", "load", "{host}/load", "ftp://h/", "http://a@h/", "{endpoint}/a b", "http://h/#x", "{endpoint}load", "http://h/{modle}"]
        {
            let said = hooks(wrong).1;
            assert!(said.contains(&format!("loading.load_url = {wrong:?}: ")) && said.contains("loading.ready_url = "), "{wrong}: {said}");
        }
        let server = |url: &str| check(written::Loading { server_url: text(url), ..written() });
        assert_eq!(server("http://{hostname}:8001").1, "");
        assert_eq!(server("https://models-{pool}.example.org/triton").1, "");
        for wrong in ["http://{hostname}:8001/", "{endpoint}/{version}", "{endpoint}?a=b", "{hostname}:8001"] {
            assert!(server(wrong).1.contains(&format!("loading.server_url = {wrong:?}: ")), "{wrong}");
        }
    }
}
