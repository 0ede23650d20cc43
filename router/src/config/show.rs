//! The config in force, key by key, defaults included: for `switchback config show`.

use std::path::Path;
use std::time::Duration;

use super::check_loading::{LoadProtocol, Loading};
use super::check_mlflow::{Mlflow, MlflowAlias};
use super::check_notify::Notify;
use super::check_registry::{Registry, S3};
use super::check_rollout::RolloutPlan;
use super::check_validation::Validation;
use super::checked::{ClientAuth, Config, OnPolicyFailure, Outlier, Pool, Protocol, Role, Route, StateUrl, Tls, UnitSource};
use super::expose::Expose;
use super::redis_url::{Password, RedisState};
use super::units::{show_bytes, show_duration};

/// Key and value (as TOML writes it) of everything in the config, in the order of docs/CONFIG.md. Passwords in URLs are
/// hidden.
#[must_use]
pub fn show(config: &Config) -> Vec<(String, String)> {
    let mut lines = Lines::default();
    top(&mut lines, config);
    policies(&mut lines, config);
    for (index, token) in config.admin.tokens.iter().enumerate() {
        let role = if token.role == Role::Viewer { "viewer" } else { "operator" };
        lines.text(&format!("admin.token[{index}].name"), &token.name);
        lines.text(&format!("admin.token[{index}].role"), role);
        lines.text(&format!("admin.token[{index}].file"), &token.file.display().to_string());
    }
    for target in &config.notify {
        notify(&mut lines, target);
    }
    if let Some(written) = &config.mlflow {
        mlflow(&mut lines, written);
    }
    for written in &config.routes {
        route(&mut lines, written);
    }
    lines.lines
}

#[derive(Default)]
struct Lines {
    lines: Vec<(String, String)>,
}

impl Lines {
    fn add(&mut self, key: &str, value: impl ToString) {
        self.lines.push((key.to_owned(), value.to_string()));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.add(key, format!("{value:?}"));
    }

    fn path(&mut self, key: &str, path: &Path) {
        self.text(key, &path.display().to_string());
    }

    fn texts(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<String> = values.map(|value| format!("{value:?}")).collect();
        self.add(key, format!("[{}]", values.join(", ")));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &show_duration(value));
    }

    fn bytes(&mut self, key: &str, value: usize) {
        self.text(key, &show_bytes(u64::try_from(value).unwrap_or(u64::MAX)));
    }
}

fn validation(lines: &mut Lines, key: &impl Fn(&str) -> String, validation: &Validation) {
    let key = |name: &str| key(&format!("validation.{name}"));
    let Validation { judged, criteria } = validation;
    if let Some(judged) = judged {
        lines.path(&key("judged"), judged);
    }
    lines.add(&key("margin"), criteria.margin);
    lines.text(&key("proof"), criteria.proof.label());
    lines.add(&key("latency_ratio"), criteria.latency_ratio);
    lines.duration(&key("latency_floor"), Duration::from_micros(criteria.latency_floor_us));
    for (name, share) in [("top1_change", criteria.top1_change), ("overlap", criteria.overlap), ("jaccard", criteria.jaccard)] {
        lines.add(&key(name), share);
    }
    lines.text(&key("model_bytes"), &show_bytes(criteria.artefact_bytes));
    let globals: Vec<String> = criteria.allowed_globals.iter().map(|name| format!("{name:?}")).collect();
    lines.add(&key("allowed_globals"), format!("[{}]", globals.join(", ")));
    lines.text(&key("memory"), &show_bytes(criteria.cost.memory_bytes));
    lines.duration(&key("cpu"), Duration::from_secs(criteria.cost.cpu_s));
    lines.duration(&key("time"), criteria.cost.time());
}

