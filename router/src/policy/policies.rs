//! Which policy is in force on which route.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use wasmtime::component::Component;

use super::engine::{Limits, PolicyEngine};
use super::health::Patience;
use super::host_v0::SplitProgram;
use super::in_force::SplitInForce;
use super::status::{InForceStatus, PolicyState, PolicyStatus};
use crate::config::Config;
use crate::flags::Flags;
use crate::vocabulary::RouteIndex;

const SPLIT_WEIGHTED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/split-weighted.wasm"));

/// The router cannot run policies at all.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No engine.
    #[error("the WebAssembly engine cannot start")]
    Engine(#[source] wasmtime::Error),
}

/// The control side of policies.
pub struct Policies {
    routes: Vec<watch::Sender<Arc<SplitInForce>>>,
    flags: Vec<watch::Receiver<Arc<Flags>>>,
    since_unix_ms: u64,
}

impl Policies {
    /// Starts the engine and puts the policies in force that the flags name. Inside a tokio runtime.
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly.
    pub fn open(config: &Arc<Config>, flags: Vec<watch::Receiver<Arc<Flags>>>) -> Result<Arc<Policies>, PolicyError> {
        let engine = PolicyEngine::new(Limits::of(&config.policies)).map_err(PolicyError::Engine)?;
        let component = Component::new(engine.engine(), SPLIT_WEIGHTED).map_err(PolicyError::Engine)?;
        let program = SplitProgram::link(&engine, &component).map_err(PolicyError::Engine)?;
        let digest = hex::encode(Sha256::digest(SPLIT_WEIGHTED));
        let patience = Patience::of(&config.policies);
        let in_force = |route: &crate::config::Route| {
            let split = SplitInForce::wasm(&route.name, "split-weighted", &digest, program.clone(), patience);
            watch::Sender::new(Arc::new(split))
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Ok(Arc::new(Policies { routes: config.routes.iter().map(in_force).collect(), flags, since_unix_ms }))
    }

    /// The policy in force on a route, now and whenever it changes.
    ///
    /// # Panics
    /// For a route that the config does not have.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a route index comes from the config that this was opened with")]
    pub fn split(&self, route: RouteIndex) -> watch::Receiver<Arc<SplitInForce>> {
        self.routes.get(route.get()).expect("a route of the config").subscribe()
    }

    /// What operators are told about a route's policy.
    ///
    /// # Panics
    /// For a route that the config does not have.
    #[must_use]
    pub fn status(&self, route: RouteIndex) -> PolicyStatus {
        let in_force = self.split(route).borrow().clone();
        let wanted = self.flags.get(route.get()).map_or_else(String::new, |flags| flags.borrow().split_policy.name.clone());
        let left = in_force.health.quarantine_left(Instant::now());
        PolicyStatus {
            name: in_force.name.clone(),
            digest: in_force.digest.clone(),
            state: if left.is_some() { PolicyState::Quarantined } else { PolicyState::InForce },
            wanted,
            why: String::new(),
            in_force: InForceStatus {
                kind: in_force.kind,
                source: "shipped".to_owned(),
                since_unix_ms: self.since_unix_ms,
                strikes: in_force.health.strikes(),
                quarantined_for_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                last_failure: in_force.last_failure(),
            },
            refusals: Vec::new(),
        }
    }
}
