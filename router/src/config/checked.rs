//! The config in its checked form. Whoever holds one of these need not check anything again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HeaderName;
use http::uri::Authority;
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use super::check_breaker::Breaker;
use super::check_evidence::Evidence;
use super::check_loading::Loading;
use super::check_mlflow::{Mlflow, MlflowAlias};
use super::check_notify::Notify;
use super::check_registry::Registry;
use super::check_rollout::RolloutPlan;
use super::check_signals::Signals;
use super::check_validation::Validation;
use super::expose::Expose;
use super::redis_url::RedisState;

/// The whole config.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// How `listen.traffic_tls` proves who it is. There when that is.
    pub tls: Option<Tls>,
    /// What a client may take.
    pub limits: Limits,
    /// Who may choose a pool for a query of its own. `None`: nobody.
    pub overrides: Option<Override>,
    /// What is taken of events.
    pub events: Events,
    /// Files with the keys of tokens. `None`: a key that the router makes for itself.
    pub token_key_files: Option<Vec<PathBuf>>,
    /// How counters become evidence.
    pub evidence: Evidence,
    /// How the process ends, and hands over to another.
    pub lifecycle: Lifecycle,
    /// Where flags live.
    pub state: State,
    /// Where model versions are.
    pub registry: Registry,
    /// Where plugins come from, and what they may take.
    pub policies: Policies,
    /// Who may ask the admin API what.
    pub admin: Admin,
    /// Who is told what happens to rollouts. At most 16.
    pub notify: Vec<Notify>,
    /// The MLflow server whose webhooks are taken. `None`: none are.
    pub mlflow: Option<Mlflow>,
    /// The routes, in the order in which they are tried. 1..=10_000.
    pub routes: Vec<Route>,
}

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Search traffic.
    pub traffic: SocketAddr,
    /// Search traffic over TLS.
    pub traffic_tls: Option<SocketAddr>,
    /// Peers whose word about their clients is taken: load balancers and CDNs.
    pub trusted_proxies: Vec<IpNet>,
    /// Admin API, metrics, health.
    pub admin: SocketAddr,
    /// Worker threads, 1..=256.
    pub workers: usize,
}

/// `[tls]`: how `listen.traffic_tls` proves who it is, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one. The first is for clients that ask for no name, or for one that no other has.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities of client certificates; `None` asks for none.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must have one. Means nothing without `client_ca`.
    pub client_auth: ClientAuth,
    /// How often files are looked at: a changed certificate is in use after this.
    pub reload_interval: Duration,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the leaf first.
    pub cert: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
}

/// What becomes of a client without a certificate. One with a bad certificate is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is refused.
    Required,
    /// It is let in.
    Optional,
}

/// `[limits]`: what a client may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections in all.
    pub connections: usize,
    /// Open client connections from one address.
    pub connections_per_address: usize,
    /// From a connection's (or a keep-alive request's) first byte to the end of its head; also the wait for a first byte.
    pub header_timeout: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// A request's head.
    pub header_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// An idle keep-alive connection is closed after this.
    pub keepalive_timeout: Duration,
    /// A client connection is ended in order after about this: it differs by a tenth from one to the next. Zero: never.
    pub connection_max_age: Duration,
    /// A body, either way, may pause this long.
    pub body_idle_timeout: Duration,
    /// An upgraded connection on which neither side sends anything is closed after this (and before twice this).
    pub upgrade_idle_timeout: Duration,
    /// The whole body of a request.
    pub upload_timeout: Duration,
    /// A whole query, to the end of its response's body.
    pub query_timeout: Duration,
    /// How long a body that waits for 100 Continue waits for a backend that says nothing.
    pub expect_timeout: Duration,
    /// Concurrent streams on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Streams that a client reset and that are still being cleaned up, before its connection is closed.
    pub h2_pending_resets: usize,
    /// Streams of one HTTP/2 connection that a client may reset before their responses; the allowance is new after ten seconds.
    pub h2_resets: u32,
    /// Streams of one HTTP/2 connection that a client's mistakes may make us reset.
    pub h2_forced_resets: usize,
    /// A request body up to this is kept, so that the query can be sent again.
    pub replay_bytes: usize,
    /// How long queries in flight may take to end after SIGTERM.
    pub drain_timeout: Duration,
}

/// `[override]`: whose signature chooses a pool.
#[derive(Debug, Clone)]
pub struct Override {
    /// Each holds a key. The first signs, all are accepted, so that keys can be changed one after the other. Never empty.
    pub key_files: Vec<PathBuf>,
    /// An override that is good for longer is refused.
    pub max_lifetime: Duration,
}

