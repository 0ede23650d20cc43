//! Written form -> checked form. Goes on after a problem, so that an operator sees all of them at once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Admin, AdminToken, Config, Lifecycle, Limits, Listen, Policies, Role, State};
use super::error::Problem;
use super::{
    check_events, check_evidence, check_mlflow, check_notify, check_registry, check_route, check_tls, check_trust, redis_url, units,
    written,
};

const ADDRESS_RULE: &str = "must be an IP address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\"; port 0 takes a free one";
const TOKEN_NAME_RULE: &str = "must be 1 to 64 characters: it is recorded with every change";
const TOKEN_NAME_ONCE: &str = "must be given to one token only, and not be \"local-operator\" (that is the token in state.data_dir): changes are \
                               recorded under it";
const ROLE_RULE: &str = "must be \"viewer\" or \"operator\"";
const TOKEN_FILE_RULE: &str = "must be the path of a file that holds the token, 16 to 1024 printable characters";
const ROUTER_ID_RULE: &str = "must be 1 to 64 printable ASCII characters without spaces, different on every router";
const LOOPBACK_ONLY: &str = "an admin address beyond loopback needs at least one [[admin.token]], so that nobody can flip traffic \
                             without one; allowed without: 127.0.0.1:PORT or [::1]:PORT";

/// What the holder of the token in `state.data_dir` is called in the ledger.
pub(crate) const LOCAL_OPERATOR: &str = "local-operator";

/// Collects what is wrong while values are read; each reader returns a usable value, so that checking goes on.
#[derive(Default)]
pub(super) struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    pub(super) fn refuse(&mut self, key: &str, value: impl std::fmt::Debug, allowed: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), value: Some(format!("{value:?}")), allowed: allowed.into() });
    }

    /// What was refused, for tests.
    #[cfg(test)]
    pub(super) fn said(&self) -> String {
        self.problems
            .iter()
            .map(|problem| format!("{} = {}: {}\n", problem.key, problem.value.as_deref().unwrap_or_default(), problem.allowed))
            .collect()
    }

    /// A value that is text already, as it stands in the file; an empty one is missing.
    pub(super) fn refuse_as_written(&mut self, key: &str, value: String, allowed: String) {
        self.problems.push(Problem { key: key.to_owned(), value: (!value.is_empty()).then_some(value), allowed });
    }

    pub(super) fn missing(&mut self, key: &str, allowed: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), value: None, allowed: allowed.into() });
    }

    pub(super) fn duration(&mut self, key: &str, text: Option<&str>, default: Duration, least: Duration, most: Duration) -> Duration {
        let Some(text) = text else { return default };
        match units::duration(text) {
            Some(value) if (least..=most).contains(&value) => value,
            _ => {
                let (least, most) = (units::show_duration(least), units::show_duration(most));
                self.refuse(key, text, format!("must be a duration from {least} to {most}, like \"250ms\", \"5s\" or \"2m\""));
                default
            }
        }
    }

    pub(super) fn bytes(&mut self, key: &str, text: Option<&str>, default: u64, least: u64, most: u64) -> u64 {
        let Some(text) = text else { return default };
        match units::bytes(text) {
            Some(value) if (least..=most).contains(&value) => value,
            _ => {
                let (least, most) = (units::show_bytes(least), units::show_bytes(most));
                self.refuse(key, text, format!("must be a size from {least} to {most}, like \"64KiB\" or \"16MiB\""));
                default
            }
        }
    }

    pub(super) fn count<N: TryFrom<u64>>(&mut self, key: &str, value: Option<u64>, default: N, least: u64, most: u64) -> N {
        let Some(value) = value else { return default };
        if !(least..=most).contains(&value) {
            self.refuse(key, value, format!("must be a whole number from {least} to {most}"));
            return default;
        }
        N::try_from(value).unwrap_or(default)
    }

    fn address(&mut self, key: &str, text: Option<&str>) -> SocketAddr {
        let address = text.and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| {
            match text {
                Some(text) => self.refuse(key, text, ADDRESS_RULE),
                None => self.missing(key, ADDRESS_RULE),
            }
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    /// A key without a default; an empty one when it is missing, so that checking goes on.
    pub(super) fn required(&mut self, key: &str, value: Option<String>, allowed: &str) -> String {
        value.unwrap_or_else(|| {
            self.missing(key, allowed);
            String::new()
        })
    }

    /// Two durations where the first must not be longer.
    pub(super) fn ordered(&mut self, short: (&str, Duration), long: (&str, Duration)) {
        if short.1 > long.1 {
            let allowed = format!("must not be longer than {} ({})", long.0, units::show_duration(long.1));
            self.refuse(short.0, units::show_duration(short.1), allowed);
        }
    }
}

/// Checks the whole config.
///
/// # Errors
/// All problems, in the order of the file's sections.
pub(super) fn check(written: written::Written) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker::default();
    let state = check_state(&mut checker, written.state);
    let has_registry = written.registry.is_some();
    let registry = check_registry::check_registry(&mut checker, written.registry.unwrap_or_default(), state.data_dir.join("models"));
    let admin = check_admin(&mut checker, written.admin);
    let listen = check_listen(&mut checker, &written.listen, &admin);
    let routes = check_route::check_routes(&mut checker, written.route);
    for route in routes.iter().filter(|route| route.loading.is_some() && !has_registry) {
        let allowed = "needs a [registry] section: that is where versions are loaded from";
        checker.refuse_as_written(&format!("route.{}.loading", route.name), "{ ... }".to_owned(), allowed.to_owned());
    }
    let config = Config {
        tls: check_tls::check_tls(&mut checker, listen.traffic_tls, written.tls),
        listen,
        limits: check_limits(&mut checker, &written.limits),
        overrides: check_trust::check_override(&mut checker, written.overrides),
        events: check_events::check_events(&mut checker, written.events),
        token_key_files: check_events::check_token(&mut checker, written.token),
        evidence: check_evidence::check_evidence(&mut checker, &written.evidence),
        lifecycle: check_lifecycle(&mut checker, &written.lifecycle),
        policies: check_policies(&mut checker, written.policies, &state),
        state,
        registry,
        admin,
        notify: check_notify::check_notify(&mut checker, written.notify, &routes),
        mlflow: check_mlflow::check_mlflow(&mut checker, written.mlflow, &routes),
        routes,
    };
    check_no_circle(&mut checker, &config);
    if checker.problems.is_empty() { Ok(config) } else { Err(checker.problems) }
}

