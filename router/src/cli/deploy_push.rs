//! The version that is deployed: the one that is named, the one that a file is already, or a new one.

use std::path::Path;

use super::Failure;
use super::model_push::{Described, pushed};
use super::registry_args::failed;
use crate::registry::{Found, Name, Reference, Registry, TrustedKey, Version, Which};

/// The named version; it has to be there.
///
/// # Errors
/// There is none, or its artefact is gone.
pub(super) async fn named(registry: &Registry, model: &Name, number: u64) -> Result<Version, Failure> {
    let version = registry.version(&Reference { model: model.clone(), which: Which::Number(number) }).await.map_err(failed)?;
    match &version.removed {
        None => Ok(version),
        Some(removed) => Err(Failure::refused(format!("{model}:{number}: its artefact was removed from the registry by {}", removed.who))),
    }
}

/// The version that is this file already: the newest one that somebody who is trusted vouches for. Where nobody signs here, whoever vouches for it will do: it is
/// refused later, with the reason.
///
/// # Errors
/// The registry is away.
pub(super) async fn already(
    registry: &Registry,
    model: &Name,
    sha256: &str,
    (keys, signs): (&[TrustedKey], bool),
) -> Result<Option<Version>, Failure> {
    let Found { versions, .. } = registry.versions_found(model).await.map_err(failed)?;
    let is_it = |version: &Version| version.removed.is_none() && version.manifest.sha256 == sha256;
    let mut same: Vec<Version> = versions.into_iter().filter(is_it).collect();
    let trusted = same.iter().rposition(|version| version.check_signature(keys).is_ok());
    Ok(match trusted {
        Some(index) => Some(same.swap_remove(index)),
        None if signs => None,
        None => same.pop(),
    })
}

/// Makes the file the next version.
///
/// # Errors
/// What is said of it makes no sense, or the registry is away.
pub(super) async fn push(
    registry: &Registry,
    model: &Name,
    file: &Path,
    (described, why): (&Described, &str),
    is_quiet: bool,
) -> Result<Version, Failure> {
    pushed(registry, described.push(model, file, why)?, is_quiet).await
}

/// Whether somebody who is trusted would vouch for a file that would be pushed.
///
/// # Errors
/// Nobody would.
pub(super) fn would_be_vouched_for(described: &Described, keys: &[TrustedKey]) -> Result<(), Failure> {
    let signs = described.key()?.map(|key| key.sign(&[]).key);
    let is_trusted = keys.is_empty() || signs.as_ref().is_some_and(|signs| keys.iter().any(|key| key.id == *signs));
    let by = signs
        .map_or_else(|| "nobody would sign it: --sign-key FILE does".to_owned(), |key| format!("it would be signed with the key {key}"));
    let known = || keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ");
    if is_trusted { Ok(()) } else { Err(Failure::refused(format!("it would not be trusted: {by}, and trusted are {}", known()))) }
}