fn loading(lines: &mut Lines, key: &impl Fn(&str) -> String, loading: &Loading) {
    let key = |name: &str| key(&format!("loading.{name}"));
    lines.text(&key("model"), &loading.model);
    lines.text(&key("protocol"), loading.protocol.label());
    lines.text(&key("server_model"), &loading.server_model);
    let hooks = match &loading.protocol {
        LoadProtocol::V2 => [None, None, None],
        LoadProtocol::Hooks(hooks) => [Some(&hooks.load), hooks.ready.as_ref(), hooks.unload.as_ref()],
    };
    let [load, ready, unload] = hooks;
    let urls = [("server_url", loading.server_url.as_ref()), ("load_url", load), ("ready_url", ready), ("unload_url", unload)];
    for (name, url) in urls {
        if let Some(url) = url {
            lines.text(&key(name), &url.to_string());
        }
    }
    if let Some(folder) = &loading.repository {
        lines.text(&key("repository"), folder);
    }
    lines.text(&key("repository_file"), &loading.repository_file);
    if let Some(path) = &loading.repository_settings {
        lines.path(&key("repository_settings"), path);
    }
    lines.duration(&key("load_timeout"), loading.timeout);
    lines.duration(&key("request_timeout"), loading.request_timeout);
    lines.duration(&key("poll_every"), loading.poll_every);
    lines.duration(&key("warm_up_timeout"), loading.warm_up_timeout);
    if let Some(latency) = loading.warm_up_latency {
        lines.duration(&key("warm_up_latency"), latency);
    }
    lines.add(&key("warm_up_rounds"), loading.warm_up_rounds);
    lines.add(&key("tolerance"), loading.tolerance);
    lines.add(&key("parallel"), loading.parallel);
    lines.duration(&key("check_every"), loading.check_every);
    lines.add(&key("restore"), loading.restore);
}

fn mlflow(lines: &mut Lines, mlflow: &Mlflow) {
    lines.text("mlflow.url", &mlflow.url);
    lines.texts("mlflow.secret_files", mlflow.secret_files.iter().map(|path| path.display().to_string()));
    lines.duration("mlflow.max_age", mlflow.max_age);
    lines.duration("mlflow.timeout", mlflow.timeout);
}

fn mlflow_alias(lines: &mut Lines, key: &impl Fn(&str) -> String, alias: &MlflowAlias) {
    let key = |name: &str| key(&format!("mlflow.{name}"));
    lines.text(&key("model"), &alias.model);
    lines.text(&key("alias"), &alias.alias);
    lines.text(&key("registry_model"), &alias.registry_model);
    lines.text(&key("if_busy"), alias.if_busy.label());
}

fn rollout(lines: &mut Lines, key: &impl Fn(&str) -> String, plan: &RolloutPlan) {
    let key = |name: &str| key(&format!("rollout.{name}"));
    let steps = || plan.steps.iter();
    lines.texts(&key("steps"), steps().map(|step| step.percent.to_string()));
    let first = plan.steps.first();
    lines.duration(&key("dwell"), first.map_or(Duration::ZERO, |step| step.dwell));
    lines.add(&key("min_samples"), first.map_or(0, |step| step.min_samples));
    lines.texts(&key("approval"), steps().filter(|step| step.approval).map(|step| step.percent.to_string()));
    lines.text(&key("canary_max_percent"), &plan.canary_max.to_string());
    lines.text(&key("mirror_percent"), &plan.mirror.to_string());
    lines.duration(&key("mirror"), plan.mirror_for);
    lines.add(&key("mirror_min_samples"), plan.mirror_min_samples);
    lines.text(&key("mirror_max_failing"), &plan.mirror_max_failing.to_string());
    lines.text(&key("mirror_max_top1_change"), &plan.mirror_max_top1_change.to_string());
    lines.text(&key("holdback_percent"), &plan.holdback.to_string());
    lines.duration(&key("bake"), plan.bake);
    lines.duration(&key("max_step"), plan.max_step);
    for gate in &plan.gates {
        let key = |name: &str| key(&format!("gate.{}.{name}", gate.name));
        lines.text(&key("name"), &gate.name);
        lines.text(&key("type"), gate.kind.name());
        lines.text(&key("url"), &gate.url.to_string());
        lines.duration(&key("timeout"), gate.timeout);
        lines.duration(&key("interval"), gate.interval);
        if let Some(path) = &gate.ca_file {
            lines.path(&key("ca_file"), path);
        }
    }
}