/// `[events]`: what is taken of events, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Where they come in. Begins with `/`.
    pub path: String,
    /// Also on the traffic listener, and not on the admin listener alone.
    pub is_public: bool,
    /// Of one request, in bytes.
    pub max_body: usize,
    /// In one request.
    pub max_events: usize,
    /// In all.
    pub rate: Rate,
    /// From one address.
    pub rate_per_address: Rate,
    /// For the memory of repeats, in bytes.
    pub repeat_memory: usize,
    /// A token is good for so long, in seconds.
    pub token_lifetime_seconds: u32,
    /// Actions that come with a number in 0..=1. At most 16.
    pub quality_actions: Vec<String>,
}

/// So many a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub per_second: u32,
    /// At once. Not below `per_second`.
    pub burst: u32,
}

/// `[lifecycle]`: how the process ends, and hands over to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// From the announcement that connections will close to their end.
    pub drain_announce: Duration,
    /// For a new process to be ready, before the hand-over is given up.
    pub upgrade_timeout: Duration,
}

/// `[state]`: where flags live.
#[derive(Debug, Clone)]
pub struct State {
    /// Redis, or the embedded store.
    pub url: StateUrl,
    /// For the embedded store, the copy of the flags, the plugin cache, the admin token.
    pub data_dir: PathBuf,
    /// How often flags are read although nothing was announced.
    pub poll_interval: Duration,
    /// How often this router says that it lives, and which epoch it applies.
    pub heartbeat_interval: Duration,
    /// A router not heard of for this long is listed as unknown.
    pub router_timeout: Duration,
    /// This router's name in heartbeats; by default host name and traffic port.
    pub router_id: Option<String>,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateUrl {
    /// In-process, durable in the data folder.
    Embedded,
    /// Redis: one server, Sentinel, or a cluster.
    Redis(Box<RedisState>),
}

/// `[policies]`: where plugins come from, and what they may take.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The watched folder.
    pub dir: PathBuf,
    /// One decision may take this long before the native decision is used instead.
    pub deadline: Duration,
    /// One `configure` may take this long.
    pub configure_deadline: Duration,
    /// Linear memory of one instance.
    pub memory: usize,
    /// Stack of one call.
    pub stack: usize,
    /// Size of a plugin file.
    pub file_bytes: u64,
    /// Mean time of a decision at admission; a slower plugin is refused.
    pub decision_budget: Duration,
    /// Time for a plugin's whole trial at admission.
    pub trial_timeout: Duration,
    /// So many failures within `strike_window`, over all workers, quarantine a policy.
    pub strikes: u32,
    /// See `strikes`.
    pub strike_window: Duration,
    /// The first quarantine; each further one doubles, up to `quarantine_max`.
    pub quarantine: Duration,
    /// The longest quarantine.
    pub quarantine_max: Duration,
}

/// `[admin]`: who may ask the admin API what.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Bearer tokens beside the one that the router makes for its own CLI in the data folder.
    pub tokens: Vec<AdminToken>,
}

/// `[[admin.token]]`
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// Who: recorded with every change.
    pub name: String,
    /// What the bearer may do.
    pub role: Role,
    /// The file that holds the token, one line.
    pub file: PathBuf,
}

/// What a bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read, but for salts.
    Viewer,
    /// Read all, and change flags.
    Operator,
}

/// `[[route]]`: a piece of traffic with one rollout at a time.
#[derive(Debug, Clone)]
pub struct Route {
    /// 1..=64 of `a-z 0-9 - _`, starting with a letter.
    pub name: String,
    /// Which queries.
    pub matches: RouteMatch,
    /// Who is randomised: the first of these that a query has. Never empty.
    pub unit: Vec<UnitSource>,
    /// The split policy in force unless the flags name another.
    pub split_policy: String,
    /// What the split policy gets as its `config`: JSON text.
    pub split_config: String,
    /// Who decides what the split policy in force cannot.
    pub on_policy_failure: OnPolicyFailure,
    /// The rollback policy, unless the flags name another.
    pub rollback_policy: String,
    /// What it gets as its `config`: JSON text.
    pub rollback_config: String,
    /// What is heard of response bodies. `None`: nothing.
    pub signals: Option<Arc<Signals>>,
    /// Verdicts are logged, and nothing acts on them.
    pub is_observed_only: bool,
    /// Each router's own guard.
    pub breaker: Breaker,
    /// How a candidate becomes live.
    pub rollout: RolloutPlan,
    /// What its models have to be.
    pub validation: Validation,
    /// How versions of its model are loaded. `None`: they are not.
    pub loading: Option<Loading>,
    /// Which alias of MLflow's names its candidates. `None`: none does.
    pub mlflow: Option<MlflowAlias>,
    /// What every response says of the decision.
    pub expose: Expose,
    /// Size of a request's body. `None` is no limit.
    pub max_request_body: Option<u64>,
    /// Size of a response's body. `None` is no limit.
    pub max_response_body: Option<u64>,
    /// Protocols that a client may upgrade its connection to, lower case.
    pub upgrades: Vec<String>,
    /// Methods that may be sent a second time.
    pub replayable_methods: Vec<Method>,
    /// Time limits towards backends.
    pub timeouts: Timeouts,
    /// Flags for a store that has none for this route yet, checked when they are read. Always has `live`.
    pub initial: BTreeMap<String, String>,
    /// `blue`, `green`, `canary`, then named pools by name. 1..=64.
    pub pools: Vec<Pool>,
}

