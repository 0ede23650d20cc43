//! The registry of models: whether it is there, may be written to, and holds what can be read.

use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;

use serde_json::Value;
use tokio::time::timeout;

use super::Shared;
use super::admin::{ASKED_WITHIN, Running};
use super::finding::Finding;
use super::in_use::InUse;
use super::run::Check;
use crate::cli::admin_client::AdminClient;
use crate::config::{self, Config, Place};
use crate::registry::{Registry, RegistryError, TrustedKey};

pub(super) const PART: &str = "registry";
/// A store that is away is tried again for no longer than this.
const RETRY_FOR: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
/// Models whose versions are read.
const MODELS_READ: usize = 20;

pub(super) fn checks(config: &Shared, running: &Running) -> Vec<Check> {
    let (config, client) = (config.clone(), running.client());
    vec![Check::new(PART, "registry", async move { look(&config, client).await }).within(LIMIT)]
}

/// The routes of the router that runs; null where none says any.
async fn routes(client: Option<AdminClient>) -> Value {
    let Some(client) = client else { return Value::Null };
    timeout(ASKED_WITHIN, client.get("/api/v1/routes")).await.ok().and_then(Result::ok).unwrap_or_default()
}

async fn look(config: &Config, client: Option<AdminClient>) -> Vec<Finding> {
    let place = &config.registry.place;
    if let Place::Folder(folder) = place
        && !folder.exists()
    {
        return vec![no_folder(folder, config)];
    }
    let patient = config::Registry { retry_for: RETRY_FOR.min(config.registry.retry_for), ..config.registry.clone() };
    let registry = match Registry::open(&patient) {
        Ok(registry) => registry,
        Err(error) => return vec![away(&error)],
    };
    let mut findings = vec![writable(place)];
    findings.extend(config.registry.trusted_keys.iter().map(|path| trusted(path)));
    match objects(&registry, &InUse::of(config, &routes(client).await)).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(away(&error)),
    }
    findings
}

fn away(error: &RegistryError) -> Finding {
    let to_do = "mend [registry], its credentials, or the store; `switchback model list --config FILE` says when it is there";
    Finding::failed(PART, "registry", crate::cli::Failure::chain(error), to_do)
}

/// The folder that a config has by default is made by the first push; one that somebody named should be there.
fn no_folder(folder: &Path, config: &Config) -> Finding {
    let found = format!("{}: there is no such folder", folder.display());
    let is_default = folder.starts_with(&config.state.data_dir);
    if is_default && !config.routes.iter().any(|route| route.loading.is_some()) {
        return Finding::ok(PART, "registry", format!("{found} yet: nobody has pushed a model"));
    }
    Finding::failed(PART, "registry", found, "mount it, mend registry.url, or push a first model")
}

/// Without its keys nothing is loaded, and nothing deployed.
fn trusted(path: &Path) -> Finding {
    let what = path.display().to_string();
    match TrustedKey::read(path) {
        Ok(key) => Finding::ok(PART, "trusted key", format!("{what}: {}", key.id)),
        Err(error) => {
            let to_do = "put the public key of whoever signs there, or take it out of registry.trusted_keys: until then no version is loaded or deployed";
            Finding::failed(PART, "trusted key", crate::cli::Failure::chain(&error), to_do)
        }
    }
}

fn writable(place: &Place) -> Finding {
    match place {
        Place::Folder(folder) => match rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Finding::ok(PART, "registry", format!("{place}: can be read and pushed to")),
            Err(_) => Finding::ok(PART, "registry", format!("{place}: can be read, and not pushed to from here")),
        },
        Place::S3 { .. } => {
            Finding::ok(PART, "registry", format!("{place}: can be read; whether it can be pushed to only a push would show"))
        }
    }
}

/// Whether every version of every model can be read, and how many somebody has signed; the models of routes come first, and of those what is in use is there.
async fn objects(registry: &Registry, used: &InUse) -> Result<Vec<Finding>, RegistryError> {
    let mut models = registry.models_there().await?;
    models.sort_by_key(|model| !used.has(model));
    let (mut versions, mut signed, mut findings) = (0, 0, used.gone(&models));
    for model in models.iter().take(MODELS_READ) {
        let found = registry.versions_found(model).await?;
        versions += found.versions.len();
        signed += found.versions.iter().filter(|version| version.signature.is_some()).count();
        for (number, error) in &found.unreadable {
            let to_do = format!("push it anew as another version; `switchback model show {model}:{number}` says more");
            findings.push(Finding::failed(PART, format!("{model}:{number}"), error.to_string(), to_do));
        }
        findings.extend(used.look(registry, model, &found).await?);
    }
    let rest = models.len().saturating_sub(MODELS_READ);
    let others = if rest == 0 { String::new() } else { format!("; {rest} more model(s) were not looked at") };
    let what = format!("{versions} version(s) of {} model(s) can be read, {signed} are signed{others}", models.len() - rest);
    findings.insert(0, Finding::ok(PART, "models", what));
    Ok(findings)
}