fn check_listen(checker: &mut Checker, written: &written::Listen, admin: &Admin) -> Listen {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let listen = Listen {
        traffic: checker.address("listen.traffic", written.traffic.as_deref()),
        traffic_tls: written.traffic_tls.as_deref().map(|text| checker.address("listen.traffic_tls", Some(text))),
        trusted_proxies: check_trust::check_proxies(checker, written.trusted_proxies.as_deref().unwrap_or_default()),
        admin: checker.address("listen.admin", written.admin.as_deref()),
        workers: checker.count("listen.workers", written.workers, cores.min(256), 1, 256),
    };
    if !listen.admin.ip().is_loopback() && admin.tokens.is_empty() {
        checker.refuse("listen.admin", listen.admin.to_string(), LOOPBACK_ONLY);
    }
    if listen.traffic == listen.admin && listen.traffic.port() != 0 {
        let allowed = "must differ from listen.traffic: the admin API never shares the public listener";
        checker.refuse("listen.admin", listen.admin.to_string(), allowed);
    }
    if let Some(tls) = listen.traffic_tls.filter(|tls| tls.port() != 0 && [listen.traffic, listen.admin].contains(tls)) {
        checker.refuse("listen.traffic_tls", tls.to_string(), "must differ from listen.traffic and listen.admin");
    }
    listen
}

/// A query that comes back to the router that sent it never ends.
fn check_no_circle(checker: &mut Checker, config: &Config) {
    let own: Vec<SocketAddr> = [Some(config.listen.traffic), config.listen.traffic_tls].into_iter().flatten().collect();
    for (route, pool) in config.routes.iter().flat_map(|route| route.pools.iter().map(move |pool| (route, pool))) {
        for authority in pool.endpoints.iter().map(|endpoint| &endpoint.authority) {
            let address: Option<SocketAddr> = authority.as_str().parse().ok();
            let is_own = |own: &SocketAddr| {
                address.is_some_and(|to| to == *own || (to.port() == own.port() && own.ip().is_unspecified() && to.ip().is_loopback()))
            };
            if own.iter().any(is_own) {
                let allowed = "must be a backend, and this is where the router itself listens";
                checker.refuse(&format!("route.{}.pools.{}.endpoints", route.name, pool.name), authority.as_str(), allowed);
            }
        }
    }
}