fn top(lines: &mut Lines, config: &Config) {
    let (listen, limits, state) = (&config.listen, &config.limits, &config.state);
    lines.text("listen.traffic", &listen.traffic.to_string());
    if let Some(tls) = listen.traffic_tls {
        lines.text("listen.traffic_tls", &tls.to_string());
    }
    lines.texts("listen.trusted_proxies", listen.trusted_proxies.iter().map(ToString::to_string));
    lines.text("listen.admin", &listen.admin.to_string());
    lines.add("listen.workers", listen.workers);
    if let Some(written) = &config.tls {
        tls(lines, written);
    }
    lines.add("limits.connections", limits.connections);
    lines.add("limits.connections_per_address", limits.connections_per_address);
    lines.duration("limits.header_timeout", limits.header_timeout);
    lines.duration("limits.handshake_timeout", limits.handshake_timeout);
    lines.bytes("limits.header_bytes", limits.header_bytes);
    lines.add("limits.headers", limits.headers);
    lines.duration("limits.keepalive_timeout", limits.keepalive_timeout);
    lines.duration("limits.connection_max_age", limits.connection_max_age);
    lines.duration("limits.body_idle_timeout", limits.body_idle_timeout);
    lines.duration("limits.upgrade_idle_timeout", limits.upgrade_idle_timeout);
    lines.duration("limits.upload_timeout", limits.upload_timeout);
    lines.duration("limits.query_timeout", limits.query_timeout);
    lines.duration("limits.expect_timeout", limits.expect_timeout);
    lines.add("limits.h2_streams", limits.h2_streams);
    lines.add("limits.h2_pending_resets", limits.h2_pending_resets);
    lines.add("limits.h2_resets", limits.h2_resets);
    lines.add("limits.h2_forced_resets", limits.h2_forced_resets);
    lines.bytes("limits.replay_bytes", limits.replay_bytes);
    lines.duration("limits.drain_timeout", limits.drain_timeout);
    lines.duration("lifecycle.drain_announce", config.lifecycle.drain_announce);
    lines.duration("lifecycle.upgrade_timeout", config.lifecycle.upgrade_timeout);
    if let Some(overrides) = &config.overrides {
        lines.texts("override.key_files", overrides.key_files.iter().map(|path| path.display().to_string()));
        lines.duration("override.max_lifetime", overrides.max_lifetime);
    }
    events(lines, config);
    if let StateUrl::Redis(written) = &state.url {
        redis(lines, written);
    }
    lines.text("state.data_dir", &state.data_dir.display().to_string());
    lines.duration("state.poll_interval", state.poll_interval);
    lines.duration("state.heartbeat_interval", state.heartbeat_interval);
    lines.duration("state.router_timeout", state.router_timeout);
    if let Some(id) = &state.router_id {
        lines.text("state.router_id", id);
    }
    registry(lines, &config.registry);
}

fn events(lines: &mut Lines, config: &Config) {
    let events = &config.events;
    lines.text("events.path", &events.path);
    lines.add("events.public", events.is_public);
    lines.bytes("events.max_body", events.max_body);
    lines.add("events.max_events", events.max_events);
    lines.add("events.rate", events.rate.per_second);
    lines.add("events.burst", events.rate.burst);
    lines.add("events.rate_per_address", events.rate_per_address.per_second);
    lines.add("events.burst_per_address", events.rate_per_address.burst);
    lines.bytes("events.repeat_memory", events.repeat_memory);
    lines.duration("events.token_lifetime", Duration::from_secs(events.token_lifetime_seconds.into()));
    lines.texts("events.quality_actions", events.quality_actions.iter().cloned());
    lines.duration("evidence.traffic_seal", config.evidence.traffic_seal);
    lines.duration("evidence.maturity", config.evidence.maturity);
    lines.duration("evidence.history", config.evidence.history);
    lines.text("evidence.log_bytes", &show_bytes(config.evidence.log_bytes));
    if let Some(files) = &config.token_key_files {
        lines.texts("token.key_files", files.iter().map(|path| path.display().to_string()));
    }
}

fn redis(lines: &mut Lines, redis: &RedisState) {
    lines.text("state.url", &redis.shown);
    // A user in the URL is hidden there, with its password.
    for (prefix, login) in [("", &redis.login), ("sentinel_", &redis.sentinel_login)] {
        if let (Some(name), Password::File(_) | Password::Variable(_)) = (&login.username, &login.password) {
            lines.text(&format!("state.{prefix}username"), name);
        }
        match &login.password {
            Password::File(path) => lines.path(&format!("state.{prefix}password_file"), path),
            Password::Variable(name) => lines.text(&format!("state.{prefix}password_env"), name),
            Password::None | Password::Written(_) => {}
        }
    }
    let Some(tls) = &redis.tls else { return };
    if let Some(ca) = &tls.ca {
        lines.path("state.ca", ca);
    }
    if let Some(files) = &tls.certificate {
        lines.path("state.cert", &files.cert);
        lines.path("state.key", &files.key);
    }
}

