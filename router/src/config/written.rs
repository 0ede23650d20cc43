//! The config as it is written: plain strings and numbers, every key optional (the checker misses those without a default).
//! No unknown keys.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default)]
    pub(super) listen: Listen,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(rename = "override")]
    pub(super) overrides: Option<Override>,
    #[serde(default)]
    pub(super) events: Events,
    pub(super) token: Option<Token>,
    #[serde(default)]
    pub(super) evidence: Evidence,
    #[serde(default)]
    pub(super) lifecycle: Lifecycle,
    #[serde(default)]
    pub(super) state: State,
    pub(super) registry: Option<Registry>,
    #[serde(default)]
    pub(super) policies: Policies,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) notify: Vec<Notify>,
    pub(super) mlflow: Option<Mlflow>,
    #[serde(default)]
    pub(super) route: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) traffic: Option<String>,
    pub(super) traffic_tls: Option<String>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) admin: Option<String>,
    pub(super) workers: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) client_ca: Option<String>,
    pub(super) client_auth: Option<String>,
    pub(super) reload_interval: Option<String>,
    #[serde(default)]
    pub(super) certificate: Vec<Certificate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: Option<u64>,
    pub(super) connections_per_address: Option<u64>,
    pub(super) header_timeout: Option<String>,
    pub(super) handshake_timeout: Option<String>,
    pub(super) header_bytes: Option<String>,
    pub(super) headers: Option<u64>,
    pub(super) keepalive_timeout: Option<String>,
    pub(super) connection_max_age: Option<String>,
    pub(super) body_idle_timeout: Option<String>,
    pub(super) upgrade_idle_timeout: Option<String>,
    pub(super) upload_timeout: Option<String>,
    pub(super) query_timeout: Option<String>,
    pub(super) expect_timeout: Option<String>,
    pub(super) h2_streams: Option<u64>,
    pub(super) h2_pending_resets: Option<u64>,
    pub(super) h2_resets: Option<u64>,
    pub(super) h2_forced_resets: Option<u64>,
    pub(super) replay_bytes: Option<String>,
    pub(super) drain_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    pub(super) key_files: Option<Vec<String>>,
    pub(super) max_lifetime: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    pub(super) path: Option<String>,
    pub(super) public: Option<bool>,
    pub(super) max_body: Option<String>,
    pub(super) max_events: Option<u64>,
    pub(super) rate: Option<u64>,
    pub(super) burst: Option<u64>,
    pub(super) rate_per_address: Option<u64>,
    pub(super) burst_per_address: Option<u64>,
    pub(super) repeat_memory: Option<String>,
    pub(super) token_lifetime: Option<String>,
    pub(super) quality_actions: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) key_files: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    pub(super) traffic_seal: Option<String>,
    pub(super) maturity: Option<String>,
    pub(super) history: Option<String>,
    pub(super) log_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lifecycle {
    pub(super) drain_announce: Option<String>,
    pub(super) upgrade_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) url: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) password_env: Option<String>,
    pub(super) sentinel_username: Option<String>,
    pub(super) sentinel_password_file: Option<String>,
    pub(super) sentinel_password_env: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) poll_interval: Option<String>,
    pub(super) heartbeat_interval: Option<String>,
    pub(super) router_timeout: Option<String>,
    pub(super) router_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registry {
    pub(super) url: Option<String>,
    pub(super) retry_for: Option<String>,
    pub(super) artefact_bytes: Option<String>,
    pub(super) trusted_keys: Option<Vec<String>>,
    pub(super) s3: Option<S3>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3 {
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) path_style: Option<bool>,
    pub(super) profile: Option<String>,
    pub(super) ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policies {
    pub(super) dir: Option<String>,
    pub(super) deadline: Option<String>,
    pub(super) configure_deadline: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) stack: Option<String>,
    pub(super) file_bytes: Option<String>,
    pub(super) decision_budget: Option<String>,
    pub(super) trial_timeout: Option<String>,
    pub(super) strikes: Option<u64>,
    pub(super) strike_window: Option<String>,
    pub(super) quarantine: Option<String>,
    pub(super) quarantine_max: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    #[serde(default)]
    pub(super) token: Vec<AdminToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminToken {
    pub(super) name: Option<String>,
    pub(super) role: Option<String>,
    pub(super) file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) format: Option<String>,
    pub(super) secret_file: Option<String>,
    pub(super) secret_files: Option<Vec<String>>,
    pub(super) events: Option<Vec<String>>,
    pub(super) routes: Option<Vec<String>>,
    pub(super) environment: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) retry_base: Option<String>,
    pub(super) retry_cap: Option<String>,
    pub(super) retry_for: Option<String>,
    pub(super) max_tries: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mlflow {
    pub(super) url: Option<String>,
    pub(super) secret_file: Option<String>,
    pub(super) secret_files: Option<Vec<String>>,
    pub(super) max_age: Option<String>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) name: Option<String>,
    #[serde(rename = "match", default)]
    pub(super) matches: Match,
    pub(super) unit: Option<Vec<String>>,
    pub(super) split_policy: Option<String>,
    pub(super) split_config: Option<toml::Table>,
    pub(super) on_policy_failure: Option<String>,
    pub(super) rollback_policy: Option<String>,
    pub(super) rollback_config: Option<toml::Table>,
    pub(super) observe_only: Option<bool>,
    #[serde(default)]
    pub(super) breaker: Breaker,
    #[serde(default)]
    pub(super) rollout: Rollout,
    #[serde(default)]
    pub(super) validation: Validation,
    pub(super) loading: Option<Loading>,
    pub(super) mlflow: Option<MlflowAlias>,
    pub(super) signals: Option<Signals>,
    pub(super) expose: Option<Vec<String>>,
    pub(super) upgrades: Option<Vec<String>>,
    pub(super) max_request_body: Option<String>,
    pub(super) max_response_body: Option<String>,
    pub(super) replayable_methods: Option<Vec<String>>,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) initial: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) pools: BTreeMap<String, Pool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    pub(super) enabled: Option<bool>,
    pub(super) alpha: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validation {
    pub(super) judged: Option<String>,
    pub(super) margin: Option<f64>,
    pub(super) proof: Option<String>,
    pub(super) latency_ratio: Option<f64>,
    pub(super) latency_floor: Option<String>,
    pub(super) top1_change: Option<f64>,
    pub(super) overlap: Option<f64>,
    pub(super) jaccard: Option<f64>,
    pub(super) model_bytes: Option<String>,
    pub(super) allowed_globals: Option<Vec<String>>,
    pub(super) memory: Option<String>,
    pub(super) cpu: Option<String>,
    pub(super) time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Loading {
    pub(super) model: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) server_model: Option<String>,
    pub(super) server_url: Option<String>,
    pub(super) load_url: Option<String>,
    pub(super) ready_url: Option<String>,
    pub(super) unload_url: Option<String>,
    pub(super) repository: Option<String>,
    pub(super) repository_file: Option<String>,
    pub(super) repository_settings: Option<String>,
    pub(super) load_timeout: Option<String>,
    pub(super) request_timeout: Option<String>,
    pub(super) poll_every: Option<String>,
    pub(super) warm_up_timeout: Option<String>,
    pub(super) warm_up_latency: Option<String>,
    pub(super) warm_up_rounds: Option<u64>,
    pub(super) tolerance: Option<f64>,
    pub(super) parallel: Option<u64>,
    pub(super) check_every: Option<String>,
    pub(super) restore: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MlflowAlias {
    pub(super) model: Option<String>,
    pub(super) alias: Option<String>,
    pub(super) registry_model: Option<String>,
    pub(super) if_busy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollout {
    pub(super) steps: Option<Vec<String>>,
    pub(super) step_weight: Option<String>,
    pub(super) max_weight: Option<String>,
    pub(super) dwell: Option<String>,
    pub(super) min_samples: Option<u64>,
    pub(super) approval: Option<Vec<String>>,
    pub(super) canary_max_percent: Option<String>,
    pub(super) mirror_percent: Option<String>,
    pub(super) mirror: Option<String>,
    pub(super) mirror_min_samples: Option<u64>,
    pub(super) mirror_max_failing: Option<String>,
    pub(super) mirror_max_top1_change: Option<String>,
    pub(super) holdback_percent: Option<String>,
    pub(super) bake: Option<String>,
    pub(super) max_step: Option<String>,
    #[serde(default)]
    pub(super) gate: Vec<Gate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gate {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) url: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signals {
    pub(super) sample_percent: Option<String>,
    pub(super) max_body: Option<String>,
    pub(super) results: Option<String>,
    pub(super) ids: Option<String>,
    pub(super) scores: Option<String>,
    pub(super) quality: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    pub(super) host: Option<String>,
    pub(super) path_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) connect: Option<String>,
    pub(super) attempt: Option<String>,
    pub(super) total: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) protocol: Option<String>,
    pub(super) tls: Option<PoolTls>,
    pub(super) version: Option<String>,
    pub(super) max_in_flight: Option<u64>,
    pub(super) max_in_flight_per_endpoint: Option<u64>,
    pub(super) max_mirrors_in_flight: Option<u64>,
    pub(super) slow_start: Option<String>,
    pub(super) healthy_panic_threshold: Option<u64>,
    pub(super) dns_interval: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) idle_connections: Option<u64>,
    #[serde(default)]
    pub(super) health: Health,
    #[serde(default)]
    pub(super) outlier: Outlier,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTls {
    pub(super) ca: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) path: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) healthy_after: Option<u64>,
    pub(super) unhealthy_after: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outlier {
    pub(super) consecutive_failures: Option<u64>,
    pub(super) failure_percentage_threshold: Option<u64>,
    pub(super) failure_percentage_request_volume: Option<u64>,
    pub(super) interval: Option<String>,
    pub(super) base_ejection_time: Option<String>,
    pub(super) max_ejection_time: Option<String>,
    pub(super) max_ejection_percent: Option<u64>,
    pub(super) probes: Option<u64>,
}