fn check_limits(checker: &mut Checker, written: &written::Limits) -> Limits {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Limits {
        connections: checker.count("limits.connections", written.connections, 20_000, 1, 1_000_000),
        connections_per_address: checker.count("limits.connections_per_address", written.connections_per_address, 20_000, 1, 1_000_000),
        header_timeout: checker.duration("limits.header_timeout", written.header_timeout.as_deref(), seconds(10), ms(100), seconds(300)),
        handshake_timeout: checker.duration(
            "limits.handshake_timeout",
            written.handshake_timeout.as_deref(),
            seconds(5),
            ms(100),
            seconds(60),
        ),
        header_bytes: bytes(checker.bytes("limits.header_bytes", written.header_bytes.as_deref(), 64 << 10, 8 << 10, 1 << 20)),
        headers: checker.count("limits.headers", written.headers, 100, 16, 1_000),
        keepalive_timeout: checker.duration(
            "limits.keepalive_timeout",
            written.keepalive_timeout.as_deref(),
            seconds(75),
            seconds(1),
            seconds(3_600),
        ),
        connection_max_age: checker.duration(
            "limits.connection_max_age",
            written.connection_max_age.as_deref(),
            Duration::ZERO,
            Duration::ZERO,
            seconds(604_800),
        ),
        body_idle_timeout: checker.duration(
            "limits.body_idle_timeout",
            written.body_idle_timeout.as_deref(),
            seconds(30),
            ms(100),
            seconds(3_600),
        ),
        upgrade_idle_timeout: checker.duration(
            "limits.upgrade_idle_timeout",
            written.upgrade_idle_timeout.as_deref(),
            seconds(600),
            ms(100),
            seconds(86_400),
        ),
        upload_timeout: checker.duration(
            "limits.upload_timeout",
            written.upload_timeout.as_deref(),
            seconds(3_600),
            ms(100),
            seconds(86_400),
        ),
        query_timeout: checker.duration(
            "limits.query_timeout",
            written.query_timeout.as_deref(),
            seconds(86_400),
            ms(100),
            seconds(604_800),
        ),
        expect_timeout: checker.duration("limits.expect_timeout", written.expect_timeout.as_deref(), seconds(1), ms(1), seconds(60)),
        h2_streams: checker.count("limits.h2_streams", written.h2_streams, 256, 1, 10_000),
        h2_pending_resets: checker.count("limits.h2_pending_resets", written.h2_pending_resets, 20, 1, 10_000),
        h2_resets: checker.count("limits.h2_resets", written.h2_resets, 200, 1, 100_000),
        h2_forced_resets: checker.count("limits.h2_forced_resets", written.h2_forced_resets, 128, 1, 100_000),
        replay_bytes: bytes(checker.bytes("limits.replay_bytes", written.replay_bytes.as_deref(), 64 << 10, 1, 16 << 20)),
        drain_timeout: checker.duration("limits.drain_timeout", written.drain_timeout.as_deref(), seconds(30), ms(100), seconds(3_600)),
    }
}

fn check_lifecycle(checker: &mut Checker, written: &written::Lifecycle) -> Lifecycle {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let duration = |checker: &mut Checker, key: &str, text: &Option<String>, default, least, most| {
        checker.duration(&format!("lifecycle.{key}"), text.as_deref(), default, least, most)
    };
    Lifecycle {
        drain_announce: duration(checker, "drain_announce", &written.drain_announce, ms(500), Duration::ZERO, seconds(600)),
        upgrade_timeout: duration(checker, "upgrade_timeout", &written.upgrade_timeout, seconds(30), ms(100), seconds(600)),
    }
}

