//! The `[[route]]` sections: written form -> checked form.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HeaderName;
use http::uri::{Authority, Scheme, Uri};

use super::check::Checker;
use super::checked::{Endpoint, Health, OnPolicyFailure, Pool, Protocol, Route, RouteMatch, Timeouts, UnitSource};
use super::expose::Expose;
use super::{
    check_breaker, check_initial, check_loading, check_mlflow, check_outlier, check_rollout, check_signals, check_tls, check_validation,
    written,
};

pub(super) const NAME_RULE: &str = "must be 1 to 64 of a-z, 0-9, - and _, starting with a letter";
const ENDPOINT_RULE: &str = "must be a URL like \"http://127.0.0.1:9001\": scheme http or https, host, port, and no path";
const PROTOCOL_RULE: &str = "must be \"http1\" or \"h2\"";
/// The data path looks up a path's prefixes one by one.
const PREFIX_SEGMENTS: usize = 32;
const UNIT_RULE: &str = "must be \"header:NAME\", \"cookie:NAME\" or \"client-address\"";

/// What a version's name may be.
pub const VERSION_RULE: &str = "1 to 64 printable ASCII characters without spaces";

/// Whether a text can be a model version's name.
#[must_use]
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn check_routes(checker: &mut Checker, written: Vec<written::Route>) -> Vec<Route> {
    if written.is_empty() {
        checker.missing("route", "at least one [[route]] with a name and a pool");
    }
    if written.len() > 10_000 {
        checker.refuse("route", written.len(), "at most 10000 routes");
    }
    let mut names = HashSet::new();
    let mut matches = Vec::new();
    let mut routes = Vec::new();
    for (index, written) in written.into_iter().enumerate() {
        let by_index = format!("route[{index}]");
        let name = checker.required(&format!("{by_index}.name"), written.name.clone(), NAME_RULE);
        if !name.is_empty() && !names.insert(name.clone()) {
            checker.refuse(&format!("{by_index}.name"), &name, "must be given to one route only");
        }
        let route = check_route(checker, &by_index, name, written);
        if matches.contains(&route.matches) {
            let RouteMatch { host, path_prefix } = &route.matches;
            let shown = format!("{}{path_prefix}", host.as_deref().unwrap_or("*"));
            checker.refuse(&format!("{by_index}.match"), shown, "must differ from the routes before it, which take all of its queries");
        }
        matches.push(route.matches.clone());
        routes.push(route);
    }
    routes
}

fn check_route(checker: &mut Checker, by_index: &str, name: String, written: written::Route) -> Route {
    let key = if name.is_empty() { by_index.to_owned() } else { format!("route.{name}") };
    if written.name.is_some() {
        check_name(checker, &format!("{by_index}.name"), &name);
    }
    let pools = check_pools(checker, &key, written.pools);
    let unit = written.unit.unwrap_or_else(|| vec!["client-address".to_owned()]);
    if unit.is_empty() {
        checker.refuse(&format!("{key}.unit"), &unit, "must have at least one source");
    }
    let split_policy = written.split_policy.unwrap_or_else(|| "split-weighted".to_owned());
    check_name(checker, &format!("{key}.split_policy"), &split_policy);
    let on_policy_failure = check_on_policy_failure(checker, &key, written.on_policy_failure.as_deref());
    let rollback_policy = written.rollback_policy.unwrap_or_else(|| "rollback-guardrail".to_owned());
    check_name(checker, &format!("{key}.rollback_policy"), &rollback_policy);
    let split_config = written.split_config.map_or_else(|| "{}".to_owned(), |table| serde_json::json!(table).to_string());
    check_split_config(checker, &key, &split_policy, &split_config, &pools);
    let rollback_config = written.rollback_config.map_or_else(|| "{}".to_owned(), |table| serde_json::json!(table).to_string());
    check_rollback_config(checker, &key, &rollback_policy, &rollback_config);
    Route {
        matches: check_match(checker, &key, written.matches),
        unit: unit.iter().filter_map(|source| check_unit(checker, &key, source)).collect(),
        split_policy,
        split_config,
        on_policy_failure,
        rollback_policy,
        rollback_config,
        signals: written.signals.map(|signals| Arc::new(check_signals::check_signals(checker, &key, &signals))),
        is_observed_only: written.observe_only.unwrap_or(false),
        breaker: check_breaker::check_breaker(checker, &key, &written.breaker),
        rollout: check_rollout::check_rollout(checker, &key, &written.rollout),
        validation: check_validation::check_validation(checker, &key, written.validation),
        loading: written.loading.map(|loading| check_loading::check_loading(checker, &key, loading)),
        mlflow: written.mlflow.map(|alias| check_mlflow::check_alias(checker, &key, alias)),
        expose: check_expose(checker, &key, &written.expose.unwrap_or_default()),
        max_request_body: check_body(checker, &format!("{key}.max_request_body"), written.max_request_body.as_deref()),
        max_response_body: check_body(checker, &format!("{key}.max_response_body"), written.max_response_body.as_deref()),
        upgrades: check_upgrades(checker, &key, written.upgrades),
        replayable_methods: check_methods(checker, &key, written.replayable_methods),
        timeouts: check_timeouts(checker, &key, &written.timeouts),
        initial: check_initial::check_initial(checker, &key, written.initial.unwrap_or_default(), &pools),
        name,
        pools,
    }
}