/// Who decides what the split policy in force cannot: it failed, is in quarantine, or refuses the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPolicyFailure {
    /// `native`: live, candidate and holdback by position.
    Native,
    /// `last_good`: the policy before it, if that served this route without a strike; only then the native decision.
    LastGood,
}

/// Which queries belong to a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Exact host, lower case, without port; `None` matches every host.
    pub host: Option<String>,
    /// The path starts with this, at a segment's border: `/search` matches `/search` and `/search/x`, not `/searching`.
    pub path_prefix: String,
}

/// Where the unit of a query is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitSource {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The client's address, without port.
    ClientAddress,
}

/// `[route.timeouts]`: time limits towards backends.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// For one attempt: from sending it to the response's head.
    pub attempt: Duration,
    /// For all attempts together, to the head of the response that is passed on.
    pub total: Duration,
}

/// `[route.pools.NAME]`: a named set of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// `blue`, `green`, `canary`, or a name of the operator's, by the rules of a route's name.
    pub name: String,
    /// 1..=1024.
    pub endpoints: Vec<Endpoint>,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// For its `https` endpoints.
    pub tls: PoolTls,
    /// Which model version it runs, as the operator says; `unknown` otherwise.
    pub version: String,
    /// Queries in flight in this process, before further ones get 503 (or fall back to live, for a candidate).
    pub max_in_flight: usize,
    /// The same for each of its endpoints: one that is full is passed over.
    pub max_in_flight_per_endpoint: usize,
    /// Copies of queries in flight to this pool, in this process; further ones are dropped.
    pub max_mirrors_in_flight: usize,
    /// How long an endpoint that came back takes to get its whole share again.
    pub slow_start: Duration,
    /// With fewer healthy endpoints than this, in percent, all of them are used. 0..=100.
    pub healthy_panic_threshold: u32,
    /// How often names of endpoints are looked up again.
    pub dns_interval: Duration,
    /// An idle connection is not used after this: keep it below the backend's own limit.
    pub idle_timeout: Duration,
    /// Idle connections kept for each endpoint and worker.
    pub idle_connections: usize,
    /// Active health checks.
    pub health: Health,
    /// Passive ones: by what becomes of attempts.
    pub outlier: Outlier,
}

/// One backend process: `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port, as written; the port is always there.
    pub authority: Authority,
    /// Whether it is spoken to over TLS.
    pub is_tls: bool,
}

/// What is spoken to a pool's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, with prior knowledge without.
    Http2,
}

/// `[route.pools.NAME.tls]`: whom the router trusts, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolTls {
    /// Authorities of the endpoints' certificates; the system's without it.
    pub ca: Option<PathBuf>,
    /// The name that a certificate must be for; the endpoint's host without it.
    pub server_name: Option<ServerName<'static>>,
    /// Shown to endpoints that ask for a client certificate.
    pub certificate: Option<CertificateFiles>,
}

/// `[route.pools.NAME.health]`: active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// GET this; any 2xx is healthy.
    pub path: String,
    /// How often. Zero turns active checks off.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Good checks in a row before an endpoint gets traffic again.
    pub healthy_after: u32,
    /// Failed checks in a row before it gets none.
    pub unhealthy_after: u32,
}

/// `[route.pools.NAME.outlier]`: when an endpoint is taken out because its attempts fail, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// So many failures in a row eject an endpoint; 0 leaves this out.
    pub consecutive_failures: u32,
    /// So many failures of a hundred attempts eject it; 0 leaves this out.
    pub failure_percentage_threshold: u32,
    /// With fewer attempts than this, a percentage says nothing.
    pub failure_percentage_request_volume: u32,
    /// What percentages are counted over; a good one also takes an earlier ejection back.
    pub interval: Duration,
    /// The first ejection; each further one lasts twice as long.
    pub base_ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// Of a pool, at once: 0..=50. 0 ejects nobody.
    pub max_ejection_percent: u32,
    /// Queries that an endpoint must answer well after its ejection, before it gets its share again. 1..=100.
    pub probes: u32,
}

/// As it is written.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

impl Route {
    /// The pool of this name.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<crate::vocabulary::PoolIndex> {
        let index = self.pools.iter().position(|pool| pool.name == name)?;
        u8::try_from(index).ok().map(crate::vocabulary::PoolIndex)
    }
}