fn registry(lines: &mut Lines, registry: &Registry) {
    lines.text("registry.url", &registry.place.to_string());
    lines.duration("registry.retry_for", registry.retry_for);
    lines.text("registry.artefact_bytes", &show_bytes(registry.artefact_bytes));
    lines.texts("registry.trusted_keys", registry.trusted_keys.iter().map(|path| path.display().to_string()));
    let S3 { endpoint, region, path_style, profile, ca_file } = &registry.s3;
    for (key, text) in [("endpoint", endpoint), ("region", region), ("profile", profile)] {
        if let Some(text) = text {
            lines.text(&format!("registry.s3.{key}"), text);
        }
    }
    if let Some(path_style) = path_style {
        lines.add("registry.s3.path_style", path_style);
    }
    if let Some(path) = ca_file {
        lines.path("registry.s3.ca_file", path);
    }
}

fn tls(lines: &mut Lines, tls: &Tls) {
    for (index, files) in tls.certificates.iter().enumerate() {
        lines.path(&format!("tls.certificate[{index}].cert"), &files.cert);
        lines.path(&format!("tls.certificate[{index}].key"), &files.key);
    }
    if let Some(ca) = &tls.client_ca {
        lines.path("tls.client_ca", ca);
        lines.text("tls.client_auth", if tls.client_auth == ClientAuth::Required { "required" } else { "optional" });
    }
    lines.duration("tls.reload_interval", tls.reload_interval);
}

fn policies(lines: &mut Lines, config: &Config) {
    let policies = &config.policies;
    lines.text("policies.dir", &policies.dir.display().to_string());
    lines.duration("policies.deadline", policies.deadline);
    lines.duration("policies.configure_deadline", policies.configure_deadline);
    lines.bytes("policies.memory", policies.memory);
    lines.bytes("policies.stack", policies.stack);
    lines.text("policies.file_bytes", &show_bytes(policies.file_bytes));
    lines.duration("policies.decision_budget", policies.decision_budget);
    lines.duration("policies.trial_timeout", policies.trial_timeout);
    lines.add("policies.strikes", policies.strikes);
    lines.duration("policies.strike_window", policies.strike_window);
    lines.duration("policies.quarantine", policies.quarantine);
    lines.duration("policies.quarantine_max", policies.quarantine_max);
}

fn notify(lines: &mut Lines, target: &Notify) {
    let key = |name: &str| format!("notify.{}.{name}", target.name);
    lines.text(&key("name"), &target.name);
    lines.text(&key("url"), &target.url.to_string());
    lines.text(&key("format"), target.format.name());
    if !target.secret_files.is_empty() {
        lines.texts(&key("secret_files"), target.secret_files.iter().map(|path| path.display().to_string()));
    }
    lines.texts(&key("events"), target.events.iter().map(|event| event.name().to_owned()));
    if let Some(routes) = &target.routes {
        lines.texts(&key("routes"), routes.iter().cloned());
    }
    lines.text(&key("environment"), &target.environment);
    if let Some(path) = &target.ca_file {
        lines.path(&key("ca_file"), path);
    }
    lines.duration(&key("timeout"), target.timeout);
    lines.duration(&key("retry_base"), target.retry_base);
    lines.duration(&key("retry_cap"), target.retry_cap);
    lines.duration(&key("retry_for"), target.retry_for);
    lines.add(&key("max_tries"), target.max_tries);
}