fn check_on_policy_failure(checker: &mut Checker, key: &str, written: Option<&str>) -> OnPolicyFailure {
    match written {
        None | Some("native") => OnPolicyFailure::Native,
        Some("last_good") => OnPolicyFailure::LastGood,
        Some(other) => {
            checker.refuse(&format!("{key}.on_policy_failure"), other, "must be \"native\" or \"last_good\"");
            OnPolicyFailure::Native
        }
    }
}

/// What a shipped policy can say of its config before it runs. A file of that name in the folder may want another one, and then has to
/// be given another name: a config that may be wrong is not taken.
fn check_split_config(checker: &mut Checker, key: &str, policy: &str, config: &str, pools: &[Pool]) {
    if policy != "split-rules" {
        return;
    }
    let names: Vec<String> = pools.iter().map(|pool| pool.name.clone()).collect();
    for problem in split_rules::check(config, &names).err().unwrap_or_default() {
        let dot = if problem.key.is_empty() { "" } else { "." };
        checker.refuse_as_written(&format!("{key}.split_config{dot}{}", problem.key), problem.value, problem.allowed);
    }
}

/// As [`check_split_config`].
fn check_rollback_config(checker: &mut Checker, key: &str, policy: &str, config: &str) {
    let mut refuse = |problem: (String, String, String)| {
        let (at, value, allowed) = problem;
        let dot = if at.is_empty() { "" } else { "." };
        checker.refuse_as_written(&format!("{key}.rollback_config{dot}{at}"), value, allowed);
    };
    match policy {
        "rollback-guardrail" => {
            let problems = rollback_guardrail::check(config).err().unwrap_or_default();
            problems.into_iter().for_each(|problem| refuse((problem.key, problem.value, problem.allowed)));
        }
        "rollback-threshold" => {
            let problems = rollback_threshold::check(config).err().unwrap_or_default();
            problems.into_iter().for_each(|problem| refuse((problem.key, problem.value, problem.allowed)));
        }
        _ => {}
    }
}

/// `h2c` is none: HTTP/2 in the clear is spoken with prior knowledge, and what an upgraded connection carries is not looked at.
fn check_upgrades(checker: &mut Checker, key: &str, written: Option<Vec<String>>) -> Vec<String> {
    let upgrades = written.unwrap_or_else(|| vec!["websocket".to_owned()]);
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    for upgrade in upgrades.iter().filter(|upgrade| !is_token(upgrade) || upgrade.eq_ignore_ascii_case("h2c")) {
        checker.refuse(&format!("{key}.upgrades"), upgrade, "must be protocols like \"websocket\", and not h2c");
    }
    upgrades.iter().map(|upgrade| upgrade.to_ascii_lowercase()).collect()
}

pub(super) fn check_name(checker: &mut Checker, key: &str, name: &str) {
    let good_first = name.starts_with(|first: char| first.is_ascii_lowercase());
    let good_rest = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if !good_first || !good_rest || name.len() > 64 {
        checker.refuse(key, name, NAME_RULE);
    }
}

fn check_match(checker: &mut Checker, key: &str, written: written::Match) -> RouteMatch {
    let path_prefix = written.path_prefix.unwrap_or_else(|| "/".to_owned());
    if !path_prefix.starts_with('/') || path_prefix.contains(['?', '#', ' ']) {
        checker.refuse(&format!("{key}.match.path_prefix"), &path_prefix, "must be a path that starts with /, like \"/search\"");
    }
    if path_prefix.split('/').any(|segment| matches!(segment, "." | "..")) {
        let allowed = "must have no segment . or ..: a query with one is refused, so nothing would match";
        checker.refuse(&format!("{key}.match.path_prefix"), &path_prefix, allowed);
    }
    if path_prefix.matches('/').count() > PREFIX_SEGMENTS {
        let allowed = format!("must have at most {PREFIX_SEGMENTS} segments");
        checker.refuse(&format!("{key}.match.path_prefix"), &path_prefix, allowed);
    }
    let host = written.host.map(|host| host.to_ascii_lowercase());
    if let Some(host) = &host
        && (host.is_empty() || host.contains([':', '/', '*', ' ']))
    {
        checker.refuse(&format!("{key}.match.host"), host, "must be a host name without a port, like \"search.example.com\"");
    }
    RouteMatch { host, path_prefix }
}

