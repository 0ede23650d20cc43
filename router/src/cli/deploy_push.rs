//! The version that is deployed: the one that is named, the one that a file is already, or a new one.

use std::path::Path;

use super::Failure;
use super::deploy_told::Told;
use super::model_push::{Described, pushed, unreadable as warning_of};
use super::registry_args::failed;
use super::validating::named as version_label;
use crate::registry::{Found, Name, Reference, Registry, RegistryError, TrustedKey, Version, Which};
use crate::vocabulary::one_line;

/// The named version; it has to be there.
///
/// # Errors
/// There is none, or its artefact is gone.
pub(super) async fn named(registry: &Registry, model: &Name, number: u64) -> Result<Version, Failure> {
    let version = registry.version(&Reference { model: model.clone(), which: Which::Number(number) }).await.map_err(failed)?;
    match &version.removed {
        None => Ok(version),
        Some(removed) => {
            Err(Failure::refused(format!("{model}:{number}: its artefact was removed from the registry by {}", one_line(&removed.who))))
        }
    }
}

/// Which version of a file will do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Who may vouch for it. Without keys nobody has to.
    pub(super) keys: &'a [TrustedKey],
    /// Somebody would sign it here: then one that nobody vouches for is not it.
    pub(super) signs: bool,
    /// What is live, and what is on its way: of several those come first, in this order.
    pub(super) in_use: &'a [&'a str],
}

impl Wanted<'_> {
    /// Of versions of one file, from the first on, the one that is deployed: one that somebody who is trusted vouches for. Where nobody signs here, whoever
    /// vouches for it will do: it is refused later, with the reason. Of several it is the first, so that all who deploy a file at once mean the same.
    fn choose(&self, same: Vec<Version>) -> Option<Version> {
        let is_trusted = |version: &Version| version.check_signature(self.keys).is_ok();
        let (trusted, others): (Vec<Version>, Vec<Version>) = same.into_iter().partition(is_trusted);
        let mut fit = match trusted.is_empty() {
            false => trusted,
            true if self.signs => Vec::new(),
            true => others,
        };
        let in_use = self.in_use.iter().find_map(|label| fit.iter().position(|version| version_label(version) == *label));
        (!fit.is_empty()).then(|| fit.swap_remove(in_use.unwrap_or(0)))
    }
}

/// The version that is this file already. Those that nobody can read are told of.
///
/// # Errors
/// The registry is away.
pub(super) async fn already(
    registry: &Registry,
    model: &Name,
    sha256: &str,
    (wanted, told): (&Wanted<'_>, &Told),
) -> Result<Option<Version>, Failure> {
    let Found { versions, unreadable } = registry.versions_found(model).await.map_err(failed)?;
    unreadable.iter().for_each(|(_, error)| told.line("warning", &warning_of(error)));
    let is_it = |version: &Version| version.removed.is_none() && version.manifest.sha256 == sha256;
    Ok(wanted.choose(versions.into_iter().filter(is_it).collect()))
}

/// The version that is deployed after one was pushed: of those who push one file at once, each sees all that have a lower number than its own, and so all
/// take the same. `seen` is the last number that was there before anybody looked for the file.
///
/// # Errors
/// The registry is away.
pub(super) async fn first_of(registry: &Registry, pushed: Version, seen: u64, wanted: &Wanted<'_>) -> Result<Version, Failure> {
    let mut same = Vec::new();
    for number in seen.saturating_add(1)..pushed.manifest.version {
        let reference = Reference { model: pushed.manifest.model.clone(), which: Which::Number(number) };
        match registry.version(&reference).await {
            Ok(other) if other.removed.is_none() && other.manifest.sha256 == pushed.manifest.sha256 => same.push(other),
            Ok(_) | Err(RegistryError::Object { .. } | RegistryError::Unknown { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    same.push(pushed.clone());
    Ok(wanted.choose(same).unwrap_or(pushed))
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