fn route(lines: &mut Lines, route: &Route) {
    let key = |name: &str| format!("route.{}.{name}", route.name);
    lines.text(&key("name"), &route.name);
    if let Some(host) = &route.matches.host {
        lines.text(&key("match.host"), host);
    }
    lines.text(&key("match.path_prefix"), &route.matches.path_prefix);
    lines.texts(&key("unit"), route.unit.iter().map(show_unit));
    lines.text(&key("split_policy"), &route.split_policy);
    lines.add(&key("split_config"), &route.split_config);
    lines.text(&key("on_policy_failure"), if route.on_policy_failure == OnPolicyFailure::Native { "native" } else { "last_good" });
    lines.text(&key("rollback_policy"), &route.rollback_policy);
    lines.add(&key("rollback_config"), &route.rollback_config);
    lines.add(&key("observe_only"), route.is_observed_only);
    lines.add(&key("breaker.enabled"), route.breaker.is_enabled);
    lines.add(&key("breaker.alpha"), route.breaker.alpha);
    rollout(lines, &key, &route.rollout);
    validation(lines, &key, &route.validation);
    if let Some(written) = &route.loading {
        loading(lines, &key, written);
    }
    if let Some(alias) = &route.mlflow {
        mlflow_alias(lines, &key, alias);
    }
    if let Some(signals) = &route.signals {
        lines.text(&key("signals.sample_percent"), &signals.sample.percent().to_string());
        lines.bytes(&key("signals.max_body"), signals.max_body);
        let pointers = [("results", &signals.results), ("ids", &signals.ids), ("scores", &signals.scores), ("quality", &signals.quality)];
        for (name, pointer) in pointers {
            if let Some(pointer) = pointer {
                lines.text(&key(&format!("signals.{name}")), pointer.text());
            }
        }
    }
    let exposed = Expose::ALL.into_iter().filter(|(one, _)| route.expose.has(*one));
    lines.texts(&key("expose"), exposed.map(|(_, name)| name.to_owned()));
    for (name, limit) in [("max_request_body", route.max_request_body), ("max_response_body", route.max_response_body)] {
        if let Some(limit) = limit {
            lines.text(&key(name), &show_bytes(limit));
        }
    }
    lines.texts(&key("upgrades"), route.upgrades.iter().cloned());
    lines.texts(&key("replayable_methods"), route.replayable_methods.iter().map(ToString::to_string));
    lines.duration(&key("timeouts.connect"), route.timeouts.connect);
    lines.duration(&key("timeouts.attempt"), route.timeouts.attempt);
    lines.duration(&key("timeouts.total"), route.timeouts.total);
    let initial: Vec<String> = route.initial.iter().map(|(field, value)| format!("{field:?} = {value:?}")).collect();
    lines.add(&key("initial"), format!("{{ {} }}", initial.join(", ")));
    for pool in &route.pools {
        show_pool(lines, &key(&format!("pools.{}", pool.name)), pool);
    }
}

fn show_pool(lines: &mut Lines, pool_key: &str, pool: &Pool) {
    let key = |name: &str| format!("{pool_key}.{name}");
    lines.texts(&key("endpoints"), pool.endpoints.iter().map(ToString::to_string));
    lines.text(&key("protocol"), if pool.protocol == Protocol::Http1 { "http1" } else { "h2" });
    if let Some(ca) = &pool.tls.ca {
        lines.path(&key("tls.ca"), ca);
    }
    if let Some(name) = &pool.tls.server_name {
        lines.text(&key("tls.server_name"), &name.to_str());
    }
    if let Some(files) = &pool.tls.certificate {
        lines.path(&key("tls.cert"), &files.cert);
        lines.path(&key("tls.key"), &files.key);
    }
    lines.text(&key("version"), &pool.version);
    lines.add(&key("max_in_flight"), pool.max_in_flight);
    lines.add(&key("max_in_flight_per_endpoint"), pool.max_in_flight_per_endpoint);
    lines.add(&key("max_mirrors_in_flight"), pool.max_mirrors_in_flight);
    lines.duration(&key("slow_start"), pool.slow_start);
    lines.add(&key("healthy_panic_threshold"), pool.healthy_panic_threshold);
    lines.duration(&key("dns_interval"), pool.dns_interval);
    lines.duration(&key("idle_timeout"), pool.idle_timeout);
    lines.add(&key("idle_connections"), pool.idle_connections);
    lines.text(&key("health.path"), &pool.health.path);
    lines.duration(&key("health.interval"), pool.health.interval);
    lines.duration(&key("health.timeout"), pool.health.timeout);
    lines.add(&key("health.healthy_after"), pool.health.healthy_after);
    lines.add(&key("health.unhealthy_after"), pool.health.unhealthy_after);
    show_outlier(lines, &key("outlier"), &pool.outlier);
}

fn show_outlier(lines: &mut Lines, outlier_key: &str, outlier: &Outlier) {
    let key = |name: &str| format!("{outlier_key}.{name}");
    lines.add(&key("consecutive_failures"), outlier.consecutive_failures);
    lines.add(&key("failure_percentage_threshold"), outlier.failure_percentage_threshold);
    lines.add(&key("failure_percentage_request_volume"), outlier.failure_percentage_request_volume);
    lines.duration(&key("interval"), outlier.interval);
    lines.duration(&key("base_ejection_time"), outlier.base_ejection_time);
    lines.duration(&key("max_ejection_time"), outlier.max_ejection_time);
    lines.add(&key("max_ejection_percent"), outlier.max_ejection_percent);
    lines.add(&key("probes"), outlier.probes);
}

fn show_unit(unit: &UnitSource) -> String {
    match unit {
        UnitSource::Header(name) => format!("header:{name}"),
        UnitSource::Cookie(name) => format!("cookie:{name}"),
        UnitSource::ClientAddress => "client-address".to_owned(),
    }
}