fn check_unit(checker: &mut Checker, key: &str, source: &str) -> Option<UnitSource> {
    let unit = match source.split_once(':') {
        None if source == "client-address" => Some(UnitSource::ClientAddress),
        Some(("header", name)) => HeaderName::try_from(name).ok().map(UnitSource::Header),
        // A cookie's name is a token, by the same rule as a header's, but with its case kept.
        Some(("cookie", name)) => HeaderName::try_from(name).ok().map(|_| UnitSource::Cookie(name.to_owned())),
        _ => None,
    };
    if unit.is_none() {
        checker.refuse(&format!("{key}.unit"), source, UNIT_RULE);
    }
    unit
}

fn check_expose(checker: &mut Checker, key: &str, written: &[String]) -> Expose {
    let mut expose = Expose::default();
    for item in written {
        match Expose::ALL.iter().find(|(_, name)| name == item) {
            Some((one, _)) => expose = expose.and(*one),
            None => checker.refuse(&format!("{key}.expose"), item, "must be \"pool\", \"version\", \"epoch\", \"reason\" or \"arm\""),
        }
    }
    expose
}

/// A size that a body may have; none is no limit.
fn check_body(checker: &mut Checker, key: &str, written: Option<&str>) -> Option<u64> {
    written.map(|text| checker.bytes(key, Some(text), 1 << 40, 1, 1 << 40))
}

fn check_methods(checker: &mut Checker, key: &str, written: Option<Vec<String>>) -> Vec<Method> {
    let Some(written) = written else {
        return vec![Method::GET, Method::HEAD, Method::POST];
    };
    let mut methods = Vec::new();
    for name in written {
        match Method::from_bytes(name.as_bytes()) {
            Ok(method) if name.bytes().all(|byte| byte.is_ascii_uppercase()) => methods.push(method),
            _ => checker.refuse(&format!("{key}.replayable_methods"), name, "must be HTTP methods like \"GET\" or \"POST\""),
        }
    }
    methods
}

fn check_timeouts(checker: &mut Checker, key: &str, written: &written::Timeouts) -> Timeouts {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let timeouts = Timeouts {
        connect: checker.duration(&format!("{key}.timeouts.connect"), written.connect.as_deref(), seconds(1), ms(1), seconds(60)),
        attempt: checker.duration(&format!("{key}.timeouts.attempt"), written.attempt.as_deref(), seconds(10), ms(1), seconds(3_600)),
        total: checker.duration(&format!("{key}.timeouts.total"), written.total.as_deref(), seconds(15), ms(1), seconds(3_600)),
    };
    checker.ordered((&format!("{key}.timeouts.attempt"), timeouts.attempt), (&format!("{key}.timeouts.total"), timeouts.total));
    timeouts
}

fn check_pools(checker: &mut Checker, key: &str, written: BTreeMap<String, written::Pool>) -> Vec<Pool> {
    if written.len() > 64 {
        checker.refuse(&format!("{key}.pools"), written.len(), "at most 64 pools");
    }
    let mut pools: Vec<Pool> = written.into_iter().map(|(name, pool)| check_pool(checker, key, name, pool)).collect();
    // The three that the flags speak of come first; the rest stay sorted by name.
    pools.sort_by_key(|pool| match pool.name.as_str() {
        "blue" => 0,
        "green" => 1,
        "canary" => 2,
        _ => 3,
    });
    pools
}

