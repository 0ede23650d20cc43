//! The aliases that follow a deployment: `candidate` when its rollout is under way, `champion` when it is done.

use super::deploy_told::Told;
use super::model::who;
use super::model_validate::LIVE;
use crate::flags::random_hex;
use crate::registry::{AliasMove, Expected, Name, Registry, RegistryError};

/// The alias of the version that is being rolled out.
const CANDIDATE: &str = "candidate";

/// The version's rollout is under way.
pub(super) async fn is_under_way(registry: &Registry, (model, version): (&Name, u64), (route, rollout): (&str, &str), told: &Told) {
    follow(registry, (model, version), CANDIDATE, format!("rollout {rollout} on {route} began"), told).await;
}

/// The version's rollout is done.
pub(super) async fn is_done(registry: &Registry, (model, version): (&Name, u64), (route, rollout): (&str, &str), told: &Told) {
    follow(registry, (model, version), LIVE, format!("rollout {rollout} on {route} is done"), told).await;
}

/// The version is live again: somebody went back to it, for this reason.
pub(super) async fn is_back(registry: &Registry, (model, version): (&Name, u64), (route, why): (&str, &str), told: &Told) {
    let more = if why.is_empty() { String::new() } else { format!(": {why}") };
    follow(registry, (model, version), LIVE, format!("rolled back on {route}{more}"), told).await;
}

/// An alias that cannot be moved is no reason to fail: users have the version by now.
async fn follow(registry: &Registry, (model, version): (&Name, u64), alias: &str, why: String, told: &Told) {
    match point(registry, model, alias, version, why).await {
        Ok(true) => told.line("alias", &format!("{model}@{alias} points to version {version}")),
        Ok(false) => {}
        Err(error) => told.line("warning", &format!("warning: {model}@{alias} was not moved to version {version}: {error}")),
    }
}

/// Moves an alias to a version from where it is now; whether it was elsewhere.
async fn point(registry: &Registry, model: &Name, alias: &str, version: u64, why: String) -> Result<bool, RegistryError> {
    let Ok(alias) = alias.parse::<Name>() else { return Ok(false) };
    let at = registry.alias(model, &alias).await?.and_then(|last| last.version);
    if at == Some(version) {
        return Ok(false);
    }
    let to = AliasMove::to(Some(version), who(), why, crate::admin::now_unix_ms(), random_hex(16));
    registry.move_alias(model, &alias, to, Expected::At(at)).await.map(|_| true)
}