fn check_state(checker: &mut Checker, written: written::State) -> State {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let data_dir = written.data_dir.clone().unwrap_or_else(|| "/var/lib/switchback".to_owned());
    if data_dir.is_empty() {
        checker.refuse("state.data_dir", &data_dir, "must be the path of a folder that the router may write to");
    }
    let good_id = |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(id) = written.router_id.as_deref().filter(|id| !good_id(id)) {
        checker.refuse("state.router_id", id, ROUTER_ID_RULE);
    }
    let state = State {
        url: redis_url::check_url(checker, &written),
        data_dir: PathBuf::from(data_dir),
        poll_interval: checker.duration("state.poll_interval", written.poll_interval.as_deref(), seconds(1), ms(10), seconds(60)),
        heartbeat_interval: checker.duration(
            "state.heartbeat_interval",
            written.heartbeat_interval.as_deref(),
            ms(500),
            ms(50),
            seconds(10),
        ),
        router_timeout: checker.duration("state.router_timeout", written.router_timeout.as_deref(), seconds(3), ms(200), seconds(60)),
        router_id: written.router_id,
    };
    checker.ordered(("state.heartbeat_interval", state.heartbeat_interval), ("state.router_timeout", state.router_timeout));
    state
}

fn check_policies(checker: &mut Checker, written: written::Policies, state: &State) -> Policies {
    let (us, ms, seconds) = (Duration::from_micros, Duration::from_millis, Duration::from_secs);
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let policies = Policies {
        dir: written.dir.map_or_else(|| state.data_dir.join("policies"), PathBuf::from),
        deadline: checker.duration("policies.deadline", written.deadline.as_deref(), ms(20), ms(5), seconds(1)),
        configure_deadline: checker.duration(
            "policies.configure_deadline",
            written.configure_deadline.as_deref(),
            ms(100),
            ms(5),
            seconds(5),
        ),
        memory: bytes(checker.bytes("policies.memory", written.memory.as_deref(), 16 << 20, 1 << 20, 1 << 30)),
        stack: bytes(checker.bytes("policies.stack", written.stack.as_deref(), 256 << 10, 64 << 10, 1 << 20)),
        file_bytes: checker.bytes("policies.file_bytes", written.file_bytes.as_deref(), 32 << 20, 1 << 10, 256 << 20),
        decision_budget: checker.duration("policies.decision_budget", written.decision_budget.as_deref(), us(50), us(1), ms(20)),
        trial_timeout: checker.duration("policies.trial_timeout", written.trial_timeout.as_deref(), seconds(10), ms(100), seconds(600)),
        strikes: checker.count("policies.strikes", written.strikes, 5, 1, 10_000),
        strike_window: checker.duration("policies.strike_window", written.strike_window.as_deref(), seconds(10), ms(100), seconds(3_600)),
        quarantine: checker.duration("policies.quarantine", written.quarantine.as_deref(), seconds(5), ms(10), seconds(3_600)),
        quarantine_max: checker.duration(
            "policies.quarantine_max",
            written.quarantine_max.as_deref(),
            seconds(300),
            ms(10),
            seconds(86_400),
        ),
    };
    checker.ordered(("policies.quarantine", policies.quarantine), ("policies.quarantine_max", policies.quarantine_max));
    checker.ordered(("policies.decision_budget", policies.decision_budget), ("policies.deadline", policies.deadline));
    policies
}

fn check_admin(checker: &mut Checker, written: written::Admin) -> Admin {
    let mut names = HashSet::from([LOCAL_OPERATOR.to_owned()]);
    let mut tokens = Vec::new();
    for (index, token) in written.token.into_iter().enumerate() {
        let key = format!("admin.token[{index}]");
        let token = check_token(checker, &key, token);
        if !token.name.is_empty() && !names.insert(token.name.clone()) {
            checker.refuse(&format!("{key}.name"), &token.name, TOKEN_NAME_ONCE);
        }
        tokens.push(token);
    }
    Admin { tokens }
}

fn check_token(checker: &mut Checker, key: &str, written: written::AdminToken) -> AdminToken {
    let role = match written.role.as_deref() {
        Some("viewer") => Role::Viewer,
        Some("operator") => Role::Operator,
        Some(other) => {
            checker.refuse(&format!("{key}.role"), other, ROLE_RULE);
            Role::Viewer
        }
        None => {
            checker.missing(&format!("{key}.role"), ROLE_RULE);
            Role::Viewer
        }
    };
    if let Some(name) = written.name.as_deref().filter(|name| name.is_empty() || name.chars().count() > 64) {
        checker.refuse(&format!("{key}.name"), name, TOKEN_NAME_RULE);
    }
    AdminToken {
        name: checker.required(&format!("{key}.name"), written.name, TOKEN_NAME_RULE),
        role,
        file: PathBuf::from(checker.required(&format!("{key}.file"), written.file, TOKEN_FILE_RULE)),
    }
}