fn check_pool(checker: &mut Checker, route_key: &str, name: String, written: written::Pool) -> Pool {
    let key = format!("{route_key}.pools.{name}");
    check_name(checker, &key, &name);
    let is_written = written.endpoints.is_some();
    let endpoints = written.endpoints.unwrap_or_else(|| {
        checker.missing(&format!("{key}.endpoints"), ENDPOINT_RULE);
        Vec::new()
    });
    if is_written && !(1..=1_024).contains(&endpoints.len()) {
        checker.refuse(&format!("{key}.endpoints"), endpoints.len(), "must have 1 to 1024 endpoints");
    }
    let mut seen = HashSet::new();
    if let Some(twice) = endpoints.iter().find(|endpoint| !seen.insert(endpoint.trim_end_matches('/'))) {
        checker.refuse(&format!("{key}.endpoints"), twice, "must name each endpoint once");
    }
    let version = written.version.unwrap_or_else(|| "unknown".to_owned());
    if !is_version(&version) {
        checker.refuse(&format!("{key}.version"), &version, format!("must be {VERSION_RULE}"));
    }
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let max_in_flight = checker.count(&format!("{key}.max_in_flight"), written.max_in_flight, 10_000, 1, 1_000_000);
    let per_endpoint = format!("{key}.max_in_flight_per_endpoint");
    let panic_threshold = format!("{key}.healthy_panic_threshold");
    let endpoints: Vec<Endpoint> = endpoints.iter().filter_map(|text| check_endpoint(checker, &key, text)).collect();
    Pool {
        protocol: check_protocol(checker, &key, written.protocol.as_deref()),
        tls: check_tls::check_pool(checker, &key, written.tls, endpoints.iter().any(|endpoint| endpoint.is_tls)),
        endpoints,
        version,
        max_in_flight_per_endpoint: checker.count(&per_endpoint, written.max_in_flight_per_endpoint, max_in_flight, 1, 1_000_000),
        max_in_flight,
        max_mirrors_in_flight: checker.count(&format!("{key}.max_mirrors_in_flight"), written.max_mirrors_in_flight, 100, 0, 10_000),
        slow_start: checker.duration(
            &format!("{key}.slow_start"),
            written.slow_start.as_deref(),
            seconds(10),
            Duration::ZERO,
            seconds(3_600),
        ),
        healthy_panic_threshold: checker.count(&panic_threshold, written.healthy_panic_threshold, 50, 0, 100),
        dns_interval: checker.duration(
            &format!("{key}.dns_interval"),
            written.dns_interval.as_deref(),
            seconds(5),
            ms(100),
            seconds(3_600),
        ),
        idle_timeout: checker.duration(&format!("{key}.idle_timeout"), written.idle_timeout.as_deref(), seconds(4), ms(1), seconds(3_600)),
        idle_connections: checker.count(&format!("{key}.idle_connections"), written.idle_connections, 256, 0, 100_000),
        health: check_health(checker, &key, &written.health),
        outlier: check_outlier::check_outlier(checker, &key, &written.outlier),
        name,
    }
}

fn check_endpoint(checker: &mut Checker, key: &str, text: &str) -> Option<Endpoint> {
    let endpoint = text.parse::<Uri>().ok().and_then(|uri| {
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let plain = (is_tls || uri.scheme() == Some(&Scheme::HTTP)) && uri.path() == "/" && uri.query().is_none() && !text.ends_with('?');
        let authority: Authority = uri.authority()?.clone();
        let whole = authority.port_u16().is_some_and(|port| port > 0) && !authority.as_str().contains('@');
        (plain && whole && !authority.host().is_empty()).then_some(Endpoint { authority, is_tls })
    });
    if endpoint.is_none() {
        checker.refuse(&format!("{key}.endpoints"), text, ENDPOINT_RULE);
    }
    endpoint
}

fn check_protocol(checker: &mut Checker, key: &str, written: Option<&str>) -> Protocol {
    match written {
        None | Some("http1") => Protocol::Http1,
        Some("h2") => Protocol::Http2,
        Some(other) => {
            checker.refuse(&format!("{key}.protocol"), other, PROTOCOL_RULE);
            Protocol::Http1
        }
    }
}

fn check_health(checker: &mut Checker, pool_key: &str, written: &written::Health) -> Health {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let key = |name: &str| format!("{pool_key}.health.{name}");
    let path = written.path.clone().unwrap_or_else(|| "/v2/health/ready".to_owned());
    if !path.starts_with('/') || path.parse::<Uri>().is_err() {
        checker.refuse(&key("path"), &path, "must be a path that starts with /, like \"/v2/health/ready\"");
    }
    Health {
        path,
        interval: checker.duration(&key("interval"), written.interval.as_deref(), seconds(1), Duration::ZERO, seconds(300)),
        timeout: checker.duration(&key("timeout"), written.timeout.as_deref(), seconds(1), ms(1), seconds(60)),
        healthy_after: checker.count(&key("healthy_after"), written.healthy_after, 2, 1, 100),
        unhealthy_after: checker.count(&key("unhealthy_after"), written.unhealthy_after, 3, 1, 100),
    }
}
